//! The address of a part for one type of message: bounded in messages and bytes, local to the process.
//!
//! ```text
//! ask ──> room? ──wait (downstream)──┐        permit travels with the message and is given back when
//!           └── refused (upstream) <─┘        handling ends, its asynchronous part included
//! ```
//!
//! The queue itself is actix's, which enforces no bound; the bound is the permit. All message types of one part share one
//! pool of permits, so a part's memory is bounded whatever it is sent.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::Recipient;
use tokio::sync::oneshot;
use tonic::Status;
use tracing::Span;

pub use self::pool::{Bounds, Load};
pub(crate) use self::pool::{NoRoom, Permit, Pool};
use crate::deadline::Deadline;

mod pool;

/// Sends messages of type `M` to one part, which answers with `R`. Clones are cheap and equal.
pub struct Mailbox<M: Send + 'static, R: Send + 'static = ()>(Arc<Inner<M, R>>);

struct Inner<M: Send + 'static, R: Send + 'static> {
    name: Arc<str>,
    to: Recipient<Envelope<M, R>>,
    pool: Arc<Pool>,
    weigh: Box<dyn Fn(&M) -> usize + Send + Sync>,
}

/// A message on its way, with its right to be there.
pub(crate) struct Envelope<M, R> {
    pub(crate) message: M,
    pub(crate) permit: Permit,
    /// Absent when nobody wants to know.
    pub(crate) reply: Option<oneshot::Sender<Result<R, Status>>>,
    pub(crate) span: Span,
}

impl<M, R> actix::Message for Envelope<M, R> {
    type Result = ();
}

/// A message that was not accepted, given back.
pub struct Refused<M> {
    /// The message, untouched.
    pub message: M,
    /// RESOURCE_EXHAUSTED when there is no room now, UNAVAILABLE when the part has stopped.
    pub status: Status,
}

impl<M> From<Refused<M>> for Status {
    fn from(refused: Refused<M>) -> Self {
        refused.status
    }
}

impl<M> fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The answer to an accepted message. Dropping it loses the answer, not the message.
#[must_use = "an answer that is not awaited is lost; `try_tell` sends without one"]
pub struct Answer<R> {
    name: Arc<str>,
    received: oneshot::Receiver<Result<R, Status>>,
    overdue: Pin<Box<tokio::time::Sleep>>,
}

impl<R> Future for Answer<R> {
    type Output = Result<R, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(received) = Pin::new(&mut self.received).poll(cx) {
            return Poll::Ready(received.unwrap_or_else(|_| Err(gone(&self.name))));
        }
        self.overdue.as_mut().poll(cx).map(|()| Err(Deadline::exceeded(&self.name)))
    }
}

/// What a caller hears when its message vanished with the part that held it.
fn gone(name: &str) -> Status {
    Status::unavailable(format!("{name} restarted or stopped meanwhile; whether the request took effect is unknown"))
}

impl<M: Send + 'static, R: Send + 'static> Mailbox<M, R> {
    pub(crate) fn new(
        name: Arc<str>,
        to: Recipient<Envelope<M, R>>,
        pool: Arc<Pool>,
        weigh: impl Fn(&M) -> usize + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { name, to, pool, weigh: Box::new(weigh) }))
    }

    /// Sends, waits for room and then for the answer. Only downstream in the data flow; see [`Flow`](crate::Flow).
    ///
    /// # Errors
    /// What the part answers; DEADLINE_EXCEEDED, when the outcome is unknown unless the text says that there was no room;
    /// UNAVAILABLE when the part restarts or has stopped.
    pub async fn ask(&self, message: M, deadline: impl Into<Deadline>) -> Result<R, Status> {
        let deadline = deadline.into();
        let permit = self.wait_for_room(&message, deadline).await?;
        self.post_with_answer(message, permit, deadline).await
    }

    /// Sends if there is room now.
    ///
    /// # Errors
    /// Gives the message back. What the part answers is in the returned future.
    pub fn try_ask(&self, message: M, deadline: impl Into<Deadline>) -> Result<Answer<R>, Refused<M>> {
        match self.0.pool.try_acquire((self.0.weigh)(&message)) {
            Ok(permit) => Ok(self.post_with_answer(message, permit, deadline.into())),
            Err(no_room) => Err(Refused { message, status: self.refusal(no_room) }),
        }
    }

    /// Sends without wanting an answer, waiting for room.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED when there was no room in time, UNAVAILABLE when the part has stopped. The message is lost then.
    pub async fn tell(&self, message: M, deadline: impl Into<Deadline>) -> Result<(), Status> {
        let permit = self.wait_for_room(&message, deadline.into()).await?;
        self.post(message, permit, None);
        Ok(())
    }

    /// Sends without wanting an answer, if there is room now.
    ///
    /// # Errors
    /// Gives the message back.
    pub fn try_tell(&self, message: M) -> Result<(), Refused<M>> {
        match self.0.pool.try_acquire((self.0.weigh)(&message)) {
            Ok(permit) => {
                self.post(message, permit, None);
                Ok(())
            }
            Err(no_room) => Err(Refused { message, status: self.refusal(no_room) }),
        }
    }

    /// The name of the part behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The figures of the pool that all mailboxes of this part share.
    #[must_use]
    pub fn load(&self) -> Load {
        self.0.pool.load()
    }

    async fn wait_for_room(&self, message: &M, deadline: Deadline) -> Result<Permit, Status> {
        let bytes = (self.0.weigh)(message);
        // The common case sets no timer.
        match self.0.pool.try_acquire_quietly(bytes) {
            Ok(permit) => return Ok(permit),
            Err(NoRoom::Closed) => return Err(self.refusal(NoRoom::Closed)),
            Err(NoRoom::Full) => {}
        }
        tokio::select! {
            biased;
            acquired = self.0.pool.acquire(bytes) => acquired.map_err(|no_room| self.refusal(no_room)),
            () = deadline.reached() => {
                Err(Status::deadline_exceeded(format!("no room in the mailbox of {} in time; nothing was sent", self.0.name)))
            }
        }
    }

    fn post_with_answer(&self, message: M, permit: Permit, deadline: Deadline) -> Answer<R> {
        let (reply, received) = oneshot::channel();
        self.post(message, permit, Some(reply));
        Answer { name: Arc::clone(&self.0.name), received, overdue: Box::pin(deadline.sleep()) }
    }

    fn post(&self, message: M, permit: Permit, reply: Option<oneshot::Sender<Result<R, Status>>>) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the permit is the bound; a closed queue drops the reply, which tells"
        )]
        self.0.to.do_send(Envelope { message, permit, reply, span: Span::current() });
    }

    fn refusal(&self, no_room: NoRoom) -> Status {
        let name = &self.0.name;
        match no_room {
            NoRoom::Full => Status::resource_exhausted(format!("the mailbox of {name} is full")),
            NoRoom::Closed => Status::unavailable(format!("{name} has stopped")),
        }
    }
}

impl<M: Send + 'static, R: Send + 'static> Clone for Mailbox<M, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Send + 'static, R: Send + 'static> fmt::Debug for Mailbox<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({})", self.0.name)
    }
}

#[cfg(test)]
mod tests;

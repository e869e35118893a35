//! The way from one component to another: one call, and the wiring decides whether it crosses a thread or a network.
//!
//! ```text
//!                      ┌─ Local ──> Mailbox ──> part                        moves the struct, encodes nothing
//! Endpoint::call(q) ───┼─ Remote ─> HTTP/2 ──> EndpointRouter ──> Local     on the other side
//!                      └─ Link ───> a stream that the other side opened ──> EndpointRouter ──> Local
//! ```
//!
//! The request and reply are `protocol` messages; the error is a [`tonic::Status`] with code, message, details and metadata
//! in every form. The remote path is the service of the component and the request's name:
//! `/vivace.v1.LiveStore/FindTraceRequest`. So two components that answer the same messages can share a process.

use std::fmt;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use http::uri::PathAndQuery;
use tonic::Status;

use self::linked::Linked;
pub use self::remote::Peer;
use self::remote::Remote;
pub use self::router::{Answers, EndpointRouter, deadline_of};
use crate::deadline::Deadline;
use crate::link::Links;
use crate::mailbox::Mailbox;

mod linked;
mod remote;
mod router;

/// A message that can cross the network. Every generated `protocol` type is one.
pub trait Wire: prost::Message + prost::Name + Default + Send + 'static {}

impl<T: prost::Message + prost::Name + Default + Send + 'static> Wire for T {}

/// A stream of replies.
pub type Replies<R> = BoxStream<'static, Result<R, Status>>;

/// One question, one answer. Clones are cheap and equal.
pub struct Endpoint<Q: Wire, R: Wire>(Form<Q, R>);

enum Form<Q: Wire, R: Wire> {
    Local(Mailbox<Q, R>),
    Remote(Remote),
    Link(Linked),
}

/// One question, a stream of answers. The deadline covers the whole stream.
pub struct StreamEndpoint<Q: Wire, R: Wire>(StreamForm<Q, R>);

enum StreamForm<Q: Wire, R: Wire> {
    Local(Mailbox<Q, Replies<R>>),
    Remote(Remote),
    Link(Linked),
}

/// What to do when the mailbox at the other end is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Wait,
    Try,
}

impl<Q: Wire, R: Wire> Endpoint<Q, R> {
    /// To a part of this process.
    #[must_use]
    pub fn local(mailbox: Mailbox<Q, R>) -> Self {
        Self(Form::Local(mailbox))
    }

    /// To a component of another process; `service` is what its [`EndpointRouter`] is called.
    #[must_use]
    pub fn remote(peer: &Peer, service: &str) -> Self {
        Self(Form::Remote(Remote::new(peer, path::<Q>(service))))
    }

    /// To whichever process has opened a link to this one and is free.
    #[must_use]
    pub fn linked(links: &Links, service: &str) -> Self {
        Self(Form::Link(Linked::new(links, path::<Q>(service))))
    }

    /// Asks and waits for room at the other end; only downstream in the data flow.
    ///
    /// # Errors
    /// What the part answers. DEADLINE_EXCEEDED: the outcome is unknown. UNAVAILABLE: retry, here or with a replica.
    pub async fn call(&self, request: Q, deadline: impl Into<Deadline>) -> Result<R, Status> {
        self.with(request, deadline.into(), Admission::Wait).await
    }

    /// Asks if there is room at the other end.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when there is none; otherwise as [`Endpoint::call`].
    pub async fn try_call(&self, request: Q, deadline: impl Into<Deadline>) -> Result<R, Status> {
        self.with(request, deadline.into(), Admission::Try).await
    }

    pub(crate) async fn with(&self, request: Q, deadline: Deadline, admission: Admission) -> Result<R, Status> {
        match &self.0 {
            Form::Local(mailbox) => match admission {
                Admission::Wait => mailbox.ask(request, deadline).await,
                Admission::Try => mailbox.try_ask(request, deadline)?.await,
            },
            Form::Remote(remote) => remote.ask(request, deadline, admission).await,
            Form::Link(linked) => linked.ask(&request, deadline, admission).await,
        }
    }

    /// The name of the part or peer behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            Form::Local(mailbox) => mailbox.name(),
            Form::Remote(remote) => remote.name(),
            Form::Link(linked) => linked.name(),
        }
    }
}

impl<Q: Wire, R: Wire> StreamEndpoint<Q, R> {
    /// To a part of this process, which answers with a stream.
    #[must_use]
    pub fn local(mailbox: Mailbox<Q, Replies<R>>) -> Self {
        Self(StreamForm::Local(mailbox))
    }

    /// To a component of another process; `service` is what its [`EndpointRouter`] is called.
    #[must_use]
    pub fn remote(peer: &Peer, service: &str) -> Self {
        Self(StreamForm::Remote(Remote::new(peer, path::<Q>(service))))
    }

    /// To whichever process has opened a link to this one and is free.
    #[must_use]
    pub fn linked(links: &Links, service: &str) -> Self {
        Self(StreamForm::Link(Linked::new(links, path::<Q>(service))))
    }

    /// Asks and waits for room at the other end.
    ///
    /// # Errors
    /// As [`Endpoint::call`]; what goes wrong later is in the stream, whose last item it is.
    pub async fn call(&self, request: Q, deadline: impl Into<Deadline>) -> Result<Replies<R>, Status> {
        self.with(request, deadline.into(), Admission::Wait).await
    }

    /// Asks if there is room at the other end.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when there is none; otherwise as [`StreamEndpoint::call`].
    pub async fn try_call(&self, request: Q, deadline: impl Into<Deadline>) -> Result<Replies<R>, Status> {
        self.with(request, deadline.into(), Admission::Try).await
    }

    /// As [`StreamEndpoint::call`] for answers that a slow reader may take long to read: each wait for the other side lasts for
    /// `patience` at most, the whole for `longest`.
    ///
    /// # Errors
    /// As [`StreamEndpoint::call`].
    pub async fn call_patiently(
        &self,
        request: Q,
        patience: Duration,
        longest: Duration,
    ) -> Result<Replies<R>, Status> {
        let begun = self.call(request, longest);
        let replies = Deadline::after(patience).bound(self.name(), begun).await?;
        Ok(patient(replies, patience, self.name()))
    }

    pub(crate) async fn with(
        &self,
        request: Q,
        deadline: Deadline,
        admission: Admission,
    ) -> Result<Replies<R>, Status> {
        let replies = match &self.0 {
            StreamForm::Local(mailbox) => match admission {
                Admission::Wait => mailbox.ask(request, deadline).await,
                Admission::Try => mailbox.try_ask(request, deadline)?.await,
            },
            StreamForm::Remote(remote) => remote.ask_stream(request, deadline, admission).await,
            StreamForm::Link(linked) => linked.ask_stream(&request, deadline, admission).await,
        }?;
        Ok(until(replies, deadline, self.name()))
    }

    /// The name of the part or peer behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            StreamForm::Local(mailbox) => mailbox.name(),
            StreamForm::Remote(remote) => remote.name(),
            StreamForm::Link(linked) => linked.name(),
        }
    }
}

/// Ends a stream with DEADLINE_EXCEEDED at the deadline, and after its first error.
fn until<R: Send + 'static>(replies: Replies<R>, deadline: Deadline, name: &str) -> Replies<R> {
    let late = Deadline::exceeded(name);
    let overdue = deadline.sleep().map(move |()| Err(late)).into_stream().boxed();
    // The deadline ends the merged stream by being its error; the end of the replies ends it by the marker.
    let replies = replies.map(Some).chain(futures::stream::once(std::future::ready(None))).boxed();
    let merged = futures::stream::select_with_strategy(replies, overdue.map(Some), |(): &mut ()| {
        futures::stream::PollNext::Left
    });
    futures::stream::unfold(Some(merged), |merged| async move {
        let mut merged = merged?;
        match merged.next().await.flatten()? {
            Ok(reply) => Some((Ok(reply), Some(merged))),
            // Both sources are dropped with the error: neither could end the stream any more by itself.
            Err(status) => Some((Err(status), None)),
        }
    })
    .boxed()
}

/// Ends a stream with DEADLINE_EXCEEDED when a wait for its next item takes longer than `patience`. The time in which nobody asks
/// for one does not count.
fn patient<R: Send + 'static>(replies: Replies<R>, patience: Duration, name: &str) -> Replies<R> {
    let late = Deadline::exceeded(name);
    futures::stream::unfold(Some((replies, late)), move |state| async move {
        let (mut replies, late) = state?;
        match tokio::time::timeout(patience, replies.next()).await {
            Ok(Some(Ok(reply))) => Some((Ok(reply), Some((replies, late)))),
            Ok(Some(Err(status))) => Some((Err(status), None)),
            Ok(None) => None,
            Err(_) => Some((Err(late), None)),
        }
    })
    .boxed()
}

fn path<Q: Wire>(service: &str) -> PathAndQuery {
    let text = format!("/{service}/{}", Q::NAME);
    PathAndQuery::try_from(text).expect("names of services and messages are letters, digits, dots and underscores")
}

impl<Q: Wire, R: Wire> Clone for Endpoint<Q, R> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Form::Local(mailbox) => Form::Local(mailbox.clone()),
            Form::Remote(remote) => Form::Remote(remote.clone()),
            Form::Link(linked) => Form::Link(linked.clone()),
        })
    }
}

impl<Q: Wire, R: Wire> Clone for StreamEndpoint<Q, R> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            StreamForm::Local(mailbox) => StreamForm::Local(mailbox.clone()),
            StreamForm::Remote(remote) => StreamForm::Remote(remote.clone()),
            StreamForm::Link(linked) => StreamForm::Link(linked.clone()),
        })
    }
}

impl<Q: Wire, R: Wire> fmt::Debug for Endpoint<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.name())
    }
}

impl<Q: Wire, R: Wire> fmt::Debug for StreamEndpoint<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamEndpoint({})", self.name())
    }
}

#[cfg(test)]
mod tests;

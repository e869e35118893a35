//! What an actor is made of: a plain struct with state, one `Serve` impl per message, and a way to end well.
//!
//! Nothing here knows actix. A part runs on one thread and is never entered twice at once; it may hold `Rc` and `RefCell`.

use std::fmt;
use std::pin::Pin;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tonic::Status;

use crate::cell::Cx;

/// The state of an actor.
///
/// ```
/// use vivace_runtime::{Cx, Part, Reply, Serve};
///
/// #[derive(Default)]
/// struct Counter { seen: u64 }
///
/// struct Add(u64);
///
/// impl Part for Counter {}
///
/// impl Serve<Add> for Counter {
///     type Reply = u64;
///
///     fn serve(&mut self, Add(n): Add, _cx: &mut Cx<Self>) -> Reply<u64> {
///         self.seen += n;
///         Reply::ok(self.seen)
///     }
/// }
/// ```
pub trait Part: Sized + 'static {
    /// Called once after the part is in its place: the moment to set timers and start loops through `cx`.
    fn started(&mut self, cx: &mut Cx<Self>) {
        let _ = cx;
    }

    /// Called once when the process or the component stops, after every accepted message has been handled and before the part
    /// is dropped. The returned future is awaited until the drain's deadline; continuations set through `cx` still run
    /// meanwhile, so stop your timers and loops here.
    fn drain(&mut self, cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        let _ = cx;
        std::future::ready(()).boxed_local()
    }

    /// A small picture of the state for tests and for `/status/actors`. No secrets, no unbounded lists.
    fn observe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// A part that handles messages of type `M`. The handler is short: control here, IO in the reply's future, compute on
/// [`Compute`](crate::Compute).
pub trait Serve<M>: Part {
    /// What the sender gets.
    type Reply: Send + 'static;

    /// Handles one message.
    fn serve(&mut self, message: M, cx: &mut Cx<Self>) -> Reply<Self::Reply>;
}

/// An answer, now or later. The permit of the message is held until it is there.
#[must_use = "the answer must be returned from the handler"]
pub enum Reply<R> {
    /// The answer.
    Now(Result<R, Status>),
    /// A future that computes it; it runs beside the part and cannot touch it. To do that, see [`Cx::then`] and [`Responder`].
    Later(LocalBoxFuture<'static, Result<R, Status>>),
    /// As [`Reply::Later`], but the future is dropped as soon as nobody waits for the answer any more.
    Awaited(LocalBoxFuture<'static, Result<R, Status>>),
}

impl<R: 'static> Reply<R> {
    /// A success, now.
    pub fn ok(reply: R) -> Self {
        Self::Now(Ok(reply))
    }

    /// A failure, now.
    pub fn err(status: Status) -> Self {
        Self::Now(Err(status))
    }

    /// A future's result.
    pub fn later(future: impl Future<Output = Result<R, Status>> + 'static) -> Self {
        Self::Later(future.boxed_local())
    }

    /// A future's result, which changes nothing and is given up when nobody waits for it any more: for questions that cost much.
    pub fn awaited(future: impl Future<Output = Result<R, Status>> + 'static) -> Self {
        Self::Awaited(future.boxed_local())
    }

    /// An answer that some later event gives: keep the [`Responder`], return the `Reply`.
    pub fn deferred() -> (Responder<R>, Self) {
        let (send, receive) = oneshot::channel();
        let later =
            receive.map(|received| received.unwrap_or_else(|_| Err(Status::internal("the request was given up"))));
        (Responder(send), Self::Later(later.boxed_local()))
    }
}

impl<R: 'static> From<Result<R, Status>> for Reply<R> {
    fn from(result: Result<R, Status>) -> Self {
        Self::Now(result)
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(Ok(_)) => "Now(Ok)",
            Self::Now(Err(_)) => "Now(Err)",
            Self::Later(_) => "Later",
            Self::Awaited(_) => "Awaited",
        })
    }
}

/// Gives a deferred answer. Dropped without one, the sender hears INTERNAL.
#[derive(Debug)]
pub struct Responder<R>(oneshot::Sender<Result<R, Status>>);

impl<R> Responder<R> {
    /// Answers; true if somebody was still waiting.
    pub fn respond(self, result: Result<R, Status>) -> bool {
        self.0.send(result).is_ok()
    }

    /// Whether the sender's request was cut off by a restart of the part. A sender that stopped waiting is not seen here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Why a part could not be built or go on: a text with the whole chain of causes. Every error converts into it by `?`.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure described by a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a factory returns: boxed because a part may have to read its log before it can answer.
pub(crate) type Building<P> = Pin<Box<dyn Future<Output = Result<P, Failure>>>>;

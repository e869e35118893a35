//! The way from one component to another: one call, and the wiring decides whether it crosses a thread or a network.
//!
//! ```text
//!                      ┌─ Local ──> Mailbox ──> part            moves the struct, encodes nothing
//! Endpoint::call(q) ───┤
//!                      └─ Remote ─> HTTP/2 ─> EndpointRouter ─> Local on the other side
//! ```
//!
//! The request and reply are `protocol` messages; the error is a [`tonic::Status`] with code, message, details and metadata
//! in both forms. The remote path is derived from the request's name: `/vivace.v1.Endpoint/FindTraceRequest`.

use std::fmt;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub use self::router::{EndpointRouter, deadline_of};
use crate::deadline::Deadline;
use crate::dial::MAX_MESSAGE_BYTES;
use crate::mailbox::Mailbox;

mod router;

/// A message that can cross the network. Every generated `protocol` type is one.
pub trait Wire: prost::Message + prost::Name + Default + Send + 'static {}

impl<T: prost::Message + prost::Name + Default + Send + 'static> Wire for T {}

/// A stream of replies.
pub type Replies<R> = BoxStream<'static, Result<R, Status>>;

/// Says to the other side whether to wait for room in the mailbox or to refuse.
const ADMISSION: &str = "vivace-admission";

/// One question, one answer. Clones are cheap and equal.
pub struct Endpoint<Q: Wire, R: Wire>(Form<Q, R>);

enum Form<Q: Wire, R: Wire> {
    Local(Mailbox<Q, R>),
    Remote(Remote),
}

/// One question, a stream of answers. The deadline covers the whole stream.
pub struct StreamEndpoint<Q: Wire, R: Wire>(StreamForm<Q, R>);

enum StreamForm<Q: Wire, R: Wire> {
    Local(Mailbox<Q, Replies<R>>),
    Remote(Remote),
}

#[derive(Clone)]
struct Remote {
    channel: Channel,
    path: PathAndQuery,
    peer: Arc<str>,
}

/// What to do when the mailbox at the other end is full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admission {
    Wait,
    Try,
}

impl<Q: Wire, R: Wire> Endpoint<Q, R> {
    /// To a part of this process.
    #[must_use]
    pub fn local(mailbox: Mailbox<Q, R>) -> Self {
        Self(Form::Local(mailbox))
    }

    /// To another process. `peer` names it in errors.
    #[must_use]
    pub fn remote(channel: Channel, peer: impl Into<Arc<str>>) -> Self {
        Self(Form::Remote(Remote { channel, path: path::<Q>("Endpoint"), peer: peer.into() }))
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

    async fn with(&self, request: Q, deadline: Deadline, admission: Admission) -> Result<R, Status> {
        match &self.0 {
            Form::Local(mailbox) => match admission {
                Admission::Wait => mailbox.ask(request, deadline).await,
                Admission::Try => mailbox.try_ask(request, deadline)?.await,
            },
            Form::Remote(remote) => {
                let call = async {
                    let mut client = remote.client().await?;
                    let request = remote.request(request, deadline, admission);
                    let codec = ProstCodec::<Q, R>::default();
                    client.unary(request, remote.path.clone(), codec).await.map(tonic::Response::into_inner)
                };
                deadline.bound(&remote.peer, call).await.map_err(|status| remote.judge(status))
            }
        }
    }

    /// The name of the part or peer behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            Form::Local(mailbox) => mailbox.name(),
            Form::Remote(remote) => &remote.peer,
        }
    }
}

impl<Q: Wire, R: Wire> StreamEndpoint<Q, R> {
    /// To a part of this process, which answers with a stream.
    #[must_use]
    pub fn local(mailbox: Mailbox<Q, Replies<R>>) -> Self {
        Self(StreamForm::Local(mailbox))
    }

    /// To another process. `peer` names it in errors.
    #[must_use]
    pub fn remote(channel: Channel, peer: impl Into<Arc<str>>) -> Self {
        Self(StreamForm::Remote(Remote { channel, path: path::<Q>("Stream"), peer: peer.into() }))
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

    async fn with(&self, request: Q, deadline: Deadline, admission: Admission) -> Result<Replies<R>, Status> {
        match &self.0 {
            StreamForm::Local(mailbox) => {
                let replies = match admission {
                    Admission::Wait => mailbox.ask(request, deadline).await,
                    Admission::Try => mailbox.try_ask(request, deadline)?.await,
                }?;
                Ok(until(replies, deadline, mailbox.name()))
            }
            StreamForm::Remote(remote) => {
                let call = async {
                    let mut client = remote.client().await?;
                    let request = remote.request(request, deadline, admission);
                    client.server_streaming(request, remote.path.clone(), ProstCodec::<Q, R>::default()).await
                };
                let replies =
                    deadline.bound(&remote.peer, call).await.map_err(|status| remote.judge(status))?.into_inner();
                let (judge, peer) = (remote.clone(), Arc::clone(&remote.peer));
                Ok(until(replies.map(move |item| item.map_err(|status| judge.judge(status))).boxed(), deadline, &peer))
            }
        }
    }

    /// The name of the part or peer behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            StreamForm::Local(mailbox) => mailbox.name(),
            StreamForm::Remote(remote) => &remote.peer,
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

fn path<Q: Wire>(service: &str) -> PathAndQuery {
    let text = if Q::PACKAGE.is_empty() {
        format!("/{service}/{}", Q::NAME)
    } else {
        format!("/{}.{service}/{}", Q::PACKAGE, Q::NAME)
    };
    PathAndQuery::try_from(text).expect("protobuf names are letters, digits, dots and underscores")
}

impl Remote {
    async fn client(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        match client.ready().await {
            Ok(()) => Ok(client),
            Err(error) => {
                let mut status = Status::unavailable(format!("{} cannot be reached", self.peer));
                status.set_source(Arc::new(error));
                Err(status)
            }
        }
    }

    fn request<Q>(&self, message: Q, deadline: Deadline, admission: Admission) -> Request<Q> {
        let mut request = Request::new(message);
        request.set_timeout(deadline.left());
        if admission == Admission::Try {
            request.metadata_mut().insert(ADMISSION, MetadataValue::from_static("try"));
        }
        request
    }

    /// tonic reports its own timeout as CANCELLED; a caller must see one code for one event, whatever the form.
    fn judge(&self, status: Status) -> Status {
        match status.code() {
            Code::Cancelled if status.message() == "Timeout expired" => Deadline::exceeded(&self.peer),
            _ => status,
        }
    }
}

impl<Q: Wire, R: Wire> Clone for Endpoint<Q, R> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Form::Local(mailbox) => Form::Local(mailbox.clone()),
            Form::Remote(remote) => Form::Remote(remote.clone()),
        })
    }
}

impl<Q: Wire, R: Wire> Clone for StreamEndpoint<Q, R> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            StreamForm::Local(mailbox) => StreamForm::Local(mailbox.clone()),
            StreamForm::Remote(remote) => StreamForm::Remote(remote.clone()),
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

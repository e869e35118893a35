//! The form of an endpoint that is a gRPC call.

use std::sync::Arc;

use futures::StreamExt;
use http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::{Admission, Replies, Wire};
use crate::deadline::Deadline;
use crate::dial::{MAX_MESSAGE_BYTES, MAX_REPLY_BYTES};

/// Says to the other side whether to wait for room in the mailbox or to refuse.
pub(super) const ADMISSION: &str = "vivace-admission";

/// A process that is asked: a channel to it, what errors call it, and how large messages may be.
#[derive(Debug, Clone)]
pub struct Peer {
    channel: Channel,
    name: Arc<str>,
    max_request_bytes: usize,
    max_reply_bytes: usize,
}

impl Peer {
    /// A peer with the usual limits. `name` names it in errors.
    #[must_use]
    pub fn new(channel: Channel, name: impl Into<Arc<str>>) -> Self {
        let (max_request_bytes, max_reply_bytes) = (MAX_MESSAGE_BYTES, MAX_REPLY_BYTES);
        Self { channel, name: name.into(), max_request_bytes, max_reply_bytes }
    }

    /// With other limits of one request and one reply, in bytes.
    #[must_use]
    pub fn limits(self, max_request_bytes: usize, max_reply_bytes: usize) -> Self {
        Self { max_request_bytes, max_reply_bytes, ..self }
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

#[derive(Clone)]
pub(super) struct Remote {
    peer: Peer,
    path: PathAndQuery,
}

impl Remote {
    pub(super) fn new(peer: &Peer, path: PathAndQuery) -> Self {
        Self { peer: peer.clone(), path }
    }

    pub(super) fn name(&self) -> &str {
        &self.peer.name
    }

    pub(super) async fn ask<Q: Wire, R: Wire>(
        &self,
        request: Q,
        deadline: Deadline,
        admission: Admission,
    ) -> Result<R, Status> {
        let call = async {
            let mut client = self.client().await?;
            let request = self.request(request, deadline, admission);
            let codec = ProstCodec::<Q, R>::default();
            client.unary(request, self.path.clone(), codec).await.map(tonic::Response::into_inner)
        };
        deadline.bound(&self.peer.name, call).await.map_err(|status| self.judge(status))
    }

    pub(super) async fn ask_stream<Q: Wire, R: Wire>(
        &self,
        request: Q,
        deadline: Deadline,
        admission: Admission,
    ) -> Result<Replies<R>, Status> {
        let call = async {
            let mut client = self.client().await?;
            let request = self.request(request, deadline, admission);
            client.server_streaming(request, self.path.clone(), ProstCodec::<Q, R>::default()).await
        };
        let bound = deadline.bound(&self.peer.name, call).await;
        let replies = bound.map_err(|status| self.judge(status))?.into_inner();
        let judge = self.clone();
        Ok(replies.map(move |item| item.map_err(|status| judge.judge(status))).boxed())
    }

    async fn client(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut client = tonic::client::Grpc::new(self.peer.channel.clone())
            .max_decoding_message_size(self.peer.max_reply_bytes)
            .max_encoding_message_size(self.peer.max_request_bytes);
        client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(client)
    }

    fn request<Q>(&self, message: Q, deadline: Deadline, admission: Admission) -> Request<Q> {
        let mut request = Request::new(message);
        request.set_timeout(deadline.left());
        if admission == Admission::Try {
            request.metadata_mut().insert(ADMISSION, MetadataValue::from_static("try"));
        }
        request
    }

    /// tonic reports its own timeout as CANCELLED, and a connection that broke under a call as UNKNOWN; a caller must see one
    /// code for one event, whatever the form.
    fn judge(&self, status: Status) -> Status {
        let broken = std::error::Error::source(&status).is_some();
        match status.code() {
            Code::Cancelled if status.message() == "Timeout expired" => Deadline::exceeded(&self.peer.name),
            Code::Unknown | Code::Internal | Code::Cancelled | Code::Unavailable if broken => self.unreachable(status),
            _ => status,
        }
    }

    fn unreachable(&self, error: impl std::error::Error + Send + Sync + 'static) -> Status {
        let mut status = Status::unavailable(format!("{} cannot be reached: {}", self.peer.name, causes(&error)));
        status.set_source(Arc::new(error));
        status
    }
}

/// What is behind an error, on one line: the library's own text says "transport error" only.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

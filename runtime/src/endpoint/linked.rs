//! The form of an endpoint whose other side opened the connection.

use bytes::Bytes;
use futures::StreamExt;
use http::uri::PathAndQuery;
use tonic::Status;

use super::{Admission, Replies, Wire};
use crate::deadline::Deadline;
use crate::link::{Event, Links};

#[derive(Clone)]
pub(super) struct Linked {
    links: Links,
    path: PathAndQuery,
}

impl Linked {
    pub(super) fn new(links: &Links, path: PathAndQuery) -> Self {
        Self { links: links.clone(), path }
    }

    pub(super) fn name(&self) -> &str {
        self.links.name()
    }

    pub(super) async fn ask<Q: Wire, R: Wire>(
        &self,
        request: &Q,
        deadline: Deadline,
        admission: Admission,
    ) -> Result<R, Status> {
        let mut events = self.links.ask(self.path.as_str(), request.encode_to_vec().into(), deadline, admission)?;
        let answer = async {
            let mut reply = None;
            while let Some(event) = events.recv().await {
                match event {
                    Event::Started => {}
                    Event::Reply(bytes) => reply = Some(self.decode(bytes)?),
                    Event::Ended(Ok(())) => {
                        return reply.ok_or_else(|| Status::internal(format!("{} answered nothing", self.name())));
                    }
                    Event::Ended(Err(status)) => return Err(status),
                }
            }
            Err(Status::unavailable(format!("{} went away", self.name())))
        };
        deadline.bound(self.name(), answer).await
    }

    pub(super) async fn ask_stream<Q: Wire, R: Wire>(
        &self,
        request: &Q,
        deadline: Deadline,
        admission: Admission,
    ) -> Result<Replies<R>, Status> {
        let mut events = self.links.ask(self.path.as_str(), request.encode_to_vec().into(), deadline, admission)?;
        let started = async {
            match events.recv().await {
                Some(Event::Started) => Ok(()),
                Some(Event::Ended(Err(status))) => Err(status),
                Some(Event::Reply(_) | Event::Ended(Ok(()))) => {
                    Err(Status::internal(format!("{} answered before it had begun", self.name())))
                }
                None => Err(Status::unavailable(format!("{} went away", self.name()))),
            }
        };
        deadline.bound(self.name(), started).await?;
        let linked = self.clone();
        let replies = futures::stream::unfold(Some((events, linked)), |state| async move {
            let (mut events, linked) = state?;
            match events.recv().await {
                Some(Event::Reply(bytes)) => match linked.decode(bytes) {
                    Ok(reply) => Some((Ok(reply), Some((events, linked)))),
                    Err(status) => Some((Err(status), None)),
                },
                Some(Event::Ended(Ok(()))) => None,
                Some(Event::Ended(Err(status))) => Some((Err(status), None)),
                Some(Event::Started) => Some((Err(Status::internal("a reply that begins twice")), None)),
                None => Some((Err(Status::unavailable(format!("{} went away", linked.name()))), None)),
            }
        });
        Ok(replies.boxed())
    }

    fn decode<R: Wire>(&self, bytes: Bytes) -> Result<R, Status> {
        R::decode(bytes).map_err(|error| Status::internal(format!("a reply of {}: {error}", self.name())))
    }
}

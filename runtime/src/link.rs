//! Links: streams that peers open to this process, so that it can ask *them*. A querier opens links to every query-frontend;
//! the query-frontend needs not know where queriers are.
//!
//! ```text
//!  asker                                                           answerer (opens the connection)
//!  Links ── call ──> queue ──> attendant of a free link ── Down ──> LinkTo ──> Answers ──> endpoint
//!                                        ^─────────────── Up ─────────┘
//! ```
//!
//! A link carries one call at a time, so HTTP/2's flow control of the stream is that of the call. A call whose asker is gone
//! is cancelled at the other side, and the link is free again once that has said so. Both sides tell that they are alive every
//! few seconds; a link that is silent is given up, and its call ends with UNAVAILABLE, which a retry takes elsewhere: when a link
//! breaks under a call, the other links of the same process are asked for a sign of life before they get another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use self::attendant::Attendant;
use self::frame::{Down, Up};
pub use self::worker::LinkTo;
use crate::deadline::Deadline;
use crate::dial::{MAX_MESSAGE_BYTES, MAX_REPLY_BYTES};
use crate::endpoint::Admission;

mod attendant;
mod frame;
#[cfg(test)]
mod tests;
mod worker;

/// Where links are opened.
const PATH: &str = "/vivace.v1.Link/Open";
/// Calls that wait for a free link, at most: what is asked in turn never gets near.
const MAX_WAITING: usize = 4096;
/// Links at once, at most.
const MAX_LINKS: usize = 10_000;
/// How often each side says that it is alive.
const BEAT: Duration = Duration::from_secs(5);
/// How long a side may be silent: three beats.
const SILENCE: Duration = Duration::from_secs(15);

/// The asker's side: all links that peers have opened. Clones are one.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    calls: mpsc::Sender<Call>,
    waiting: Mutex<mpsc::Receiver<Call>>,
    connected: watch::Sender<usize>,
    serial: AtomicU64,
    closed: CancellationToken,
    /// Processes of which a link has broken under a call.
    broken: broadcast::Sender<u64>,
}

/// A question on its way to a free link.
pub(crate) struct Call {
    path: String,
    request: Bytes,
    deadline: Deadline,
    admission: Admission,
    events: mpsc::Sender<Event>,
}

/// What becomes of a call. Dropping the receiving end cancels it.
#[derive(Debug)]
pub(crate) enum Event {
    Started,
    Reply(Bytes),
    Ended(Result<(), Status>),
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Links({}, {} connected)", self.0.name, self.connected())
    }
}

impl Links {
    /// No links yet. `name` says in errors who was asked, for instance `queriers`.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let (calls, waiting) = mpsc::channel(MAX_WAITING);
        Self(Arc::new(Inner {
            name: name.into(),
            calls,
            waiting: Mutex::new(waiting),
            connected: watch::Sender::new(0),
            serial: AtomicU64::new(0),
            closed: CancellationToken::new(),
            broken: broadcast::Sender::new(64),
        }))
    }

    /// What errors call the other side.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Links that are open now: as many calls can run at once.
    #[must_use]
    pub fn connected(&self) -> usize {
        *self.0.connected.borrow()
    }

    /// Follows their number.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.0.connected.subscribe()
    }

    /// Ends all links and takes no more: the process stops. Calls that run end with UNAVAILABLE.
    pub fn close(&self) {
        self.0.closed.cancel();
    }

    /// Where peers open links, to be merged into the gRPC server.
    pub fn router(&self) -> Router {
        let links = self.clone();
        let handler = move |request: axum::extract::Request| {
            let links = links.clone();
            async move {
                let open = tower::service_fn(|request: Request<Streaming<Up>>| {
                    let links = links.clone();
                    async move { links.open(request.into_inner()).map(Response::new) }
                });
                Grpc::new(ProstCodec::<Down, Up>::default())
                    .max_decoding_message_size(MAX_REPLY_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
                    .streaming(open, request)
                    .await
            }
        };
        Router::new().route(PATH, post(handler))
    }

    fn open(&self, up: Streaming<Up>) -> Result<ReceiverStream<Result<Down, Status>>, Status> {
        if self.connected() >= MAX_LINKS {
            return Err(Status::resource_exhausted(format!("{MAX_LINKS} links are open already")));
        }
        if self.0.closed.is_cancelled() {
            return Err(Status::unavailable("the process stops"));
        }
        let (down, outgoing) = mpsc::channel(1);
        let attendant = Attendant::new(self.clone(), down);
        tokio::spawn(attendant.run(up.boxed()));
        Ok(ReceiverStream::new(outgoing))
    }

    /// Asks whoever is free; what comes of it comes through the returned end.
    pub(crate) fn ask(
        &self,
        path: &str,
        request: Bytes,
        deadline: Deadline,
        admission: Admission,
    ) -> Result<mpsc::Receiver<Event>, Status> {
        if request.len() > MAX_MESSAGE_BYTES {
            let size = request.len();
            return Err(Status::resource_exhausted(format!(
                "a request of {size} bytes to {}, at most {MAX_MESSAGE_BYTES} can be sent",
                self.0.name
            )));
        }
        let (events, receive) = mpsc::channel(1);
        let call = Call { path: path.to_owned(), request, deadline, admission, events };
        match self.0.calls.try_send(call) {
            Ok(()) => Ok(receive),
            Err(_full) => Err(Status::resource_exhausted(format!("{MAX_WAITING} calls wait for {}", self.0.name))),
        }
    }

    /// The next call that somebody still waits for. Cancelling it loses none.
    async fn next(&self) -> Option<Call> {
        let mut waiting = self.0.waiting.lock().await;
        loop {
            let call = waiting.recv().await?;
            if !call.events.is_closed() && !call.deadline.is_over() {
                return Some(call);
            }
        }
    }

    fn serial(&self) -> u64 {
        self.0.serial.fetch_add(1, Ordering::Relaxed) + 1
    }
}

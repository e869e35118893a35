//! The answerer's end of a link: opens it, and answers what is asked over it, one call at a time.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::frame::{Ask, Down, End, Up};
use super::{BEAT, PATH, SILENCE};
use crate::deadline::Deadline;
use crate::dial::{MAX_MESSAGE_BYTES, MAX_REPLY_BYTES};
use crate::endpoint::{Admission, Answers, Peer, Replies};

/// What a frame takes beside the reply, at most.
const FRAME_BYTES: usize = 64;

/// A link to be opened.
#[derive(Debug, Clone)]
pub struct LinkTo {
    /// To whom.
    pub peer: Peer,
    /// What this process calls itself.
    pub name: String,
    /// Tells this process from every other, the same for all its links: a random number.
    pub process: u64,
    /// What it answers.
    pub answers: Answers,
}

/// The call that runs.
enum Running {
    No,
    /// Accepted, not yet answered.
    Starting(u64, futures::future::BoxFuture<'static, Result<Replies<Bytes>, Status>>),
    Answering(u64, Replies<Bytes>),
}

impl Running {
    fn call(&self) -> Option<u64> {
        match self {
            Self::No => None,
            Self::Starting(call, _) | Self::Answering(call, _) => Some(*call),
        }
    }

    /// What is to be said next of the call; for ever pending without one.
    async fn next(&mut self) -> Up {
        match self {
            Self::No => std::future::pending().await,
            Self::Starting(call, starting) => {
                let (call, started) = (*call, starting.await);
                match started {
                    Ok(replies) => {
                        *self = Self::Answering(call, replies);
                        Up { call, started: true, ..Up::default() }
                    }
                    Err(status) => self.end(call, Err(status)),
                }
            }
            Self::Answering(call, replies) => {
                let call = *call;
                match replies.next().await {
                    Some(Ok(reply)) if reply.len() > MAX_REPLY_BYTES - FRAME_BYTES => {
                        let text = format!("a reply of {} bytes, at most {MAX_REPLY_BYTES} can be sent", reply.len());
                        self.end(call, Err(Status::out_of_range(text)))
                    }
                    Some(Ok(reply)) => Up { call, reply: Some(reply), ..Up::default() },
                    Some(Err(status)) => self.end(call, Err(status)),
                    None => self.end(call, Ok(())),
                }
            }
        }
    }

    fn end(&mut self, call: u64, result: Result<(), Status>) -> Up {
        *self = Self::No;
        Up { call, end: Some(End::of(result)), ..Up::default() }
    }
}

impl LinkTo {
    /// Opens the link and answers until the other side ends it, or until `leave` is cancelled: then the call that runs is
    /// finished, and no other begun.
    ///
    /// # Errors
    /// The link could not be opened or broke.
    pub async fn serve(&self, leave: CancellationToken) -> Result<(), Status> {
        let (up, outgoing) = mpsc::channel(1);
        up.try_send(Up { hello: self.name.clone(), process: self.process, ..Up::default() })
            .expect("an empty channel has room for one");
        let mut client = tonic::client::Grpc::new(self.peer.channel())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_REPLY_BYTES);
        let unreachable = |error| Status::unavailable(format!("cannot be reached: {error}"));
        client.ready().await.map_err(unreachable)?;
        let path = http::uri::PathAndQuery::from_static(PATH);
        let request = Request::new(ReceiverStream::new(outgoing));
        let opened = client.streaming(request, path, ProstCodec::<Up, Down>::default());
        let mut down = opened.await?.into_inner();
        self.answer(&up, &mut down, leave).await
    }

    async fn answer(
        &self,
        up: &mpsc::Sender<Up>,
        down: &mut Streaming<Down>,
        leave: CancellationToken,
    ) -> Result<(), Status> {
        let gone = || Status::unavailable("the other side ended the link");
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = Instant::now() + SILENCE;
        let mut running = Running::No;
        // What is to be sent: taken from the running call only when there is none, so that it waits with the stream.
        let mut pending: Option<Up> = None;
        let mut left = false;
        loop {
            tokio::select! {
                biased;
                frame = timeout_at(silent_until, down.message()) => {
                    let Ok(frame) = frame else { return Err(Status::unavailable("the other side is silent")) };
                    let Some(frame) = frame? else {
                        return if left { Ok(()) } else { Err(gone()) };
                    };
                    silent_until = Instant::now() + SILENCE;
                    if let Some(ask) = frame.ask {
                        running = Running::Starting(frame.call, self.start(ask));
                    } else if frame.cancel && running.call() == Some(frame.call) {
                        pending = Some(running.end(frame.call, Err(Status::cancelled("nobody waits for it"))));
                    } else if frame.probe && pending.is_none() {
                        pending = Some(Up::default());
                    }
                }
                permit = up.reserve(), if pending.is_some() => {
                    let permit = permit.map_err(|_closed| gone())?;
                    if let Some(frame) = pending.take() {
                        permit.send(frame);
                    }
                }
                frame = running.next(), if pending.is_none() => pending = Some(frame),
                _ = beat.tick(), if pending.is_none() => pending = Some(Up::default()),
                () = leave.cancelled(), if !left && pending.is_none() => {
                    left = true;
                    pending = Some(Up { leaving: true, ..Up::default() });
                }
            }
        }
    }

    fn start(&self, ask: Ask) -> futures::future::BoxFuture<'static, Result<Replies<Bytes>, Status>> {
        let answers = self.answers.clone();
        let deadline = Deadline::after(Duration::from_nanos(ask.timeout_nanos));
        let admission = if ask.only_if_room { Admission::Try } else { Admission::Wait };
        Box::pin(async move { answers.ask(&ask.path, ask.request, deadline, admission).await })
    }
}

//! Sockets of gossip: listeners on TCP 7946, one connection for each peer that frames go to, and UDP beside them.
//!
//! Owns every socket and connection; knows nothing of what frames mean. Everything works over TCP alone. A frame on a stream
//! has its length before it (four bytes); connections carry frames both ways and are closed when idle.
//!
//! Bounds: 512 accepted and 256 opened connections, 64 frames waiting for each, 2,048 frames waiting to be handled.
//! A frame beyond a bound is dropped and counted: what it said is said again.

mod bind;
mod datagrams;
mod stream;
mod tls;

pub(crate) use bind::{BindError, Bound};
pub(crate) use tls::StreamTls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::frame::Refused;
use crate::swim::{Channel, ConnId, Target};

use datagrams::Datagrams;

/// Frames and news that wait to be handled.
pub(crate) const INCOMING_MAX: usize = 2048;
const QUEUE_MAX: usize = 64;
const ACCEPTED_MAX: usize = 512;
const OPENED_MAX: usize = 256;

/// What the sockets report.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A frame.
    Frame { remote: SocketAddr, channel: Channel, frame: Vec<u8> },
    /// A stream could not be opened, or broke while something was to be sent on it.
    StreamFailed(SocketAddr),
    /// Something came that is not even a frame.
    Refused(SocketAddr, Refused),
}

/// Time limits of streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of opening one.
    pub(crate) dial: Duration,
    /// Of writing a frame.
    pub(crate) write: Duration,
    /// Without any frame, either way.
    pub(crate) idle: Duration,
}

/// What was dropped because of a bound.
#[derive(Debug, Default)]
pub(crate) struct Dropped(AtomicU64);

impl Dropped {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Accepted connections, by number.
type Accepted = Arc<Mutex<HashMap<u64, mpsc::Sender<Vec<u8>>>>>;

/// All sockets of one member. Dropping it closes them.
pub(crate) struct Transport {
    datagrams: Datagrams,
    accepted: Accepted,
    opened: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>,
    incoming: mpsc::Sender<Incoming>,
    tasks: JoinSet<()>,
    limits: Limits,
    tls: Option<StreamTls>,
    dropped: Arc<Dropped>,
}

impl Transport {
    /// Begins to listen; within a tokio runtime.
    ///
    /// # Errors
    /// The runtime does not take a socket.
    pub(crate) fn start(
        bound: Bound,
        limits: Limits,
        tls: Option<StreamTls>,
    ) -> Result<(Self, mpsc::Receiver<Incoming>), BindError> {
        let (incoming, received) = mpsc::channel(INCOMING_MAX);
        let mut tasks = JoinSet::new();
        let accepted = Accepted::default();
        let serial = Arc::new(AtomicU64::new(0));
        let dropped = Arc::new(Dropped::default());
        let (listeners, sockets) = bound.into_tokio()?;
        for listener in listeners {
            let acceptor = Acceptor {
                accepted: Arc::clone(&accepted),
                serial: Arc::clone(&serial),
                incoming: incoming.clone(),
                limits,
                tls: tls.clone(),
            };
            tasks.spawn(acceptor.accept(listener));
        }
        let datagrams = Datagrams::start(sockets, &incoming, &mut tasks, &dropped);
        let transport = Self { datagrams, accepted, opened: HashMap::new(), incoming, tasks, limits, tls, dropped };
        Ok((transport, received))
    }

    /// Sends a frame, or drops it.
    pub(crate) fn send(&mut self, to: Target, frame: Vec<u8>) {
        let sent = match to {
            Target::Datagram(address) => self.datagrams.send(address, &frame),
            Target::Answer(ConnId(id)) => {
                // A connection that has ended takes its answers with it.
                let conn = self.accepted.lock().get(&id).cloned();
                conn.is_none_or(|conn| conn.try_send(frame).is_ok())
            }
            Target::Stream(address) => self.stream(address, frame),
        };
        if !sent {
            self.dropped.add();
        }
    }

    fn stream(&mut self, address: SocketAddr, frame: Vec<u8>) -> bool {
        while self.tasks.try_join_next().is_some() {}
        let refused = match self.opened.get(&address) {
            Some(queue) => queue.try_send(frame),
            None => return self.open(address, frame),
        };
        match refused {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => false,
            // The connection ended meanwhile.
            Err(mpsc::error::TrySendError::Closed(frame)) => self.open(address, frame),
        }
    }

    fn open(&mut self, address: SocketAddr, frame: Vec<u8>) -> bool {
        self.opened.retain(|_, queue| !queue.is_closed());
        if self.opened.len() >= OPENED_MAX {
            return false;
        }
        let (queue, frames) = mpsc::channel(QUEUE_MAX);
        let sent = queue.try_send(frame).is_ok();
        self.opened.insert(address, queue);
        self.tasks.spawn(stream::open(address, frames, self.incoming.clone(), self.limits, self.tls.clone()));
        sent
    }

    /// What was dropped because of a bound so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.count()
    }
}

/// Takes the connections of one listener.
struct Acceptor {
    accepted: Accepted,
    serial: Arc<AtomicU64>,
    incoming: mpsc::Sender<Incoming>,
    limits: Limits,
    tls: Option<StreamTls>,
}

impl Acceptor {
    async fn accept(self, listener: tokio::net::TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: it passes, and until then nothing is gained by trying at once.
                    tracing::warn!(%error, "accept a gossip connection");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            if connections.len() >= ACCEPTED_MAX {
                tracing::debug!(%remote, "too many gossip connections");
                continue;
            }
            let id = self.serial.fetch_add(1, Ordering::Relaxed);
            let (queue, frames) = mpsc::channel(QUEUE_MAX);
            self.accepted.lock().insert(id, queue);
            let channel = Channel::Accepted(ConnId(id));
            let serve =
                stream::serve(stream, remote, channel, frames, self.incoming.clone(), self.limits, self.tls.clone());
            let accepted = Arc::clone(&self.accepted);
            connections.spawn(async move {
                let ended = serve.await;
                accepted.lock().remove(&id);
                if let Err(error) = ended {
                    tracing::debug!(%remote, %error, "gossip connection ended");
                }
            });
        }
    }
}

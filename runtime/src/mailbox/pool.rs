//! The room of a mailbox: so many messages and so many bytes, acquired in one step, first come first served.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// How much may be in a mailbox or being handled from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    messages: usize,
    bytes: usize,
}

impl Bounds {
    /// At most so many messages, at least one.
    #[must_use]
    pub const fn messages(messages: usize) -> Self {
        Self { messages: if messages == 0 { 1 } else { messages }, bytes: usize::MAX }
    }

    /// And at most so many bytes over all of them. A message above it waits for all of the room and then is alone.
    #[must_use]
    pub const fn bytes(self, bytes: usize) -> Self {
        Self { messages: self.messages, bytes: if bytes == 0 { 1 } else { bytes } }
    }

    /// The bound in messages.
    #[must_use]
    pub const fn message_limit(self) -> usize {
        self.messages
    }

    /// The bound in bytes, if there is one.
    #[must_use]
    pub const fn byte_limit(self) -> Option<usize> {
        if self.bytes == usize::MAX { None } else { Some(self.bytes) }
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    bounds: Bounds,
    room: Mutex<Room>,
    empty: Notify,
    accepted: AtomicU64,
    refused: AtomicU64,
    waits: AtomicU64,
    waited_nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct Room {
    messages: usize,
    bytes: usize,
    closed: bool,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    grant: oneshot::Sender<Permit>,
}

/// The right to be in the pool; gives its room back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<Pool>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    Closed,
}

/// Figures of one mailbox since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Load {
    /// Messages queued or being handled.
    pub depth: usize,
    /// Their bytes.
    pub bytes: usize,
    /// The bound in messages.
    pub capacity: usize,
    /// The bound in bytes; absent when there is none.
    pub capacity_bytes: Option<usize>,
    /// Callers that wait for room now.
    pub waiting: usize,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages refused because there was no room.
    pub refused: u64,
    /// Messages that had to wait for room.
    pub waits: u64,
    /// The time that they waited, in all.
    pub waited: Duration,
}

impl Room {
    fn fits(&self, bounds: Bounds, bytes: usize) -> bool {
        self.messages < bounds.messages && bounds.bytes - self.bytes >= bytes
    }

    fn take(&mut self, pool: &Arc<Pool>, bytes: usize) -> Permit {
        self.messages += 1;
        self.bytes += bytes;
        Permit { pool: Arc::clone(pool), bytes }
    }

    /// Those waiters, in order, for whom there is room. A large one at the head keeps the others waiting: else it would starve.
    fn admit(&mut self, pool: &Arc<Pool>) -> Vec<(oneshot::Sender<Permit>, Permit)> {
        let mut admitted = Vec::new();
        while let Some(head) = self.waiting.front() {
            if head.grant.is_closed() {
                self.waiting.pop_front();
            } else if self.fits(pool.bounds, head.bytes) {
                let Some(Waiter { bytes, grant }) = self.waiting.pop_front() else { break };
                admitted.push((grant, self.take(pool, bytes)));
            } else {
                break;
            }
        }
        admitted
    }
}

impl Pool {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            room: Mutex::default(),
            empty: Notify::new(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            waited_nanos: AtomicU64::new(0),
        })
    }

    /// What a message of so many bytes takes: at least one, so that a message that fills the bound is alone indeed.
    fn charge(&self, bytes: usize) -> usize {
        if self.bounds.bytes == usize::MAX { 0 } else { bytes.clamp(1, self.bounds.bytes) }
    }

    pub(crate) fn try_acquire(self: &Arc<Self>, bytes: usize) -> Result<Permit, NoRoom> {
        let result = self.try_acquire_quietly(bytes);
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// As `try_acquire`, for a caller that will wait: it is not counted as refused.
    pub(crate) fn try_acquire_quietly(self: &Arc<Self>, bytes: usize) -> Result<Permit, NoRoom> {
        let bytes = self.charge(bytes);
        let (result, admitted) = {
            let mut room = self.room.lock();
            let admitted = if room.waiting.is_empty() { Vec::new() } else { room.admit(self) };
            let result = if room.closed {
                Err(NoRoom::Closed)
            } else if room.waiting.is_empty() && room.fits(self.bounds, bytes) {
                Ok(room.take(self, bytes))
            } else {
                Err(NoRoom::Full)
            };
            (result, admitted)
        };
        hand_out(admitted);
        if result.is_ok() {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Waits for room. Dropping the future gives up the place in the queue.
    pub(crate) async fn acquire(self: &Arc<Self>, bytes: usize) -> Result<Permit, NoRoom> {
        let bytes = self.charge(bytes);
        let granted = {
            let mut room = self.room.lock();
            if room.closed {
                return Err(NoRoom::Closed);
            }
            if room.waiting.is_empty() && room.fits(self.bounds, bytes) {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                return Ok(room.take(self, bytes));
            }
            let (grant, granted) = oneshot::channel();
            room.waiting.push_back(Waiter { bytes, grant });
            granted
        };
        let wait = Wait { pool: self, since: Instant::now(), granted: Some(granted) };
        let result = wait.finish().await;
        if result.is_ok() {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Refuses everybody from now on; those who wait are told. What is inside stays until it is handled.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut room = self.room.lock();
            room.closed = true;
            std::mem::take(&mut room.waiting)
        };
        drop(waiting);
    }

    /// Completes when nothing is inside and nobody waits.
    pub(crate) async fn emptied(&self) {
        loop {
            let notified = self.empty.notified();
            {
                let room = self.room.lock();
                if room.messages == 0 && room.waiting.iter().all(|waiter| waiter.grant.is_closed()) {
                    return;
                }
            }
            notified.await;
        }
    }

    pub(crate) fn load(&self) -> Load {
        let room = self.room.lock();
        Load {
            depth: room.messages,
            bytes: room.bytes,
            capacity: self.bounds.messages,
            capacity_bytes: self.bounds.byte_limit(),
            waiting: room.waiting.iter().filter(|waiter| !waiter.grant.is_closed()).count(),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.waited_nanos.load(Ordering::Relaxed)),
        }
    }

    fn pump(self: &Arc<Self>) {
        let (admitted, idle) = {
            let mut room = self.room.lock();
            let admitted = room.admit(self);
            (admitted, room.messages == 0)
        };
        hand_out(admitted);
        if idle {
            self.empty.notify_waiters();
        }
    }
}

/// Outside the lock: a waiter that gave up in between drops its permit here, which takes the lock again.
fn hand_out(admitted: Vec<(oneshot::Sender<Permit>, Permit)>) {
    for (grant, permit) in admitted {
        drop(grant.send(permit));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (admitted, idle) = {
            let mut room = self.pool.room.lock();
            room.messages -= 1;
            room.bytes -= self.bytes;
            let admitted = if room.waiting.is_empty() { Vec::new() } else { room.admit(&self.pool) };
            (admitted, room.messages == 0)
        };
        hand_out(admitted);
        if idle {
            self.pool.empty.notify_waiters();
        }
    }
}

/// A place in the queue; measures the wait, and lets the next one in when it is given up.
struct Wait<'a> {
    pool: &'a Arc<Pool>,
    since: Instant,
    granted: Option<oneshot::Receiver<Permit>>,
}

impl Wait<'_> {
    async fn finish(mut self) -> Result<Permit, NoRoom> {
        let Some(granted) = self.granted.as_mut() else { return Err(NoRoom::Closed) };
        let result = granted.await.or(Err(NoRoom::Closed));
        self.granted = None;
        result
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.pool.waits.fetch_add(1, Ordering::Relaxed);
        self.pool.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
        if let Some(granted) = self.granted.take() {
            drop(granted);
            self.pool.pump();
        }
    }
}

//! One partition of the local form: what waits to be written, who writes it, and what readers may see.
//!
//! Appends queue; the writer takes all that wait, commits them as one batch, publishes the new end, then answers. While it waits
//! for the disk the next batch gathers. Nothing here starts a thread: `local` runs [`PartitionLog::write_until_closed`] on one,
//! and the simulation calls [`PartitionLog::write_waiting`] itself, so each of its steps is decided by the seed.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use crate::budget::{Budget, Permit};
use crate::error::Error;
use crate::log::{Appended, Bounds};
use crate::log_id::LogId;
use crate::metrics::{Metrics, Share};
use crate::record::{Entry, Offset, Record};
use crate::segment::Segment;
use crate::store::Store;
use crate::tail::Tail;

/// One batch is at most this long: a burst is split, so that the first of its appends need not wait for the last.
const BATCH_BYTES: usize = 4 << 20;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Command {
    Append { append: Append, bytes: usize },
    Reclaim { below: Offset, reply: Reply<()> },
}

/// A record on its way.
struct Append {
    record: Record,
    /// How many offsets it takes.
    offsets: NonZeroU32,
    permit: Permit,
    reply: Reply<Appended>,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    closed: bool,
}

/// What is durable now. Readers look at it under a short lock.
pub(crate) struct View {
    segments: Vec<Segment>,
    pub(crate) earliest: Offset,
    pub(crate) end: Offset,
    pub(crate) tail: Tail,
}

impl View {
    /// The segment that holds the first record at or above `position`, which is at least the earliest and below the end.
    pub(crate) fn segment(&self, position: Offset) -> Option<&Segment> {
        let behind = self.segments.partition_point(|segment| segment.start <= position);
        self.segments.get(behind.checked_sub(1)?)
    }

    /// Takes over what the store has. A commit changes the last segment only, and most commits are that.
    fn update(&mut self, store: &Store) {
        self.earliest = store.earliest();
        self.end = store.end;
        let same = |a: Option<&Segment>, b: Option<&Segment>| a.map(|s| s.first) == b.map(|s| s.first);
        let unrolled = self.segments.len() == store.segments.len()
            && same(self.segments.first(), store.segments.first())
            && same(self.segments.last(), store.segments.last());
        match (self.segments.last_mut(), store.segments.last()) {
            (Some(seen), Some(last)) if unrolled => seen.catch_up(last),
            _ => self.segments.clone_from(&store.segments),
        }
    }
}

/// What readers wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) end: Offset,
    pub(crate) closed: bool,
}

/// The shared state of one partition.
pub(crate) struct PartitionLog {
    id: LogId,
    queue: Mutex<Queue>,
    arrived: Condvar,
    store: Mutex<Store>,
    view: Mutex<View>,
    published: watch::Sender<Published>,
    budget: Budget,
    metrics: Metrics,
    share: Mutex<Share>,
}

impl PartitionLog {
    pub(crate) fn new(store: Store, tail_bytes: usize, budget: Budget, metrics: Metrics) -> Self {
        let end = store.end;
        let view = View {
            segments: store.segments.clone(),
            earliest: store.earliest(),
            end,
            tail: Tail::new(end, tail_bytes),
        };
        let partition = Self {
            id: store.id,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            store: Mutex::new(store),
            view: Mutex::new(view),
            published: watch::Sender::new(Published { end, closed: false }),
            budget,
            metrics,
            share: Mutex::default(),
        };
        partition.measure(&partition.store.lock());
        partition
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// Queues an append. The receiver resolves when the record is durable or refused, or the partition is closed.
    pub(crate) fn append(
        &self,
        record: Record,
        offsets: NonZeroU32,
        bytes: usize,
        permit: Permit,
    ) -> Result<oneshot::Receiver<Result<Appended, Error>>, Error> {
        let (reply, receiver) = oneshot::channel();
        self.enqueue(Command::Append { append: Append { record, offsets, permit, reply }, bytes })?;
        Ok(receiver)
    }

    /// Queues a reclaim behind the batch in flight.
    pub(crate) fn reclaim(&self, below: Offset) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let (reply, receiver) = oneshot::channel();
        self.enqueue(Command::Reclaim { below, reply })?;
        Ok(receiver)
    }

    fn enqueue(&self, command: Command) -> Result<(), Error> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Error::Closed);
        }
        queue.commands.push_back(command);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes no more commands; the writer finishes those that wait.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    /// The writer thread's life: ends when the partition is closed and nothing waits.
    pub(crate) fn write_until_closed(&self) {
        let _last_word = LastWord(self);
        loop {
            {
                let mut queue = self.queue.lock();
                while queue.commands.is_empty() {
                    if queue.closed {
                        return;
                    }
                    self.arrived.wait(&mut queue);
                }
            }
            self.write_waiting();
        }
    }

    /// Commits what waits, up to one batch, and then does the reclaims that waited with it.
    pub(crate) fn write_waiting(&self) {
        let mut store = self.store.lock();
        let (appends, reclaims) = self.take_waiting();
        if !appends.is_empty() {
            self.commit(&mut store, appends);
        }
        for (below, reply) in reclaims {
            let result = store.reclaim(below);
            self.publish(&store, |view| view.tail.release(below));
            // Who asked may have given up: then there is nobody to tell.
            drop(reply.send(result));
        }
        self.measure(&store);
    }

    #[allow(clippy::type_complexity, reason = "two lists of what stood in the queue, taken apart at once")]
    fn take_waiting(&self) -> (Vec<Append>, Vec<(Offset, Reply<()>)>) {
        let mut queue = self.queue.lock();
        let (mut appends, mut reclaims, mut total) = (Vec::new(), Vec::new(), 0);
        while let Some(command) = queue.commands.pop_front() {
            match command {
                Command::Append { append, bytes } => {
                    if total > 0 && total + bytes > BATCH_BYTES {
                        queue.commands.push_front(Command::Append { append, bytes });
                        break;
                    }
                    total += bytes;
                    appends.push(append);
                }
                Command::Reclaim { below, reply } => reclaims.push((below, reply)),
            }
        }
        (appends, reclaims)
    }

    fn commit(&self, store: &mut Store, appends: Vec<Append>) {
        let result = store.commit(appends.iter().map(|append| (&append.record, append.offsets)));
        match &result {
            Ok(commit) => self.metrics.committed(appends.len(), commit),
            Err(error) => self.metrics.refused(appends.len(), error),
        }
        let result = result.map(|commit| commit.first);
        let mut replies = Vec::with_capacity(appends.len());
        let mut entries = Vec::with_capacity(appends.len());
        let mut offset = *result.as_ref().unwrap_or(&Offset(0));
        for Append { record, offsets, permit, reply } in appends {
            let last = offset.plus(u64::from(offsets.get()) - 1);
            replies.push((last, permit, reply));
            entries.push(Entry { offset: last, record });
            offset = last.next();
        }
        self.publish(store, |view| {
            if result.is_ok() {
                entries.into_iter().for_each(|entry| view.tail.push(entry));
            }
        });
        for (offset, permit, reply) in replies {
            drop(permit);
            // Who asked may have given up: then there is nobody to tell.
            drop(reply.send(result.clone().map(|_| Appended { offset })));
        }
    }

    /// Shows readers what is durable now.
    fn publish(&self, store: &Store, change: impl FnOnce(&mut View)) {
        {
            let mut view = self.view.lock();
            view.update(store);
            change(&mut view);
        }
        self.published.send_if_modified(|published| std::mem::replace(&mut published.end, store.end) != store.end);
    }

    fn measure(&self, store: &Store) {
        let now = Share {
            segments: store.segments.len(),
            disk_bytes: store.bytes_on_disk(),
            tail_bytes: self.view.lock().tail.bytes(),
        };
        let before = std::mem::replace(&mut *self.share.lock(), now);
        self.metrics.share_changed(before, now);
        self.metrics.budget(&self.budget);
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let view = self.view.lock();
        Bounds { earliest: view.earliest, end: view.end }
    }

    pub(crate) fn view(&self) -> parking_lot::MutexGuard<'_, View> {
        self.view.lock()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        // What this partition held is no longer part of the sums.
        self.metrics.share_changed(*self.share.lock(), Share::default());
    }
}

/// Ends a writer's life in order, also when it panics: nobody may wait for ever on a partition that nobody writes.
struct LastWord<'p>(&'p PartitionLog);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        self.0.close();
        // Dropping a command drops its reply, which tells who waits that the log is closed.
        self.0.queue.lock().commands.clear();
        self.0.published.send_modify(|published| published.closed = true);
    }
}

//! The memory form: for tests of producers and consumers. Durable as long as the value lives, with faults on request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::budget::{Budget, Permit};
use crate::error::Error;
use crate::frame;
use crate::log::{Appended, Batch, Bounds, Log, Reader};
use crate::log_id::LogId;
use crate::record::{Entry, Offset, Partition, Record};

/// A log in memory. Clones are the same log, so a test can keep one to inject faults and "restart" what holds the other.
///
/// Any partition exists from the first use on. Reclaim is exact: it removes every record below the offset.
#[derive(Clone)]
pub struct MemoryLog {
    id: LogId,
    budget: Budget,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Changes whenever something may have become readable or the log was closed.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Partition, Records>,
    refusals: VecDeque<Error>,
    held: Option<Vec<Held>>,
    closed: bool,
}

#[derive(Default)]
struct Records {
    entries: VecDeque<Entry>,
    earliest: Offset,
    end: Offset,
}

struct Held {
    partition: Partition,
    record: Record,
    permit: Permit,
    reply: oneshot::Sender<Result<Appended, Error>>,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(id: LogId, budget: Budget) -> Self {
        let shared = Shared { state: Mutex::default(), changed: watch::Sender::new(0) };
        Self { id, budget, shared: Arc::new(shared) }
    }

    /// Fault: one append to come is refused with `error`. Several queue up.
    pub fn refuse_next(&self, error: Error) {
        self.shared.state.lock().refusals.push_back(error);
    }

    /// Fault: appends are neither durable nor refused until [`MemoryLog::release`] or [`MemoryLog::lose_held`].
    pub fn hold(&self) {
        self.shared.state.lock().held.get_or_insert_default();
    }

    /// Makes held appends durable, in order, and holds no more.
    pub fn release(&self) {
        let mut state = self.shared.state.lock();
        let held = state.held.take().unwrap_or_default();
        for held in held {
            state.store(held);
        }
        drop(state);
        self.wake();
    }

    /// Refuses held appends as a failed disk would, and holds no more. Their offsets were never given.
    pub fn lose_held(&self) {
        let held = self.shared.state.lock().held.take().unwrap_or_default();
        for held in held {
            let lost = std::io::Error::other("lost by request");
            drop(held.permit);
            // Who asked may have given up: then there is nobody to tell.
            drop(held.reply.send(Err(Error::not_durable(lost))));
        }
    }

    /// Fault: the next `count` offsets of the partition are burnt, as after a failed commit of the local form.
    pub fn burn_offsets(&self, partition: Partition, count: u64) {
        let mut state = self.shared.state.lock();
        let records = state.partitions.entry(partition).or_default();
        records.end = records.end.plus(count);
    }

    fn wake(&self) {
        self.shared.changed.send_modify(|version| *version += 1);
    }
}

impl State {
    fn store(&mut self, held: Held) {
        let Held { partition, record, permit, reply } = held;
        let records = self.partitions.entry(partition).or_default();
        let offset = records.end;
        records.end = offset.next();
        records.entries.push_back(Entry { offset, record });
        drop(permit);
        // Who asked may have given up: then there is nobody to tell.
        drop(reply.send(Ok(Appended { offset })));
    }

    fn bounds(&self, partition: Partition) -> Bounds {
        let records = self.partitions.get(&partition);
        records.map_or(Bounds { earliest: Offset(0), end: Offset(0) }, |r| Bounds { earliest: r.earliest, end: r.end })
    }
}

impl Log for MemoryLog {
    fn id(&self) -> LogId {
        self.id
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn append_reserved(
        &self,
        partition: Partition,
        record: Record,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Appended, Error>> {
        let mut state = self.shared.state.lock();
        let refusal = match frame::encoded_bytes(&record) {
            Err(error) => Some(error),
            Ok(_) if state.closed => Some(Error::Closed),
            Ok(_) => state.refusals.pop_front(),
        };
        if let Some(error) = refusal {
            return std::future::ready(Err(error)).boxed();
        }
        let (reply, receiver) = oneshot::channel();
        let held = Held { partition, record, permit, reply };
        match &mut state.held {
            Some(waiting) => waiting.push(held),
            None => state.store(held),
        }
        drop(state);
        self.wake();
        receiver.map(|reply| reply.unwrap_or(Err(Error::Closed))).boxed()
    }

    fn reader(&self, partition: Partition, from: Offset) -> Result<Box<dyn Reader>, Error> {
        let Bounds { earliest, end } = self.shared.state.lock().bounds(partition);
        if from < earliest || from > end {
            return Err(Error::OutOfRange { requested: from, earliest, end });
        }
        let changed = self.shared.changed.subscribe();
        Ok(Box::new(MemoryReader { shared: Arc::clone(&self.shared), changed, partition, position: from }))
    }

    fn bounds(&self, partition: Partition) -> BoxFuture<'static, Result<Bounds, Error>> {
        std::future::ready(Ok(self.shared.state.lock().bounds(partition))).boxed()
    }

    fn offset_at(&self, partition: Partition, timestamp_ms: i64) -> BoxFuture<'static, Result<Offset, Error>> {
        let state = self.shared.state.lock();
        let end = state.bounds(partition).end;
        let mut entries = state.partitions.get(&partition).into_iter().flat_map(|records| &records.entries);
        let first = entries.find(|entry| entry.record.timestamp_ms >= timestamp_ms).map_or(end, |entry| entry.offset);
        std::future::ready(Ok(first)).boxed()
    }

    fn reclaim(&self, partition: Partition, below: Offset) -> BoxFuture<'static, Result<(), Error>> {
        let mut state = self.shared.state.lock();
        let records = state.partitions.entry(partition).or_default();
        records.earliest = records.earliest.max(below.min(records.end));
        while records.entries.pop_front_if(|entry| entry.offset < below).is_some() {}
        std::future::ready(Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.shared.state.lock().closed = true;
        self.wake();
        std::future::ready(()).boxed()
    }
}

struct MemoryReader {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    partition: Partition,
    position: Offset,
}

impl MemoryReader {
    /// `None`: nothing yet.
    fn look(&self, max_bytes: usize) -> Result<Option<Batch>, Error> {
        let state = self.shared.state.lock();
        let Bounds { earliest, end } = state.bounds(self.partition);
        if self.position < earliest {
            return Err(Error::OutOfRange { requested: self.position, earliest, end });
        }
        let entries = state.partitions.get(&self.partition).map(|records| &records.entries);
        let (mut bytes, mut records) = (0, Vec::new());
        for entry in entries.into_iter().flatten().filter(|entry| entry.offset >= self.position) {
            bytes += entry.record.charged_bytes();
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            records.push(entry.clone());
        }
        match records.last().map(|last| last.offset.next()) {
            Some(next) => Ok(Some(Batch { records, end: next, high_watermark: end, skipped: Vec::new() })),
            None if state.closed => Err(Error::Closed),
            None => Ok(None),
        }
    }
}

impl Reader for MemoryReader {
    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Batch, Error>> {
        async move {
            loop {
                self.changed.mark_unchanged();
                if let Some(batch) = self.look(max_bytes)? {
                    self.position = batch.end;
                    return Ok(batch);
                }
                self.changed.changed().await.map_err(|_closed| Error::Closed)?;
            }
        }
        .boxed()
    }

    fn position(&self) -> Offset {
        self.position
    }
}

//! One partition that has records: a local log whose records are whole batches, and what memory keeps beside it.
//!
//! A batch of n records takes n offsets and is stored under the last of them, so a log reader that starts at any of them gets the
//! batch. Its base offset is computed from its head whenever it is read.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use vivace_log::{
    Budget, Entry, Error as LogError, LocalEnv, LocalLog, LocalOptions, Log as _, Metrics, Offset, Partition, Reader,
    Record,
};
use vivace_runtime::{Clock, Compute, Disk, Rng};

use crate::batch::Head;
use crate::batch::lookup;
use crate::producers::{Producers, Verdict};
use crate::timeline::{Span, Timeline};

/// Each partition has a log folder of its own, in which it is the only partition.
const ONLY: Partition = Partition(0);
/// Readers that stopped where a consumer will go on, so that it need not find its place again.
const MAX_READERS: usize = 4;
/// How much is read at once when a partition is opened or searched.
const SCAN_BYTES: usize = 4 << 20;
/// Batches that memory keeps for consumers that keep up, for each partition.
const TAIL_BYTES: usize = 4 << 20;

/// What partitions stand on.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) compute: Compute,
    pub(crate) budget: Budget,
    pub(crate) metrics: Metrics,
    pub(crate) segment_bytes: u64,
    pub(crate) rng: Arc<Mutex<Rng>>,
}

/// An open partition.
pub(crate) struct Replica {
    log: LocalLog,
    ground: Ground,
    /// Held while an idempotent batch is judged and appended, so that the next one is judged by its outcome.
    in_order: tokio::sync::Mutex<()>,
    kept: Mutex<Kept>,
    /// Nothing below is shown, whether or not its segment is still there.
    start: AtomicU64,
    readers: Mutex<Vec<Box<dyn Reader>>>,
    news: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Kept {
    producers: Producers,
    timeline: Timeline,
}

/// What a reader gets.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) batches: Vec<Stored>,
    pub(crate) bytes: usize,
}

/// A batch and where it stands.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) base_offset: u64,
    pub(crate) batch: Bytes,
}

/// What a partition shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Why an append or a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("offset {requested} is outside of {}..={}", shown.start, shown.end)]
    OutOfRange { requested: i64, shown: Shown },
    #[error("the producer's epoch is over")]
    Fenced,
    #[error("a batch before this one is missing")]
    OutOfOrder,
    #[error("the partition was deleted or the broker stops")]
    Gone,
    #[error("store")]
    Log(#[from] LogError),
}

impl Replica {
    /// Opens or creates the partition in `dir` and reads all of it once, for what memory keeps.
    pub(crate) async fn open(
        ground: &Ground,
        dir: PathBuf,
        start: u64,
        news: Arc<watch::Sender<u64>>,
    ) -> Result<Self, LogError> {
        let env = LocalEnv {
            disk: Arc::clone(&ground.disk),
            clock: Arc::clone(&ground.clock),
            compute: ground.compute.clone(),
            budget: ground.budget.clone(),
            metrics: ground.metrics.clone(),
        };
        let options =
            LocalOptions { dir, partitions: vec![ONLY], segment_bytes: ground.segment_bytes, tail_bytes: TAIL_BYTES };
        let mut rng = ground.rng.lock().fork();
        let open = move || LocalLog::open(&options, env, &mut rng);
        // The pool refuses only once it is stopped.
        let log = ground.compute.run(0, open).await.map_err(|_stopped| LogError::Closed)??;
        let replica = Self {
            log,
            ground: ground.clone(),
            in_order: tokio::sync::Mutex::default(),
            kept: Mutex::default(),
            start: AtomicU64::new(start),
            readers: Mutex::default(),
            news,
        };
        replica.take_stock().await?;
        Ok(replica)
    }

    async fn take_stock(&self) -> Result<(), LogError> {
        let bounds = self.log.bounds(ONLY).await?;
        self.start.fetch_max(bounds.earliest.0, Ordering::AcqRel);
        let mut reader = self.log.reader(ONLY, bounds.earliest)?;
        while reader.position() < bounds.end {
            for entry in reader.next(SCAN_BYTES).await?.records {
                match Head::read(&entry.record.value) {
                    Ok(head) => self.keep(&head, &entry),
                    Err(reason) => tracing::error!(offset = entry.offset.0, %reason, "find a record that is no batch"),
                }
            }
        }
        self.news.send_replace(bounds.end.0);
        Ok(())
    }

    fn keep(&self, head: &Head, entry: &Entry) {
        let end = entry.offset.next().0;
        let base = base_offset(entry.offset, head);
        let span = Span { base, end, max_ms: head.max_timestamp_ms, bytes: entry.record.value.len() as u64 };
        let mut kept = self.kept.lock();
        kept.producers.appended(head, base);
        kept.timeline.note(span);
    }

    /// Makes a batch durable and returns its base offset. A batch that an idempotent producer sends again keeps its old one.
    pub(crate) async fn append(&self, head: Head, batch: Bytes) -> Result<u64, Refusal> {
        let ordered = if head.producer_id >= 0 { Some(self.in_order.lock().await) } else { None };
        let verdict = self.kept.lock().producers.judge(&head);
        match verdict {
            Verdict::Append => {}
            Verdict::Duplicate { base_offset } => return Ok(base_offset),
            Verdict::Fenced => return Err(Refusal::Fenced),
            Verdict::OutOfOrder => return Err(Refusal::OutOfOrder),
        }
        let record = Record { value: batch, timestamp_ms: head.max_timestamp_ms, ..Record::default() };
        let offsets = NonZeroU32::MIN.saturating_add(head.last_offset_delta);
        let permit = self.log.budget().acquire(record.charged_bytes())?;
        let appended = self.log.append_spanning(ONLY, record.clone(), offsets, permit).await?;
        let entry = Entry { offset: appended.offset, record };
        self.keep(&head, &entry);
        drop(ordered);
        let end = entry.offset.next().0;
        self.news.send_if_modified(|known| {
            let newer = end > *known;
            *known = end.max(*known);
            newer
        });
        Ok(base_offset(entry.offset, &head))
    }

    /// The range that may be read.
    pub(crate) async fn shown(&self) -> Shown {
        match self.log.bounds(ONLY).await {
            Ok(bounds) => {
                let start = self.start.load(Ordering::Acquire).max(bounds.earliest.0).min(bounds.end.0);
                Shown { start, end: bounds.end.0 }
            }
            // The log has this partition: it was opened with it.
            Err(_) => Shown::default(),
        }
    }

    /// Reads batches from the one that holds `from` on, without waiting: up to `max_bytes`, one at least if there is one.
    pub(crate) async fn read(&self, from: i64, max_bytes: usize) -> Result<Read, Refusal> {
        let shown = self.shown().await;
        let position = match u64::try_from(from) {
            Ok(position) if (shown.start..=shown.end).contains(&position) => position,
            _ => return Err(Refusal::OutOfRange { requested: from, shown }),
        };
        let mut read = Read::default();
        if position == shown.end {
            return Ok(read);
        }
        let mut reader = self.reader_at(position)?;
        // Damaged ranges are passed over; what is behind them may be nothing at all.
        while read.batches.is_empty() && reader.position().0 < shown.end {
            for entry in reader.next(max_bytes).await?.records {
                let Ok(head) = Head::read(&entry.record.value) else { continue };
                read.bytes += entry.record.value.len();
                let base_offset = base_offset(entry.offset, &head);
                read.batches.push(Stored { base_offset, batch: entry.record.value });
            }
        }
        self.give_back(reader);
        Ok(read)
    }

    fn reader_at(&self, position: u64) -> Result<Box<dyn Reader>, LogError> {
        let mut readers = self.readers.lock();
        match readers.iter().position(|reader| reader.position().0 == position) {
            Some(index) => Ok(readers.swap_remove(index)),
            None => self.log.reader(ONLY, Offset(position)),
        }
    }

    fn give_back(&self, reader: Box<dyn Reader>) {
        let mut readers = self.readers.lock();
        if readers.len() >= MAX_READERS {
            readers.remove(0);
        }
        readers.push(reader);
    }

    /// The first record at or after a time: its time and offset.
    pub(crate) async fn find(&self, at_ms: i64) -> Result<Option<(i64, u64)>, Refusal> {
        let shown = self.shown().await;
        let Some(from) = self.kept.lock().timeline.find(at_ms, shown.start) else { return Ok(None) };
        let mut reader = self.log.reader(ONLY, Offset(from))?;
        while reader.position().0 < shown.end {
            for entry in reader.next(SCAN_BYTES).await?.records {
                let Ok(head) = Head::read(&entry.record.value) else { continue };
                if head.max_timestamp_ms < at_ms {
                    continue;
                }
                let batch = entry.record.value;
                let look = move || lookup::first_at_or_after(&batch, &head, at_ms);
                let compute = &self.ground.compute;
                let found = compute.run(SCAN_BYTES, look).await.map_err(|_stopped| LogError::Closed)?;
                let offset = base_offset(entry.offset, &head) + u64::from(found.offset_delta);
                return Ok(Some((found.timestamp_ms, offset.max(shown.start))));
            }
        }
        Ok(None)
    }

    /// Hides everything below an offset and removes the segments that lie below it as a whole. -1 means the end.
    pub(crate) async fn delete_below(&self, below: i64) -> Result<u64, Refusal> {
        let shown = self.shown().await;
        let below = if below == -1 { shown.end } else { u64::try_from(below).unwrap_or(u64::MAX) };
        if below > shown.end {
            return Err(Refusal::OutOfRange { requested: i64::try_from(below).unwrap_or(i64::MAX), shown });
        }
        self.start.fetch_max(below, Ordering::AcqRel);
        self.reclaim(below).await?;
        Ok(self.shown().await.start)
    }

    /// Removes whole segments of what is too old or too much.
    pub(crate) async fn expire(&self, keep_ms: Option<u64>, keep_bytes: Option<u64>) -> Result<(), Refusal> {
        let now_ms = i64::try_from(self.ground.clock.unix().as_millis()).unwrap_or(i64::MAX);
        let before_ms = keep_ms.map(|keep| now_ms.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX)));
        let Some(below) = self.kept.lock().timeline.expired(before_ms, keep_bytes) else { return Ok(()) };
        self.reclaim(below).await
    }

    async fn reclaim(&self, below: u64) -> Result<(), Refusal> {
        self.log.reclaim(ONLY, Offset(below)).await?;
        let earliest = self.log.bounds(ONLY).await?.earliest.0;
        self.kept.lock().timeline.release(earliest);
        self.readers.lock().retain(|reader| reader.position().0 >= earliest);
        Ok(())
    }

    /// Finishes what is queued and ends the writer.
    pub(crate) async fn close(&self) {
        self.readers.lock().clear();
        self.log.close().await;
    }
}

fn base_offset(last: Offset, head: &Head) -> u64 {
    last.0.saturating_sub(u64::from(head.last_offset_delta))
}

/// Removes a partition's folder with everything in it. Blocks.
pub(crate) fn remove_folder(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    for entry in disk.list(dir)? {
        if entry.is_dir { remove_folder(disk, &entry.path)? } else { disk.remove(&entry.path)? }
    }
    disk.remove_dir(dir)
}

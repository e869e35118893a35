//! The contract that every form of the log keeps.

use std::path::PathBuf;

use futures::future::BoxFuture;

use crate::budget::{Budget, Permit};
use crate::error::Error;
use crate::log_id::LogId;
use crate::record::{Entry, Offset, Partition, Record};

/// A durable, partitioned, append-only sequence of records: the transport between the distributor and everyone who consumes
/// traces, and the write-ahead log of the monolith. Forms: local segments, memory (tests), Kafka.
///
/// * An append resolves when its record is durable in the sense of the form; until then no reader sees it.
/// * Readers of one partition see every durable record exactly once, in offset order.
/// * Offsets grow strictly and may have gaps.
/// * Dropping an append's future does not take the record back: unknown, never "did not happen".
pub trait Log: Send + Sync {
    /// The identity of this log; a re-created log has another one.
    fn id(&self) -> LogId;

    /// The bytes in flight between `append` and durability. Who builds a record from a large buffer takes its permit here
    /// before allocating and hands it to [`Log::append_reserved`].
    fn budget(&self) -> &Budget;

    /// Appends under a permit taken before; the permit is given back when the record is durable or refused.
    ///
    /// # Errors
    /// See [`Error`]; after every error but `DeadlineExceeded` the record is not stored as far as readers can see.
    fn append_reserved(
        &self,
        partition: Partition,
        record: Record,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Appended, Error>>;

    /// Appends one record, taking its permit from the budget now. The record is queued when this returns (not when the
    /// future is first polled), so calls made one after the other keep their order.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the budget is full, otherwise as [`Log::append_reserved`].
    fn append(&self, partition: Partition, record: Record) -> BoxFuture<'static, Result<Appended, Error>> {
        match self.budget().acquire(record.charged_bytes()) {
            Ok(permit) => self.append_reserved(partition, record, permit),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Opens a reader whose first record is the first one at or above `from`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when `from` is below the earliest or above the end.
    fn reader(&self, partition: Partition, from: Offset) -> Result<Box<dyn Reader>, Error>;

    /// What the partition holds now.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], or the broker's error.
    fn bounds(&self, partition: Partition) -> BoxFuture<'static, Result<Bounds, Error>>;

    /// [`Bounds::end`] alone, which may cost less.
    ///
    /// # Errors
    /// As [`Log::bounds`].
    fn end(&self, partition: Partition) -> BoxFuture<'static, Result<Offset, Error>> {
        let bounds = self.bounds(partition);
        Box::pin(async move { Ok(bounds.await?.end) })
    }

    /// Where a reader starts that wants every record since `timestamp_ms` (unix milliseconds): the offset of the first record
    /// with that time or a later one, the end if there is none. A form that keeps no times by offset says the earliest: early
    /// enough for everybody.
    ///
    /// # Errors
    /// As [`Log::bounds`].
    fn offset_at(&self, partition: Partition, timestamp_ms: i64) -> BoxFuture<'static, Result<Offset, Error>> {
        let _ = timestamp_ms;
        let bounds = self.bounds(partition);
        Box::pin(async move { Ok(bounds.await?.earliest) })
    }

    /// Says that everything below `below` is covered by durable blocks and may go. What goes is a whole segment at a time,
    /// oldest first, never the one being written; readers behind the new earliest offset get [`Error::OutOfRange`].
    /// A hint, safe to repeat.
    ///
    /// # Errors
    /// [`Error::Io`] when a file could not be removed; calling again tries again.
    fn reclaim(&self, partition: Partition, below: Offset) -> BoxFuture<'static, Result<(), Error>>;

    /// Takes no more appends, finishes those already queued, and resolves when the form's threads are done.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// A position in one partition that moves forward.
pub trait Reader: Send {
    /// Waits until there is something after the current position, then returns up to `max_bytes` of it (at least one record,
    /// however large) and moves behind it. Dropping the future loses nothing: the position moves only with the return.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the position was reclaimed, [`Error::Closed`] when the log is closed and all is read,
    /// [`Error::Io`] when the disk failed; the position stays and calling again tries again.
    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Batch, Error>>;

    /// Where the next batch starts.
    fn position(&self) -> Offset;
}

/// An append's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where the record stands.
    pub offset: Offset,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that a reader may ask for.
    pub earliest: Offset,
    /// The offset after the last durable record: what a reader that wants only news asks for.
    pub end: Offset,
}

/// What a reader returns: some records, or a damaged range, or both.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In offset order, each exactly once. May be empty when only a damaged range was passed.
    pub records: Vec<Entry>,
    /// Where the next batch starts; at least one above the last record's offset.
    pub end: Offset,
    /// The offset after the last durable record of the partition, as known when the batch was read: `high_watermark - end`
    /// is the lag in offsets.
    pub high_watermark: Offset,
    /// Ranges that could not be read and were passed over. The consumer reports and counts them; they are lost.
    pub skipped: Vec<Skipped>,
}

/// A range of the log that is damaged on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The damaged file.
    pub path: PathBuf,
    /// Where in the file the damage starts.
    pub position: u64,
    /// How many bytes were passed over.
    pub bytes: u64,
    /// The first offset that may have been lost.
    pub first: Offset,
    /// The offset after the last one that may have been lost.
    pub end: Offset,
    /// What was wrong with the first bad bytes.
    pub reason: &'static str,
}

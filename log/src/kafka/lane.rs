//! Lane: everything that this process writes to one partition, in order.
//!
//! Records queue (bounded by the log's budget, whose permits they hold), gather for the linger or until a batch is full, and go out
//! **one request at a time**: the next batch gathers meanwhile. One in flight is what makes the sequence meaningful: a lower number
//! behind a higher one is a copy, never a record that was overtaken. A request is repeated with the same sequences until it is
//! acknowledged, refused for good, or out of time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::batch::{Batch, BatchLimit, RECORD_OVERHEAD_BYTES};
use super::brokers::Brokers;
use super::failure::Failure;
use super::identity::Identity;
use super::leader::Leader;
use super::records;
use crate::budget::{Budget, Permit};
use crate::error::Error;
use crate::log::Appended;
use crate::record::{Offset, Partition, Record};
use crate::sequence::Sequence;

/// What Tempo's client sends at most; a topic's own limit may be lower and is learned.
const BATCH_BYTES_MAX: usize = 16_000_000;
const WRITE: &str = "write records";
/// What a batch has at least, however long it has waited.
const ATTEMPT_MIN: Duration = Duration::from_millis(500);
/// Compressing this much takes half a millisecond.
const INLINE_BYTES: usize = 256 << 10;

/// A record on its way.
pub(crate) struct Queued {
    pub(crate) record: Record,
    pub(crate) permit: Permit,
    pub(crate) queued: Instant,
    pub(crate) reply: oneshot::Sender<Result<Appended, Error>>,
}

struct Numbered {
    queued: Queued,
    sequence: Sequence,
}

pub(crate) struct Lane {
    partition: Partition,
    leader: Leader,
    budget: Budget,
    identity: Arc<Identity>,
    session: u64,
    number: u64,
    limit: BatchLimit,
}

fn size(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len() + 4).sum();
    record.tenant.len() + record.value.len() + headers + RECORD_OVERHEAD_BYTES
}

impl Lane {
    pub(crate) fn new(
        partition: Partition,
        brokers: Arc<Brokers>,
        budget: Budget,
        identity: Arc<Identity>,
        session: u64,
    ) -> Self {
        let leader = Leader::new(brokers, partition);
        let limit = BatchLimit::new(BATCH_BYTES_MAX);
        Self { partition, leader, budget, identity, session, number: 0, limit }
    }

    /// Runs until the queue is closed and everything in it is settled.
    pub(crate) async fn run(mut self, mut queue: UnboundedReceiver<Queued>) {
        let mut left = None;
        loop {
            let first = match left.take() {
                Some(queued) => queued,
                None => match queue.recv().await {
                    Some(queued) => queued,
                    None => return,
                },
            };
            let (batch, rest) = self.gather(first, &mut queue).await;
            left = rest;
            self.settle(batch).await;
        }
    }

    /// Takes what waits, and what comes before the first record has waited for the linger.
    async fn gather(
        &mut self,
        first: Queued,
        queue: &mut UnboundedReceiver<Queued>,
    ) -> (Batch<Numbered>, Option<Queued>) {
        let brokers = Arc::clone(self.leader.brokers());
        let waited = brokers.clock.now().saturating_duration_since(first.queued);
        let linger = brokers.clock.sleep(brokers.settings.linger.saturating_sub(waited));
        tokio::pin!(linger);
        let mut batch = Batch::new();
        let mut next = Some(first);
        loop {
            while let Some(queued) = next.take().or_else(|| queue.try_recv().ok()) {
                let bytes = size(&queued.record);
                self.number += 1;
                let numbered = Numbered { queued, sequence: Sequence { session: self.session, number: self.number } };
                if let Some(back) = batch.push(numbered, bytes, self.limit) {
                    self.number -= 1;
                    return (batch, Some(back.queued));
                }
            }
            tokio::select! {
                biased;
                () = &mut linger => return (batch, None),
                came = queue.recv() => match came {
                    Some(queued) => next = Some(queued),
                    None => return (batch, None),
                },
            }
        }
    }

    /// Sends the batch, in parts when it is too large for the broker, and answers everybody.
    async fn settle(&mut self, batch: Batch<Numbered>) {
        let brokers = Arc::clone(self.leader.brokers());
        let deadline = self.deadline(&batch);
        let mut parts = VecDeque::from([batch]);
        while let Some(part) = parts.pop_front() {
            let (records, bytes) = (part.items().len(), part.bytes());
            match self.send(&part, deadline).await {
                Ok(first) => {
                    brokers.metrics.produced(self.partition, records, bytes);
                    self.answer(part, |at| Ok(Appended { offset: first.plus(at) }));
                }
                Err(Undone::TooLarge(reason)) => {
                    self.limit.refused(bytes);
                    match part.halves(|numbered| size(&numbered.queued.record)) {
                        Ok([first, second]) => {
                            tracing::info!(
                                partition = self.partition.0,
                                bytes,
                                records,
                                reason,
                                "the broker takes only smaller batches: send two halves"
                            );
                            parts.push_front(second);
                            parts.push_front(first);
                        }
                        Err(single) => {
                            brokers.metrics.refused("record-too-large", 1);
                            self.answer(single, |_| Err(Error::TooLargeForBroker { bytes, reason: reason.clone() }));
                        }
                    }
                }
                Err(Undone::Error { label, error }) => {
                    tracing::warn!(
                        partition = self.partition.0,
                        records,
                        bytes,
                        error = &error as &dyn std::error::Error,
                        "refuse records that Kafka did not acknowledge"
                    );
                    brokers.metrics.refused(label, records);
                    self.answer(part, |_| Err(error.clone()));
                }
            }
        }
    }

    /// The time of a write counts from queueing, so that all who wait while brokers are away are told in time, and not one batch after
    /// the other; but every batch gets one attempt that can succeed.
    fn deadline(&self, batch: &Batch<Numbered>) -> Instant {
        let brokers = self.leader.brokers();
        let (now, whole) = (brokers.clock.now(), brokers.settings.write_timeout);
        let queued = batch.items().first().map_or(now, |first| first.queued.queued);
        (queued + whole).max(now + whole.min(ATTEMPT_MIN))
    }

    fn answer(&self, part: Batch<Numbered>, result: impl Fn(u64) -> Result<Appended, Error>) {
        let brokers = self.leader.brokers();
        let now = brokers.clock.now();
        let records = part.items().len();
        let mut replies = Vec::with_capacity(records);
        for (at, numbered) in (0..).zip(part.into_items()) {
            let Queued { permit, queued, reply, record: _ } = numbered.queued;
            drop(permit);
            brokers.metrics.waited(now.saturating_duration_since(queued));
            replies.push((reply, result(at)));
        }
        brokers.metrics.settled(records, &self.budget);
        for (reply, result) in replies {
            // Who asked may have given up: then there is nobody to tell.
            drop(reply.send(result));
        }
    }

    /// Attempts until it is decided or out of time. Answers the first offset.
    async fn send(&mut self, part: &Batch<Numbered>, deadline: Instant) -> Result<Offset, Undone> {
        let brokers = Arc::clone(self.leader.brokers());
        let batch = match self.encode(part).await {
            Ok(batch) => batch,
            Err(failure) => return Err(Undone::Error { label: "other", error: failure.into_error(WRITE) }),
        };
        let (mut attempt, mut unknown) = (0, false);
        loop {
            if let Some(error) = self.identity.replaced() {
                return Err(Undone::Error { label: "other", error });
            }
            let left = deadline.saturating_duration_since(brokers.clock.now());
            // Half of the time for one attempt: a broker that hangs costs one of two.
            let limit = (brokers.settings.write_timeout / 2).min(left);
            let failure = match self.leader.produce(batch.clone(), limit).await {
                Ok(first) => return Ok(first),
                Err(failure) => failure,
            };
            unknown |= failure.is_unknown();
            tracing::debug!(partition = self.partition.0, attempt, failure = %failure, "writing to Kafka failed");
            match failure {
                Failure::TooLarge(reason) => return Err(Undone::TooLarge(reason)),
                failure if failure.is_retryable() => {
                    let wait = brokers.back_off(attempt);
                    let left = deadline.saturating_duration_since(brokers.clock.now());
                    if wait >= left {
                        return Err(Undone::out_of_time(failure, unknown));
                    }
                    attempt += 1;
                    brokers.clock.sleep(wait).await;
                }
                failure => return Err(Undone::Error { label: "other", error: failure.into_error(WRITE) }),
            }
        }
    }

    /// Encodes and compresses; what takes long is kept from the threads that serve connections.
    async fn encode(&self, part: &Batch<Numbered>) -> Result<Bytes, Failure> {
        let compression = self.leader.brokers().settings.compression;
        let numbered = part.items().iter().map(|numbered| (&numbered.queued.record, numbered.sequence));
        if part.bytes() <= INLINE_BYTES {
            return records::encode(numbered, compression);
        }
        let owned: Vec<_> = numbered.map(|(record, sequence)| (record.clone(), sequence)).collect();
        let encoding = tokio::task::spawn_blocking(move || {
            records::encode(owned.iter().map(|(record, sequence)| (record, *sequence)), compression)
        });
        encoding.await.unwrap_or_else(|gone| Err(Failure::Refused(format!("records were not encoded: {gone}"))))
    }
}

/// Why a batch, or a part of it, was not acknowledged.
enum Undone {
    TooLarge(String),
    Error { label: &'static str, error: Error },
}

impl Undone {
    fn out_of_time(failure: Failure, unknown: bool) -> Self {
        let label = if matches!(failure, Failure::Timeout(_)) { "timeout" } else { "other" };
        if unknown {
            // The last reason stands in the log line of debug level and in vivace_kafka_call_failures_total.
            return Self::Error { label: "timeout", error: Error::DeadlineExceeded };
        }
        Self::Error { label, error: failure.into_error(WRITE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_charged_with_all_that_travels() {
        let record =
            Record { tenant: Bytes::from_static(b"acme"), value: Bytes::from_static(b"v"), ..Record::default() };
        assert!(size(&record) >= 4 + 1 + Sequence::HEADER.len() + 16 + 20);
    }
}

//! Reader: one consumer's way through one partition, by our own fetch loop.
//!
//! A fetch runs as a task of its own, so that a caller may drop `next` at any point, and the next answer is fetched while the last
//! one is worked on (one answer ahead, at most). While brokers are away it waits and tries again, with a line in the log when that
//! begins and when it ends; what only an operator can mend is an error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rskafka::client::partition::OffsetAt;
use rskafka::record::RecordAndOffset;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::channel::Channel;
use super::failure::Failure;
use super::identity::Identity;
use super::lag::Consumption;
use crate::error::Error;
use crate::log::{Batch, Reader};
use crate::record::{Entry, Header, Offset, Partition, Record};

const FETCH: &str = "fetch records";
const LEARN: &str = "learn offsets";
/// How long a broker holds a fetch when there is nothing new. A fetch that hangs is given up after the time that offsets may take
/// to be learned on top.
const FETCH_WAIT: Duration = Duration::from_secs(1);

/// Asked for at least and at most, whatever the caller wants to have at once.
const FETCH_BYTES: (usize, usize) = (64 << 10, 50_000_000);
/// Brokers count bytes as they were compressed, callers those of records: spans shrink to a fifth or less. With an answer ahead, a
/// caller that wants 4 MB would otherwise have 40 MB waiting.
const SHRINKAGE: usize = 4;
/// Attempts come at least five times a second, however long brokers have been away: what is acknowledged when they are back is asked for
/// at once.
const BACK_OFF_STEPS: u32 = 2;
/// The absence of brokers is told again after this many attempts, about a minute.
const TELL_EVERY: u32 = 400;

pub(crate) struct KafkaReader {
    partition: Partition,
    consumption: Arc<Consumption>,
    fetcher: Arc<Mutex<Fetcher>>,
    runtime: Handle,
    position: Offset,
    high_watermark: Offset,
    /// Fetched and not yet handed out.
    ahead: VecDeque<Entry>,
    /// Where the next fetch starts.
    fetch_from: Offset,
    fetching: Option<Fetching>,
}

/// Aborted when it is dropped.
struct Fetching(JoinHandle<Result<Fetched, Error>>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Fetched {
    entries: Vec<Entry>,
    /// Where the next fetch starts.
    end: Offset,
    high_watermark: Offset,
}

impl KafkaReader {
    pub(crate) fn new(fetcher: Fetcher, consumption: Arc<Consumption>, runtime: Handle, from: Offset) -> Self {
        Self {
            consumption,
            partition: fetcher.channel.partition(),
            fetcher: Arc::new(Mutex::new(fetcher)),
            runtime,
            position: from,
            high_watermark: from,
            ahead: VecDeque::new(),
            fetch_from: from,
            fetching: None,
        }
    }

    fn fetch(&mut self, max_bytes: usize) -> &mut Fetching {
        let (fetcher, runtime, from) = (&self.fetcher, &self.runtime, self.fetch_from);
        self.fetching.get_or_insert_with(|| {
            let fetcher = Arc::clone(fetcher);
            let max_bytes = (max_bytes / SHRINKAGE).clamp(FETCH_BYTES.0, FETCH_BYTES.1);
            Fetching(runtime.spawn(async move { fetcher.lock().await.fetch(from, max_bytes).await }))
        })
    }

    async fn fill(&mut self, max_bytes: usize) -> Result<(), Error> {
        while self.ahead.is_empty() {
            // A task that is gone without an answer: the runtime is ending.
            let result = (&mut self.fetch(max_bytes).0).await.unwrap_or(Err(Error::Closed));
            self.fetching = None;
            let fetched = result?;
            self.fetch_from = fetched.end;
            self.high_watermark = fetched.high_watermark;
            self.ahead.extend(fetched.entries);
        }
        Ok(())
    }
}

impl Reader for KafkaReader {
    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Batch, Error>> {
        Box::pin(async move {
            self.fill(max_bytes).await?;
            let (mut records, mut bytes) = (Vec::<Entry>::new(), 0);
            while let Some(entry) = self.ahead.front() {
                bytes += entry.record.charged_bytes();
                if bytes > max_bytes && !records.is_empty() {
                    break;
                }
                records.extend(self.ahead.pop_front());
            }
            self.position = match self.ahead.front() {
                Some(next) => next.offset,
                None => self.fetch_from,
            };
            if self.ahead.is_empty() {
                self.fetch(max_bytes);
            }
            if let Some(last) = records.last() {
                self.consumption.consumed(self.partition, last.record.timestamp_ms);
            }
            let high_watermark = self.high_watermark.max(self.position);
            Ok(Batch { records, end: self.position, high_watermark, skipped: Vec::new() })
        })
    }

    fn position(&self) -> Offset {
        self.position
    }
}

/// What fetches for one reader.
pub(crate) struct Fetcher {
    pub(crate) channel: Channel,
    pub(crate) identity: Arc<Identity>,
    pub(crate) closed: watch::Receiver<bool>,
}

impl Fetcher {
    /// Waits for something at or above `from`.
    async fn fetch(&mut self, from: Offset, max_bytes: usize) -> Result<Fetched, Error> {
        let mut failed = 0;
        let mut from = from;
        loop {
            if let Some(error) = self.identity.replaced() {
                return Err(error);
            }
            let closed = *self.closed.borrow();
            match self.once(from, max_bytes, closed).await {
                Ok((records, high_watermark)) => {
                    if failed > 0 {
                        tracing::info!(offset = from.0, "reading from Kafka goes on");
                        failed = 0;
                    }
                    if !records.is_empty() {
                        return Ok(self.fetched(records, high_watermark));
                    }
                    if closed {
                        return Err(Error::Closed);
                    }
                    if from < high_watermark && self.holds_nothing_readable(from).await {
                        self.channel.brokers().metrics.passed_over();
                        from = from.next();
                    }
                }
                Err(Failure::OutOfRange) => return Err(self.out_of_range(from).await),
                Err(failure) if failure.is_retryable() => {
                    if closed {
                        return Err(Error::Closed);
                    }
                    if failed % TELL_EVERY == 0 {
                        tracing::warn!(offset = from.0, reason = %failure, "reading from Kafka waits for the brokers");
                    }
                    let brokers = self.channel.shared();
                    let wait = brokers.back_off(failed.min(BACK_OFF_STEPS));
                    failed += 1;
                    brokers.clock.sleep(wait).await;
                }
                Err(failure) => return Err(failure.into_error(FETCH)),
            }
        }
    }

    async fn once(
        &mut self,
        from: Offset,
        max_bytes: usize,
        closed: bool,
    ) -> Result<(Vec<RecordAndOffset>, Offset), Failure> {
        let offset = i64::try_from(from.0).unwrap_or(i64::MAX);
        let max_bytes = i32::try_from(max_bytes).unwrap_or(i32::MAX);
        let wait = if closed { Duration::ZERO } else { FETCH_WAIT };
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let limit = FETCH_WAIT + self.channel.brokers().settings.offset_timeout;
        let (records, high_watermark) = self
            .channel
            .call(FETCH, limit, |client| async move { client.fetch_records(offset, 1..max_bytes, wait_ms).await })
            .await?;
        Ok((records, Offset(u64::try_from(high_watermark).unwrap_or(0))))
    }

    fn fetched(&self, records: Vec<RecordAndOffset>, high_watermark: Offset) -> Fetched {
        let entries: Vec<Entry> = records.into_iter().map(to_entry).collect();
        let brokers = self.channel.brokers();
        brokers.metrics.fetched(&entries, i64::try_from(brokers.clock.unix().as_millis()).unwrap_or(i64::MAX));
        let end = entries.last().map_or(Offset(0), |entry| entry.offset.next());
        Fetched { entries, end, high_watermark: high_watermark.max(end) }
    }

    /// There are records at or above `from`, and none came: marks of transactions or compacted ranges, unless a transaction is open
    /// there, which is waited for.
    async fn holds_nothing_readable(&mut self, from: Offset) -> bool {
        match self.offset(OffsetAt::Latest).await {
            Ok(stable_end) => from < stable_end,
            Err(_) => false,
        }
    }

    async fn offset(&mut self, at: OffsetAt) -> Result<Offset, Failure> {
        let limit = self.channel.brokers().settings.offset_timeout;
        let offset = self.channel.call(LEARN, limit, |client| async move { client.get_offset(at).await }).await?;
        Ok(Offset(u64::try_from(offset).unwrap_or(0)))
    }

    async fn out_of_range(&mut self, requested: Offset) -> Error {
        // Both are for the reader of the error; a broker that is away just now is no reason to hide it.
        let earliest = self.offset(OffsetAt::Earliest).await.unwrap_or(Offset(0));
        let end = self.offset(OffsetAt::Latest).await.unwrap_or(Offset(0));
        Error::OutOfRange { requested, earliest, end }
    }
}

fn to_entry(fetched: RecordAndOffset) -> Entry {
    let RecordAndOffset { record, offset } = fetched;
    let headers = record.headers.into_iter().map(|(name, value)| Header { name: name.into(), value: value.into() });
    Entry {
        offset: Offset(u64::try_from(offset).unwrap_or(0)),
        record: Record {
            tenant: record.key.map(Bytes::from).unwrap_or_default(),
            value: record.value.map(Bytes::from).unwrap_or_default(),
            headers: headers.collect(),
            timestamp_ms: record.timestamp.timestamp_millis(),
        },
    }
}

//! The world of these tests: a log that can be held, the group's offset, and the lives of one process.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use vivace_log::{
    Appended, Batch, Bounds as LogBounds, Budget, Error as LogError, GroupOffsets, Log, LogId, MemoryLog, Offset,
    Partition, Permit, Reader, Record,
};
use vivace_protocol::vivace::{Coverage, FindTraceRequest, MetricsJob, SearchJob};
use vivace_runtime::config::GoDuration;
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Bounds, Clock, Compute, Placement, Supervisor, SystemClock};

use crate::tests::{LONG, PARTITION, counted, log, record, run, setup, trace_id};
use crate::{ApplyHook, Config, Connect, Keep, LiveStore, Local, Setup, Source};

/// A log whose readers can be held, and told to fail, and whose answers can be held.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) log: MemoryLog,
    pub(super) open: Arc<watch::Sender<bool>>,
    pub(super) errors: Arc<Mutex<VecDeque<LogError>>>,
    pub(super) answers: Arc<watch::Sender<bool>>,
    /// How often it was asked for its bounds.
    pub(super) asked: Arc<AtomicUsize>,
}

impl Gate {
    pub(super) fn new(log: MemoryLog) -> Self {
        let open = || Arc::new(watch::Sender::new(true));
        Self { log, open: open(), errors: Arc::default(), answers: open(), asked: Arc::default() }
    }

    pub(super) fn hold(&self, hold: bool) {
        self.open.send_replace(!hold);
    }
}

impl Log for Gate {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn budget(&self) -> &Budget {
        self.log.budget()
    }

    fn append_reserved(
        &self,
        at: Partition,
        record: Record,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.log.append_reserved(at, record, permit)
    }

    fn reader(&self, partition: Partition, from: Offset) -> Result<Box<dyn Reader>, LogError> {
        let (reader, open) = (self.log.reader(partition, from)?, self.open.subscribe());
        Ok(Box::new(GateReader { reader, open, errors: Arc::clone(&self.errors) }))
    }

    fn bounds(&self, partition: Partition) -> BoxFuture<'static, Result<LogBounds, LogError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (log, mut answers) = (self.log.clone(), self.answers.subscribe());
        Box::pin(async move {
            answers.wait_for(|open| *open).await.map_err(|_gone| LogError::Closed)?;
            log.bounds(partition).await
        })
    }

    fn offset_at(&self, partition: Partition, timestamp_ms: i64) -> BoxFuture<'static, Result<Offset, LogError>> {
        self.log.offset_at(partition, timestamp_ms)
    }

    fn reclaim(&self, partition: Partition, below: Offset) -> BoxFuture<'static, Result<(), LogError>> {
        self.log.reclaim(partition, below)
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.log.close()
    }
}

struct GateReader {
    reader: Box<dyn Reader>,
    open: watch::Receiver<bool>,
    errors: Arc<Mutex<VecDeque<LogError>>>,
}

impl Reader for GateReader {
    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Batch, LogError>> {
        Box::pin(async move {
            self.open.wait_for(|open| *open).await.map_err(|_gone| LogError::Closed)?;
            if let Some(error) = self.errors.lock().pop_front() {
                return Err(error);
            }
            self.reader.next(max_bytes).await
        })
    }

    fn position(&self) -> Offset {
        self.reader.position()
    }
}

/// A group's offset that can be waited for. It is committed once the ledger on disk covers it; or never, on request.
#[derive(Clone)]
pub(super) struct Committed(pub(super) Arc<watch::Sender<Option<u64>>>, pub(super) Arc<AtomicBool>);

impl Committed {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)), Arc::default())
    }

    pub(super) fn get(&self) -> Option<u64> {
        *self.0.borrow()
    }

    pub(super) async fn reaches(&self, offset: u64) {
        let mut committed = self.0.subscribe();
        let reached = committed.wait_for(|committed| committed.is_some_and(|committed| committed >= offset));
        tokio::time::timeout(LONG, reached).await.unwrap().unwrap();
    }
}

impl GroupOffsets for Committed {
    fn committed(&self, _: Partition) -> BoxFuture<'static, Result<Option<Offset>, LogError>> {
        Box::pin(std::future::ready(Ok(self.get().map(Offset))))
    }

    fn commit(&self, _: Partition, next: Offset) -> BoxFuture<'static, Result<(), LogError>> {
        if self.1.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.0.send_replace(Some(next.0));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What outlives the process: the log and its group.
#[derive(Clone)]
pub(super) struct Kafka {
    pub(super) gate: Gate,
    pub(super) committed: Committed,
    /// So many attempts to reach it fail.
    pub(super) away: Arc<AtomicUsize>,
    pub(super) inactive: Arc<AtomicBool>,
}

impl Kafka {
    pub(super) fn new() -> Self {
        Self { gate: Gate::new(log()), committed: Committed::new(), away: Arc::default(), inactive: Arc::default() }
    }

    pub(super) async fn append(&self, record: Record) -> u64 {
        self.gate.log.append(PARTITION, record).await.unwrap().offset.0
    }

    /// A record of trace `n` for each, without waiting for anybody.
    pub(super) async fn write(&self, traces: impl IntoIterator<Item = u8>) {
        for n in traces {
            self.append(record(n)).await;
        }
    }
}

/// One life of a process.
pub(super) struct Life {
    pub(super) root: Supervisor,
    pub(super) compute: Compute,
    pub(super) live: LiveStore,
    pub(super) registry: Registry,
    /// How many records came by.
    pub(super) seen: watch::Receiver<u64>,
}

/// Blocks of one record each, committed at once.
pub(super) fn eager() -> Config {
    Config { max_block_bytes: 1, commit_interval: GoDuration::ZERO, ..Config::default() }
}

/// Everything stays in the head.
pub(super) fn lazy() -> Config {
    Config { commit_interval: GoDuration::ZERO, ..Config::default() }
}

pub(super) fn poison(offset: u64) -> impl Fn(u64) + Send + Sync + 'static {
    move |at| assert_ne!(at, offset, "planted")
}

impl Life {
    pub(super) fn start(dir: &Path, kafka: &Kafka, config: Config) -> Self {
        Self::start_at(dir, kafka, config, Arc::new(SystemClock), |_| ())
    }

    pub(super) fn start_at(
        dir: &Path,
        kafka: &Kafka,
        config: Config,
        clock: Arc<dyn Clock>,
        hook: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        let (root, registry) = (Supervisor::root("root", clock, Placement::Here), Registry::new());
        let compute = Compute::new("t", 1, Bounds::messages(64)).unwrap();
        let (count, seen) = watch::channel(0);
        let reached = kafka.clone();
        let connect: Connect = Arc::new(move || {
            let kafka = reached.clone();
            Box::pin(async move {
                if kafka.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    return Err(LogError::DeadlineExceeded);
                }
                Ok(Source { log: Arc::new(kafka.gate), offsets: Arc::new(kafka.committed) })
            })
        });
        let inactive = Arc::clone(&kafka.inactive);
        let keep = Keep::Local(Local {
            group: "live-store-zone-a".into(),
            connect,
            inactive: Arc::new(move || inactive.load(Ordering::SeqCst)),
        });
        let hook: ApplyHook = Arc::new(move |offset, _| {
            hook(offset);
            count.send_modify(|count| *count += 1);
        });
        let setup = setup(config, dir.into(), keep, &compute);
        let setup = Setup { metrics: registry.clone(), hook: Some(hook), ..setup };
        let live = LiveStore::add(&root, setup, Placement::Here);
        root.start();
        Self { root, compute, live, registry, seen }
    }

    /// Until so many records have come by in this life.
    pub(super) async fn sees(&mut self, records: u64) {
        let seen = self.seen.clone();
        let came = tokio::time::timeout(LONG, self.seen.wait_for(|seen| *seen >= records)).await.is_ok();
        assert!(came, "{} of {records} records came by: {}", *seen.borrow(), self.observed().await);
    }

    pub(super) async fn find(&self, n: u8) -> (usize, Coverage) {
        self.find_by(n, false).await
    }

    /// As [`Self::find`], by who waits until this live-store has caught up.
    pub(super) async fn find_caught_up(&self, n: u8) -> (usize, Coverage) {
        self.find_by(n, true).await
    }

    async fn find_by(&self, n: u8, caught_up: bool) -> (usize, Coverage) {
        let request = FindTraceRequest {
            tenant: "single-tenant".into(),
            trace_id: trace_id(n).as_bytes().to_vec(),
            caught_up,
            ..FindTraceRequest::default()
        };
        let batches: Vec<_> = self.live.find.call(request, LONG).await.unwrap().collect().await;
        let (mut parts, mut coverage) = (0, None);
        for batch in batches.into_iter().map(Result::unwrap) {
            parts += batch.parts.len();
            assert!(coverage.is_none() || batch.coverage.is_none(), "two coverages");
            coverage = coverage.or(batch.coverage);
        }
        (parts, coverage.unwrap())
    }

    /// How often each of these traces is there, in a complete answer.
    pub(super) async fn found(&self, traces: impl IntoIterator<Item = u8>) -> Vec<usize> {
        let mut found = Vec::new();
        for n in traces {
            let (parts, coverage) = self.find(n).await;
            assert_eq!((coverage.total, coverage.read, coverage.skipped), (1, 1, Vec::new()));
            found.push(parts);
        }
        found
    }

    pub(super) async fn search(&self) -> Result<(Vec<String>, Coverage), tonic::Status> {
        let job = SearchJob {
            tenant: "single-tenant".into(),
            query: "{ }".into(),
            limit: 100,
            spans_per_span_set: 3,
            ..SearchJob::default()
        };
        let batches: Vec<_> = self.live.search.call(job, LONG).await?.collect().await;
        let (mut traces, mut coverage) = (Vec::new(), None);
        for batch in batches.into_iter().map(Result::unwrap) {
            traces.extend(batch.traces.into_iter().map(|trace| trace.root_trace_name));
            coverage = coverage.or(batch.coverage);
        }
        traces.sort();
        Ok((traces, coverage.unwrap()))
    }

    pub(super) async fn spans(&self) -> u64 {
        let job = MetricsJob {
            tenant: "single-tenant".into(),
            query: "{} | count_over_time()".into(),
            end_unix_nano: 10_000,
            instant: true,
            ..MetricsJob::default()
        };
        counted(self.live.metrics.call(job, LONG).await.unwrap()).await.0
    }

    pub(super) async fn observed(&self) -> serde_json::Value {
        let tree = self.root.tree(LONG).await;
        let (_, owner) = tree.flatten().into_iter().find(|(_, node)| node.name == "owner").unwrap();
        owner.observed.clone()
    }

    pub(super) fn shows(&self, line: &str) {
        let text = self.registry.render();
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }

    pub(super) async fn stop(self) {
        assert!(self.root.drain(LONG).await);
    }
}

/// A process that ends as `kill -9` ends it: nothing is asked, everything in memory is gone.
pub(super) fn killed(test: impl Future<Output = Life>) {
    run(async {
        let life = test.await;
        // A thread of a process that is gone writes no more.
        life.compute.stop().await;
    });
}

//! The whole live-store with a log and a bucket in memory: panics, quarantine, drain, restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use vivace_log::{Budget, Log, LogId, MemoryLog, Offset, Partition, Progress, Record};
use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::slicer::{Limits as SliceLimits, slice};
use vivace_protocol::vivace::{
    BlockPublished, BlockPublishedReply, FindTraceRequest, MetricsBatch, MetricsJob, SearchJob,
};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{
    Bounds, Child, Clock, Compute, Cx, Endpoint, Part, Placement, Reply, Serve, StdDisk, Supervisor, SystemClock,
};
use vivace_storage::{Backend, BloomSpec, DedicatedColumn};

use crate::{ApplyHook, Bucket, Config, Keep, Limits, LiveStore, Setup};

mod forms;

pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const PARTITION: Partition = Partition(0);

/// At most so many live traces.
pub(crate) struct Live(pub(crate) usize);

impl Limits for Live {
    fn max_bytes_per_trace(&self, _tenant: &TenantId) -> usize {
        0
    }

    fn max_live_traces(&self, _tenant: &TenantId) -> usize {
        self.0
    }

    fn dedicated_columns(&self, _tenant: &TenantId) -> Vec<DedicatedColumn> {
        Vec::new()
    }
}

/// Takes news of blocks, as the blocklist does: counts them and keeps id and number of traces.
struct Sink(Arc<AtomicUsize>, Listed);

type Listed = Arc<parking_lot::Mutex<Vec<(String, u64)>>>;

impl Part for Sink {}

impl Serve<BlockPublished> for Sink {
    type Reply = BlockPublishedReply;

    fn serve(&mut self, news: BlockPublished, _cx: &mut Cx<Self>) -> Reply<BlockPublishedReply> {
        let meta = vivace_storage::BlockMeta::from_json(&news.meta_json).unwrap();
        self.1.lock().push((meta.block_id.to_string(), meta.total_objects));
        self.0.fetch_add(1, Ordering::SeqCst);
        Reply::ok(BlockPublishedReply {})
    }
}

struct World {
    root: Supervisor,
    live: LiveStore,
    log: MemoryLog,
    progress: Progress,
    published: Arc<AtomicUsize>,
    listed: Listed,
}

pub(crate) fn trace_id(n: u8) -> TraceId {
    TraceId([n; 16])
}

/// A record with one span of trace `n`.
pub(crate) fn record(n: u8) -> Record {
    piece(n, n)
}

/// A record with the span `span` of trace `n`.
pub(crate) fn piece(n: u8, span: u8) -> Record {
    batch(vec![Span {
        trace_id: vec![n; 16],
        span_id: vec![span; 8],
        name: format!("span {n}"),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 2_000,
        ..Span::default()
    }])
}

/// A record with these spans.
pub(crate) fn batch(spans: Vec<Span>) -> Record {
    let scope = ScopeSpans { spans, ..ScopeSpans::default() };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() }],
    };
    let body = Bytes::from(request.encode_to_vec());
    let sliced = slice(&body, &SliceLimits { max_attribute_bytes: 0 }).unwrap();
    let mut value = BytesMut::new();
    sliced.encode_push_bytes(false, &mut value);
    let timestamp_ms = i64::try_from(SystemClock.unix().as_millis()).unwrap();
    Record { tenant: Bytes::from_static(b"single-tenant"), value: value.freeze(), headers: Vec::new(), timestamp_ms }
}

/// Of one partition, without limits.
pub(crate) fn setup(config: Config, dir: PathBuf, keep: Keep, compute: &Compute) -> Setup {
    Setup {
        config,
        row_group_bytes: 100_000_000,
        bloom: BloomSpec { shard_bytes: 2048, false_positives: 0.05 },
        partition: PARTITION,
        dir,
        disk: Arc::new(StdDisk),
        keep,
        limits: Arc::new(Live(0)),
        background: compute.clone(),
        queries: compute.clone(),
        metrics: Registry::new(),
        hook: None,
    }
}

impl World {
    fn start(dir: PathBuf, log: MemoryLog, backend: Backend, hook: Option<ApplyHook>) -> Self {
        Self::start_with(Config::default(), dir, log, backend, hook)
    }

    fn start_with(config: Config, dir: PathBuf, log: MemoryLog, backend: Backend, hook: Option<ApplyHook>) -> Self {
        Self::start_limited(config, dir, log, backend, hook, (Live(0), &Registry::new()))
    }

    fn start_limited(
        config: Config,
        dir: PathBuf,
        log: MemoryLog,
        backend: Backend,
        hook: Option<ApplyHook>,
        (limits, metrics): (Live, &Registry),
    ) -> Self {
        let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
        let (published, progress) = (Arc::new(AtomicUsize::new(0)), Progress::new(Offset(0)));
        let sink = Child::<Sink>::new("sink", Bounds::messages(16));
        let compute = Compute::new("t", 1, Bounds::messages(64)).unwrap();
        let keep = Keep::Bucket(Bucket {
            log: Arc::new(log.clone()),
            progress: progress.clone(),
            backend,
            publish: Endpoint::local(sink.mailbox()),
        });
        let setup = setup(config, dir, keep, &compute);
        let setup = Setup { limits: Arc::new(limits), metrics: metrics.clone(), hook, ..setup };
        let live = LiveStore::add(&root, setup, Placement::Here);
        let (news, listed) = (Arc::clone(&published), Listed::default());
        let list = Arc::clone(&listed);
        root.add(sink, move |_| Ok(Sink(Arc::clone(&news), Arc::clone(&list))));
        root.start();
        Self { root, live, log, progress, published, listed }
    }

    async fn append(&self, n: u8) -> Offset {
        let offset = self.log.append(PARTITION, record(n)).await.unwrap().offset;
        self.progress.applied(offset, tokio::time::sleep(LONG)).await.unwrap();
        offset
    }

    async fn parts(&self, n: u8) -> usize {
        let request = FindTraceRequest {
            tenant: "single-tenant".into(),
            trace_id: trace_id(n).as_bytes().to_vec(),
            ..FindTraceRequest::default()
        };
        let batches = self.live.find.call(request, LONG).await.unwrap();
        let parts = futures::StreamExt::map(batches, |batch| batch.unwrap().parts.len());
        futures::StreamExt::fold(parts, 0, async |sum, parts| sum + parts).await
    }
}

/// The spans that a metrics query counted, and the blocks that are not to be read again.
pub(crate) async fn counted(
    answer: impl futures::Stream<Item = Result<MetricsBatch, tonic::Status>>,
) -> (u64, Vec<String>) {
    let (mut spans, mut held) = (0, Vec::new());
    let batches: Vec<_> = futures::StreamExt::collect(answer).await;
    for batch in batches.into_iter().map(Result::unwrap) {
        let leaves = batch.partial.into_iter().flat_map(|partial| partial.leaves);
        let cells = leaves.flat_map(|leaf| leaf.groups).flat_map(|group| group.cells);
        spans += cells.flat_map(|cells| cells.counts).sum::<u64>();
        held.extend(batch.held_block_ids);
    }
    (spans, held)
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

pub(crate) fn log() -> MemoryLog {
    MemoryLog::new(LogId::from_random([7; 16]), Budget::new(1 << 30, LONG))
}

#[test]
fn a_record_that_panics_its_consumer_is_set_aside_and_nothing_else_is_lost() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let hook: ApplyHook = Arc::new(|offset, _| assert_ne!(offset, 1, "planted"));
        let world = World::start(dir.path().into(), log(), Backend::memory(), Some(hook));
        for n in 1..=4 {
            world.append(n).await;
        }
        // The record at offset 1 holds trace 2.
        let mut found = Vec::new();
        for n in 1..=4 {
            found.push(world.parts(n).await);
        }
        assert_eq!(found, [1, 0, 1, 1]);
        let tree = world.root.tree(LONG).await;
        let (_, owner) = tree.flatten().into_iter().find(|(_, node)| node.name == "owner").unwrap();
        assert_eq!(owner.restarts, 2, "{owner:?}");
        assert!(owner.observed["quarantined"].to_string().contains("panicked twice"), "{}", owner.observed);
        assert!(world.root.drain(LONG).await);
    });
}

#[test]
fn a_panic_that_passes_loses_nothing_and_answers_wait_for_the_replay() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        let hook: ApplyHook = Arc::new(move |offset, _| {
            assert!(offset != 2 || counter.fetch_add(1, Ordering::SeqCst) > 0, "once");
        });
        let world = World::start(dir.path().into(), log(), Backend::memory(), Some(hook));
        for n in 1..=4 {
            world.append(n).await;
        }
        for n in 1..=4 {
            assert_eq!(world.parts(n).await, 1, "trace {n}");
        }
        assert_eq!(seen.load(Ordering::SeqCst), 2);
        assert!(world.root.drain(LONG).await);
    });
}

#[test]
fn a_drain_leaves_everything_in_published_blocks_and_a_restart_replays_nothing() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (log, backend) = (log(), Backend::memory());
        let world = World::start(dir.path().into(), log.clone(), backend.clone(), None);
        for n in 1..=3 {
            world.append(n).await;
        }
        let job = SearchJob {
            tenant: "single-tenant".into(),
            query: "{ name = \"span 2\" }".into(),
            limit: 10,
            spans_per_span_set: 3,
            ..SearchJob::default()
        };
        let mut found = world.live.search.call(job, LONG).await.unwrap();
        let batch = futures::StreamExt::next(&mut found).await.unwrap().unwrap();
        assert_eq!(batch.traces.len(), 1);
        assert!(world.root.drain(LONG).await);
        assert_eq!(world.published.load(Ordering::SeqCst), 1);
        let blocks = backend.list_blocks("single-tenant").await.unwrap().live;
        assert_eq!(blocks.len(), 1);

        let world = World::start(dir.path().into(), log, backend.clone(), None);
        assert_eq!(world.parts(1).await, 0, "what is in a block is not held any more");
        assert!(world.root.drain(LONG).await);
        assert_eq!(backend.list_blocks("single-tenant").await.unwrap().live, blocks);
    });
}

/// Every record makes a cut at once, so that most questions meet spans on their way into a block.
#[test]
fn a_span_counts_once_while_it_moves_into_a_block() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { max_block_bytes: 1, ..Config::default() };
        let world = World::start_with(config, dir.path().into(), log(), Backend::memory(), None);
        let job = MetricsJob {
            tenant: "single-tenant".into(),
            query: "{} | count_over_time()".into(),
            end_unix_nano: 10_000,
            instant: true,
            ..MetricsJob::default()
        };
        let (mut in_blocks, mut held) = (0, 0);
        for n in 1..=60 {
            world.append(n).await;
            let answer = world.live.metrics.call(job.clone(), LONG).await.unwrap();
            let (live, held_block_ids) = counted(answer).await;
            // The list is taken afterwards, as the query-frontend does.
            let listed = world.listed.lock().clone();
            let read = listed.iter().filter(|(block, _)| !held_block_ids.contains(block));
            let stored: u64 = read.map(|(_, traces)| traces).sum();
            assert_eq!(live + stored, u64::from(n), "{live} live, held {held_block_ids:?}, listed {listed:?}");
            in_blocks += stored;
            held += held_block_ids.len();
        }
        assert!(in_blocks > 0 && held > 0, "{in_blocks} {held}");
        assert!(world.root.drain(LONG).await);
    });
}

#[test]
fn traces_above_the_limit_are_dropped_and_counted_and_the_others_go_on() {
    run(async {
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Registry::new());
        let (config, limits) = (Config::default(), (Live(2), &metrics));
        let world = World::start_limited(config, dir.path().into(), log(), Backend::memory(), None, limits);
        for n in [1, 2, 3, 1, 3] {
            world.append(n).await;
        }
        let mut found = Vec::new();
        for n in 1..=3 {
            found.push(world.parts(n).await);
        }
        assert_eq!(found, [2, 1, 0]);
        let line = "tempo_discarded_spans_total{reason=\"live_traces_exceeded\",tenant=\"single-tenant\"} 2";
        assert!(metrics.render().lines().any(|there| there == line), "{}", metrics.render());
        assert!(world.root.drain(LONG).await);
    });
}

//! The live-store's table of children.
//!
//! | child | built from | on panic | limit | on stop |
//! |---|---|---|---|---|
//! | query | handles | rebuilt, queries of that life retried by their askers | 5 a minute | ends at once |
//! | owner | the ledger, then a replay of the log; look-ups wait meanwhile. In its own process: the ledger and the local blocks | rebuilt; the record that it died on counts a strike | 10 a minute | cuts everything, waits for the blocks; in its own process it commits then |
//! | flusher | handles | rebuilt; the owner asks again | 5 a minute | finishes |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vivace_log::Quarantine;
use vivace_protocol::service;
use vivace_protocol::vivace::{
    BlockPublished, BlockPublishedReply, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch,
    SearchJob, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{
    Bounds, Child, Compute, Disk, Endpoint, EndpointRouter, Placement, Restart, StreamEndpoint, Supervisor,
};
use vivace_storage::{Backend, BackendError, Decoded};

use crate::config::Config;
use crate::flusher::Flusher;
use crate::keep::{Bucket, Keep};
use crate::ledger_file::LedgerFile;
use crate::limits::Limits;
use crate::metrics::{Group, LocalMetrics, Metrics};
use crate::owner::{ApplyHook, Home, LocalHome, Owner, Shared, Times};
use crate::query::{LiveReaders, LocalQueries, Query, Readers};
use crate::readiness::{Phase, Readiness};
use crate::shelf::OpenBlocks;
use crate::state::{GroupRules, Rules};

/// Decoded parts of local blocks, and of live traces that were encoded for queries, kept from one query to the next.
const DECODED_BYTES: usize = 32 << 20;

/// What a live-store is made of.
pub struct Setup {
    /// Keys below `live_store`.
    pub config: Config,
    /// Rows of a block are grouped up to this estimate, key `storage.trace.block.parquet_row_group_size_bytes`.
    pub row_group_bytes: u64,
    /// Size and sharpness of the blocks' bloom filters, keys `storage.trace.block.bloom_filter_*`.
    pub bloom: vivace_storage::BloomSpec,
    /// The partition of the log. See [`Identity`](crate::Identity).
    pub partition: vivace_log::Partition,
    /// Folder of the ledger, and of local blocks; must exist and lie on a disk that survives a restart.
    pub dir: PathBuf,
    /// Where the ledger is written.
    pub disk: Arc<dyn Disk>,
    /// Where the log is and blocks go.
    pub keep: Keep,
    /// Limits by tenant.
    pub limits: Arc<dyn Limits>,
    /// Encoding of blocks, and the ledger.
    pub background: Compute,
    /// Evaluation of queries.
    pub queries: Compute,
    /// Where measurements go.
    pub metrics: Registry,
    /// Called for every record before it is filed; tests plant failures here.
    pub hook: Option<ApplyHook>,
}

/// What others may ask of it.
#[derive(Clone, Debug)]
pub struct LiveStore {
    /// The pieces of a trace.
    pub find: StreamEndpoint<FindTraceRequest, FindTraceBatch>,
    /// A search over recent data.
    pub search: StreamEndpoint<SearchJob, SearchBatch>,
    /// Names of tags in recent data.
    pub tag_names: Endpoint<TagNamesJob, TagNamesReply>,
    /// Values of a tag in recent data.
    pub tag_values: Endpoint<TagValuesJob, TagValuesReply>,
    /// A part of a metrics query over recent data.
    pub metrics: StreamEndpoint<MetricsJob, MetricsBatch>,
    /// Whether it takes part.
    pub readiness: Readiness,
}

impl LiveStore {
    /// Everything that others may ask of it, for other processes.
    #[must_use]
    pub fn router(&self) -> EndpointRouter {
        EndpointRouter::of(service::LIVE_STORE)
            .streaming(self.find.clone())
            .streaming(self.search.clone())
            .unary(self.tag_names.clone())
            .unary(self.tag_values.clone())
            .streaming(self.metrics.clone())
    }

    /// Adds the live-store below `parent`; it starts with it.
    #[must_use]
    pub fn add(parent: &Supervisor, setup: Setup, placement: Placement) -> Self {
        let component =
            parent.component("live-store", Restart::default().at_most(2, Duration::from_secs(300)), placement);
        let config = &setup.config;
        let metrics = Metrics::register(&setup.metrics);
        let ledger_path = setup.dir.join(format!("ledger-{}", setup.partition));
        let is_local = matches!(setup.keep, Keep::Local(_));
        let readiness = Readiness::new(if is_local { Phase::Starting } else { Phase::Ready });
        let rules = rules(config, is_local);
        let slack = config.wal.ingestion_time_range_slack.into();
        let at_once = usize::try_from(config.query_block_concurrency).unwrap_or(1).max(1);
        let blocks_dir = setup.dir.join("blocks").join(setup.partition.to_string());
        let decoded = Decoded::new(DECODED_BYTES);
        let open = Arc::new(OpenBlocks::new(decoded.clone()));
        let (home, flushes_to, log_id, local) = match setup.keep {
            Keep::Bucket(Bucket { log, progress, backend, publish }) => {
                let log_id = log.id().to_string();
                (Home::Bucket { log, progress }, FlushesTo::Bucket(backend, publish), Some(log_id), None)
            }
            Keep::Local(local) => {
                let metrics = LocalMetrics::register(&setup.metrics);
                metrics.ready(None);
                let queries = LocalQueries { metrics: metrics.clone(), fail_on_high_lag: config.fail_on_high_lag };
                let home = LocalHome {
                    group: Group { name: local.group, partition: setup.partition.to_string() },
                    connect: local.connect,
                    inactive: local.inactive,
                    reached: parking_lot::Mutex::default(),
                    blocks_dir: blocks_dir.clone(),
                    compute: setup.background.clone(),
                    open: Arc::clone(&open),
                    readiness: readiness.clone(),
                    times: Times::of(config),
                    metrics,
                };
                (Home::Local(Box::new(home)), FlushesTo::Disk(blocks_dir), None, Some(queries))
            }
        };
        let shared = Arc::new(Shared {
            partition: setup.partition,
            ledger: LedgerFile::new(Arc::clone(&setup.disk), ledger_path, setup.background.clone()),
            rules,
            check_period: config.flush_check_period.into(),
            limits: Arc::clone(&setup.limits),
            quarantine: Quarantine::default(),
            metrics: metrics.clone(),
            hook: setup.hook,
            home,
        });
        let partition = u32::try_from(setup.partition.0).unwrap_or(0);

        let query = Child::<Query>::new("query", Bounds::messages(64)).waits_for("owner");
        let owner = Child::<Owner>::new("owner", Bounds::messages(256))
            .restart(Restart::default().at_most(10, Duration::from_secs(60)).waiting());
        let flush = Child::<Flusher>::new("flusher", Bounds::messages(2)).restart(Restart::default().waiting());
        let live_store = Self {
            find: StreamEndpoint::local(query.mailbox()),
            search: StreamEndpoint::local(query.mailbox()),
            tag_names: Endpoint::local(query.mailbox()),
            tag_values: Endpoint::local(query.mailbox()),
            metrics: StreamEndpoint::local(query.mailbox()),
            readiness,
        };
        let parts = Query {
            find: owner.mailbox(),
            collect: owner.mailbox(),
            moved: owner.mailbox(),
            catch_up: owner.mailbox(),
            log_id,
            partition,
            readers: Readers { compute: setup.queries.clone(), open, at_once },
            live: LiveReaders { compute: setup.queries, background: setup.background.clone(), decoded },
            metrics: metrics.clone(),
            local,
        };
        let to_flusher = flush.mailbox();
        component.add(query, move |_| Ok(parts.clone()));
        component.add_async(owner.waits_for("flusher"), move |cx| {
            Owner::build(Arc::clone(&shared), to_flusher.clone(), Arc::clone(cx.clock()))
        });
        let flush = if is_local { flush } else { flush.waits_for("querier/blocklist") };
        component.add(flush, move |_| {
            let (backend, publish) = flushes_to.open()?;
            Ok(Flusher {
                backend,
                compute: setup.background.clone(),
                limits: Arc::clone(&setup.limits),
                publish,
                partition,
                row_group_bytes: setup.row_group_bytes,
                bloom: setup.bloom,
                slack,
                metrics: metrics.clone(),
            })
        });
        live_store
    }
}

/// When cuts are made. Blocks of the bucket are few and merged by others, and worth waiting for; those of the own disk are what
/// the group may commit, so they are made in time.
fn rules(config: &Config, is_local: bool) -> Rules {
    let max_block_duration = Duration::from(config.max_block_duration);
    Rules {
        max_block_bytes: usize::try_from(config.max_block_bytes).unwrap_or(usize::MAX),
        max_live_bytes: usize::try_from(config.max_live_traces_bytes).unwrap_or(usize::MAX),
        max_block_duration,
        patience: if is_local { max_block_duration } else { max_block_duration.saturating_mul(20) },
        max_trace_idle: config.max_trace_idle.into(),
        max_trace_live: config.max_trace_live.into(),
        groups: GroupRules::default(),
    }
}

/// Where the flusher writes.
enum FlushesTo {
    Bucket(Backend, Endpoint<BlockPublished, BlockPublishedReply>),
    Disk(PathBuf),
}

impl FlushesTo {
    fn open(&self) -> Result<(Backend, Option<Endpoint<BlockPublished, BlockPublishedReply>>), BackendError> {
        match self {
            Self::Bucket(backend, publish) => Ok((backend.clone(), Some(publish.clone()))),
            Self::Disk(root) => Ok((Backend::local(root)?, None)),
        }
    }
}

//! The live-store's table of children.
//!
//! | child | built from | on panic | limit | on stop |
//! |---|---|---|---|---|
//! | query | handles | rebuilt, queries of that life retried by their askers | 5 a minute | ends at once |
//! | owner | the ledger, then a replay of the log; look-ups wait meanwhile | rebuilt; the record that it died on counts a strike | 10 a minute | cuts everything, waits for the blocks |
//! | flusher | handles | rebuilt; the owner asks again | 5 a minute | finishes |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vivace_log::{Log, Progress};
use vivace_protocol::vivace::{
    BlockPublished, BlockPublishedReply, FindTraceReply, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch,
    SearchJob, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Bounds, Child, Compute, Disk, Endpoint, Placement, Restart, StreamEndpoint, Supervisor};
use vivace_storage::Backend;

use crate::config::Config;
use crate::flusher::Flusher;
use crate::ledger_file::LedgerFile;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::owner::{ApplyHook, Owner, Shared};
use crate::quarantine::Quarantine;
use crate::query::Query;
use crate::state::Rules;

/// What a live-store is made of.
pub struct Setup {
    /// Keys below `live_store`.
    pub config: Config,
    /// Rows of a block are grouped up to this estimate, key `storage.trace.block.parquet_row_group_size_bytes`.
    pub row_group_bytes: u64,
    /// Size and sharpness of the blocks' bloom filters, keys `storage.trace.block.bloom_filter_*`.
    pub bloom: vivace_storage::BloomSpec,
    /// The log to follow, and which partition of it.
    pub log: Arc<dyn Log>,
    /// The partition.
    pub partition: vivace_log::Partition,
    /// Where it says how far the log has been applied: what an acknowledgement waits for.
    pub progress: Progress,
    /// Folder of the ledger; must exist and lie on a disk that survives a restart.
    pub dir: PathBuf,
    /// Where the ledger is written.
    pub disk: Arc<dyn Disk>,
    /// Where blocks go.
    pub backend: Backend,
    /// Limits by tenant.
    pub limits: Arc<dyn Limits>,
    /// Who is told of new blocks.
    pub publish: Endpoint<BlockPublished, BlockPublishedReply>,
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
    pub find: Endpoint<FindTraceRequest, FindTraceReply>,
    /// A search over recent data.
    pub search: StreamEndpoint<SearchJob, SearchBatch>,
    /// Names of tags in recent data.
    pub tag_names: Endpoint<TagNamesJob, TagNamesReply>,
    /// Values of a tag in recent data.
    pub tag_values: Endpoint<TagValuesJob, TagValuesReply>,
    /// A part of a metrics query over recent data.
    pub metrics: StreamEndpoint<MetricsJob, MetricsBatch>,
}

impl LiveStore {
    /// Adds the live-store below `parent`; it starts with it.
    #[must_use]
    pub fn add(parent: &Supervisor, setup: Setup, placement: Placement) -> Self {
        let component =
            parent.component("live-store", Restart::default().at_most(2, Duration::from_secs(300)), placement);
        let config = &setup.config;
        let metrics = Metrics::register(&setup.metrics);
        let ledger_path = setup.dir.join(format!("ledger-{}", setup.partition));
        let shared = Arc::new(Shared {
            log: Arc::clone(&setup.log),
            partition: setup.partition,
            progress: setup.progress,
            ledger: LedgerFile::new(Arc::clone(&setup.disk), ledger_path, setup.background.clone()),
            rules: Rules {
                max_block_bytes: usize::try_from(config.max_block_bytes).unwrap_or(usize::MAX),
                max_live_bytes: usize::try_from(config.max_live_traces_bytes).unwrap_or(usize::MAX),
                max_block_duration: config.max_block_duration.into(),
                max_trace_idle: config.max_trace_idle.into(),
                max_trace_live: config.max_trace_live.into(),
            },
            check_period: config.flush_check_period.into(),
            limits: Arc::clone(&setup.limits),
            quarantine: Quarantine::default(),
            metrics: metrics.clone(),
            hook: setup.hook,
        });
        let flusher = Flusher {
            backend: setup.backend,
            compute: setup.background,
            limits: setup.limits,
            publish: setup.publish,
            log_id: setup.log.id().to_string(),
            partition: u32::try_from(setup.partition.0).unwrap_or(0),
            row_group_bytes: setup.row_group_bytes,
            bloom: setup.bloom,
            slack: config.wal.ingestion_time_range_slack.into(),
            metrics,
        };

        let query = Child::<Query>::new("query", Bounds::messages(64)).waits_for("owner");
        let owner = Child::<Owner>::new("owner", Bounds::messages(256))
            .restart(Restart::default().at_most(10, Duration::from_secs(60)).waiting());
        let flush = Child::<Flusher>::new("flusher", Bounds::messages(2)).restart(Restart::default().waiting());
        let live_store = Self {
            find: Endpoint::local(query.mailbox()),
            search: StreamEndpoint::local(query.mailbox()),
            tag_names: Endpoint::local(query.mailbox()),
            tag_values: Endpoint::local(query.mailbox()),
            metrics: StreamEndpoint::local(query.mailbox()),
        };
        let parts = Query {
            find: owner.mailbox(),
            collect: owner.mailbox(),
            moved: owner.mailbox(),
            log_id: flusher.log_id.clone(),
            partition: flusher.partition,
            compute: setup.queries,
        };
        let to_flusher = flush.mailbox();
        component.add(query, move |_| Ok(parts.clone()));
        component.add_async(owner.waits_for("flusher"), move |cx| {
            Owner::build(Arc::clone(&shared), to_flusher.clone(), Arc::clone(cx.clock()))
        });
        component.add(flush.waits_for("querier/blocklist"), move |_| Ok(flusher.clone()));
        live_store
    }
}

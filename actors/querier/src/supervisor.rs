//! The querier's table of children.
//!
//! | child | built from | on panic | limit | on stop |
//! |---|---|---|---|---|
//! | worker | handles | rebuilt; its jobs are tried again by their askers | 10 a minute | finishes running jobs |
//! | live-stores | handles; where live-stores are behind a ring | rebuilt; looks again | 10 a minute | ends at once |
//! | blocklist | a poll of the object store | rebuilt by a poll; requests wait | 5 a minute | ends at once |

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use vivace_protocol::service;
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, BlockPublished, BlockPublishedReply, BlocksReplaced, BlocksReplacedReply,
    FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch, SearchJob, TagNamesJob, TagNamesReply,
    TagValuesJob, TagValuesReply,
};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{
    Bounds, Child, Compute, Endpoint, EndpointRouter, Placement, Restart, StreamEndpoint, Supervisor,
};
use vivace_storage::{Backend, Decoded};

use crate::blocklist::Blocklist;
use crate::blocks::{Blocks, OpenBlocks};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::recent::Recent;
use crate::ring::Upkeep;
use crate::worker::Worker;

/// Footers and page indexes of open blocks kept in memory.
const OPEN_BLOCKS_BYTES: usize = 16 << 20;

/// Decoded pages of blocks kept in memory.
const DECODED_BYTES: usize = 64 << 20;

/// What a querier is made of.
pub struct Setup {
    /// Keys below `querier`.
    pub config: Config,
    /// Time between two polls, key `storage.trace.blocklist_poll`.
    pub poll_period: Duration,
    /// Where blocks are.
    pub backend: Backend,
    /// How they are opened.
    pub opener: Arc<dyn OpenBlocks>,
    /// Reading and evaluation.
    pub compute: Compute,
    /// Where measurements go.
    pub metrics: Registry,
}

/// What others may ask of it.
#[derive(Clone, Debug)]
pub struct Querier {
    /// The pieces of a trace.
    pub find: StreamEndpoint<FindTraceRequest, FindTraceBatch>,
    /// A search job.
    pub search: StreamEndpoint<SearchJob, SearchBatch>,
    /// Names of tags.
    pub tag_names: Endpoint<TagNamesJob, TagNamesReply>,
    /// Values of a tag.
    pub tag_values: Endpoint<TagValuesJob, TagValuesReply>,
    /// A part of a metrics query.
    pub metrics: StreamEndpoint<MetricsJob, MetricsBatch>,
    /// The blocks of a tenant.
    pub blocks: Endpoint<BlockListRequest, BlockListReply>,
}

impl Querier {
    /// Everything that others may ask of it, for other processes and for links.
    #[must_use]
    pub fn router(&self) -> EndpointRouter {
        EndpointRouter::of(service::QUERIER)
            .streaming(self.find.clone())
            .streaming(self.search.clone())
            .unary(self.tag_names.clone())
            .unary(self.tag_values.clone())
            .streaming(self.metrics.clone())
            .unary(self.blocks.clone())
    }
}

/// Where news of blocks is taken.
#[derive(Clone, Debug)]
pub struct News {
    /// A block was written.
    pub published: Endpoint<BlockPublished, BlockPublishedReply>,
    /// Blocks were merged or removed.
    pub replaced: Endpoint<BlocksReplaced, BlocksReplacedReply>,
}

/// The querier before it knows whom to ask for recent data: the live-store needs [`News`] first.
pub struct Plan {
    setup: Setup,
    blocklist: Child<Blocklist>,
}

impl Plan {
    /// A querier to be, and where it takes news.
    #[must_use]
    pub fn new(setup: Setup) -> (Self, News) {
        let blocklist =
            Child::<Blocklist>::new("blocklist", Bounds::messages(256)).restart(Restart::default().waiting());
        let news =
            News { published: Endpoint::local(blocklist.mailbox()), replaced: Endpoint::local(blocklist.mailbox()) };
        (Self { setup, blocklist }, news)
    }

    /// Adds the querier below `parent`; it starts with it.
    #[must_use]
    pub fn add(self, parent: &Supervisor, recent: impl Into<Recent>, placement: Placement) -> Querier {
        let (Self { setup, blocklist }, recent) = (self, recent.into());
        let policy = Restart::default().at_most(2, Duration::from_secs(300));
        let component = parent.component("querier", policy, placement);
        let metrics = Metrics::register(&setup.metrics);
        let worker = Child::<Worker>::new("worker", Bounds::messages(256))
            .restart(Restart::default().at_most(10, Duration::from_secs(60)))
            .waits_for("blocklist");
        let upkeep = recent.upkeep();
        // Behind a ring they are other processes.
        let worker = if upkeep.is_some() { worker } else { worker.waits_for("live-store/query") };
        let turns = usize::try_from(setup.config.max_concurrent_queries).unwrap_or(20).max(1);
        let blocks = Arc::new(Blocks::new(setup.opener, OPEN_BLOCKS_BYTES, Decoded::new(DECODED_BYTES)));
        let parts = Worker {
            recent,
            blocklist: blocklist.mailbox(),
            list: blocklist.mailbox(),
            blocks: Arc::clone(&blocks),
            compute: setup.compute,
            running: Arc::new(Semaphore::new(turns)),
            backend: setup.backend.clone(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            find_timeout: setup.config.trace_by_id.query_timeout.into(),
            search_timeout: setup.config.search.query_timeout.into(),
        };
        let querier = Querier {
            find: StreamEndpoint::local(worker.mailbox()),
            search: StreamEndpoint::local(worker.mailbox()),
            tag_names: Endpoint::local(worker.mailbox()),
            tag_values: Endpoint::local(worker.mailbox()),
            metrics: StreamEndpoint::local(worker.mailbox()),
            blocks: Endpoint::local(worker.mailbox()),
        };
        component.add(worker, move |_| Ok(parts.clone()));
        if let Some(upkeep) = upkeep {
            let child = Child::<Upkeep>::new("live-stores", Bounds::messages(1))
                .restart(Restart::default().at_most(10, Duration::from_secs(60)));
            component.add(child, move |_| Ok(upkeep.clone()));
        }
        let (backend, period) = (setup.backend, setup.poll_period);
        component.add_async(blocklist, move |_| {
            Blocklist::build(backend.clone(), period, metrics.clone(), Arc::clone(&blocks))
        });
        querier
    }
}

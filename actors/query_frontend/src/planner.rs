//! Plans queries over time: recent data first, then blocks from the newest on, split into jobs by bytes; runs the jobs in
//! turn, tries a failed one again, and merges what comes back together with what is missing.
//!
//! Every kind of query is a [`Progress`]: it advances job by job, tells what changed, and in the end everything. What is
//! answered at once and what is streamed takes this one path.

mod blocks;
mod jobs;
mod metrics;
mod notes;
mod progress;
mod search;
mod sweep;
mod tags;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tonic::{Code, Status};
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch,
    SearchJob, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_protocol::{TenantId, service};
use vivace_runtime::config::GoDuration;
use vivace_runtime::{Clock, Deadline, Endpoint, Links, Mailbox, StreamEndpoint};

pub(crate) use self::blocks::BlockLists;
pub(crate) use self::metrics::{Metrics, at_once};
pub(crate) use self::progress::{Progress, Told, complete, tell};
pub(crate) use self::search::{Search, SearchPlan};
pub(crate) use self::tags::{Grouping, TagNames, TagPlan, TagValues};
pub(crate) use self::trace::{TracePlan, TraceSearch};
use crate::config::Config;
use crate::limits::Limits;
use crate::queue::{Enter, Turn};
use crate::respond::Refusal;

/// What the query-frontend asks of queriers.
#[derive(Clone, Debug)]
pub struct Queriers {
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

impl Queriers {
    /// Those that have opened links to this process.
    #[must_use]
    pub fn linked(links: &Links) -> Self {
        Self {
            find: StreamEndpoint::linked(links, service::QUERIER),
            search: StreamEndpoint::linked(links, service::QUERIER),
            tag_names: Endpoint::linked(links, service::QUERIER),
            tag_values: Endpoint::linked(links, service::QUERIER),
            metrics: StreamEndpoint::linked(links, service::QUERIER),
            blocks: Endpoint::linked(links, service::QUERIER),
        }
    }
}

/// How recent data and blocks share what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecentData {
    /// The live-store hands its data over to blocks and says which: a span is in one of both.
    HandedOver,
    /// Others write the blocks from the same log, so for a while a span is in both. What is counted is counted by its time: from
    /// recent data if it is younger than `query_frontend.metrics.query_backend_after`, else from blocks.
    Shared,
}

/// Everything that a query needs.
pub(crate) struct Planner {
    pub(crate) config: Config,
    pub(crate) multitenancy: bool,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) queriers: Queriers,
    pub(crate) queue: Mailbox<Enter, Turn>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) block_lists: BlockLists,
    pub(crate) recent: RecentData,
}

/// Without `query_timeout` of its own, a search may take this long.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

impl Planner {
    pub(crate) fn max_bytes_per_trace(&self, tenants: &[TenantId]) -> usize {
        tenants.iter().map(|t| self.limits.max_bytes_per_trace(t)).min().unwrap_or(0)
    }

    /// How long a search may take.
    fn time_limit(&self) -> Duration {
        let own: Duration = self.config.search.timeout.into();
        let all: Duration = self.config.api_timeout.into();
        // Who waits for the answer ends it at `api_timeout`, and has to come first.
        let all = if all.is_zero() { all } else { all + Duration::from_secs(1) };
        [own, all].into_iter().find(|d| !d.is_zero()).unwrap_or(DEFAULT_TIMEOUT)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.time_limit())
    }

    /// Memory of what a search or a query for tags has found; 0 is any.
    fn result_bytes(&self) -> usize {
        usize::try_from(self.config.search.max_result_bytes).unwrap_or(usize::MAX)
    }

    /// # Errors
    /// What was found takes more memory than it may.
    fn check_result(&self, bytes: usize) -> Result<(), Refusal> {
        let limit = self.result_bytes();
        if limit > 0 && bytes > limit { Err(self.too_much()) } else { Ok(()) }
    }

    /// The one error of a query that no second attempt and no other querier would answer; 422 as for traces that are too large.
    fn too_much(&self) -> Refusal {
        Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!(
                "the results of the query take more than {} bytes (limit query_frontend.search.max_result_bytes): use a smaller \
                 limit or spss, a more selective filter, fewer select() or by() fields or a shorter range, or raise the limit",
                self.result_bytes()
            ),
        )
    }

    /// What a job's error means for its query: the end, or that a part is missing.
    fn judge(&self, status: Status, deadline: Deadline) -> Result<Refusal, Status> {
        if status.code() == Code::OutOfRange {
            return Ok(self.too_much());
        }
        if status.code() == Code::DeadlineExceeded && deadline.is_over() {
            let limit = GoDuration::from(self.time_limit());
            return Ok(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "the query took longer than {limit} (limit query_frontend.search.timeout): use a shorter range or a \
                     more selective filter, or raise the limit"
                ),
            ));
        }
        refused(status)
    }

    async fn turn(&self, tenant: &TenantId, deadline: Deadline) -> Result<Turn, Status> {
        let asker = Arc::new(());
        self.queue.ask(Enter { tenant: tenant.to_string(), asker: Arc::downgrade(&asker) }, deadline).await
    }

    /// Runs one job in its turn, and again if that may help.
    async fn attempt<R, F>(&self, tenant: &TenantId, deadline: Deadline, job: impl Fn() -> F) -> Result<R, Status>
    where
        F: Future<Output = Result<R, Status>>,
    {
        let _turn = self.turn(tenant, deadline).await?;
        let mut attempts = self.config.max_retries.max(1);
        loop {
            match job().await {
                Err(status) if status.code() == Code::Unavailable && attempts > 1 && !deadline.is_over() => {
                    attempts -= 1
                }
                result => return result,
            }
        }
    }
}

/// Whether an error is the query's own, so that answering without this part would be wrong.
fn fatal(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::Unimplemented)
}

/// The refusal of the whole query where answering without a part would be wrong; otherwise the status again.
fn refused(status: Status) -> Result<Refusal, Status> {
    if fatal(&status) { Ok(status.into()) } else { Err(status) }
}

//! Plans queries over time: recent data first, then blocks from the newest on, split into jobs by bytes; runs the jobs in
//! turn, tries a failed one again, and merges what comes back together with what is missing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::{Code, Status};
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, FindTraceReply, FindTraceRequest, SearchBatch, SearchJob, TagNamesJob,
    TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_protocol::{TenantId, TraceId, tempopb};
use vivace_runtime::{Clock, Deadline, Endpoint, Mailbox, StreamEndpoint};
use vivace_storage::BlockMeta;

use crate::config::Config;
use crate::coverage::Covered;
use crate::limits::Limits;
use crate::merge::Merge;
use crate::queue::{Enter, Turn};
use crate::respond::Refusal;

/// What the query-frontend asks of queriers.
#[derive(Clone, Debug)]
pub struct Queriers {
    /// The pieces of a trace.
    pub find: Endpoint<FindTraceRequest, FindTraceReply>,
    /// A search job.
    pub search: StreamEndpoint<SearchJob, SearchBatch>,
    /// Names of tags.
    pub tag_names: Endpoint<TagNamesJob, TagNamesReply>,
    /// Values of a tag.
    pub tag_values: Endpoint<TagValuesJob, TagValuesReply>,
    /// The blocks of a tenant.
    pub blocks: Endpoint<BlockListRequest, BlockListReply>,
}

/// Everything that a query needs.
pub(crate) struct Planner {
    pub(crate) config: Config,
    pub(crate) multitenancy: bool,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) queriers: Queriers,
    pub(crate) queue: Mailbox<Enter, Turn>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A checked search.
#[derive(Debug, Clone)]
pub(crate) struct SearchPlan {
    pub(crate) query: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) limit: u32,
    pub(crate) spans_per_span_set: u32,
}

/// What a search found.
pub(crate) struct FoundTraces {
    pub(crate) traces: Vec<tempopb::TraceSearchMetadata>,
    pub(crate) metrics: tempopb::SearchMetrics,
    pub(crate) covered: Covered,
}

/// The pieces of one trace.
pub(crate) struct FoundTrace {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) inspected_bytes: u64,
    pub(crate) covered: Covered,
}

/// A checked query for tag names or values.
#[derive(Debug, Clone, Default)]
pub(crate) struct TagPlan {
    pub(crate) scope: String,
    pub(crate) tag: String,
    pub(crate) query: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) limit: u32,
}

/// Some blocks that are read together.
struct Job {
    block_ids: Vec<String>,
    newest_ns: u64,
    bytes: u64,
}

/// A job without blocks is about recent data.
const RECENT: Vec<String> = Vec::new();
/// Without `query_timeout` of its own, a search may take this long.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

impl Planner {
    pub(crate) fn max_bytes_per_trace(&self, tenants: &[TenantId]) -> usize {
        tenants.iter().map(|t| self.limits.max_bytes_per_trace(t)).min().unwrap_or(0)
    }

    fn deadline(&self) -> Deadline {
        let own: Duration = self.config.search.timeout.into();
        let all: Duration = self.config.api_timeout.into();
        let timeout = [own, all].into_iter().find(|d| !d.is_zero()).unwrap_or(DEFAULT_TIMEOUT);
        Deadline::after(timeout)
    }

    async fn turn(&self, tenant: &TenantId, deadline: Deadline) -> Result<Turn, Status> {
        self.queue.ask(Enter { tenant: tenant.to_string() }, deadline).await
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

    /// Asks everything that could hold the trace, for every tenant.
    pub(crate) async fn find_trace(&self, tenants: &[TenantId], id: TraceId, start: u64, end: u64) -> FoundTrace {
        let deadline = self.deadline();
        let mut found = FoundTrace { parts: Vec::new(), inspected_bytes: 0, covered: Covered::default() };
        for tenant in tenants {
            let request = FindTraceRequest {
                tenant: tenant.to_string(),
                trace_id: id.as_bytes().to_vec(),
                start_unix_nano: start,
                end_unix_nano: end,
            };
            match self.attempt(tenant, deadline, || self.queriers.find.call(request.clone(), deadline)).await {
                Ok(reply) => {
                    found.parts.extend(reply.parts);
                    found.inspected_bytes += reply.inspected_bytes;
                    found.covered.add(reply.coverage);
                }
                Err(status) => found.covered.miss("querier", 1, status.message()),
            }
        }
        found
    }

    /// The tenant's blocks that overlap the window, as jobs from the newest on.
    async fn jobs(&self, tenant: &TenantId, start: u64, end: u64, deadline: Deadline) -> Result<Vec<Job>, Status> {
        let request = BlockListRequest { tenant: tenant.to_string() };
        let list = self.queriers.blocks.call(request, deadline).await?;
        let mut metas = Vec::new();
        for json in &list.meta_json {
            let meta = BlockMeta::from_json(json)
                .map_err(|error| Status::internal(format!("meta of a block on the list: {error}")))?;
            // Block times may be cut to whole seconds, so both ends give way by one.
            let (from, to) =
                (meta.start_time.0.saturating_sub(1_000_000_000), meta.end_time.0.saturating_add(1_000_000_000));
            if from <= end && to >= start {
                metas.push(meta);
            }
        }
        metas.sort_by(|a, b| b.end_time.cmp(&a.end_time).then_with(|| a.block_id.cmp(&b.block_id)));
        let target = self.config.search.target_bytes_per_job.max(1);
        let mut jobs: Vec<Job> = Vec::new();
        for meta in metas {
            let newest_ns = meta.end_time.0.saturating_add(1_000_000_000);
            match jobs.last_mut() {
                Some(job) if job.bytes + meta.size <= target => {
                    job.block_ids.push(meta.block_id.to_string());
                    job.bytes += meta.size;
                }
                _ => jobs.push(Job { block_ids: vec![meta.block_id.to_string()], newest_ns, bytes: meta.size }),
            }
        }
        Ok(jobs)
    }

    /// How many jobs of one query run at once: a few more than cores keep every core busy; what is asked beyond the answer
    /// is wasted.
    fn concurrency(&self) -> usize {
        usize::try_from(self.config.search.concurrent_jobs).unwrap_or(usize::MAX).clamp(1, 8)
    }

    /// Runs a search and merges its results; ends as soon as nothing older can change the answer.
    pub(crate) async fn search(&self, tenants: &[TenantId], plan: &SearchPlan) -> Result<FoundTraces, Refusal> {
        let deadline = self.deadline();
        let mut merge = Merge::new(plan.limit);
        let mut covered = Covered::default();
        for tenant in tenants {
            self.search_tenant(tenant, plan, deadline, &mut merge, &mut covered).await?;
        }
        self.check_complete(&covered)?;
        let (mut traces, metrics) = merge.finish();
        for trace in &mut traces {
            let pad = tenants.iter().any(|t| self.limits.left_pad_trace_ids(t));
            trace.trace_id = spelled(&trace.trace_id, pad);
        }
        Ok(FoundTraces { traces, metrics, covered })
    }

    async fn search_tenant(
        &self,
        tenant: &TenantId,
        plan: &SearchPlan,
        deadline: Deadline,
        merge: &mut Merge,
        covered: &mut Covered,
    ) -> Result<(), Refusal> {
        let job = |block_ids: Vec<String>| SearchJob {
            tenant: tenant.to_string(),
            query: plan.query.clone(),
            start_unix_nano: plan.start_ns,
            end_unix_nano: plan.end_ns,
            limit: plan.limit,
            spans_per_span_set: plan.spans_per_span_set,
            block_ids,
        };
        // Recent data before the list of blocks: what moves into a block meanwhile is on the list by then.
        self.run_search(tenant, job(RECENT), "live-store", 1, deadline, merge, covered).await?;
        merge.metrics.total_jobs += 1;
        merge.metrics.completed_jobs += 1;
        let jobs = match self.jobs(tenant, plan.start_ns, plan.end_ns, deadline).await {
            Ok(jobs) => jobs,
            Err(status) => {
                covered.miss("blocklist", 1, status.message());
                return Ok(());
            }
        };
        merge.metrics.total_jobs += u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        merge.metrics.total_blocks += jobs.iter().map(|j| u32::try_from(j.block_ids.len()).unwrap_or(0)).sum::<u32>();
        merge.metrics.total_block_bytes += jobs.iter().map(|j| j.bytes).sum::<u64>();
        let width = self.concurrency();
        let mut rest = jobs.into_iter().peekable();
        while let Some(next) = rest.peek() {
            if !merge.wants(next.newest_ns) {
                break;
            }
            let wave: Vec<Job> = rest.by_ref().take(width).collect();
            let mut running = stream::iter(wave)
                .map(|part| {
                    let (job, blocks) = (job(part.block_ids.clone()), part.block_ids.len());
                    async move { (self.collect_search(tenant, job, deadline).await, blocks) }
                })
                .buffer_unordered(width);
            while let Some((result, blocks)) = running.next().await {
                merge.metrics.completed_jobs += 1;
                take(result, "blocks", blocks, merge, covered)?;
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one call site short of a struct that would only rename them")]
    async fn run_search(
        &self,
        tenant: &TenantId,
        job: SearchJob,
        what: &str,
        parts: usize,
        deadline: Deadline,
        merge: &mut Merge,
        covered: &mut Covered,
    ) -> Result<(), Refusal> {
        let result = self.collect_search(tenant, job, deadline).await;
        take(result, what, parts, merge, covered)
    }

    async fn collect_search(
        &self,
        tenant: &TenantId,
        job: SearchJob,
        deadline: Deadline,
    ) -> Result<Vec<SearchBatch>, Status> {
        self.attempt(tenant, deadline, || async {
            let mut batches: BoxStream<'_, Result<SearchBatch, Status>> =
                self.queriers.search.call(job.clone(), deadline).await?;
            let mut all = Vec::new();
            while let Some(batch) = batches.next().await {
                all.push(batch?);
            }
            Ok(all)
        })
        .await
    }

    /// Names of tags by scope.
    pub(crate) async fn tag_names(
        &self,
        tenants: &[TenantId],
        plan: &TagPlan,
    ) -> Result<(Vec<tempopb::SearchTagsV2Scope>, u64, Covered), Refusal> {
        let mut scopes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut inspected = 0;
        let mut covered = Covered::default();
        for tenant in tenants {
            let replies = self
                .on_all(tenant, plan, &mut covered, |block_ids, deadline| {
                    let job = TagNamesJob {
                        tenant: tenant.to_string(),
                        scope: plan.scope.clone(),
                        query: plan.query.clone(),
                        start_unix_nano: plan.start_ns,
                        end_unix_nano: plan.end_ns,
                        block_ids,
                        max_per_scope: plan.limit,
                    };
                    async move { self.queriers.tag_names.call(job, deadline).await }
                })
                .await?;
            for reply in replies {
                inspected += reply.inspected_bytes;
                covered.add(reply.coverage);
                for scope in reply.scopes {
                    scopes.entry(scope.name).or_default().extend(scope.tags);
                }
            }
        }
        self.check_complete(&covered)?;
        let limit = usize::try_from(plan.limit).unwrap_or(usize::MAX);
        let scopes = scopes.into_iter().map(|(name, mut tags)| {
            tags.sort();
            tags.dedup();
            if limit > 0 {
                tags.truncate(limit);
            }
            tempopb::SearchTagsV2Scope { name, tags }
        });
        Ok((scopes.collect(), inspected, covered))
    }

    /// Values of one tag, with their types, sorted.
    pub(crate) async fn tag_values(
        &self,
        tenants: &[TenantId],
        plan: &TagPlan,
    ) -> Result<(Vec<tempopb::TagValue>, u64, Covered), Refusal> {
        let mut values: BTreeMap<(String, String), ()> = BTreeMap::new();
        let mut inspected = 0;
        let mut covered = Covered::default();
        let mut max_bytes = 0;
        for tenant in tenants {
            max_bytes = max_bytes.max(self.limits.max_bytes_per_tag_values_query(tenant));
            let replies = self
                .on_all(tenant, plan, &mut covered, |block_ids, deadline| {
                    let job = TagValuesJob {
                        tenant: tenant.to_string(),
                        tag: plan.tag.clone(),
                        query: plan.query.clone(),
                        start_unix_nano: plan.start_ns,
                        end_unix_nano: plan.end_ns,
                        block_ids,
                        max_values: plan.limit,
                    };
                    async move { self.queriers.tag_values.call(job, deadline).await }
                })
                .await?;
            for reply in replies {
                inspected += reply.inspected_bytes;
                covered.add(reply.coverage);
                for value in reply.values {
                    if let Entry::Vacant(free) = values.entry((value.r#type, value.value)) {
                        free.insert(());
                    }
                }
            }
        }
        self.check_complete(&covered)?;
        let limit = if plan.limit == 0 { usize::MAX } else { usize::try_from(plan.limit).unwrap_or(usize::MAX) };
        let mut bytes = 0;
        let values =
            values.into_keys().map(|(kind, value)| tempopb::TagValue { r#type: kind, value }).take(limit).take_while(
                |value| {
                    bytes += value.value.len() + value.r#type.len();
                    max_bytes == 0 || bytes <= max_bytes
                },
            );
        Ok((values.collect(), inspected, covered))
    }

    /// Runs a job on recent data and on all blocks of the window.
    async fn on_all<R, F>(
        &self,
        tenant: &TenantId,
        plan: &TagPlan,
        covered: &mut Covered,
        call: impl Fn(Vec<String>, Deadline) -> F,
    ) -> Result<Vec<R>, Refusal>
    where
        F: Future<Output = Result<R, Status>>,
    {
        let deadline = self.deadline();
        let mut replies = Vec::new();
        let mut keep = |result: Result<R, Status>, what: &str, parts: usize| match result {
            Ok(reply) => {
                replies.push(reply);
                Ok(())
            }
            Err(status) if fatal(&status) => Err(Refusal::from(status)),
            Err(status) => {
                covered.miss(what, u32::try_from(parts).unwrap_or(u32::MAX), status.message());
                Ok(())
            }
        };
        keep(self.attempt(tenant, deadline, || call(RECENT, deadline)).await, "live-store", 1)?;
        match self.jobs(tenant, plan.start_ns, plan.end_ns, deadline).await {
            Err(status) => keep(Err(status), "blocklist", 1)?,
            Ok(jobs) => {
                let call = &call;
                let mut running = stream::iter(jobs)
                    .map(|job| async move {
                        let result = self.attempt(tenant, deadline, || call(job.block_ids.clone(), deadline)).await;
                        (result, job.block_ids.len())
                    })
                    .buffer_unordered(self.concurrency());
                while let Some((result, blocks)) = running.next().await {
                    keep(result, "blocks", blocks)?;
                }
            }
        }
        Ok(replies)
    }

    fn check_complete(&self, covered: &Covered) -> Result<(), Refusal> {
        if self.config.require_complete && !covered.complete() {
            return Err(Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, covered.message()));
        }
        Ok(())
    }
}

/// Whether an error is the query's own, so that answering without this part would be wrong.
fn fatal(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::Unimplemented)
}

fn take(
    result: Result<Vec<SearchBatch>, Status>,
    what: &str,
    parts: usize,
    merge: &mut Merge,
    covered: &mut Covered,
) -> Result<(), Refusal> {
    match result {
        Ok(batches) => {
            for batch in batches {
                merge.add(batch.traces);
                merge.count(&batch.metrics.unwrap_or_default());
                covered.add(batch.coverage);
            }
            Ok(())
        }
        Err(status) if fatal(&status) => Err(status.into()),
        Err(status) => {
            covered.miss(what, u32::try_from(parts).unwrap_or(u32::MAX), status.message());
            Ok(())
        }
    }
}

/// A trace id as search answers show it: without leading zeros, or padded to 32 digits.
fn spelled(id: &str, pad: bool) -> String {
    if pad { format!("{id:0>32}") } else { id.trim_start_matches('0').to_owned() }
}

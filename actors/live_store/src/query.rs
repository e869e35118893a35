//! Query endpoint: what other components may ask of recent data.
//!
//! Consumes the query messages of `protocol/`; asks the owner for look-ups and snapshots, and evaluates on the compute
//! pool: the head and the closing cuts as one scan, then each local block. Mailbox 64: a message is a query text; what it
//! pins are the groups of the head as they were, and the open blocks being read.
//! On restart: nothing is kept. A query that was running ends with UNAVAILABLE and is retried by its asker.

mod blocks;
mod catch_up;
mod find;
mod live;
mod split;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tonic::Status;
use uuid::Uuid;
use vivace_protocol::vivace::{
    FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch, SearchJob, TagNamesJob, TagNamesReply,
    TagValuesJob, TagValuesReply,
};
use vivace_protocol::{TenantId, TraceId, find_trace};
use vivace_runtime::{Cx, Deadline, Mailbox, Part, Reply, Serve};
use vivace_storage::query::{self as engine, Share};
use vivace_storage::{LiveView, may_contain};

use self::blocks::Missed;
pub(crate) use self::blocks::Readers;
#[cfg(test)]
pub(crate) use self::catch_up::PATIENCE;
pub(crate) use self::live::LiveReaders;
use self::split::split_of;
use crate::metrics::{LocalMetrics, Metrics};
use crate::owner::{CatchUp, CaughtUp, Collect, Collected, Find, Found, Moved, MovedSince};
use crate::shelf::ShelfBlock;
use crate::standing::Standing;

/// The owner answers from memory; it is slow only while it replays.
const OWNER_DEADLINE: Duration = Duration::from_secs(30);

/// The part: handles only.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) find: Mailbox<Find, Found>,
    pub(crate) collect: Mailbox<Collect, Collected>,
    pub(crate) moved: Mailbox<MovedSince, Moved>,
    pub(crate) catch_up: Mailbox<CatchUp, CaughtUp>,
    /// What the ids of published blocks are made from, beside the cut; none where blocks stay on the own disk.
    pub(crate) log_id: Option<String>,
    pub(crate) partition: u32,
    pub(crate) readers: Readers,
    pub(crate) live: LiveReaders,
    pub(crate) metrics: Metrics,
    /// In its own process.
    pub(crate) local: Option<LocalQueries>,
}

/// What is asked in its own process only.
#[derive(Clone)]
pub(crate) struct LocalQueries {
    pub(crate) metrics: LocalMetrics,
    /// Searches and metrics whose answer may miss something are refused.
    pub(crate) fail_on_high_lag: bool,
}

/// A tenant's recent traces at one moment, ready to be read.
struct Recent {
    view: LiveView,
    blocks: Vec<Arc<ShelfBlock>>,
    standing: Standing,
    /// When they were.
    at: Instant,
}

/// A cut of less than this makes one block for each tenant; each further one takes more than this.
const LEAST_FURTHER_BLOCK_BYTES: usize = 8 << 20;

impl Query {
    async fn recent(&self, tenant: &str, start_ns: u64, end_ns: u64) -> Result<Recent, Status> {
        let tenant = tenant_id(tenant)?;
        let collected = self.collect.ask(Collect { tenant: tenant.clone() }, Deadline::after(OWNER_DEADLINE)).await?;
        let Collected { snapshot, mut blocks, standing, at } = collected;
        blocks.retain(|block| block.overlaps(start_ns, end_ns));
        let view = self.readers.compute.run(0, move || snapshot.into_view(&tenant)).await?;
        Ok(Recent { view, blocks, standing, at })
    }

    /// Counts a request whose answer may miss something. One that is known to is refused if so configured: another owner may have
    /// it all, or this one after a while.
    fn refuse_lagging(&self, standing: &Standing, end_ns: u64, route: &str) -> Result<(), Status> {
        let Some(local) = &self.local else { return Ok(()) };
        let Some(reason) = standing.missing(end_ns) else { return Ok(()) };
        local.metrics.lagged(route);
        if !local.fail_on_high_lag || !standing.lags(end_ns) {
            return Ok(());
        }
        let partition = standing.partition;
        Err(Status::unavailable(format!("partition {partition}: cannot guarantee complete results: {reason}")))
    }

    /// The blocks that what was held at an instant has become since, or is about to become. They may hold younger spans as
    /// well, but none that had been acknowledged by then.
    async fn blocks_since(&self, tenant: &str, at: Instant) -> Result<Vec<Uuid>, Status> {
        let Some(log_id) = &self.log_id else { return Ok(Vec::new()) };
        let tenant = tenant_id(tenant)?;
        let since = MovedSince { tenant: tenant.clone(), at };
        let Moved { closing, published } = self.moved.ask(since, Deadline::after(OWNER_DEADLINE)).await?;
        let cuts = closing.iter().filter(|cut| !cut.traces(&tenant).is_empty());
        let becoming = cuts.flat_map(|cut| {
            let most = u32::try_from(cut.bytes / LEAST_FURTHER_BLOCK_BYTES).unwrap_or(u32::MAX);
            (0..=most).map(|part| cut.id.block_id(log_id, self.partition, &tenant, part)).collect::<Vec<_>>()
        });
        Ok(becoming.chain(published).collect())
    }

    async fn find(self, request: FindTraceRequest) -> Result<Batches<FindTraceBatch>, Status> {
        let tenant = tenant_id(&request.tenant)?;
        let id = TraceId::from_slice(&request.trace_id)
            .ok_or_else(|| Status::invalid_argument("a trace id has 16 bytes"))?;
        let Found { parts, blocks, standing } =
            self.find.ask(Find { tenant, id }, Deadline::after(OWNER_DEADLINE)).await?;
        let (missed, op) = (Missed::default(), "trace_by_id");
        // The filters of all blocks first, in one go: most hold nothing of the trace.
        let candidates = self.readers.keep(blocks, &missed, move |block| may_contain(block, id)).await?;
        let (live, stored) = match find_trace::page(&request) {
            Some(page) => self.readers.page(id, page, parts, candidates, &missed).await?,
            None => self.readers.whole(id, parts, candidates, &missed),
        };
        let (metrics, name) = (self.metrics.clone(), request.tenant);
        let batches = stream::iter([Ok(live)]).chain(stored).flat_map(move |part| match part {
            Ok((parts, inspected_bytes)) => {
                metrics.inspected(&name, op, inspected_bytes);
                let unreadable = |error| Status::data_loss(format!("recent data of the trace: {error}"));
                let batches = find_trace::batches(parts).map(move |batch| batch.map_err(unreadable));
                let size = FindTraceBatch { inspected_bytes, ..FindTraceBatch::default() };
                stream::iter((inspected_bytes > 0).then_some(Ok(size)).into_iter().chain(batches)).boxed()
            }
            Err(status) => stream::iter([Err(status)]).boxed(),
        });
        let last = stream::once(async move {
            let coverage = Some(missed.coverage(standing.coverage(0)));
            Ok(FindTraceBatch { coverage, ..FindTraceBatch::default() })
        });
        Ok(batches.chain(last).boxed())
    }

    async fn search(self, job: SearchJob) -> Result<Batches<SearchBatch>, Status> {
        let Recent { view, blocks, standing, .. } =
            self.recent(&job.tenant, job.start_unix_nano, job.end_unix_nano).await?;
        self.refuse_lagging(&standing, job.end_unix_nano, "SearchRecent")?;
        let coverage = standing.coverage(job.end_unix_nano);
        let (job, ended, missed) = (Arc::new(job), Ended::default(), Missed::default());
        let budget = engine::budget(job.max_bytes);
        let (live, own, held, flag) = (self.live.clone(), Arc::clone(&job), budget.clone(), Arc::clone(&ended.0));
        // Evaluated while somebody reads the answer, and left when the answer is dropped.
        let head = stream::once(async move { live.search(view, &own, &held, &flag).await });
        let split = split_of(&blocks);
        let (shared, share) = (Arc::clone(&job), Share::whole().until(&ended.0).within(&budget));
        let share = if split.is_empty() { share } else { share.apart() };
        let own = Arc::clone(&job);
        let split = self
            .readers
            .of_split(split, missed.clone(), move |trace, blocks| engine::search_split(trace, blocks, &own, &budget));
        let stored = self
            .readers
            .some_at_once(blocks, missed.clone(), move |block| engine::search_block(block, &share, &shared));
        let metrics = self.metrics.clone();
        let batches = head.chain(stored).chain(split).inspect(move |batch: &Result<SearchBatch, Status>| {
            let seen = batch.as_ref().ok().and_then(|batch| batch.metrics.as_ref());
            metrics.inspected(&job.tenant, "search", seen.map_or(0, |seen| seen.inspected_bytes));
        });
        let last = stream::once(async move {
            drop(ended);
            Ok(SearchBatch { coverage: Some(missed.coverage(coverage)), ..SearchBatch::default() })
        });
        let batches = batches.chain(last).flat_map(|batch| {
            stream::iter(match batch {
                Ok(batch) => batch.split().into_iter().map(Ok).collect(),
                Err(status) => vec![Err(status)],
            })
        });
        Ok(up_to_an_error(batches))
    }

    async fn metrics(self, job: MetricsJob) -> Result<Batches<MetricsBatch>, Status> {
        let (start_ns, end_ns) = match (job.after_unix_nano, job.until_unix_nano) {
            (0, 0) => (job.start_unix_nano, job.end_unix_nano),
            (after, 0) => (after, job.end_unix_nano),
            bounds => bounds,
        };
        let Recent { view, blocks, standing, at } = self.recent(&job.tenant, start_ns, end_ns).await?;
        self.refuse_lagging(&standing, end_ns, "QueryRange")?;
        let coverage = standing.coverage(end_ns);
        let (job, ended, missed) = (Arc::new(job), Ended::default(), Missed::default());
        let (query, own, flag) = (self.clone(), Arc::clone(&job), Arc::clone(&ended.0));
        let head = stream::once(async move {
            let batch = query.live.metrics(view, &own, &flag).await?;
            // Asked after the evaluation, so that blocks that were published meanwhile are among them.
            let held = query.blocks_since(&own.tenant, at).await?;
            Ok(MetricsBatch { held_block_ids: held.iter().map(Uuid::to_string).collect(), ..batch })
        });
        let split = split_of(&blocks);
        let split = if split.is_empty() || !engine::asks_for_traces(&job)? { Vec::new() } else { split };
        let share = if split.is_empty() { Share::whole() } else { Share::whole().apart() };
        let (own, flag) = (Arc::clone(&job), Arc::clone(&ended.0));
        let split = self.readers.of_split(split, missed.clone(), move |trace, blocks| {
            engine::metrics_split(trace, blocks, &own, &|| flag.load(Ordering::Relaxed))
        });
        let (shared, flag) = (Arc::clone(&job), Arc::clone(&ended.0));
        let stored = self.readers.some_at_once(blocks, missed.clone(), move |block| {
            engine::metrics_block(block, &share, &shared, &|| flag.load(Ordering::Relaxed))
        });
        let metrics = self.metrics.clone();
        let batches = head.chain(stored).chain(split).inspect(move |batch: &Result<MetricsBatch, Status>| {
            let seen = batch.as_ref().ok().and_then(|batch| batch.metrics.as_ref());
            metrics.inspected(&job.tenant, "query_range", seen.map_or(0, |seen| seen.inspected_bytes));
        });
        let last = stream::once(async move {
            drop(ended);
            Ok(MetricsBatch { coverage: Some(missed.coverage(coverage)), ..MetricsBatch::default() })
        });
        Ok(up_to_an_error(batches.chain(last)))
    }

    async fn tag_names(self, job: TagNamesJob) -> Result<TagNamesReply, Status> {
        let Recent { view, blocks, standing, .. } =
            self.recent(&job.tenant, job.start_unix_nano, job.end_unix_nano).await?;
        let (job, ended, missed) = (Arc::new(job), Ended::default(), Missed::default());
        let mut names = engine::TagNamesSum::new(job.max_per_scope, job.max_bytes);
        for reply in self.live.tag_names(view, &job, &ended.0).await? {
            names.add(reply)?;
        }
        let shared = Arc::clone(&job);
        let mut stored =
            self.readers.some_at_once(blocks, missed.clone(), move |block| engine::tag_names_block(block, &shared));
        while let Some(reply) = stored.next().await {
            names.add(reply?)?;
        }
        let mut reply = names.finish();
        self.metrics.inspected(&job.tenant, "search_tags", reply.inspected_bytes);
        reply.coverage = Some(missed.coverage(standing.coverage(job.end_unix_nano)));
        Ok(reply)
    }

    async fn tag_values(self, job: TagValuesJob) -> Result<TagValuesReply, Status> {
        let Recent { view, blocks, standing, .. } =
            self.recent(&job.tenant, job.start_unix_nano, job.end_unix_nano).await?;
        let (job, ended, missed) = (Arc::new(job), Ended::default(), Missed::default());
        let mut values = engine::TagValuesSum::new(job.max_values, job.max_bytes);
        for reply in self.live.tag_values(view, &job, &ended.0).await? {
            values.add(reply)?;
        }
        let shared = Arc::clone(&job);
        let mut stored =
            self.readers.some_at_once(blocks, missed.clone(), move |block| engine::tag_values_block(block, &shared));
        while let Some(reply) = stored.next().await {
            values.add(reply?)?;
        }
        let mut reply = values.finish();
        self.metrics.inspected(&job.tenant, "search_tag_values", reply.inspected_bytes);
        reply.coverage = Some(missed.coverage(standing.coverage(job.end_unix_nano)));
        Ok(reply)
    }
}

/// An answer in several messages.
type Batches<M> = BoxStream<'static, Result<M, Status>>;

/// An error is the last of an answer, in every form of it.
fn up_to_an_error<M: Send + 'static>(batches: impl Stream<Item = Result<M, Status>> + Send + 'static) -> Batches<M> {
    let last = |failed: &mut bool, batch: Result<M, Status>| {
        let batch = (!std::mem::replace(failed, batch.is_err())).then_some(batch);
        std::future::ready(batch)
    };
    batches.scan(false, last).boxed()
}

fn tenant_id(text: &str) -> Result<TenantId, Status> {
    TenantId::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Says to running work that nobody waits for it any more.
#[derive(Default)]
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Part for Query {}

impl Serve<FindTraceRequest> for Query {
    type Reply = Batches<FindTraceBatch>;

    fn serve(&mut self, request: FindTraceRequest, cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        if request.caught_up && self.local.is_some() {
            return Reply::ok(self.clone().find_caught_up(request, Arc::clone(cx.clock())));
        }
        Reply::later(self.clone().find(request))
    }
}

impl Serve<SearchJob> for Query {
    type Reply = Batches<SearchBatch>;

    fn serve(&mut self, job: SearchJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().search(job))
    }
}

impl Serve<MetricsJob> for Query {
    type Reply = Batches<MetricsBatch>;

    fn serve(&mut self, job: MetricsJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().metrics(job))
    }
}

impl Serve<TagNamesJob> for Query {
    type Reply = TagNamesReply;

    fn serve(&mut self, job: TagNamesJob, _cx: &mut Cx<Self>) -> Reply<TagNamesReply> {
        Reply::awaited(self.clone().tag_names(job))
    }
}

impl Serve<TagValuesJob> for Query {
    type Reply = TagValuesReply;

    fn serve(&mut self, job: TagValuesJob, _cx: &mut Cx<Self>) -> Reply<TagValuesReply> {
        Reply::awaited(self.clone().tag_values(job))
    }
}

//! Query endpoint: what other components may ask of recent data.
//!
//! Consumes the query messages of `protocol/`; asks the owner for look-ups and snapshots, and evaluates on the compute
//! pool. Mailbox 64: a message is a query text; what it pins is a snapshot of the head's directory.
//! On restart: nothing is kept. A query that was running ends with UNAVAILABLE and is retried by its asker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;
use uuid::Uuid;
use vivace_protocol::vivace::{
    Coverage, FindTraceReply, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch, SearchJob, TagNamesJob,
    TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::{Compute, Cx, Deadline, Mailbox, Part, Reply, Serve};
use vivace_storage::{LiveSource, query as engine};

use crate::owner::{Collect, Collected, Find, Moved, MovedSince};

/// The owner answers from memory; it is slow only while it replays.
const OWNER_DEADLINE: Duration = Duration::from_secs(30);

/// The part: handles only.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) find: Mailbox<Find, Vec<bytes::Bytes>>,
    pub(crate) collect: Mailbox<Collect, Collected>,
    pub(crate) moved: Mailbox<MovedSince, Moved>,
    /// What the ids of blocks are made from, beside the cut.
    pub(crate) log_id: String,
    pub(crate) partition: u32,
    pub(crate) compute: Compute,
}

/// A tenant's recent traces, ready to be read.
struct Recent {
    source: LiveSource,
    coverage: Coverage,
    /// When they were.
    at: Instant,
}

/// A cut of less than this makes one block for each tenant; each further one takes more than this.
const LEAST_FURTHER_BLOCK_BYTES: usize = 8 << 20;

impl Query {
    async fn recent(&self, tenant: &str) -> Result<Recent, Status> {
        let tenant = tenant_id(tenant)?;
        let Collected { snapshot, at } =
            self.collect.ask(Collect { tenant: tenant.clone() }, Deadline::after(OWNER_DEADLINE)).await?;
        let newest = u64::try_from(snapshot.newest_ms).unwrap_or(0).saturating_mul(1_000_000);
        let coverage = Coverage { total: 1, read: 1, newest_applied_unix_nano: newest, ..Coverage::default() };
        let source = self.compute.run(0, move || LiveSource::new(snapshot.into_traces(&tenant))).await?;
        Ok(Recent { source, coverage, at })
    }

    /// The blocks that what was held at an instant has become since, or is about to become. They may hold younger spans as
    /// well, but none that had been acknowledged by then.
    async fn blocks_since(&self, tenant: &str, at: Instant) -> Result<Vec<Uuid>, Status> {
        let tenant = tenant_id(tenant)?;
        let since = MovedSince { tenant: tenant.clone(), at };
        let Moved { closing, published } = self.moved.ask(since, Deadline::after(OWNER_DEADLINE)).await?;
        let cuts = closing.iter().filter(|cut| !cut.traces(&tenant).is_empty());
        let becoming = cuts.flat_map(|cut| {
            let most = u32::try_from(cut.bytes / LEAST_FURTHER_BLOCK_BYTES).unwrap_or(u32::MAX);
            (0..=most).map(|part| cut.id.block_id(&self.log_id, self.partition, &tenant, part)).collect::<Vec<_>>()
        });
        Ok(becoming.chain(published).collect())
    }
}

fn tenant_id(text: &str) -> Result<TenantId, Status> {
    TenantId::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

impl Part for Query {}

impl Serve<FindTraceRequest> for Query {
    type Reply = FindTraceReply;

    fn serve(&mut self, request: FindTraceRequest, _cx: &mut Cx<Self>) -> Reply<FindTraceReply> {
        let find = self.find.clone();
        Reply::later(async move {
            let tenant = tenant_id(&request.tenant)?;
            let id = TraceId::from_slice(&request.trace_id)
                .ok_or_else(|| Status::invalid_argument("a trace id has 16 bytes"))?;
            let parts = find.ask(Find { tenant, id }, Deadline::after(OWNER_DEADLINE)).await?;
            let inspected_bytes = parts.iter().map(|part| part.len() as u64).sum();
            let coverage = Coverage { total: 1, read: 1, ..Coverage::default() };
            Ok(FindTraceReply { parts, coverage: Some(coverage), inspected_bytes, profile: None })
        })
    }
}

impl Serve<SearchJob> for Query {
    type Reply = BoxStream<'static, Result<SearchBatch, Status>>;

    fn serve(&mut self, job: SearchJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let query = self.clone();
        Reply::later(async move {
            let recent = query.recent(&job.tenant).await?;
            let mut batch = query.compute.run(0, move || engine::search(&recent.source, &job)).await??;
            batch.coverage = Some(recent.coverage);
            Ok(futures::stream::iter([Ok(batch)]).boxed())
        })
    }
}

impl Serve<MetricsJob> for Query {
    type Reply = BoxStream<'static, Result<MetricsBatch, Status>>;

    fn serve(&mut self, job: MetricsJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let query = self.clone();
        Reply::later(async move {
            let recent = query.recent(&job.tenant).await?;
            let ended = Ended::default();
            let flag = Arc::clone(&ended.0);
            let (tenant, Recent { source, coverage, at }) = (job.tenant.clone(), recent);
            let evaluate = move || engine::metrics(&source, &job, &|| flag.load(Ordering::Relaxed));
            let mut batch = query.compute.run(0, evaluate).await??;
            batch.coverage = Some(coverage);
            // Asked last, so that blocks that were published meanwhile are among them.
            let blocks = query.blocks_since(&tenant, at).await?;
            batch.held_block_ids = blocks.iter().map(Uuid::to_string).collect();
            drop(ended);
            Ok(futures::stream::iter([Ok(batch)]).boxed())
        })
    }
}

/// Says to running work that nobody waits for it any more.
#[derive(Default)]
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Serve<TagNamesJob> for Query {
    type Reply = TagNamesReply;

    fn serve(&mut self, job: TagNamesJob, _cx: &mut Cx<Self>) -> Reply<TagNamesReply> {
        let query = self.clone();
        Reply::later(async move {
            let recent = query.recent(&job.tenant).await?;
            let mut reply = query.compute.run(0, move || engine::tag_names(&recent.source, &job)).await??;
            reply.coverage = Some(recent.coverage);
            Ok(reply)
        })
    }
}

impl Serve<TagValuesJob> for Query {
    type Reply = TagValuesReply;

    fn serve(&mut self, job: TagValuesJob, _cx: &mut Cx<Self>) -> Reply<TagValuesReply> {
        let query = self.clone();
        Reply::later(async move {
            let recent = query.recent(&job.tenant).await?;
            let mut reply = query.compute.run(0, move || engine::tag_values_of(&recent.source, &job)).await??;
            reply.coverage = Some(recent.coverage);
            Ok(reply)
        })
    }
}

//! Query endpoint: what other components may ask of recent data.
//!
//! Consumes the query messages of `protocol/`; asks the owner for look-ups and snapshots, and evaluates on the compute
//! pool. Mailbox 64: a message is a query text; what it pins is a snapshot of the head's directory.
//! On restart: nothing is kept. A query that was running ends with UNAVAILABLE and is retried by its asker.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;
use vivace_protocol::vivace::{
    Coverage, FindTraceReply, FindTraceRequest, SearchBatch, SearchJob, TagNamesJob, TagNamesReply, TagValuesJob,
    TagValuesReply,
};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::{Compute, Cx, Deadline, Mailbox, Part, Reply, Serve};
use vivace_storage::{LiveSource, query as engine};

use crate::owner::{Collect, Find};
use crate::state::Snapshot;

/// The owner answers from memory; it is slow only while it replays.
const OWNER_DEADLINE: Duration = Duration::from_secs(30);

/// The part: handles only.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) find: Mailbox<Find, Vec<bytes::Bytes>>,
    pub(crate) collect: Mailbox<Collect, Snapshot>,
    pub(crate) compute: Compute,
}

/// A tenant's recent traces, ready to be read.
struct Recent {
    source: LiveSource,
    coverage: Coverage,
}

impl Query {
    async fn recent(&self, tenant: &str) -> Result<Recent, Status> {
        let tenant = tenant_id(tenant)?;
        let snapshot = self.collect.ask(Collect { tenant: tenant.clone() }, Deadline::after(OWNER_DEADLINE)).await?;
        let newest = u64::try_from(snapshot.newest_ms).unwrap_or(0).saturating_mul(1_000_000);
        let coverage = Coverage { total: 1, read: 1, newest_applied_unix_nano: newest, ..Coverage::default() };
        let source = self.compute.run(0, move || LiveSource::new(snapshot.into_traces(&tenant))).await?;
        Ok(Recent { source, coverage })
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
            Ok(FindTraceReply { parts, coverage: Some(coverage), inspected_bytes })
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

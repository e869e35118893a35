//! Flusher: turns one cut into blocks, one a tenant, and makes them known.
//!
//! Consumes `Flush`, answers `Flushed` when every block of the cut is durable: in the object store and on the blocklist, or on the
//! own disk.
//! Mailbox 2: a message pins one cut, at most one full head. Encoding runs on the compute pool.
//! On restart: nothing is kept; the owner asks again. A block's id follows from the cut, so a repeated attempt writes the
//! same block, and one that is there already is not written again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Status;
use vivace_protocol::TenantId;
use vivace_protocol::vivace::{BlockPublished, BlockPublishedReply};
use vivace_runtime::{Compute, Cx, Deadline, Endpoint, Part, Reply, Serve};
use vivace_storage::{
    Backend, BlockKey, BlockMeta, BlockSpec, BloomSpec, Continued, DedicatedColumns, FinishedBlock, Received,
    Timestamp, encode_block,
};

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::state::{Cut, TenantCut, TraceParts};

/// Telling the blocklist is a call within the process or to a peer nearby.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(10);

/// A cut to be made durable.
pub(crate) struct Flush {
    pub(crate) cut: Arc<Cut>,
    /// What the ids of its blocks are made from, beside the cut: never the same for cuts of other content.
    pub(crate) source: Arc<str>,
    /// Something in it panicked the encoder before: each part of it is tried alone.
    pub(crate) careful: bool,
}

/// Every block of the cut is durable and, where others read it, published.
#[derive(Debug)]
pub(crate) struct Flushed {
    pub(crate) blocks: Vec<Written>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) tenant: TenantId,
    pub(crate) meta: BlockMeta,
    /// Time of the last record that went into it, unix milliseconds.
    pub(crate) until_ms: i64,
}

/// The part: its parts are handles, so it has no state to lose.
#[derive(Clone)]
pub(crate) struct Flusher {
    pub(crate) backend: Backend,
    pub(crate) compute: Compute,
    pub(crate) limits: Arc<dyn Limits>,
    /// Nobody is told of blocks on the own disk.
    pub(crate) publish: Option<Endpoint<BlockPublished, BlockPublishedReply>>,
    pub(crate) partition: u32,
    pub(crate) row_group_bytes: u64,
    pub(crate) bloom: BloomSpec,
    pub(crate) slack: Duration,
    pub(crate) metrics: Metrics,
}

impl Flusher {
    async fn flush(self, Flush { cut, source, careful }: Flush) -> Result<Flushed, Status> {
        let mut blocks = Vec::new();
        for (index, TenantCut { tenant, received_ms, .. }) in cut.tenants.iter().enumerate() {
            for meta in self.blocks(&cut, &source, index, careful).await? {
                if let Some(publish) = &self.publish {
                    let news = BlockPublished { tenant: meta.tenant_id.clone(), meta_json: meta.to_json().into() };
                    publish.call(news, Deadline::after(PUBLISH_DEADLINE)).await?;
                }
                blocks.push(Written { tenant: tenant.clone(), meta, until_ms: received_ms.1 });
            }
        }
        Ok(Flushed { blocks })
    }

    /// Writes one tenant's blocks. There is more than one only if a trace is too large for
    /// one row: what is left of it goes into the next block.
    async fn blocks(
        &self,
        cut: &Arc<Cut>,
        source: &str,
        index: usize,
        careful: bool,
    ) -> Result<Vec<BlockMeta>, Status> {
        let tenant = &cut.tenants[index].tenant;
        let mut metas = Vec::new();
        let mut rest: Option<Vec<TraceParts>> = None;
        for number in 0.. {
            let id = cut.id.block_id(source, self.partition, tenant, number);
            let mut spec = BlockSpec::new(tenant.as_str(), id, DedicatedColumns(self.limits.dedicated_columns(tenant)));
            spec.row_group_bytes = self.row_group_bytes;
            spec.bloom = self.bloom;
            spec.time_bounds = Some((Timestamp(0), Timestamp(u64::MAX)));
            spec.continued = Continued::after(&metas);
            let (shared, slack, started) = (Arc::clone(cut), self.slack, Instant::now());
            let encode = move || {
                let own = &shared.tenants[index];
                let traces = rest.as_deref().unwrap_or(&own.traces).iter().map(|(id, parts)| (*id, parts.as_slice()));
                encode_block(spec, traces, Received { between_ms: own.received_ms, slack }, careful)
            };
            let encoded = self.compute.run(0, encode).await?;
            let encoded = encoded.map_err(|error| Status::internal(format!("encode the block: {error}")))?;
            for refused in &encoded.refused {
                let (trace, reason) = (refused.trace, refused.reason);
                tracing::error!(%tenant, %trace, part = refused.part, reason, "a part of a trace is in no block");
            }
            self.metrics.quarantined(encoded.refused.len() as u64);
            if encoded.damaged > 0 {
                tracing::warn!(%tenant, damaged = encoded.damaged, "attributes left out: their encoding is damaged");
            }
            if let Some(block) = encoded.block {
                metas.push(self.store(tenant, &BlockKey::new(tenant.as_str(), id), block, started).await?);
            }
            // A row whose parts hold no span makes no block, and what did not fit it may hold some all the same.
            if encoded.leftover.is_empty() {
                break;
            }
            rest = Some(encoded.leftover);
        }
        Ok(metas)
    }

    /// Stores a block, unless an earlier attempt has.
    async fn store(
        &self,
        tenant: &TenantId,
        key: &BlockKey,
        block: FinishedBlock,
        started: Instant,
    ) -> Result<BlockMeta, Status> {
        let present = match self.backend.read_meta(key).await {
            Ok(_) => true,
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(unavailable("look for the block", &error)),
        };
        if !present {
            self.backend.put_block(&block).await.map_err(|error| unavailable("store the block", &error))?;
        }
        let (meta, took) = (block.meta, started.elapsed());
        tracing::info!(%tenant, block = %key.block, traces = meta.total_objects, bytes = meta.size, ?took, "block written");
        self.metrics.flushed(took, meta.size);
        Ok(meta)
    }
}

fn unavailable(what: &str, error: &dyn std::error::Error) -> Status {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Status::unavailable(text)
}

impl Part for Flusher {}

impl Serve<Flush> for Flusher {
    type Reply = Flushed;

    fn serve(&mut self, flush: Flush, _cx: &mut Cx<Self>) -> Reply<Flushed> {
        Reply::later(self.clone().flush(flush))
    }
}

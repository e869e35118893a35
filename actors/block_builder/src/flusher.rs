//! Flusher: turns a section into blocks, all but their metadata.
//!
//! Consumes `Write`, answers the metadata of every block and the records that are in none. Mailbox 1: a message pins one section;
//! beside it one block is encoded at a time, on the compute pool.
//! On restart: nothing is kept; the conductor asks again. Blocks are named by the attempt, so the same ones are written again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Status;
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::{Compute, Cx, Failure, Part, Reply, Serve};
use vivace_storage::{
    Backend, BlockKey, BlockSpec, BloomSpec, Commit, Continued, DedicatedColumns, EncodedBlock, Quarantined, Received,
    encode_block,
};

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::state::{Section, TenantSection, block_id};

/// A section to be written under the names of an attempt.
pub(crate) struct Write {
    pub(crate) section: Arc<Section>,
    /// Names the section and the attempt; has no blocks yet.
    pub(crate) commit: Commit,
    /// Tries every piece alone: an attempt before has panicked.
    pub(crate) careful: bool,
}

/// The part: its parts are handles, so it has no state to lose.
#[derive(Clone)]
pub(crate) struct Flusher {
    pub(crate) backend: Backend,
    pub(crate) compute: Compute,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) row_group_bytes: u64,
    pub(crate) bloom: BloomSpec,
    pub(crate) slack: Duration,
    pub(crate) metrics: Metrics,
}

impl Flusher {
    /// The commit object to be, complete.
    async fn write(self, write: Write) -> Result<Commit, Status> {
        let Write { section, mut commit, careful } = write;
        commit.quarantined.clone_from(&section.quarantined);
        commit.lost.clone_from(&section.lost);
        commit.producers.clone_from(&section.producers);
        let mut tenants: Vec<&TenantId> = section.tenants.keys().collect();
        tenants.sort();
        for tenant in tenants {
            self.tenant(&section, &mut commit, tenant, careful).await?;
        }
        commit.quarantined.sort_by_key(|record| record.offset);
        Ok(commit)
    }

    /// Writes one tenant's blocks. There is more than one only if a trace is too large for one row: what is left of it goes into
    /// the next block.
    async fn tenant(
        &self,
        section: &Arc<Section>,
        commit: &mut Commit,
        tenant: &TenantId,
        careful: bool,
    ) -> Result<(), Status> {
        let mut rest: Option<Vec<(TraceId, Vec<Bytes>)>> = None;
        let before = commit.blocks.len();
        for number in 0.. {
            let id = block_id(commit, tenant, number);
            let mut spec = BlockSpec::new(tenant.as_str(), id, DedicatedColumns(self.limits.dedicated_columns(tenant)));
            spec.row_group_bytes = self.row_group_bytes;
            spec.bloom = self.bloom;
            spec.continued = Continued::after(&commit.blocks[before..]);
            let (shared, owner, slack) = (Arc::clone(section), tenant.clone(), self.slack);
            let encode = move || {
                let Some(own) = shared.tenants.get(&owner) else { return Err(Status::internal("the tenant is gone")) };
                let received = Received { between_ms: own.received_ms, slack };
                let traces = match &rest {
                    Some(rest) => rest.iter().map(|(id, parts)| (*id, parts.as_slice())).collect(),
                    None => own.sorted(),
                };
                encode_block(spec, traces, received, careful)
                    .map_err(|error| Status::internal(format!("encode a block: {}", Failure::from(error))))
            };
            let encoded = self.compute.run(0, encode).await??;
            let left = self.store(section, commit, tenant, encoded).await?;
            if left.is_empty() {
                break;
            }
            rest = Some(left);
        }
        Ok(())
    }

    /// Stores one block and notes it; gives back what did not fit.
    async fn store(
        &self,
        section: &Section,
        commit: &mut Commit,
        tenant: &TenantId,
        encoded: EncodedBlock,
    ) -> Result<Vec<(TraceId, Vec<Bytes>)>, Status> {
        let EncodedBlock { block, leftover, refused, duplicates, damaged } = encoded;
        if let Some(own) = section.tenants.get(tenant) {
            for part in refused {
                let offset = offset_of(own, part.trace, part.part).unwrap_or(section.first);
                tracing::error!(%tenant, trace = %part.trace, offset, reason = part.reason, "part of a record set aside");
                let reason = format!("trace {}: {}", part.trace, part.reason);
                commit.quarantined.push(Quarantined { offset, reason });
            }
        }
        if damaged > 0 {
            tracing::warn!(%tenant, damaged, "attributes left out: their encoding is damaged");
        }
        self.metrics.deduped(tenant, duplicates);
        if let Some(block) = block {
            let key = BlockKey::new(tenant.as_str(), block.meta.block_id);
            let put = self.backend.put_block_objects(&key, &block).await;
            put.map_err(|error| Status::unavailable(format!("store a block: {}", Failure::from(error))))?;
            tracing::debug!(%tenant, block = %key.block, traces = block.meta.total_objects, bytes = block.meta.size, "block written");
            commit.blocks.push(block.meta);
        }
        Ok(leftover)
    }
}

/// The record that a part of a trace came with.
fn offset_of(tenant: &TenantSection, trace: TraceId, part: usize) -> Option<u64> {
    tenant.traces.get(&trace)?.offsets.get(part).copied()
}

impl Part for Flusher {}

impl Serve<Write> for Flusher {
    type Reply = Commit;

    fn serve(&mut self, write: Write, _cx: &mut Cx<Self>) -> Reply<Commit> {
        Reply::later(self.clone().write(write))
    }
}

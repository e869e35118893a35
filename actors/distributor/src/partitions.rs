//! Which partition of the log a trace is written to.

use vivace_log::Partition;
use vivace_protocol::{TenantId, TraceId};

/// The choice of partitions: one, or by the partition ring. Asked once for each request.
pub trait Partitions: Send + Sync {
    /// The one partition, where there is only one: requests then stay whole, and nobody is asked for their traces.
    fn only(&self) -> Option<Partition> {
        None
    }

    /// The partition of each of the traces, in their order, all in one view of the ring. `shard_size` is the tenant's
    /// `ingestion.tenant_shard_size`: how many partitions its traces are spread over, 0 for all.
    ///
    /// # Errors
    /// Nobody takes writes now.
    fn choose(
        &self,
        tenant: &TenantId,
        shard_size: usize,
        traces: &[TraceId],
    ) -> Result<Vec<Partition>, NoActivePartition>;
}

/// Expected while the first live-stores start, or when the ring is not known yet: nothing was stored, and trying again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no partition is active ({known} known): traces are taken as soon as a live-store has been in the ring for 10 s, \
     see /partition-ring"
)]
pub struct NoActivePartition {
    /// Partitions in the ring, in whatever state.
    pub known: usize,
}

/// All traces go to one partition.
#[derive(Clone, Copy, Debug)]
pub struct OnePartition(pub Partition);

impl Partitions for OnePartition {
    fn only(&self) -> Option<Partition> {
        Some(self.0)
    }

    fn choose(
        &self,
        _tenant: &TenantId,
        _shard_size: usize,
        traces: &[TraceId],
    ) -> Result<Vec<Partition>, NoActivePartition> {
        Ok(vec![self.0; traces.len()])
    }
}

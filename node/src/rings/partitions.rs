//! Where traces are written, by the ring of partitions.

use vivace_distributor::{NoActivePartition, Partitions};
use vivace_gossip::Board;
use vivace_gossip::partition::trace_key;
use vivace_log::Partition;
use vivace_protocol::{TenantId, TraceId};

/// The partitions of the ring as it is at the moment of each request.
#[derive(Clone, Debug)]
pub(crate) struct RingPartitions {
    board: Board,
}

impl RingPartitions {
    pub(crate) fn new(board: Board) -> Self {
        Self { board }
    }
}

impl Partitions for RingPartitions {
    fn choose(
        &self,
        tenant: &TenantId,
        shard_size: usize,
        traces: &[TraceId],
    ) -> Result<Vec<Partition>, NoActivePartition> {
        let rings = self.board.rings();
        let Some((_, view)) = &rings.partitions else { return Err(NoActivePartition { known: 0 }) };
        let shard = (shard_size > 0).then(|| view.shard(tenant.as_str(), shard_size));
        let known = view.entries().len();
        let choose = |trace: &TraceId| {
            let key = trace_key(tenant.as_str(), trace.0);
            let chosen = match &shard {
                None => view.route(key),
                Some(shard) => view.route_in(key, shard),
            };
            chosen.and_then(|id| i32::try_from(id).ok()).map(Partition).ok_or(NoActivePartition { known })
        };
        traces.iter().map(choose).collect()
    }
}

//! Where traces are written, by the ring of partitions.

use vivace_distributor::{NoActivePartition, Partitions};
use vivace_gossip::Board;
use vivace_gossip::partition::{PartitionEntry, trace_key};
use vivace_gossip::state::PartitionState;
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

    /// Whether a partition takes writes, as far as this process has heard.
    pub(crate) fn is_any_active(&self) -> bool {
        let rings = self.board.rings();
        let active = |entry: &PartitionEntry| entry.state() == PartitionState::Active;
        rings.partitions.as_ref().is_some_and(|(_, view)| view.entries().iter().any(active))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use futures::FutureExt as _;
    use vivace_gossip::partition::{PartitionTokens, PartitionView};
    use vivace_gossip::ring::{CommandError, RingView, Rings};
    use vivace_gossip::state::{self, State};

    use super::*;

    const RING: &str = "collectors/livestore-partitions";

    /// A ring with these partitions, by number.
    fn ring(partitions: &[PartitionState]) -> RingPartitions {
        let mut state = State::new();
        for (id, value) in (0..).zip(partitions) {
            let pending = state::Partition::pending("a", 0);
            let partition = state::Partition { state: pending.state.changed(*value, "a", 1), ..pending };
            state.put(state::Record::partition(RING, id, partition).unwrap());
        }
        let view = PartitionView::new(&state, RING, &RingView::default(), &mut PartitionTokens::default());
        let refuse = |_| std::future::ready(Err(CommandError::Unavailable(String::new()))).boxed();
        let board = Board::new(Arc::new(refuse), None);
        board.publish(Rings { partitions: Some((RING.to_owned(), Arc::new(view))), ..Rings::default() });
        RingPartitions::new(board)
    }

    fn traces(count: u64) -> Vec<TraceId> {
        (0..count).map(|number| TraceId((u128::from(number) << 64 | 7).to_be_bytes())).collect()
    }

    #[test]
    fn traces_are_spread_over_active_partitions_alone_and_stay_where_they_are() {
        use PartitionState::{Active, Inactive, Pending};
        let ring = ring(&[Active, Pending, Active, Inactive]);
        let chosen = ring.choose(&TenantId::single(), 0, &traces(200)).unwrap();
        let used: BTreeSet<_> = chosen.iter().map(|partition| partition.0).collect();
        assert_eq!(used, BTreeSet::from([0, 2]));
        assert_eq!(ring.choose(&TenantId::single(), 0, &traces(200)).unwrap(), chosen);
    }

    #[test]
    fn a_tenants_shard_bounds_the_partitions_that_its_traces_use() {
        let ring = ring(&[PartitionState::Active; 8]);
        let used = |size| {
            let chosen = ring.choose(&TenantId::single(), size, &traces(500)).unwrap();
            chosen.into_iter().collect::<BTreeSet<_>>().len()
        };
        assert_eq!((used(1), used(3), used(0)), (1, 3, 8));
    }

    #[test]
    fn without_an_active_partition_writes_are_refused_with_the_number_that_is_known() {
        let refused =
            ring(&[PartitionState::Pending, PartitionState::Inactive]).choose(&TenantId::single(), 0, &traces(1));
        assert_eq!(refused, Err(NoActivePartition { known: 2 }));
        assert!(ring(&[]).choose(&TenantId::single(), 0, &traces(1)).is_err());
    }

    #[test]
    fn writes_are_possible_from_the_first_active_partition_on() {
        use PartitionState::{Active, Inactive, Pending};
        assert!(!ring(&[]).is_any_active() && !ring(&[Pending, Inactive]).is_any_active());
        assert!(ring(&[Pending, Active]).is_any_active());
    }
}

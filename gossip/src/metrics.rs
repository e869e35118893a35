//! Figures of rings, by the names that Tempo's dashboards know.

use std::collections::BTreeMap;

use vivace_runtime::metrics::Registry;

use crate::board::Board;
use crate::ring::RingView;
use crate::state::{InstanceState, PartitionState};

const STATES: [InstanceState; 4] =
    [InstanceState::Active, InstanceState::Leaving, InstanceState::Pending, InstanceState::Joining];
const PARTITION_STATES: [PartitionState; 3] =
    [PartitionState::Pending, PartitionState::Active, PartitionState::Inactive];

/// Exports what these boards show, at each scrape. Once for a registry.
pub fn export_rings(boards: Vec<Board>, registry: &Registry) {
    registry.collector(move |text| {
        let all: Vec<_> = boards.iter().map(Board::rings).collect();
        let views = || all.iter().flat_map(|rings| &rings.rings).map(|(ring, view)| (short(ring), view));
        let help = "Members of a ring by name and state (ACTIVE, LEAVING, PENDING, JOINING, Unhealthy).";
        text.family("tempo_ring_members", "gauge", help);
        for (name, view) in views() {
            for (state, count) in members(view) {
                text.sample("tempo_ring_members", "", &[("name", name), ("state", state)], None, number(count));
            }
        }
        text.family("tempo_ring_tokens_total", "gauge", "Tokens in a ring by name.");
        for (name, view) in views() {
            text.sample("tempo_ring_tokens_total", "", &[("name", name)], None, number(view.tokens()));
        }
        let help = "Partitions by name of the ring and state (Pending, Active, Inactive).";
        text.family("tempo_partition_ring_partitions", "gauge", help);
        for (ring, view) in all.iter().filter_map(|rings| rings.partitions.as_ref()) {
            for state in PARTITION_STATES {
                let labels = [("name", short(ring)), ("state", state.title())];
                let count = number(view.in_state(state).len());
                text.sample("tempo_partition_ring_partitions", "", &labels, None, count);
            }
        }
    });
}

/// Every state, also those that nobody is in: a graph must not keep its last value.
fn members(view: &RingView) -> BTreeMap<&'static str, usize> {
    let names = STATES.map(InstanceState::name).into_iter().chain(["Unhealthy"]);
    let mut counts: BTreeMap<&'static str, usize> = names.map(|name| (name, 0)).collect();
    for entry in view.entries() {
        let state = if entry.is_healthy() { entry.instance.state.name() } else { "Unhealthy" };
        *counts.entry(state).or_default() += 1;
    }
    counts
}

/// Without the prefix of the store.
fn short(ring: &str) -> &str {
    ring.rsplit('/').next().unwrap_or(ring)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;
    use crate::ring::Rings;
    use crate::ring::testing::{RING, crowd};

    #[test]
    fn rings_are_counted_by_state() {
        let mut crowd = crowd(3);
        crowd.kill(1);
        crowd.change(2, |instance| (instance.state, instance.tokens) = (InstanceState::Leaving, 4));
        let board = Board::new(Arc::new(|_| std::future::ready(Ok(())).boxed()), None);
        let rings = [(RING.to_owned(), Arc::new(crowd.view()))].into();
        let partitions = Some(("collectors/livestore-partitions".to_owned(), Arc::default()));
        board.publish(Rings { rings, partitions, ..Rings::default() });
        let registry = Registry::new();
        export_rings(vec![board], &registry);
        let text = registry.render();
        for line in [
            "tempo_ring_members{name=\"live-store\",state=\"ACTIVE\"} 1",
            "tempo_ring_members{name=\"live-store\",state=\"LEAVING\"} 1",
            "tempo_ring_members{name=\"live-store\",state=\"PENDING\"} 0",
            "tempo_ring_members{name=\"live-store\",state=\"Unhealthy\"} 1",
            "tempo_ring_tokens_total{name=\"live-store\"} 4",
            "tempo_partition_ring_partitions{name=\"livestore-partitions\",state=\"Active\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}

//! The ring of partitions at one moment: immutable, for routing and for pages.
//!
//! Owners are not stored: an owner is a live-store whose record names the partition.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::tokens::PartitionTokens;
use crate::ring::{RingEntry, RingView, TokenTable, shuffle_shard};
use crate::state::{Key, Partition, PartitionState, State};

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionEntry {
    /// Its number; also that of the log's partition.
    pub id: u32,
    /// State and lock.
    pub partition: Partition,
    /// The live-stores that own it, by id.
    pub owners: Vec<RingEntry>,
    /// Its tokens, sorted. None for a number that is too large to be meant.
    pub tokens: Option<Arc<[u32]>>,
}

impl PartitionEntry {
    /// What it is used for.
    #[must_use]
    pub fn state(&self) -> PartitionState {
        self.partition.state.value
    }

    /// Whether its state may not change.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.partition.lock.value
    }

    /// Owners that are up.
    pub fn healthy_owners(&self) -> impl Iterator<Item = &RingEntry> {
        self.owners.iter().filter(|owner| owner.is_healthy())
    }
}

/// The partitions at one moment.
#[derive(Debug, Default)]
pub struct PartitionView {
    entries: Vec<PartitionEntry>,
    orphans: Vec<(u32, Vec<RingEntry>)>,
    table: OnceLock<TokenTable>,
}

impl PartitionView {
    /// The partitions of `ring` and their owners among `live_stores`. Deleted partitions are left out.
    #[must_use]
    pub fn new(state: &State, ring: &str, live_stores: &RingView, tokens: &mut PartitionTokens) -> Self {
        let mut owners: BTreeMap<u32, Vec<RingEntry>> = BTreeMap::new();
        for entry in live_stores.entries() {
            if let Some(partition) = entry.instance.partition {
                owners.entry(partition).or_default().push(entry.clone());
            }
        }
        let mut entries = Vec::new();
        for record in state.ring(ring) {
            let (Key::Partition { id, .. }, Some(partition)) = (record.key(), record.as_partition()) else { continue };
            if partition.state.value == PartitionState::Deleted {
                continue;
            }
            entries.push(PartitionEntry {
                id: *id,
                partition: partition.clone(),
                owners: owners.remove(id).unwrap_or_default(),
                tokens: tokens.of(*id),
            });
        }
        Self { entries, orphans: owners.into_iter().collect(), table: OnceLock::new() }
    }

    /// The partitions, by number.
    #[must_use]
    pub fn entries(&self) -> &[PartitionEntry] {
        &self.entries
    }

    /// Live-stores that name a partition which is not there.
    #[must_use]
    pub fn orphans(&self) -> &[(u32, Vec<RingEntry>)] {
        &self.orphans
    }

    /// One partition.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&PartitionEntry> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok().map(|at| &self.entries[at])
    }

    /// Numbers of the partitions in a state.
    #[must_use]
    pub fn in_state(&self, state: PartitionState) -> Vec<u32> {
        self.entries.iter().filter(|entry| entry.state() == state).map(|entry| entry.id).collect()
    }

    /// Where a trace is written: the partition of the first token above its key, among the active ones.
    #[must_use]
    pub fn route(&self, key: u32) -> Option<u32> {
        self.route_among(key, |_| true)
    }

    /// As [`PartitionView::route`], among the active partitions of a sorted shard.
    #[must_use]
    pub fn route_in(&self, key: u32, shard: &[u32]) -> Option<u32> {
        self.route_among(key, |id| shard.binary_search(&id).is_ok())
    }

    /// The partitions that a tenant's traces are written to, sorted: `size` of the active ones, or all if it is 0.
    #[must_use]
    pub fn shard(&self, tenant: &str, size: usize) -> Vec<u32> {
        shuffle_shard(tenant, &self.in_state(PartitionState::Active), size)
    }

    /// Each partition's share of the keys, from 0 to 1, in the order of [`PartitionView::entries`]: among all that are there.
    #[must_use]
    pub fn ownership(&self) -> Vec<f64> {
        self.table().shares(self.entries.len())
    }

    fn route_among(&self, key: u32, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        self.table()
            .walk(key)
            .filter_map(|at| self.entries.get(at))
            .find(|entry| entry.state() == PartitionState::Active && wanted(entry.id))
            .map(|entry| entry.id)
    }

    fn table(&self) -> &TokenTable {
        self.table.get_or_init(|| {
            let tokens = self.entries.iter().enumerate();
            TokenTable::new(tokens.flat_map(|(at, entry)| {
                entry.tokens.iter().flat_map(|tokens| tokens.iter()).map(move |token| (*token, at))
            }))
        })
    }
}

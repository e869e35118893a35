//! Everybody who is or was here, found by id, with sums that two members compare.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use foca::State;

use super::Node;
use crate::sync::BUCKETS;

/// What is known about one process.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its latest life.
    pub node: Node,
    /// Alive or suspected; otherwise down.
    pub up: bool,
    /// When it came up or went down here.
    pub since: Duration,
}

/// Members by id, in an order that is the same in every run. Sums count those who are up: who is down is told apart only where the buckets differ.
#[derive(Debug, Default)]
pub struct Roster {
    entries: BTreeMap<u64, Entry>,
    /// Who tells an endpoint, in the order of their ids.
    at: HashMap<SocketAddr, Vec<u64>>,
    buckets: Box<Sums>,
    digest: u64,
    up: usize,
}

#[derive(Debug)]
struct Sums([u64; BUCKETS]);

impl Default for Sums {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Identity without what is known about it.
    pub node: Node,
    /// Alive or suspected.
    pub up: bool,
}

impl Roster {
    /// The entry of a process.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Everybody who tells this endpoint, in the order of their ids.
    pub fn at(&self, endpoint: SocketAddr) -> impl Iterator<Item = &Entry> {
        self.at.get(&endpoint).into_iter().flatten().filter_map(|id| self.entries.get(id))
    }

    /// The process is up, in this life.
    #[must_use]
    pub fn is_up(&self, node: &Node) -> bool {
        self.get(node.id).is_some_and(|entry| entry.up && entry.node == *node)
    }

    /// Everybody.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many are known, down ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many are up.
    #[must_use]
    pub fn up(&self) -> usize {
        self.up
    }

    /// The sum over all who are up.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The sums of the buckets.
    #[must_use]
    pub fn buckets(&self) -> [u64; BUCKETS] {
        self.buckets.0
    }

    /// How many stand in each bucket, down members included.
    #[must_use]
    pub fn counts(&self) -> [usize; BUCKETS] {
        let mut counts = [0; BUCKETS];
        for id in self.entries.keys() {
            counts[bucket(*id)] += 1;
        }
        counts
    }

    /// What stands in the buckets of `mask`, down members included.
    #[must_use]
    pub fn lines(&self, mask: u64) -> Vec<Line> {
        self.entries
            .values()
            .filter(|entry| mask >> bucket(entry.node.id) & 1 == 1)
            .map(|entry| Line { node: entry.node.clone(), up: entry.up })
            .collect()
    }

    /// Sets the state of a process; answers whether that changed anything.
    pub fn set(&mut self, now: Duration, node: Node, up: bool) -> bool {
        let before = self.entries.get(&node.id);
        if before.is_some_and(|entry| entry.node == node && entry.up == up) {
            return false;
        }
        let since = match before {
            Some(entry) if entry.up == up => entry.since,
            _ => now,
        };
        self.uncount(node.id);
        if up {
            self.count(&node);
        }
        let before = self.entries.insert(node.id, Entry { node: node.clone(), up, since });
        if let Some(before) = before.filter(|before| !before.node.endpoints().eq(node.endpoints())) {
            self.leave(&before.node);
        }
        for endpoint in node.endpoints() {
            let ids = self.at.entry(endpoint).or_default();
            if let Err(place) = ids.binary_search(&node.id) {
                ids.insert(place, node.id);
            }
        }
        true
    }

    /// The process is at none of these endpoints any more.
    fn leave(&mut self, node: &Node) {
        for endpoint in node.endpoints() {
            if let Some(ids) = self.at.get_mut(&endpoint) {
                ids.retain(|id| *id != node.id);
                if ids.is_empty() {
                    self.at.remove(&endpoint);
                }
            }
        }
    }

    /// Forgets a process that is down in this life; answers whether it did.
    pub fn forget(&mut self, node: &Node) -> bool {
        let gone = self.get(node.id).is_some_and(|entry| !entry.up && entry.node == *node);
        if gone && let Some(entry) = self.entries.remove(&node.id) {
            self.leave(&entry.node);
        }
        gone
    }

    fn count(&mut self, node: &Node) {
        let sum = stamp(node);
        self.up += 1;
        self.digest = self.digest.wrapping_add(sum);
        let slot = &mut self.buckets.0[bucket(node.id)];
        *slot = slot.wrapping_add(sum);
    }

    fn uncount(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.up) else { return };
        let sum = stamp(&entry.node);
        self.up -= 1;
        self.digest = self.digest.wrapping_sub(sum);
        let slot = &mut self.buckets.0[bucket(id)];
        *slot = slot.wrapping_sub(sum);
    }
}

/// Ids are random, so their low bits spread evenly.
fn bucket(id: u64) -> usize {
    usize::from(u8::try_from(id % BUCKETS as u64).unwrap_or(0))
}

/// The finish of SplitMix64 over the identity: part of what members agree on.
fn stamp(node: &Node) -> u64 {
    let mut x = node.id ^ u64::from(node.generation).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whether foca's state counts as up.
pub(crate) fn is_up(state: State) -> bool {
    match state {
        State::Alive | State::Suspect => true,
        State::Down => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::About;
    use proptest::prelude::*;

    fn node(id: u64, generation: u32) -> Node {
        Node::bare(id, generation, false)
    }

    proptest! {
        #[test]
        fn sums_depend_on_who_is_up_and_not_on_how_it_came(
            events in proptest::collection::vec((0_u64..40, 1_u32..4, any::<bool>()), 0..200),
        ) {
            let mut roster = Roster::default();
            for (id, generation, up) in &events {
                roster.set(Duration::ZERO, node(*id, *generation), *up);
            }
            let mut fresh = Roster::default();
            let ups: Vec<_> = roster.iter().filter(|entry| entry.up).cloned().collect();
            for entry in ups.iter().rev() {
                fresh.set(Duration::from_secs(1), entry.node.clone(), true);
            }
            prop_assert_eq!(roster.digest(), fresh.digest());
            prop_assert_eq!(roster.buckets(), fresh.buckets());
            prop_assert_eq!(roster.up(), ups.len());
        }
    }

    proptest! {
        #[test]
        fn who_is_at_an_endpoint_is_who_tells_it_now(
            events in proptest::collection::vec((0_u64..8, 1_u32..4, 0_u16..5, any::<bool>(), any::<bool>()), 0..80),
        ) {
            let mut roster = Roster::default();
            let v4 = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
            let v6 = |port: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], port));
            for (id, generation, port, dual, up) in events {
                let about = About { v4: Some(v4(port)), v6: dual.then(|| v6(port)), ..About::default() };
                let mut node = Node::new(id, about);
                node.generation = generation;
                if !roster.forget(&node) {
                    roster.set(Duration::ZERO, node, up);
                }
                for endpoint in (0..5).flat_map(|port| [v4(port), v6(port)]) {
                    let told = roster.iter().filter(|entry| entry.node.endpoints().any(|told| told == endpoint));
                    let told: Vec<u64> = told.map(|entry| entry.node.id).collect();
                    prop_assert_eq!(roster.at(endpoint).map(|entry| entry.node.id).collect::<Vec<_>>(), told);
                }
            }
            prop_assert!(roster.at.values().all(|ids| !ids.is_empty()));
        }
    }

    #[test]
    fn a_difference_shows_in_one_bucket() {
        let (mut a, mut b) = (Roster::default(), Roster::default());
        for id in 0..1000 {
            a.set(Duration::ZERO, node(id, 1), true);
            b.set(Duration::ZERO, node(id, if id == 77 { 2 } else { 1 }), true);
        }
        let differing = a.buckets().iter().zip(b.buckets()).filter(|(a, b)| *a != b).count();
        assert_eq!(differing, 1);
    }
}

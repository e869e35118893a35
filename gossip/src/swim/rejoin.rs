//! Standing rejoin: whoever is alone tries seeds and last-known peers at a growing distance, and whoever is not still tries
//! one address now and then that belongs to nobody here. That is how two halves of a cluster find each other again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Due, Kind, Node, Swim, Target};
use crate::sync::Replicated;

/// Addresses of former peers that are kept.
const PEERS_MAX: usize = 2048;
/// Seeds that are kept.
const SEEDS_MAX: usize = 4096;
/// Addresses tried at once while alone.
const TRIES: usize = 3;
/// The longest distance of tries while alone, whatever is configured.
const ALONE_MAX: Duration = Duration::from_secs(10);
/// Distance of tries in a small cluster. In a larger one everybody tries less often, and together as often.
const TOGETHER: Duration = Duration::from_secs(5);
const TOGETHER_MEMBERS: u32 = 100;

#[derive(Debug)]
pub(super) struct Rejoin {
    seeds: Vec<SocketAddr>,
    /// Endpoints of everybody who was here, by when they came.
    peers: BTreeMap<SocketAddr, Duration>,
    backoff: Duration,
    first: Duration,
    /// One whole exchange with another member was made.
    pub(super) exchanged: bool,
}

impl Rejoin {
    pub(super) fn new(first: Duration) -> Self {
        Self { seeds: Vec::new(), peers: BTreeMap::new(), backoff: first, first, exchanged: false }
    }

    pub(super) fn met(&mut self, now: Duration, node: &Node) {
        for endpoint in node.endpoints() {
            if self.peers.len() >= PEERS_MAX
                && let Some(oldest) = self.peers.iter().min_by_key(|(_, met)| **met).map(|(endpoint, _)| *endpoint)
            {
                self.peers.remove(&oldest);
            }
            self.peers.insert(endpoint, now);
        }
    }

    /// Left on purpose: nobody is expected at its addresses.
    pub(super) fn left(&mut self, node: &Node) {
        for endpoint in node.endpoints() {
            self.peers.remove(&endpoint);
        }
    }

    pub(super) fn joined(&mut self) {
        self.backoff = self.first;
    }
}

impl<S: Replicated> Swim<S> {
    pub(super) fn on_seeds(&mut self, now: Duration, mut seeds: Vec<SocketAddr>) {
        seeds.truncate(SEEDS_MAX);
        let news = seeds.iter().any(|seed| !self.rejoin.seeds.contains(seed));
        self.rejoin.seeds = seeds;
        if news && self.roster.up() <= 1 {
            self.rejoin.backoff = self.tuning.rejoin_min;
            self.try_addresses(now, TRIES);
        }
    }

    pub(super) fn on_rejoin_due(&mut self, now: Duration) {
        if self.node().left {
            return;
        }
        let wait = if self.roster.up() <= 1 {
            self.try_addresses(now, TRIES);
            let wait = self.rejoin.backoff;
            self.rejoin.backoff = (wait * 2).min(self.tuning.rejoin_max).min(ALONE_MAX);
            wait
        } else {
            self.try_addresses(now, 1);
            let members = u32::try_from(self.roster.up()).unwrap_or(u32::MAX);
            TOGETHER * (1 + members / TOGETHER_MEMBERS)
        };
        let wait = wait.mul_f64(0.7) + self.jitter(wait.mul_f64(0.6));
        self.timers.set(now + wait, Due::Rejoin);
    }

    /// Begins a comparison with random addresses at which no member is known to be.
    fn try_addresses(&mut self, now: Duration, tries: usize) {
        let taken = |address: &SocketAddr| self.roster.at(*address).any(|entry| entry.up);
        let own = self.paths.own();
        let speaks = |address: &SocketAddr| match crate::families::Family::of(*address) {
            crate::families::Family::V4 => own.v4,
            crate::families::Family::V6 => own.v6,
        };
        let mut free: Vec<SocketAddr> = self
            .rejoin
            .seeds
            .iter()
            .chain(self.rejoin.peers.keys())
            .filter(|address| !taken(address) && speaks(address))
            .copied()
            .collect();
        free.sort_unstable();
        free.dedup();
        tracing::trace!(?now, free = free.len(), "look for members");
        for _ in 0..tries.min(free.len()) {
            let address = free.swap_remove(self.rng.index(free.len()));
            let open = self.open().encode();
            self.emit(Target::Stream(address), open, Kind::Sync);
        }
    }
}

//! Who has recent data, as the rings on this process's board say: what a querier asks for each query.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vivace_gossip::Board;
use vivace_gossip::families::host_candidates;
use vivace_gossip::partition::PartitionEntry;
use vivace_gossip::ring::{Candidate, Operation, RingEntry, is_callable};
use vivace_gossip::state::PartitionState;
use vivace_querier::{LiveStores, Owner, Partition, PartitionUse};
use vivace_runtime::Clock;

/// The addresses of this host are looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The live-stores of the ring.
pub(crate) struct RingLiveStores {
    board: Board,
    clock: Arc<dyn Clock>,
    host: Mutex<Host>,
}

struct Host {
    addresses: Vec<Candidate>,
    looked: Option<Instant>,
}

impl RingLiveStores {
    /// As `board` shows them.
    pub(crate) fn new(board: Board, clock: Arc<dyn Clock>) -> Self {
        Self { board, clock, host: Mutex::new(Host { addresses: Vec::new(), looked: None }) }
    }

    fn host_addresses(&self) -> Vec<Candidate> {
        let mut host = self.host.lock();
        let now = self.clock.now();
        if host.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_AGAIN) {
            match host_candidates() {
                Ok(addresses) => *host = Host { addresses, looked: Some(now) },
                Err(error) => {
                    tracing::warn!(%error, "list the addresses of this host; those known before are used");
                    host.looked = Some(now);
                }
            }
        }
        host.addresses.clone()
    }
}

impl LiveStores for RingLiveStores {
    fn partitions(&self) -> Vec<Partition> {
        let rings = self.board.rings();
        let Some((_, view)) = &rings.partitions else { return Vec::new() };
        let host = self.host_addresses();
        view.entries().iter().map(|entry| partition(entry, &host)).collect()
    }
}

fn partition(entry: &PartitionEntry, host: &[Candidate]) -> Partition {
    let used = match entry.state() {
        PartitionState::Active => PartitionUse::Active,
        PartitionState::Inactive => PartitionUse::Inactive { since_unix_secs: entry.partition.state.changed_at },
        // Deleted ones are not in the view.
        PartitionState::Pending | PartitionState::Deleted => PartitionUse::Pending,
    };
    Partition { id: entry.id, used, owners: entry.owners.iter().map(|owner| self::owner(owner, host)).collect() }
}

fn owner(entry: &RingEntry, host: &[Candidate]) -> Owner {
    let reached = |address: &&vivace_gossip::state::Address| {
        // A name may have addresses of both families.
        address.ip().is_none_or(|ip| is_reached(ip, host))
    };
    Owner {
        id: entry.id.to_string(),
        zone: entry.instance.zone.clone(),
        addresses: entry.dial().filter(reached).map(ToString::to_string).collect(),
        healthy: entry.is_healthy(),
        ready: entry.serves(Operation::Read),
    }
}

/// Whether this host has an address that calls to `ip` can come from: one of its family, and not only the loopback.
fn is_reached(ip: IpAddr, host: &[Candidate]) -> bool {
    // What is not known is tried.
    host.is_empty()
        || host.iter().any(|own| {
            own.ip.is_ipv4() == ip.is_ipv4() && (is_callable(own.ip) || (own.ip.is_loopback() && ip.is_loopback()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_family_that_this_host_does_not_have_is_left_out() {
        let host = |ips: &[&str]| -> Vec<Candidate> {
            let own = |ip: &&str| Candidate { interface: "eth0".into(), ip: ip.parse().unwrap(), routed: false };
            ips.iter().map(own).collect()
        };
        let reached = |ip: &str, own: &[&str]| is_reached(ip.parse().unwrap(), &host(own));
        let v4 = ["127.0.0.1", "::1", "fe80::1", "10.0.0.5"];
        assert!(reached("10.0.0.9", &v4) && reached("127.0.0.1", &v4) && reached("::1", &v4));
        assert!(!reached("fd00::9", &v4), "only a loopback and a link-local address of that family");
        assert!(!reached("10.0.0.9", &["127.0.0.1", "fd00::5"]) && reached("fd00::9", &["127.0.0.1", "fd00::5"]));
        assert!(reached("10.0.0.9", &[]), "what is not known is tried");
    }
}

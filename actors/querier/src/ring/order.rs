//! Rules: which partitions are asked, and in which order their owners are.

use std::time::Duration;

use vivace_runtime::Rng;

use crate::live_stores::{Owner, Partition, PartitionUse};

/// A way to ask: an owner by one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) owner: String,
    /// None: it advertises none that this process could use.
    pub(crate) address: Option<String>,
    pub(crate) standing: Standing,
}

/// How an owner is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Ready,
    /// Alive, and in no state to answer; it may have come into one since.
    Up,
    /// Down as membership sees it, which can be wrong: dialled when nobody else is left.
    Down,
}

impl Standing {
    fn of(owner: &Owner) -> Self {
        match (owner.healthy, owner.ready) {
            (true, true) => Self::Ready,
            (true, false) => Self::Up,
            (false, _) => Self::Down,
        }
    }
}

/// Whether a partition can have data that is nowhere else. One without owners has not, when nothing was ever written to it, or
/// nothing for so long that blocks have all of it.
pub(crate) fn holds_data(partition: &Partition, now_unix_secs: i64, settled_after: Duration) -> bool {
    if !partition.owners.is_empty() {
        return true;
    }
    match partition.used {
        PartitionUse::Pending => false,
        PartitionUse::Active => true,
        PartitionUse::Inactive { since_unix_secs } => {
            let settled = i64::try_from(settled_after.as_secs()).unwrap_or(i64::MAX);
            now_unix_secs < since_unix_secs.saturating_add(settled)
        }
    }
}

/// The ways to ask, the best first: by standing, the preferred zone before others, zones together, and by chance among equals. The
/// addresses of one owner follow each other.
pub(crate) fn order(partition: &Partition, preferred_zone: &str, rng: &mut Rng) -> Vec<Candidate> {
    let mut zones: Vec<&str> = partition.owners.iter().map(|owner| owner.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    let ranked: Vec<(&str, (bool, u64))> = zones
        .into_iter()
        .map(|zone| (zone, (preferred_zone.is_empty() || zone != preferred_zone, rng.next())))
        .collect();
    let rank = |zone: &str| ranked.iter().find(|(name, _)| *name == zone).map(|(_, rank)| *rank);
    let mut owners: Vec<_> = partition
        .owners
        .iter()
        .map(|owner| ((Standing::of(owner), rank(&owner.zone), rng.next(), owner.id.as_str()), owner))
        .collect();
    owners.sort_by(|a, b| a.0.cmp(&b.0));
    let candidates = owners.into_iter().flat_map(|((standing, ..), owner)| {
        let one = move |address: Option<String>| Candidate { owner: owner.id.clone(), address, standing };
        let mut ways: Vec<Candidate> = owner.addresses.iter().cloned().map(Some).map(one).collect();
        if ways.is_empty() {
            ways.push(one(None));
        }
        ways
    });
    candidates.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vivace_runtime::Rng;

    use super::*;

    fn owner(id: &str, zone: &str, healthy: bool, ready: bool) -> Owner {
        let addresses = vec![format!("{id}:9095"), format!("[fd00::{id}]:9095")];
        Owner { id: id.to_owned(), zone: zone.to_owned(), addresses, healthy, ready }
    }

    fn partition(owners: Vec<Owner>) -> Partition {
        Partition { id: 0, used: PartitionUse::Active, owners }
    }

    fn owners(candidates: &[Candidate]) -> Vec<&str> {
        let mut owners: Vec<&str> = candidates.iter().map(|candidate| candidate.owner.as_str()).collect();
        owners.dedup();
        owners
    }

    #[test]
    fn standing_comes_before_zone_and_the_dead_are_last() {
        let partition = partition(vec![
            owner("dead", "near", false, true),
            owner("starting", "near", true, false),
            owner("far", "far", true, true),
            owner("near", "near", true, true),
        ]);
        for seed in 0..20 {
            let order = order(&partition, "near", &mut Rng::seeded(seed));
            assert_eq!(owners(&order), ["near", "far", "starting", "dead"]);
            assert_eq!(order[0].address.as_deref(), Some("near:9095"));
            assert_eq!(order[1].address.as_deref(), Some("[fd00::near]:9095"));
        }
    }

    #[test]
    fn equals_are_asked_by_chance() {
        let partition = partition(vec![owner("a", "x", true, true), owner("b", "y", true, true)]);
        let first: std::collections::BTreeSet<String> =
            (0..20).map(|seed| order(&partition, "", &mut Rng::seeded(seed))[0].owner.clone()).collect();
        assert_eq!(first.len(), 2);
    }

    #[test]
    fn partitions_without_owners_are_asked_while_they_can_have_data() {
        let used = |used| Partition { id: 1, used, owners: Vec::new() };
        let asked = |partition: &Partition, now| holds_data(partition, now, Duration::from_secs(900));
        assert!(!asked(&used(PartitionUse::Pending), 0));
        assert!(asked(&used(PartitionUse::Active), 0));
        let inactive = used(PartitionUse::Inactive { since_unix_secs: 1000 });
        assert!(asked(&inactive, 1899) && !asked(&inactive, 1900));
        let owned = Partition { owners: vec![owner("a", "", true, true)], ..inactive };
        assert!(asked(&owned, 1_000_000));
    }

    proptest! {
        #[test]
        fn every_owner_is_there_once_for_each_address(
            all in prop::collection::vec(("[a-d]", any::<bool>(), any::<bool>()), 0..8),
            seed in any::<u64>(),
        ) {
            let all: Vec<Owner> = all
                .into_iter()
                .enumerate()
                .map(|(n, (zone, healthy, ready))| owner(&format!("{n}"), &zone, healthy, ready))
                .collect();
            let order = order(&partition(all.clone()), "b", &mut Rng::seeded(seed));
            prop_assert_eq!(order.len(), 2 * all.len());
            prop_assert_eq!(owners(&order).len(), all.len());
            prop_assert!(order.is_sorted_by_key(|candidate| candidate.standing));
            let zone = |candidate: &Candidate| all.iter().find(|o| o.id == candidate.owner).map(|o| o.zone.clone());
            for pair in order.windows(2) {
                let later = zone(&pair[1]).as_deref() == Some("b") && zone(&pair[0]).as_deref() != Some("b");
                prop_assert!(!later || pair[0].standing < pair[1].standing);
            }
        }
    }
}

//! Shuffle sharding: a few partitions of many for each tenant, the same few on every member.
//!
//! Rendezvous hashing: every partition gets a rank from the hash of tenant and partition, and the highest ranks are the
//! shard. When a partition comes or goes, only the tenants that gain or lose it change, each by one.

use crate::state::stable_hash;

/// The `size` candidates of `tenant`, sorted; all of them if `size` is 0 or not below their number.
#[must_use]
pub fn shuffle_shard(tenant: &str, candidates: &[u32], size: usize) -> Vec<u32> {
    let mut chosen = candidates.to_vec();
    if size > 0 && size < chosen.len() {
        chosen.sort_by_cached_key(|candidate| {
            let rank = stable_hash(&[b"shard", tenant.as_bytes(), &candidate.to_be_bytes()]);
            (std::cmp::Reverse(rank), *candidate)
        });
        chosen.truncate(size);
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_size_and_a_large_size_mean_all() {
        for size in [0, 3, 9] {
            assert_eq!(shuffle_shard("t", &[3, 1, 2], size), [1, 2, 3]);
        }
        assert!(shuffle_shard("t", &[], 2).is_empty());
    }

    #[test]
    fn tenants_are_spread_over_all() {
        let all: Vec<u32> = (0..16).collect();
        let mut load = [0; 16];
        for tenant in 0..800 {
            for partition in shuffle_shard(&format!("tenant-{tenant}"), &all, 4) {
                load[partition as usize] += 1;
            }
        }
        assert!(load.iter().all(|n| (140..270).contains(n)), "{load:?}");
    }

    proptest! {
        #[test]
        fn one_candidate_more_changes_a_shard_by_one_at_most(
            tenant in "[a-z]{1,8}",
            count in 2..40_u32,
            size in 1..10_usize,
        ) {
            let (before, after): (Vec<u32>, Vec<u32>) = ((0..count).collect(), (0..=count).collect());
            let (a, b) = (shuffle_shard(&tenant, &before, size), shuffle_shard(&tenant, &after, size));
            prop_assert!(a.iter().filter(|partition| !b.contains(partition)).count() <= 1);
            prop_assert_eq!(b.len(), size.min(after.len()));
        }
    }
}

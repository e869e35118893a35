//! The tokens of partitions: computed, the same everywhere, and the same as in Tempo.
//!
//! The ring has 2^32 points. Partition 0 has 512 tokens at equal distances. Each further partition takes, 512 times, a
//! piece from the partition that owns most at that moment, out of the longest range of that partition, so that in the
//! end it owns its fair share. All tokens are multiples of 8.

use std::collections::BinaryHeap;
use std::sync::Arc;

/// Tokens of one partition.
pub const TOKENS: usize = 512;
/// Ids at and above this have no tokens: computing them would take long, and no cluster comes near.
pub const PARTITIONS_MAX: u32 = 4096;

const RING: u64 = 1 << 32;
const STEP: u64 = 8;

/// A token with the one before it on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    // The order of the fields is the order in which ranges are taken: the longest, then the highest token.
    length: u64,
    token: u64,
    before: u64,
}

impl Range {
    fn new(before: u64, token: u64) -> Self {
        // A token alone owns the full ring.
        let length = if token > before { token - before } else { token + RING - before };
        Self { length, token, before }
    }
}

/// A partition while others take from it; ordered by what it owns, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Donor {
    owned: u64,
    id: usize,
}

/// Computes tokens partition by partition and keeps what it has computed.
#[derive(Debug, Clone)]
pub struct PartitionTokens {
    tokens: Vec<Arc<[u32]>>,
    ranges: Vec<BinaryHeap<Range>>,
    donors: BinaryHeap<Donor>,
}

impl Default for PartitionTokens {
    fn default() -> Self {
        let step = RING / TOKENS as u64;
        let first: Vec<u64> = (0..TOKENS as u64).map(|i| i * step).collect();
        let ranges = first.iter().map(|token| Range::new(token.checked_sub(step).unwrap_or(RING - step), *token));
        Self {
            ranges: vec![ranges.collect()],
            donors: BinaryHeap::from([Donor { owned: RING, id: 0 }]),
            tokens: vec![sorted(first)],
        }
    }
}

impl PartitionTokens {
    /// The sorted tokens of a partition; none at and above [`PARTITIONS_MAX`].
    pub fn of(&mut self, partition: u32) -> Option<Arc<[u32]>> {
        if partition >= PARTITIONS_MAX {
            return None;
        }
        let at = usize::try_from(partition).ok()?;
        while self.tokens.len() <= at {
            self.add();
        }
        self.tokens.get(at).cloned()
    }

    fn add(&mut self) {
        let id = self.tokens.len();
        // The fair share. What is owned is whole, so the fraction of the share never counts.
        let target = RING / (id as u64 + 1);
        let (mut owned, mut mine, mut aside) = (0, Vec::with_capacity(TOKENS), Vec::new());
        while mine.len() < TOKENS {
            let piece = target.saturating_sub(owned) / (TOKENS - mine.len()) as u64 / STEP * STEP;
            let Some(mut donor) = self.donors.pop() else { break };
            let ranges = &mut self.ranges[donor.id];
            let Some(mut longest) = ranges.peek_mut() else { break };
            if longest.length <= piece {
                drop(longest);
                aside.push(donor);
                continue;
            }
            let before = longest.before;
            let to_wrap = RING - STEP - before;
            // Over the end of the ring the new token comes out one step further than plain addition would have it.
            let token = if to_wrap < piece { piece - to_wrap } else { before + piece };
            let rest = Range::new(token, longest.token);
            let taken = longest.length - rest.length;
            *longest = rest;
            drop(longest);
            owned += taken;
            donor.owned -= taken;
            self.donors.push(donor);
            mine.push(Range::new(before, token));
        }
        self.donors.extend(aside);
        self.donors.push(Donor { owned, id });
        self.tokens.push(sorted(mine.iter().map(|range| range.token).collect()));
        self.ranges.push(mine.into());
    }
}

fn sorted(tokens: Vec<u64>) -> Arc<[u32]> {
    let mut tokens: Vec<u32> = tokens.into_iter().filter_map(|token| u32::try_from(token).ok()).collect();
    tokens.sort_unstable();
    tokens.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(tokens: &[u32]) -> ([u32; 3], u32, u64) {
        (tokens[..3].try_into().unwrap(), *tokens.last().unwrap(), tokens.iter().map(|t| u64::from(*t)).sum())
    }

    #[test]
    fn the_first_five_partitions_have_tempos_tokens() {
        let mut tokens = PartitionTokens::default();
        let known = [
            ([0, 8_388_608, 16_777_216], 4_286_578_688, 1_097_364_144_128),
            ([4_194_304, 12_582_912, 20_971_520], 4_290_772_992, 1_099_511_627_776),
            ([2_146_085_552, 2_150_279_856, 2_154_474_160], 4_289_374_888, 1_647_477_871_952),
            ([710_934_528, 715_128_832, 719_323_136], 2_854_223_872, 912_680_550_400),
            ([1_677_720, 5_872_024, 10_066_328], 4_292_450_712, 959_077_102_248),
        ];
        for (partition, known) in (0..).zip(known) {
            assert_eq!(figures(&tokens.of(partition).unwrap()), known, "partition {partition}");
        }
    }

    #[test]
    fn partitions_asked_in_any_order_have_the_same_distinct_tokens() {
        let (mut forward, mut backward) = (PartitionTokens::default(), PartitionTokens::default());
        let up: Vec<_> = (0..64).map(|id| forward.of(id).unwrap()).collect();
        let mut down: Vec<_> = (0..64).rev().map(|id| backward.of(id).unwrap()).collect();
        down.reverse();
        assert_eq!(up, down);
        let mut all: Vec<u32> = up.iter().flat_map(|tokens| tokens.iter().copied()).collect();
        assert!(all.iter().all(|token| token % 8 == 0) && all.len() == 64 * TOKENS);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 64 * TOKENS, "no token twice");
    }

    #[test]
    fn an_absurd_partition_has_no_tokens_and_costs_nothing() {
        assert!(PartitionTokens::default().of(PARTITIONS_MAX).is_none());
        assert!(PartitionTokens::default().of(u32::MAX).is_none());
    }
}

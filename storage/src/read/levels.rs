//! Repetition or definition levels of a page, as the page has them: three bits an entry, not a byte.
//!
//! All that readers ask of levels are comparisons, which are answered for 64 entries at once: a word with a bit for each. What follows
//! from them (rows, owners, values, and how many of these lie before an entry) is counting bits.

use std::ops::Range;

use bytes::Bytes;

use super::{
    bits::{BLOCK, Bits, low_ones, ones_in},
    error::{Error, Result},
    rle::level_width,
};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Levels(Bits);

impl Levels {
    /// Those of a column that has none: every level is 0.
    pub(crate) fn none() -> Self {
        Self(Bits::same(0, 0))
    }

    /// `len` levels of at most `max`, above 0, out of the runs in `buf`, which the result holds on to if it `shares` them.
    pub(crate) fn decode(buf: &Bytes, max: u8, len: usize, shares: bool) -> Result<Self> {
        let levels = Bits::decode(buf, level_width(max), len, shares)?;
        if !levels.all_below(usize::from(max) + 1) {
            return Err(Error::malformed("run-length data", "level above its maximum"));
        }
        Ok(Self(levels))
    }

    /// Entries, 0 for a column that has no levels.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Memory held beside the value itself.
    pub(crate) fn memory(&self) -> usize {
        self.0.memory()
    }

    #[inline]
    pub(crate) fn get(&self, entry: usize) -> Option<u8> {
        self.0.get(entry).map(|level| level.to_le_bytes()[0])
    }

    /// Which of the 64 entries from `64 * block` on have at least this level, a bit each. Bits past the end mean nothing.
    #[inline]
    pub(crate) fn at_least(&self, block: usize, level: u8) -> u64 {
        self.0.at_least(block, u32::from(level))
    }

    /// As [`Self::at_least`], for entries of at most this level.
    #[inline]
    pub(crate) fn at_most(&self, block: usize, level: u8) -> u64 {
        !self.0.at_least(block, u32::from(level) + 1)
    }

    /// How many entries have at least this level.
    pub(crate) fn count_at_least(&self, level: u8) -> usize {
        self.0.count_at_least(u32::from(level))
    }

    /// Whether all entries have at least this level, as far as can be told at once.
    pub(crate) fn surely_at_least(&self, level: u8) -> bool {
        self.0.all_same().is_some_and(|all| all >= u32::from(level))
    }

    /// Where level 0 stands for the time `nth` (from 0 on).
    pub(crate) fn nth_zero(&self, mut nth: usize) -> Option<usize> {
        for (block, within) in blocks(0..self.len()) {
            let zeros = self.at_most(block, 0) & within;
            let here = ones_in(zeros);
            if nth < here {
                return ones(zeros).nth(nth).map(|bit| block * BLOCK + bit);
            }
            nth -= here;
        }
        None
    }

    /// Where a level of at most `level` stands for the time `nth` (from 0 on) behind the first `from` entries; how many there are if there
    /// are fewer.
    pub(crate) fn nth_at_most(&self, level: u8, from: usize, mut nth: usize) -> std::result::Result<usize, usize> {
        let mut passed = 0;
        for (block, within) in blocks(from..self.len()) {
            let places = self.at_most(block, level) & within;
            let here = ones_in(places);
            if let Some(bit) = (nth < here).then(|| ones(places).nth(nth)).flatten() {
                return Ok(block * BLOCK + bit);
            }
            nth -= here;
            passed += here;
        }
        Err(passed)
    }

    /// The levels of `range`, which is cut at the end.
    pub(crate) fn iter(&self, range: Range<usize>) -> LevelsIter<'_> {
        let range = range.start..range.end.min(self.len());
        LevelsIter { levels: self, range, block: usize::MAX, unpacked: [0; BLOCK] }
    }

    /// 64 levels from `64 * block` on; what is past the end means nothing.
    pub(crate) fn unpack(&self, block: usize, out: &mut [u8; BLOCK]) {
        self.0.unpack(block, out);
    }
}

/// See [`Levels::iter`].
pub(crate) struct LevelsIter<'l> {
    levels: &'l Levels,
    range: Range<usize>,
    block: usize,
    unpacked: [u8; BLOCK],
}

impl Iterator for LevelsIter<'_> {
    type Item = u8;

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let entry = self.range.next()?;
        if entry / BLOCK != self.block {
            self.block = entry / BLOCK;
            self.levels.unpack(self.block, &mut self.unpacked);
        }
        Some(self.unpacked[entry % BLOCK])
    }
}

/// The blocks that `range` lies in, each with a bit for every entry that is in the range.
pub(crate) fn blocks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let Range { start, end } = range;
    let last = if start < end { end.div_ceil(BLOCK) } else { start / BLOCK };
    (start / BLOCK..last).map(move |block| {
        let before = low_ones(start.saturating_sub(block * BLOCK));
        (block, low_ones(end - block * BLOCK) & !before)
    })
}

/// The places of the bits that are set, ascending.
#[inline]
pub(crate) fn ones(word: u64) -> impl Iterator<Item = usize> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
        rest &= rest - 1;
        Some(bit)
    })
}

/// The bits below `bit`.
#[inline]
pub(crate) fn below(bit: usize) -> u64 {
    low_ones(bit)
}

/// The bits up to `bit`, which is among them.
#[inline]
pub(crate) fn through(bit: usize) -> u64 {
    u64::MAX >> (BLOCK - 1 - bit)
}

/// Puts the lowest bits of `bits` where bits of `places` are set, in order.
#[inline]
pub(crate) fn deposit(mut bits: u64, mut places: u64) -> u64 {
    if places & places.wrapping_add(1) == 0 {
        return bits & places;
    }
    let mut put = 0;
    while bits != 0 && places != 0 {
        let rest = places & (places - 1);
        if bits & 1 == 1 {
            put |= places ^ rest;
        }
        places = rest;
        bits >>= 1;
    }
    put
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read::bits::tests::{hybrid, stretches};

    /// These levels, of at most `max`, in a page's form.
    pub(crate) fn levels_of(levels: &[u8], max: u8) -> Levels {
        let same = levels.chunk_by(|a, b| a == b);
        // Stretches of one level as repetitions where they are long; packed ones end with a group of eight.
        let repeats = same.into_iter().all(|run| run.len() > 20);
        let runs: Vec<(Vec<u32>, bool)> = if repeats {
            levels.chunk_by(|a, b| a == b).map(|run| (run.iter().copied().map(u32::from).collect(), true)).collect()
        } else {
            vec![(levels.iter().copied().map(u32::from).collect(), false)]
        };
        let (buf, _) = hybrid(level_width(max), &runs);
        Levels::decode(&buf.into(), max, levels.len(), true).expect("no level is above")
    }

    fn levels() -> impl Strategy<Value = (Levels, Vec<u8>)> {
        let parts = (1u8..9).prop_flat_map(|width| (Just(width), stretches(width), any::<bool>()));
        parts.prop_map(|(width, stretches, shares)| {
            let (buf, all) = hybrid(width, &stretches);
            let max = u8::try_from((1u32 << width) - 1).expect("eight bits");
            let levels = Levels::decode(&buf.into(), max, all.len(), shares).expect("no level is above");
            (levels, all.into_iter().map(|level| level.to_le_bytes()[0]).collect())
        })
    }

    proptest! {
        #[test]
        fn comparing_packed_levels_is_comparing_levels(
            (levels, all) in levels(), wanted in any::<prop::sample::Index>(), from in 0usize..300, len in 0usize..300, nth in 0usize..300,
        ) {
            prop_assert_eq!(levels.len(), all.len());
            prop_assert_eq!(levels.iter(0..all.len()).collect::<Vec<_>>(), all.clone());
            let range = from.min(all.len())..(from + len).min(all.len()).max(from.min(all.len()));
            prop_assert_eq!(levels.iter(range.start..from + len).collect::<Vec<_>>(), all[range.clone()].to_vec());
            let level = all[wanted.index(all.len())];
            let mut found = (Vec::new(), Vec::new());
            for (block, within) in blocks(range.clone()) {
                found.0.extend(ones(levels.at_least(block, level) & within).map(|bit| block * BLOCK + bit));
                found.1.extend(ones(levels.at_most(block, level) & within).map(|bit| block * BLOCK + bit));
            }
            prop_assert_eq!(found.0, range.clone().filter(|at| all[*at] >= level).collect::<Vec<_>>());
            prop_assert_eq!(found.1, range.filter(|at| all[*at] <= level).collect::<Vec<_>>());
            prop_assert_eq!(levels.count_at_least(level), all.iter().filter(|found| **found >= level).count());
            prop_assert_eq!(levels.nth_zero(nth), (0..all.len()).filter(|at| all[*at] == 0).nth(nth));
            let few: Vec<usize> = (from..all.len()).filter(|at| all[*at] <= level).collect();
            prop_assert_eq!(levels.nth_at_most(level, from, nth), few.get(nth).copied().ok_or(few.len()));
        }

        #[test]
        fn a_level_above_the_highest_is_an_error(max in 1u8..7, stretches in stretches(3)) {
            let width = level_width(max);
            let cut: Vec<(Vec<u32>, bool)> = stretches.into_iter().map(|(numbers, repeats)| {
                (numbers.into_iter().map(|number| number & ((1 << width) - 1)).collect(), repeats)
            }).collect();
            let (buf, all) = hybrid(width, &cut);
            let sound = all.iter().all(|level| *level <= u32::from(max));
            prop_assert_eq!(Levels::decode(&buf.into(), max, all.len(), true).is_ok(), sound);
        }

        #[test]
        fn bits_are_put_into_places_in_order(bits in any::<u64>(), places in any::<u64>(), run in 0usize..65) {
            for places in [places, low_ones(run), low_ones(run) << (64 - run.max(1))] {
                let due = ones(places).enumerate().filter(|(nth, _)| bits >> nth & 1 == 1).fold(0, |put, (_, bit)| put | 1 << bit);
                prop_assert_eq!(deposit(bits, places), due);
            }
        }
    }

    #[test]
    fn a_column_without_levels_has_level_zero_everywhere() {
        let none = Levels::none();
        assert_eq!((none.at_most(3, 0), none.at_least(0, 0), none.at_least(0, 1)), (u64::MAX, u64::MAX, 0));
        assert_eq!((none.len(), none.get(0), none.iter(0..9).next(), none.nth_zero(0)), (0, None, None, None));
    }
}

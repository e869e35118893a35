//! Values of a page with what they belong to, found 64 entries at a time: nothing is done for an entry that nobody asks for.

use std::ops::Range;

use vivace_traceql::Bitmap;

use crate::read::{
    bits::{BLOCK, low_ones, ones_in},
    levels::{Levels, below, blocks, deposit, ones, through},
    page::Page,
    values::to_usize,
};

/// A value that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Its entry in the page.
    pub(super) entry: usize,
    /// The how many-th it is of all values of the entries.
    pub(super) value: usize,
    /// Its owner; none when the entries begin in the middle of one.
    pub(super) owner: Option<u32>,
    /// Where it is in rows, if that was asked: its row and the values of the entries before that row.
    pub(super) row: Option<(u32, usize)>,
}

/// Where the walk begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// Repetition and definition level at which owners begin.
    pub(super) level: u8,
    /// Definition level of a value.
    pub(super) max_def: u8,
    /// Number of the first owner that begins here, and of the first row.
    pub(super) owner: u32,
    pub(super) row: u32,
}

/// Calls `each` with those values of `entries` that are `wanted`, in order; answers the number of the owner that would begin next.
/// With `ROWS` it says for each which row it is in.
pub(super) fn walk<const ROWS: bool>(
    page: &Page,
    entries: Range<usize>,
    start: Start,
    wanted: &Bitmap,
    mut each: impl FnMut(Found),
) -> u32 {
    let Start { level, max_def, owner, row } = start;
    let (mut owners, mut rows, mut values) = (0, 0, 0);
    // Values before the row that the walk is in.
    let mut before_row = 0;
    for (block, within) in blocks(entries) {
        let begun = page.beginning(block, (level, level)) & within;
        let present = page.def.at_least(block, max_def) & within;
        let first_of_row = if ROWS { page.rep.at_most(block, 0) & within } else { 0 };
        let row_at = |bit: usize| {
            let first = first_of_row & through(bit);
            let value = if first == 0 { before_row } else { values + ones_in(present & below(last(first))) };
            (rows + ones_in(first), value)
        };
        let count = ones_in(present);
        let here = wanted.word_at(values) & low_ones(count);
        if here != 0 {
            for bit in ones(deposit(here, present)) {
                let (row_number, row_value) = row_at(bit);
                each(Found {
                    entry: block * BLOCK + bit,
                    value: values + ones_in(present & below(bit)),
                    owner: nth(owner, owners + ones_in(begun & through(bit))),
                    row: nth(row, row_number).filter(|_| ROWS).map(|row| (row, row_value)),
                });
            }
        }
        if ROWS {
            (rows, before_row) = row_at(BLOCK - 1);
        }
        owners += ones_in(begun);
        values += count;
    }
    owner.saturating_add(number(owners))
}

/// The number of the latest of `begun` that began, the first of which is `first`.
#[inline]
fn nth(first: u32, begun: usize) -> Option<u32> {
    begun.checked_sub(1).map(|before| first.saturating_add(number(before)))
}

#[inline]
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The highest bit of a word that has one.
#[inline]
fn last(word: u64) -> usize {
    BLOCK - 1 - to_usize(word.leading_zeros())
}

/// Counts the values before entries, going forward only.
pub(super) struct Ranks<'p> {
    def: &'p Levels,
    max_def: u8,
    /// The block that the walk is in, its values, and those before it.
    block: usize,
    present: u64,
    before: usize,
}

impl<'p> Ranks<'p> {
    pub(super) fn new(page: &'p Page, max_def: u8) -> Self {
        Self { def: &page.def, max_def, block: 0, present: page.def.at_least(0, max_def), before: 0 }
    }

    /// Goes on from an entry before which there are so many values.
    pub(super) fn jump(&mut self, entry: usize, values: usize) {
        self.block = entry / BLOCK;
        self.present = self.def.at_least(self.block, self.max_def);
        self.before = values.saturating_sub(ones_in(self.present & below(entry % BLOCK)));
    }

    /// Which value the entry has, none when it has no value.
    pub(super) fn value_of(&mut self, entry: usize) -> Option<usize> {
        if entry >= self.def.len() {
            return None;
        }
        while self.block < entry / BLOCK {
            self.before += ones_in(self.present);
            self.block += 1;
            self.present = self.def.at_least(self.block, self.max_def);
        }
        let bit = entry % BLOCK;
        (self.present >> bit & 1 == 1).then(|| self.before + ones_in(self.present & below(bit)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read::{page::tests::levels, source::nesting::prefix};

    proptest! {
        /// As a walk entry by entry finds it.
        #[test]
        fn values_come_with_their_owners_and_rows(
            (rep, def, max) in levels(), level in 0u8..5, dense in 1usize..9, from in 0usize..300, len in 0usize..900,
        ) {
            let page = Page::of_levels(&rep, &def, max);
            let entries = from.min(rep.len())..(from + len).min(rep.len());
            let (mut owner, mut row, mut values, mut before_row) = (7, 100, 0, 0);
            let mut due = Vec::new();
            let mut wanted = Bitmap::default();
            for entry in entries.clone() {
                if rep[entry] == 0 {
                    (row, before_row) = (row + 1, values);
                }
                owner += u32::from(rep[entry] <= level && def[entry] >= level);
                if def[entry] == max.1 {
                    wanted.push((entry * 7 + 3) % dense == 0);
                    if wanted.get(values) {
                        let begun = |next: u32, first: u32| (next > first).then(|| next - 1);
                        let row = begun(row, 100).map(|row| (row, before_row));
                        due.push(Found { entry, value: values, owner: begun(owner, 7), row });
                    }
                    values += 1;
                }
            }
            let start = Start { level, max_def: max.1, owner: 7, row: 100 };
            let mut found = Vec::new();
            prop_assert_eq!(walk::<true>(&page, entries.clone(), start, &wanted, |value| found.push(value)), owner);
            prop_assert_eq!(&found, &due);
            found.clear();
            prop_assert_eq!(walk::<false>(&page, entries, start, &wanted, |value| found.push(value)), owner);
            due.iter_mut().for_each(|value| value.row = None);
            prop_assert_eq!(found, due);
        }

        #[test]
        fn entries_know_their_values_and_units_are_counted((rep, def, max) in levels(), step in 1usize..200, level in 0u8..5) {
            let page = Page::of_levels(&rep, &def, max);
            let value_of = |entry: usize| {
                let before = def[..entry].iter().filter(|def| **def == max.1).count();
                (def[entry] == max.1).then_some(before)
            };
            let mut ranks = Ranks::new(&page, max.1);
            for entry in (0..rep.len()).step_by(step) {
                prop_assert_eq!(ranks.value_of(entry), value_of(entry));
                let mut jumped = Ranks::new(&page, max.1);
                let to = entry - entry % (step * 3);
                jumped.jump(to, def[..to].iter().filter(|def| **def == max.1).count());
                prop_assert_eq!(jumped.value_of(entry), value_of(entry));
            }
            prop_assert_eq!(ranks.value_of(rep.len()), None);
            let begins = |entry: usize, level: u8| rep[entry] <= level && def[entry] >= level;
            let outer = (0..rep.len()).filter(|entry| begins(*entry, level)).chain([rep.len()]);
            let due: Vec<usize> = outer.map(|end| (0..end).filter(|entry| begins(*entry, level + 1)).count()).collect();
            let counts = prefix(&page, (level, level), (level + 1, level + 1));
            prop_assert_eq!(counts.iter().map(|count| to_usize(*count)).collect::<Vec<_>>(), due);
        }
    }
}

//! Where the attributes with one key are, and the values that they have in the typed columns beside the keys.

use std::sync::Arc;

use vivace_traceql::Bitmap;

use super::{
    group::Group,
    nesting::{Nesting, Owner},
    places::Generic,
    select::{few, runs, span_of},
    walk::{Ranks, Start, walk},
};
use crate::read::{
    cursor::inconsistent,
    error::Result,
    page::{Page, RowSpan},
    rows::RowSet,
    values::{Values, to_usize},
};

/// An attribute with the wanted key: which row it is in, the how many-th of the row, and its owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    pub(super) row: u32,
    pub(super) nth: u32,
    pub(super) owner: u32,
    /// Its entry in the page of the keys.
    pub(super) entry: u32,
}

/// Attributes with one key, in order.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pub(super) list: Vec<Hit>,
    /// The pages of keys that were looked at: first row, row after the last, entries.
    pub(super) pages: Vec<(u32, u32, usize)>,
}

/// The id of the entry that is this key, none when the dictionary does not have it.
pub(super) fn key_id(dictionary: Option<&Values>, name: &[u8]) -> Option<u32> {
    let Some(Values::Bytes(entries)) = dictionary else { return None };
    (0u32..).zip(entries.iter()).find(|(_, key)| *key == name).map(|(id, _)| id)
}

/// All attributes with the key of `generic` in `rows`.
pub(super) fn hits(
    group: &mut Group<'_>,
    nesting: &Arc<Nesting>,
    owner: Owner,
    generic: &Generic,
    rows: &RowSet,
) -> Result<Hits> {
    let leaf = generic.leaves.key;
    let dictionary = group.dictionary(leaf)?;
    let key = key_id(dictionary.as_deref(), &generic.name);
    let mut hits = Hits::default();
    if dictionary.is_some() && key.is_none() {
        return Ok(hits);
    }
    let max_def = group.block().shape(leaf)?.max_def;
    let level = owner.level();
    let all = rows.len() == group.rows;
    let few = few(rows, group.rows);
    group.pages(leaf, rows, |page| {
        let end_row = page.first_row + u32::try_from(page.rows()).unwrap_or(0);
        hits.pages.push((page.first_row, end_row, page.len));
        for run in runs(page, rows, few) {
            let RowSpan { entries, values } = if few {
                span_of(page, &run, max_def)
            } else {
                RowSpan { entries: 0..page.len, values: 0..page.values.len() }
            };
            let wanted = match (&page.values, key) {
                (Values::Ids(ids), Some(key)) => ids.equal(values, i64::from(key)),
                (Values::Bytes(texts), _) => Bitmap::from_fn(values.len(), |at| {
                    texts.get(values.start + at).is_some_and(|text| *text == *generic.name)
                }),
                _ => continue,
            };
            if !wanted.any() {
                continue;
            }
            let (first, end) = (nesting.first(owner, run.start), nesting.first(owner, run.end));
            let start = Start { level, max_def, owner: first, row: run.start };
            let next = walk::<true>(page, entries, start, &wanted, |found| {
                if let (Some(owner), Some((row, before))) = (found.owner, found.row)
                    && (few || all || rows.contains(row))
                {
                    let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
                    hits.list.push(Hit { row, nth: number(found.value - before), owner, entry: number(found.entry) });
                }
            });
            if next != end {
                return Err(inconsistent());
            }
        }
        Ok(())
    })?;
    Ok(hits)
}

/// The values that each hit has in a typed column: calls `each` with the page, the number of the hit and its range of values.
pub(super) fn hit_values(
    group: &mut Group<'_>,
    leaf: usize,
    attribute_level: u8,
    hits: &Hits,
    mut each: impl FnMut(&Arc<Page>, usize, std::ops::Range<usize>),
) -> Result<()> {
    let mut rows = RowSet::default();
    let list = &hits.list;
    list.iter().for_each(|hit| rows.push(hit.row));
    let max_def = group.block().shape(leaf)?.max_def;
    let mut next = 0;
    group.pages(leaf, &rows, |page| {
        let end_row = page.first_row + u32::try_from(page.rows()).unwrap_or(0);
        let until = next + list[next..].partition_point(|hit| hit.row < end_row);
        if page.values.len() == 0 {
            next = until;
            return Ok(());
        }
        // With as many entries as the page of keys of the same rows, every attribute has exactly one: no array among them.
        if hits.pages.binary_search(&(page.first_row, end_row, page.len)).is_ok() {
            let mut ranks = Ranks::new(page, max_def);
            let jumps = (until - next) * 4 < page.rows();
            while next < until {
                let Hit { row, entry, .. } = list[next];
                if jumps {
                    let place = span_of(page, &(row..row + 1), max_def);
                    ranks.jump(place.entries.start, place.values.start);
                }
                if let Some(value) = ranks.value_of(to_usize(entry)) {
                    each(page, next, value..value + 1);
                }
                next += 1;
            }
            return Ok(());
        }
        let mut walk = AttributeWalk::new(page, attribute_level, max_def);
        while next < until {
            let range = walk.values_of(&list[next]).ok_or_else(inconsistent)?;
            if !range.is_empty() {
                each(page, next, range);
            }
            next += 1;
        }
        Ok(())
    })
}

/// Finds the values of attributes in the page of a typed column, going forward only.
struct AttributeWalk<'p> {
    page: &'p Page,
    level: u8,
    max_def: u8,
    /// The row that the walk is in, the entry it has come to and the values before that.
    row: u32,
    entry: usize,
    value: usize,
    /// Attributes of the row that lie behind the walk.
    passed: u32,
}

impl<'p> AttributeWalk<'p> {
    fn new(page: &'p Page, level: u8, max_def: u8) -> Self {
        Self { page, level, max_def, row: page.first_row, entry: 0, value: 0, passed: 0 }
    }

    /// Values of the hit, none when the page does not have so many rows or attributes. Hits come in order.
    fn values_of(&mut self, hit: &Hit) -> Option<std::ops::Range<usize>> {
        if self.row < hit.row {
            self.go_to_row(hit.row)?;
        }
        // The walk stands before an attribute, or at the start of the row.
        while self.passed < hit.nth {
            self.pass_attribute()?;
        }
        self.pass_attribute()
    }

    fn go_to_row(&mut self, row: u32) -> Option<()> {
        if to_usize(row.checked_sub(self.page.first_row)?) >= self.page.rows() {
            return None;
        }
        let place = span_of(self.page, &(row..row + 1), self.max_def);
        (self.entry, self.value) = (place.entries.start, place.values.start);
        (self.row, self.passed) = (row, 0);
        Some(())
    }

    /// Steps over the next attribute of the row.
    fn pass_attribute(&mut self) -> Option<std::ops::Range<usize>> {
        let (rep, def) = (&self.page.rep, &self.page.def);
        if self.passed > 0 && rep.get(self.entry)? == 0 {
            return None;
        }
        // Owners without attributes have one entry that is none.
        loop {
            if def.get(self.entry)? >= self.level {
                break;
            }
            self.entry += 1;
            if rep.get(self.entry)? == 0 {
                return None;
            }
        }
        let start = self.value;
        loop {
            self.value += usize::from(def.get(self.entry)? == self.max_def);
            self.entry += 1;
            if rep.get(self.entry).is_none_or(|rep| rep <= self.level) {
                break;
            }
        }
        self.passed += 1;
        Some(start..self.value)
    }
}

//! Which spans of a row start when: for reading a large trace page by page, and of its rows only those that have some of the page.

use std::{collections::BTreeMap, ops::RangeInclusive};

use parking_lot::Mutex;

use super::{
    ColumnRows,
    block::OpenBlock,
    cursor::inconsistent,
    error::Result,
    find::TraceRow,
    values::{Values, to_usize},
};

/// All spans, whenever they start.
pub(crate) const ANY_START: RangeInclusive<u64> = 0..=u64::MAX;

/// A page of a trace: the spans that start at some time, and of those that start later the first so many. Whoever has a part of the
/// trace says when its spans start, and brings the page's end forward to where all parts together fill it at the latest; what starts behind
/// the end is on no account on the page.
#[derive(Debug)]
pub struct PageStarts {
    from: u64,
    count: usize,
    told: Mutex<Told>,
}

/// Spans that start later than the page begins.
#[derive(Debug, Default)]
struct Told {
    /// At least so many start at each time: the most that one part has told, because others may have the same spans.
    spans: BTreeMap<u64, usize>,
    total: usize,
}

impl PageStarts {
    /// A page of which nothing has been told.
    #[must_use]
    pub fn new(from: u64, count: usize) -> Self {
        Self { from, count, told: Mutex::default() }
    }

    /// Between which times its spans start, by what has been told so far.
    #[must_use]
    pub fn starts(&self) -> RangeInclusive<u64> {
        let told = self.told.lock();
        let full = told.spans.last_key_value().filter(|_| told.total >= self.count);
        self.from..=full.map_or(u64::MAX, |(last, _)| *last)
    }

    /// A part of the trace has spans that start at these times, which ascend and are later than the page's begin, each span once. The first
    /// as many as the page has are enough.
    pub fn holds(&self, starts: &[u64]) {
        let mut told = self.told.lock();
        let Told { spans, total } = &mut *told;
        for alike in starts.chunk_by(|a, b| a == b) {
            let known = spans.entry(alike[0]).or_default();
            let more = alike.len().saturating_sub(*known);
            *known += more;
            *total += more;
        }
        // What is behind the end is not needed.
        while let Some(last) = spans.last_entry() {
            let left = total.saturating_sub(*last.get());
            if left < self.count {
                break;
            }
            last.remove();
            *total = left;
        }
    }

    /// When the first span of a row starts that may be on the page, if there is one; tells of the row what [`Self::holds`] wants. A span
    /// that stands in the row several times counts once. One column is read, and where spans start at the same time those that tell them
    /// apart.
    ///
    /// # Errors
    /// The block cannot be read.
    pub fn first_of(&self, block: &OpenBlock, row: TraceRow) -> Result<Option<u64>> {
        let mut column = ColumnRows::new(block, block.schema().columns().span.start)?;
        let stored = column.at(row.group, row.row, 1)?;
        let Values::Ints(starts) = &stored.page.values else { return Err(inconsistent()) };
        // What is known to be behind the end does not bring it forward.
        let last = *self.starts().end();
        let mut later = Vec::new();
        let mut first: Option<u64> = None;
        for (nth, at) in stored.span.values.clone().enumerate() {
            let start = starts.get(at).ok_or_else(inconsistent)?.cast_unsigned();
            if start >= self.from {
                first = Some(first.map_or(start, |first| first.min(start)));
            }
            if start > self.from && start <= last {
                later.push((start, nth));
            }
        }
        self.holds(&first_starts(later, self.count, || identities(block, row))?);
        Ok(first)
    }
}

/// What tells spans apart that start at the same time: their ids and kinds.
type Identity = (Box<[u8]>, i64);

/// Of all spans of a row.
fn identities(block: &OpenBlock, row: TraceRow) -> Result<Vec<Identity>> {
    let columns = &block.schema().columns().span;
    let mut kinds = ColumnRows::new(block, columns.kind)?;
    let kinds = kinds.at(row.group, row.row, 1)?;
    let Values::Ints(numbers) = &kinds.page.values else { return Err(inconsistent()) };
    let mut ids = ColumnRows::new(block, columns.span_id)?;
    let ids = ids.at(row.group, row.row, 1)?;
    let id = |at: usize| match &ids.page.values {
        Values::Bytes(texts) => texts.get(at),
        Values::Ids(numbers) => numbers.id(at).and_then(|entry| ids.dictionary?.get(to_usize(entry))),
        Values::Ints(_) | Values::Doubles(_) | Values::Bools(_) => None,
    };
    let both = ids.span.values.clone().zip(kinds.span.values.clone());
    both.map(|(at, kind)| Some((id(at)?.into(), numbers.get(kind)?))).collect::<Option<_>>().ok_or_else(inconsistent)
}

/// When the first `count` spans start, of `later`: starts and places in the row.
fn first_starts(
    mut later: Vec<(u64, usize)>,
    count: usize,
    identities: impl FnOnce() -> Result<Vec<Identity>>,
) -> Result<Vec<u64>> {
    let (mut identities, mut known, mut taken) = (Some(identities), Vec::new(), count);
    loop {
        let some = if taken < later.len() { later.select_nth_unstable(taken).0 } else { &mut later[..] };
        some.sort_unstable();
        if some.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            return Ok(some.iter().take(count).map(|(start, _)| *start).collect());
        }
        if let Some(read) = identities.take() {
            known = read()?;
        }
        let mut apart: Vec<_> = some.iter().map(|(start, nth)| (*start, known.get(*nth))).collect();
        apart.sort_unstable();
        apart.dedup();
        if apart.len() >= count || taken >= later.len() {
            return Ok(apart.iter().take(count).map(|(start, _)| *start).collect());
        }
        taken = taken.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests;

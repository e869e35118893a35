//! In which order the rows of a row group are looked at and delivered: as they stand, or from the newest trace on.
//!
//! Newest first, nothing is sorted or looked at before it must be: rows wait in a [`Pool`], of which the newest are taken,
//! selected, and delivered through a [`Queue`]; a query that is content with the first has paid for no more.

use vivace_traceql::Bitmap;

use super::{
    columns::row_ints,
    group::Group,
    nesting::{Nesting, Owner},
};
use crate::read::{error::Result, rows::RowSet, values::to_usize};

/// A batch ends with the row that brings it to this many spans.
const BATCH_SPANS: usize = 32 * 1024;
/// Rows that are looked at first when the newest are wanted; each later round takes this many times more. Looking at few rows
/// costs the pages all the same, so that many rounds would cost more than they save.
const SELECTED_ROWS: usize = 256;
const SELECTED_GROWTH: usize = 16;
/// The same where it is known which rows can hold what is asked for: most do, and each may cost pages.
const NARROWED_ROWS: usize = 32;
const NARROWED_GROWTH: usize = 2;
/// Rows in the first batch when the newest are wanted; each later one has this many times more.
const NEWEST_ROWS: usize = 64;
const NEWEST_GROWTH: usize = 8;

/// Rows of one row group that wait, with what of them was chosen.
pub(super) struct Queue {
    order: Order,
    /// The chosen spans, none when all spans of the rows are.
    spans: Option<Bitmap>,
}

/// Rows of one row group that nobody has looked at yet, with their starts.
pub(super) struct Pool {
    rows: Vec<(u64, u32)>,
    size: usize,
    growth: usize,
    /// Whether these are the rows that can hold what is asked for, no others.
    pub(super) narrowed: bool,
    /// Whether rows were dropped as too old.
    pub(super) dropped: bool,
}

impl Pool {
    pub(super) fn empty() -> Self {
        Self { rows: Vec::new(), size: 0, growth: 1, narrowed: false, dropped: false }
    }

    /// All `rows`; reads when they start. With `at_once` the first take is all of them; where rows were `narrowed` down to those that
    /// can hold what is asked for, it is few.
    pub(super) fn new(group: &mut Group<'_>, rows: &RowSet, at_once: bool, narrowed: bool) -> Result<Self> {
        let starts = row_ints(group, group.columns.trace.start, rows)?;
        let mut started = Vec::with_capacity(starts.len());
        started.extend(starts.into_iter().map(i64::cast_unsigned).zip(rows.iter()));
        let (size, growth) = if narrowed { (NARROWED_ROWS, NARROWED_GROWTH) } else { (SELECTED_ROWS, SELECTED_GROWTH) };
        let size = if at_once { usize::MAX } else { size };
        Ok(Self { rows: started, size, growth, narrowed, dropped: false })
    }

    /// The rows, with their starts, in any order.
    pub(super) fn rows(&self) -> &[(u64, u32)] {
        &self.rows
    }

    /// Keeps the rows that start at `from` or later, to be taken at once; the others are given back.
    pub(super) fn split(&mut self, from: u64) -> Self {
        let newest = self.rows.iter().filter(|(start, _)| *start >= from).copied().collect();
        self.rows.retain(|(start, _)| *start < from);
        let rest = std::mem::replace(&mut self.rows, newest);
        let size = std::mem::replace(&mut self.size, usize::MAX);
        let (growth, narrowed) = (self.growth, self.narrowed);
        Self { rows: rest, size: size.saturating_mul(growth), growth, narrowed, dropped: false }
    }

    /// Drops the rows that start before `floor`; true when none is left.
    pub(super) fn ends_at(&mut self, floor: u64) -> bool {
        let before = self.rows.len();
        self.rows.retain(|(start, _)| *start >= floor);
        self.dropped |= self.rows.len() < before;
        self.rows.is_empty()
    }

    /// The newest rows, ascending, with their starts; more from time to time, for who has not found enough among the first.
    pub(super) fn take(&mut self, floor: u64) -> Vec<(u64, u32)> {
        self.ends_at(floor);
        let wanted = self.size.min(self.rows.len());
        self.size = self.size.saturating_mul(self.growth);
        let rest = if wanted < self.rows.len() {
            self.rows.select_nth_unstable_by(wanted, |a, b| b.cmp(a));
            self.rows.split_off(wanted)
        } else {
            Vec::new()
        };
        let mut taken = std::mem::replace(&mut self.rows, rest);
        taken.sort_unstable_by_key(|(_, row)| *row);
        taken
    }
}

enum Order {
    /// Ascending, from the second on.
    AsStored(Vec<u32>, usize),
    /// Starts and rows in any order, and the size of the next batch.
    NewestFirst(Vec<(u64, u32)>, usize),
}

impl Queue {
    pub(super) fn empty() -> Self {
        Self { order: Order::AsStored(Vec::new(), 0), spans: None }
    }

    /// All `rows` in the order of the file.
    pub(super) fn as_stored(rows: &RowSet, spans: Option<Bitmap>) -> Self {
        Self { order: Order::AsStored(rows.iter().collect(), 0), spans }
    }

    /// These rows, with their starts, from the newest on.
    pub(super) fn newest_first(rows: Vec<(u64, u32)>, spans: Option<Bitmap>) -> Self {
        Self { order: Order::NewestFirst(rows, NEWEST_ROWS), spans }
    }

    /// The next rows, ascending, at most `most` of them; those that start before `floor` are dropped, if starts are known.
    pub(super) fn next(&mut self, nesting: &Nesting, floor: u64, most: usize) -> Vec<u32> {
        match &mut self.order {
            Order::AsStored(rows, at) => {
                let from = *at;
                let mut spans = 0;
                while *at < rows.len() && spans < BATCH_SPANS && *at - from < most {
                    spans += nesting.spans_of(Owner::Row, rows[*at]).len();
                    *at += 1;
                }
                rows[from..*at].to_vec()
            }
            Order::NewestFirst(left, size) => {
                left.retain(|(start, _)| *start >= floor);
                let wanted = (*size).min(most);
                if left.len() > wanted {
                    left.select_nth_unstable_by(wanted, |a, b| b.cmp(a));
                }
                let end = wanted.min(left.len());
                left[..end].sort_unstable_by(|a, b| b.cmp(a));
                let mut spans = 0;
                let fitting = left[..end].iter().take_while(|(_, row)| {
                    let room = spans < BATCH_SPANS;
                    spans += nesting.spans_of(Owner::Row, *row).len();
                    room
                });
                let taken = fitting.count();
                let mut rows: Vec<u32> = left.drain(..taken).map(|(_, row)| row).collect();
                rows.sort_unstable();
                *size = size.saturating_mul(NEWEST_GROWTH);
                rows
            }
        }
    }

    /// The chosen spans of `rows`.
    pub(super) fn spans(&self, nesting: &Nesting, rows: &[u32]) -> Vec<u32> {
        let mut spans = Vec::new();
        for row in rows {
            let range = nesting.spans_of(Owner::Row, *row);
            match &self.spans {
                None => spans.extend(range),
                Some(chosen) => {
                    let ones = chosen.ones_in(to_usize(range.start), to_usize(range.end));
                    spans.extend(ones.map(|span| u32::try_from(span).unwrap_or(u32::MAX)));
                }
            }
        }
        spans
    }
}

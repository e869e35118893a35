//! Events and links of chosen spans: their rows are walked, and nothing else of a page.

use std::ops::Range;

use super::{
    group::bounds,
    nesting::{Nesting, Owner},
    select::span_of,
};
use crate::read::{cursor::inconsistent, error::Result, page::Page};

/// Levels at which spans and their events or links begin.
const SPAN: u8 = 3;
const CHILD: u8 = 4;

/// An event or link in the page of one of its columns.
pub(super) struct Child {
    /// Which of the chosen spans it belongs to.
    pub(super) span: usize,
    pub(super) row: u32,
    /// Values of the page before the row.
    pub(super) before_row: usize,
    /// Its own values.
    pub(super) values: Range<usize>,
}

/// Calls `each` with the children of those `spans` (ascending) that are in the page, in order. `max_def` is the level of a value.
pub(super) fn each_child(
    page: &Page,
    nesting: &Nesting,
    spans: &[u32],
    max_def: u8,
    mut each: impl FnMut(Child) -> Result<()>,
) -> Result<()> {
    let (first, end) = bounds(page, nesting, Owner::Span);
    let mut at = spans.partition_point(|span| *span < first);
    let to = spans.partition_point(|span| *span < end);
    let mut row = page.first_row;
    while at < to {
        row = nesting.row_of(spans[at], row);
        let own = nesting.spans_of(Owner::Row, row);
        if !own.contains(&spans[at]) {
            return Err(inconsistent());
        }
        let place = span_of(page, &(row..row + 1), max_def);
        let before_row = place.values.start;
        // One past the span that the walk is in, and the first value of the child that it is in.
        let (mut next, mut value, mut open) = (own.start, before_row, None);
        for (rep, def) in page.levels(place.entries) {
            if rep <= CHILD
                && let Some(start) = open.take()
            {
                each(Child { span: at, row, before_row, values: start..value })?;
            }
            if rep <= SPAN && def >= SPAN {
                next += 1;
                while at < to && spans[at] + 1 < next {
                    at += 1;
                }
            }
            if rep <= CHILD && def >= CHILD && at < to && spans[at] + 1 == next {
                open = Some(value);
            }
            value += usize::from(def == max_def);
        }
        if let Some(start) = open {
            each(Child { span: at, row, before_row, values: start..value })?;
        }
        if next != own.end {
            return Err(inconsistent());
        }
        while at < to && spans[at] < own.end {
            at += 1;
        }
    }
    Ok(())
}

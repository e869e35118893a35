//! The tree of a trace whose spans are in several rows.

use super::{
    super::{
        group::{bounds, text},
        nesting::Owner,
    },
    Part,
};
use crate::{
    read::{
        cursor::inconsistent,
        error::Result,
        values::{Values, to_usize},
    },
    write::{NestedSet, Place, Position},
};

/// Where each span of some parts is in the tree of all.
pub(super) struct Tree {
    /// Where the spans of each part begin.
    starts: Vec<usize>,
    positions: Vec<Position>,
}

impl Tree {
    pub(super) fn of(parts: &[Part]) -> Result<Self> {
        let (mut starts, mut places) = (Vec::with_capacity(parts.len()), Vec::new());
        for part in parts {
            starts.push(places.len());
            add_places(part, &mut places)?;
        }
        let mut positions = Vec::new();
        NestedSet::default().number(&places, &mut positions);
        Ok(Self { starts, positions })
    }

    /// The positions of spans of a part, of which `first` is the first.
    pub(super) fn of_spans<'t>(
        &'t self,
        part: usize,
        first: u32,
        spans: &'t [u32],
    ) -> impl Iterator<Item = Position> + 't {
        let start = self.starts.get(part).copied().unwrap_or(usize::MAX);
        let at = move |span: &u32| start.saturating_add(to_usize(span.saturating_sub(first)));
        spans.iter().map(move |span| self.positions.get(at(span)).copied().unwrap_or_default())
    }
}

/// Reads what decides where the spans of a part are in a tree.
fn add_places(part: &Part, places: &mut Vec<Place>) -> Result<()> {
    let (mut group, rows) = (part.open()?, part.rows());
    let nesting = group.nesting()?;
    let spans = nesting.spans_of(Owner::Row, part.row.row);
    let columns = &group.columns.span;
    let (ids, parents, kinds) = (columns.span_id, columns.parent_span_id, columns.kind);
    let before = places.len();
    let within = |first: u32, end: u32| {
        let (from, to) = (spans.start.max(first), spans.end.min(end));
        (from..to).map(move |span| (to_usize(span - spans.start), to_usize(span - first)))
    };
    for leaf in [ids, parents] {
        let dictionary = group.dictionary(leaf)?;
        group.pages(leaf, &rows, |page| {
            let (first, end) = bounds(page, &nesting, Owner::Span);
            for (place, at) in within(first, end) {
                let id = text(page, dictionary.as_deref(), at).ok_or_else(inconsistent)?;
                if leaf == ids {
                    places.push(Place::new(id, &[], 0));
                } else {
                    places.get_mut(before + place).ok_or_else(inconsistent)?.set_parent(id);
                }
            }
            Ok(())
        })?;
    }
    group.pages(kinds, &rows, |page| {
        let Values::Ints(values) = &page.values else { return Err(inconsistent()) };
        let (first, end) = bounds(page, &nesting, Owner::Span);
        for (place, at) in within(first, end) {
            let kind = values.get(at).ok_or_else(inconsistent)?;
            places.get_mut(before + place).ok_or_else(inconsistent)?.set_kind(kind.cast_unsigned());
        }
        Ok(())
    })?;
    if places.len() - before == spans.len() { Ok(()) } else { Err(inconsistent()) }
}

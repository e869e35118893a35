//! How many batches, scopes and spans each row of a row group has: with it, the n-th value of a column names its span.

use std::{ops::Range, sync::Arc};

use crate::read::{
    error::{Error, Result},
    page::Page,
    rows::RowSet,
    values::{Values, to_usize},
};

/// Levels of the data model that own values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Row,
    Resource,
    Scope,
    Span,
    Event,
    Link,
}

impl Owner {
    /// Repetition and definition level at which an owner begins.
    pub(super) fn level(self) -> u8 {
        match self {
            Self::Row => 0,
            Self::Resource => 1,
            Self::Scope => 2,
            Self::Span => 3,
            Self::Event | Self::Link => 4,
        }
    }
}

/// Prefix counts: the batches of row `r` are `row_resources[r]..row_resources[r + 1]`, and so on downwards.
#[derive(Debug)]
pub(super) struct Nesting {
    row_resources: Vec<u32>,
    resource_scopes: Vec<u32>,
    scope_spans: Vec<u32>,
    /// Derived: the spans of row `r` (batch `r`) are `row_spans[r]..row_spans[r + 1]`.
    row_spans: Vec<u32>,
    resource_spans: Vec<u32>,
}

fn malformed() -> Error {
    Error::malformed("row group", "more spans than its columns have values")
}

/// Collects a [`Nesting`] from the pages of one column in order.
pub(super) struct Builder {
    nesting: Nesting,
    spans: u32,
    limit: u32,
}

impl Builder {
    /// `limit` is how many spans the row group can have at most.
    pub(super) fn new(limit: u64) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let nesting = Nesting {
            row_resources: Vec::new(),
            resource_scopes: Vec::new(),
            scope_spans: Vec::new(),
            row_spans: Vec::new(),
            resource_spans: Vec::new(),
        };
        Self { nesting, spans: 0, limit }
    }

    /// Adds a page of a column that has one value for each scope (its number of spans) or for each span.
    pub(super) fn add(&mut self, page: &Page, per_span: bool) -> Result<()> {
        let Values::Ints(values) = &page.values else { return Err(malformed()) };
        let mut values = values.iter();
        for (rep, def) in page.rep.iter().zip(&page.def) {
            let nesting = &mut self.nesting;
            if *rep == 0 {
                nesting.row_resources.push(len(&nesting.resource_scopes));
            }
            if *rep <= 1 && *def >= 1 {
                nesting.resource_scopes.push(len(&nesting.scope_spans));
            }
            if *rep <= 2 && *def >= 2 {
                nesting.scope_spans.push(self.spans);
            }
            let more = match (per_span, def) {
                (true, 3) => 1,
                (false, 2) => values.next().and_then(|count| u32::try_from(count).ok()).ok_or_else(malformed)?,
                _ => 0,
            };
            self.spans = self.spans.checked_add(more).filter(|spans| *spans <= self.limit).ok_or_else(malformed)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self, rows: u32) -> Result<Nesting> {
        let nesting = &mut self.nesting;
        if nesting.row_resources.len() != to_usize(rows) {
            return Err(Error::malformed("row group", "columns have other numbers of rows"));
        }
        nesting.row_resources.push(len(&nesting.resource_scopes));
        nesting.resource_scopes.push(len(&nesting.scope_spans));
        nesting.scope_spans.push(self.spans);
        nesting.resource_spans = nesting.resource_scopes.iter().map(|scope| at(&nesting.scope_spans, *scope)).collect();
        nesting.row_spans = nesting.row_resources.iter().map(|of| at(&nesting.resource_spans, *of)).collect();
        Ok(self.nesting)
    }
}

fn len(list: &[u32]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

impl Nesting {
    /// Memory held.
    pub(super) fn memory(&self) -> usize {
        let lists =
            [&self.row_resources, &self.resource_scopes, &self.scope_spans, &self.row_spans, &self.resource_spans];
        size_of::<Self>() + lists.iter().map(|list| list.capacity() * size_of::<u32>()).sum::<usize>()
    }

    /// Spans of the row group.
    pub(super) fn spans(&self) -> usize {
        self.scope_spans.last().map_or(0, |spans| to_usize(*spans))
    }

    /// The first owner of this kind at or after the start of `row`.
    pub(super) fn first(&self, owner: Owner, row: u32) -> u32 {
        match owner {
            Owner::Row => row,
            Owner::Resource => at(&self.row_resources, row),
            Owner::Scope => at(&self.resource_scopes, at(&self.row_resources, row)),
            Owner::Span | Owner::Event | Owner::Link => at(&self.row_spans, row),
        }
    }

    /// How many spans the rows of a range have.
    pub(super) fn spans_between(&self, rows: &Range<u32>) -> u64 {
        u64::from(self.first(Owner::Span, rows.end).saturating_sub(self.first(Owner::Span, rows.start)))
    }

    /// The spans below one owner.
    pub(super) fn spans_of(&self, owner: Owner, number: u32) -> Range<u32> {
        match self.starts(owner) {
            Some(starts) => at(starts, number)..at(starts, number.saturating_add(1)),
            None => number..number.saturating_add(1),
        }
    }

    /// The owner of this kind above each of `spans` (ascending): the distinct owners, and for each span the position among them.
    pub(super) fn owners(&self, owner: Owner, spans: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let Some(starts) = self.starts(owner) else { return (spans.to_vec(), (0..len(spans)).collect()) };
        let (mut owners, mut places) = (Vec::new(), Vec::with_capacity(spans.len()));
        if let Some(all) = side_by_side(spans) {
            let (mut span, mut number) = (all.start, 0);
            while span < all.end {
                number = last_upto(starts, number, span);
                let end = starts.get(number + 1).map_or(all.end, |end| (*end).min(all.end));
                places.resize(places.len() + to_usize(end - span), len(&owners));
                owners.push(u32::try_from(number).unwrap_or(u32::MAX));
                span = end;
            }
            return (owners, places);
        }
        let (mut number, mut end) = (0, 0);
        for span in spans {
            if owners.is_empty() || *span >= end {
                number = last_upto(starts, number, *span);
                end = starts.get(number + 1).copied().unwrap_or(u32::MAX);
                owners.push(u32::try_from(number).unwrap_or(u32::MAX));
            }
            places.push(len(&owners) - 1);
        }
        (owners, places)
    }

    /// The row of a span, which is at or after the row `from`.
    pub(super) fn row_of(&self, span: u32, from: u32) -> u32 {
        u32::try_from(last_upto(&self.row_spans, to_usize(from), span)).unwrap_or(u32::MAX)
    }

    /// First span of each owner, none where a span is its own owner.
    fn starts(&self, owner: Owner) -> Option<&[u32]> {
        match owner {
            Owner::Row => Some(&self.row_spans),
            Owner::Resource => Some(&self.resource_spans),
            Owner::Scope => Some(&self.scope_spans),
            Owner::Span | Owner::Event | Owner::Link => None,
        }
    }

    /// The rows of `spans` (ascending).
    pub(super) fn rows(&self, spans: &[u32]) -> RowSet {
        let mut rows = RowSet::default();
        let gapless = side_by_side(spans).is_some();
        let (mut at, mut row) = (0, 0);
        while let Some(span) = spans.get(at) {
            row = last_upto(&self.row_spans, row, *span);
            let end = self.row_spans.get(row + 1).copied().unwrap_or(u32::MAX);
            rows.push(u32::try_from(row).unwrap_or(u32::MAX));
            at +=
                if gapless { to_usize(end - span) } else { spans[at..].iter().take_while(|span| **span < end).count() };
        }
        rows
    }
}

/// The range of spans that follow each other without gaps; none for others.
pub(super) fn side_by_side(spans: &[u32]) -> Option<Range<u32>> {
    let all = *spans.first()?..spans.last()?.checked_add(1)?;
    (all.len() == spans.len()).then_some(all)
}

/// The last index at or after `from` whose start is at most `place`. Looks near by first, since callers go forward.
fn last_upto(starts: &[u32], from: usize, place: u32) -> usize {
    let mut step = 1;
    let mut low = from;
    while starts.get(low + step).is_some_and(|start| *start <= place) {
        low += step;
        step *= 2;
    }
    let high = (low + step).min(starts.len());
    let after = starts.get(low..high).map_or(0, |near| near.partition_point(|start| *start <= place));
    low + after.saturating_sub(1)
}

fn at(list: &[u32], index: u32) -> u32 {
    list.get(to_usize(index)).or_else(|| list.last()).copied().unwrap_or(0)
}

/// A thing that is counted: it begins where the repetition level is at most `.0` and the definition level at least `.1`.
pub(super) type Unit = (u8, u8);

/// A value, the innermost unit.
pub(super) fn value(max_def: u8) -> Unit {
    (u8::MAX, max_def)
}

/// For each `outer` of the page the number of `inner` before it, and at the end their total.
pub(super) fn prefix(page: &Page, outer: Unit, inner: Unit) -> Arc<[u32]> {
    page.counts((outer, inner), || {
        let mut starts = Vec::new();
        let mut count = 0u32;
        for (rep, def) in page.rep.iter().zip(&page.def) {
            if *rep <= outer.0 && *def >= outer.1 {
                starts.push(count);
            }
            count += u32::from(*rep <= inner.0 && *def >= inner.1);
        }
        starts.push(count);
        starts.into()
    })
}

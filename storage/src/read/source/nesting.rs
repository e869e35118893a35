//! How many batches, scopes and spans each row of a row group has: with it, the n-th value of a column names its span.

use std::{ops::Range, sync::Arc};

use crate::read::{
    bits::ones_in,
    error::{Error, Result},
    levels::{below, blocks, ones},
    page::{Page, Unit},
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
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nesting {
    row_resources: Vec<u32>,
    /// Of each batch, and of its spans; none where every batch has one scope, as most have.
    resources: Option<Resources>,
    scope_spans: Vec<u32>,
    /// Derived: the spans of row `r` are `row_spans[r]..row_spans[r + 1]`.
    row_spans: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq)]
struct Resources {
    scopes: Vec<u32>,
    spans: Vec<u32>,
}

fn malformed() -> Error {
    Error::malformed("row group", "more spans than its columns have values")
}

/// Room that is taken at once for scopes, whose number only a footer says.
const TRUSTED: u64 = 1 << 20;

/// Collects a [`Nesting`] from the pages of one column in order.
pub(super) struct Builder {
    row_resources: Vec<u32>,
    resources: u32,
    /// None as long as every batch has had one scope.
    resource_scopes: Option<Vec<u32>>,
    scope_spans: Vec<u32>,
    spans: u32,
    limit: u32,
    /// Values of the page that is added.
    values: Vec<i64>,
}

impl Builder {
    /// `limit` is how many spans the row group can have at most; about so many rows and scopes come.
    pub(super) fn new(limit: u64, rows: u32, scopes: u64) -> Self {
        Self {
            row_resources: Vec::with_capacity(to_usize(rows) + 1),
            resources: 0,
            resource_scopes: None,
            scope_spans: Vec::with_capacity(usize::try_from(scopes.min(TRUSTED)).unwrap_or(0) + 1),
            spans: 0,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            values: Vec::new(),
        }
    }

    /// Adds a page of a column that has one value for each scope (its number of spans) or for each span.
    pub(super) fn add(&mut self, page: &Page, per_span: bool) -> Result<()> {
        let Values::Ints(values) = &page.values else { return Err(malformed()) };
        let mut passed = 0;
        for (block, within) in blocks(0..page.len) {
            let rows = page.beginning(block, (0, 0)) & within;
            let resources = page.beginning(block, (1, 1)) & within;
            let scopes = page.beginning(block, (2, 2)) & within;
            let valued = page.def.at_least(block, if per_span { 3 } else { 2 }) & within;
            if !per_span {
                self.values.clear();
                let count = ones_in(valued);
                values.extend(passed..passed + count, &mut self.values);
                passed += count;
                if self.values.len() < count {
                    return Err(malformed());
                }
            }
            if !per_span && resources & scopes & valued == within && self.one_scope_each() {
                // Batches of one scope, as most are: nothing to look at but where rows begin.
                let before = to_usize(self.resources);
                let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                self.row_resources.extend(ones(rows).map(|bit| number(before + ones_in(within & below(bit)))));
                self.resources = number(before + self.values.len());
                for count in &self.values {
                    self.scope_spans.push(self.spans);
                    let spans = u32::try_from(*count).ok().and_then(|more| self.spans.checked_add(more));
                    self.spans = spans.filter(|spans| *spans <= self.limit).ok_or_else(malformed)?;
                }
                continue;
            }
            let mut value = 0;
            for bit in ones(within) {
                if rows >> bit & 1 == 1 {
                    self.row_resources.push(self.resources);
                }
                if resources >> bit & 1 == 1 {
                    self.begin_resource();
                    self.resources += 1;
                }
                if scopes >> bit & 1 == 1 {
                    self.scope_spans.push(self.spans);
                }
                if valued >> bit & 1 == 1 {
                    let more =
                        if per_span { 1 } else { u32::try_from(self.values[value]).map_err(|_bad| malformed())? };
                    value += 1;
                    let spans = self.spans.checked_add(more).filter(|spans| *spans <= self.limit);
                    self.spans = spans.ok_or_else(malformed)?;
                }
            }
        }
        Ok(())
    }

    /// Whether every batch so far had one scope.
    fn one_scope_each(&self) -> bool {
        self.resource_scopes.is_none() && len(&self.scope_spans) == self.resources
    }

    /// Notes the scopes before the next batch, where these are not one for each.
    fn begin_resource(&mut self) {
        let scopes = len(&self.scope_spans);
        if let Some(list) = &mut self.resource_scopes {
            list.push(scopes);
        } else if scopes != self.resources {
            self.resource_scopes = Some((0..self.resources).chain([scopes]).collect());
        }
    }

    pub(super) fn finish(mut self, rows: u32) -> Result<Nesting> {
        if self.row_resources.len() != to_usize(rows) {
            return Err(Error::malformed("row group", "columns have other numbers of rows"));
        }
        self.row_resources.push(self.resources);
        self.begin_resource();
        self.scope_spans.push(self.spans);
        let scope_spans = self.scope_spans;
        let resources = self.resource_scopes.map(|scopes| {
            let spans = scopes.iter().map(|scope| at(&scope_spans, *scope)).collect();
            Resources { scopes, spans }
        });
        let resource_spans = resources.as_ref().map_or(&scope_spans, |resources| &resources.spans);
        let row_spans = self.row_resources.iter().map(|of| at(resource_spans, *of)).collect();
        Ok(Nesting { row_resources: self.row_resources, resources, scope_spans, row_spans })
    }
}

fn len(list: &[u32]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

impl Nesting {
    /// Memory held.
    pub(super) fn memory(&self) -> usize {
        let of_resources = self.resources.iter().flat_map(|resources| [&resources.scopes, &resources.spans]);
        let lists = [&self.row_resources, &self.scope_spans, &self.row_spans].into_iter().chain(of_resources);
        size_of::<Self>() + lists.map(|list| list.capacity() * size_of::<u32>()).sum::<usize>()
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
            Owner::Scope => {
                let resource = at(&self.row_resources, row);
                self.resources.as_ref().map_or(resource, |resources| at(&resources.scopes, resource))
            }
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
            Owner::Resource => Some(self.resources.as_ref().map_or(&self.scope_spans, |resources| &resources.spans)),
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

/// A value, the innermost unit.
pub(super) fn value(max_def: u8) -> Unit {
    (u8::MAX, max_def)
}

/// For each `outer` of the page the number of `inner` before it, and at the end their total.
pub(super) fn prefix(page: &Page, outer: Unit, inner: Unit) -> Arc<[u32]> {
    page.counts((outer, inner), || {
        let (mut starts, mut count) = (Vec::new(), 0);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        for (block, within) in blocks(0..page.len) {
            let inners = page.beginning(block, inner) & within;
            let outers = ones(page.beginning(block, outer) & within);
            starts.extend(outers.map(|bit| number(count + ones_in(inners & below(bit)))));
            count += ones_in(inners);
        }
        starts.push(number(count));
        starts.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of batches of scopes, each with its number of spans.
    fn built(rows: &[&[&[u32]]]) -> Nesting {
        let (mut rep, mut def, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let mut next = 0;
            for batch in *row {
                for spans in *batch {
                    rep.push(next);
                    def.push(2);
                    counts.push(i64::from(*spans));
                    next = 2;
                }
                if batch.is_empty() {
                    rep.push(next);
                    def.push(1);
                }
                next = 1;
            }
            if row.is_empty() {
                rep.push(0);
                def.push(0);
            }
        }
        let mut page = Page::of_levels(&rep, &def, (2, 2));
        page.values = Values::Ints(counts.into());
        let mut builder = Builder::new(1000, u32::try_from(rows.len()).unwrap(), 3);
        builder.add(&page, false).unwrap();
        builder.finish(u32::try_from(rows.len()).unwrap()).unwrap()
    }

    #[test]
    fn batches_with_one_scope_each_need_no_lists_of_their_own() {
        let rows: [&[&[u32]]; 3] = [&[&[2], &[3]], &[&[1]], &[&[4], &[0], &[5]]];
        let nesting = built(&rows);
        assert!(nesting.resources.is_none());
        assert_eq!((nesting.spans(), nesting.first(Owner::Span, 1), nesting.first(Owner::Span, 2)), (15, 5, 6));
        assert_eq!((nesting.first(Owner::Scope, 2), nesting.first(Owner::Resource, 2)), (3, 3));
        assert_eq!((nesting.spans_of(Owner::Resource, 3), nesting.spans_of(Owner::Scope, 5)), (6..10, 10..15));
        assert_eq!(nesting.spans_of(Owner::Row, 2), 6..15);
    }

    #[test]
    fn batches_with_no_scope_or_several_are_counted() {
        let cases: [[&[&[u32]]; 3]; 4] = [
            [&[&[2], &[3]], &[&[], &[1]], &[&[4]]],
            [&[&[2], &[3]], &[], &[&[1, 4, 2], &[5]]],
            [&[&[2], &[3]], &[&[1]], &[&[4], &[5, 6]]],
            [&[&[2], &[3]], &[&[1]], &[&[4], &[]]],
        ];
        for rows in cases {
            let nesting = built(&rows);
            assert!(nesting.resources.is_some());
            let (mut resource, mut scope, mut span) = (0, 0, 0);
            for (row, batches) in (0..).zip(rows) {
                assert_eq!(
                    (
                        nesting.first(Owner::Resource, row),
                        nesting.first(Owner::Scope, row),
                        nesting.first(Owner::Span, row)
                    ),
                    (resource, scope, span)
                );
                for batch in batches {
                    let first = span;
                    for spans in *batch {
                        assert_eq!(nesting.spans_of(Owner::Scope, scope), span..span + spans);
                        (scope, span) = (scope + 1, span + spans);
                    }
                    assert_eq!(nesting.spans_of(Owner::Resource, resource), first..span);
                    resource += 1;
                }
            }
            assert_eq!(nesting.first(Owner::Scope, 3), scope);
        }
    }
}

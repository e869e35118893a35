//! Which spans of a row group can satisfy a predicate.
//!
//! A test runs once for each dictionary entry. Conditions that all have to hold run from the cheapest to the dearest, and each
//! reads only the pages of rows that the ones before have left.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use smallvec::SmallVec;

use vivace_traceql::{Bitmap, CompareOp, Condition, Field, Intrinsic, Predicate, Scope, Test, Type, Value};

use super::{
    group::{Group, bounds, text},
    hits::{hit_values, hits},
    nesting::{Nesting, Owner},
    places::{Generic, Place, place},
    verdict::{Verdicts, is_coded},
    walk::{Start, walk},
};
use crate::read::{
    cells::lossy,
    error::Result,
    page::{Page, RowSpan},
    rows::RowSet,
    values::{Values, to_usize},
};

/// The spans of `rows` for which `predicate` may hold; there may be more, never fewer.
pub(super) fn select(group: &mut Group<'_>, predicate: &Predicate, rows: &RowSet) -> Result<Bitmap> {
    let nesting = group.nesting()?;
    match predicate {
        Predicate::Always => Ok(all(&nesting, rows)),
        Predicate::Never => Ok(Bitmap::zeros(nesting.spans())),
        Predicate::Is(condition) => {
            if !may_match(group, condition)? {
                return Ok(Bitmap::zeros(nesting.spans()));
            }
            let mut found = one(group, &nesting, condition, rows)?;
            if rows.len() < group.rows {
                // Pages hold more rows than were asked for.
                found.and(&all(&nesting, rows));
            }
            Ok(found)
        }
        Predicate::AnyOf(parts) => {
            let mut found = Bitmap::zeros(nesting.spans());
            for part in parts {
                found.or(&select(group, part, rows)?);
            }
            Ok(found)
        }
        Predicate::All(parts) => {
            if !may_hold(group, predicate)? {
                return Ok(Bitmap::zeros(nesting.spans()));
            }
            let mut order: Vec<&Predicate> = parts.iter().collect();
            order.sort_by_key(|part| rank(part));
            let mut found = all(&nesting, rows);
            let mut left = rows.clone();
            for part in order {
                found.and(&select(group, part, &left)?);
                left = rows_of(&nesting, &found);
                if left.is_empty() {
                    break;
                }
            }
            Ok(found)
        }
    }
}

/// Whether the row group can hold a span for which `predicate` holds, from dictionaries and statistics alone.
pub(super) fn may_hold(group: &mut Group<'_>, predicate: &Predicate) -> Result<bool> {
    let mut failed = None;
    let may = predicate.may_match(&mut |condition| match may_match(group, condition) {
        Ok(may) => may,
        Err(error) => {
            failed.get_or_insert(error);
            true
        }
    });
    failed.map_or(Ok(may), Err)
}

/// Those of `rows` that can hold a span for which `predicate` holds, where lists of rows say more than that all can.
pub(super) fn narrowed(group: &mut Group<'_>, predicate: &Predicate, rows: &RowSet) -> Result<Option<RowSet>> {
    match predicate {
        Predicate::Is(condition) => {
            let Place::Attribute { generic, direct: None, .. } = place(group.block(), &condition.field) else {
                return Ok(None);
            };
            match value_leaf(condition, &generic) {
                Wanted::Leaf(leaf) if !is_missing(condition) && !holds_for_empty(condition) => {
                    group.rows_with_rare(leaf, condition, rows)
                }
                _ => Ok(None),
            }
        }
        Predicate::All(parts) => {
            let mut left: Option<RowSet> = None;
            for part in parts {
                if let Some(found) = narrowed(group, part, left.as_ref().unwrap_or(rows))? {
                    left = Some(found);
                }
            }
            Ok(left)
        }
        Predicate::Always | Predicate::Never | Predicate::AnyOf(_) => Ok(None),
    }
}

fn all(nesting: &Nesting, rows: &RowSet) -> Bitmap {
    let mut found = Bitmap::zeros(nesting.spans());
    for range in rows.ranges() {
        let (start, end) = (nesting.first(Owner::Span, range.start), nesting.first(Owner::Span, range.end));
        found.set_range(to_usize(start), to_usize(end));
    }
    found
}

pub(super) fn rows_of(nesting: &Nesting, spans: &Bitmap) -> RowSet {
    nesting.rows(&ones(spans).collect::<Vec<_>>())
}

fn ones(bits: &Bitmap) -> impl Iterator<Item = u32> + '_ {
    bits.ones_iter().map(|bit| u32::try_from(bit).unwrap_or(u32::MAX))
}

fn mark(found: &mut Bitmap, span: u32) {
    let span = to_usize(span);
    if span < found.len() {
        found.set(span, true);
    }
}

/// What a condition costs, roughly.
fn rank(predicate: &Predicate) -> u8 {
    let Predicate::Is(condition) = predicate else { return 6 };
    match &condition.field {
        Field::Intrinsic(intrinsic) => match intrinsic {
            Intrinsic::TraceDuration | Intrinsic::RootName | Intrinsic::RootServiceName | Intrinsic::TraceId => 0,
            Intrinsic::EventName | Intrinsic::EventTimeSinceStart | Intrinsic::LinkSpanId | Intrinsic::LinkTraceId => 5,
            _ => 2,
        },
        Field::Attribute { scope, .. } => match scope {
            Scope::Resource | Scope::Instrumentation => 1,
            Scope::Span => 3,
            Scope::Any => 4,
            Scope::Event | Scope::Link => 5,
        },
    }
}

/// The concrete fields that a field stands for.
fn concrete(field: &Field) -> Vec<Field> {
    match field {
        Field::Attribute { scope: Scope::Any, name, parent: false } => {
            vec![Field::attribute(Scope::Span, name), Field::attribute(Scope::Resource, name)]
        }
        other => vec![other.clone()],
    }
}

fn is_missing(condition: &Condition) -> bool {
    matches!(condition.test, Test::Missing)
}

/// Empty arrays satisfy these, and have no value to look at.
fn holds_for_empty(condition: &Condition) -> bool {
    matches!(condition.test, Test::NotMatch(_) | Test::Compare(CompareOp::NotEq, Value::Str(_)))
}

/// Whether the row group can hold such a value at all.
fn may_match(group: &mut Group<'_>, condition: &Condition) -> Result<bool> {
    if is_missing(condition) {
        return Ok(true);
    }
    for field in concrete(&condition.field) {
        let may = match place(group.block(), &field) {
            Place::Unknown => true,
            Place::Row(leaf) | Place::Required(_, leaf) | Place::Child(_, leaf) => column_may(group, condition, leaf)?,
            Place::Attribute { generic, direct, .. } => {
                let direct_may = match direct {
                    Some(direct) if !group.is_empty(direct.leaf)? => column_may(group, condition, direct.leaf)?,
                    _ => false,
                };
                direct_may || generic_may(group, condition, &generic)?
            }
        };
        if may {
            return Ok(true);
        }
    }
    Ok(false)
}

fn column_may(group: &mut Group<'_>, condition: &Condition, leaf: usize) -> Result<bool> {
    // Codes and ids are compared in their own way; only texts and numbers are decided here.
    if is_coded(condition) {
        return Ok(true);
    }
    if let Some((low, high)) = group.int_bounds(leaf)? {
        return Ok(condition.may_match_ints(low, high));
    }
    if let Some(passing) = group.passing(leaf, condition)? {
        return Ok(passing.any());
    }
    Ok(match group.dictionary(leaf)?.as_deref() {
        Some(Values::Bytes(entries)) => entries.iter().any(|entry| condition.matches_str(&lossy(entry))),
        _ => true,
    })
}

fn generic_may(group: &mut Group<'_>, condition: &Condition, generic: &Generic) -> Result<bool> {
    if let Some(Values::Bytes(keys)) = group.dictionary(generic.leaves.key)?.as_deref()
        && !keys.iter().any(|key| *key == *generic.name)
    {
        return Ok(false);
    }
    if holds_for_empty(condition) {
        return Ok(true);
    }
    match value_leaf(condition, generic) {
        Wanted::Any => Ok(true),
        Wanted::Nothing => Ok(false),
        Wanted::Leaf(leaf) if group.is_empty(leaf)? => Ok(false),
        Wanted::Leaf(leaf) => match condition.value_type() {
            Some(Type::String) => column_may(group, condition, leaf),
            Some(Type::Int) => {
                Ok(group.int_bounds(leaf)?.is_none_or(|(low, high)| condition.may_match_ints(low, high)))
            }
            _ => Ok(true),
        },
    }
}

enum Wanted {
    /// The key is enough.
    Any,
    /// No stored value has such a type.
    Nothing,
    Leaf(usize),
}

fn value_leaf(condition: &Condition, generic: &Generic) -> Wanted {
    match condition.value_type() {
        None => Wanted::Any,
        Some(Type::String) => Wanted::Leaf(generic.leaves.value),
        Some(Type::Int) => Wanted::Leaf(generic.leaves.value_int),
        Some(Type::Float) => Wanted::Leaf(generic.leaves.value_double),
        Some(Type::Bool) => Wanted::Leaf(generic.leaves.value_bool),
        Some(_) => Wanted::Nothing,
    }
}

fn one(group: &mut Group<'_>, nesting: &Arc<Nesting>, condition: &Condition, rows: &RowSet) -> Result<Bitmap> {
    if is_missing(condition) {
        return Ok(all(nesting, rows));
    }
    let mut found = Bitmap::zeros(nesting.spans());
    for field in concrete(&condition.field) {
        match place(group.block(), &field) {
            Place::Unknown => return Ok(all(nesting, rows)),
            Place::Row(leaf) => required(group, nesting, condition, Owner::Row, leaf, rows, &mut found)?,
            Place::Required(owner, leaf) => required(group, nesting, condition, owner, leaf, rows, &mut found)?,
            Place::Child(_, leaf) => repeated(group, nesting, condition, Owner::Span, leaf, rows, &mut found)?,
            Place::Attribute { owner, generic, direct } => {
                // Conditions on events and links are decided for their span.
                let owner = if matches!(owner, Owner::Event | Owner::Link) { Owner::Span } else { owner };
                if let Some(direct) = direct
                    && condition.value_type().is_none_or(|wanted| wanted == direct.value_type)
                {
                    if direct.required {
                        service(group, nesting, condition, direct.leaf, rows, &mut found)?;
                    } else if !group.is_empty(direct.leaf)? {
                        repeated(group, nesting, condition, owner, direct.leaf, rows, &mut found)?;
                    }
                }
                if generic_may(group, condition, &generic)? {
                    attribute(group, nesting, condition, owner, &generic, rows, &mut found)?;
                }
            }
        }
    }
    Ok(found)
}

fn expand(nesting: &Nesting, owner: Owner, number: u32, found: &mut Bitmap) {
    if owner == Owner::Span {
        mark(found, number);
    } else {
        let spans = nesting.spans_of(owner, number);
        found.set_range(to_usize(spans.start), to_usize(spans.end));
    }
}

/// A column with exactly one value for each owner.
fn required(
    group: &mut Group<'_>,
    nesting: &Arc<Nesting>,
    condition: &Condition,
    owner: Owner,
    leaf: usize,
    rows: &RowSet,
    found: &mut Bitmap,
) -> Result<()> {
    let dictionary = group.dictionary(leaf)?;
    let mut verdicts = Verdicts::new(condition, group.passing(leaf, condition)?);
    let few = few(rows, group.rows);
    group.pages(leaf, rows, |page| {
        let (first, end) = bounds(page, nesting, owner);
        if page.values.len() != to_usize(end - first) {
            return Err(crate::read::cursor::inconsistent());
        }
        for run in runs(page, rows, few) {
            let start = nesting.first(owner, run.start);
            let values = to_usize(start - first)..to_usize(nesting.first(owner, run.end) - first);
            let passes = verdicts.some(&page.values, values, dictionary.as_deref());
            if owner == Owner::Span {
                found.or_at(to_usize(start), &passes);
            } else {
                ones(&passes).for_each(|index| expand(nesting, owner, start + index, found));
            }
        }
        Ok(())
    })
}

/// Whether it pays to look at the rows one by one rather than at whole pages.
pub(super) fn few(rows: &RowSet, of: u32) -> bool {
    rows.len() < of / 4
}

/// The rows of a page to look at: those that are wanted where they are few, otherwise all.
pub(super) fn runs(page: &Page, rows: &RowSet, few: bool) -> SmallVec<[Range<u32>; 8]> {
    let count = page.rows();
    let at = |row: usize| page.first_row + u32::try_from(row).unwrap_or(u32::MAX - page.first_row);
    if few {
        rows.within(page.first_row, count).map(|run| at(run.start)..at(run.end)).collect()
    } else {
        std::iter::once(page.first_row..at(count)).collect()
    }
}

/// Where the rows of a run are in their page.
pub(super) fn span_of(page: &Page, run: &Range<u32>, max_def: u8) -> RowSpan {
    page.span_of(to_usize(run.start - page.first_row)..to_usize(run.end - page.first_row), max_def)
}

/// `service.name` of the resource, for which an empty text stands for "none".
fn service(
    group: &mut Group<'_>,
    nesting: &Arc<Nesting>,
    condition: &Condition,
    leaf: usize,
    rows: &RowSet,
    found: &mut Bitmap,
) -> Result<()> {
    let dictionary = group.dictionary(leaf)?;
    let mut verdicts = Verdicts::new(condition, group.passing(leaf, condition)?);
    let few = few(rows, group.rows);
    group.pages(leaf, rows, |page| {
        let (first, _) = bounds(page, nesting, Owner::Resource);
        for run in runs(page, rows, few) {
            let start = nesting.first(Owner::Resource, run.start);
            let values = to_usize(start - first)..to_usize(nesting.first(Owner::Resource, run.end) - first);
            for index in ones(&verdicts.some(&page.values, values, dictionary.as_deref())) {
                let at = start + index;
                if text(page, dictionary.as_deref(), to_usize(at - first)).is_some_and(|text| !text.is_empty()) {
                    expand(nesting, Owner::Resource, at, found);
                }
            }
        }
        Ok(())
    })
}

/// A column with any number of values for each owner; one that passes is enough.
fn repeated(
    group: &mut Group<'_>,
    nesting: &Arc<Nesting>,
    condition: &Condition,
    owner: Owner,
    leaf: usize,
    rows: &RowSet,
    found: &mut Bitmap,
) -> Result<()> {
    let dictionary = group.dictionary(leaf)?;
    let max_def = group.block().shape(leaf)?.max_def;
    let level = owner.level();
    let mut verdicts = Verdicts::new(condition, group.passing(leaf, condition)?);
    let few = few(rows, group.rows);
    group.pages(leaf, rows, |page| {
        for run in runs(page, rows, few) {
            let (entries, passes) = if few {
                let span = span_of(page, &run, max_def);
                (span.entries, verdicts.some(&page.values, span.values, dictionary.as_deref()))
            } else {
                (0..page.len, verdicts.page(page, dictionary.as_deref()))
            };
            if !passes.any() {
                continue;
            }
            let (first, end) = (nesting.first(owner, run.start), nesting.first(owner, run.end));
            let start = Start { level, max_def, owner: first, row: run.start };
            // Values before the first owner have none.
            let next = walk::<false>(page, entries, start, &passes, |value| {
                value.owner.into_iter().for_each(|number| expand(nesting, owner, number, found));
            });
            if next != end {
                return Err(crate::read::cursor::inconsistent());
            }
        }
        Ok(())
    })
}

fn attribute(
    group: &mut Group<'_>,
    nesting: &Arc<Nesting>,
    condition: &Condition,
    owner: Owner,
    generic: &Generic,
    rows: &RowSet,
    found: &mut Bitmap,
) -> Result<()> {
    let leaf = match value_leaf(condition, generic) {
        Wanted::Leaf(leaf) if !holds_for_empty(condition) => leaf,
        Wanted::Nothing => return Ok(()),
        Wanted::Leaf(_) | Wanted::Any => {
            let hits = hits(group, nesting, owner, generic, rows)?;
            hits.list.iter().for_each(|hit| expand(nesting, owner, hit.owner, found));
            return Ok(());
        }
    };
    let dictionary = group.dictionary(leaf)?;
    if let Some(column) = group.attribute(nesting, owner, generic, leaf, rows)? {
        let mut verdicts = Verdicts::new(condition, group.passing(leaf, condition)?);
        let all = 0..group.rows;
        let runs = if few(rows, group.rows) { rows.ranges() } else { std::slice::from_ref(&all) };
        for run in runs {
            let owners = nesting.first(owner, run.start)..nesting.first(owner, run.end);
            column
                .passing(owners, &mut verdicts, dictionary.as_deref(), |number| expand(nesting, owner, number, found));
        }
        return Ok(());
    }
    let rare = group.rows_with_rare(leaf, condition, rows)?;
    let rows = rare.as_ref().unwrap_or(rows);
    // Values first: where none passes, whatever its key is, the keys need not be read.
    let max_def = group.block().shape(leaf)?.max_def;
    let mut verdicts = Verdicts::new(condition, group.passing(leaf, condition)?);
    let mut passing: BTreeMap<u32, Bitmap> = BTreeMap::new();
    let mut left = RowSet::default();
    let few = few(rows, group.rows);
    group.pages(leaf, rows, |page| {
        if few {
            let mut all = Bitmap::zeros(page.values.len());
            for run in runs(page, rows, few) {
                let values = span_of(page, &run, max_def).values;
                let passes = verdicts.some(&page.values, values.clone(), dictionary.as_deref());
                if passes.any() {
                    left.push_range(run);
                    all.or_at(values.start, &passes);
                }
            }
            passing.insert(page.first_row, all);
            return Ok(());
        }
        let passes = verdicts.page(page, dictionary.as_deref());
        if passes.any() {
            rows_with(page, &passes, max_def, &mut left);
            passing.insert(page.first_row, passes);
        }
        Ok(())
    })?;
    let left = left.intersect(rows);
    let hits = hits(group, nesting, owner, generic, &left)?;
    hit_values(group, leaf, generic.level, &hits, |page, hit, range| {
        let passes = passing.get(&page.first_row);
        if passes.is_some_and(|passes| range.into_iter().any(|index| passes.get(index))) {
            expand(nesting, owner, hits.list[hit].owner, found);
        }
    })
}

/// Adds the rows of the page that have a value which passes; all rows when that are many.
fn rows_with(page: &Page, passes: &Bitmap, max_def: u8, rows: &mut RowSet) {
    if passes.count() > page.len / 16 {
        let end = page.first_row + u32::try_from(page.rows()).unwrap_or(0);
        rows.push_range(page.first_row..end);
        return;
    }
    let start = Start { level: 0, max_def, owner: page.first_row, row: page.first_row };
    walk::<false>(page, 0..page.len, start, passes, |value| value.owner.into_iter().for_each(|row| rows.push(row)));
}

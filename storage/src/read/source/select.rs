//! Which spans of a row group can satisfy a predicate.
//!
//! A test runs once for each dictionary entry. Conditions that all have to hold run from the cheapest to the dearest, and each
//! reads only the pages of rows that the ones before have left.

use std::sync::Arc;

use vivace_traceql::{
    Bitmap, CompareOp, Condition, Field, Intrinsic, Kind, Predicate, Scope, Status, Test, Type, Value,
};

use super::{
    group::{Group, bounds, text},
    nesting::{Nesting, Owner, prefix, value},
    places::{Generic, Place, place},
};
use crate::{
    live::short_hex,
    read::{
        cells::lossy,
        error::Result,
        page::Page,
        rows::RowSet,
        values::{Values, to_usize},
    },
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

fn all(nesting: &Nesting, rows: &RowSet) -> Bitmap {
    let mut found = Bitmap::zeros(nesting.spans());
    for range in rows.ranges() {
        let spans = nesting.first(Owner::Span, range.start)..nesting.first(Owner::Span, range.end);
        spans.for_each(|span| mark(&mut found, span));
    }
    found
}

pub(super) fn rows_of(nesting: &Nesting, spans: &Bitmap) -> RowSet {
    let mut rows = RowSet::default();
    let mut end = 0;
    for span in spans.ones_iter() {
        let span = u32::try_from(span).unwrap_or(u32::MAX);
        if span >= end {
            let (row, _) = nesting.owners(Owner::Row, &[span]);
            for row in row {
                rows.push(row);
                end = nesting.spans_of(Owner::Row, row).end;
            }
        }
    }
    rows
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
    let coded = matches!(
        condition.field,
        Field::Intrinsic(
            Intrinsic::Status
                | Intrinsic::Kind
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::TraceId
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
        )
    );
    if coded {
        return Ok(true);
    }
    if let Some((low, high)) = group.int_bounds(leaf)? {
        return Ok(condition.may_match_ints(low, high));
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
        nesting.spans_of(owner, number).for_each(|span| mark(found, span));
    }
}

/// Remembers the verdict on each dictionary entry.
struct Verdicts<'c> {
    condition: &'c Condition,
    entries: Vec<u8>,
}

impl<'c> Verdicts<'c> {
    fn new(condition: &'c Condition) -> Self {
        Self { condition, entries: Vec::new() }
    }

    /// Whether each value of the page passes.
    fn page(&mut self, page: &Page, dictionary: Option<&Values>) -> Vec<bool> {
        let condition = self.condition;
        match &page.values {
            Values::Bytes(values) => values.iter().map(|value| passes_text(condition, value)).collect(),
            Values::Ids(ids) => {
                let Some(Values::Bytes(entries)) = dictionary else { return vec![true; ids.len()] };
                self.entries.resize(entries.len(), 0);
                ids.iter()
                    .map(|id| {
                        let id = to_usize(*id);
                        if self.entries[id] == 0 {
                            let passes = entries.get(id).is_none_or(|text| passes_text(condition, text));
                            self.entries[id] = 1 + u8::from(passes);
                        }
                        self.entries[id] == 2
                    })
                    .collect()
            }
            Values::Ints(ints) => {
                // Numbers repeat in runs.
                let mut last: Option<(i64, bool)> = None;
                ints.iter()
                    .map(|int| match last {
                        Some((before, passes)) if before == *int => passes,
                        _ => {
                            let passes = passes_int(condition, *int);
                            last = Some((*int, passes));
                            passes
                        }
                    })
                    .collect()
            }
            Values::Doubles(doubles) => {
                doubles.iter().map(|double| condition.matches(&Value::Float(*double))).collect()
            }
            Values::Bools(bools) => bools.iter().map(|value| condition.matches(&Value::Bool(*value))).collect(),
        }
    }
}

fn passes_text(condition: &Condition, text: &[u8]) -> bool {
    match condition.field {
        Field::Intrinsic(Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId) => {
            condition.matches(&Value::str(&format!("{:016x}", u64::from_be_bytes(crate::live::id8(text)))))
        }
        Field::Intrinsic(Intrinsic::TraceId | Intrinsic::LinkTraceId) => {
            condition.matches(&Value::str(&short_hex(text)))
        }
        _ => condition.matches_str(&lossy(text)),
    }
}

fn passes_int(condition: &Condition, int: i64) -> bool {
    let code = || u8::try_from(int).unwrap_or(0);
    condition.matches(&match &condition.field {
        Field::Intrinsic(Intrinsic::Status) => Value::Status(Status::from_code(code())),
        Field::Intrinsic(Intrinsic::Kind) => Value::Kind(Kind::from_code(code())),
        field if field.static_type() == Type::Duration => Value::Duration(int),
        _ => Value::Int(int),
    })
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
    let mut verdicts = Verdicts::new(condition);
    group.pages(leaf, rows, |page| {
        let (first, end) = bounds(page, nesting, owner);
        if page.values.len() != to_usize(end - first) {
            return Err(crate::read::cursor::inconsistent());
        }
        for (number, passes) in (first..).zip(verdicts.page(page, dictionary.as_deref())) {
            if passes {
                expand(nesting, owner, number, found);
            }
        }
        Ok(())
    })
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
    let mut verdicts = Verdicts::new(condition);
    group.pages(leaf, rows, |page| {
        let (first, _) = bounds(page, nesting, Owner::Resource);
        for (index, passes) in verdicts.page(page, dictionary.as_deref()).into_iter().enumerate() {
            if passes && text(page, dictionary.as_deref(), index).is_some_and(|text| !text.is_empty()) {
                expand(nesting, Owner::Resource, first + u32::try_from(index).unwrap_or(0), found);
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
    let unit = value(group.block().shape(leaf)?.max_def);
    let level = owner.level();
    let mut verdicts = Verdicts::new(condition);
    group.pages(leaf, rows, |page| {
        let passes = verdicts.page(page, dictionary.as_deref());
        if !passes.contains(&true) {
            return Ok(());
        }
        let (first, end) = bounds(page, nesting, owner);
        let starts = prefix(page, (level, level), unit);
        if starts.len() != to_usize(end - first) + 1 {
            return Err(crate::read::cursor::inconsistent());
        }
        for (number, values) in (first..).zip(starts.windows(2)) {
            if passes[to_usize(values[0])..to_usize(values[1])].contains(&true) {
                expand(nesting, owner, number, found);
            }
        }
        Ok(())
    })
}

/// An attribute with the wanted key: which row it is in, the how many-th of the row, and its owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    pub(super) row: u32,
    pub(super) nth: u32,
    pub(super) owner: u32,
}

/// All attributes with the key of `generic` in `rows`, in order.
pub(super) fn hits(
    group: &mut Group<'_>,
    nesting: &Arc<Nesting>,
    owner: Owner,
    generic: &Generic,
    rows: &RowSet,
) -> Result<Vec<Hit>> {
    let leaf = generic.leaves.key;
    let dictionary = group.dictionary(leaf)?;
    let keys: Vec<u32> = match dictionary.as_deref() {
        Some(Values::Bytes(entries)) => {
            (0u32..).zip(entries.iter()).filter(|(_, key)| **key == *generic.name).map(|(id, _)| id).collect()
        }
        _ => Vec::new(),
    };
    if dictionary.is_some() && keys.is_empty() {
        return Ok(Vec::new());
    }
    let unit = value(group.block().shape(leaf)?.max_def);
    let level = owner.level();
    let mut hits = Vec::new();
    group.pages(leaf, rows, |page| {
        let places: Vec<u32> = match &page.values {
            Values::Ids(ids) => match keys[..] {
                [key] => (0u32..).zip(ids).filter(|(_, id)| **id == key).map(|(place, _)| place).collect(),
                _ => (0u32..).zip(ids).filter(|(_, id)| keys.contains(id)).map(|(place, _)| place).collect(),
            },
            Values::Bytes(values) => {
                (0u32..).zip(values.iter()).filter(|(_, key)| **key == *generic.name).map(|(place, _)| place).collect()
            }
            Values::Ints(_) | Values::Doubles(_) | Values::Bools(_) => Vec::new(),
        };
        if places.is_empty() {
            return Ok(());
        }
        let row_starts = prefix(page, (0, 0), unit);
        let owner_starts = prefix(page, (level, level), unit);
        let (first, end) = bounds(page, nesting, owner);
        if owner_starts.len() != to_usize(end - first) + 1 {
            return Err(crate::read::cursor::inconsistent());
        }
        let (mut row, mut at) = (0, 0);
        for place in places {
            row = upto(&row_starts, row, place);
            at = upto(&owner_starts, at, place);
            let number = page.first_row + u32::try_from(row).unwrap_or(u32::MAX);
            if rows.contains(number) {
                let owner = first + u32::try_from(at).unwrap_or(u32::MAX);
                hits.push(Hit { row: number, nth: place - row_starts[row], owner });
            }
        }
        Ok(())
    })?;
    Ok(hits)
}

/// The last index at or after `from` whose start is at most `place`.
fn upto(starts: &[u32], from: usize, place: u32) -> usize {
    let mut at = from;
    // Neighbouring hits are close, so stepping beats searching.
    while at + 2 < starts.len() && starts[at + 1] <= place {
        at += 1;
    }
    at
}

/// The values that each hit has in a typed column: calls `each` with the page, the number of the hit and its range of values.
pub(super) fn hit_values(
    group: &mut Group<'_>,
    leaf: usize,
    attribute_level: u8,
    hits: &[Hit],
    mut each: impl FnMut(&Arc<Page>, usize, std::ops::Range<usize>),
) -> Result<()> {
    let mut rows = RowSet::default();
    hits.iter().for_each(|hit| rows.push(hit.row));
    let max_def = group.block().shape(leaf)?.max_def;
    let mut next = 0;
    group.pages(leaf, &rows, |page| {
        let end_row = page.first_row + u32::try_from(page.rows()).unwrap_or(0);
        if page.values.len() == 0 {
            next += hits[next..].partition_point(|hit| hit.row < end_row);
            return Ok(());
        }
        let mut walk = AttributeWalk::new(page, attribute_level, max_def);
        while let Some(hit) = hits.get(next).filter(|hit| hit.row < end_row) {
            let range = walk.values_of(hit).ok_or_else(crate::read::cursor::inconsistent)?;
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
        let rep = &self.page.rep;
        let from = self.entry;
        // Standing at the start of the row, its own first entry does not count.
        let at_start = self.passed == 0;
        let mut entry = if at_start { from + 1 } else { from };
        for _ in self.row..row {
            entry += rep.get(entry..)?.iter().position(|rep| *rep == 0)? + 1;
        }
        self.entry = entry - 1;
        let behind = self.page.def.get(from..self.entry)?;
        self.value += behind.iter().filter(|def| **def == self.max_def).count();
        (self.row, self.passed) = (row, 0);
        Some(())
    }

    /// Steps over the next attribute of the row.
    fn pass_attribute(&mut self) -> Option<std::ops::Range<usize>> {
        let (rep, def) = (&self.page.rep, &self.page.def);
        if self.passed > 0 && *rep.get(self.entry)? == 0 {
            return None;
        }
        // Owners without attributes have one entry that is none.
        loop {
            if *def.get(self.entry)? >= self.level {
                break;
            }
            self.entry += 1;
            if *rep.get(self.entry)? == 0 {
                return None;
            }
        }
        let start = self.value;
        loop {
            self.value += usize::from(def[self.entry] == self.max_def);
            self.entry += 1;
            if rep.get(self.entry).is_none_or(|rep| *rep <= self.level) {
                break;
            }
        }
        self.passed += 1;
        Some(start..self.value)
    }
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
    let hits = hits(group, nesting, owner, generic, rows)?;
    let leaf = match value_leaf(condition, generic) {
        Wanted::Leaf(leaf) if !holds_for_empty(condition) => leaf,
        Wanted::Nothing => return Ok(()),
        Wanted::Leaf(_) | Wanted::Any => {
            hits.iter().for_each(|hit| expand(nesting, owner, hit.owner, found));
            return Ok(());
        }
    };
    let dictionary = group.dictionary(leaf)?;
    let mut verdicts = Verdicts::new(condition);
    let mut current: Option<(u32, Vec<bool>)> = None;
    hit_values(group, leaf, generic.level, &hits, |page, hit, range| {
        let passes = match &current {
            Some((first_row, passes)) if *first_row == page.first_row => passes,
            _ => &current.insert((page.first_row, verdicts.page(page, dictionary.as_deref()))).1,
        };
        if passes.get(range).is_some_and(|passes| passes.contains(&true)) {
            expand(nesting, owner, hits[hit].owner, found);
        }
    })
}

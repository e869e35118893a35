//! Columns of a batch: the values of chosen spans.

use std::{collections::HashMap, sync::Arc};

use vivace_traceql::{Bitmap, Column, Dictionary, Field, Intrinsic, NIL_ID, Offsets, Str, Value};

use super::{
    attribute::AttributeColumn,
    children::{Child, each_child},
    group::{Group, bounds, text, text_of},
    hits::{Hit, Hits, hit_values, hits},
    nesting::{Nesting, Owner, prefix, side_by_side, value},
    places::{Direct, Generic, Place, place},
};
use crate::{
    live::{id8, short_hex},
    read::{
        cells::{Interner, lossy},
        cursor::inconsistent,
        error::Result,
        page::Page,
        rows::RowSet,
        values::{Values, to_usize},
    },
};

/// The spans whose values are wanted.
pub(super) struct Chosen {
    /// Ascending.
    pub(super) spans: Vec<u32>,
    pub(super) rows: RowSet,
    pub(super) nesting: Arc<Nesting>,
    /// Offsets of their events and links, when wanted.
    pub(super) events: Option<Offsets>,
    pub(super) links: Option<Offsets>,
}

impl Chosen {
    pub(super) fn new(group: &mut Group<'_>, spans: Vec<u32>) -> Result<Self> {
        let nesting = group.nesting()?;
        let rows = nesting.rows(&spans);
        Ok(Self { spans, rows, nesting, events: None, links: None })
    }

    /// Finds how many events (links) each span has.
    pub(super) fn count_children(&mut self, group: &mut Group<'_>, owner: Owner) -> Result<()> {
        let leaf = match owner {
            Owner::Event => group.columns.span.events.name,
            _ => group.columns.span.links.trace_id,
        };
        let (spans, nesting) = (&self.spans, &self.nesting);
        let max_def = group.block().shape(leaf)?.max_def;
        let mut offsets = vec![0u32; spans.len() + 1];
        group.pages(leaf, &self.rows, |page| {
            each_child(page, nesting, spans, max_def, |child| {
                offsets[child.span + 1] += 1;
                Ok(())
            })
        })?;
        let mut sum = 0;
        for end in &mut offsets {
            sum += *end;
            *end = sum;
        }
        match owner {
            Owner::Event => self.events = Some(offsets),
            _ => self.links = Some(offsets),
        }
        Ok(())
    }

    /// The owners whose values are loaded, and how many output rows they have.
    fn targets(&self, owner: Owner) -> Targets<'_> {
        match owner {
            Owner::Event => Targets { owner, numbers: &self.spans, offsets: self.events.as_ref(), own: Vec::new() },
            Owner::Link => Targets { owner, numbers: &self.spans, offsets: self.links.as_ref(), own: Vec::new() },
            Owner::Span => Targets { owner, numbers: &self.spans, offsets: None, own: Vec::new() },
            Owner::Row | Owner::Resource | Owner::Scope => {
                Targets { owner, numbers: &[], offsets: None, own: self.nesting.owners(owner, &self.spans).0 }
            }
        }
    }
}

/// Owners by number and their output rows.
struct Targets<'c> {
    owner: Owner,
    numbers: &'c [u32],
    offsets: Option<&'c Offsets>,
    own: Vec<u32>,
}

impl Targets<'_> {
    fn numbers(&self) -> &[u32] {
        if self.own.is_empty() { self.numbers } else { &self.own }
    }

    fn len(&self) -> usize {
        match self.offsets {
            Some(offsets) => offsets.last().map_or(0, |last| to_usize(*last)),
            None => self.numbers().len(),
        }
    }

    /// Pairs of (position in the page, output row) of the wanted owners that begin in the page, ascending.
    fn in_page(&self, page: &Page, nesting: &Nesting) -> Result<Vec<(u32, u32)>> {
        let (first, end) = bounds(page, nesting, self.owner);
        let numbers = self.numbers();
        let from = numbers.partition_point(|number| *number < first);
        let to = numbers.partition_point(|number| *number < end);
        let wanted = numbers[from..to].iter().zip(from..);
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        Ok(wanted.map(|(owner, index)| (owner - first, number(index))).collect())
    }

    /// As [`Self::in_page`], where these owners are side by side: their places in the page and their output rows.
    fn gapless_in_page(
        &self,
        page: &Page,
        nesting: &Nesting,
    ) -> Option<(std::ops::Range<usize>, std::ops::Range<u32>)> {
        let (first, end) = bounds(page, nesting, self.owner);
        let numbers = self.numbers();
        let from = numbers.partition_point(|number| *number < first);
        let to = numbers.partition_point(|number| *number < end);
        let owners = side_by_side(&numbers[from..to])?;
        let rows = u32::try_from(from).ok()?..u32::try_from(to).ok()?;
        Some((to_usize(owners.start - first)..to_usize(owners.end - first), rows))
    }

    /// Calls `each` with the output row of every wanted event or link in the page, in order.
    fn children(
        &self,
        offsets: &Offsets,
        page: &Page,
        nesting: &Nesting,
        max_def: u8,
        mut each: impl FnMut(u32, Child) -> Result<()>,
    ) -> Result<()> {
        let mut next = (usize::MAX, 0);
        each_child(page, nesting, self.numbers, max_def, |child| {
            if next.0 != child.span {
                next = (child.span, offsets[child.span]);
            }
            let row = next.1;
            next.1 += 1;
            if row < offsets[child.span + 1] { each(row, child) } else { Err(inconsistent()) }
        })
    }
}

/// The column of `field` for the chosen spans (or their events or links).
pub(super) fn load(group: &mut Group<'_>, chosen: &Chosen, field: &Field) -> Result<Column> {
    let place = place(group.block(), field);
    let (owner, column) = match &place {
        Place::Unknown => return Ok(Column::Nil),
        Place::Row(leaf) => (Owner::Row, required(group, chosen, Owner::Row, *leaf, field)?),
        Place::Required(owner, leaf) | Place::Child(owner, leaf) => {
            (*owner, required(group, chosen, *owner, *leaf, field)?)
        }
        Place::Attribute { owner, generic, direct } => (*owner, attribute(group, chosen, *owner, generic, *direct)?),
    };
    Ok(match owner {
        Owner::Row | Owner::Resource | Owner::Scope => column.take(&chosen.nesting.owners(owner, &chosen.spans).1),
        Owner::Span | Owner::Event | Owner::Link => column,
    })
}

/// One value for each owner.
fn required(group: &mut Group<'_>, chosen: &Chosen, owner: Owner, leaf: usize, field: &Field) -> Result<Column> {
    let targets = chosen.targets(owner);
    let mut items = Items::new(group, leaf)?;
    let max_def = group.block().shape(leaf)?.max_def;
    group.pages(leaf, &chosen.rows, |page| {
        if let Some(offsets) = targets.offsets {
            return targets.children(offsets, page, &chosen.nesting, max_def, |_, child| {
                child.values.into_iter().try_for_each(|index| items.push(&page.values, index))
            });
        }
        if let Some((places, _)) = targets.gapless_in_page(page, &chosen.nesting) {
            return items.extend(&page.values, places);
        }
        for (place, _) in targets.in_page(page, &chosen.nesting)? {
            items.push(&page.values, to_usize(place))?;
        }
        Ok(())
    })?;
    if items.len() != targets.len() {
        return Err(inconsistent());
    }
    Ok(match field {
        Field::Intrinsic(Intrinsic::Status | Intrinsic::Kind) => Column::Code(items.codes()),
        Field::Intrinsic(Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId) => {
            Column::SpanId(items.texts().map(|text| id8(&text)).collect())
        }
        Field::Intrinsic(Intrinsic::LinkTraceId) => {
            let texts: Vec<String> = items.texts().map(|id| short_hex(&id)).collect();
            Column::Str(Str::from_texts(texts.iter().map(|text| Some(text.as_str()))))
        }
        Field::Intrinsic(_) | Field::Attribute { .. } => items.column(group)?,
    })
}

/// Values of one leaf, not yet a column.
pub(super) struct Items {
    leaf: usize,
    dictionary: Option<Arc<Values>>,
    form: Form,
}

enum Form {
    Nothing,
    Ids(Vec<u32>),
    Texts(Vec<bytes::Bytes>),
    Ints(Vec<i64>),
    Doubles(Vec<f64>),
    Bools(Vec<bool>),
}

impl Items {
    pub(super) fn new(group: &mut Group<'_>, leaf: usize) -> Result<Self> {
        Ok(Self { leaf, dictionary: group.dictionary(leaf)?, form: Form::Nothing })
    }

    pub(super) fn len(&self) -> usize {
        match &self.form {
            Form::Nothing => 0,
            Form::Ids(ids) => ids.len(),
            Form::Texts(texts) => texts.len(),
            Form::Ints(ints) => ints.len(),
            Form::Doubles(doubles) => doubles.len(),
            Form::Bools(bools) => bools.len(),
        }
    }

    /// Adds one of some values, all of which are of this leaf.
    pub(super) fn push(&mut self, values: &Values, index: usize) -> Result<()> {
        if let Form::Nothing = self.form {
            self.form = match values {
                Values::Ids(_) => Form::Ids(Vec::new()),
                Values::Bytes(_) => Form::Texts(Vec::new()),
                Values::Ints(_) => Form::Ints(Vec::new()),
                Values::Doubles(_) => Form::Doubles(Vec::new()),
                Values::Bools(_) => Form::Bools(Vec::new()),
            };
        }
        // A chunk may fall back from its dictionary to texts written out: then all become texts.
        if let (Form::Ids(ids), Values::Bytes(_)) = (&self.form, values) {
            let texts =
                ids.iter().map(|id| bytes::Bytes::copy_from_slice(self.entry(*id).unwrap_or_default())).collect();
            self.form = Form::Texts(texts);
        }
        let dictionary = self.dictionary.as_deref();
        match (&mut self.form, values) {
            (Form::Ids(ids), Values::Ids(values)) => ids.push(values.id(index).ok_or_else(inconsistent)?),
            (Form::Texts(texts), Values::Bytes(values)) => texts.push(values.bytes(index).ok_or_else(inconsistent)?),
            (Form::Texts(texts), Values::Ids(_)) => {
                texts.push(bytes::Bytes::copy_from_slice(text_of(values, dictionary, index).ok_or_else(inconsistent)?));
            }
            (Form::Ints(ints), Values::Ints(values)) => ints.push(values.get(index).ok_or_else(inconsistent)?),
            (Form::Doubles(all), Values::Doubles(values)) => all.push(*values.get(index).ok_or_else(inconsistent)?),
            (Form::Bools(all), Values::Bools(values)) => all.push(*values.get(index).ok_or_else(inconsistent)?),
            _ => return Err(inconsistent()),
        }
        Ok(())
    }

    /// Adds some values that stand side by side.
    fn extend(&mut self, values: &Values, range: std::ops::Range<usize>) -> Result<()> {
        if range.end > values.len() {
            return Err(inconsistent());
        }
        match (&mut self.form, values) {
            (Form::Ids(ids), Values::Ids(values)) => values.extend_ids(range, ids),
            (Form::Ints(ints), Values::Ints(values)) => values.extend(range, ints),
            _ => {
                let mut rest = range;
                // The first value says which form it is.
                if let Some(first) = rest.next() {
                    self.push(values, first)?;
                    match (&mut self.form, values) {
                        (Form::Ids(ids), Values::Ids(values)) => values.extend_ids(rest, ids),
                        (Form::Ints(ints), Values::Ints(values)) => values.extend(rest, ints),
                        _ => rest.into_iter().try_for_each(|index| self.push(values, index))?,
                    }
                }
            }
        }
        Ok(())
    }

    /// What was added, in as little memory as it needs.
    pub(super) fn values(self) -> Values {
        match self.form {
            Form::Nothing => Values::Bools(Vec::new()),
            Form::Ids(ids) => Values::Ids(ids.into()).pack(),
            Form::Ints(ints) => Values::Ints(ints.into()).pack(),
            Form::Doubles(doubles) => Values::Doubles(doubles),
            Form::Bools(bools) => Values::Bools(bools),
            Form::Texts(texts) => Values::Bytes(texts.iter().map(|text| &text[..]).collect()),
        }
    }

    fn entry(&self, id: u32) -> Option<&[u8]> {
        match self.dictionary.as_deref() {
            Some(Values::Bytes(entries)) => entries.get(to_usize(id)),
            _ => None,
        }
    }

    fn codes(self) -> Vec<u8> {
        match self.form {
            Form::Ints(ints) => ints.into_iter().map(|code| u8::try_from(code).unwrap_or(0)).collect(),
            _ => Vec::new(),
        }
    }

    fn texts(&self) -> impl Iterator<Item = bytes::Bytes> + '_ {
        (0..self.len()).map(|index| match &self.form {
            Form::Texts(texts) => texts[index].clone(),
            Form::Ids(ids) => bytes::Bytes::copy_from_slice(self.entry(ids[index]).unwrap_or_default()),
            _ => bytes::Bytes::new(),
        })
    }

    /// One row for each item.
    fn column(self, group: &mut Group<'_>) -> Result<Column> {
        Ok(match self.form {
            Form::Nothing => Column::Nil,
            Form::Ids(ids) => Column::Str(ids_column(group, self.leaf, self.dictionary.as_deref(), ids)?),
            Form::Texts(texts) => {
                let mut interner = Interner::default();
                let ids = texts.iter().map(|text| interner.id(text)).collect();
                Column::Str(Str { dict: interner.finish(), ids })
            }
            Form::Ints(values) => Column::Int { values, valid: None },
            Form::Doubles(values) => Column::Float { values, valid: None },
            Form::Bools(values) => Column::Bool { values: Bitmap::from_slice(&values, |value| *value), valid: None },
        })
    }
}

/// Ids of the chunk's dictionary as a column: with the whole dictionary where many are wanted, else with the few entries in use.
fn ids_column(group: &mut Group<'_>, leaf: usize, dictionary: Option<&Values>, ids: Vec<u32>) -> Result<Str> {
    let Some(Values::Bytes(entries)) = dictionary else { return Err(inconsistent()) };
    if group.has_texts(leaf) || ids.len() >= entries.len() / 4 {
        return Ok(Str { dict: group.texts(leaf, entries)?, ids });
    }
    let mut used: HashMap<u32, u32> = HashMap::new();
    let mut few = Dictionary::default();
    let ids = ids
        .into_iter()
        .map(|id| *used.entry(id).or_insert_with(|| few.push(&lossy(entries.get(to_usize(id)).unwrap_or_default()))))
        .collect();
    Ok(Str { dict: Arc::new(few), ids })
}

/// An attribute: from the generic list, and where that has none from the column of its own.
fn attribute(
    group: &mut Group<'_>,
    chosen: &Chosen,
    owner: Owner,
    generic: &Generic,
    direct: Option<Direct>,
) -> Result<Column> {
    let targets = chosen.targets(owner);
    let rows = targets.len();
    let mut taken = Bitmap::zeros(rows);
    let mut members = Vec::new();
    if let Some(kept) = kept_columns(group, chosen, &targets, generic)? {
        for (leaf, column) in kept {
            let mut items = Items::new(group, leaf)?;
            let mut ranges: Vec<(u32, u32)> = Vec::new();
            for (number, row) in targets.numbers().iter().zip(0u32..) {
                for attribute in column.of_owners(*number..number.saturating_add(1)) {
                    let values = column.values_of(attribute..attribute + 1);
                    ranges.push((row, u32::try_from(values.len()).unwrap_or(u32::MAX)));
                    taken.set(to_usize(row), true);
                    values.into_iter().try_for_each(|index| items.push(column.values(), index))?;
                }
            }
            members.extend(scattered(items.column(group)?, &ranges, rows));
        }
    } else {
        let found = wanted_hits(group, chosen, &targets, generic)?;
        if !found.list.is_empty() {
            generic_columns(group, generic, &found, &mut taken, &mut members)?;
        }
    }
    if let Some(direct) = direct
        && (direct.required || !group.is_empty(direct.leaf)?)
    {
        members.extend(direct_column(group, chosen, &targets, direct, &taken)?);
    }
    Ok(match members.len() {
        0 => Column::Nil,
        1 => members.swap_remove(0),
        _ => Column::Union(members),
    })
}

/// Typed columns of an attribute, each with the leaf that its values are of.
type ByType = Vec<(usize, Arc<AttributeColumn>)>;

/// The attribute as columns by type, where it is at hand as such and nobody has it twice or without a value.
fn kept_columns(
    group: &mut Group<'_>,
    chosen: &Chosen,
    targets: &Targets<'_>,
    generic: &Generic,
) -> Result<Option<ByType>> {
    if targets.offsets.is_some() {
        return Ok(None);
    }
    let leaves = &generic.leaves;
    let mut kept = Vec::new();
    let mut with_value = 0;
    for leaf in [leaves.value, leaves.value_int, leaves.value_double, leaves.value_bool] {
        if group.is_empty(leaf)? {
            continue;
        }
        let column = group.attribute(&chosen.nesting, targets.owner, generic, leaf, &chosen.rows)?;
        let Some(column) = column.filter(|column| column.is_unique()) else { return Ok(None) };
        with_value += column.len();
        let all = with_value == column.keyed();
        if column.len() > 0 {
            kept.push((leaf, column));
        }
        if all {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

/// The first attribute with the key for each target; the owner of a hit becomes its output row.
fn wanted_hits(group: &mut Group<'_>, chosen: &Chosen, targets: &Targets<'_>, generic: &Generic) -> Result<Hits> {
    let mut found = Hits::default();
    if let Some(Values::Bytes(keys)) = group.dictionary(generic.leaves.key)?.as_deref()
        && !keys.iter().any(|key| *key == *generic.name)
    {
        return Ok(found);
    }
    let Some(offsets) = targets.offsets else {
        let numbers = targets.numbers();
        let mut next = 0;
        let all = hits(group, &chosen.nesting, targets.owner, generic, &chosen.rows)?;
        found.pages = all.pages;
        for hit in all.list {
            while numbers.get(next).is_some_and(|number| *number < hit.owner) {
                next += 1;
            }
            let row = u32::try_from(next).unwrap_or(u32::MAX);
            if numbers.get(next) == Some(&hit.owner) && found.list.last().is_none_or(|last| last.owner != row) {
                found.list.push(Hit { owner: row, ..hit });
            }
        }
        return Ok(found);
    };
    let leaf = generic.leaves.key;
    let dictionary = group.dictionary(leaf)?;
    let max_def = group.block().shape(leaf)?.max_def;
    group.pages(leaf, &chosen.rows, |page| {
        targets.children(offsets, page, &chosen.nesting, max_def, |owner, child| {
            let is_key = |place: &usize| text(page, dictionary.as_deref(), *place) == Some(&generic.name);
            if let Some(place) = child.values.clone().find(is_key) {
                let nth = u32::try_from(place - child.before_row).unwrap_or(u32::MAX);
                // Without the pages of keys nobody looks at the entry.
                found.list.push(Hit { row: child.row, nth, owner, entry: 0 });
            }
            Ok(())
        })
    })?;
    Ok(found)
}

/// One column for each type that occurs.
fn generic_columns(
    group: &mut Group<'_>,
    generic: &Generic,
    found: &Hits,
    taken: &mut Bitmap,
    members: &mut Vec<Column>,
) -> Result<()> {
    let rows = taken.len();
    let leaves = &generic.leaves;
    let mut open = found.list.len();
    for leaf in [leaves.value, leaves.value_int, leaves.value_double, leaves.value_bool] {
        if open == 0 || group.is_empty(leaf)? {
            continue;
        }
        let mut items = Items::new(group, leaf)?;
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut failed = None;
        hit_values(group, leaf, generic.level, found, |page, hit, range| {
            let row = found.list[hit].owner;
            if taken.get(to_usize(row)) {
                return;
            }
            let count = u32::try_from(range.len()).unwrap_or(u32::MAX);
            ranges.push((row, count));
            if let Err(error) = range.into_iter().try_for_each(|index| items.push(&page.values, index)) {
                failed.get_or_insert(error);
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        open -= ranges.len();
        ranges.iter().for_each(|(row, _)| taken.set(to_usize(*row), true));
        members.extend(scattered(items.column(group)?, &ranges, rows));
    }
    if open > 0 {
        members.extend(empty_arrays(group, generic, found, taken)?);
    }
    Ok(())
}

/// Puts values, of which each row of `ranges` has some, into a column of `rows` rows.
fn scattered(items: Column, ranges: &[(u32, u32)], rows: usize) -> Option<Column> {
    if ranges.is_empty() {
        return None;
    }
    let single = ranges.iter().all(|(_, count)| *count == 1);
    if single && ranges.len() == rows {
        return Some(items);
    }
    let mut valid = Bitmap::zeros(rows);
    ranges.iter().for_each(|(row, _)| valid.set(to_usize(*row), true));
    if !single {
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut next = ranges.iter().peekable();
        let mut total = 0;
        for row in 0..rows {
            offsets.push(total);
            if let Some((_, count)) = next.next_if(|(wanted, _)| to_usize(*wanted) == row) {
                total += count;
            }
        }
        offsets.push(total);
        return Some(Column::List { offsets, valid: Some(valid), items: Box::new(items) });
    }
    let places = ranges.iter().map(|(row, _)| to_usize(*row));
    Some(match items {
        Column::Str(column) => {
            let mut ids = vec![NIL_ID; rows];
            places.zip(&column.ids).for_each(|(row, id)| ids[row] = *id);
            Column::Str(Str { dict: column.dict, ids })
        }
        Column::Int { values: items, .. } => {
            let mut values = vec![0; rows];
            places.zip(&items).for_each(|(row, value)| values[row] = *value);
            Column::Int { values, valid: Some(valid) }
        }
        Column::Float { values: items, .. } => {
            let mut values = vec![0.0; rows];
            places.zip(&items).for_each(|(row, value)| values[row] = *value);
            Column::Float { values, valid: Some(valid) }
        }
        Column::Bool { values: items, .. } => {
            let mut values = Bitmap::zeros(rows);
            places.enumerate().for_each(|(index, row)| values.set(row, items.get(index)));
            Column::Bool { values, valid: Some(valid) }
        }
        other => other,
    })
}

/// Attributes without any value are empty arrays when they say that they are arrays, else of a kind the language does not see.
fn empty_arrays(group: &mut Group<'_>, generic: &Generic, found: &Hits, taken: &mut Bitmap) -> Result<Option<Column>> {
    let mut rows = Vec::new();
    hit_values(group, generic.leaves.is_array, generic.level, found, |page, hit, range| {
        let row = to_usize(found.list[hit].owner);
        let is_array = matches!(&page.values, Values::Bools(flags) if flags.get(range.start) == Some(&true));
        if is_array && !taken.get(row) {
            rows.push(row);
        }
    })?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut values = vec![Value::Nil; taken.len()];
    for row in rows {
        taken.set(row, true);
        values[row] = Value::list(Vec::new());
    }
    Ok(Some(Column::Values(values)))
}

/// The column that the attribute has of its own, without the rows that are `taken`.
fn direct_column(
    group: &mut Group<'_>,
    chosen: &Chosen,
    targets: &Targets<'_>,
    direct: Direct,
    taken: &Bitmap,
) -> Result<Option<Column>> {
    let leaf = direct.leaf;
    let mut items = Items::new(group, leaf)?;
    let dictionary = group.dictionary(leaf)?;
    let max_def = group.block().shape(leaf)?.max_def;
    let (unit, level) = (value(max_def), targets.owner.level());
    let never_empty = direct.required
        && !taken.any()
        && matches!(dictionary.as_deref(), Some(Values::Bytes(entries)) if !entries.iter().any(<[u8]>::is_empty));
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    group.pages(leaf, &chosen.rows, |page| {
        if page.values.len() == 0 {
            return Ok(());
        }
        if let Some(offsets) = targets.offsets {
            return targets.children(offsets, page, &chosen.nesting, max_def, |row, child| {
                if !taken.get(to_usize(row)) && !child.values.is_empty() {
                    ranges.push((row, u32::try_from(child.values.len()).unwrap_or(u32::MAX)));
                    child.values.into_iter().try_for_each(|index| items.push(&page.values, index))?;
                }
                Ok(())
            });
        }
        if never_empty
            && matches!(page.values, Values::Ids(_))
            && let Some((places, rows)) = targets.gapless_in_page(page, &chosen.nesting)
        {
            ranges.extend(rows.map(|row| (row, 1)));
            return items.extend(&page.values, places);
        }
        // A required column has as many values as owners, so its levels say nothing more.
        let starts = if direct.required { Arc::default() } else { prefix(page, (level, level), unit) };
        for (place, row) in targets.in_page(page, &chosen.nesting)? {
            if taken.get(to_usize(row)) {
                continue;
            }
            let at = to_usize(place);
            let values = if direct.required {
                let empty = text(page, dictionary.as_deref(), at).is_none_or(<[u8]>::is_empty);
                at..at + usize::from(!empty)
            } else {
                let (start, end) = starts.get(at).zip(starts.get(at + 1)).ok_or_else(inconsistent)?;
                to_usize(*start)..to_usize(*end)
            };
            if values.is_empty() {
                continue;
            }
            ranges.push((row, u32::try_from(values.len()).unwrap_or(u32::MAX)));
            for index in values {
                items.push(&page.values, index)?;
            }
        }
        Ok(())
    })?;
    Ok(scattered(items.column(group)?, &ranges, targets.len()))
}

/// Integers of a column with one value a row, for the rows given.
pub(super) fn row_ints(group: &mut Group<'_>, leaf: usize, rows: &RowSet) -> Result<Vec<i64>> {
    let mut found = Vec::with_capacity(to_usize(rows.len()));
    group.pages(leaf, rows, |page| {
        let Values::Ints(values) = &page.values else { return Err(inconsistent()) };
        for range in rows.within(page.first_row, values.len()) {
            values.extend(range, &mut found);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Byte strings of a column with one value a row, for the rows given.
pub(super) fn row_texts(group: &mut Group<'_>, leaf: usize, rows: &RowSet) -> Result<Vec<bytes::Bytes>> {
    let dictionary = group.dictionary(leaf)?;
    let mut found = Vec::new();
    group.pages(leaf, rows, |page| {
        for index in rows.within(page.first_row, page.len).flatten() {
            let text = text(page, dictionary.as_deref(), index).ok_or_else(inconsistent)?;
            found.push(bytes::Bytes::copy_from_slice(text));
        }
        Ok(())
    })?;
    Ok(found)
}

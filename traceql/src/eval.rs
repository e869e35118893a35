//! Programs over columns. Filters work a column at a time and test each dictionary entry once; only what compares
//! or computes with several fields goes row by row.

mod chosen;
mod test;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

pub(crate) use chosen::{Choice, Chosen};

use crate::{
    bitmap::Bitmap,
    column::{Column, Dictionary, NIL_ID, Str, hex},
    condition::{Condition, Test},
    fetch::{Offsets, SpanBatch},
    field::{Field, Intrinsic, Level},
    program::{Program, Scalar, Slot},
    value::{Type, Value},
};

/// Columns with one row per candidate: a span, or a span with one of its events and one of its links.
pub(crate) struct View<'a> {
    rows: usize,
    fields: &'a [Field],
    columns: Vec<Cow<'a, Column>>,
    /// Rows that stand for an event (link); `None` when every row reads the first one.
    has_event: Option<Bitmap>,
    has_link: Option<Bitmap>,
    /// Whether a span without events (links) lacks whatever an event (a link) could have.
    none_lacks: bool,
}

/// The span of each row of an expanded view, and the event and link that it stands for; [`NIL_ID`] for none.
struct Candidates {
    spans: Vec<u32>,
    events: Vec<u32>,
    links: Vec<u32>,
}

/// Answers of a pattern for the entries of dictionaries, kept while batches share them.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// By test and by address of the dictionary.
    known: HashMap<(usize, usize), Verdict>,
}

/// A dictionary with the answer for each of its entries.
type Verdict = (Arc<Dictionary>, Arc<Bitmap>);

impl Verdicts {
    /// The dictionary is kept alive beside its answers, so an address never means another one.
    fn of(&mut self, id: usize, dict: &Arc<Dictionary>, condition: &Condition) -> Arc<Bitmap> {
        const MOST: usize = 256;
        if self.known.len() > MOST {
            self.known.clear();
        }
        let key = (id, Arc::as_ptr(dict).addr());
        let entry = self.known.entry(key).or_insert_with(|| (dict.clone(), Arc::new(dict.matching(condition))));
        entry.1.clone()
    }
}

impl<'a> View<'a> {
    /// One row per span. `fields` are those of the fetch, in order, then trace and structure intrinsics, whose
    /// columns are made here. Event and link columns show the first event and link.
    pub(crate) fn spans(batch: &'a SpanBatch, fields: &'a [Field]) -> Self {
        let rows = batch.len();
        let mut fetched = batch.columns.iter();
        let columns = fields
            .iter()
            .map(|field| match field.level() {
                Level::Trace => Cow::Owned(trace_column(batch, field)),
                Level::Span => match field {
                    Field::Intrinsic(intrinsic) if intrinsic.is_structure() => {
                        Cow::Owned(structure_column(batch, *intrinsic))
                    }
                    _ => fetched.next().map_or(Cow::Owned(Column::Nil), Cow::Borrowed),
                },
                level => {
                    let offsets = if level == Level::Event { &batch.events } else { &batch.links };
                    let first = first_of(offsets.as_ref(), rows);
                    fetched
                        .next()
                        .map_or(Cow::Owned(Column::Nil), |column| Cow::Owned(column.take_optional(&first, field)))
                }
            })
            .collect();
        Self { rows, fields, columns, has_event: None, has_link: None, none_lacks: false }
    }

    /// Says whether `event.x = nil` holds of spans without events, and the same of links.
    pub(crate) fn with_none_lacking(self, none_lacks: bool) -> Self {
        Self { none_lacks, ..self }
    }

    /// One row per span, event and link, and what each row stands for. Lists that are not read do not multiply.
    fn expanded(&self, batch: &'a SpanBatch, events: bool, links: bool) -> (View<'a>, Candidates) {
        let (mut spans, mut event_rows, mut link_rows) = (Vec::new(), Vec::new(), Vec::new());
        let candidates = |offsets: &Option<Offsets>, wanted: bool, span: usize| match offsets {
            Some(offsets) if wanted && offsets[span] < offsets[span + 1] => offsets[span]..offsets[span + 1],
            _ => NIL_ID - 1..NIL_ID,
        };
        for span in 0..self.rows {
            for event in candidates(&batch.events, events, span) {
                for link in candidates(&batch.links, links, span) {
                    spans.push(u32::try_from(span).unwrap_or(NIL_ID));
                    event_rows.push(if event == NIL_ID - 1 { NIL_ID } else { event });
                    link_rows.push(if link == NIL_ID - 1 { NIL_ID } else { link });
                }
            }
        }
        let mut fetched = 0;
        let columns = self
            .fields
            .iter()
            .enumerate()
            .map(|(index, field)| {
                let level = field.level();
                let own =
                    level != Level::Trace && !matches!(field, Field::Intrinsic(intrinsic) if intrinsic.is_structure());
                let original = batch.columns.get(fetched).filter(|_| own);
                fetched += usize::from(own);
                Cow::Owned(match (level, original) {
                    (Level::Event, Some(column)) if events => column.take_optional(&event_rows, field),
                    (Level::Link, Some(column)) if links => column.take_optional(&link_rows, field),
                    _ => self.columns[index].take(&spans),
                })
            })
            .collect();
        let view = View {
            rows: spans.len(),
            fields: self.fields,
            columns,
            has_event: (events && !self.none_lacks).then(|| Bitmap::from_slice(&event_rows, |row| *row != NIL_ID)),
            has_link: (links && !self.none_lacks).then(|| Bitmap::from_slice(&link_rows, |row| *row != NIL_ID)),
            none_lacks: self.none_lacks,
        };
        (view, Candidates { spans, events: event_rows, links: link_rows })
    }

    /// The spans for which some choice of an event and a link makes the program true; the first such choice is noted.
    pub(crate) fn select(
        &self,
        batch: &'a SpanBatch,
        program: &Program,
        verdicts: &mut Verdicts,
        chosen: &mut Chosen,
    ) -> Bitmap {
        let events = program.reads(Level::Event, self.fields);
        let links = program.reads(Level::Link, self.fields);
        if !events && !links {
            return self.run(program, verdicts);
        }
        let (view, candidates) = self.expanded(batch, events, links);
        let rows = view.run(program, verdicts);
        let mut selected = Bitmap::zeros(self.rows);
        for row in rows.ones_iter() {
            let span = candidates.spans[row] as usize;
            if !selected.get(span) {
                selected.set(span, true);
                chosen.note(self.rows, span, candidates.events[row], candidates.links[row]);
            }
        }
        selected
    }

    fn run(&self, program: &Program, verdicts: &mut Verdicts) -> Bitmap {
        match program {
            Program::Constant(value) => Bitmap::filled(self.rows, *value),
            Program::Test { slot, condition, id } => self.test(*slot, condition, *id, verdicts),
            Program::Not(inner) => {
                let mut map = self.run(inner, verdicts);
                map.negate();
                map
            }
            Program::All(parts) => {
                let mut all = Bitmap::ones(self.rows);
                for part in parts {
                    if !all.any() {
                        break;
                    }
                    match part {
                        // Row by row only where the columns before have left something.
                        Program::Rows { scalar, .. } => {
                            let mut kept = Bitmap::zeros(self.rows);
                            for row in all.ones_iter() {
                                if self.value(scalar, row) == Value::Bool(true) {
                                    kept.set(row, true);
                                }
                            }
                            all = kept;
                        }
                        part => all.and(&self.run(part, verdicts)),
                    }
                }
                all
            }
            Program::AnyOf(parts) => {
                let mut any = Bitmap::zeros(self.rows);
                for part in parts {
                    any.or(&self.run(part, verdicts));
                }
                any
            }
            Program::Rows { scalar, .. } => {
                Bitmap::from_fn(self.rows, |row| self.value(scalar, row) == Value::Bool(true))
            }
        }
    }

    fn test(&self, slot: Slot, condition: &Condition, id: usize, verdicts: &mut Verdicts) -> Bitmap {
        let one = |index: usize, verdicts: &mut Verdicts| {
            let field = &self.fields[index];
            test::column(&self.columns[index], self.rows, field, condition, id, verdicts)
        };
        match slot {
            Slot::One(index) => {
                let mut map = one(index, verdicts);
                // A span without events has no event that lacks the key.
                if condition.test == Test::Missing {
                    let owner = match self.fields[index].level() {
                        Level::Event => &self.has_event,
                        Level::Link => &self.has_link,
                        Level::Trace | Level::Span => &None,
                    };
                    if let Some(owner) = owner {
                        map.and(owner);
                    }
                }
                map
            }
            Slot::Either { span, resource } => {
                let mut map = one(span, verdicts);
                let mut behind = one(resource, verdicts);
                match condition.test {
                    Test::Missing => map.and(&behind),
                    _ => {
                        behind.and_not(&self.columns[span].presence(self.rows));
                        map.or(&behind);
                    }
                }
                map
            }
        }
    }

    /// From here on event and link columns show what was chosen of the span; where nothing was, or that lacks the value, the
    /// first event or link that has one, each for itself.
    pub(crate) fn show_values(&mut self, batch: &SpanBatch, chosen: &Chosen) {
        let mut fetched = 0;
        for (shown, field) in self.columns.iter_mut().zip(self.fields) {
            let offsets = match field.level() {
                Level::Trace => continue,
                Level::Span => {
                    fetched += usize::from(!matches!(field, Field::Intrinsic(intrinsic) if intrinsic.is_structure()));
                    continue;
                }
                Level::Event => &batch.events,
                Level::Link => &batch.links,
            };
            if let (Some(column), Some(offsets)) = (batch.columns.get(fetched), offsets) {
                let present = column.presence(offsets.last().map_or(0, |end| *end as usize));
                let level = field.level();
                let value = |(span, pair): (usize, &[u32])| {
                    let mut items = chosen.row(level, span).into_iter().chain(pair[0]..pair[1]);
                    items.find(|item| present.get(*item as usize)).unwrap_or(NIL_ID)
                };
                let rows: Vec<u32> = offsets.windows(2).enumerate().map(value).collect();
                *shown = Cow::Owned(column.take_optional(&rows, field));
            }
            fetched += 1;
        }
    }

    /// A column with its field.
    pub(crate) fn column(&self, index: usize) -> (&Column, &Field) {
        let column: &Column = &self.columns[index];
        (column, &self.fields[index])
    }

    /// The value of a slot in a row.
    pub(crate) fn slot_value(&self, slot: Slot, row: usize) -> Value {
        match slot {
            Slot::One(index) => self.columns[index].value(row, &self.fields[index]),
            Slot::Either { span, resource } => {
                let own = self.columns[span].value(row, &self.fields[span]);
                if own.is_nil() { self.columns[resource].value(row, &self.fields[resource]) } else { own }
            }
        }
    }

    /// The value of an expression in a row; nil where the language has no answer.
    pub(crate) fn value(&self, scalar: &Scalar, row: usize) -> Value {
        match scalar {
            Scalar::Literal(value) => value.clone(),
            Scalar::Field(slot) => self.slot_value(*slot, row),
            Scalar::Negate(inner) => crate::arithmetic::negate(&self.value(inner, row)).unwrap_or_default(),
            Scalar::Not(inner) => match self.value(inner, row) {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Nil,
            },
            Scalar::Exists(inner) => Value::Bool(!self.value(inner, row).is_nil()),
            Scalar::Missing(inner) => Value::Bool(self.value(inner, row).is_nil()),
            Scalar::Compare(op, left, right) => {
                Value::Bool(self.value(left, row).compare(*op, &self.value(right, row)))
            }
            Scalar::Match { text, pattern, negated } => {
                Value::Bool(matches!(self.value(text, row), Value::Str(text) if pattern.is_match(&text) != *negated))
            }
            Scalar::Arithmetic(op, left, right) => {
                op.apply(&self.value(left, row), &self.value(right, row)).unwrap_or_default()
            }
            Scalar::And(left, right) => Value::Bool(self.is_true(left, row) && self.is_true(right, row)),
            Scalar::Or(left, right) => Value::Bool(self.is_true(left, row) || self.is_true(right, row)),
            Scalar::Test(slot, condition) => {
                let value = self.slot_value(*slot, row);
                let owned = match slot {
                    Slot::One(index) if condition.test == Test::Missing => match self.fields[*index].level() {
                        Level::Event => self.has_event.as_ref().is_none_or(|has| has.get(row)),
                        Level::Link => self.has_link.as_ref().is_none_or(|has| has.get(row)),
                        Level::Trace | Level::Span => true,
                    },
                    _ => true,
                };
                Value::Bool(owned && condition.matches(&value))
            }
        }
    }

    /// Anything but `true` counts as false.
    fn is_true(&self, scalar: &Scalar, row: usize) -> bool {
        self.value(scalar, row) == Value::Bool(true)
    }
}

/// The first event (link) of every span, [`NIL_ID`] for none.
fn first_of(offsets: Option<&Offsets>, rows: usize) -> Vec<u32> {
    match offsets {
        Some(offsets) => offsets.windows(2).map(|pair| if pair[0] < pair[1] { pair[0] } else { NIL_ID }).collect(),
        None => vec![NIL_ID; rows],
    }
}

fn structure_column(batch: &SpanBatch, intrinsic: Intrinsic) -> Column {
    let Some(structure) = &batch.structure else { return Column::Nil };
    let numbers = match intrinsic {
        Intrinsic::NestedSetLeft => &structure.left,
        Intrinsic::NestedSetRight => &structure.right,
        _ => &structure.parent,
    };
    Column::Int { values: numbers.iter().map(|number| i64::from(*number)).collect(), valid: None }
}

/// A trace's value repeated for its spans.
fn trace_column(batch: &SpanBatch, field: &Field) -> Column {
    if field.static_type() == Type::Duration {
        let mut values = Vec::with_capacity(batch.len());
        for trace in &batch.traces {
            values.resize(trace.spans.end as usize, i64::try_from(trace.duration_ns).unwrap_or(i64::MAX));
        }
        return Column::Int { values, valid: None };
    }
    let mut dict = Dictionary::default();
    let mut ids = Vec::with_capacity(batch.len());
    let mut seen: HashMap<Arc<str>, u32> = HashMap::new();
    for trace in &batch.traces {
        let text: Arc<str> = match field {
            Field::Intrinsic(Intrinsic::RootName) => trace.root_name.clone(),
            Field::Intrinsic(Intrinsic::RootServiceName) => trace.root_service.clone(),
            _ => hex(&trace.id).trim_start_matches('0').into(),
        };
        let id = *seen.entry(text).or_insert_with_key(|text| dict.push(text));
        ids.resize(trace.spans.end as usize, id);
    }
    Column::Str(Str { dict: Arc::new(dict), ids })
}

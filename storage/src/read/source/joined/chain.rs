//! Columns of one field, one behind the other.

use std::{mem::discriminant, sync::Arc};

use vivace_traceql::{Bitmap, Column, Dictionary, NIL_ID, Str, Value};

/// Collects the columns that one field has in several batches as one column.
#[derive(Default)]
pub(super) struct Chain {
    rows: usize,
    /// One for each form that came, each with all rows so far.
    members: Vec<Member>,
}

/// A column that grows. Where a row has no value in it, the value is meaningless and not valid.
enum Member {
    /// Items of lists that are all empty.
    Nothing,
    Texts {
        dictionary: Dictionary,
        ids: Vec<u32>,
    },
    Ints(Vec<i64>, Bitmap),
    Floats(Vec<f64>, Bitmap),
    Bools(Bitmap, Bitmap),
    Codes(Vec<u8>),
    SpanIds(Vec<[u8; 8]>),
    Lists {
        offsets: Vec<u32>,
        valid: Bitmap,
        items: Box<Member>,
    },
    Values(Vec<Value>),
}

impl Chain {
    /// Adds a column of so many rows.
    pub(super) fn add(&mut self, column: Column, rows: usize) {
        self.put(column);
        self.rows += rows;
        for member in &mut self.members {
            member.fill(self.rows);
        }
    }

    fn put(&mut self, column: Column) {
        match column {
            Column::Nil => {}
            Column::Union(members) => members.into_iter().for_each(|member| self.put(member)),
            column => {
                // A form can come twice in one column, as lists of texts and of numbers do.
                let free = |member: &&mut Member| member.fits(&column) && member.len() == self.rows;
                if let Some(member) = self.members.iter_mut().find(free) {
                    member.grow(column);
                    return;
                }
                let mut member = Member::like(&column);
                member.fill(self.rows);
                member.grow(column);
                self.members.push(member);
            }
        }
    }

    /// About how much memory it takes.
    pub(super) fn memory(&self) -> usize {
        self.members.iter().map(Member::memory).sum()
    }

    pub(super) fn finish(self) -> Column {
        let mut columns: Vec<Column> = self.members.into_iter().map(Member::finish).collect();
        match columns.len() {
            0 => Column::Nil,
            1 => columns.remove(0),
            _ => Column::Union(columns),
        }
    }
}

impl Member {
    /// An empty one for such columns.
    fn like(column: &Column) -> Self {
        match column {
            Column::Nil | Column::Union(_) => Self::Nothing,
            Column::Str(_) => Self::Texts { dictionary: Dictionary::default(), ids: Vec::new() },
            Column::Int { .. } => Self::Ints(Vec::new(), Bitmap::zeros(0)),
            Column::Float { .. } => Self::Floats(Vec::new(), Bitmap::zeros(0)),
            Column::Bool { .. } => Self::Bools(Bitmap::zeros(0), Bitmap::zeros(0)),
            Column::Code(_) => Self::Codes(Vec::new()),
            Column::SpanId(_) => Self::SpanIds(Vec::new()),
            Column::List { items, .. } => {
                Self::Lists { offsets: vec![0], valid: Bitmap::zeros(0), items: Box::new(Self::like(items)) }
            }
            Column::Values(_) => Self::Values(Vec::new()),
        }
    }

    fn fits(&self, column: &Column) -> bool {
        match (self, column) {
            (Self::Lists { items, .. }, Column::List { items: other, .. }) => items.fits(other),
            _ => discriminant(self) == discriminant(&Self::like(column)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Texts { ids, .. } => ids.len(),
            Self::Ints(values, _) => values.len(),
            Self::Floats(values, _) => values.len(),
            Self::Bools(values, _) => values.len(),
            Self::Codes(codes) => codes.len(),
            Self::SpanIds(ids) => ids.len(),
            Self::Lists { valid, .. } => valid.len(),
            Self::Values(values) => values.len(),
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Texts { dictionary, ids } => dictionary.memory() + size_of::<u32>() * ids.capacity(),
            Self::Ints(values, _) => size_of::<i64>() * values.capacity(),
            Self::Floats(values, _) => size_of::<f64>() * values.capacity(),
            Self::Bools(values, valid) => (values.len() + valid.len()) / 8,
            Self::Codes(codes) => codes.capacity(),
            Self::SpanIds(ids) => size_of::<[u8; 8]>() * ids.capacity(),
            Self::Lists { offsets, items, .. } => size_of::<u32>() * offsets.capacity() + items.memory(),
            Self::Values(values) => values.iter().map(|value| size_of::<Value>() + value.memory()).sum(),
        }
    }

    /// Adds the rows of a column that [fits](Self::fits).
    fn grow(&mut self, column: Column) {
        match (self, column) {
            (Self::Texts { dictionary, ids }, Column::Str(column)) => {
                // Only texts that are used, so that of a large dictionary a few spans take little.
                let mut numbers = vec![NIL_ID; column.dict.len()];
                ids.extend(column.ids.iter().map(|id| {
                    let Some((number, text)) = numbers.get_mut(*id as usize).zip(column.dict.get(*id)) else {
                        return NIL_ID;
                    };
                    if *number == NIL_ID {
                        *number = dictionary.push(text);
                    }
                    *number
                }));
            }
            (Self::Ints(all, known), Column::Int { values, valid }) => {
                extend(known, valid.as_ref(), values.len());
                all.extend(values);
            }
            (Self::Floats(all, known), Column::Float { values, valid }) => {
                extend(known, valid.as_ref(), values.len());
                all.extend(values);
            }
            (Self::Bools(all, known), Column::Bool { values, valid }) => {
                extend(known, valid.as_ref(), values.len());
                extend(all, Some(&values), values.len());
            }
            (Self::Codes(all), Column::Code(codes)) => all.extend(codes),
            (Self::SpanIds(all), Column::SpanId(ids)) => all.extend(ids),
            (Self::Lists { offsets: all, valid: known, items: own }, Column::List { offsets, valid, items }) => {
                extend(known, valid.as_ref(), offsets.len().saturating_sub(1));
                let before = all.last().copied().unwrap_or(0);
                all.extend(offsets.iter().skip(1).map(|end| before + end));
                own.grow(*items);
            }
            (Self::Values(all), Column::Values(values)) => all.extend(values),
            _ => {}
        }
    }

    /// Makes it so many rows long, with rows that have no value.
    fn fill(&mut self, rows: usize) {
        match self {
            Self::Nothing => {}
            Self::Texts { ids, .. } => ids.resize(rows, NIL_ID),
            Self::Ints(values, valid) => {
                values.resize(rows, 0);
                blank(valid, rows);
            }
            Self::Floats(values, valid) => {
                values.resize(rows, 0.0);
                blank(valid, rows);
            }
            Self::Bools(values, valid) => {
                blank(values, rows);
                blank(valid, rows);
            }
            Self::Codes(codes) => codes.resize(rows, 0),
            Self::SpanIds(ids) => ids.resize(rows, [0; 8]),
            Self::Lists { offsets, valid, .. } => {
                let end = offsets.last().copied().unwrap_or(0);
                offsets.resize(rows + 1, end);
                blank(valid, rows);
            }
            Self::Values(values) => values.resize(rows, Value::Nil),
        }
    }

    fn finish(self) -> Column {
        match self {
            Self::Nothing => Column::Nil,
            Self::Texts { dictionary, ids } => Column::Str(Str { dict: Arc::new(dictionary), ids }),
            Self::Ints(values, valid) => Column::Int { values, valid: Some(valid) },
            Self::Floats(values, valid) => Column::Float { values, valid: Some(valid) },
            Self::Bools(values, valid) => Column::Bool { values, valid: Some(valid) },
            Self::Codes(codes) => Column::Code(codes),
            Self::SpanIds(ids) => Column::SpanId(ids),
            Self::Lists { offsets, valid, items } => {
                Column::List { offsets, valid: Some(valid), items: Box::new(items.present()) }
            }
            Self::Values(values) => Column::Values(values),
        }
    }

    /// As a column of which every row has a value.
    fn present(self) -> Column {
        match self.finish() {
            Column::Int { values, .. } => Column::Int { values, valid: None },
            Column::Float { values, .. } => Column::Float { values, valid: None },
            Column::Bool { values, .. } => Column::Bool { values, valid: None },
            column => column,
        }
    }
}

/// Adds so many bits; all of them are set where none are given.
fn extend(bits: &mut Bitmap, more: Option<&Bitmap>, count: usize) {
    for at in 0..count {
        bits.push(more.is_none_or(|more| more.get(at)));
    }
}

fn blank(bits: &mut Bitmap, rows: usize) {
    for _ in bits.len()..rows {
        bits.push(false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vivace_traceql::{Field, Scope};

    use super::*;

    /// A column of three rows in each form, some with rows that have no value.
    fn columns() -> Vec<Column> {
        let valid = Some([true, false, true].into_iter().collect::<Bitmap>());
        let ints = |valid| Column::Int { values: vec![1, 2, 3], valid };
        let texts = |all: [Option<&'static str>; 3]| Column::Str(Str::from_texts(all));
        let lists = |items| Column::List {
            offsets: vec![0, 2, 2, 3],
            valid: Some([true, false, true].into_iter().collect()),
            items: Box::new(items),
        };
        // A row has a value in at most one of the forms.
        let other_lists = Column::List {
            offsets: vec![0, 0, 2, 2],
            valid: Some([false, true, false].into_iter().collect()),
            items: Box::new(Column::Str(Str::from_texts([Some("x"), Some("y")]))),
        };
        vec![
            Column::Nil,
            ints(None),
            ints(valid.clone()),
            texts([Some("a"), None, Some("b")]),
            texts([Some("b"), Some("b"), Some("c")]),
            Column::Float { values: vec![1.5, 2.5, 3.5], valid: valid.clone() },
            Column::Bool { values: [true, true, false].into_iter().collect(), valid },
            lists(ints(None)),
            lists(texts([Some("a"), Some("x"), Some("b")])),
            Column::Union(vec![lists(ints(None)), other_lists]),
            Column::Union(vec![texts([None, Some("u"), None]), ints(Some([true, false, false].into_iter().collect()))]),
            Column::Values(vec![Value::Int(7), Value::Nil, Value::str("v")]),
        ]
    }

    proptest! {
        #[test]
        fn each_row_has_the_value_that_it_had(chosen in prop::collection::vec(0usize..12, 0..6)) {
            let field = Field::attribute(Scope::Span, "x");
            let (all, mut chain, mut due) = (columns(), Chain::default(), Vec::new());
            for at in chosen {
                due.extend((0..3).map(|row| all[at].value(row, &field)));
                chain.add(all[at].clone(), 3);
            }
            let column = chain.finish();
            prop_assert!(column.rows().is_none_or(|rows| rows == due.len()));
            for (row, due) in due.iter().enumerate() {
                prop_assert_eq!(&column.value(row, &field), due, "row {}", row);
            }
        }
    }
}

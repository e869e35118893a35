//! Builds a column of a batch value by value, in the narrowest form that holds what comes.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use vivace_traceql::{Bitmap, Column, Dictionary, NIL_ID, Str, Value};

/// One value as storage has it, before the language gives it a meaning.
#[derive(Debug, Clone)]
pub(crate) enum Cell<'a> {
    Nil,
    /// Text; invalid UTF-8 is replaced on output.
    Str(&'a [u8]),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Value>),
}

impl Cell<'_> {
    /// The value when it belongs to an attribute.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Nil => Value::Nil,
            Self::Str(text) => Value::str(&String::from_utf8_lossy(text)),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Bool(value) => Value::Bool(*value),
            Self::List(items) => Value::list(items.clone()),
        }
    }
}

/// Gives equal texts one id.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    ids: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    dictionary: Dictionary,
    /// The text of the id that was asked for last: values repeat in runs.
    last: Option<(Box<[u8]>, u32)>,
}

impl Interner {
    pub(crate) fn id(&mut self, text: &[u8]) -> u32 {
        if let Some((last, id)) = &self.last
            && **last == *text
        {
            return *id;
        }
        let id = match self.ids.get(text) {
            Some(id) => *id,
            None => {
                let id = self.dictionary.push(&lossy(text));
                self.ids.insert(text.into(), id);
                id
            }
        };
        match &mut self.last {
            Some((last, last_id)) if last.len() == text.len() => {
                last.copy_from_slice(text);
                *last_id = id;
            }
            last => *last = Some((text.into(), id)),
        }
        id
    }

    pub(crate) fn finish(self) -> Arc<Dictionary> {
        Arc::new(self.dictionary)
    }
}

pub(crate) fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// A column under construction.
#[derive(Debug)]
pub(crate) struct Cells {
    rows: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Nil,
    Str {
        ids: Vec<u32>,
        interner: Interner,
    },
    Int {
        values: Vec<i64>,
        valid: Bitmap,
    },
    Float {
        values: Vec<f64>,
        valid: Bitmap,
    },
    Bool {
        values: Bitmap,
        valid: Bitmap,
    },
    /// More than one type, or arrays.
    Values(Vec<Value>),
}

impl Cells {
    pub(crate) fn new() -> Self {
        Self { rows: 0, form: Form::Nil }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds nils up to `rows` rows.
    pub(crate) fn pad(&mut self, rows: usize) {
        while self.rows < rows {
            self.push(&Cell::Nil);
        }
    }

    pub(crate) fn push(&mut self, cell: &Cell<'_>) {
        match (&mut self.form, cell) {
            (Form::Nil, Cell::Nil) => {}
            (Form::Str { ids, .. }, Cell::Nil) => ids.push(NIL_ID),
            (Form::Str { ids, interner }, Cell::Str(text)) => ids.push(interner.id(text)),
            (Form::Int { values, valid }, Cell::Int(value)) => {
                values.push(*value);
                valid.push(true);
            }
            (Form::Int { values, valid }, Cell::Nil) => {
                values.push(0);
                valid.push(false);
            }
            (Form::Float { values, valid }, Cell::Float(value)) => {
                values.push(*value);
                valid.push(true);
            }
            (Form::Float { values, valid }, Cell::Nil) => {
                values.push(0.0);
                valid.push(false);
            }
            (Form::Bool { values, valid }, Cell::Bool(value)) => {
                values.push(*value);
                valid.push(true);
            }
            (Form::Bool { values, valid }, Cell::Nil) => {
                values.push(false);
                valid.push(false);
            }
            (Form::Values(values), cell) => values.push(cell.value()),
            (Form::Nil, cell) => {
                self.form = Form::starting(cell, self.rows);
                return self.push(cell);
            }
            (_, cell) => {
                self.widen();
                return self.push(cell);
            }
        }
        self.rows += 1;
    }

    /// Goes over to the form that holds anything.
    fn widen(&mut self) {
        let column = Self { rows: self.rows, form: std::mem::replace(&mut self.form, Form::Nil) }.finish();
        // The field says only how integers of intrinsics read; what gets here are attributes.
        let field = vivace_traceql::Field::attribute(vivace_traceql::Scope::Span, "");
        self.form = Form::Values((0..self.rows).map(|row| column.value(row, &field)).collect());
    }

    pub(crate) fn finish(self) -> Column {
        let some = |valid: Bitmap| (valid.count() < valid.len()).then_some(valid);
        match self.form {
            Form::Nil => Column::Nil,
            Form::Str { ids, interner } => Column::Str(Str { dict: interner.finish(), ids }),
            Form::Int { values, valid } => Column::Int { values, valid: some(valid) },
            Form::Float { values, valid } => Column::Float { values, valid: some(valid) },
            Form::Bool { values, valid } => Column::Bool { values, valid: some(valid) },
            Form::Values(values) => Column::Values(values),
        }
    }
}

impl Form {
    /// The form that fits `cell`, after `nils` rows without a value.
    fn starting(cell: &Cell<'_>, nils: usize) -> Self {
        match cell {
            Cell::Str(_) => Self::Str { ids: vec![NIL_ID; nils], interner: Interner::default() },
            Cell::Int(_) => Self::Int { values: vec![0; nils], valid: Bitmap::zeros(nils) },
            Cell::Float(_) => Self::Float { values: vec![0.0; nils], valid: Bitmap::zeros(nils) },
            Cell::Bool(_) => Self::Bool { values: Bitmap::zeros(nils), valid: Bitmap::zeros(nils) },
            Cell::Nil | Cell::List(_) => Self::Values(vec![Value::Nil; nils]),
        }
    }
}

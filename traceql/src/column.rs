//! Columns of a batch: all values of one field, packed by type.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    bitmap::Bitmap,
    condition::Condition,
    field::{Field, Intrinsic},
    value::{Kind, Status, Type, Value},
};

/// Which rows of a packed column hold a value: `None` = all of them. Where a bit is false the packed value is
/// meaningless and must not be looked at.
pub type Validity = Option<Bitmap>;

/// The id that stands for nil in a string column.
pub const NIL_ID: u32 = u32::MAX;

/// Distinct strings of a column in one arena. Entries need be neither sorted nor unique, though unique entries make
/// grouping cheaper. Immutable once built and shared by `Arc`: the evaluator keeps the verdict of a test per
/// dictionary *identity*, so a source that shares one dictionary over many batches has its strings tested once.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    text: String,
    ends: Vec<u32>,
}

impl Dictionary {
    /// An empty dictionary with room for `entries` strings of `bytes` bytes together.
    #[must_use]
    pub fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(entries) }
    }

    /// Memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// Adds an entry and returns its id; the same text twice gives two ids.
    ///
    /// # Panics
    /// When the arena would pass 4 GiB: batches are far smaller.
    pub fn push(&mut self, text: &str) -> u32 {
        self.text.push_str(text);
        let end = u32::try_from(self.text.len()).expect("a dictionary stays below 4 GiB because a batch does");
        self.ends.push(end);
        u32::try_from(self.ends.len() - 1).expect("every entry but one is a byte at least, so ids fit like the arena")
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text of `id`; `None` for [`NIL_ID`] and for ids that were never handed out.
    #[must_use]
    #[inline]
    pub fn get(&self, id: u32) -> Option<&str> {
        let index = id as usize;
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        self.text.get(start..end)
    }

    /// Which entries satisfy the condition.
    pub(crate) fn matching(&self, condition: &Condition) -> Bitmap {
        let bounds = |index: usize| {
            let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
            start..self.ends[index] as usize
        };
        let found = condition.matches_texts(self.text.as_bytes(), self.len(), bounds);
        found.unwrap_or_else(|| self.iter().map(|text| condition.matches_str(text)).collect())
    }

    /// All entries in id order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = *end as usize;
            let entry = &self.text[start..end];
            start = end;
            entry
        })
    }
}

/// A string column: one id per row into a shared dictionary, [`NIL_ID`] for nil.
#[derive(Clone, Debug)]
pub struct Str {
    /// The strings.
    pub dict: Arc<Dictionary>,
    /// One per row; every id other than [`NIL_ID`] must exist in `dict`.
    pub ids: Vec<u32>,
}

impl Str {
    /// Builds a column from texts, interning equal ones.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut seen = std::collections::HashMap::new();
        let mut dict = Dictionary::default();
        let ids = texts
            .into_iter()
            .map(|text| text.map_or(NIL_ID, |text| *seen.entry(text).or_insert_with(|| dict.push(text))))
            .collect();
        Self { dict: Arc::new(dict), ids }
    }

    /// The text of a row, `None` for nil.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> Option<&str> {
        self.dict.get(*self.ids.get(row)?)
    }
}

/// All values of one field in one batch. The number of rows is that of the field's [`Level`](crate::Level): spans,
/// events or links of the batch. A source picks the narrowest form it has; the evaluator accepts any form for any
/// field and finds the language's type by form and field (an `Int` column of `duration` holds durations).
#[derive(Clone, Debug, Default)]
pub enum Column {
    /// No row has a value. Fits any number of rows.
    #[default]
    Nil,
    /// Strings by dictionary.
    Str(Str),
    /// Integers; also durations and times in nanoseconds where the field says so.
    Int {
        /// One per row.
        values: Vec<i64>,
        /// Which rows hold a value.
        valid: Validity,
    },
    /// Floats.
    Float {
        /// One per row.
        values: Vec<f64>,
        /// Which rows hold a value.
        valid: Validity,
    },
    /// Booleans.
    Bool {
        /// One per row.
        values: Bitmap,
        /// Which rows hold a value.
        valid: Validity,
    },
    /// OTLP numbers of `status` or `kind`, always present.
    Code(Vec<u8>),
    /// `span:id`, `span:parentID`, `link:spanID` as raw big-endian bytes; the value is 16 hex digits, always present
    /// (zeros for a missing parent).
    SpanId(Vec<[u8; 8]>),
    /// Arrays: row `i` holds the items `offsets[i]..offsets[i + 1]`. An empty range of a valid row is an empty
    /// array; one item stands for itself, so a source need not unwrap it.
    List {
        /// Row count plus one, ascending, starting at 0.
        offsets: Vec<u32>,
        /// Which rows hold an array.
        valid: Validity,
        /// `Str`, `Int`, `Float` or `Bool`, every item present.
        items: Box<Column>,
    },
    /// Several types under one name: each row holds a value in at most one of the members.
    Union(Vec<Column>),
    /// Anything, value by value: slow, correct.
    Values(Vec<Value>),
}

impl Column {
    /// Number of rows, `None` for [`Column::Nil`], which fits any.
    #[must_use]
    pub fn rows(&self) -> Option<usize> {
        match self {
            Self::Nil => None,
            Self::Str(column) => Some(column.ids.len()),
            Self::Int { values, .. } => Some(values.len()),
            Self::Float { values, .. } => Some(values.len()),
            Self::Bool { values, .. } => Some(values.len()),
            Self::Code(codes) => Some(codes.len()),
            Self::SpanId(ids) => Some(ids.len()),
            Self::List { offsets, .. } => Some(offsets.len().saturating_sub(1)),
            Self::Union(members) => members.iter().find_map(Self::rows),
            Self::Values(values) => Some(values.len()),
        }
    }

    /// The value of a row as the language sees it when the column belongs to `field`.
    #[must_use]
    pub fn value(&self, row: usize, field: &Field) -> Value {
        let present = |valid: &Validity| valid.as_ref().is_none_or(|valid| valid.get(row));
        match self {
            Self::Nil => Value::Nil,
            Self::Str(column) => column.get(row).map_or(Value::Nil, Value::str),
            Self::Int { values, valid } => match values.get(row) {
                Some(value) if present(valid) => {
                    if field.static_type() == Type::Duration {
                        Value::Duration(*value)
                    } else {
                        Value::Int(*value)
                    }
                }
                _ => Value::Nil,
            },
            Self::Float { values, valid } => match values.get(row) {
                Some(value) if present(valid) => Value::Float(*value),
                _ => Value::Nil,
            },
            Self::Bool { values, valid } => {
                if row < values.len() && present(valid) {
                    Value::Bool(values.get(row))
                } else {
                    Value::Nil
                }
            }
            Self::Code(codes) => match (codes.get(row), field) {
                (Some(code), Field::Intrinsic(Intrinsic::Kind)) => Value::Kind(Kind::from_code(*code)),
                (Some(code), _) => Value::Status(Status::from_code(*code)),
                (None, _) => Value::Nil,
            },
            Self::SpanId(ids) => ids.get(row).map_or(Value::Nil, |id| Value::Str(hex(id).into())),
            Self::List { offsets, valid, items } => match (offsets.get(row), offsets.get(row + 1)) {
                (Some(start), Some(end)) if present(valid) => {
                    Value::list((*start..*end).map(|item| items.value(item as usize, field)).collect())
                }
                _ => Value::Nil,
            },
            Self::Union(members) => {
                members.iter().map(|member| member.value(row, field)).find(|value| !value.is_nil()).unwrap_or_default()
            }
            Self::Values(values) => values.get(row).cloned().unwrap_or_default(),
        }
    }

    /// Rows that hold a value, out of `rows`.
    #[must_use]
    pub fn presence(&self, rows: usize) -> Bitmap {
        let of = |valid: &Validity| valid.clone().unwrap_or_else(|| Bitmap::ones(rows));
        match self {
            Self::Nil => Bitmap::zeros(rows),
            Self::Str(column) => Bitmap::from_slice(&column.ids, |id| *id != NIL_ID),
            Self::Int { valid, .. }
            | Self::Float { valid, .. }
            | Self::Bool { valid, .. }
            | Self::List { valid, .. } => of(valid),
            Self::Code(_) | Self::SpanId(_) => Bitmap::ones(rows),
            Self::Union(members) => {
                let mut any = Bitmap::zeros(rows);
                for member in members {
                    any.or(&member.presence(rows));
                }
                any
            }
            Self::Values(values) => Bitmap::from_slice(values, |value| !value.is_nil()),
        }
    }

    /// The rows `rows` as a column of their own, in that order; rows may repeat. Dictionaries are shared.
    #[must_use]
    pub fn take(&self, rows: &[u32]) -> Self {
        let pick = |valid: &Validity| -> Validity {
            valid.as_ref().map(|valid| rows.iter().map(|row| valid.get(*row as usize)).collect())
        };
        match self {
            Self::Nil => Self::Nil,
            Self::Str(column) => Self::Str(Str {
                dict: column.dict.clone(),
                ids: rows.iter().map(|row| column.ids[*row as usize]).collect(),
            }),
            Self::Int { values, valid } => {
                Self::Int { values: rows.iter().map(|row| values[*row as usize]).collect(), valid: pick(valid) }
            }
            Self::Float { values, valid } => {
                Self::Float { values: rows.iter().map(|row| values[*row as usize]).collect(), valid: pick(valid) }
            }
            Self::Bool { values, valid } => {
                Self::Bool { values: rows.iter().map(|row| values.get(*row as usize)).collect(), valid: pick(valid) }
            }
            Self::Code(codes) => Self::Code(rows.iter().map(|row| codes[*row as usize]).collect()),
            Self::SpanId(ids) => Self::SpanId(rows.iter().map(|row| ids[*row as usize]).collect()),
            Self::List { offsets, valid, items } => {
                let mut picked = Vec::new();
                let mut ends = vec![0];
                for row in rows {
                    picked.extend(offsets[*row as usize]..offsets[*row as usize + 1]);
                    ends.push(u32::try_from(picked.len()).expect("repeated items of one batch stay below 4 billion"));
                }
                Self::List { offsets: ends, valid: pick(valid), items: Box::new(items.take(&picked)) }
            }
            Self::Union(members) => Self::Union(members.iter().map(|member| member.take(rows)).collect()),
            Self::Values(values) => Self::Values(rows.iter().map(|row| values[*row as usize].clone()).collect()),
        }
    }

    /// Like [`take`](Self::take), where [`NIL_ID`] in `rows` stands for a row without a value.
    #[must_use]
    pub(crate) fn take_optional(&self, rows: &[u32], field: &Field) -> Self {
        let pick = |valid: &Validity| -> Validity {
            Some(
                rows.iter()
                    .map(|row| *row != NIL_ID && valid.as_ref().is_none_or(|valid| valid.get(*row as usize)))
                    .collect(),
            )
        };
        match self {
            Self::Nil => Self::Nil,
            Self::Str(column) => Self::Str(Str {
                dict: column.dict.clone(),
                ids: rows.iter().map(|row| column.ids.get(*row as usize).copied().unwrap_or(NIL_ID)).collect(),
            }),
            Self::Int { values, valid } => Self::Int {
                values: rows.iter().map(|row| values.get(*row as usize).copied().unwrap_or(0)).collect(),
                valid: pick(valid),
            },
            Self::Union(members) => {
                Self::Union(members.iter().map(|member| member.take_optional(rows, field)).collect())
            }
            // Every form answers nil past its end.
            other => Self::Values(rows.iter().map(|row| other.value(*row as usize, field)).collect()),
        }
    }
}

/// Lower-case hex of bytes.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

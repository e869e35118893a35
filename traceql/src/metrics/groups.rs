//! Groups of the rows of a batch: a number per row instead of a value per row.
//!
//! A column's values become codes, one pass over the ids of its dictionary; codes of several fields are combined pairwise.
//! Values are looked at once per code.

use std::collections::HashMap;

use crate::{
    column::{Column, NIL_ID},
    eval::View,
    field::Field,
    program::Slot,
    value::Value,
};

/// A number for each of the chosen rows; equal values have equal numbers (two numbers may mean the same value).
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    /// Parallel to the chosen rows.
    pub(crate) of: Vec<u32>,
    /// For each number a chosen row that has it.
    pub(crate) example: Vec<u32>,
}

impl Codes {
    /// All rows are one group.
    pub(crate) fn single(rows: &[u32]) -> Self {
        Self { of: vec![0; rows.len()], example: rows.first().copied().into_iter().collect() }
    }

    /// The groups of rows by the values of several fields.
    pub(crate) fn of_slots(view: &View<'_>, slots: &[Slot], rows: &[u32]) -> Self {
        let mut each = slots.iter().map(|slot| Self::of_slot(view, *slot, rows));
        let Some(first) = each.next() else { return Self::single(rows) };
        each.fold(first, |codes, more| codes.combined(&more, rows))
    }

    fn of_slot(view: &View<'_>, slot: Slot, rows: &[u32]) -> Self {
        match slot {
            Slot::One(index) => {
                let (column, field) = view.column(index);
                Self::of_column(column, field, rows)
            }
            Slot::Either { span, resource } => {
                let (column, field) = view.column(span);
                let own = Self::of_column(column, field, rows);
                let (behind_column, behind_field) = view.column(resource);
                let mut behind = Self::of_column(behind_column, behind_field, rows);
                // Where the span has a value, the resource's does not matter.
                let nil: Vec<bool> =
                    own.example.iter().map(|row| column.value(*row as usize, field).is_nil()).collect();
                let none = u32::try_from(behind.example.len()).unwrap_or(NIL_ID);
                for (code, own) in behind.of.iter_mut().zip(&own.of) {
                    if !nil[*own as usize] {
                        *code = none;
                    }
                }
                behind.example.push(0);
                own.combined(&behind, rows)
            }
        }
    }

    /// The groups of rows by the values of a column.
    pub(crate) fn of_column(column: &Column, field: &Field, rows: &[u32]) -> Self {
        match column {
            Column::Nil => Self::single(rows),
            Column::Str(texts) => {
                let entries = texts.dict.len();
                // Nil is the entry behind the last.
                let entry = |row: u32| texts.ids.get(row as usize).map_or(entries, |id| (*id as usize).min(entries));
                if entries / 8 > rows.len() {
                    return Self::by(rows, entry);
                }
                Self::by_index(rows, entries + 1, entry)
            }
            Column::Int { values, valid } => match valid {
                None => Self::by(rows, |row| values.get(row as usize).copied()),
                Some(valid) => {
                    Self::by(rows, |row| values.get(row as usize).copied().filter(|_| valid.get(row as usize)))
                }
            },
            Column::Bool { values, valid } => Self::by_index(rows, 3, |row| {
                let row = row as usize;
                if row >= values.len() || valid.as_ref().is_some_and(|valid| !valid.get(row)) {
                    2
                } else {
                    usize::from(values.get(row))
                }
            }),
            Column::Code(codes) => {
                Self::by_index(rows, 257, |row| codes.get(row as usize).map_or(256, |code| usize::from(*code)))
            }
            Column::SpanId(ids) => Self::by(rows, |row| ids.get(row as usize).copied()),
            Column::Float { .. } | Column::List { .. } | Column::Union(_) | Column::Values(_) => {
                Self::by(rows, |row| column.value(row as usize, field))
            }
        }
    }

    /// By a small index.
    fn by_index(rows: &[u32], size: usize, index: impl Fn(u32) -> usize) -> Self {
        let mut known = vec![NIL_ID; size];
        let mut codes = Self { of: Vec::with_capacity(rows.len()), example: Vec::new() };
        for row in rows {
            let code = &mut known[index(*row)];
            if *code == NIL_ID {
                *code = codes.new_code(*row);
            }
            codes.of.push(*code);
        }
        codes
    }

    /// By anything that can be hashed. Equal neighbours, which are frequent, are hashed once.
    fn by<K: std::hash::Hash + Eq + Clone>(rows: &[u32], key: impl Fn(u32) -> K) -> Self {
        let mut known: HashMap<K, u32> = HashMap::new();
        let mut codes = Self { of: Vec::with_capacity(rows.len()), example: Vec::new() };
        let mut latest: Option<(K, u32)> = None;
        for row in rows {
            let key = key(*row);
            let code = match &latest {
                Some((same, code)) if *same == key => *code,
                _ => {
                    let code = match known.get(&key) {
                        Some(code) => *code,
                        None => {
                            let code = codes.new_code(*row);
                            known.insert(key.clone(), code);
                            code
                        }
                    };
                    latest = Some((key, code));
                    code
                }
            };
            codes.of.push(code);
        }
        codes
    }

    fn new_code(&mut self, row: u32) -> u32 {
        self.example.push(row);
        u32::try_from(self.example.len() - 1).unwrap_or(NIL_ID)
    }

    /// The groups by both.
    fn combined(&self, other: &Self, rows: &[u32]) -> Self {
        const TABLE: usize = 1 << 18;
        let (own, width) = (self.example.len(), other.example.len());
        let pair = |at: usize| self.of[at] as usize * width + other.of[at] as usize;
        // Positions instead of rows, so that both codes can be found by them.
        let places: Vec<u32> = (0..u32::try_from(rows.len()).unwrap_or(u32::MAX)).collect();
        let mut codes = if own.saturating_mul(width) <= TABLE {
            Self::by_index(&places, own * width, |at| pair(at as usize))
        } else {
            Self::by(&places, |at| pair(at as usize))
        };
        codes.example.iter_mut().for_each(|example| *example = rows[*example as usize]);
        codes
    }

    /// The values of each group, one per slot.
    pub(crate) fn keys(&self, view: &View<'_>, slots: &[Slot]) -> Vec<Box<[Value]>> {
        let key = |row: &u32| slots.iter().map(|slot| view.slot_value(*slot, *row as usize)).collect();
        self.example.iter().map(key).collect()
    }
}

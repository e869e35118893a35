//! `compare`: every value of every field, counted for a selection and for the rest.
//!
//! A group's key is (whether it is the selection, the field's text, the value); the value nil stands for all spans that
//! have the field. All values are kept until the end, where the most frequent ones are chosen; only a field with
//! very many values loses its rarest ones on the way.

use std::{collections::HashMap, sync::Arc};

use super::{
    groups::Codes,
    observe::{Chosen, Observer},
    partial::{Cells, Group, MetricsError, PartialLeaf, run},
    plan::Leaf,
};
use crate::{
    column::Column,
    fetch::SpanBatch,
    field::{Field, Intrinsic, Level},
    plan::Selection,
    value::{Type, Value},
};

/// With more groups than this, rare values go.
const MANY_GROUPS: usize = 500_000;
/// Values that a field keeps then, on each side; more than any query can ask for.
const KEPT_VALUES: usize = 2_000;

/// Whether the values of a field are compared.
fn takes_part(field: &Field) -> bool {
    let identifies = matches!(
        field,
        Field::Intrinsic(
            Intrinsic::StartTime
                | Intrinsic::TraceId
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent
                | Intrinsic::Parent
        )
    );
    !identifies && field.static_type() != Type::Duration
}

/// Spans that a group stands for.
pub(crate) fn total(group: &Group) -> u64 {
    group.cells.iter().flat_map(|cells| &cells.counts).fold(0_u64, |total, count| total.saturating_add(*count))
}

impl Observer<'_> {
    pub(crate) fn compare(
        &mut self,
        batch: &SpanBatch,
        selection: &Selection<'_>,
        chosen: &Chosen,
    ) -> Result<(), MetricsError> {
        if chosen.rows.is_empty() {
            return Ok(());
        }
        let sides = self.sides(selection, chosen);
        for (field, column) in &batch.everything {
            self.tally(field, column, &sides, chosen)?;
        }
        for index in 0..self.leaf.search.fields().len() {
            let (column, field) = selection.view.column(index);
            let root = matches!(field, Field::Intrinsic(Intrinsic::RootName | Intrinsic::RootServiceName));
            if root || matches!(field.level(), Level::Event | Level::Link) {
                self.tally(field, column, &sides, chosen)?;
            }
        }
        Ok(())
    }

    fn tally(&mut self, field: &Field, column: &Column, sides: &[bool], chosen: &Chosen) -> Result<(), MetricsError> {
        if !takes_part(field) || matches!(column, Column::Nil) {
            return Ok(());
        }
        let name: Arc<str> = field.to_string().into();
        let codes = Codes::of_column(column, field, &chosen.rows);
        let values: Vec<Value> = codes.example.iter().map(|row| column.value(*row as usize, field)).collect();
        // For each code and side the group, once it is known.
        let mut groups: Vec<[Option<u32>; 2]> = vec![[None; 2]; values.len()];
        let mut totals: [Option<u32>; 2] = [None; 2];
        let (measure, own) = (self.leaf.measure, &mut *self.own);
        for ((code, side), interval) in codes.of.iter().zip(sides).zip(&chosen.intervals) {
            let value = &values[*code as usize];
            if value.is_nil() {
                continue;
            }
            let places = [&mut groups[*code as usize][usize::from(*side)], &mut totals[usize::from(*side)]];
            for (place, value) in places.into_iter().zip([value, &Value::Nil]) {
                if place.is_none() {
                    *place = own.group(Box::new([Value::Bool(*side), Value::Str(name.clone()), value.clone()]), true);
                }
                let Some(group) = *place else { continue };
                let cells = run(&mut own.groups[group as usize].cells, 0, &mut own.runs);
                let slot = cells.slot(*interval, measure, &mut own.used);
                cells.counts[slot] += 1;
                own.check_size()?;
            }
        }
        Ok(())
    }
}

impl Leaf {
    /// Drops the rarest values of fields with very many, when there are very many groups.
    pub(crate) fn prune(&self, own: &mut PartialLeaf) {
        if !self.is_compare() || own.groups.len() <= MANY_GROUPS {
            return;
        }
        let mut counts: HashMap<&[Value], Vec<u64>> = HashMap::new();
        for group in &own.groups {
            counts.entry(&group.key[..2]).or_default().push(total(group));
        }
        let mut least: HashMap<Box<[Value]>, u64> = HashMap::new();
        for (key, mut counts) in counts {
            if counts.len() > KEPT_VALUES {
                counts.sort_unstable_by(|a, b| b.cmp(a));
                least.insert(key.into(), counts[KEPT_VALUES - 1]);
            }
        }
        let mut kept: HashMap<Box<[Value]>, usize> = HashMap::new();
        let mut wanted: Vec<bool> = Vec::with_capacity(own.groups.len());
        for group in &own.groups {
            wanted.push(match least.get(&group.key[..2]) {
                Some(least) if total(group) < *least => false,
                // Values that are equally rare: the first ones stay.
                Some(least) if total(group) == *least => {
                    let kept = kept.entry(group.key[..2].into()).or_insert(0);
                    *kept += 1;
                    *kept <= KEPT_VALUES / 2
                }
                _ => true,
            });
        }
        let mut wanted = wanted.into_iter();
        own.retain(|_| wanted.next().unwrap_or(true));
    }
}

/// The values of one side and field that are shown, most frequent first; equally frequent ones by value.
pub(crate) fn most_frequent(mut groups: Vec<&Group>, top: usize) -> Vec<&Group> {
    groups.sort_by(|a, b| total(b).cmp(&total(a)).then_with(|| a.key[2].total_cmp(&b.key[2])));
    groups.truncate(top);
    groups
}

/// The run of a counting group.
pub(crate) fn counted(group: &Group) -> Option<&Cells> {
    group.cells.first()
}

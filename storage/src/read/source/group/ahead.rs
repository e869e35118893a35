//! Says in good time which parts of a row group will be read, so that they are on their way while others are taken apart.

use std::ops::Range;

use vivace_traceql::{FetchSpec, Field, LoadSpec, Predicate, TraceFields};

use super::Group;
use crate::read::{
    error::Result,
    rows::RowSet,
    source::places::{Place, place},
};

impl Group<'_> {
    /// The dictionaries of `leaves` and their pages that hold any of `rows` will be read; what is at hand is left out.
    pub(in crate::read::source) fn announce(&mut self, leaves: &[usize], rows: &RowSet) -> Result<()> {
        self.announce_all(&[(leaves, rows)])
    }

    /// As [`Self::announce`], for several columns and their rows at once.
    pub(in crate::read::source) fn announce_all(&mut self, wanted: &[(&[usize], &RowSet)]) -> Result<()> {
        let mut ranges = Vec::new();
        for (leaves, rows) in wanted {
            leaves.iter().try_for_each(|leaf| self.places(*leaf, rows, &mut ranges))?;
        }
        if ranges.len() > 1 {
            self.block.data().will_need(&ranges)?;
        }
        Ok(())
    }

    fn places(&mut self, leaf: usize, rows: &RowSet, ranges: &mut Vec<Range<u64>>) -> Result<()> {
        let (number, parts) = (self.number, self.parts());
        let state = self.leaf(leaf)?;
        if parts.is_none_or(|parts| parts.dictionary(number, leaf).is_none()) {
            ranges.extend(state.reader.dictionary_place());
        }
        for page in state.reader.page_numbers(rows).unwrap_or_default() {
            let at_hand =
                state.pages.contains_key(&page) || parts.is_some_and(|parts| parts.page(number, leaf, page).is_some());
            let Some(place) = state.reader.page_place(page).filter(|_| !at_hand) else { continue };
            match ranges.last_mut() {
                Some(last) if last.end == place.start => last.end = place.end,
                _ => ranges.push(place),
            }
        }
        Ok(())
    }

    /// What choosing spans of `rows` begins with: how they lie in rows and what the only condition is about, without one all that
    /// delivering them takes. What further conditions are about depends on those before.
    pub(in crate::read::source) fn announce_choice(&mut self, spec: &FetchSpec, rows: &RowSet) -> Result<()> {
        let mut leaves = Vec::new();
        match spec.traces.first().unwrap_or(&spec.spans) {
            Predicate::Is(condition) => self.leaves_of_field(&condition.field, &mut leaves),
            Predicate::Always => leaves = self.leaves_of_batch(spec),
            Predicate::All(_) | Predicate::AnyOf(_) | Predicate::Never => {}
        }
        let nesting = if self.known_nesting().is_none() { vec![self.nesting_leaf()] } else { Vec::new() };
        self.announce_all(&[(&nesting, &RowSet::all(self.rows)), (&leaves, rows)])
    }

    /// What delivering spans of `rows` takes.
    pub(in crate::read::source) fn announce_batch(&mut self, spec: &FetchSpec, rows: &RowSet) -> Result<()> {
        self.announce(&self.leaves_of_batch(spec), rows)
    }

    /// What the second pass takes.
    pub(in crate::read::source) fn announce_load(&mut self, spec: &LoadSpec, rows: &RowSet) -> Result<()> {
        let mut leaves = self.leaves_of_traces(true, spec.trace_fields);
        spec.fields.iter().for_each(|field| self.leaves_of_field(field, &mut leaves));
        self.announce(&leaves, rows)
    }

    fn leaves_of_batch(&self, spec: &FetchSpec) -> Vec<usize> {
        let mut leaves = self.leaves_of_traces(spec.ids, spec.trace_fields);
        spec.fields.iter().for_each(|field| self.leaves_of_field(field, &mut leaves));
        if spec.structure {
            let span = &self.columns.span;
            leaves.extend([span.left, span.right, span.parent]);
        }
        leaves
    }

    fn leaves_of_traces(&self, ids: bool, fields: TraceFields) -> Vec<usize> {
        let (trace, stats) = (self.columns.trace, self.columns.stats);
        let mut leaves = Vec::new();
        if ids {
            leaves.push(trace.trace_id);
        }
        if fields.times {
            leaves.extend([trace.start, trace.duration]);
        }
        if fields.root {
            leaves.extend([trace.root_name, trace.root_service]);
        }
        if fields.service_stats {
            leaves.extend([stats.service, stats.spans, stats.errors]);
        }
        leaves
    }

    /// The dictionaries that say whether conditions can hold.
    pub(in crate::read::source) fn announce_dictionaries<'p>(
        &mut self,
        predicates: impl Iterator<Item = &'p Predicate>,
    ) -> Result<()> {
        let mut leaves = Vec::new();
        predicates.for_each(|predicate| self.leaves_of(predicate, &mut leaves));
        self.announce(&leaves, &RowSet::default())
    }

    fn leaves_of(&self, predicate: &Predicate, leaves: &mut Vec<usize>) {
        match predicate {
            Predicate::Is(condition) => self.leaves_of_field(&condition.field, leaves),
            Predicate::All(parts) | Predicate::AnyOf(parts) => {
                parts.iter().for_each(|part| self.leaves_of(part, leaves));
            }
            Predicate::Always | Predicate::Never => {}
        }
    }

    /// The columns that a field is looked for in first.
    pub(in crate::read::source) fn leaves_of_field(&self, field: &Field, leaves: &mut Vec<usize>) {
        let mut add = |leaf| {
            if !leaves.contains(&leaf) {
                leaves.push(leaf);
            }
        };
        match place(self.block, field) {
            Place::Row(leaf) | Place::Required(_, leaf) | Place::Child(_, leaf) => add(leaf),
            Place::Attribute { generic, direct, .. } => {
                direct.into_iter().for_each(|direct| add(direct.leaf));
                add(generic.leaves.key);
            }
            Place::Unknown => {}
        }
    }
}

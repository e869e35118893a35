//! Says in good time which parts of a row group will be read, so that they are on their way while others are taken apart.

use std::ops::Range;

use vivace_traceql::{Field, Predicate};

use super::Group;
use crate::read::{
    error::Result,
    rows::RowSet,
    source::places::{Place, place},
};

impl Group<'_> {
    /// The dictionaries of `leaves` and their pages that hold any of `rows` will be read; what is at hand is left out.
    pub(in crate::read::source) fn announce(&mut self, leaves: &[usize], rows: &RowSet) -> Result<()> {
        let (number, parts) = (self.number, self.parts());
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for leaf in leaves {
            let state = self.leaf(*leaf)?;
            if parts.is_none_or(|parts| parts.dictionary(number, *leaf).is_none()) {
                ranges.extend(state.reader.dictionary_place());
            }
            for page in state.reader.page_numbers(rows).unwrap_or_default() {
                let at_hand = state.pages.contains_key(&page)
                    || parts.is_some_and(|parts| parts.page(number, *leaf, page).is_some());
                let Some(place) = state.reader.page_place(page).filter(|_| !at_hand) else { continue };
                match ranges.last_mut() {
                    Some(last) if last.end == place.start => last.end = place.end,
                    _ => ranges.push(place),
                }
            }
        }
        if ranges.len() > 1 {
            self.block.data().will_need(&ranges)?;
        }
        Ok(())
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

//! An attribute of a row group as a column of its own, made out of the lists of attributes for those who ask for it again.
//!
//! In the lists every attribute of every span has an entry in seven columns, so that one key is found only by going through all
//! keys. Taken out once, an attribute is a number or the id of a text for each span: a few hundred kilobytes where the pages of the
//! lists are tens of megabytes, which would have to be taken apart for every query because so much cannot be kept.

use std::{ops::Range, sync::Arc};

use vivace_traceql::Bitmap;

use super::{
    columns::Items,
    group::Group,
    hits::{hit_values, hits},
    nesting::{Nesting, Owner},
    places::Generic,
    verdict::Verdicts,
};
use crate::read::{
    error::Result,
    rows::RowSet,
    values::{Values, to_usize},
};

/// A column that takes more is not kept: it would push out what many queries need. Texts without a dictionary can be long.
const MOST_BYTES: usize = 8 << 20;

/// The values that an attribute has in one of the typed columns beside the keys. Attributes are in the order of their owners.
#[derive(Debug)]
pub(super) struct AttributeColumn {
    /// Attributes with the key, whatever type their values have.
    keyed: usize,
    /// Whether no owner has the key twice.
    unique: bool,
    /// The owner of each attribute that has a value here; none where owner `n` has the attribute `n`.
    owners: Option<Vec<u32>>,
    /// First value of each, and the end; none where each has one.
    starts: Option<Vec<u32>>,
    values: Values,
}

impl AttributeColumn {
    /// Reads all of the lists; none when the result is too large to be kept.
    pub(super) fn read(
        group: &mut Group<'_>,
        nesting: &Arc<Nesting>,
        owner: Owner,
        generic: &Generic,
        leaf: usize,
    ) -> Result<Option<Self>> {
        let hits = hits(group, nesting, owner, generic, &RowSet::all(group.rows))?;
        let list = &hits.list;
        let mut items = Items::new(group, leaf)?;
        let (mut owners, mut starts) = (Vec::with_capacity(list.len()), vec![0u32]);
        let mut failed = None;
        if !group.is_empty(leaf)? {
            hit_values(group, leaf, generic.level, &hits, |page, hit, range| {
                if let Err(error) = range.into_iter().try_for_each(|index| items.push(&page.values, index)) {
                    failed.get_or_insert(error);
                }
                owners.push(list[hit].owner);
                starts.push(u32::try_from(items.len()).unwrap_or(u32::MAX));
            })?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let single = items.len() == owners.len();
        let in_order = (0u32..).zip(&owners).all(|(due, owner)| due == *owner);
        let column = Self {
            keyed: list.len(),
            unique: list.windows(2).all(|pair| pair[0].owner < pair[1].owner),
            owners: (!in_order).then_some(owners),
            starts: (!single).then_some(starts),
            values: items.values(),
        };
        Ok((column.memory() <= MOST_BYTES).then_some(column))
    }

    /// Memory held.
    pub(super) fn memory(&self) -> usize {
        let list = |list: &Option<Vec<u32>>| list.as_ref().map_or(0, |list| list.capacity() * size_of::<u32>());
        size_of::<Self>() + list(&self.owners) + list(&self.starts) + self.values.memory()
    }

    /// Attributes that have a value here.
    pub(super) fn len(&self) -> usize {
        match (&self.owners, &self.starts) {
            (Some(owners), _) => owners.len(),
            (None, Some(starts)) => starts.len() - 1,
            (None, None) => self.values.len(),
        }
    }

    /// Attributes with the key, whatever type their values have.
    pub(super) fn keyed(&self) -> usize {
        self.keyed
    }

    /// Whether no owner has the key twice.
    pub(super) fn is_unique(&self) -> bool {
        self.unique
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    /// Which attributes belong to `owners`.
    pub(super) fn of_owners(&self, owners: Range<u32>) -> Range<usize> {
        let at = |owner: u32| match &self.owners {
            Some(known) => known.partition_point(|known| *known < owner),
            None => to_usize(owner).min(self.len()),
        };
        at(owners.start)..at(owners.end)
    }

    /// The values of attributes that stand side by side.
    pub(super) fn values_of(&self, attributes: Range<usize>) -> Range<usize> {
        match &self.starts {
            Some(starts) => to_usize(starts[attributes.start])..to_usize(starts[attributes.end]),
            None => attributes,
        }
    }

    fn owner(&self, attribute: usize) -> u32 {
        match &self.owners {
            Some(owners) => owners[attribute],
            None => u32::try_from(attribute).unwrap_or(u32::MAX),
        }
    }

    /// Calls `each` with those of `owners` that have a value which passes.
    pub(super) fn passing(
        &self,
        owners: Range<u32>,
        verdicts: &mut Verdicts<'_>,
        dictionary: Option<&Values>,
        mut each: impl FnMut(u32),
    ) {
        let attributes = self.of_owners(owners);
        let values = self.values_of(attributes.clone());
        let passes: Bitmap = verdicts.some(&self.values, values.clone(), dictionary);
        if !passes.any() {
            return;
        }
        if self.starts.is_none() {
            passes.ones_iter().for_each(|index| each(self.owner(attributes.start + index)));
            return;
        }
        for attribute in attributes {
            let own = self.values_of(attribute..attribute + 1);
            if own.into_iter().any(|value| passes.get(value - values.start)) {
                each(self.owner(attribute));
            }
        }
    }
}

//! The distinct values of one column chunk, numbered in the order in which they came.
//!
//! Values are kept in the form of the dictionary page (length, bytes), so the page is there without another copy.

use std::hash::{BuildHasher, Hasher};

const EMPTY: u32 = u32::MAX;
const FIRST_SLOTS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    id: u32,
}

const VACANT: Slot = Slot { hash: 0, id: EMPTY };

/// Byte strings to numbers and back.
#[derive(Debug)]
pub(super) struct Dictionary {
    slots: Vec<Slot>,
    /// Each value's length (little-endian, four bytes) and bytes.
    page: Vec<u8>,
    /// Where each value's bytes begin in `page`.
    starts: Vec<u32>,
    hasher: foldhash::fast::RandomState,
}

impl Default for Dictionary {
    fn default() -> Self {
        Self {
            slots: vec![VACANT; FIRST_SLOTS],
            page: Vec::new(),
            starts: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl Dictionary {
    /// The number of a value, a new one if it is new.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half of the hash is what is kept of it")]
    pub(super) fn intern(&mut self, value: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(value);
        let hash = hasher.finish() as u32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.id == EMPTY {
                return self.insert(value, hash, at);
            }
            if slot.hash == hash && self.get(slot.id) == value {
                return slot.id;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn insert(&mut self, value: &[u8], hash: u32, at: usize) -> u32 {
        // A row group is cut at half a GiB at the latest, long before either number can overflow.
        let id = u32::try_from(self.starts.len()).expect("fewer values than bytes of a row group");
        let length = u32::try_from(value.len()).expect("a value is shorter than a part of a trace");
        self.page.extend_from_slice(&length.to_le_bytes());
        self.starts.push(u32::try_from(self.page.len()).expect("a row group's text is far below 4 GiB"));
        self.page.extend_from_slice(value);
        self.slots[at] = Slot { hash, id };
        if self.starts.len() * 2 > self.slots.len() {
            self.grow();
        }
        id
    }

    fn grow(&mut self) {
        let wider = vec![VACANT; self.slots.len() * 4];
        let mask = wider.len() - 1;
        for slot in std::mem::replace(&mut self.slots, wider) {
            if slot.id != EMPTY {
                let mut at = slot.hash as usize & mask;
                while self.slots[at].id != EMPTY {
                    at = (at + 1) & mask;
                }
                self.slots[at] = slot;
            }
        }
    }

    /// The value with a number that [`Self::intern`] gave.
    #[inline]
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let start = self.starts[id as usize] as usize;
        let end = self.starts.get(id as usize + 1).map_or(self.page.len(), |next| *next as usize - 4);
        &self.page[start..end]
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Content of the dictionary page, PLAIN.
    pub(super) fn page(&self) -> &[u8] {
        &self.page
    }

    /// Least and greatest value bytewise.
    pub(super) fn bounds(&self) -> Option<(&[u8], &[u8])> {
        let first = self.starts.first().map(|_| self.get(0))?;
        let ids = 1..u32::try_from(self.starts.len()).expect("numbers are u32");
        Some(ids.map(|id| self.get(id)).fold((first, first), |(min, max), value| (min.min(value), max.max(value))))
    }

    /// Forgets all values; keeps moderate room for the next chunk.
    pub(super) fn clear(&mut self) {
        let slots = self.slots.len().min(1 << 16);
        self.slots.clear();
        self.slots.resize(slots, VACANT);
        self.slots.shrink_to_fit();
        self.page = Vec::with_capacity(self.page.len().min(1 << 16));
        self.starts = Vec::with_capacity(self.starts.len().min(1 << 12));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_those_of_a_map_in_order_of_arrival(values in proptest::collection::vec("[a-d]{0,4}", 0..800)) {
            let (mut dictionary, mut model) = (Dictionary::default(), HashMap::new());
            for value in &values {
                let next = u32::try_from(model.len()).unwrap();
                let id = *model.entry(value.clone()).or_insert(next);
                prop_assert_eq!(dictionary.intern(value.as_bytes()), id);
            }
            prop_assert_eq!(dictionary.len(), model.len());
            for (value, id) in &model {
                prop_assert_eq!(dictionary.get(*id), value.as_bytes());
            }
            let bounds = values.iter().min().zip(values.iter().max()).map(|(a, b)| (a.as_bytes(), b.as_bytes()));
            prop_assert_eq!(dictionary.bounds(), bounds);
            dictionary.clear();
            prop_assert_eq!((dictionary.len(), dictionary.intern(b"x")), (0, 0));
        }
    }
}

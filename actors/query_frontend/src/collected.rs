//! A distinct set of names or values under construction: it says when it is full, and what came in since it was last asked.

use std::collections::BTreeSet;

/// When to stop; 0 switches a limit off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    /// Known entries in a row, without a new one between them.
    pub(crate) stale: usize,
}

/// What an entry takes beside its own bytes.
const ENTRY_BYTES: usize = 64;

/// The set. Entries that come after it is full are left out.
#[derive(Debug, Clone)]
pub(crate) struct Collected<T: Ord + Clone> {
    bounds: Bounds,
    entries: BTreeSet<T>,
    fresh: Vec<T>,
    bytes: usize,
    stale: usize,
    full: bool,
}

impl<T: Ord + Clone> Collected<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: BTreeSet::new(), fresh: Vec::new(), bytes: 0, stale: 0, full: false }
    }

    /// Adds an entry of `bytes` bytes. One that passes the byte limit is left out and fills the set.
    pub(crate) fn insert(&mut self, entry: T, bytes: usize) {
        if self.full {
            return;
        }
        if self.entries.contains(&entry) {
            self.stale += 1;
            self.full = self.bounds.stale > 0 && self.stale >= self.bounds.stale;
            return;
        }
        self.stale = 0;
        if self.bounds.bytes > 0 && self.bytes + bytes > self.bounds.bytes {
            self.full = true;
            return;
        }
        self.bytes += bytes;
        self.fresh.push(entry.clone());
        self.entries.insert(entry);
        self.full = self.bounds.entries > 0 && self.entries.len() >= self.bounds.entries;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.entries.len() * ENTRY_BYTES
    }

    /// What came in since the last call, in order.
    pub(crate) fn take_fresh(&mut self) -> Vec<T> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.sort();
        fresh
    }

    /// Everything, in order; the set is empty afterwards.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        std::mem::take(&mut self.entries).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_limit_fills_the_set() {
        let fill = |bounds| {
            let mut set = Collected::new(bounds);
            [1, 2, 2, 2, 3].into_iter().for_each(|n| set.insert(n, 10));
            (set.is_full(), set.take_all())
        };
        assert_eq!(fill(Bounds::default()), (false, vec![1, 2, 3]));
        assert_eq!(fill(Bounds { entries: 2, ..Bounds::default() }), (true, vec![1, 2]));
        assert_eq!(fill(Bounds { bytes: 29, ..Bounds::default() }), (true, vec![1, 2]));
        assert_eq!(fill(Bounds { stale: 2, ..Bounds::default() }), (true, vec![1, 2]));
        assert_eq!(fill(Bounds { stale: 3, ..Bounds::default() }), (false, vec![1, 2, 3]));
    }

    proptest! {
        #[test]
        fn diffs_joined_equal_the_final_set(
            jobs in prop::collection::vec((prop::collection::vec(0_u8..30, 0..6), any::<bool>()), 0..12),
            entries in 0_usize..10,
        ) {
            let mut set = Collected::new(Bounds { entries, ..Bounds::default() });
            let mut told = Vec::new();
            for (job, tell) in jobs {
                job.into_iter().for_each(|entry| set.insert(entry, 1));
                if tell {
                    told.extend(set.take_fresh());
                }
            }
            told.extend(set.take_fresh());
            let count = told.len();
            told.sort();
            told.dedup();
            prop_assert_eq!(count, told.len(), "something was told twice");
            prop_assert_eq!(told, set.take_all());
        }
    }
}

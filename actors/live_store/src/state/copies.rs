//! Records that a producer wrote twice: each counts once, also when a part of the log is read again.
//!
//! What was seen of producers belongs to an offset, the ledger's `covered`. A replay begins below it, for the pieces of carried
//! traces; which records down there are copies is therefore kept by offset.

use std::collections::BTreeSet;

use vivace_log::{Dedup, Entry};

use super::Ledger;

/// What one partition's producers have written.
#[derive(Debug, Clone)]
pub(crate) struct Copies {
    seen: Dedup,
    /// Offsets of copies, from the ledger's `replay_from` on.
    known: BTreeSet<u64>,
    covered: u64,
}

impl Copies {
    /// As the ledger remembers it; records are asked about from `ledger.replay_from` on.
    pub(crate) fn recover(ledger: &Ledger) -> Self {
        Self { seen: ledger.seen.clone(), known: ledger.copies.clone(), covered: ledger.covered }
    }

    /// Whether the record was there before. To be called once for every record, in the order of the log.
    pub(crate) fn is_copy(&mut self, entry: &Entry) -> bool {
        let offset = entry.offset.0;
        if offset < self.covered {
            return self.known.contains(&offset);
        }
        let copy = !self.seen.is_first(entry);
        if copy {
            self.known.insert(offset);
        }
        copy
    }

    /// Nothing below is read again.
    pub(crate) fn forget_below(&mut self, replay_from: u64) {
        self.known = self.known.split_off(&replay_from);
    }

    /// The log went back: offsets from here on are given again.
    pub(crate) fn went_back(&mut self, end: u64) {
        drop(self.known.split_off(&end));
        self.covered = self.covered.min(end);
    }

    /// What a cut that closes everything so far has to remember.
    pub(crate) fn at_cut(&self) -> (Dedup, BTreeSet<u64>) {
        (self.seen.clone(), self.known.clone())
    }
}

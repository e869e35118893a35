//! Records that panic their consumer: a second panic at the same offset sets the record aside.
//!
//! The rule survives the rebuilding of the part that panicked, because it lives beside it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// After so many panics at one offset the record is set aside.
const STRIKES: u32 = 2;

#[derive(Debug, Default)]
struct State {
    applying: Option<u64>,
    strikes: BTreeMap<u64, u32>,
    aside: BTreeMap<u64, String>,
}

/// Shared between the generations of one consumer of one partition.
#[derive(Debug, Default)]
pub struct Quarantine(Mutex<State>);

impl Quarantine {
    /// Remembers what an earlier run set aside.
    pub fn restore(&self, entries: &[(u64, String)]) {
        self.0.lock().aside.extend(entries.iter().cloned());
    }

    /// The consumer was rebuilt: if it died while handling a record, that counts against the record. Returns the offset when it has
    /// just been set aside.
    pub fn rebuilt(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let offset = state.applying.take()?;
        let strikes = state.strikes.entry(offset).or_insert(0);
        *strikes += 1;
        if *strikes < STRIKES {
            return None;
        }
        state.aside.insert(offset, "its consumer panicked twice on it".to_owned());
        Some(offset)
    }

    /// Why a record is set aside, if it is.
    pub fn reason(&self, offset: u64) -> Option<String> {
        self.0.lock().aside.get(&offset).cloned()
    }

    /// Sets a record aside at once: it cannot be decoded.
    pub fn set_aside(&self, offset: u64, reason: String) {
        self.0.lock().aside.insert(offset, reason);
    }

    /// Runs the handling of one record; a panic inside leaves the offset marked.
    pub fn watch<R>(&self, offset: u64, apply: impl FnOnce() -> R) -> R {
        self.0.lock().applying = Some(offset);
        let result = apply();
        self.0.lock().applying = None;
        result
    }

    /// What is below `offset` is accounted for elsewhere.
    pub fn forget_below(&self, offset: u64) {
        let mut state = self.0.lock();
        state.strikes = state.strikes.split_off(&offset);
        state.aside = state.aside.split_off(&offset);
    }

    /// All records set aside, for the consumer's own ledger and its status page.
    pub fn entries(&self) -> Vec<(u64, String)> {
        self.0.lock().aside.iter().map(|(offset, reason)| (*offset, reason.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn the_second_panic_at_an_offset_sets_the_record_aside() {
        let quarantine = Quarantine::default();
        for strike in 1..=2 {
            let panicked = catch_unwind(AssertUnwindSafe(|| quarantine.watch(7, || panic!("planted"))));
            assert!(panicked.is_err());
            assert_eq!(quarantine.rebuilt().is_some(), strike == 2);
        }
        assert!(quarantine.reason(7).is_some());
        assert_eq!(quarantine.rebuilt(), None);
        quarantine.forget_below(7);
        assert!(quarantine.reason(7).is_some());
        quarantine.forget_below(8);
        assert!(quarantine.entries().is_empty());
    }

    #[test]
    fn a_panic_elsewhere_counts_against_no_record() {
        let quarantine = Quarantine::default();
        quarantine.watch(7, || ());
        assert_eq!(quarantine.rebuilt(), None);
        assert!(quarantine.entries().is_empty());
    }
}

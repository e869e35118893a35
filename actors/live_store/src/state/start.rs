//! Where a live-store of its own process begins to read its log.
//!
//! What is on its own disk decides, because the ledger says exactly what the blocks there hold; the committed offset of the
//! group is behind it by up to a commit, and tells of another disk where it is ahead. It counts only where there is no
//! ledger. Nothing is read that is older than the lookback.

use vivace_log::Dedup;

use super::Ledger;

/// What is known when the log answers for the first time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The identity of the log.
    pub(crate) log: &'a str,
    /// What the group has committed.
    pub(crate) committed: Option<u64>,
    pub(crate) earliest: u64,
    pub(crate) end: u64,
    /// The first offset that is not too old.
    pub(crate) lookback: u64,
    /// Nobody writes to the partition any more.
    pub(crate) inactive: bool,
}

/// Why it begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The disk holds everything below.
    Ledger,
    /// The disk is empty, and so is what lies between the commit and the end of a partition that is given up.
    Commit,
    /// The disk is empty: it is filled again.
    Lookback,
    /// The disk belongs to a log that is gone.
    OtherLog,
    /// What lies between is too old.
    TooOld,
    /// What lies between was removed from the log.
    Removed,
    /// The log has lost its end: it went back.
    WentBack,
}

/// Where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) from: u64,
    pub(crate) origin: Origin,
    /// Offsets that should have been read and are not there any more.
    pub(crate) lost: Option<(u64, u64)>,
}

/// The place, and the ledger that fits it.
pub(crate) fn begin(ledger: &mut Ledger, known: Known<'_>) -> Start {
    let start = place(ledger, known);
    match start.origin {
        Origin::Ledger => {}
        Origin::TooOld | Origin::Removed => {
            ledger.replay_from = start.from;
            ledger.covered = ledger.covered.max(start.from);
        }
        Origin::WentBack => {
            ledger.went_back(start.from);
            ledger.replay_from = ledger.replay_from.max(known.earliest);
            drop(ledger.copies.split_off(&start.from));
        }
        Origin::Commit | Origin::Lookback | Origin::OtherLog => {
            (ledger.replay_from, ledger.covered) = (start.from, start.from);
            ledger.carried.clear();
            ledger.copies.clear();
            ledger.seen = Dedup::default();
            known.log.clone_into(&mut ledger.log);
        }
    }
    Start { from: ledger.replay_from, ..start }
}

fn place(ledger: &Ledger, known: Known<'_>) -> Start {
    let Known { earliest, end, .. } = known;
    let lookback = known.lookback.clamp(earliest, end.max(earliest));
    let start = |from, origin| Start { from, origin, lost: None };
    if ledger.log != known.log {
        let origin = if ledger.log.is_empty() { Origin::Lookback } else { Origin::OtherLog };
        return match known.committed {
            Some(committed) if known.inactive => start(committed.clamp(earliest, end.max(earliest)), Origin::Commit),
            _ => start(lookback, origin),
        };
    }
    if ledger.covered > end {
        return start(end, Origin::WentBack);
    }
    if ledger.replay_from >= lookback {
        return start(ledger.replay_from, Origin::Ledger);
    }
    if lookback > earliest {
        return start(lookback, Origin::TooOld);
    }
    Start { from: earliest, origin: Origin::Removed, lost: Some((ledger.replay_from, earliest)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: Known<'static> =
        Known { log: "a", committed: None, earliest: 10, end: 100, lookback: 40, inactive: false };

    fn of(log: &str, replay_from: u64, covered: u64) -> Ledger {
        let carried = serde_json::from_str(r#"[["t", "00000000000000000000000000000001", 0]]"#).unwrap();
        Ledger { log: log.to_owned(), replay_from, covered, carried, ..Ledger::default() }
    }

    fn started(mut ledger: Ledger, known: Known<'_>) -> (u64, Origin, u64, usize) {
        let start = begin(&mut ledger, known);
        assert_eq!((ledger.log.as_str(), ledger.replay_from), (known.log, start.from));
        (start.from, start.origin, ledger.covered, ledger.carried.len())
    }

    #[test]
    fn an_empty_disk_is_filled_from_the_lookback_whatever_was_committed() {
        assert_eq!(started(Ledger::default(), KNOWN), (40, Origin::Lookback, 40, 0));
        let committed = Known { committed: Some(90), ..KNOWN };
        assert_eq!(started(Ledger::default(), committed), (40, Origin::Lookback, 40, 0));
        assert_eq!(started(Ledger::default(), Known { lookback: 0, ..KNOWN }), (10, Origin::Lookback, 10, 0));
        let empty = Known { earliest: 0, end: 0, lookback: 0, ..KNOWN };
        assert_eq!(started(Ledger::default(), empty), (0, Origin::Lookback, 0, 0));
    }

    #[test]
    fn of_a_partition_that_is_given_up_only_what_was_not_committed_is_read() {
        let inactive = Known { committed: Some(90), inactive: true, ..KNOWN };
        assert_eq!(started(Ledger::default(), inactive), (90, Origin::Commit, 90, 0));
        assert_eq!(started(Ledger::default(), Known { committed: Some(5), ..inactive }), (10, Origin::Commit, 10, 0));
        assert_eq!(
            started(Ledger::default(), Known { committed: Some(500), ..inactive }),
            (100, Origin::Commit, 100, 0)
        );
        assert_eq!(started(Ledger::default(), Known { committed: None, ..inactive }), (40, Origin::Lookback, 40, 0));
    }

    #[test]
    fn what_is_on_the_disk_is_not_read_again_and_a_commit_elsewhere_leaves_no_hole() {
        for committed in [None, Some(20), Some(99)] {
            let known = Known { committed, ..KNOWN };
            assert_eq!(started(of("a", 50, 60), known), (50, Origin::Ledger, 60, 1));
        }
    }

    #[test]
    fn after_a_long_absence_the_lookback_is_enough_and_nothing_counts_as_lost() {
        let mut ledger = of("a", 20, 30);
        let start = begin(&mut ledger, KNOWN);
        assert_eq!(start, Start { from: 40, origin: Origin::TooOld, lost: None });
        assert_eq!((ledger.covered, ledger.carried.len()), (40, 1));
        // The carried traces' pieces between are read again, what is covered is not.
        assert_eq!(started(of("a", 20, 60), KNOWN), (40, Origin::TooOld, 60, 1));
    }

    #[test]
    fn what_the_log_removed_before_it_was_read_is_named() {
        let mut ledger = of("a", 4, 8);
        let start = begin(&mut ledger, Known { lookback: 10, ..KNOWN });
        assert_eq!(start, Start { from: 10, origin: Origin::Removed, lost: Some((4, 10)) });
        assert_eq!(ledger.covered, 10);
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_beginning() {
        assert_eq!(started(of("b", 50, 60), KNOWN), (40, Origin::OtherLog, 40, 0));
    }

    #[test]
    fn a_log_that_lost_its_end_is_followed_from_the_end_that_it_has() {
        assert_eq!(started(of("a", 150, 160), KNOWN), (100, Origin::WentBack, 100, 1));
        assert_eq!(started(of("a", 90, 160), KNOWN), (90, Origin::WentBack, 100, 1));
    }

    proptest! {
        #[test]
        fn the_place_is_always_one_that_the_log_has(
            log in "[ab]?", at in 0u64..120, more in 0u64..20, committed in proptest::option::of(0u64..150),
            earliest in 0u64..50, held in 0u64..80, lookback in 0u64..150, inactive: bool,
        ) {
            let mut ledger = of(&log, at, at + more);
            let end = earliest + held;
            let before = ledger.clone();
            let start = begin(&mut ledger, Known { log: "a", committed, earliest, end, lookback, inactive });
            prop_assert!((earliest..=end).contains(&start.from), "{start:?}");
            prop_assert!(start.from <= ledger.covered && ledger.covered <= end.max(before.covered), "{ledger:?}");
            prop_assert!(start.lost.is_none_or(|(from, to)| from < to && to <= earliest));
        }
    }
}

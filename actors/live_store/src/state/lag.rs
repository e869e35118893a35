//! How far a live-store is behind its log, and what it may say meanwhile.
//!
//! Offsets are what was applied and what the log has; times are unix milliseconds, those of records their own. An answer is
//! complete up to the newest record that was applied. It is called incomplete only when more is known to be in the log and
//! that record is old, when a replay has not passed the end that the log had at its start, or when the log does not answer.

use std::fmt;
use std::time::Duration;

/// So many records in the log count as none, for readiness.
const FEW_RECORDS: u64 = 1_000;
/// A log that has not answered for so long may have news that nobody here knows of.
const SILENCE: Duration = Duration::from_secs(10);

/// The position of one live-store against its log.
#[derive(Debug, Clone)]
pub(crate) struct Lag {
    limit: Duration,
    next: u64,
    newest_ms: Option<i64>,
    heard: Option<Heard>,
    /// The end that the log had when it first answered.
    replay_to: Option<u64>,
    /// This process was held up: what the log said before tells nothing, until it answers a question that was asked since.
    held_up: bool,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    end: u64,
    at_ms: i64,
}

/// What is to be said of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is complete up to the newest record that was applied.
    Current,
    /// The log has not answered since the start.
    Unheard,
    /// The log has not answered for so long.
    Silent(Duration),
    /// So many offsets are still to be applied; what came until then is there.
    Behind { records: u64, newest_ms: Option<i64> },
}

impl Lag {
    /// At `next`, with nothing heard yet. `limit` is the age of the newest record from which on it counts as old.
    pub(crate) fn new(limit: Duration, next: u64) -> Self {
        Self { limit, next, newest_ms: None, heard: None, replay_to: None, held_up: false }
    }

    /// Everything below `next` is applied; `newest_ms` is the time of the latest record in the batch, if it had any.
    pub(crate) fn applied(&mut self, next: u64, newest_ms: Option<i64>) {
        self.next = next;
        self.newest_ms = self.newest_ms.max(newest_ms);
    }

    /// This process did not run for a while, and does not know what came meanwhile.
    pub(crate) fn was_held_up(&mut self) {
        (self.heard, self.replay_to, self.held_up) = (None, None, true);
    }

    /// The log answers a question for its end, which was asked since this process was held up, if it was.
    pub(crate) fn answered(&mut self, end: u64, now_ms: i64) {
        self.held_up = false;
        self.heard(end, now_ms);
    }

    /// The log has records below `end`, as it says beside records.
    pub(crate) fn heard(&mut self, end: u64, now_ms: i64) {
        if self.held_up {
            // It may have been said before.
            return;
        }
        self.heard = Some(Heard { end, at_ms: now_ms });
        self.replay_to.get_or_insert(end);
    }

    /// The log itself went back to `end`.
    pub(crate) fn went_back(&mut self, end: u64) {
        (self.next, self.replay_to) = (end, Some(end));
    }

    /// The time of the newest record that was applied.
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        self.newest_ms
    }

    /// The end of the log as last heard.
    pub(crate) fn end(&self) -> Option<u64> {
        self.heard.map(|heard| heard.end)
    }

    /// Offsets in the log that are not applied, as far as is known.
    pub(crate) fn records(&self) -> Option<u64> {
        self.heard.map(|heard| heard.end.saturating_sub(self.next))
    }

    /// How old the newest record is while more are known to be in the log; zero when there are none. None when unknown.
    pub(crate) fn time(&self, now_ms: i64) -> Option<Duration> {
        match self.records()? {
            0 => Some(Duration::ZERO),
            _ => self.newest_ms.map(|newest| since(newest, now_ms)),
        }
    }

    /// Whether the records that come are old ones: what is decided by time goes by their times then.
    pub(crate) fn is_catching_up(&self, now_ms: i64) -> bool {
        matches!(self.verdict(now_ms), Verdict::Behind { .. })
    }

    pub(crate) fn verdict(&self, now_ms: i64) -> Verdict {
        let Some(heard) = self.heard else { return Verdict::Unheard };
        let records = heard.end.saturating_sub(self.next);
        let replayed = self.replay_to.is_none_or(|end| self.next >= end);
        let old = self.newest_ms.is_none_or(|newest| since(newest, now_ms) > self.limit);
        if records > 0 && (old || !replayed) {
            return Verdict::Behind { records, newest_ms: self.newest_ms };
        }
        let silent = since(heard.at_ms, now_ms);
        if silent > self.limit.max(SILENCE) { Verdict::Silent(silent) } else { Verdict::Current }
    }

    /// What is said of an answer about everything up to `end_ns` (0: up to now): none when it is complete.
    pub(crate) fn missing(&self, end_ns: u64, now_ms: i64) -> Option<Verdict> {
        let newest_ns = self.newest_ms.and_then(|ms| u64::try_from(ms).ok()).map(|ms| ms.saturating_mul(1_000_000));
        let reached = end_ns > 0 && newest_ns.is_some_and(|newest| end_ns <= newest);
        match self.verdict(now_ms) {
            Verdict::Current => None,
            _ if reached => None,
            verdict => Some(verdict),
        }
    }

    /// Whether the live-store may call itself ready: a target of zero asks for nothing.
    pub(crate) fn is_within(&self, target: Duration, now_ms: i64) -> bool {
        target.is_zero()
            || self.records().is_some_and(|records| records <= FEW_RECORDS)
            || self.time(now_ms).is_some_and(|lag| lag <= target)
    }
}

fn since(then_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0))
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => out.write_str("nothing"),
            Self::Unheard => out.write_str("its log has not answered yet: what it holds is not known"),
            Self::Silent(silence) => {
                write!(out, "its log has not answered for {} s: newer spans may be missing", silence.as_secs())
            }
            Self::Behind { records, newest_ms } => {
                write!(out, "it lags: {records} records of its log are not applied yet")?;
                match newest_ms.and_then(|ms| u64::try_from(ms).ok()) {
                    Some(ms) => write!(out, "; it is complete up to {}", vivace_storage::Timestamp(ms * 1_000_000)),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn behind(records: u64, newest_ms: Option<i64>) -> Verdict {
        Verdict::Behind { records, newest_ms }
    }

    #[test]
    fn nothing_is_vouched_for_before_the_log_has_answered_and_the_replay_has_passed_its_end() {
        let mut lag = Lag::new(LIMIT, 5);
        assert_eq!((lag.verdict(0), lag.time(0), lag.records()), (Verdict::Unheard, None, None));
        lag.heard(9, 100_000);
        assert_eq!(lag.verdict(100_000), behind(4, None));
        // Records that are young do not help while those that were there at the start are not all applied.
        lag.applied(7, Some(99_999));
        assert_eq!(lag.verdict(100_000), behind(2, Some(99_999)));
        lag.applied(9, Some(99_999));
        assert_eq!(lag.verdict(100_000), Verdict::Current);
    }

    #[test]
    fn who_was_held_up_vouches_for_nothing_before_the_log_has_answered_anew() {
        let mut lag = Lag::new(LIMIT, 0);
        lag.heard(5, 100_000);
        lag.applied(5, Some(100_000));
        assert_eq!(lag.verdict(104_000), Verdict::Current);
        lag.was_held_up();
        assert_eq!(lag.verdict(104_000), Verdict::Unheard);
        // What lay in its socket was said before.
        lag.applied(6, Some(100_100));
        lag.heard(6, 104_000);
        assert_eq!(lag.verdict(104_000), Verdict::Unheard);
        lag.answered(9, 104_000);
        assert_eq!(lag.verdict(104_000), behind(3, Some(100_100)), "however young");
        lag.heard(9, 104_001);
        lag.applied(9, Some(103_000));
        assert_eq!(lag.verdict(104_001), Verdict::Current);
    }

    #[test]
    fn it_lags_only_when_its_newest_record_is_old_and_more_are_known() {
        let mut lag = Lag::new(LIMIT, 0);
        lag.heard(0, 1_000);
        lag.applied(3, Some(1_000));
        lag.heard(3, 500_000);
        assert_eq!(lag.verdict(500_000), Verdict::Current, "an idle log is not a lag");
        assert_eq!(lag.time(500_000), Some(Duration::ZERO));
        lag.heard(4, 500_000);
        assert_eq!(lag.verdict(500_000), behind(1, Some(1_000)));
        lag.applied(4, Some(499_000));
        lag.heard(5, 500_000);
        assert_eq!(lag.verdict(500_000), Verdict::Current, "young");
        assert_eq!(lag.verdict(509_001), behind(1, Some(499_000)));
        assert_eq!(lag.time(509_001), Some(Duration::from_millis(10_001)));
    }

    #[test]
    fn a_log_that_does_not_answer_is_not_an_empty_log() {
        let mut lag = Lag::new(Duration::from_secs(2), 0);
        lag.heard(0, 0);
        assert_eq!(lag.verdict(10_000), Verdict::Current);
        assert_eq!(lag.verdict(10_001), Verdict::Silent(Duration::from_millis(10_001)));
        assert!(lag.verdict(12_000).to_string().contains("12 s"));
    }

    #[test]
    fn a_question_about_the_past_is_answered_whatever_the_lag() {
        let mut lag = Lag::new(LIMIT, 0);
        lag.heard(10, 100_000);
        lag.applied(5, Some(50_000));
        let missing = |end_ms: u64| lag.missing(end_ms * 1_000_000, 100_000);
        assert_eq!(missing(50_000), None);
        assert_eq!(missing(50_001), Some(behind(5, Some(50_000))));
        assert_eq!(missing(0), Some(behind(5, Some(50_000))), "up to now");
        assert_eq!(missing(200_000), Some(behind(5, Some(50_000))), "the future is not over");
        let text = missing(0).unwrap().to_string();
        assert_eq!(
            text,
            "it lags: 5 records of its log are not applied yet; it is complete up to 1970-01-01T00:00:50Z"
        );
    }

    #[test]
    fn readiness_asks_for_the_target_or_for_few_records() {
        let mut lag = Lag::new(LIMIT, 0);
        assert!(lag.is_within(Duration::ZERO, 0), "no target");
        let target = Duration::from_secs(5);
        assert!(!lag.is_within(target, 0), "unknown");
        lag.heard(5_000, 100_000);
        assert!(!lag.is_within(target, 100_000));
        lag.applied(3_999, Some(50_000));
        assert!(!lag.is_within(target, 100_000));
        lag.applied(4_000, Some(50_000));
        assert!(lag.is_within(target, 100_000), "a thousand records are few");
        lag.heard(50_000, 100_000);
        lag.applied(4_001, Some(95_000));
        assert!(lag.is_within(target, 100_000));
        assert!(!lag.is_within(target, 100_001));
    }

    #[test]
    fn a_log_that_went_back_is_followed_from_its_end() {
        let mut lag = Lag::new(LIMIT, 0);
        lag.heard(100, 0);
        lag.applied(100, Some(0));
        lag.went_back(40);
        lag.heard(40, 1_000);
        assert_eq!((lag.verdict(1_000), lag.records()), (Verdict::Current, Some(0)));
    }
}

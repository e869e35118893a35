//! The rule of restarting: growing backoff, and giving up when failures come too often. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How a part comes back after a failure. Data, so that a table of children can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The pause after a first failure.
    pub first_backoff: Duration,
    /// The pause that doubling ends at.
    pub max_backoff: Duration,
    /// More failures than this within the window are given up on. `None` never gives up.
    pub limit: Option<Limit>,
    /// What giving up means.
    pub beyond: Beyond,
    /// What messages meet while the part is being rebuilt.
    pub meanwhile: Meanwhile,
}

/// So many failures within so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many are borne.
    pub failures: u32,
    /// Within how long.
    pub within: Duration,
}

/// What happens when the limit is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// The supervisor fails, and its parent decides; the root's failure ends the process.
    Escalate,
    /// The part stays failed and is shown as such; everything else goes on.
    Quarantine,
}

/// What a message meets while its part is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// UNAVAILABLE, which clients retry.
    Refuse,
    /// Its turn once the part is back. The mailbox's bounds hold what can wait.
    Wait,
}

impl Default for Restart {
    /// 100 ms doubling up to 10 s, at most 5 failures a minute, then escalation; messages are refused meanwhile.
    fn default() -> Self {
        Self {
            first_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            limit: Some(Limit { failures: 5, within: Duration::from_secs(60) }),
            beyond: Beyond::Escalate,
            meanwhile: Meanwhile::Refuse,
        }
    }
}

impl Restart {
    /// Never gives up: for parts whose failure comes from outside, such as a peer that is away.
    #[must_use]
    pub fn forever() -> Self {
        Self { limit: None, ..Self::default() }
    }

    /// With another limit.
    #[must_use]
    pub fn at_most(self, failures: u32, within: Duration) -> Self {
        Self { limit: Some(Limit { failures, within }), ..self }
    }

    /// With another range of pauses.
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Self {
        Self { first_backoff: first, max_backoff: max, ..self }
    }

    /// Past the limit the part alone stays failed.
    #[must_use]
    pub fn quarantine(self) -> Self {
        Self { beyond: Beyond::Quarantine, ..self }
    }

    /// Messages wait while the part is away.
    #[must_use]
    pub fn waiting(self) -> Self {
        Self { meanwhile: Meanwhile::Wait, ..self }
    }
}

/// The failures of one part so far.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    recent: VecDeque<Instant>,
    in_a_row: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    RebuildAfter(Duration),
    GiveUp,
}

impl Failures {
    /// Counts a failure. A part that has gone on for longer than the longest pause starts again with the shortest.
    pub(crate) fn another(&mut self, policy: &Restart, now: Instant) -> Verdict {
        let calm = self.recent.back().is_none_or(|last| now.duration_since(*last) > policy.max_backoff * 2);
        self.in_a_row = if calm { 0 } else { self.in_a_row.saturating_add(1) };
        self.recent.push_back(now);
        let kept = policy.limit.map_or(1, |limit| limit.failures as usize + 1);
        while self.recent.len() > kept {
            self.recent.pop_front();
        }
        if let Some(limit) = policy.limit {
            let within = self.recent.iter().filter(|at| now.duration_since(**at) <= limit.within).count();
            if within > limit.failures as usize {
                return Verdict::GiveUp;
            }
        }
        Verdict::RebuildAfter(policy.first_backoff.saturating_mul(1 << self.in_a_row.min(20)).min(policy.max_backoff))
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_calm() {
        let policy = Restart::forever().backoff(Duration::from_secs(1), Duration::from_secs(5));
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut at = |seconds| failures.another(&policy, start + Duration::from_secs(seconds));
        let pauses = [at(0), at(1), at(3), at(7), at(12), at(60)];
        assert_eq!(pauses, [1, 2, 4, 5, 5, 1].map(|pause| Verdict::RebuildAfter(Duration::from_secs(pause))));
    }

    #[test]
    fn the_limit_counts_only_failures_within_the_window() {
        let policy = Restart::default().at_most(2, Duration::from_secs(60));
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut at = |seconds| failures.another(&policy, start + Duration::from_secs(seconds)) == Verdict::GiveUp;
        assert_eq!([at(0), at(30), at(70), at(95), at(100)], [false, false, false, false, true]);
    }
}

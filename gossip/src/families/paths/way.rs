//! One way to a peer: when it worked last, and when it is to be tried again.

use std::time::Duration;

/// Failures in a row after which a datagram way that worked is left.
pub(super) const DATAGRAM_FAILURES: u8 = 2;
pub(super) const RETRY_MIN: Duration = Duration::from_secs(15);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest a stream way is left alone: a healed family must be found again soon.
pub(super) const STREAM_RETRY_MAX: Duration = Duration::from_secs(20);
/// A datagram way, and a stream way, that was proven less than this ago need not be checked.
pub(super) const DATAGRAM_PROVEN: Duration = Duration::from_secs(3);
pub(super) const STREAM_PROVEN: Duration = Duration::from_secs(10);
/// A way that failed is not taken until it was tried, or until this long after it should have been.
pub(super) const UNTRIED: Duration = Duration::from_secs(60);
/// An older proof says nothing of now.
pub(super) const BELIEVED: Duration = Duration::from_secs(120);

/// An attempt that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    /// When it began.
    pub(super) begun: Duration,
    /// Nothing came from the peer meanwhile, by any way.
    pub(super) mute: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    pub(super) good: Option<Duration>,
    /// Set by a failure, taken away by a success.
    pub(super) retry_at: Option<Duration>,
    /// Since when it fails: when that was sent which was the first to stay without an answer.
    pub(super) failed_at: Option<Duration>,
    pub(super) failures: u8,
    /// When it failed last, the peer was silent by every way: that says something of the peer, and nothing of the way.
    mute: bool,
}

impl Way {
    pub(super) fn works(&self, now: Duration) -> Option<bool> {
        if self.retry_at.is_some() { Some(false) } else { self.proven_within(now, BELIEVED).then_some(true) }
    }

    pub(super) fn proven_within(&self, now: Duration, span: Duration) -> bool {
        self.good.is_some_and(|good| now.saturating_sub(good) < span)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.retry_at.is_some_and(|at| now >= at)
    }

    /// It failed, and was not proven since. It is tried again for its own sake, so that nothing that matters waits for it; where
    /// that did not happen, as in a cluster so large that the pair seldom meets, it is as good as any other after a while.
    pub(super) fn is_left(&self, now: Duration) -> bool {
        self.retry_at.is_some_and(|at| now < at + UNTRIED)
    }

    pub(super) fn succeeded(&mut self, now: Duration) {
        *self = Self { good: Some(now), ..Self::default() };
    }

    /// It was tried in vain.
    pub(super) fn failed(&mut self, now: Duration, tolerated: u8, longest: Duration, tried: Tried) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at.get_or_insert(tried.begun);
        self.mute = tried.mute;
        if self.failures >= tolerated || self.good.is_none() {
            let doublings = u32::from(self.failures.saturating_sub(tolerated).min(8));
            self.retry_at = Some(now + (RETRY_MIN * 2_u32.pow(doublings)).min(longest));
        }
    }

    /// The peer is heard by some way. If it was mute before, as a process that was stopped is, this way is to be tried again
    /// soon; it counts as failed until it is answered.
    pub(super) fn peer_heard(&mut self, now: Duration) {
        if std::mem::take(&mut self.mute) {
            self.retry_at = self.retry_at.map(|at| at.min(now));
        }
    }
}

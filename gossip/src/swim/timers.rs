//! What is due when, on a time that stands still while the process does.
//!
//! A process that was stopped (SIGSTOP, a frozen virtual machine) finds all its deadlines passed when it goes on, and the
//! answers that would have met them still unread. So a wake-up that comes much too late moves every deadline by as much, and a
//! little more, in which those answers are read. What is handled later than it was due, by less than that, is told how late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Lateness that a busy machine may cause.
const TOLERATED: Duration = Duration::from_millis(1500);
/// How long it may take to read what came during a stop.
const READING: Duration = Duration::from_millis(200);

/// Timers in the order of their deadlines, and of their setting where these are equal.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: BinaryHeap<Reverse<Due<T>>>,
    serial: u64,
    /// How much of the time given from outside did not count.
    stood: Duration,
    /// The latest time that counted.
    latest: Duration,
}

#[derive(Debug)]
struct Due<T> {
    at: Duration,
    serial: u64,
    what: T,
}

impl<T> Timers<T> {
    pub(crate) fn new(now: Duration) -> Self {
        Self { heap: BinaryHeap::new(), serial: 0, stood: Duration::ZERO, latest: now }
    }

    /// The time that counts, when it is `outside`.
    pub(crate) fn running(&self, outside: Duration) -> Duration {
        outside.saturating_sub(self.stood)
    }

    /// Notes that the process is awake at `outside`; a long sleep beyond the next deadline does not count. Answers how long
    /// it was.
    pub(crate) fn awake(&mut self, outside: Duration) -> Duration {
        let now = self.running(outside);
        let late = self.heap.peek().map_or(Duration::ZERO, |Reverse(next)| now.saturating_sub(next.at));
        let stood =
            if late > TOLERATED { (late + READING).min(now.saturating_sub(self.latest)) } else { Duration::ZERO };
        self.stood += stood;
        self.latest = self.latest.max(now - stood);
        if stood.is_zero() { stood } else { late }
    }

    pub(crate) fn set(&mut self, at: Duration, what: T) {
        self.serial += 1;
        self.heap.push(Reverse(Due { at, serial: self.serial, what }));
    }

    /// When to wake up next, on the time from outside.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(due)| due.at + self.stood)
    }

    /// What is due at `now`, and for how long already.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<(T, Duration)> {
        if self.heap.peek().is_some_and(|Reverse(due)| due.at <= now) {
            self.heap.pop().map(|Reverse(due)| (due.what, now.saturating_sub(due.at)))
        } else {
            None
        }
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stopped_process_does_not_find_its_deadlines_passed() {
        let mut timers = Timers::new(s(1));
        timers.set(s(10), "soon");
        timers.set(s(16), "later");
        assert_eq!(timers.awake(s(100)), s(90));
        let now = timers.running(s(100));
        assert_eq!(now, s(10) - READING, "what came in the meantime is read first");
        assert_eq!(timers.pop(now), None);
        assert_eq!(timers.next(), Some(s(100) + READING));
        let now = timers.running(s(100) + READING);
        assert_eq!(timers.awake(s(100) + READING), Duration::ZERO);
        assert_eq!(timers.pop(now), Some(("soon", Duration::ZERO)));
        assert_eq!(timers.pop(now), None);
        assert_eq!(timers.next(), Some(s(106) + READING));
    }

    #[test]
    fn time_does_not_go_back_for_a_stop() {
        let mut timers = Timers::new(s(1));
        timers.set(s(10), ());
        let before = s(10) - READING / 4;
        assert_eq!(timers.awake(before), Duration::ZERO);
        assert_eq!(timers.awake(s(100)), s(90));
        assert_eq!(timers.running(s(100)), before);
    }

    #[test]
    fn a_little_lateness_is_no_stop() {
        let mut timers = Timers::new(Duration::ZERO);
        timers.set(s(1), ());
        assert_eq!(timers.awake(s(2)), Duration::ZERO);
        assert_eq!(timers.pop(timers.running(s(2))), Some(((), s(1))));
    }
}

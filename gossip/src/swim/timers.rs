//! What is due when, on a time that stands still while the process does.
//!
//! A process that was stopped (SIGSTOP, a frozen virtual machine) finds all its deadlines passed when it goes on, and the
//! answers that would have met them still unread. So a wake-up that comes much too late moves every deadline by as much.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Lateness that a busy machine may cause.
const TOLERATED: Duration = Duration::from_millis(1500);

/// Timers in the order of their deadlines, and of their setting where these are equal.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: BinaryHeap<Reverse<Due<T>>>,
    serial: u64,
    /// How much of the time given from outside did not count.
    stood: Duration,
}

#[derive(Debug)]
struct Due<T> {
    at: Duration,
    serial: u64,
    what: T,
}

impl<T> Timers<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), serial: 0, stood: Duration::ZERO }
    }

    /// The time that counts, when it is `outside`.
    pub(crate) fn running(&self, outside: Duration) -> Duration {
        outside.saturating_sub(self.stood)
    }

    /// Notes that the process is awake at `outside`; a long sleep beyond the next deadline does not count. Answers how long
    /// it was.
    pub(crate) fn awake(&mut self, outside: Duration) -> Duration {
        let late = match self.heap.peek() {
            Some(Reverse(next)) => self.running(outside).saturating_sub(next.at),
            None => Duration::ZERO,
        };
        if late <= TOLERATED {
            return Duration::ZERO;
        }
        self.stood += late;
        late
    }

    pub(crate) fn set(&mut self, at: Duration, what: T) {
        self.serial += 1;
        self.heap.push(Reverse(Due { at, serial: self.serial, what }));
    }

    /// When to wake up next, on the time from outside.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(due)| due.at + self.stood)
    }

    pub(crate) fn pop(&mut self, now: Duration) -> Option<T> {
        if self.heap.peek().is_some_and(|Reverse(due)| due.at <= now) {
            self.heap.pop().map(|Reverse(due)| due.what)
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

    #[test]
    fn a_stopped_process_does_not_find_its_deadlines_passed() {
        let s = Duration::from_secs;
        let mut timers = Timers::new();
        timers.set(s(10), "soon");
        timers.set(s(16), "later");
        assert_eq!(timers.awake(s(100)), s(90));
        let now = timers.running(s(100));
        assert_eq!(now, s(10));
        assert_eq!(timers.pop(now), Some("soon"));
        assert_eq!(timers.pop(now), None);
        assert_eq!(timers.next(), Some(s(106)));
    }

    #[test]
    fn a_little_lateness_is_no_stop() {
        let mut timers = Timers::new();
        timers.set(Duration::from_secs(1), ());
        assert_eq!(timers.awake(Duration::from_secs(2)), Duration::ZERO);
        assert!(timers.pop(timers.running(Duration::from_secs(2))).is_some());
    }
}

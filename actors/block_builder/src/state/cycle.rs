//! Which partition's records are next.
//!
//! A cycle begins with one section of every partition, however recent its records, then goes on with the one that is furthest
//! behind until none is behind by a whole period. A partition that fails rests for a while, longer each time; the others go on.

use std::collections::BTreeMap;
use std::time::Duration;

/// The rest after a first failure; it doubles.
const FIRST_REST_MS: i64 = 250;
/// The longest rest.
const LONGEST_REST_MS: i64 = 60_000;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Make a section of this partition.
    Section(i32),
    /// Nothing for so long; then a new cycle begins.
    Rest(Duration),
}

/// What became of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// A section was committed whose newest record has this time; the log has more.
    Behind {
        /// Unix milliseconds.
        newest_ms: i64,
    },
    /// Everything that the log had was taken.
    UpToDate,
    /// It could not be done.
    Failed,
}

#[derive(Debug, Default)]
struct Place {
    visited: bool,
    /// Records up to this time are in blocks, unix milliseconds.
    reached_ms: i64,
    rests_until_ms: i64,
    rest_ms: i64,
}

/// The order of visits.
#[derive(Debug)]
pub(crate) struct Cycle {
    period_ms: i64,
    places: BTreeMap<i32, Place>,
}

impl Cycle {
    /// Over these partitions.
    pub(crate) fn new(period: Duration, partitions: impl IntoIterator<Item = i32>) -> Self {
        let period_ms = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { period_ms, places: partitions.into_iter().map(|partition| (partition, Place::default())).collect() }
    }

    /// What is to be done now.
    pub(crate) fn next(&mut self, now_ms: i64) -> Next {
        let awake = |place: &&mut Place| place.rests_until_ms <= now_ms;
        let first = self.places.iter_mut().filter(|(_, place)| awake(place)).find(|(_, place)| !place.visited);
        if let Some((partition, place)) = first {
            place.visited = true;
            return Next::Section(*partition);
        }
        let furthest =
            self.places.iter_mut().filter(|(_, place)| awake(place)).min_by_key(|(_, place)| place.reached_ms);
        let mut rest_ms = self.period_ms;
        if let Some((partition, place)) = furthest {
            let behind = now_ms.saturating_sub(place.reached_ms);
            if behind >= self.period_ms {
                return Next::Section(*partition);
            }
            // A clock of producers that is ahead must not make us rest for longer than a period.
            rest_ms = (self.period_ms - behind).clamp(1, self.period_ms);
        }
        let sleepers =
            self.places.values().map(|place| place.rests_until_ms.saturating_sub(now_ms)).filter(|ms| *ms > 0);
        let rest_ms = sleepers.fold(rest_ms, i64::min);
        for place in self.places.values_mut() {
            place.visited = false;
        }
        Next::Rest(Duration::from_millis(u64::try_from(rest_ms).unwrap_or(1)))
    }

    /// Says what became of a visit.
    pub(crate) fn visited(&mut self, partition: i32, visit: Visit, now_ms: i64) {
        let Some(place) = self.places.get_mut(&partition) else { return };
        match visit {
            Visit::Behind { newest_ms } => place.reached_ms = newest_ms,
            Visit::UpToDate => place.reached_ms = now_ms,
            Visit::Failed => {
                place.rest_ms = (place.rest_ms * 2).clamp(FIRST_REST_MS, LONGEST_REST_MS);
                place.rests_until_ms = now_ms.saturating_add(place.rest_ms);
                place.visited = false;
                return;
            }
        }
        (place.rest_ms, place.rests_until_ms) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: i64 = 300_000;

    fn cycle(partitions: &[i32]) -> Cycle {
        Cycle::new(Duration::from_secs(300), partitions.iter().copied())
    }

    fn rest(ms: u64) -> Next {
        Next::Rest(Duration::from_millis(ms))
    }

    #[test]
    fn each_partition_is_visited_once_and_then_the_one_furthest_behind() {
        let (mut cycle, now) = (cycle(&[3, 4]), 10 * PERIOD);
        assert_eq!(cycle.next(now), Next::Section(3));
        cycle.visited(3, Visit::Behind { newest_ms: now - 3 * PERIOD }, now);
        assert_eq!(cycle.next(now), Next::Section(4));
        cycle.visited(4, Visit::Behind { newest_ms: now - 4 * PERIOD }, now);
        assert_eq!(cycle.next(now), Next::Section(4));
        cycle.visited(4, Visit::UpToDate, now);
        assert_eq!(cycle.next(now), Next::Section(3));
        cycle.visited(3, Visit::Behind { newest_ms: now - 100_000 }, now);
        assert_eq!(cycle.next(now), rest(200_000));
        // After the rest a new cycle begins, with both.
        let later = now + 200_000;
        assert_eq!(cycle.next(later), Next::Section(3));
        cycle.visited(3, Visit::UpToDate, later);
        assert_eq!(cycle.next(later), Next::Section(4));
    }

    #[test]
    fn a_partition_that_fails_rests_longer_each_time_and_holds_up_no_other() {
        let (mut cycle, now) = (cycle(&[1, 2]), 10 * PERIOD);
        assert_eq!(cycle.next(now), Next::Section(1));
        cycle.visited(1, Visit::Failed, now);
        assert_eq!(cycle.next(now), Next::Section(2));
        cycle.visited(2, Visit::UpToDate, now);
        assert_eq!(cycle.next(now), rest(250));
        assert_eq!(cycle.next(now + 250), Next::Section(1));
        cycle.visited(1, Visit::Failed, now + 250);
        assert_eq!(cycle.next(now + 250), Next::Section(2));
        cycle.visited(2, Visit::UpToDate, now + 250);
        assert_eq!(cycle.next(now + 250), rest(500));
    }

    #[test]
    fn clocks_of_producers_that_are_ahead_do_not_stop_the_cycle() {
        let (mut cycle, now) = (cycle(&[1]), 10 * PERIOD);
        assert_eq!(cycle.next(now), Next::Section(1));
        cycle.visited(1, Visit::Behind { newest_ms: now + 99 * PERIOD }, now);
        assert_eq!(cycle.next(now), rest(300_000));
    }

    #[test]
    fn a_process_without_partitions_rests() {
        assert_eq!(cycle(&[]).next(0), rest(300_000));
    }
}

//! The time axis of a metrics query.
//!
//! Interval `i` covers `(start + i * step, start + (i + 1) * step]`, open on the left and closed on the right, and its
//! sample carries the right edge. A span belongs to the interval of its start time.

use crate::{plan::PlanError, query::Query, value::Value};

const SECOND: u64 = 1_000_000_000;
/// More intervals than any front end allows; bounds what one series can take.
const MOST_INTERVALS: u64 = 100_000;
/// No query carries more examples than this.
const MOST_EXEMPLARS: u32 = 100_000;

/// What is asked of a metrics query besides its text. The same for every part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsRequest {
    /// Nanoseconds since the epoch, not included. Range queries come aligned (see [`aligned`](Self::aligned)).
    pub start_ns: u64,
    /// Nanoseconds since the epoch, included.
    pub end_ns: u64,
    /// Length of an interval. Ignored by instant queries, whose one interval is the whole range.
    pub step_ns: u64,
    /// One value per series over the whole range, no exemplars.
    pub instant: bool,
    /// At most so many exemplars, shared by all series. 0: none.
    pub exemplars: u32,
    /// Series beyond this number are left out, and the result says so. 0: no limit.
    pub max_series: usize,
}

/// The spans that one part of the query may count: those that start after the first and not after the second instant.
/// Adjacent windows never share a span. What lies outside of the request's range is left out in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Nanoseconds since the epoch, not included.
    pub after_ns: u64,
    /// Nanoseconds since the epoch, included.
    pub until_ns: u64,
}

impl Window {
    /// No bound of its own.
    pub const ALL: Self = Self { after_ns: 0, until_ns: u64::MAX };
}

impl MetricsRequest {
    /// The step for a range that comes without one: about 240 intervals, rounded down to a round number of seconds.
    #[must_use]
    pub fn default_step_ns(start_ns: u64, end_ns: u64) -> u64 {
        const SHORT: u64 = 50_000_000;
        let range = end_ns.saturating_sub(start_ns);
        let bare = range / 240;
        if range < 60 * SECOND {
            return if bare > SHORT { bare - bare % SHORT } else { SHORT };
        }
        let unit = [3600, 300, 60, 15, 5, 1].into_iter().map(|seconds| seconds * SECOND).find(|unit| bare > *unit);
        unit.map_or(SECOND, |unit| bare - bare % unit)
    }

    /// Start and end of a range query on multiples of `step_ns`: the start goes down and one step further, so that the
    /// first sample has a full interval; the end goes up, or down where going up would pass `horizon_ns`, beyond which
    /// data is not complete yet.
    #[must_use]
    pub fn aligned(start_ns: u64, end_ns: u64, step_ns: u64, horizon_ns: u64) -> (u64, u64) {
        let step = step_ns.max(1);
        let floor = |time: u64| time - time % step;
        let end = end_ns.min(horizon_ns);
        let ceiled = end.checked_next_multiple_of(step).filter(|ceiled| *ceiled <= horizon_ns);
        let start = floor(start_ns);
        let start = if start > step { start - step } else { start };
        (start, ceiled.unwrap_or_else(|| floor(horizon_ns)))
    }

    /// How many exemplars a query may have: its hint (`exemplars=N`, `exemplars=false`), else what the request asks
    /// for, never more than `maximum`.
    #[must_use]
    pub fn exemplar_budget(query: &Query, requested: u32, maximum: u32) -> u32 {
        let hint = query.hints().iter().filter(|hint| hint.name == "exemplars").find_map(|hint| match hint.value {
            Value::Int(number) => Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX)),
            Value::Bool(wanted) => Some(if wanted { maximum } else { 0 }),
            _ => None,
        });
        hint.unwrap_or(requested).min(maximum).min(MOST_EXEMPLARS)
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        if self.end_ns <= self.start_ns {
            return Err(PlanError::Range("end must be greater than start"));
        }
        if !self.instant && self.step_ns == 0 {
            return Err(PlanError::Range("step must be greater than 0"));
        }
        if !self.instant && (self.end_ns - self.start_ns).div_ceil(self.step_ns) > MOST_INTERVALS {
            return Err(PlanError::Range("too many steps in the range, use a larger step or a shorter range"));
        }
        Ok(())
    }

    /// Length of an interval.
    pub(crate) fn interval_ns(&self) -> u64 {
        if self.instant { self.end_ns - self.start_ns } else { self.step_ns }
    }

    /// Number of intervals, at least one.
    #[must_use]
    pub fn intervals(&self) -> usize {
        let range = self.end_ns.saturating_sub(self.start_ns);
        usize::try_from(range.div_ceil(self.interval_ns().max(1))).unwrap_or(usize::MAX).max(1)
    }

    /// The interval of a span that starts at `time_ns`, `None` outside of the range.
    #[must_use]
    #[inline]
    pub fn interval_of(&self, time_ns: u64) -> Option<u32> {
        if time_ns <= self.start_ns || time_ns > self.end_ns {
            return None;
        }
        u32::try_from((time_ns - self.start_ns - 1) / self.interval_ns()).ok()
    }

    /// The timestamp of an interval's sample in milliseconds, cut off: its right edge.
    #[must_use]
    pub fn timestamp_ms(&self, interval: usize) -> i64 {
        let edge = (interval as u64 + 1).saturating_mul(self.interval_ns()).saturating_add(self.start_ns);
        let edge = if self.instant { self.end_ns } else { edge };
        i64::try_from(edge / 1_000_000).unwrap_or(i64::MAX)
    }

    /// The part of the range that a window leaves, `None` for nothing.
    pub(crate) fn narrowed(&self, window: Window) -> Option<Window> {
        let both = Window { after_ns: window.after_ns.max(self.start_ns), until_ns: window.until_ns.min(self.end_ns) };
        (both.after_ns < both.until_ns).then_some(both)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(start_ns: u64, end_ns: u64, step_ns: u64) -> MetricsRequest {
        MetricsRequest { start_ns, end_ns, step_ns, instant: false, exemplars: 0, max_series: 0 }
    }

    #[test]
    fn the_default_step_is_a_round_number() {
        let minutes = |n: u64| MetricsRequest::default_step_ns(0, n * 60 * SECOND) / SECOND;
        let steps: Vec<u64> = [1, 15, 60, 180, 360, 1440, 7 * 1440, 30 * 1440].into_iter().map(minutes).collect();
        assert_eq!(steps, [1, 3, 15, 45, 60, 300, 2400, 10_800]);
        assert_eq!(MetricsRequest::default_step_ns(0, 59 * SECOND), 200_000_000);
        assert_eq!(MetricsRequest::default_step_ns(0, 5 * SECOND), 50_000_000);
    }

    #[test]
    fn a_range_is_aligned_outwards_and_never_past_the_horizon() {
        assert_eq!(MetricsRequest::aligned(1003, 1097, 10, 2000), (990, 1100));
        assert_eq!(MetricsRequest::aligned(1000, 1100, 10, 2000), (990, 1100));
        // The end would go up past the horizon.
        assert_eq!(MetricsRequest::aligned(1003, 1097, 10, 1098), (990, 1090));
        assert_eq!(MetricsRequest::aligned(1003, 1297, 10, 1098), (990, 1090));
        assert_eq!(MetricsRequest::aligned(7, 97, 10, 2000), (0, 100));
    }

    #[test]
    fn an_interval_is_open_on_the_left_and_closed_on_the_right() {
        let request = request(100, 130, 10);
        assert_eq!(request.intervals(), 3);
        let of = |time: u64| request.interval_of(time);
        assert_eq!(
            [of(100), of(101), of(110), of(111), of(130), of(131)],
            [None, Some(0), Some(0), Some(1), Some(2), None]
        );
        let instant = MetricsRequest { instant: true, ..request };
        assert_eq!((instant.intervals(), instant.interval_of(130), instant.interval_of(100)), (1, Some(0), None));
    }

    #[test]
    fn samples_carry_the_right_edge_in_milliseconds() {
        let request = request(10 * SECOND, 13 * SECOND, 1_500_000_500);
        assert_eq!((request.timestamp_ms(0), request.timestamp_ms(1)), (11_500, 13_000));
        assert_eq!(MetricsRequest { instant: true, ..request }.timestamp_ms(0), 13_000);
    }

    #[test]
    fn a_hint_goes_before_the_request_and_the_maximum_before_both() {
        let budget = |text: &str, requested| {
            MetricsRequest::exemplar_budget(&Query::parse(&format!("{{}} | rate(){text}")).unwrap(), requested, 100)
        };
        assert_eq!(budget("", 20), 20);
        assert_eq!(budget("", 1000), 100);
        assert_eq!(budget(" with(exemplars=7)", 20), 7);
        assert_eq!(budget(" with(exemplars=700)", 20), 100);
        assert_eq!(budget(" with(exemplars=false)", 20), 0);
        assert_eq!(budget(" with(exemplars=true)", 20), 100);
        assert_eq!(budget(" with(exemplars=\"7\")", 20), 20);
    }

    proptest! {
        #[test]
        fn adjacent_windows_hold_every_span_once(times in prop::collection::vec(90_u64..150, 1..20), cut in 95_u64..145) {
            let request = request(100, 140, 7);
            let within = |window: Window, time: u64| {
                request.narrowed(window).is_some_and(|w| time > w.after_ns && time <= w.until_ns)
            };
            for time in times {
                let sides = [Window { until_ns: cut, ..Window::ALL }, Window { after_ns: cut, ..Window::ALL }];
                let held = sides.into_iter().filter(|window| within(*window, time)).count();
                prop_assert_eq!(held, usize::from(request.interval_of(time).is_some()));
            }
        }
    }
}

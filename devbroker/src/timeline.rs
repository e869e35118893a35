//! Which times stand where in a partition, coarsely: enough to look a time up by reading one mark's range, and to say what has
//! become too old or too much. Rules without IO.

/// A mark grows until it covers so many bytes.
const MARK_BYTES: u64 = 256 << 10;

/// The marks of one partition, in order of offsets.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    base: u64,
    /// The offset after the last one.
    end: u64,
    max_ms: i64,
    bytes: u64,
}

/// What a batch adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) base: u64,
    pub(crate) end: u64,
    pub(crate) max_ms: i64,
    pub(crate) bytes: u64,
}

impl Timeline {
    /// Takes note of a batch. Batches that became durable together may come in any order.
    pub(crate) fn note(&mut self, span: Span) {
        let at = self.marks.partition_point(|mark| mark.end < span.end);
        let last = self.marks.len().saturating_sub(1);
        match self.marks.get_mut(at.min(last)) {
            Some(mark) if at <= last || mark.bytes < MARK_BYTES => {
                mark.base = mark.base.min(span.base);
                mark.end = mark.end.max(span.end);
                mark.max_ms = mark.max_ms.max(span.max_ms);
                mark.bytes += span.bytes;
            }
            _ => self.marks.push(Mark { base: span.base, end: span.end, max_ms: span.max_ms, bytes: span.bytes }),
        }
    }

    /// Where to start reading for the first record at or after a time, at or above `start`: none is before that place, and one stands
    /// soon behind it. `None`: everything is older.
    pub(crate) fn find(&self, at_ms: i64, start: u64) -> Option<u64> {
        let mut marks = self.marks.iter().filter(|mark| mark.end > start);
        marks.find(|mark| mark.max_ms >= at_ms).map(|mark| mark.base.max(start))
    }

    /// Below which offset everything is older than `before_ms`, or more than `keep_bytes` behind the end. A segment that
    /// lies below it as a whole may go.
    pub(crate) fn expired(&self, before_ms: Option<i64>, keep_bytes: Option<u64>) -> Option<u64> {
        let mut surplus =
            self.marks.iter().map(|mark| mark.bytes).sum::<u64>().saturating_sub(keep_bytes.unwrap_or(u64::MAX));
        let mut below = None;
        for mark in &self.marks {
            let old = before_ms.is_some_and(|before_ms| mark.max_ms < before_ms);
            let too_much = surplus >= mark.bytes && mark.bytes > 0;
            if !old && !too_much {
                break;
            }
            surplus = surplus.saturating_sub(mark.bytes);
            below = Some(mark.end);
        }
        below
    }

    /// Forgets what is gone.
    pub(crate) fn release(&mut self, below: u64) {
        self.marks.retain(|mark| mark.end > below);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_never_sought_behind_its_first_record(
            batches in proptest::collection::vec((0..1000_i64, 1..10_u64, 1..2 * MARK_BYTES), 1..60),
            at_ms in 0..1000_i64,
            start in 0..300_u64,
            swap in any::<bool>(),
        ) {
            let mut spans = Vec::new();
            let mut base = 0;
            for (max_ms, offsets, bytes) in batches {
                spans.push(Span { base, end: base + offsets, max_ms, bytes });
                base += offsets;
            }
            let first = spans.iter().find(|span| span.max_ms >= at_ms && span.end > start).copied();
            let before = spans.iter().take_while(|span| span.max_ms < at_ms).last().map(|span| span.end);
            if swap {
                // Neighbours that became durable together.
                spans.chunks_mut(2).for_each(|pair| pair.reverse());
            }
            let mut timeline = Timeline::default();
            spans.into_iter().for_each(|span| timeline.note(span));
            if let Some(first) = first {
                let found = timeline.find(at_ms, start);
                prop_assert!(found.is_some_and(|place| place <= first.base.max(start) && place >= start), "{found:?}");
            }
            // What expires is old as a whole.
            prop_assert!(timeline.expired(Some(at_ms), None) <= before);
        }
    }

    fn timeline() -> Timeline {
        let mut timeline = Timeline::default();
        // Marks: 0..20 up to time 150, 20..40 up to 300, 40..50 up to 200.
        for (base, max_ms) in [(0, 100), (10, 150), (20, 300), (30, 250), (40, 200)] {
            timeline.note(Span { base, end: base + 10, max_ms, bytes: MARK_BYTES / 2 });
        }
        timeline
    }

    #[test]
    fn a_time_leads_to_a_place_with_nothing_of_it_before() {
        let timeline = timeline();
        assert_eq!(timeline.find(0, 0), Some(0));
        assert_eq!(timeline.find(151, 0), Some(20));
        assert_eq!(timeline.find(300, 25), Some(25));
        assert_eq!(timeline.find(301, 0), None);
    }

    #[test]
    fn batches_may_be_noted_in_any_order() {
        let mut timeline = Timeline::default();
        for (base, max_ms) in [(10, 5), (0, 9), (20, 1)] {
            timeline.note(Span { base, end: base + 10, max_ms, bytes: MARK_BYTES });
        }
        assert_eq!(timeline.find(9, 0), Some(0));
        assert_eq!(timeline.find(10, 0), None);
    }

    #[test]
    fn only_a_prefix_expires() {
        let timeline = timeline();
        assert_eq!(timeline.expired(None, None), None);
        assert_eq!(timeline.expired(Some(151), None), Some(20));
        assert_eq!(timeline.expired(Some(250), None), Some(20), "the last mark is older but stands behind a newer one");
        assert_eq!(
            timeline.expired(None, Some(MARK_BYTES)),
            Some(20),
            "keeping less than asked for is worse than more"
        );
        assert_eq!(timeline.expired(None, Some(0)), Some(50));
    }

    #[test]
    fn what_is_released_is_not_found_again() {
        let mut timeline = timeline();
        timeline.release(20);
        assert_eq!(timeline.find(0, 0), Some(20));
    }
}

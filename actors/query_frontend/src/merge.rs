//! Merges the search results of many jobs into the newest `limit` traces.
//!
//! The rules: results are keyed by trace id; a known root wins over an unknown one, the earliest start and the longest
//! duration win, counts per service take the larger; span sets are keyed by their `by(…)` attributes, the one with more
//! matches wins. The outcome does not depend on the order in which jobs answer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use vivace_protocol::tempopb::{SearchMetrics, SpanSet, TraceSearchMetadata};

/// What stands for the root's service while no root span is known.
pub(crate) const NO_ROOT: &str = "<root span not yet received>";

/// Collects results.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    limit: usize,
    traces: HashMap<String, TraceSearchMetadata>,
    pub(crate) metrics: SearchMetrics,
}

impl Merge {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), ..Self::default() }
    }

    pub(crate) fn add(&mut self, traces: Vec<TraceSearchMetadata>) {
        for trace in traces {
            match self.traces.entry(trace.trace_id.clone()) {
                Entry::Vacant(free) => {
                    free.insert(trace);
                }
                Entry::Occupied(mut known) => enrich(known.get_mut(), trace),
            }
        }
    }

    pub(crate) fn count(&mut self, metrics: &SearchMetrics) {
        self.metrics.inspected_traces += metrics.inspected_traces;
        self.metrics.inspected_bytes += metrics.inspected_bytes;
        self.metrics.inspected_spans += metrics.inspected_spans;
        self.metrics.backend_reads += metrics.backend_reads;
        self.metrics.backend_bytes += metrics.backend_bytes;
    }

    /// Whether data that ends at `end_ns` and before can still change the answer: the limit is not reached, or the oldest
    /// trace that would be answered is not newer.
    pub(crate) fn wants(&self, end_ns: u64) -> bool {
        if self.traces.len() < self.limit {
            return true;
        }
        let mut starts: Vec<u64> = self.traces.values().map(|t| t.start_time_unix_nano).collect();
        starts.sort_unstable_by(|a, b| b.cmp(a));
        starts.get(self.limit - 1).is_none_or(|oldest| end_ns >= *oldest)
    }

    /// The answer: newest first, ties by trace id.
    pub(crate) fn finish(self) -> (Vec<TraceSearchMetadata>, SearchMetrics) {
        let mut traces: Vec<_> = self.traces.into_values().collect();
        traces.sort_by(|a, b| {
            b.start_time_unix_nano.cmp(&a.start_time_unix_nano).then_with(|| a.trace_id.cmp(&b.trace_id))
        });
        traces.truncate(self.limit);
        for trace in &mut traces {
            if trace.root_service_name.is_empty() && trace.root_trace_name.is_empty() {
                NO_ROOT.clone_into(&mut trace.root_service_name);
            }
            trace.span_set = trace.span_sets.first().cloned();
        }
        (traces, self.metrics)
    }
}

fn enrich(known: &mut TraceSearchMetadata, other: TraceSearchMetadata) {
    if known.root_service_name.is_empty() || known.root_service_name == NO_ROOT {
        known.root_service_name = other.root_service_name;
    }
    if known.root_trace_name.is_empty() {
        known.root_trace_name = other.root_trace_name;
    }
    if known.start_time_unix_nano == 0
        || (other.start_time_unix_nano > 0 && other.start_time_unix_nano < known.start_time_unix_nano)
    {
        known.start_time_unix_nano = other.start_time_unix_nano;
    }
    known.duration_ms = known.duration_ms.max(other.duration_ms);
    for (service, stats) in other.service_stats {
        let kept = known.service_stats.entry(service).or_default();
        kept.span_count = kept.span_count.max(stats.span_count);
        kept.error_count = kept.error_count.max(stats.error_count);
    }
    for set in other.span_sets {
        match known.span_sets.iter_mut().find(|kept| group(kept) == group(&set)) {
            Some(kept) if better(&set, kept) => *kept = set,
            Some(_) => {}
            None => known.span_sets.push(set),
        }
    }
}

/// More matches win; among equals the set whose first span is smaller, so that the order of arrival does not matter.
fn better(new: &SpanSet, kept: &SpanSet) -> bool {
    let first = |set: &SpanSet| set.spans.iter().map(|s| s.span_id.clone()).min().unwrap_or_default();
    new.matched > kept.matched || (new.matched == kept.matched && first(new) < first(kept))
}

/// The `by(…)` attributes of a set, as text.
fn group(set: &SpanSet) -> Vec<String> {
    let mut keys: Vec<String> = set
        .attributes
        .iter()
        .filter(|attribute| attribute.key.starts_with("by("))
        .map(|attribute| format!("{}={:?}", attribute.key, attribute.value))
        .collect();
    keys.sort();
    keys
}

#[cfg(test)]
mod tests {
    use vivace_protocol::tempopb::{ServiceStats, Span};

    use super::*;

    fn trace(id: &str, start: u64, matched: u32) -> TraceSearchMetadata {
        let span = Span { span_id: format!("{matched:016x}"), ..Span::default() };
        TraceSearchMetadata {
            trace_id: id.to_owned(),
            start_time_unix_nano: start,
            duration_ms: matched,
            span_sets: vec![SpanSet { spans: vec![span], matched, attributes: Vec::new() }],
            service_stats: [("shop".to_owned(), ServiceStats { span_count: matched, error_count: 0 })].into(),
            ..TraceSearchMetadata::default()
        }
    }

    #[test]
    fn the_answer_does_not_depend_on_the_order_of_jobs() {
        let parts = [trace("a", 5, 1), trace("a", 3, 4), trace("b", 9, 2), trace("c", 1, 1), trace("a", 4, 2)];
        let mut orders = Vec::new();
        for shift in 0..parts.len() {
            let mut merge = Merge::new(2);
            for i in 0..parts.len() {
                merge.add(vec![parts[(i + shift) % parts.len()].clone()]);
            }
            orders.push(merge.finish().0);
        }
        assert!(orders.iter().all(|o| *o == orders[0]));
        let ids: Vec<_> = orders[0].iter().map(|t| (t.trace_id.as_str(), t.start_time_unix_nano)).collect();
        assert_eq!(ids, [("b", 9), ("a", 3)]);
        assert_eq!(orders[0][1].span_sets[0].matched, 4);
        assert_eq!(orders[0][1].service_stats["shop"].span_count, 4);
        assert_eq!(orders[0][1].root_service_name, NO_ROOT);
    }

    #[test]
    fn older_data_is_not_wanted_once_the_limit_is_full_of_newer_traces() {
        let mut merge = Merge::new(2);
        merge.add(vec![trace("a", 50, 1)]);
        assert!(merge.wants(0));
        merge.add(vec![trace("b", 60, 1), trace("c", 40, 1)]);
        assert!(merge.wants(50));
        assert!(!merge.wants(49));
    }
}

//! Merges the search results of many jobs into the newest `limit` traces, and knows what has changed since it was last asked.
//!
//! The rules: results are keyed by trace id; a known root wins over an unknown one, the earliest start and the longest
//! duration win, counts per service take the larger; span sets are keyed by their `by(…)` attributes, the one with more
//! matches wins. The outcome does not depend on the order in which jobs answer.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use prost::Message;
use vivace_protocol::otlp::common::KeyValue;
use vivace_protocol::tempopb::{SearchMetrics, SpanSet, TraceSearchMetadata};

/// What stands for the root's service while no root span is known.
pub(crate) const NO_ROOT: &str = "<root span not yet received>";

/// So many traces are held beyond four times the limit.
const PRUNE_FROM: usize = 10_000;

/// Collects results.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    limit: usize,
    traces: HashMap<String, Held>,
    bytes: usize,
    pub(crate) metrics: SearchMetrics,
}

#[derive(Debug)]
struct Held {
    trace: TraceSearchMetadata,
    /// Different from what was told, or not told yet.
    changed: bool,
    told: bool,
}

impl Merge {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), ..Self::default() }
    }

    pub(crate) fn add(&mut self, traces: Vec<TraceSearchMetadata>) {
        for trace in traces {
            match self.traces.entry(trace.trace_id.clone()) {
                Entry::Vacant(free) => {
                    self.bytes += memory(&trace);
                    free.insert(Held { trace, changed: true, told: false });
                }
                Entry::Occupied(mut known) => {
                    let held = known.get_mut();
                    let before = memory(&held.trace);
                    held.changed |= enrich(&mut held.trace, trace);
                    self.bytes = (self.bytes + memory(&held.trace)).saturating_sub(before);
                }
            }
        }
        self.prune();
    }

    /// Forgets traces that are far from the answer, once they are many. Only a part of a trace in the answer that makes it older by
    /// far could have brought one of them back.
    fn prune(&mut self) {
        if self.traces.len() <= self.limit.saturating_mul(4).saturating_add(PRUNE_FROM) {
            return;
        }
        let keep = self.limit.saturating_mul(2).saturating_add(PRUNE_FROM / 2);
        let mut orders: Vec<_> = self.traces.values().map(|held| order(&held.trace)).collect();
        let (_, (start, id), _) = orders.select_nth_unstable(keep);
        let last = (*start, (*id).to_owned());
        self.traces.retain(|_, held| order(&held.trace) < (last.0, last.1.as_str()));
        self.bytes = self.traces.values().map(|held| memory(&held.trace)).sum();
    }

    /// About how much memory the traces take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn count(&mut self, metrics: &SearchMetrics) {
        self.metrics.inspected_traces = self.metrics.inspected_traces.saturating_add(metrics.inspected_traces);
        self.metrics.inspected_bytes += metrics.inspected_bytes;
        self.metrics.inspected_spans += metrics.inspected_spans;
        self.metrics.backend_reads += metrics.backend_reads;
        self.metrics.backend_bytes += metrics.backend_bytes;
        for (name, value) in &metrics.additional_metrics {
            *self.metrics.additional_metrics.entry(name.clone()).or_default() += value;
        }
    }

    /// Whether data that ends at `end_ns` and before can still change the answer: the limit is not reached, or the oldest
    /// trace that would be answered is not newer.
    pub(crate) fn wants(&self, end_ns: u64) -> bool {
        if self.traces.len() < self.limit {
            return true;
        }
        let Some(at) = self.limit.checked_sub(1) else { return false };
        let mut starts: Vec<u64> = self.traces.values().map(|held| held.trace.start_time_unix_nano).collect();
        let (_, oldest, _) = starts.select_nth_unstable_by_key(at, |start| Reverse(*start));
        end_ns >= *oldest
    }

    /// The traces of the answer as it is now that are new or different since the last call, newest first; traces that start
    /// before `from_ns` wait. A trace that was told once is told again whenever it changes, also when it has left the answer: so
    /// the newest `limit` of all that was told, later ones replacing earlier ones, are the answer.
    pub(crate) fn changes(&mut self, from_ns: u64) -> Vec<TraceSearchMetadata> {
        let last = self.last();
        let mut changed = Vec::new();
        for held in self.traces.values_mut().filter(|held| held.changed) {
            let due = order(&held.trace);
            let in_answer = last.as_ref().is_none_or(|(start, id)| due <= (*start, id.as_str()));
            if held.told || (in_answer && held.trace.start_time_unix_nano >= from_ns) {
                held.changed = false;
                held.told = true;
                changed.push(shown(held.trace.clone()));
            }
        }
        changed.sort_by(|a, b| order(a).cmp(&order(b)));
        changed
    }

    /// Where the last trace of the answer stands; none while there is room.
    fn last(&self) -> Option<(Reverse<u64>, String)> {
        if self.traces.len() <= self.limit {
            return None;
        }
        let mut orders: Vec<_> = self.traces.values().map(|held| order(&held.trace)).collect();
        let at = self.limit.saturating_sub(1);
        let (_, (start, id), _) = orders.select_nth_unstable(at);
        Some((*start, (*id).to_owned()))
    }

    /// The answer: newest first, ties by trace id.
    pub(crate) fn finish(&mut self) -> Vec<TraceSearchMetadata> {
        let mut traces: Vec<_> = std::mem::take(&mut self.traces).into_values().map(|held| held.trace).collect();
        traces.sort_by(|a, b| order(a).cmp(&order(b)));
        traces.truncate(self.limit);
        traces.into_iter().map(shown).collect()
    }
}

/// About how much memory a trace takes.
fn memory(trace: &TraceSearchMetadata) -> usize {
    const SPAN_BYTES: usize = 96;
    let attributes = |list: &[KeyValue]| list.iter().map(|attribute| 96 + attribute.encoded_len()).sum::<usize>();
    let sets = trace.span_sets.iter().map(|set| {
        let spans = set
            .spans
            .iter()
            .map(|span| SPAN_BYTES + span.span_id.len() + span.name.len() + attributes(&span.attributes));
        spans.sum::<usize>() + attributes(&set.attributes)
    });
    let services = trace.service_stats.keys().map(|service| 64 + service.len());
    let names = trace.trace_id.len() * 2 + trace.root_service_name.len() + trace.root_trace_name.len();
    size_of::<Held>() + names + sets.sum::<usize>() + services.sum::<usize>()
}

/// Newest first, ties by trace id.
fn order(trace: &TraceSearchMetadata) -> (Reverse<u64>, &str) {
    (Reverse(trace.start_time_unix_nano), &trace.trace_id)
}

fn shown(mut trace: TraceSearchMetadata) -> TraceSearchMetadata {
    if trace.root_service_name.is_empty() && trace.root_trace_name.is_empty() {
        NO_ROOT.clone_into(&mut trace.root_service_name);
    }
    trace.span_set = trace.span_sets.first().cloned();
    trace
}

/// Adds what another part knows; whether that changed anything.
fn enrich(known: &mut TraceSearchMetadata, other: TraceSearchMetadata) -> bool {
    let mut changed = false;
    let unknown = |name: &str| name.is_empty() || name == NO_ROOT;
    if unknown(&known.root_service_name) && !unknown(&other.root_service_name) {
        known.root_service_name = other.root_service_name;
        changed = true;
    }
    if known.root_trace_name.is_empty() && !other.root_trace_name.is_empty() {
        known.root_trace_name = other.root_trace_name;
        changed = true;
    }
    if other.start_time_unix_nano > 0
        && (known.start_time_unix_nano == 0 || other.start_time_unix_nano < known.start_time_unix_nano)
    {
        known.start_time_unix_nano = other.start_time_unix_nano;
        changed = true;
    }
    if other.duration_ms > known.duration_ms {
        known.duration_ms = other.duration_ms;
        changed = true;
    }
    for (service, stats) in other.service_stats {
        changed |= !known.service_stats.contains_key(&service);
        let kept = known.service_stats.entry(service).or_default();
        changed |= stats.span_count > kept.span_count || stats.error_count > kept.error_count;
        kept.span_count = kept.span_count.max(stats.span_count);
        kept.error_count = kept.error_count.max(stats.error_count);
    }
    for set in other.span_sets {
        match known.span_sets.iter_mut().find(|kept| group(kept) == group(&set)) {
            Some(kept) if better(&set, kept) => {
                *kept = set;
                changed = true;
            }
            Some(_) => {}
            None => {
                known.span_sets.push(set);
                known.span_sets.sort_by_key(group);
                changed = true;
            }
        }
    }
    changed
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
    use proptest::prelude::*;
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
            orders.push(merge.finish());
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

    #[test]
    fn what_is_held_stays_bounded_and_the_answer_stays_the_newest() {
        let mut merge = Merge::new(3);
        for job in 0..50_u64 {
            merge.add(
                (0..1000).map(|n| trace(&format!("{job}-{n}"), (n * 7919 + job * 104_729) % 1_000_003, 1)).collect(),
            );
            assert!(merge.traces.len() <= 12 + PRUNE_FROM);
        }
        let starts: Vec<u64> = merge.finish().iter().map(|t| t.start_time_unix_nano).collect();
        let mut all: Vec<u64> =
            (0..50).flat_map(|job| (0..1000).map(move |n| (n * 7919 + job * 104_729) % 1_000_003)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(starts, all[..3]);
    }

    #[test]
    fn a_part_that_says_nothing_new_changes_nothing() {
        let mut merge = Merge::new(5);
        merge.add(vec![trace("a", 50, 3)]);
        assert_eq!(merge.changes(0).len(), 1);
        merge.add(vec![trace("a", 60, 2)]);
        assert_eq!(merge.changes(0), []);
        merge.add(vec![trace("a", 60, 4)]);
        assert_eq!(merge.changes(0).len(), 1);
    }

    #[test]
    fn traces_wait_until_nothing_newer_can_come() {
        let mut merge = Merge::new(5);
        merge.add(vec![trace("a", 50, 1), trace("b", 60, 1)]);
        assert_eq!(merge.changes(55).iter().map(|t| t.trace_id.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(merge.changes(0).iter().map(|t| t.trace_id.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    /// What a client holds that replaces by trace id, and shows the newest `limit`.
    fn fold(told: Vec<Vec<TraceSearchMetadata>>, limit: usize) -> Vec<TraceSearchMetadata> {
        let mut held = HashMap::new();
        for trace in told.into_iter().flatten() {
            held.insert(trace.trace_id.clone(), trace);
        }
        let mut held: Vec<_> = held.into_values().collect();
        held.sort_by(|a, b| order(a).cmp(&order(b)));
        held.truncate(limit);
        held
    }

    proptest! {
        #[test]
        fn diffs_folded_equal_the_final_answer(
            limit in 1_u32..6,
            jobs in prop::collection::vec(
                (prop::collection::vec((0_u8..8, 1_u64..20, 1_u32..5), 0..5), any::<bool>()), 0..12),
        ) {
            let mut merge = Merge::new(limit);
            let mut told = Vec::new();
            for (job, tell) in jobs {
                merge.add(job.into_iter().map(|(id, start, matched)| trace(&id.to_string(), start, matched)).collect());
                if tell {
                    told.push(merge.changes(0));
                }
            }
            told.push(merge.changes(0));
            let limit = usize::try_from(limit).unwrap();
            prop_assert_eq!(fold(told, limit), merge.finish());
        }
    }
}

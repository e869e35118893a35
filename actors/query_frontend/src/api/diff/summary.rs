//! `trace-summary-v0`: how two traces differ as a whole, and by service.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use vivace_protocol::TraceId;

use super::forest::Forest;
use super::patch::{Patch, alike};

/// A service drifts from this part of its time on, and from a millisecond on.
const DRIFT_PART: u64 = 20;
const DRIFT_NS: u64 = 1_000_000;

#[derive(Debug, Default, Clone)]
struct Service {
    before: u64,
    after: u64,
    modified: usize,
    added: usize,
    removed: usize,
    new_errors: usize,
    resolved_errors: usize,
}

impl Service {
    fn changed(&self) -> bool {
        let drift = self.before.abs_diff(self.after);
        let drifts = drift >= DRIFT_NS.max(self.before.max(self.after) / DRIFT_PART);
        drifts || self.modified + self.added + self.removed + self.new_errors + self.resolved_errors > 0
    }
}

/// One of the traces, as the head of a summary has it.
pub(super) fn side(id: TraceId, forest: &Forest) -> Value {
    let root = forest.nodes.iter().find(|node| node.parent.is_none());
    json!({
        "traceId": id.to_string(),
        "rootService": root.map(|node| node.service.clone()).unwrap_or_default(),
        "rootName": root.map(|node| node.span.name.clone()).unwrap_or_default(),
        "spanCount": forest.nodes.len(),
        "errorSpanCount": forest.errors(),
        "durationMs": millis(forest.latency()),
        "sumSpanDurationMs": millis(forest.sum_nanos()),
    })
}

/// Whole milliseconds.
fn millis(nanos: u64) -> u64 {
    nanos / 1_000_000
}

fn delta_millis(before: u64, after: u64) -> i64 {
    let millis = i64::try_from(millis(before.abs_diff(after))).unwrap_or(i64::MAX);
    if after >= before { millis } else { -millis }
}

fn delta(before: usize, after: usize) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX).saturating_sub(i64::try_from(before).unwrap_or(i64::MAX))
}

fn direction<T: Ord>(before: T, after: T) -> &'static str {
    match after.cmp(&before) {
        std::cmp::Ordering::Greater => "increased",
        std::cmp::Ordering::Less => "decreased",
        std::cmp::Ordering::Equal => "unchanged",
    }
}

/// As [`direction`], for durations.
fn drift(before: u64, after: u64) -> &'static str {
    if alike(before, after) { "unchanged" } else { direction(before, after) }
}

pub(super) fn json(base: &Forest, compare: &Forest, pairs: &[Option<usize>], patch: &Patch) -> Value {
    let mut services: BTreeMap<&str, Service> = BTreeMap::new();
    for node in &base.nodes {
        services.entry(&node.service).or_default().before += node.nanos();
    }
    for node in &compare.nodes {
        services.entry(&node.service).or_default().after += node.nanos();
    }
    for modified in &patch.modified {
        services.entry(&base.nodes[modified.at].service).or_default().modified += 1;
    }
    for at in &patch.added {
        let node = &compare.nodes[*at];
        let service = services.entry(&node.service).or_default();
        service.added += 1;
        service.new_errors += usize::from(node.failed());
    }
    for at in &patch.removed {
        let node = &base.nodes[*at];
        let service = services.entry(&node.service).or_default();
        service.removed += 1;
        service.resolved_errors += usize::from(node.failed());
    }
    let mut same_parent = 0;
    for (at, other) in pairs.iter().enumerate() {
        let Some(other) = *other else { continue };
        let (a, b) = (&base.nodes[at], &compare.nodes[other]);
        let service = services.entry(&a.service).or_default();
        service.new_errors += usize::from(!a.failed() && b.failed());
        service.resolved_errors += usize::from(a.failed() && !b.failed());
        same_parent += usize::from(a.parent.map(|parent| pairs[parent]) == b.parent.map(Some));
    }
    let ratio = |part: usize, whole: usize| {
        if whole == 0 {
            1.0
        } else {
            f64::from(u32::try_from(part).unwrap_or(u32::MAX)) / f64::from(u32::try_from(whole).unwrap_or(u32::MAX))
        }
    };
    let changed: Vec<&str> = services.iter().filter(|(_, s)| s.changed()).map(|(name, _)| *name).collect();
    let mut list: Vec<_> = services.iter().filter(|(_, service)| service.changed()).collect();
    // What changed most comes first.
    list.sort_by_key(|(_, service)| Reverse(service.before.abs_diff(service.after)));
    let list = list.into_iter().map(|(name, service)| {
        json!({
            "name": name,
            "sumSpanDurationDeltaMs": delta_millis(service.before, service.after),
            "modified": service.modified,
            "added": service.added,
            "removed": service.removed,
            "newErrors": service.new_errors,
            "resolvedErrors": service.resolved_errors,
        })
    });
    let list: Vec<Value> = list.collect();
    let structure = patch.added.len() + patch.removed.len() > 0 || same_parent < patch.matched;
    json!({
        "signals": {
            "traceLatency": drift(base.latency(), compare.latency()),
            "sumSpanDuration": drift(base.sum_nanos(), compare.sum_nanos()),
            "errors": direction(base.errors(), compare.errors()),
            "spanCount": direction(base.nodes.len(), compare.nodes.len()),
            "structure": if structure { "changed" } else { "unchanged" },
        },
        "trust": {
            "matchedSpanRatio": ratio(2 * patch.matched, base.nodes.len() + compare.nodes.len()),
            "structureOverlap": ratio(same_parent, base.nodes.len().max(compare.nodes.len())),
        },
        "stats": {
            "traceLatencyDeltaMs": delta_millis(base.latency(), compare.latency()),
            "sumSpanDurationDeltaMs": delta_millis(base.sum_nanos(), compare.sum_nanos()),
            "spanCountDelta": delta(base.nodes.len(), compare.nodes.len()),
            "errorSpanDelta": delta(base.errors(), compare.errors()),
            "matchedSpans": patch.matched,
            "modifiedSpans": patch.modified.len(),
            "addedSpans": patch.added.len(),
            "removedSpans": patch.removed.len(),
            "fieldChanges": patch.field_changes,
            "attributeChanges": patch.attribute_changes,
        },
        "changedServices": changed,
        "services": list,
    })
}

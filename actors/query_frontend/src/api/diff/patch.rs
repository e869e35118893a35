//! `trace-patch-v0`: what to change in one trace to get the other.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vivace_protocol::json::any_value_for_models;
use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value};
use vivace_traceql::{Kind, Status};

use super::forest::{Forest, Node};

/// Durations within this part of each other, and a millisecond, are the same.
const DURATION_PART: u64 = 5;
const DURATION_SLACK_NS: u64 = 1_000_000;

/// Numbers in all paths of a patch together.
const MAX_PATH_ELEMENTS: usize = 1_000_000;

/// The difference, span by span.
#[derive(Debug, Default)]
pub(super) struct Patch {
    pub(super) matched: usize,
    pub(super) modified: Vec<Modified>,
    /// Spans of the second trace alone.
    pub(super) added: Vec<usize>,
    /// Spans of the first trace alone.
    pub(super) removed: Vec<usize>,
    pub(super) field_changes: usize,
    pub(super) attribute_changes: usize,
    pub(super) event_changes: usize,
}

#[derive(Debug)]
pub(super) struct Modified {
    /// In the first trace.
    pub(super) at: usize,
    changes: Vec<Value>,
}

impl Patch {
    pub(super) fn of(base: &Forest, compare: &Forest, pairs: &[Option<usize>]) -> Self {
        let mut patch = Self::default();
        let mut found = vec![false; compare.nodes.len()];
        for (at, other) in pairs.iter().enumerate() {
            let Some(other) = *other else {
                patch.removed.push(at);
                continue;
            };
            found[other] = true;
            patch.matched += 1;
            let changes = patch.changes(&base.nodes[at], &compare.nodes[other]);
            if !changes.is_empty() {
                patch.modified.push(Modified { at, changes });
            }
        }
        patch.added = (0..compare.nodes.len()).filter(|at| !found[*at]).collect();
        patch
    }

    /// What differs in one span. Resources are left out: hosts and versions would make every span a different one.
    fn changes(&mut self, a: &Node, b: &Node) -> Vec<Value> {
        let mut changes = Vec::new();
        let mut field = |name: &str, before: Value, after: Value| {
            changes.push(json!({
                "op": "modify", "target": { "type": "field", "name": name }, "before": before, "after": after,
            }));
        };
        if !alike(a.nanos(), b.nanos()) {
            field("duration_nanos", a.nanos().into(), b.nanos().into());
        }
        if status(a) != status(b) {
            field("status", status(a).into(), status(b).into());
        }
        self.field_changes += changes.len();
        if a.span.events.len() != b.span.events.len()
            || a.span.events.iter().zip(&b.span.events).any(|(a, b)| a.name != b.name)
        {
            let names = |node: &Node| node.span.events.iter().map(|event| event.name.clone()).collect::<Vec<_>>();
            changes.push(json!({
                "op": "modify",
                "target": { "type": "field", "name": "events" },
                "before": names(a),
                "after": names(b),
            }));
            self.event_changes += 1;
        }
        let before = changes.len();
        attributes("span", &a.span.attributes, &b.span.attributes, &mut changes);
        self.attribute_changes += changes.len() - before;
        changes
    }

    /// The patch as JSON. Where trees are so deep that their paths alone would be large, the rest is counted and left out.
    pub(super) fn json(&self, base: &Forest, compare: &Forest) -> Value {
        let mut room = MAX_PATH_ELEMENTS;
        let mut truncated = false;
        let mut fits = |forest: &Forest, at: usize| {
            let size = forest.nodes[at].depth + 1;
            truncated |= size > room;
            room = room.saturating_sub(size);
            !truncated
        };
        let named = |forest: &Forest, at: usize| {
            let node = &forest.nodes[at];
            json!({ "path": forest.path(at), "service": node.service, "name": node.span.name, "kind": kind(node) })
        };
        let whole = |forest: &Forest, at: usize| {
            let mut span = named(forest, at);
            span["duration_nanos"] = forest.nodes[at].nanos().into();
            span["status"] = status(&forest.nodes[at]).into();
            span
        };
        let mut modified = Vec::new();
        for m in self.modified.iter().take_while(|m| fits(base, m.at)) {
            modified.push(json!({ "span": named(base, m.at), "changes": m.changes }));
        }
        let mut added = Vec::new();
        for at in self.added.iter().take_while(|at| fits(compare, **at)) {
            let mut parent = compare.path(*at);
            let index = parent.pop();
            let mut target = json!({ "type": "span", "index": index });
            if !parent.is_empty() {
                target["parentPath"] = parent.into();
            }
            added.push(json!({ "target": target, "span": whole(compare, *at) }));
        }
        let mut removed = Vec::new();
        for at in self.removed.iter().take_while(|at| fits(base, **at)) {
            let target = json!({ "type": "span", "path": base.path(*at) });
            removed.push(json!({ "target": target, "span": whole(base, *at) }));
        }
        let mut stats = self.stats(base, compare);
        stats["truncated"] = truncated.into();
        json!({ "stats": stats, "modified": modified, "added": added, "removed": removed })
    }

    fn stats(&self, base: &Forest, compare: &Forest) -> Value {
        json!({
            "spanCountA": base.nodes.len(),
            "spanCountB": compare.nodes.len(),
            "matchedSpans": self.matched,
            "modifiedSpans": self.modified.len(),
            "addedSpans": self.added.len(),
            "removedSpans": self.removed.len(),
            "fieldChanges": self.field_changes,
            "attributeChanges": self.attribute_changes,
            "eventChanges": self.event_changes,
        })
    }
}

/// Within a fifth of the larger one, and a millisecond.
pub(super) fn alike(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / DURATION_PART + DURATION_SLACK_NS
}

/// The words of queries.
fn kind(node: &Node) -> &'static str {
    Kind::from_code(u8::try_from(node.span.kind).unwrap_or_default()).as_str()
}

fn status(node: &Node) -> &'static str {
    let code = node.span.status.as_ref().map_or(0, |status| status.code);
    Status::from_code(u8::try_from(code).unwrap_or_default()).as_str()
}

fn attributes(scope: &str, a: &[KeyValue], b: &[KeyValue], changes: &mut Vec<Value>) {
    let table = |attributes: &[KeyValue]| -> BTreeMap<String, Option<AnyValue>> {
        attributes.iter().map(|attribute| (attribute.key.clone(), attribute.value.clone())).collect()
    };
    let (a, b) = (table(a), table(b));
    let target = |key: &str| json!({ "type": "attribute", "scope": scope, "key": key });
    for (key, before) in &a {
        match b.get(key) {
            None => changes.push(json!({ "op": "remove", "target": target(key), "before": value(before) })),
            Some(after) if !equal(before, after) => changes.push(json!({
                "op": "modify", "target": target(key), "before": value(before), "after": value(after),
            })),
            Some(_) => {}
        }
    }
    for (key, after) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
        changes.push(json!({ "op": "add", "target": target(key), "after": value(after) }));
    }
}

fn value(value: &Option<AnyValue>) -> Value {
    serde_json::from_slice(&any_value_for_models(value.as_ref())).unwrap_or(Value::Null)
}

/// Floats within a twentieth of the larger one are the same; everything else has to be equal.
fn equal(a: &Option<AnyValue>, b: &Option<AnyValue>) -> bool {
    let inner = |value: &Option<AnyValue>| value.as_ref().and_then(|any| any.value.clone());
    match (inner(a), inner(b)) {
        (Some(any_value::Value::DoubleValue(a)), Some(any_value::Value::DoubleValue(b))) => {
            a.to_bits() == b.to_bits() || (a - b).abs() <= a.abs().max(b.abs()) / 20.0
        }
        (a, b) => a == b,
    }
}

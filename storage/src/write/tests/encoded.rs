//! Encoded traces: requests taken apart by trace id, and random ones.

use proptest::{prelude::*, test_runner::TestCaseError};

use super::*;
use crate::{
    DedicatedScope, ValueType,
    write::wire::{Fields, Wire},
};
use leaves::Leaves;

/// Attributes of the random traces that have columns of their own, beyond the usual ones.
pub(super) const DEDICATED: [(DedicatedScope, &str, ValueType); 4] = [
    (DedicatedScope::Resource, "b", ValueType::Int),
    (DedicatedScope::Span, "b", ValueType::Int),
    (DedicatedScope::Span, "c", ValueType::String),
    (DedicatedScope::Event, "c", ValueType::String),
];

fn put(number: u32, content: &[u8], out: &mut Vec<u8>) {
    super::super::varint::put_varint(u64::from(number) << 3 | 2, out);
    super::super::varint::put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    super::super::varint::put_varint(u64::from(number) << 3, out);
    super::super::varint::put_varint(value, out);
}

fn put_fixed(number: u32, value: u64, out: &mut Vec<u8>) {
    super::super::varint::put_varint(u64::from(number) << 3 | 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn fields(message: &[u8]) -> Vec<(u32, Wire<'_>)> {
    let mut fields = Fields::of(message);
    std::iter::from_fn(|| fields.next().unwrap()).collect()
}

/// Takes an export request apart: one message for each run of spans of one trace in one scope, in the order of arrival.
pub(super) fn by_trace(request: &[u8]) -> Vec<([u8; 16], Bytes)> {
    let mut parts: Vec<([u8; 16], Vec<u8>)> = Vec::new();
    for (_, batch) in fields(request) {
        let batch = fields(batch.bytes());
        for (_, scope_spans) in batch.iter().filter(|(number, _)| *number == 2) {
            let scope_spans = fields(scope_spans.bytes());
            for (_, span) in scope_spans.iter().filter(|(number, _)| *number == 2) {
                let id = fields(span.bytes()).into_iter().find(|(number, _)| *number == 1).unwrap().1;
                let (mut inner, mut outer, mut trace) = (Vec::new(), Vec::new(), Vec::new());
                scope_spans.iter().filter(|(n, _)| *n == 1).for_each(|(n, scope)| put(*n, scope.bytes(), &mut inner));
                put(2, span.bytes(), &mut inner);
                batch.iter().filter(|(n, _)| *n == 1).for_each(|(n, resource)| put(*n, resource.bytes(), &mut outer));
                put(2, &inner, &mut outer);
                put(1, &outer, &mut trace);
                let id = id.bytes().try_into().unwrap();
                match parts.iter_mut().find(|(other, _)| *other == id) {
                    Some((_, part)) => part.extend(trace),
                    None => parts.push((id, trace)),
                }
            }
        }
    }
    parts.into_iter().map(|(id, part)| (id, Bytes::from(part))).collect()
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Unset,
    Text(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Vec<Value>),
    Bytes(Vec<u8>),
}

type Attributes = Vec<(String, Value)>;

#[derive(Debug, Clone)]
pub(super) struct SpanModel {
    parent: Option<u8>,
    kind: u8,
    start: u64,
    duration: u64,
    status: u8,
    name: String,
    attributes: Attributes,
    events: Vec<(u64, Attributes)>,
    links: Vec<Attributes>,
}

type ScopeModel = (Attributes, Vec<SpanModel>);

/// A trace: batches of scopes of spans.
#[derive(Debug, Clone)]
pub(super) struct TraceModel {
    id: u8,
    batches: Vec<(Attributes, Vec<ScopeModel>)>,
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        "[a-c]{0,3}".prop_map(Value::Text),
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![-3..3i64, any::<i64>()].prop_map(Value::Int),
        (-10..10i32).prop_map(|n| Value::Double(f64::from(n) / 4.0)),
    ];
    let any_scalar = prop_oneof![
        6 => scalar.clone(),
        1 => Just(Value::Unset),
        1 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::Bytes),
    ];
    let same = (scalar, 1..5usize).prop_map(|(value, count)| Value::Array(vec![value; count]));
    prop_oneof![
        8 => any_scalar.clone(),
        2 => same,
        1 => proptest::collection::vec(any_scalar, 0..4).prop_map(Value::Array),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let key = prop_oneof![Just("a"), Just("b"), Just("c"), Just("service.name"), Just("url.path"), Just("server.port")];
    proptest::collection::vec((key.prop_map(str::to_owned), value()), 0..5).prop_map(|mut attributes| {
        // Of equal keys only one: which of several values a column holds is a rule of its own.
        let mut seen = std::collections::HashSet::new();
        attributes.retain(|(key, _)| seen.insert(key.clone()));
        attributes
    })
}

fn span_model() -> impl Strategy<Value = SpanModel> {
    let lists = (
        attributes(),
        proptest::collection::vec((0..100u64, attributes()), 0..3),
        proptest::collection::vec(attributes(), 0..3),
    );
    let times = (1..1_000_000_000_000u64, 0..1000u64);
    (proptest::option::of(0..6u8), 0..6u8, times, 0..3u8, "[x-z]{0,2}", lists).prop_map(
        |(parent, kind, (start, duration), status, name, (attributes, events, links))| SpanModel {
            parent,
            kind,
            start,
            duration,
            status,
            name,
            attributes,
            events,
            links,
        },
    )
}

pub(super) fn trace_model() -> impl Strategy<Value = TraceModel> {
    let scope = (attributes(), proptest::collection::vec(span_model(), 1..4));
    let batch = (attributes(), proptest::collection::vec(scope, 1..3));
    (any::<u8>(), proptest::collection::vec(batch, 1..3)).prop_map(|(id, batches)| TraceModel { id, batches })
}

fn encode_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Unset => {}
        Value::Text(text) => put(1, text.as_bytes(), &mut out),
        Value::Bool(value) => put_number(2, u64::from(*value), &mut out),
        Value::Int(value) => put_number(3, value.cast_unsigned(), &mut out),
        Value::Double(value) => put_fixed(4, value.to_bits(), &mut out),
        Value::Array(values) => {
            let mut list = Vec::new();
            values.iter().for_each(|value| put(1, &encode_value(value), &mut list));
            put(5, &list, &mut out);
        }
        Value::Bytes(bytes) => put(7, bytes, &mut out),
    }
    out
}

fn put_attributes(number: u32, attributes: &Attributes, out: &mut Vec<u8>) {
    for (key, value) in attributes {
        let mut pair = Vec::new();
        put(1, key.as_bytes(), &mut pair);
        put(2, &encode_value(value), &mut pair);
        put(number, &pair, out);
    }
}

/// The export request that carries a trace.
pub(super) fn request(trace: &TraceModel) -> Vec<u8> {
    let (mut out, mut next) = (Vec::new(), 0u8);
    for (resource, scopes) in &trace.batches {
        let (mut batch, mut message) = (Vec::new(), Vec::new());
        put_attributes(1, resource, &mut message);
        put(1, &message, &mut batch);
        for (attributes, spans) in scopes {
            let (mut scope_spans, mut scope) = (Vec::new(), Vec::new());
            put_attributes(3, attributes, &mut scope);
            put(1, &scope, &mut scope_spans);
            for span in spans {
                put(2, &encode_span(trace.id, next, span), &mut scope_spans);
                next += 1;
            }
            put(2, &scope_spans, &mut batch);
        }
        put(1, &batch, &mut out);
    }
    out
}

fn encode_span(trace: u8, id: u8, span: &SpanModel) -> Vec<u8> {
    let mut out = Vec::new();
    put(1, &[trace; 16], &mut out);
    put(2, &[id, 0, 0, 0, 0, 0, 0, 1], &mut out);
    if let Some(parent) = span.parent {
        put(4, &[parent, 0, 0, 0, 0, 0, 0, 1], &mut out);
    }
    put(5, span.name.as_bytes(), &mut out);
    put_number(6, u64::from(span.kind), &mut out);
    put_fixed(7, span.start, &mut out);
    put_fixed(8, span.start + span.duration, &mut out);
    put_attributes(9, &span.attributes, &mut out);
    for (time, attributes) in &span.events {
        let mut event = Vec::new();
        put_fixed(1, span.start + time, &mut event);
        put_attributes(3, attributes, &mut event);
        put(11, &event, &mut out);
    }
    for attributes in &span.links {
        let mut link = Vec::new();
        put(1, &[9; 16], &mut link);
        put_attributes(4, attributes, &mut link);
        put(13, &link, &mut out);
    }
    let mut status = Vec::new();
    put_number(3, u64::from(span.status), &mut status);
    put(15, &status, &mut out);
    out
}

/// Counts what the random traces hold against what the columns hold. Traces of equal id share a row.
pub(super) fn check_values(models: &[TraceModel], leaves: &Leaves) -> Result<(), TestCaseError> {
    // Ids of spans count from 0 in each model, so those of traces with one id may be doubles: nothing to count then.
    let ids: std::collections::HashSet<u8> = models.iter().map(|model| model.id).collect();
    if ids.len() < models.len() {
        return Ok(());
    }
    let spans: Vec<&SpanModel> = models.iter().flat_map(|m| &m.batches).flat_map(|b| &b.1).flat_map(|s| &s.1).collect();
    prop_assert_eq!(leaves.values("rs.ss.Spans.SpanID").len(), spans.len());
    let mut durations: Vec<String> = spans.iter().map(|span| span.duration.to_string()).collect();
    let mut found = leaves.values("rs.ss.Spans.DurationNano");
    durations.sort_unstable();
    found.sort_unstable();
    prop_assert_eq!(found, durations);
    let scopes = |name: &str| -> Vec<&Attributes> {
        match name {
            "Spans" => spans.iter().map(|span| &span.attributes).collect(),
            "Spans.Events" => spans.iter().flat_map(|span| &span.events).map(|event| &event.1).collect(),
            _ => spans.iter().flat_map(|span| &span.links).collect(),
        }
    };
    for (name, dedicated) in [
        ("Spans", &[("b", true), ("c", false), ("url.path", false), ("server.port", true)][..]),
        ("Spans.Events", &[("c", false)]),
        ("Spans.Links", &[]),
    ] {
        let mut expected = BTreeMap::<&str, Vec<String>>::new();
        let mut add = |leaf, value: String| expected.entry(leaf).or_default().push(value);
        for (key, value) in scopes(name).into_iter().flatten() {
            let column = dedicated.iter().find(|(name, _)| name == key).map(|(_, int)| *int);
            let items = match value {
                Value::Array(items) => items.clone(),
                other => vec![other.clone()],
            };
            let texts: Vec<_> =
                items.iter().filter_map(|v| if let Value::Text(t) = v { Some(t) } else { None }).collect();
            let ints: Vec<_> =
                items.iter().filter_map(|v| if let Value::Int(n) = v { Some(n) } else { None }).collect();
            let own = match column {
                Some(true) => !items.is_empty() && ints.len() == items.len(),
                Some(false) => !items.is_empty() && texts.len() == items.len(),
                None => false,
            };
            if own {
                continue;
            }
            add("Key", key.clone());
            let all = |test: fn(&Value) -> bool| !items.is_empty() && items.iter().all(test);
            if texts.len() == items.len() {
                texts.iter().for_each(|text| add("Value", (*text).clone()));
            } else if ints.len() == items.len() {
                ints.iter().for_each(|int| add("ValueInt", int.to_string()));
            } else if !all(|v| matches!(v, Value::Bool(_))) && !all(|v| matches!(v, Value::Double(_))) {
                add("ValueUnsupported", String::new());
            }
        }
        for leaf in ["Key", "Value", "ValueInt", "ValueUnsupported"] {
            let mut found = leaves.values(&format!("rs.ss.{name}.Attrs.{leaf}"));
            let mut wanted = expected.remove(leaf).unwrap_or_default();
            if leaf == "ValueUnsupported" {
                prop_assert_eq!(found.len(), wanted.len(), "{} {}", name, leaf);
                continue;
            }
            found.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted, "{} {}", name, leaf);
        }
    }
    Ok(())
}

//! Traces drawn from a few small numbers, and how they lie in groups.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use vivace_protocol::{
    TraceId,
    otlp::{
        common::{AnyValue, ArrayValue, KeyValue, any_value::Value as Any},
        resource::Resource,
        trace::{ResourceSpans, ScopeSpans, Span, Status, TracesData, span::Event},
    },
};

use crate::{Decoded, LiveGroup, LivePart, LiveSource, LiveTrace, LiveView, Preparation};

/// A span in a few small numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) part: u8,
    pub(super) service: u8,
    pub(super) start: u16,
    pub(super) duration: u16,
    pub(super) key: u8,
    pub(super) error: bool,
    pub(super) event: bool,
    /// Comes again in the last part.
    pub(super) again: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let numbers = (0..3u8, 0..4u8, 0..4000u16, 0..1000u16, 0..4u8);
    (numbers, any::<[bool; 3]>()).prop_map(|((part, service, start, duration, key), [error, event, again])| Drawn {
        part,
        service,
        start,
        duration,
        key,
        error,
        event,
        again,
    })
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Any::StringValue(value))
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Attributes that are no texts, on some spans.
fn others(drawn: Drawn) -> Vec<KeyValue> {
    let texts = [format!("t{}", drawn.key), "t9".to_owned()];
    let items = texts.map(|text| AnyValue { value: Some(Any::StringValue(text)) });
    let all = [
        attribute("code", Any::IntValue(i64::from(drawn.duration % 5))),
        attribute("flag", Any::BoolValue(drawn.error)),
        attribute("tags", Any::ArrayValue(ArrayValue { values: items.into() })),
    ];
    all.into_iter().filter(|_| drawn.duration.is_multiple_of(3)).collect()
}

pub(super) const BASE: u64 = 1_790_000_000_000_000_000;
/// Starts and durations are drawn in milliseconds.
pub(super) const MS: u64 = 1_000_000;

fn span(number: usize, drawn: Drawn) -> Span {
    let start = BASE + u64::from(drawn.start) * MS;
    let id = |number: usize| (number as u64 + 1).to_be_bytes().to_vec();
    let key = (drawn.key > 0).then(|| text("key", format!("v{}", drawn.key)));
    let event = Event { name: "e".into(), time_unix_nano: start, ..Event::default() };
    Span {
        span_id: id(number),
        // A tree below the first span.
        parent_span_id: if number == 0 { Vec::new() } else { id((number - 1) / 2) },
        name: format!("n{}", number % 3),
        kind: 1,
        start_time_unix_nano: start,
        end_time_unix_nano: start + u64::from(drawn.duration) * MS,
        attributes: key.into_iter().chain([text("number", number.to_string())]).chain(others(drawn)).collect(),
        events: if drawn.event { vec![event] } else { Vec::new() },
        status: Some(Status { code: if drawn.error { 2 } else { 0 }, ..Status::default() }),
        ..Span::default()
    }
}

/// Of four services one has no name.
fn service(number: u8) -> String {
    if number == 3 { String::new() } else { format!("s{number}") }
}

/// The slices of a trace, in order.
pub(super) fn parts(spans: &[Drawn]) -> Vec<Bytes> {
    let of = |part: u8| {
        let own = spans.iter().enumerate().filter(|(_, drawn)| drawn.part == part || (part == 3 && drawn.again));
        let batches = own.map(|(number, drawn)| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", service(drawn.service))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans: vec![span(number, *drawn)], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        });
        TracesData { resource_spans: batches.collect() }.encode_to_vec()
    };
    (0..4).map(|part| Bytes::from(of(part))).filter(|part| !part.is_empty()).collect()
}

/// Where a trace is, and where an older form of it is that must not be seen.
#[derive(Debug, Clone)]
pub(super) struct Lying {
    pub(super) spans: Vec<Drawn>,
    pub(super) group: usize,
    pub(super) older: Option<usize>,
}

pub(super) const GROUPS: usize = 4;

pub(super) fn lying() -> impl Strategy<Value = Lying> {
    (vec(drawn(), 1..12), 0..GROUPS, proptest::option::of(0..GROUPS)).prop_map(|(spans, group, older)| Lying {
        spans,
        group,
        older: older.filter(|older| *older != group),
    })
}

pub(super) fn id(number: usize) -> TraceId {
    // Not in the order of their numbers.
    TraceId((u128::from((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | number as u128).to_be_bytes())
}

pub(super) fn plain(traces: &[Lying]) -> LiveSource {
    LiveSource::new(traces.iter().enumerate().map(|(number, trace)| (id(number), parts(&trace.spans))))
}

/// Which groups have columns, and which have digests.
pub(super) type Prepared = [(bool, bool); GROUPS];
pub(super) const AS_THEY_CAME: Prepared = [(false, false); GROUPS];

pub(super) fn view(traces: &[Lying], prepared: Prepared) -> LiveView {
    let decoded = Decoded::new(1 << 20);
    let mut view = LiveView::default();
    for (number, (encoded, digested)) in prepared.into_iter().enumerate() {
        let (mut own, mut stale) = (Vec::new(), Vec::new());
        for (at, trace) in traces.iter().enumerate() {
            let mut parts = parts(&trace.spans);
            if trace.older == Some(number) {
                parts.truncate(1);
                stale.push(id(at));
            } else if trace.group != number {
                continue;
            }
            own.push(Arc::new(LiveTrace::new(id(at), parts)));
        }
        let group = Arc::new(LiveGroup::new(own));
        if encoded && !group.is_empty() {
            group.prepare(Preparation::Columns, &decoded);
            assert!(group.is_encoded());
        }
        if digested {
            group.prepare(Preparation::Digest, &decoded);
            assert!(group.is_digested());
        }
        let mut without: Vec<u32> = stale.iter().map(|id| group.position(id).unwrap()).collect();
        without.sort_unstable();
        view.parts.push(LivePart { group, without: without.into() });
    }
    view
}

pub(super) fn lines(count: usize) -> Vec<Lying> {
    let drawn = |at: usize| Drawn {
        part: 0,
        service: 0,
        start: u16::try_from(at).unwrap(),
        duration: 1,
        key: 1,
        error: false,
        event: false,
        again: false,
    };
    (0..count).map(|at| Lying { spans: vec![drawn(at)], group: at % GROUPS, older: None }).collect()
}

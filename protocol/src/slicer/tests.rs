mod fuzz;

use std::collections::HashSet;

use bytes::BytesMut;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::otlp::collector::ExportTraceServiceRequest as Request;
use crate::otlp::common::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value};
use crate::otlp::resource::Resource;
use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span, Status, span};
use crate::push_bytes::PushBytes;
use crate::tempopb::{PushBytesRequest, Trace};

const LIMITS: Limits = Limits { max_attribute_bytes: 2048 };
const SAMPLE: &[u8] = include_bytes!("../../tests/fixtures/otlp-request.pb");

fn sliced(request: &Request, limits: &Limits) -> Sliced {
    slice(&request.encode_to_vec().into(), limits).unwrap()
}

fn encoded(sliced: &Sliced, skip_metrics: bool) -> Bytes {
    let mut buf = BytesMut::new();
    sliced.encode_push_bytes(skip_metrics, &mut buf);
    assert_eq!(buf.len(), sliced.push_bytes_len(skip_metrics));
    buf.freeze()
}

/// What slicing must come to: decode, then regroup, then encode.
fn regrouped(request: &Request) -> Vec<(Vec<u8>, Trace)> {
    let mut traces: Vec<(Vec<u8>, Trace)> = Vec::new();
    for resource_spans in &request.resource_spans {
        // (trace, scope) to the place of its group, within this resource.
        let mut groups: Vec<(Vec<u8>, ScopeSpans, usize)> = Vec::new();
        for scope_spans in &resource_spans.scope_spans {
            let scope = ScopeSpans { spans: Vec::new(), ..scope_spans.clone() };
            for span in &scope_spans.spans {
                let at = traces.iter().position(|(id, _)| *id == span.trace_id).unwrap_or_else(|| {
                    traces.push((span.trace_id.clone(), Trace::default()));
                    traces.len() - 1
                });
                let trace = &mut traces[at].1;
                let known = groups.iter().find(|(id, s, _)| *id == span.trace_id && *s == scope);
                let group = known.map(|(_, _, group)| *group).unwrap_or_else(|| {
                    trace.resource_spans.push(ResourceSpans {
                        scope_spans: vec![scope.clone()],
                        resource: resource_spans.resource.clone(),
                        schema_url: resource_spans.schema_url.clone(),
                    });
                    let group = trace.resource_spans.len() - 1;
                    groups.push((span.trace_id.clone(), scope.clone(), group));
                    group
                });
                trace.resource_spans[group].scope_spans[0].spans.push(span.clone());
            }
        }
    }
    traces
}

fn assert_slices_as_regrouping_does(request: &Request, body: &Bytes) {
    let sliced = slice(body, &LIMITS).unwrap();
    let value = encoded(&sliced, false);
    let decoded = PushBytesRequest::decode(value.clone()).unwrap();
    let expected = regrouped(request);
    assert_eq!(decoded.ids, expected.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
    for (trace, (_, expected)) in decoded.traces.iter().zip(&expected) {
        assert_eq!(&Trace::decode(trace.clone()).unwrap(), expected);
    }
    assert_eq!(decoded.traces.len(), expected.len());
    assert_eq!(sliced.span_count(), count_spans(body).unwrap());
    for ((slot, trace), (id, walked)) in sliced.traces().iter().zip(&expected).zip(PushBytes::walk(&value).unwrap()) {
        assert_eq!((slot.id(), slot.encoded_len()), (id, walked.len()));
        let spans = || trace.1.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        assert_eq!(slot.span_count() as usize, spans().count());
        assert_eq!(Some(slot.start_unix_nano()), spans().map(|s| s.start_time_unix_nano).min());
        assert_eq!(Some(slot.end_unix_nano()), spans().map(|s| s.end_time_unix_nano).max());
        let mut buf = BytesMut::new();
        sliced.encode_trace(slot, &mut buf);
        assert_eq!(buf.freeze(), walked);
    }
}

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: text(value), key_strindex: 0 }
}

fn span(trace: u8, id: u8) -> Span {
    Span { trace_id: vec![trace; 16], span_id: vec![id; 8], name: format!("span {id}"), ..Span::default() }
}

fn request_of(spans: Vec<Span>) -> Request {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    Request { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

/// A field written by hand.
fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    wire::put_varint(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

fn in_request(span: &[u8]) -> Bytes {
    field(1, &field(2, &field(2, span))).into()
}

#[test]
fn a_recorded_request_is_sliced_as_decoding_and_regrouping_would() {
    let body = Bytes::from_static(SAMPLE);
    let request = Request::decode(body.clone()).unwrap();
    assert_slices_as_regrouping_does(&request, &body);
    assert!(slice(&body, &LIMITS).unwrap().traces().len() > 10);
}

#[test]
fn traces_can_be_written_in_parts() {
    let request = request_of((1..=6).map(|n| span(n % 3 + 1, n)).collect());
    let sliced = sliced(&request, &LIMITS);
    let mut buf = BytesMut::new();
    sliced.encode_push_bytes_of(&[2, 0, 9], true, &mut buf);
    let walked = PushBytes::walk(&buf.freeze()).unwrap();
    assert!(walked.skip_metrics());
    let whole = PushBytes::walk(&encoded(&sliced, false)).unwrap();
    let whole: Vec<_> = whole.into_iter().collect();
    assert_eq!(walked.into_iter().collect::<Vec<_>>(), [whole[2].clone(), whole[0].clone()]);
}

#[test]
fn a_scope_that_comes_back_joins_its_earlier_group() {
    let scope = |name: &str, spans| ScopeSpans {
        scope: Some(InstrumentationScope { name: name.to_owned(), ..Default::default() }),
        spans,
        schema_url: "https://schema".to_owned(),
    };
    let scope_spans = vec![
        scope("a", vec![span(1, 1), span(2, 2)]),
        scope("b", vec![span(1, 3)]),
        scope("a", vec![span(2, 4), span(1, 5), span(3, 6)]),
        scope("b", vec![span(3, 7), span(1, 8)]),
        scope("empty", vec![]),
    ];
    let one = ResourceSpans { scope_spans, schema_url: "https://r".to_owned(), ..Default::default() };
    let request = Request { resource_spans: vec![one.clone(), one] };
    assert_slices_as_regrouping_does(&request, &request.encode_to_vec().into());
    // Two resources with two groups each.
    let traces = regrouped(&request);
    assert_eq!(traces[0].1.resource_spans.len(), 4);
}

#[test]
fn ids_are_checked_wherever_they_stand() {
    let refused = |change: &dyn Fn(&mut Span)| {
        let mut bad = span(1, 2);
        change(&mut bad);
        let body = Bytes::from(request_of(vec![span(1, 1), bad]).encode_to_vec());
        let error = slice(&body, &LIMITS).unwrap_err();
        assert_eq!(count_spans(&body), Ok(2));
        (error.to_string(), error.discard_reason())
    };
    let trace = |bits| (format!("trace ids must be 128 bit, received {bits} bits"), Some("invalid_trace_id"));
    let span =
        |bits| (format!("span ids must be 64 bit and not all zero, received {bits} bits"), Some("invalid_span_id"));
    assert_eq!(refused(&|s| s.trace_id.clear()), trace(0));
    assert_eq!(refused(&|s| s.trace_id = vec![0; 16]), trace(0));
    assert_eq!(refused(&|s| s.trace_id = vec![1; 8]), trace(64));
    assert_eq!(refused(&|s| s.span_id.clear()), span(0));
    assert_eq!(refused(&|s| s.span_id = vec![0; 8]), span(0));
    assert_eq!(refused(&|s| s.span_id = vec![1; 9]), span(72));

    // The trace id last, and a first one that a second overrides.
    let late = [field(1, &[7; 16]), field(2, &[1; 8]), field(5, b"n"), field(1, &[9; 16])].concat();
    assert_eq!(slice(&in_request(&late), &LIMITS).unwrap().traces()[0].id(), TraceId([9; 16]));
}

#[test]
fn long_keys_and_texts_are_cut_on_whole_characters_and_counted_by_scope() {
    let long = "ä".repeat(20);
    let nested = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![text(&long).unwrap()] })) };
    let nested = KeyValue { key: "nested".to_owned(), value: Some(nested), key_strindex: 0 };
    let span = Span {
        attributes: vec![attribute("short", "kept"), attribute(&long, &long), nested.clone()],
        events: vec![span::Event { attributes: vec![attribute("e", &long)], name: long.clone(), ..Default::default() }],
        links: vec![span::Link { attributes: vec![attribute(&long, "l")], ..Default::default() }],
        ..span(1, 1)
    };
    let mut request = request_of(vec![super::tests::span(1, 2), span, super::tests::span(1, 3)]);
    let rs = &mut request.resource_spans[0];
    rs.resource = Some(Resource { attributes: vec![attribute("r", &long)], ..Default::default() });
    rs.scope_spans[0].scope =
        Some(InstrumentationScope { attributes: vec![attribute(&long, &long)], ..Default::default() });

    let sliced = sliced(&request, &Limits { max_attribute_bytes: 11 });
    assert_eq!(sliced.truncated(), Truncated { resource: 1, scope: 2, span: 2, event: 1, link: 1 });
    let trace = PushBytes::walk(&encoded(&sliced, false)).unwrap().into_iter().next().unwrap().1;
    let trace = Trace::decode(trace).unwrap();
    let cut = "ä".repeat(5);
    let mut expected = request.clone();
    let rs = &mut expected.resource_spans[0];
    rs.resource.as_mut().unwrap().attributes = vec![attribute("r", &cut)];
    rs.scope_spans[0].scope.as_mut().unwrap().attributes = vec![attribute(&cut, &cut)];
    let changed = &mut rs.scope_spans[0].spans[1];
    changed.attributes = vec![attribute("short", "kept"), attribute(&cut, &cut), nested];
    changed.events[0].attributes = vec![attribute("e", &cut)];
    changed.links[0].attributes = vec![attribute(&cut, "l")];
    assert_eq!(trace.resource_spans, expected.resource_spans);

    // Off, everything stays.
    assert_eq!(
        super::slice(&request.encode_to_vec().into(), &Limits { max_attribute_bytes: 0 }).unwrap().truncated().total(),
        0
    );
}

#[test]
fn texts_that_are_not_utf8_are_repaired_at_any_depth() {
    let bad = b"a\xffb";
    let any_text = field(1, bad);
    let list = field(6, &field(1, &[field(1, bad), field(2, &any_text)].concat()));
    let array = field(5, &field(1, &list));
    let attribute = field(9, &[field(1, b"key"), field(2, &array)].concat());
    let raw = [field(1, &[1; 16]), field(2, &[1; 8]), field(5, bad), attribute, field(15, &field(2, bad))].concat();
    let body = in_request(&raw);
    assert!(Request::decode(body.clone()).is_err());
    let sliced = slice(&body, &LIMITS).unwrap();
    assert_eq!(sliced.repaired(), 4);
    let trace = PushBytes::walk(&encoded(&sliced, false)).unwrap().into_iter().next().unwrap().1;
    let trace = Trace::decode(trace).unwrap();
    let span = &trace.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), span.status.as_ref().unwrap().message.as_str()), ("a\u{fffd}b", "a\u{fffd}b"));
}

#[test]
fn unknown_fields_travel_and_wrong_wire_types_are_refused() {
    let known = [field(1, &[1; 16]), field(2, &[1; 8])].concat();
    let unknown = [known.clone(), field(200, b"later")].concat();
    let sliced = slice(&in_request(&unknown), &LIMITS).unwrap();
    let out = encoded(&sliced, false);
    assert!(out.windows(5).any(|w| w == b"later"));
    // `start_time_unix_nano` as a varint.
    let wrong = [known, vec![0x38, 1]].concat();
    assert_eq!(slice(&in_request(&wrong), &LIMITS).unwrap_err(), SliceError::Malformed(WireError::WireType));
}

#[test]
fn nesting_is_bounded_and_what_passes_decodes_inside_an_answer() {
    let nested = |depth: usize| {
        let mut value = AnyValue { value: Some(Value::BoolValue(true)) };
        for _ in 0..depth {
            value = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![value] })) };
        }
        let attributes = vec![KeyValue { key: "k".to_owned(), value: Some(value), key_strindex: 0 }];
        Bytes::from(request_of(vec![Span { attributes, ..span(1, 1) }]).encode_to_vec())
    };
    let deepest = (0..60).rev().find(|depth| slice(&nested(*depth), &LIMITS).is_ok()).unwrap();
    assert!(deepest >= 40);
    assert_eq!(slice(&nested(deepest + 1), &LIMITS).unwrap_err(), SliceError::Malformed(WireError::TooDeep));
    let answer = field(1, &nested(deepest));
    assert!(crate::tempopb::TraceByIdResponse::decode(answer.as_slice()).is_ok());
    assert_eq!(slice(&nested(20_000), &LIMITS).unwrap_err(), SliceError::Malformed(WireError::TooDeep));
}

#[test]
fn an_empty_request_has_no_traces() {
    let sliced = slice(&Bytes::new(), &LIMITS).unwrap();
    assert_eq!((sliced.span_count(), sliced.traces().len(), encoded(&sliced, false).len()), (0, 0, 0));
}

fn arb_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        "[a-zä]{0,12}".prop_map(|s| Some(Value::StringValue(s))),
        any::<bool>().prop_map(|b| Some(Value::BoolValue(b))),
        any::<i64>().prop_map(|i| Some(Value::IntValue(i))),
        any::<i32>().prop_map(|i| Some(Value::DoubleValue(f64::from(i)))),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(|b| Some(Value::BytesValue(b))),
    ];
    leaf.prop_map(|value| AnyValue { value }).prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
            prop::collection::vec(inner, 0..3).prop_map(|values| {
                let values = values
                    .into_iter()
                    .map(|value| KeyValue { key: "k".to_owned(), value: Some(value), key_strindex: 0 })
                    .collect();
                AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }
            }),
        ]
    })
}

fn arb_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let attribute =
        ("[a-c]{0,3}", prop::option::of(arb_value())).prop_map(|(key, value)| KeyValue { key, value, key_strindex: 0 });
    prop::collection::vec(attribute, 0..3)
}

fn arb_span() -> impl Strategy<Value = Span> {
    (1u8..5, 1u8..200, any::<[u32; 4]>(), arb_attributes(), prop::option::of(any::<bool>()), "[a-z]{0,3}").prop_map(
        |(trace, id, [start, length, kind, dropped], attributes, extras, name)| Span {
            trace_id: vec![trace; 16],
            span_id: vec![id; 8],
            parent_span_id: if kind % 2 == 0 { vec![] } else { vec![trace; 8] },
            name,
            kind: (kind % 7) as i32,
            start_time_unix_nano: u64::from(start),
            end_time_unix_nano: u64::from(start) + u64::from(length),
            dropped_attributes_count: dropped % 300,
            flags: dropped,
            events: extras
                .iter()
                .map(|_| span::Event { attributes: attributes.clone(), ..Default::default() })
                .collect(),
            links: extras
                .iter()
                .map(|_| span::Link { trace_id: vec![1; 16], attributes: attributes.clone(), ..Default::default() })
                .collect(),
            status: extras.map(|error| Status { code: if error { 2 } else { 0 }, message: "m".to_owned() }),
            attributes,
            ..Span::default()
        },
    )
}

fn arb_request() -> impl Strategy<Value = Request> {
    let scope = prop::option::of(("[ab]", arb_attributes()).prop_map(|(name, attributes)| InstrumentationScope {
        name,
        attributes,
        ..Default::default()
    }));
    let scope_spans = (scope, prop::collection::vec(arb_span(), 0..5), "[s]?")
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resource =
        prop::option::of(arb_attributes().prop_map(|attributes| Resource { attributes, ..Default::default() }));
    let resource_spans = (resource, prop::collection::vec(scope_spans, 0..5), "[r]?")
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url });
    prop::collection::vec(resource_spans, 0..4).prop_map(|resource_spans| Request { resource_spans })
}

/// The verdict of `prost` and the id rules together.
fn expected_verdict(body: &Bytes) -> bool {
    let Ok(request) = Request::decode(body.clone()) else { return false };
    let mut spans = request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    spans.all(|s| {
        let zero = |id: &[u8]| id.iter().all(|b| *b == 0);
        s.trace_id.len() == 16 && !zero(&s.trace_id) && s.span_id.len() == 8 && !zero(&s.span_id)
    })
}

/// Our verdict is that of `prost` but for repaired texts; whatever passes is written as something that decodes.
fn assert_verdict(body: &Bytes) {
    match slice(body, &LIMITS) {
        Ok(sliced) => {
            if sliced.repaired() == 0 {
                assert!(expected_verdict(body), "accepted what prost refuses: {body:?}");
                assert_slices_as_regrouping_does_by_spans(body, &sliced);
            }
            for (id, trace) in PushBytes::walk(&encoded(&sliced, true)).unwrap() {
                let trace = Trace::decode(trace).unwrap();
                let spans = trace.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
                assert!(spans.into_iter().all(|s| s.trace_id == id.as_bytes()));
            }
        }
        Err(SliceError::Malformed(WireError::TooDeep)) => {}
        Err(error) => assert!(!expected_verdict(body), "refused what prost accepts: {error:?} {body:?}"),
    }
}

/// Damaged bodies can say one thing in several ways, so that scopes equal as objects differ as bytes: compare the spans only.
fn assert_slices_as_regrouping_does_by_spans(body: &Bytes, sliced: &Sliced) {
    let request = Request::decode(body.clone()).unwrap();
    let mut expected: Vec<_> = request
        .resource_spans
        .into_iter()
        .flat_map(|r| r.scope_spans.into_iter().flat_map(|s| s.spans))
        .map(|s| s.encode_to_vec())
        .collect();
    let traces = PushBytes::walk(&encoded(sliced, false)).unwrap();
    let mut found: Vec<_> = traces
        .into_iter()
        .flat_map(|(_, trace)| Trace::decode(trace).unwrap().resource_spans)
        .flat_map(|r| r.scope_spans.into_iter().flat_map(|s| s.spans))
        .map(|s| s.encode_to_vec())
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

proptest! {
    #[test]
    fn slicing_then_decoding_equals_decoding_then_grouping(request in arb_request()) {
        assert_slices_as_regrouping_does(&request, &request.encode_to_vec().into());
    }

    #[test]
    fn damaged_requests_never_panic_and_are_judged_as_prost_judges_them(
        request in arb_request(),
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            assert_verdict(&Bytes::from(bytes.clone()));
            bytes.truncate(cut.index(bytes.len()));
        }
        assert_verdict(&Bytes::from(bytes));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![Just(0x0a), Just(0x12), 0u8..24, any::<u8>()], 0..80)) {
        assert_verdict(&Bytes::from(bytes));
    }

    #[test]
    fn cutting_attributes_leaves_nothing_too_long(request in arb_request(), max_attribute_bytes in 1usize..6) {
        let limits = Limits { max_attribute_bytes };
        let sliced = sliced(&request, &limits);
        let again: Vec<Bytes> = PushBytes::walk(&encoded(&sliced, false)).unwrap().into_iter().map(|(_, t)| t).collect();
        // An encoded trace is a request, too.
        for trace in &again {
            prop_assert_eq!(slice(trace, &limits).unwrap().truncated().total(), 0);
        }
        let ids: HashSet<_> = sliced.traces().iter().map(SlicedTrace::id).collect();
        prop_assert_eq!(ids.len(), again.len());
    }
}

#[test]
fn a_damaged_recording_is_judged_as_prost_judges_it() {
    // A small generator of our own: the same damage in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    // The first resources of the recording, so that each round is short.
    let request = Request::decode(SAMPLE).unwrap();
    let small = Request { resource_spans: request.resource_spans.into_iter().take(3).collect() }.encode_to_vec();
    for _ in 0..1_000 {
        let mut body = small.clone();
        for _ in 0..=random(3) {
            let at = random(body.len());
            match random(4) {
                0 => body[at] = u8::try_from(random(256)).unwrap(),
                1 => body[at] ^= 1 << random(8),
                2 => drop(body.remove(at)),
                _ => body.truncate(at.max(1)),
            }
        }
        assert_verdict(&Bytes::from(body));
    }
}

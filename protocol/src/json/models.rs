//! Answers for language models: plain JSON instead of protobuf's mapping. Ids and bytes are hex, numbers are numbers (but times in
//! nanoseconds, which have too many digits for some readers), attributes are flat objects, and what is empty is left out.

use super::writer::{HEX, Object, double, integer, list, signed, text};
use crate::otlp::common::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use crate::otlp::resource::Resource;
use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span, span, status};
use crate::tempopb::{MetadataMetrics, PartialStatus, SearchTagValuesV2Response, TraceByIdMetrics, TraceByIdResponse};
use crate::{SpanId, TraceId};

/// A trace; an answer without one that says nothing else is an empty object.
pub fn trace_for_models(answer: &TraceByIdResponse) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut object = Object::begin(&mut out);
    let resources = answer.trace.as_ref().map_or(&[][..], |trace| trace.resource_spans.as_slice());
    let spans = resources.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    let first = spans.into_iter().next();
    if let Some(first) = first {
        trace(object.name("trace"), resources, first);
    }
    if let Some(of) = answer.metrics.as_ref().filter(|metrics| **metrics != TraceByIdMetrics::default()) {
        metrics(object.name("metrics"), of);
    }
    let known = PartialStatus::try_from(answer.status).unwrap_or(PartialStatus::Complete);
    if first.is_some() || known != PartialStatus::Complete {
        text(object.name("status"), known.as_str_name());
    }
    object.text_field("message", &answer.message);
    object.end();
    out
}

/// Values of a tag by their types, all as texts.
pub fn tag_values_for_models(answer: &SearchTagValuesV2Response) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut object = Object::begin(&mut out);
    let mut kinds: Vec<&str> = answer.tag_values.iter().map(|value| value.r#type.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut values = Object::begin(object.name("tagValues"));
    for kind in kinds {
        let of_kind: Vec<&str> =
            answer.tag_values.iter().filter(|v| v.r#type == kind).map(|value| value.value.as_str()).collect();
        text(values.key(), kind);
        list(values.value(), &of_kind, |out, value| text(out, value));
    }
    values.end();
    metadata_metrics(object.name("metrics"), answer.metrics.as_ref());
    object.end();
    out
}

/// One attribute's value.
pub fn any_value_for_models(value: Option<&AnyValue>) -> Vec<u8> {
    let mut out = Vec::new();
    any(&mut out, value);
    out
}

fn metadata_metrics(out: &mut Vec<u8>, metrics: Option<&MetadataMetrics>) {
    let mut object = Object::begin(out);
    if let Some(metrics) = metrics {
        object.number_field("inspectedBytes", metrics.inspected_bytes);
        object.number_field("totalJobs", metrics.total_jobs.into());
        object.number_field("completedJobs", metrics.completed_jobs.into());
        object.number_field("totalBlocks", metrics.total_blocks.into());
        object.number_field("totalBlockBytes", metrics.total_block_bytes);
        object.number_field("backendReads", metrics.backend_reads);
        object.number_field("backendBytes", metrics.backend_bytes);
        object.map_field("additionalMetrics", &metrics.additional_metrics, signed);
    }
    object.end();
}

fn metrics(out: &mut Vec<u8>, metrics: &TraceByIdMetrics) {
    let mut object = Object::begin(out);
    object.number_field("inspectedBytes", metrics.inspected_bytes);
    object.number_field("backendReads", metrics.backend_reads);
    object.number_field("backendBytes", metrics.backend_bytes);
    object.map_field("additionalMetrics", &metrics.additional_metrics, signed);
    object.end();
}

fn trace(out: &mut Vec<u8>, resources: &[ResourceSpans], first: &Span) {
    let mut object = Object::begin(out);
    text(object.name("traceId"), &trace_id(&first.trace_id));
    list(object.name("services"), resources, service);
    object.end();
}

fn service(out: &mut Vec<u8>, spans: &ResourceSpans) {
    const NAME: &str = "service.name";
    let mut object = Object::begin(out);
    let resource = spans.resource.as_ref();
    let attributes = resource.map_or(&[][..], |resource: &Resource| resource.attributes.as_slice());
    let name = attributes.iter().find(|attribute| attribute.key == NAME);
    let name = match name.and_then(|attribute| attribute.value.as_ref()).and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(name)) => name.as_str(),
        _ => "",
    };
    object.text_field("serviceName", name);
    let others: Vec<&KeyValue> = attributes.iter().filter(|attribute| attribute.key != NAME).collect();
    if !others.is_empty() {
        flat(object.name("resource"), &others);
    }
    list(object.name("scopes"), &spans.scope_spans, scope);
    object.end();
}

fn scope(out: &mut Vec<u8>, spans: &ScopeSpans) {
    let mut object = Object::begin(out);
    let none = InstrumentationScope::default();
    let scope = spans.scope.as_ref().unwrap_or(&none);
    object.text_field("name", &scope.name);
    object.text_field("version", &scope.version);
    list(object.name("spans"), &spans.spans, span);
    object.end();
}

fn span(out: &mut Vec<u8>, span: &Span) {
    let mut object = Object::begin(out);
    text(object.name("spanId"), &span_id(&span.span_id));
    text(object.name("name"), &span.name);
    if !span.parent_span_id.is_empty() {
        text(object.name("parentSpanId"), &span_id(&span.parent_span_id));
    }
    let kind = span::SpanKind::try_from(span.kind).unwrap_or(span::SpanKind::Unspecified);
    if kind != span::SpanKind::Unspecified {
        text(object.name("kind"), kind.as_str_name());
    }
    text(object.name("startTimeUnixNano"), &span.start_time_unix_nano.to_string());
    text(object.name("endTimeUnixNano"), &span.end_time_unix_nano.to_string());
    let nanos = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    let (millis, rest) = (nanos / 1_000_000, nanos % 1_000_000);
    let out = object.name("durationMs");
    integer(out, false, millis);
    if rest > 0 {
        out.extend_from_slice(format!(".{rest:06}").trim_end_matches('0').as_bytes());
    }
    attributes(&mut object, &span.attributes);
    if !span.events.is_empty() {
        list(object.name("events"), &span.events, |out, event| {
            let mut object = Object::begin(out);
            text(object.name("name"), &event.name);
            text(object.name("timeUnixNano"), &event.time_unix_nano.to_string());
            attributes(&mut object, &event.attributes);
            object.end();
        });
    }
    if !span.links.is_empty() {
        list(object.name("links"), &span.links, |out, link| {
            let mut object = Object::begin(out);
            text(object.name("traceId"), &trace_id(&link.trace_id));
            text(object.name("spanId"), &span_id(&link.span_id));
            attributes(&mut object, &link.attributes);
            object.end();
        });
    }
    let mut state = Object::begin(object.name("status"));
    let (code, message) = span.status.as_ref().map_or((0, ""), |status| (status.code, status.message.as_str()));
    let code = status::StatusCode::try_from(code).unwrap_or(status::StatusCode::Unset);
    text(state.name("code"), code.as_str_name());
    text(state.name("message"), message);
    state.end();
    object.end();
}

fn attributes(object: &mut Object<'_>, attributes: &[KeyValue]) {
    if !attributes.is_empty() {
        flat(object.name("attributes"), &attributes.iter().collect::<Vec<_>>());
    }
}

/// Keys of an object are unique: of attributes with one key the last stays.
fn flat(out: &mut Vec<u8>, attributes: &[&KeyValue]) {
    let mut object = Object::begin(out);
    for (at, attribute) in attributes.iter().enumerate() {
        if attributes[at + 1..].iter().any(|later| later.key == attribute.key) {
            continue;
        }
        text(object.key(), &attribute.key);
        any(object.value(), attribute.value.as_ref());
    }
    object.end();
}

fn any(out: &mut Vec<u8>, value: Option<&AnyValue>) {
    match value.and_then(|any| any.value.as_ref()) {
        None => out.extend_from_slice(b"null"),
        Some(Value::StringValue(value)) => text(out, value),
        Some(Value::BoolValue(value)) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Some(Value::IntValue(value)) => integer(out, *value < 0, value.unsigned_abs()),
        Some(Value::DoubleValue(value)) => double(out, *value),
        Some(Value::ArrayValue(array)) => list(out, &array.values, |out, item| any(out, Some(item))),
        Some(Value::KvlistValue(group)) => flat(out, &group.values.iter().collect::<Vec<_>>()),
        Some(Value::BytesValue(value)) => text(out, &hex(value)),
        Some(Value::StringValueStrindex(index)) => integer(out, *index < 0, index.unsigned_abs().into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
        text
    })
}

fn trace_id(bytes: &[u8]) -> String {
    TraceId::from_slice(bytes).map(|id| id.to_string()).unwrap_or_default()
}

fn span_id(bytes: &[u8]) -> String {
    SpanId::from_slice(bytes).map(|id| id.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::trace::Status;
    use crate::tempopb::{TagValue, Trace};

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    #[test]
    fn a_trace_is_plain_json_with_hex_ids_and_numbers() {
        let span = Span {
            trace_id: vec![0x10; 16],
            span_id: vec![0, 0, 0, 0, 0, 0, 0, 0xa1],
            name: "GET /".to_owned(),
            kind: 2,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            end_time_unix_nano: 1_700_000_000_600_500_001,
            attributes: vec![
                attribute("n", Value::IntValue(1)),
                attribute("ok", Value::BoolValue(true)),
                attribute("n", Value::IntValue(200)),
                attribute("raw", Value::BytesValue(vec![1, 0xab])),
            ],
            events: vec![span::Event { time_unix_nano: 5, name: "e".to_owned(), ..span::Event::default() }],
            status: Some(Status { code: 2, message: "no".to_owned() }),
            ..Span::default()
        };
        let resource = Resource {
            attributes: vec![
                attribute("service.name", Value::StringValue("shop".to_owned())),
                attribute("zone", Value::StringValue("<a>".to_owned())),
            ],
            ..Resource::default()
        };
        let scopes = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let spans = ResourceSpans { resource: Some(resource), scope_spans: scopes, ..ResourceSpans::default() };
        let answer = TraceByIdResponse {
            trace: Some(Trace { resource_spans: vec![spans] }),
            metrics: Some(TraceByIdMetrics { inspected_bytes: 23061, ..TraceByIdMetrics::default() }),
            ..TraceByIdResponse::default()
        };
        let json: serde_json::Value = serde_json::from_slice(&trace_for_models(&answer)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "trace": { "traceId": "10".repeat(16), "services": [{
                    "serviceName": "shop",
                    "resource": { "zone": "<a>" },
                    "scopes": [{ "spans": [{
                        "spanId": "00000000000000a1", "name": "GET /", "kind": "SPAN_KIND_SERVER",
                        "startTimeUnixNano": "1700000000000000000",
                        "endTimeUnixNano": "1700000000600500001",
                        "durationMs": 600.500_001,
                        "attributes": { "ok": true, "n": 200, "raw": "01ab" },
                        "events": [{ "name": "e", "timeUnixNano": "5" }],
                        "status": { "code": "STATUS_CODE_ERROR", "message": "no" },
                    }]}],
                }]},
                "metrics": { "inspectedBytes": 23061 },
                "status": "COMPLETE",
            })
        );
    }

    #[test]
    fn a_missing_trace_is_an_empty_object() {
        let answer = TraceByIdResponse { trace: Some(Trace::default()), ..TraceByIdResponse::default() };
        assert_eq!(trace_for_models(&answer), b"{}");
        let partial = TraceByIdResponse { status: 1, message: "m".to_owned(), ..answer };
        assert_eq!(trace_for_models(&partial), br#"{"status":"PARTIAL","message":"m"}"#);
    }

    #[test]
    fn values_stand_by_their_types() {
        let value = |kind: &str, value: &str| TagValue { r#type: kind.to_owned(), value: value.to_owned() };
        let answer = SearchTagValuesV2Response {
            tag_values: vec![value("string", "a"), value("int", "-5"), value("string", "b"), value("float", "NaN")],
            metrics: Some(MetadataMetrics { inspected_bytes: 7, ..MetadataMetrics::default() }),
        };
        assert_eq!(
            String::from_utf8(tag_values_for_models(&answer)).unwrap(),
            r#"{"tagValues":{"float":["NaN"],"int":["-5"],"string":["a","b"]},"metrics":{"inspectedBytes":7}}"#
        );
    }
}

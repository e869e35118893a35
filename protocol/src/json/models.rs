//! Answers for language models: plain JSON instead of protobuf's mapping. Ids are hex, numbers are numbers, attributes are flat
//! objects.

use super::writer::{Object, bytes, double, integer, list, signed, text};
use crate::otlp::common::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use crate::otlp::resource::Resource;
use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span, span, status};
use crate::tempopb::{MetadataMetrics, PartialStatus, SearchTagValuesV2Response, TraceByIdMetrics, TraceByIdResponse};
use crate::{SpanId, TraceId};

/// A trace; an empty object stands for one that was not found.
pub fn trace_for_models(answer: &TraceByIdResponse) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut object = Object::begin(&mut out);
    let resources = answer.trace.as_ref().map_or(&[][..], |trace| trace.resource_spans.as_slice());
    trace(object.name("trace"), resources);
    metrics(object.name("metrics"), answer.metrics.as_ref());
    let known = PartialStatus::try_from(answer.status).unwrap_or(PartialStatus::Complete);
    text(object.name("status"), known.as_str_name());
    object.text_field("message", &answer.message);
    object.end();
    out
}

/// Values of a tag by their types.
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
        list(values.value(), &of_kind, |out, value| match kind {
            "int" | "float" if value.parse::<f64>().is_ok_and(f64::is_finite) => {
                out.extend_from_slice(value.as_bytes())
            }
            "bool" if matches!(*value, "true" | "false") => out.extend_from_slice(value.as_bytes()),
            _ => text(out, value),
        });
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

fn metrics(out: &mut Vec<u8>, metrics: Option<&TraceByIdMetrics>) {
    let mut object = Object::begin(out);
    if let Some(metrics) = metrics {
        object.number_field("inspectedBytes", metrics.inspected_bytes);
        object.number_field("backendReads", metrics.backend_reads);
        object.number_field("backendBytes", metrics.backend_bytes);
        object.map_field("additionalMetrics", &metrics.additional_metrics, signed);
    }
    object.end();
}

fn trace(out: &mut Vec<u8>, resources: &[ResourceSpans]) {
    let mut object = Object::begin(out);
    let spans = resources.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    if let Some(first) = spans.into_iter().next() {
        text(object.name("traceId"), &trace_id(&first.trace_id));
        list(object.name("services"), resources, service);
    }
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
    text(object.name("serviceName"), name);
    let others: Vec<&KeyValue> = attributes.iter().filter(|attribute| attribute.key != NAME).collect();
    flat(object.name("resource"), &others);
    list(object.name("scopes"), &spans.scope_spans, scope);
    object.end();
}

fn scope(out: &mut Vec<u8>, spans: &ScopeSpans) {
    let mut object = Object::begin(out);
    let none = InstrumentationScope::default();
    let scope = spans.scope.as_ref().unwrap_or(&none);
    text(object.name("name"), &scope.name);
    text(object.name("version"), &scope.version);
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
    text(object.name("kind"), kind.as_str_name());
    integer(object.name("startTimeUnixNano"), false, span.start_time_unix_nano);
    integer(object.name("endTimeUnixNano"), false, span.end_time_unix_nano);
    let nanos = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    // Whole microseconds are as exact as a number with a fraction can be for every duration.
    let micros = u32::try_from(nanos % 1_000_000 / 1000).unwrap_or_default();
    let millis = nanos / 1_000_000;
    let out = object.name("durationMs");
    integer(out, false, millis);
    if micros > 0 {
        out.extend_from_slice(format!(".{micros:03}").trim_end_matches('0').as_bytes());
    }
    attributes(object.name("attributes"), &span.attributes);
    list(object.name("events"), &span.events, |out, event| {
        let mut object = Object::begin(out);
        text(object.name("name"), &event.name);
        integer(object.name("timeUnixNano"), false, event.time_unix_nano);
        attributes(object.name("attributes"), &event.attributes);
        object.end();
    });
    list(object.name("links"), &span.links, |out, link| {
        let mut object = Object::begin(out);
        text(object.name("traceId"), &trace_id(&link.trace_id));
        text(object.name("spanId"), &span_id(&link.span_id));
        attributes(object.name("attributes"), &link.attributes);
        object.end();
    });
    let mut state = Object::begin(object.name("status"));
    let (code, message) = span.status.as_ref().map_or((0, ""), |status| (status.code, status.message.as_str()));
    let code = status::StatusCode::try_from(code).unwrap_or(status::StatusCode::Unset);
    text(state.name("code"), code.as_str_name());
    text(state.name("message"), message);
    state.end();
    object.end();
}

fn attributes(out: &mut Vec<u8>, attributes: &[KeyValue]) {
    flat(out, &attributes.iter().collect::<Vec<_>>());
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
        Some(Value::KvlistValue(group)) => attributes(out, &group.values),
        Some(Value::BytesValue(value)) => bytes(out, value),
        Some(Value::StringValueStrindex(index)) => integer(out, *index < 0, index.unsigned_abs().into()),
    }
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
            end_time_unix_nano: 1_700_000_000_600_500_000,
            attributes: vec![
                attribute("n", Value::IntValue(1)),
                attribute("ok", Value::BoolValue(true)),
                attribute("n", Value::IntValue(200)),
            ],
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
                    "scopes": [{ "name": "", "version": "", "spans": [{
                        "spanId": "00000000000000a1", "name": "GET /", "kind": "SPAN_KIND_SERVER",
                        "startTimeUnixNano": 1_700_000_000_000_000_000_u64,
                        "endTimeUnixNano": 1_700_000_000_600_500_000_u64,
                        "durationMs": 600.5,
                        "attributes": { "ok": true, "n": 200 },
                        "events": [], "links": [],
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
        assert_eq!(trace_for_models(&answer), br#"{"trace":{},"metrics":{},"status":"COMPLETE"}"#);
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
            r#"{"tagValues":{"float":["NaN"],"int":[-5],"string":["a","b"]},"metrics":{"inspectedBytes":7}}"#
        );
    }
}

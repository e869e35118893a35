//! Traces in answers. `resource`, `scope` and `status` are always written, empty or not, because readers go into them.

use super::answers::ToJson;
use super::writer::{Object, bytes, double, list, quoted_integer, text};
use crate::otlp::common::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value};
use crate::otlp::resource::Resource;
use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use crate::tempopb::Trace;

/// The form of a trace in the first version of the API: its root key is `batches`.
#[derive(Debug, Clone, Copy)]
pub struct Batches<'a>(pub &'a Trace);

impl ToJson for Batches<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.list_field("batches", &self.0.resource_spans, |out, r| write_resource_spans(r, out));
        object.end();
    }
}

impl ToJson for Trace {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.list_field("resourceSpans", &self.resource_spans, |out, r| write_resource_spans(r, out));
        object.end();
    }
}

/// Writes one element of `batches` or `resourceSpans`.
pub fn write_resource_spans(resource_spans: &ResourceSpans, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    resource(object.name("resource"), resource_spans.resource.as_ref());
    object.list_field("scopeSpans", &resource_spans.scope_spans, scope_spans);
    object.text_field("schemaUrl", &resource_spans.schema_url);
    object.end();
}

fn resource(out: &mut Vec<u8>, resource: Option<&Resource>) {
    let mut object = Object::begin(out);
    if let Some(resource) = resource {
        object.list_field("attributes", &resource.attributes, key_value);
        object.u32_field("droppedAttributesCount", resource.dropped_attributes_count);
        object.list_field("entityRefs", &resource.entity_refs, |out, entity| {
            let mut object = Object::begin(out);
            object.text_field("schemaUrl", &entity.schema_url);
            object.text_field("type", &entity.r#type);
            object.list_field("idKeys", &entity.id_keys, |out, key| text(out, key));
            object.list_field("descriptionKeys", &entity.description_keys, |out, key| text(out, key));
            object.end();
        });
    }
    object.end();
}

fn scope_spans(out: &mut Vec<u8>, scope_spans: &ScopeSpans) {
    let mut object = Object::begin(out);
    scope(object.name("scope"), scope_spans.scope.as_ref());
    object.list_field("spans", &scope_spans.spans, span);
    object.text_field("schemaUrl", &scope_spans.schema_url);
    object.end();
}

fn scope(out: &mut Vec<u8>, scope: Option<&InstrumentationScope>) {
    let mut object = Object::begin(out);
    if let Some(scope) = scope {
        object.text_field("name", &scope.name);
        object.text_field("version", &scope.version);
        object.list_field("attributes", &scope.attributes, key_value);
        object.u32_field("droppedAttributesCount", scope.dropped_attributes_count);
    }
    object.end();
}

fn span(out: &mut Vec<u8>, span: &Span) {
    let mut object = Object::begin(out);
    object.bytes_field("traceId", &span.trace_id);
    object.bytes_field("spanId", &span.span_id);
    object.text_field("traceState", &span.trace_state);
    object.bytes_field("parentSpanId", &span.parent_span_id);
    object.text_field("name", &span.name);
    let kind = span::SpanKind::try_from(span.kind).ok();
    object.enum_field("kind", span.kind, kind.map(|kind| kind.as_str_name()));
    object.u64_field("startTimeUnixNano", span.start_time_unix_nano);
    object.u64_field("endTimeUnixNano", span.end_time_unix_nano);
    object.list_field("attributes", &span.attributes, key_value);
    object.u32_field("droppedAttributesCount", span.dropped_attributes_count);
    object.list_field("events", &span.events, event);
    object.u32_field("droppedEventsCount", span.dropped_events_count);
    object.list_field("links", &span.links, link);
    object.u32_field("droppedLinksCount", span.dropped_links_count);
    status(object.name("status"), span.status.as_ref());
    object.u32_field("flags", span.flags);
    object.end();
}

fn event(out: &mut Vec<u8>, event: &span::Event) {
    let mut object = Object::begin(out);
    object.u64_field("timeUnixNano", event.time_unix_nano);
    object.text_field("name", &event.name);
    object.list_field("attributes", &event.attributes, key_value);
    object.u32_field("droppedAttributesCount", event.dropped_attributes_count);
    object.end();
}

fn link(out: &mut Vec<u8>, link: &span::Link) {
    let mut object = Object::begin(out);
    object.bytes_field("traceId", &link.trace_id);
    object.bytes_field("spanId", &link.span_id);
    object.text_field("traceState", &link.trace_state);
    object.list_field("attributes", &link.attributes, key_value);
    object.u32_field("droppedAttributesCount", link.dropped_attributes_count);
    object.u32_field("flags", link.flags);
    object.end();
}

fn status(out: &mut Vec<u8>, status: Option<&Status>) {
    let mut object = Object::begin(out);
    if let Some(status) = status {
        object.text_field("message", &status.message);
        let code = status::StatusCode::try_from(status.code).ok();
        object.enum_field("code", status.code, code.map(|code| code.as_str_name()));
    }
    object.end();
}

pub(super) fn key_value(out: &mut Vec<u8>, key_value: &KeyValue) {
    let mut object = Object::begin(out);
    object.text_field("key", &key_value.key);
    if let Some(value) = &key_value.value {
        any_value(object.name("value"), value);
    }
    object.end();
}

fn any_value(out: &mut Vec<u8>, value: &AnyValue) {
    let mut object = Object::begin(out);
    match &value.value {
        None => {}
        Some(Value::StringValue(value)) => text(object.name("stringValue"), value),
        Some(Value::BoolValue(value)) => {
            let word: &[u8] = if *value { b"true" } else { b"false" };
            object.name("boolValue").extend_from_slice(word);
        }
        Some(Value::IntValue(value)) => quoted_integer(object.name("intValue"), *value < 0, value.unsigned_abs()),
        Some(Value::DoubleValue(value)) => double(object.name("doubleValue"), *value),
        Some(Value::ArrayValue(ArrayValue { values })) => {
            let mut array = Object::begin(object.name("arrayValue"));
            if !values.is_empty() {
                list(array.name("values"), values, any_value);
            }
            array.end();
        }
        Some(Value::KvlistValue(KeyValueList { values })) => {
            let mut list = Object::begin(object.name("kvlistValue"));
            list.list_field("values", values, key_value);
            list.end();
        }
        Some(Value::BytesValue(value)) => bytes(object.name("bytesValue"), value),
        // Means something in profiles only, where the string table is.
        Some(Value::StringValueStrindex(_)) => {}
    }
    object.end();
}

//! Answers to searches, tag requests, trace requests and metrics queries.

use super::trace::key_value;
use super::writer::{Object, list, quoted_integer, text};
use crate::tempopb::{
    Exemplar, InstantSeries, MetadataMetrics, PartialStatus, QueryInstantResponse, QueryRangeResponse, Sample,
    SearchMetrics, SearchResponse, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsResponse,
    SearchTagsV2Response, ServiceStats, Span, SpanSet, TimeSeries, TraceByIdMetrics, TraceByIdResponse,
    TraceSearchMetadata,
};

/// A message with a JSON form. Lists that an answer is about are written also when they are empty; see each implementation's tests.
pub trait ToJson {
    /// Appends the JSON form, without white space.
    fn write_json(&self, out: &mut Vec<u8>);
}

/// The trace is written as an empty object if there is none, because Grafana goes into it.
impl ToJson for TraceByIdResponse {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        match &self.trace {
            Some(trace) => trace.write_json(object.name("trace")),
            None => object.name("trace").extend_from_slice(b"{}"),
        }
        if let Some(metrics) = &self.metrics {
            trace_metrics(object.name("metrics"), metrics);
        }
        partial_status(&mut object, self.status, &self.message);
        object.end();
    }
}

fn trace_metrics(out: &mut Vec<u8>, metrics: &TraceByIdMetrics) {
    let mut object = Object::begin(out);
    object.u64_field("inspectedBytes", metrics.inspected_bytes);
    object.u64_field("backendReads", metrics.backend_reads);
    object.u64_field("backendBytes", metrics.backend_bytes);
    object.map_field("additionalMetrics", &metrics.additional_metrics, signed);
    object.end();
}

fn signed(out: &mut Vec<u8>, value: &i64) {
    quoted_integer(out, *value < 0, value.unsigned_abs());
}

fn partial_status(object: &mut Object<'_>, status: i32, message: &str) {
    object.enum_field("status", status, PartialStatus::try_from(status).ok().map(|s| s.as_str_name()));
    object.text_field("message", message);
}

/// `traces` is written also when it is empty.
impl ToJson for SearchResponse {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        list(object.name("traces"), &self.traces, search_metadata);
        if let Some(metrics) = &self.metrics {
            search_metrics(object.name("metrics"), metrics);
        }
        object.end();
    }
}

fn search_metadata(out: &mut Vec<u8>, trace: &TraceSearchMetadata) {
    let mut object = Object::begin(out);
    object.text_field("traceID", &trace.trace_id);
    object.text_field("rootServiceName", &trace.root_service_name);
    object.text_field("rootTraceName", &trace.root_trace_name);
    object.u64_field("startTimeUnixNano", trace.start_time_unix_nano);
    object.u32_field("durationMs", trace.duration_ms);
    if let Some(set) = &trace.span_set {
        span_set(object.name("spanSet"), set);
    }
    object.list_field("spanSets", &trace.span_sets, span_set);
    object.map_field("serviceStats", &trace.service_stats, service_stats);
    object.end();
}

fn service_stats(out: &mut Vec<u8>, stats: &ServiceStats) {
    let mut object = Object::begin(out);
    object.u32_field("spanCount", stats.span_count);
    object.u32_field("errorCount", stats.error_count);
    object.end();
}

fn span_set(out: &mut Vec<u8>, set: &SpanSet) {
    let mut object = Object::begin(out);
    object.list_field("spans", &set.spans, span);
    object.u32_field("matched", set.matched);
    object.list_field("attributes", &set.attributes, key_value);
    object.end();
}

fn span(out: &mut Vec<u8>, span: &Span) {
    let mut object = Object::begin(out);
    object.text_field("spanID", &span.span_id);
    object.text_field("name", &span.name);
    object.u64_field("startTimeUnixNano", span.start_time_unix_nano);
    object.u64_field("durationNanos", span.duration_nanos);
    object.list_field("attributes", &span.attributes, key_value);
    object.end();
}

fn search_metrics(out: &mut Vec<u8>, metrics: &SearchMetrics) {
    let mut object = Object::begin(out);
    object.u32_field("inspectedTraces", metrics.inspected_traces);
    object.u64_field("inspectedBytes", metrics.inspected_bytes);
    object.u32_field("totalBlocks", metrics.total_blocks);
    object.u32_field("completedJobs", metrics.completed_jobs);
    object.u32_field("totalJobs", metrics.total_jobs);
    object.u64_field("totalBlockBytes", metrics.total_block_bytes);
    object.u64_field("inspectedSpans", metrics.inspected_spans);
    object.u64_field("backendReads", metrics.backend_reads);
    object.u64_field("backendBytes", metrics.backend_bytes);
    object.map_field("additionalMetrics", &metrics.additional_metrics, signed);
    object.end();
}

fn metadata_metrics(object: &mut Object<'_>, metrics: Option<&MetadataMetrics>) {
    let Some(metrics) = metrics else { return };
    let mut object = Object::begin(object.name("metrics"));
    object.u64_field("inspectedBytes", metrics.inspected_bytes);
    object.u32_field("totalJobs", metrics.total_jobs);
    object.u32_field("completedJobs", metrics.completed_jobs);
    object.u32_field("totalBlocks", metrics.total_blocks);
    object.u64_field("totalBlockBytes", metrics.total_block_bytes);
    object.u64_field("backendReads", metrics.backend_reads);
    object.u64_field("backendBytes", metrics.backend_bytes);
    object.map_field("additionalMetrics", &metrics.additional_metrics, signed);
    object.end();
}

/// `tagNames` is written also when it is empty.
impl ToJson for SearchTagsResponse {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        list(object.name("tagNames"), &self.tag_names, |out, name| text(out, name));
        metadata_metrics(&mut object, self.metrics.as_ref());
        object.end();
    }
}

/// `scopes` is written also when it is empty, `tags` of a scope is not.
impl ToJson for SearchTagsV2Response {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        list(object.name("scopes"), &self.scopes, |out, scope| {
            let mut object = Object::begin(out);
            object.text_field("name", &scope.name);
            object.list_field("tags", &scope.tags, |out, tag| text(out, tag));
            object.end();
        });
        metadata_metrics(&mut object, self.metrics.as_ref());
        object.end();
    }
}

/// `tagValues` is written also when it is empty.
impl ToJson for SearchTagValuesResponse {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        list(object.name("tagValues"), &self.tag_values, |out, value| text(out, value));
        metadata_metrics(&mut object, self.metrics.as_ref());
        object.end();
    }
}

/// `tagValues` is written also when it is empty.
impl ToJson for SearchTagValuesV2Response {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        list(object.name("tagValues"), &self.tag_values, |out, value| {
            let mut object = Object::begin(out);
            object.text_field("type", &value.r#type);
            object.text_field("value", &value.value);
            object.end();
        });
        metadata_metrics(&mut object, self.metrics.as_ref());
        object.end();
    }
}

/// `series` is written also when it is empty.
impl ToJson for QueryRangeResponse {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        list(object.name("series"), &self.series, time_series);
        if let Some(metrics) = &self.metrics {
            search_metrics(object.name("metrics"), metrics);
        }
        partial_status(&mut object, self.status, &self.message);
        object.end();
    }
}

fn time_series(out: &mut Vec<u8>, series: &TimeSeries) {
    let mut object = Object::begin(out);
    object.list_field("labels", &series.labels, key_value);
    object.list_field("samples", &series.samples, |out, Sample { value, timestamp_ms }| {
        let mut object = Object::begin(out);
        object.double_field("value", *value);
        object.i64_field("timestampMs", *timestamp_ms);
        object.end();
    });
    object.list_field("exemplars", &series.exemplars, |out, Exemplar { labels, value, timestamp_ms }| {
        let mut object = Object::begin(out);
        object.list_field("labels", labels, key_value);
        object.double_field("value", *value);
        object.i64_field("timestampMs", *timestamp_ms);
        object.end();
    });
    object.end();
}

/// Unlike in a range answer, an empty `series` is left out.
impl ToJson for QueryInstantResponse {
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.list_field("series", &self.series, |out, InstantSeries { labels, value }| {
            let mut object = Object::begin(out);
            object.list_field("labels", labels, key_value);
            object.double_field("value", *value);
            object.end();
        });
        if let Some(metrics) = &self.metrics {
            search_metrics(object.name("metrics"), metrics);
        }
        partial_status(&mut object, self.status, &self.message);
        object.end();
    }
}

//! Jobs of queries, run over one source: the messages of `protocol/` in and out, everything between is columns.
//!
//! Shared by whoever holds spans: the live-store over its live traces, the querier over blocks. Calls block and compute.

mod block_search;
mod metrics;
mod names;
mod newest;
mod rehearsal;
mod share;
mod split;
mod sums;
mod values;

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;
use vivace_protocol::otlp::common::{AnyValue, ArrayValue, KeyValue, any_value};
use vivace_protocol::tempopb::{
    SearchMetrics, SearchTagsV2Scope, ServiceStats, Span, SpanSet, TagValue as TagValueMessage, TraceSearchMetadata,
};
use vivace_protocol::vivace::{SearchBatch, SearchJob, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply};
use vivace_protocol::{SpanId, TraceId};
use vivace_traceql::ast::{Body, Stage};
use vivace_traceql::{
    self as traceql, FetchStats, Field, Intrinsic, Merger, OverBudget, Predicate, Query, Scope, SearchError,
    SearchPlan, Source, TimeRange, TraceHit, Value, format_duration,
};

pub use self::block_search::BlockSearch;
pub use self::metrics::{
    instant_response, merge_metrics, metrics, metrics_block, metrics_of_parts, metrics_plan, range_response,
};
pub use self::rehearsal::{RehearsalError, rehearse};
pub use self::share::Share;
pub use self::split::{SplitOver, asks_for_traces, metrics_split, search_split, window_of};
pub use self::sums::{TagNamesSum, TagValuesSum};
use crate::tags::{TagLimits, TagNames, TagSet, TagSource, tag_values};
use crate::{BlockSource, OpenBlock, read};
pub use vivace_traceql::Budget;

/// The trace as stored, an encoded `tempopb.Trace`.
///
/// # Errors
/// UNAVAILABLE when the block cannot be read.
pub fn find_trace(block: &OpenBlock, id: TraceId) -> Result<Option<Bytes>, Status> {
    read::find_trace(block, id).map_err(|error| unavailable(&error))
}

/// Where the trace is in the block, if it is there.
///
/// # Errors
/// UNAVAILABLE when the block cannot be read.
pub fn locate_trace(block: &OpenBlock, id: TraceId) -> Result<Option<read::TraceRow>, Status> {
    read::locate_trace(block, id).map_err(|error| unavailable(&error))
}

/// Pieces of a row are about this large: a message each, with room for the span that goes beyond.
const PIECE: usize = vivace_protocol::find_trace::BATCH_BYTES - (256 << 10);

/// When the first span of a row starts that may be on a page; see [`read::PageStarts::first_of`]. The row is one that [`locate_trace`] has
/// found in this block.
///
/// # Errors
/// UNAVAILABLE when the block cannot be read.
pub fn first_of_page(page: &read::PageStarts, block: &OpenBlock, row: read::TraceRow) -> Result<Option<u64>, Status> {
    page.first_of(block, row).map_err(|error| unavailable(&error))
}

/// The spans that start in `starts` of a row that [`locate_trace`] has found in this block, in pieces that are traces: a row can have
/// tens of megabytes, and what is passed on need not stay.
///
/// # Errors
/// UNAVAILABLE when the block cannot be read.
pub fn read_trace(block: &OpenBlock, row: read::TraceRow, starts: RangeInclusive<u64>) -> Result<Vec<Bytes>, Status> {
    read::read_trace_in_pieces(block, row, PIECE, starts).map_err(|error| unavailable(&error))
}

/// All that a block has of a trace, in pieces that are traces.
///
/// # Errors
/// UNAVAILABLE when the block cannot be read.
pub fn find_pieces(block: &OpenBlock, id: TraceId) -> Result<Vec<Bytes>, Status> {
    locate_trace(block, id)?.map_or(Ok(Vec::new()), |row| read_trace(block, row, 0..=u64::MAX))
}

/// An error with its causes on one line: what could not be read, and may be read by a second attempt.
pub(crate) fn unavailable(error: &dyn std::error::Error) -> Status {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Status::unavailable(text)
}

fn window(start: u64, end: u64) -> Option<TimeRange> {
    (end > 0).then_some(TimeRange { start_ns: start, end_ns: end })
}

fn limits(max_entries: u32, max_stale: u32, max_bytes: u64) -> TagLimits {
    // More than there can be is no limit.
    let limit = |max: u32| usize::try_from(max).unwrap_or(0);
    let max_bytes = usize::try_from(max_bytes).unwrap_or(0);
    TagLimits { max_entries: limit(max_entries), max_bytes, max_stale: limit(max_stale) }
}

/// Names or values take more than a job may.
fn too_many(max_bytes: u64) -> Status {
    over_budget(OverBudget { limit: usize::try_from(max_bytes).unwrap_or(usize::MAX) })
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Any | Scope::Span => "span",
        Scope::Resource => "resource",
        Scope::Event => "event",
        Scope::Link => "link",
        Scope::Instrumentation => "instrumentation",
    }
}

/// The budget of a job that may take so much memory in this process; 0 is any.
#[must_use]
pub fn budget(max_bytes: u64) -> Budget {
    Budget::new(usize::try_from(max_bytes).unwrap_or(usize::MAX))
}

/// How it is said that a query takes too much memory: it is the query's own matter, and no second attempt helps.
#[must_use]
pub fn over_budget(error: OverBudget) -> Status {
    Status::out_of_range(error.to_string())
}

/// Whether an error is the query's own, so that no other source and no second attempt would do better.
#[must_use]
pub fn is_final(status: &Status) -> bool {
    use tonic::Code;
    matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange)
}

/// Names of attributes by scope, of all spans or of those that the job's query selects. Scopes that name no attributes
/// (`intrinsic`, `trace`) have none.
///
/// # Errors
/// INVALID_ARGUMENT when the query cannot run, UNAVAILABLE when the source cannot be read, OUT_OF_RANGE when the names take more
/// memory than the job allows.
pub fn tag_names(source: &impl TagSource, job: &TagNamesJob) -> Result<TagNamesReply, Status> {
    let scope = match job.scope.as_str() {
        "" | "none" => None,
        "span" => Some(Scope::Span),
        "resource" => Some(Scope::Resource),
        "event" => Some(Scope::Event),
        "link" => Some(Scope::Link),
        "instrumentation" => Some(Scope::Instrumentation),
        _ => return Ok(TagNamesReply::default()),
    };
    let mut names = TagNames::new(limits(job.max_per_scope, job.max_stale, job.max_bytes));
    if job.query.is_empty() {
        source.tag_names(scope, &mut names).map_err(|error| unavailable(&error))?;
    } else {
        let window = window(job.start_unix_nano, job.end_unix_nano);
        names::selected_names(source, job, scope, window, &mut names)?;
    }
    if names.is_over() {
        return Err(too_many(job.max_bytes));
    }
    let scopes = names.into_scopes().into_iter().filter(|(_, tags)| !tags.is_empty());
    let scopes = scopes
        .map(|(scope, tags)| SearchTagsV2Scope { name: scope_name(scope).to_owned(), tags: tags.into_iter().collect() })
        .collect();
    Ok(TagNamesReply { scopes, ..TagNamesReply::default() })
}

/// [`tag_names`] of a block.
///
/// # Errors
/// As there.
pub fn tag_names_block(block: &Arc<OpenBlock>, job: &TagNamesJob) -> Result<TagNamesReply, Status> {
    tag_names(&BlockSource::new(Arc::clone(block)), job)
}

/// A field as a query names it: `span.http.route`, `.service.name`, `name`, `span:status`.
///
/// # Errors
/// The parser's words.
pub fn parse_field(text: &str) -> Result<Field, String> {
    // A field on its own is no query; the shortest query that shows it is a selection.
    let query = Query::parse(&format!("{{ }} | select({text}\n)")).map_err(|error| error.to_string())?;
    let Body::Search(pipeline) = query.body() else { return Err("it is not a field".to_owned()) };
    match pipeline.stages.as_slice() {
        [_, Stage::Select(fields)] if fields.len() == 1 => Ok(fields[0].clone()),
        _ => Err("it is not a single field".to_owned()),
    }
}

/// Values of one tag, with their types.
///
/// # Errors
/// INVALID_ARGUMENT when the tag is none, UNAVAILABLE when the source cannot be read, OUT_OF_RANGE when the values take more
/// memory than the job allows.
pub fn tag_values_of(source: &impl TagSource, job: &TagValuesJob) -> Result<TagValuesReply, Status> {
    let field = parse_field(&job.tag).map_err(Status::invalid_argument)?;
    let mut values = TagSet::new(limits(job.max_values, job.max_stale, job.max_bytes));
    let window = window(job.start_unix_nano, job.end_unix_nano);
    if job.query.is_empty() {
        // Without a filter every value of the source is meant: sources know them without looking at spans.
        tag_values(source, &field, &Predicate::Always, None, &mut values).map_err(|error| unavailable(&error))?;
    } else if matches!(field, Field::Intrinsic(Intrinsic::Status | Intrinsic::Kind)) {
        tag_values(source, &field, &Predicate::Always, window, &mut values).map_err(|error| unavailable(&error))?;
    } else {
        values::selected_values(source, &field, job, window, &mut values)?;
    }
    if values.is_over() {
        return Err(too_many(job.max_bytes));
    }
    let values = values
        .into_entries()
        .into_iter()
        .map(|value| TagValueMessage { r#type: value.kind.as_str().to_owned(), value: value.value })
        .collect();
    Ok(TagValuesReply { values, ..TagValuesReply::default() })
}

/// [`tag_values_of`] a block.
///
/// # Errors
/// As there.
pub fn tag_values_block(block: &Arc<OpenBlock>, job: &TagValuesJob) -> Result<TagValuesReply, Status> {
    tag_values_of(&BlockSource::new(Arc::clone(block)), job)
}

/// What a search has found in a part of the traces.
#[derive(Debug)]
pub struct Found {
    merger: Merger,
    stats: FetchStats,
}

/// The newest `limit` traces of a source that the query selects.
///
/// # Errors
/// INVALID_ARGUMENT when the query is none or is not defined for the data, UNAVAILABLE when the source cannot be read,
/// OUT_OF_RANGE when what is found takes more memory than the job allows.
pub fn search(source: &impl Source, job: &SearchJob) -> Result<SearchBatch, Status> {
    Ok(found_of_parts(vec![search_part(source, job, &budget(job.max_bytes))?]))
}

/// As [`search`], where other parts follow. What is found counts against `budget` as long as it is held.
///
/// # Errors
/// As there.
pub fn search_part(source: &impl Source, job: &SearchJob, budget: &Budget) -> Result<Found, Status> {
    let plan = search_plan(job)?;
    // The newest are kept whatever the order of the source, so that the same question has the same answer.
    let mut merger = Merger::new(size(job.limit), true).within(budget);
    let window = window(job.start_unix_nano, job.end_unix_nano);
    let stats = traceql::search(source, &plan, window, size(job.spans_per_span_set), &mut merger);
    Ok(Found { merger, stats: stats.map_err(search_error)? })
}

fn search_plan(job: &SearchJob) -> Result<SearchPlan, Status> {
    let query = Query::parse(&job.query).map_err(|error| Status::invalid_argument(error.to_string()))?;
    SearchPlan::new(&query).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn search_error(error: SearchError) -> Status {
    match error {
        SearchError::Fetch(error) => unavailable(&error),
        SearchError::Eval(error) => Status::invalid_argument(error.to_string()),
        SearchError::OverBudget(error) => over_budget(error),
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The newest `limit` traces of all parts.
#[must_use]
pub fn found_of_parts(parts: Vec<Found>) -> SearchBatch {
    let mut stats = FetchStats::default();
    let mut merged: Option<Merger> = None;
    for part in parts {
        stats.bytes += part.stats.bytes;
        stats.traces += part.stats.traces;
        stats.spans += part.stats.spans;
        match &mut merged {
            None => merged = Some(part.merger),
            Some(merged) => part.merger.finish().into_iter().for_each(|hit| {
                merged.add(hit);
            }),
        }
    }
    SearchBatch {
        traces: merged.map(Merger::finish).unwrap_or_default().into_iter().map(metadata).collect(),
        metrics: Some(SearchMetrics {
            inspected_traces: u32::try_from(stats.traces).unwrap_or(u32::MAX),
            inspected_bytes: stats.bytes,
            inspected_spans: stats.spans,
            ..SearchMetrics::default()
        }),
        coverage: None,
        profile: None,
    }
}

/// [`search`] of a share of a block by one worker.
///
/// # Errors
/// As there.
pub fn search_block(block: &Arc<OpenBlock>, share: &Share, job: &SearchJob) -> Result<SearchBatch, Status> {
    let search = BlockSearch::begin(block, share, job)?;
    search.work()?;
    search.finish()
}

fn metadata(hit: TraceHit) -> TraceSearchMetadata {
    let span_sets: Vec<_> = hit.span_sets.iter().map(span_set).collect();
    TraceSearchMetadata {
        trace_id: TraceId(hit.trace_id).to_string(),
        root_service_name: hit.root_service.to_string(),
        root_trace_name: hit.root_name.to_string(),
        start_time_unix_nano: hit.start_ns,
        duration_ms: u32::try_from(hit.duration_ns / 1_000_000).unwrap_or(u32::MAX),
        span_set: None,
        span_sets,
        service_stats: hit
            .service_stats
            .into_iter()
            .map(|stat| (stat.service.to_string(), ServiceStats { span_count: stat.spans, error_count: stat.errors }))
            .collect(),
    }
}

fn span_set(set: &traceql::SpanSet) -> SpanSet {
    let spans = set.spans.iter().map(|span| Span {
        span_id: SpanId(span.id).to_string(),
        name: span.name.to_string(),
        start_time_unix_nano: span.start_ns,
        duration_nanos: span.duration_ns,
        attributes: span.attributes.iter().map(key_value).collect(),
    });
    SpanSet { spans: spans.collect(), matched: set.matched, attributes: set.attributes.iter().map(key_value).collect() }
}

fn key_value((key, value): &(Arc<str>, Value)) -> KeyValue {
    KeyValue { key: key.to_string(), value: Some(AnyValue { value: Some(any_value(value)) }), ..KeyValue::default() }
}

/// Durations, statuses, kinds and nil are shown as text.
fn any_value(value: &Value) -> any_value::Value {
    use any_value::Value as Any;
    match value {
        Value::Nil => Any::StringValue("nil".to_owned()),
        Value::Int(value) => Any::IntValue(*value),
        Value::Float(value) => Any::DoubleValue(*value),
        Value::Str(value) => Any::StringValue(value.to_string()),
        Value::Bool(value) => Any::BoolValue(*value),
        Value::Duration(nanos) => Any::StringValue(format_duration(*nanos)),
        Value::Status(status) => Any::StringValue(status.as_str().to_owned()),
        Value::Kind(kind) => Any::StringValue(kind.as_str().to_owned()),
        Value::List(values) => Any::ArrayValue(ArrayValue {
            values: values.iter().map(|value| AnyValue { value: Some(any_value(value)) }).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_value_is_called_nil() {
        let attribute = key_value(&("by(span.x)".into(), Value::Nil));
        let text = any_value::Value::StringValue("nil".to_owned());
        assert_eq!(attribute.value, Some(AnyValue { value: Some(text) }));
    }
}

//! A rehearsal of every kind of question, for a process that begins to answer.
//!
//! Code is read from the disk when it runs for the first time, so the first questions after a start would wait for code as long
//! as for data. A process writes a few traces as a block in memory and asks for them in each way, before somebody else asks for
//! others. It knows the answers: that this build computes right on this machine is checked with it.

use std::sync::Arc;

use prost::Message;
use thiserror::Error;
use tonic::Status;
use uuid::Uuid;
use vivace_protocol::TraceId;
use vivace_protocol::otlp::common::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use vivace_protocol::otlp::resource::Resource;
use vivace_protocol::otlp::trace::{
    ResourceSpans, ScopeSpans, Span, Status as SpanStatus, TracesData,
    span::{Event, Link},
};
use vivace_protocol::vivace::{MetricsJob, SearchJob, TagNamesJob, TagValuesJob};

use super::{
    Share, find_trace, metrics_block, metrics_plan, range_response, search_block, tag_names_block, tag_values_block,
};
use crate::{BlockSpec, BlockWriter, Decoded, DedicatedColumns, MemoryBlock, OpenBlock, ReadError, WriteError};

const TRACES: u32 = 32;
const SPANS: u32 = 6;
const SECOND: u64 = 1_000_000_000;
const BEGIN: u64 = 1_600_000_000 * SECOND;
/// So that lists of attributes have some pages, of which those of rare values are found without reading all.
const PAGE_ENTRIES: usize = 96;
/// Decoded parts of the block, for as long as it is asked.
const DECODED_BYTES: usize = 4 << 20;

/// Questions, and of how many traces each is true.
const SEARCHES: [(&str, u32); 10] = [
    ("{ }", TRACES),
    (r#"{ resource.service.name = "rehearsal-1" }"#, TRACES / 4),
    ("{ span.http.response.status_code >= 500 && duration > 1ms }", TRACES / 4),
    ("{ kind = server } >> { kind = client }", TRACES),
    (r#"{ span.rehearsal.absent = "none" }"#, 0),
    ("{ status = error } | count() > 0", TRACES / 4),
    (r#"{ name =~ "GET /(cart|orders).*" } | avg(duration) > 1ms"#, TRACES),
    (r#"{ span.rehearsal.user =~ ".*-7.*" }"#, 4),
    (r#"{ event.exception.type = "Timeout" } | select(span.http.route, span.rehearsal.ratio)"#, TRACES / 4),
    ("{ span.rehearsal.cached = true && span.rehearsal.ratio < 100.5 && trace:duration > 1ms }", TRACES),
];

/// Queries of metrics, and how many series each has.
const METRICS: [(&str, usize); 4] = [
    ("{ } | rate() by (resource.service.name)", 4),
    ("{ status = error } | rate()", 1),
    ("{ } | quantile_over_time(duration, .5, .9, .99) by (span.http.route)", 18),
    ("{ } | histogram_over_time(duration)", 1),
];

/// Why a rehearsal failed.
#[derive(Debug, Error)]
pub enum RehearsalError {
    /// The block could not be written.
    #[error("write a block in memory: {0}")]
    Write(#[from] WriteError),
    /// What was written could not be opened.
    #[error("open the block in memory: {0}")]
    Read(#[from] ReadError),
    /// A question was not answered.
    #[error("ask {0} of the block in memory: {1}")]
    Asked(&'static str, Status),
    /// An answer is not what it must be.
    #[error("{0} found {1} in the block in memory, where {2} are: this build does not compute right on this machine")]
    Differs(&'static str, usize, usize),
}

/// Writes a block in memory and asks it everything. Computes for some milliseconds.
///
/// # Errors
/// When it cannot be written or asked, or an answer is wrong: then answers about other data are not to be trusted either.
pub fn rehearse() -> Result<(), RehearsalError> {
    ask(&Arc::new(written()?))
}

fn ask(block: &Arc<OpenBlock>) -> Result<(), RehearsalError> {
    let end = BEGIN + u64::from(TRACES) * SECOND;
    for (query, due) in SEARCHES {
        let (limit, spans_per_span_set) = (TRACES, 3);
        let job = SearchJob { query: query.to_owned(), limit, spans_per_span_set, ..SearchJob::default() };
        let job = SearchJob { start_unix_nano: BEGIN, end_unix_nano: end, ..job };
        let found =
            search_block(block, &Share::whole(), &job).map_err(|status| RehearsalError::Asked(query, status))?;
        same(query, found.traces.len(), to_usize(due))?;
    }
    for (query, due) in METRICS {
        let asked = |status| RehearsalError::Asked(query, status);
        let (start_unix_nano, step_nanos) = (BEGIN - SECOND, 5 * SECOND);
        let job =
            MetricsJob { query: query.to_owned(), start_unix_nano, step_nanos, exemplars: 10, ..Default::default() };
        let job = MetricsJob { end_unix_nano: end, ..job };
        let plan = metrics_plan(&job).map_err(asked)?;
        let batch = metrics_block(block, &Share::whole(), &job, &|| false).map_err(asked)?;
        let mut partial = plan.partial();
        super::merge_metrics(&plan, &mut partial, batch.partial.unwrap_or_default()).map_err(asked)?;
        let series = range_response(plan.finish(partial)).series;
        same(query, series.len(), due)?;
    }
    let names =
        tag_names_block(block, &TagNamesJob::default()).map_err(|status| RehearsalError::Asked("tags", status))?;
    same("tags", usize::from(!names.scopes.is_empty()), 1)?;
    let job = TagValuesJob { tag: "resource.service.name".to_owned(), ..TagValuesJob::default() };
    let values = tag_values_block(block, &job).map_err(|status| RehearsalError::Asked("values", status))?;
    same("values", values.values.len(), 4)?;
    let trace = find_trace(block, id(1)).map_err(|status| RehearsalError::Asked("a trace", status))?;
    same("a trace", usize::from(trace.is_some()), 1)
}

fn same(question: &'static str, found: usize, due: usize) -> Result<(), RehearsalError> {
    if found == due { Ok(()) } else { Err(RehearsalError::Differs(question, found, due)) }
}

fn written() -> Result<OpenBlock, RehearsalError> {
    let mut spec = BlockSpec::new("rehearsal", Uuid::nil(), DedicatedColumns::defaults());
    spec.page_entries = PAGE_ENTRIES;
    let mut writer = BlockWriter::new(spec)?;
    for number in 0..TRACES {
        writer.add_trace(id(number).0, &[trace(number).encode_to_vec().into()])?;
    }
    let finished = writer.finish()?;
    let data: Vec<u8> = finished.data.into_iter().flatten().collect();
    let blooms = finished.blooms.into_iter().enumerate().map(|(shard, bloom)| (format!("bloom-{shard}"), bloom));
    let block = OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), blooms.collect())))?;
    Ok(block.keeping(&Decoded::new(DECODED_BYTES)))
}

fn id(number: u32) -> TraceId {
    TraceId((u128::from(number) + 1).to_be_bytes())
}

/// A server's span and those below it: the last an error in every fourth trace.
fn trace(number: u32) -> TracesData {
    let fails = number % 4 == 3;
    let begin = BEGIN + u64::from(number) * SECOND;
    let spans = (0..SPANS).map(|place| {
        let failed = fails && place == SPANS - 1;
        let start = begin + u64::from(place) * SECOND / 100;
        let event = Event { time_unix_nano: start, name: "exception".to_owned(), ..Event::default() };
        let event = Event { attributes: vec![text("exception.type", "Timeout".to_owned())], ..event };
        let link = Link { trace_id: id(number).0.to_vec(), span_id: vec![1; 8], ..Link::default() };
        Span {
            trace_id: id(number).0.to_vec(),
            span_id: span_id(place),
            parent_span_id: place.checked_sub(1).map(|_| span_id(place / 2)).unwrap_or_default(),
            name: format!("GET /{}/{place}", if place % 2 == 0 { "cart" } else { "orders" }),
            kind: if place == 0 { 2 } else { 3 },
            start_time_unix_nano: start,
            end_time_unix_nano: start + SECOND / 50,
            attributes: vec![
                text("http.route", format!("/{place}")),
                text("http.request.method", "GET".to_owned()),
                attribute("http.response.status_code", Value::IntValue(if failed { 503 } else { 200 })),
                text("rehearsal.user", format!("user-{}", number * SPANS + place)),
                attribute("rehearsal.ratio", Value::DoubleValue(f64::from(place) + 0.5)),
                attribute("rehearsal.cached", Value::BoolValue(place % 2 == 0)),
            ],
            events: if failed { vec![event] } else { Vec::new() },
            links: if place == 1 { vec![link] } else { Vec::new() },
            status: failed.then(|| SpanStatus { code: 2, message: "timeout".to_owned() }),
            ..Span::default()
        }
    });
    let scope = InstrumentationScope { name: "rehearsal".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.collect(), ..ScopeSpans::default() }];
    let attributes = vec![text("service.name", format!("rehearsal-{}", number % 4))];
    let resource = Some(Resource { attributes, ..Resource::default() });
    TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }
}

fn span_id(place: u32) -> Vec<u8> {
    (u64::from(place) + 1).to_be_bytes().to_vec()
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_finds_what_it_has_written() {
        rehearse().unwrap();
    }

    #[test]
    fn a_wrong_answer_is_an_error_that_names_the_question() {
        let error = same("{ }", 31, 32).unwrap_err().to_string();
        assert!(error.contains("{ } found 31") && error.contains("where 32 are"), "{error}");
        let mut writer = BlockWriter::new(BlockSpec::new("t", Uuid::nil(), DedicatedColumns::defaults())).unwrap();
        writer.add_trace(id(1).0, &[trace(1).encode_to_vec().into()]).unwrap();
        let finished = writer.finish().unwrap();
        let data: Vec<u8> = finished.data.into_iter().flatten().collect();
        let block = OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), Vec::new()))).unwrap();
        assert!(matches!(ask(&Arc::new(block)), Err(RehearsalError::Differs("{ }", 1, 32))));
    }
}

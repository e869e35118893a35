//! Metrics queries as jobs: the messages of `protocol/` in and out, cells and series of `traceql/` between.

use std::sync::Arc;

use tonic::Status;
use vivace_protocol::otlp::common::{AnyValue, KeyValue};
use vivace_protocol::tempopb::{
    self, InstantSeries, PartialStatus, QueryInstantResponse, QueryRangeResponse, Sample, SearchMetrics, TimeSeries,
};
use vivace_protocol::vivace::{
    self, MetricsBatch, MetricsCells, MetricsGroup, MetricsJob, MetricsLabel, MetricsLeaf, MetricsList, MetricsValue,
    metrics_value,
};
use vivace_traceql::{
    Cells, Exemplar, Group, Kind, Label, MetricsError, MetricsPartial, MetricsPlan, MetricsRequest, MetricsResult,
    MetricsSeries, Query, Source, Status as SpanStatus, Value, Window,
};

use super::{Share, any_value, unavailable};
use crate::{OpenBlock, profile::ProfiledBlock};

/// The plan of a job's query.
///
/// # Errors
/// INVALID_ARGUMENT when the query is none or computes no series, or the range is none.
pub fn metrics_plan(job: &MetricsJob) -> Result<MetricsPlan, Status> {
    let query = Query::parse(&job.query).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let request = MetricsRequest {
        start_ns: job.start_unix_nano,
        end_ns: job.end_unix_nano,
        step_ns: job.step_nanos,
        instant: job.instant,
        exemplars: job.exemplars,
        max_series: usize::try_from(job.max_series).unwrap_or(usize::MAX),
    };
    MetricsPlan::new(&query, &request).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What the spans of a source contribute to a metrics query. `stop` is asked now and then; true ends the job.
///
/// # Errors
/// INVALID_ARGUMENT when the query is none or is not defined for the data, OUT_OF_RANGE when its series are too
/// large, UNAVAILABLE when the source cannot be read, CANCELLED when `stop` said so.
pub fn metrics(source: &impl Source, job: &MetricsJob, stop: &dyn Fn() -> bool) -> Result<MetricsBatch, Status> {
    let plan = metrics_plan(job)?;
    let window = match (job.after_unix_nano, job.until_unix_nano) {
        (after_ns, 0) => Window { after_ns, ..Window::ALL },
        (after_ns, until_ns) => Window { after_ns, until_ns },
    };
    let mut partial = plan.partial();
    let stats = plan.observe(source, window, &mut partial, stop).map_err(status)?;
    Ok(MetricsBatch {
        partial: Some(message(partial)),
        metrics: Some(SearchMetrics {
            inspected_traces: u32::try_from(stats.traces).unwrap_or(u32::MAX),
            inspected_bytes: stats.bytes,
            inspected_spans: stats.spans,
            ..SearchMetrics::default()
        }),
        ..MetricsBatch::default()
    })
}

/// What several workers have made of one job, as one answer.
///
/// # Errors
/// As [`metrics_plan`] and [`merge_metrics`].
pub fn metrics_of_parts(job: &MetricsJob, mut parts: Vec<MetricsBatch>) -> Result<MetricsBatch, Status> {
    if parts.len() < 2 {
        return Ok(parts.pop().unwrap_or_default());
    }
    let plan = metrics_plan(job)?;
    let (mut sum, mut seen) = (plan.partial(), SearchMetrics::default());
    for part in parts {
        if let Some(partial) = part.partial {
            merge_metrics(&plan, &mut sum, partial)?;
        }
        if let Some(metrics) = part.metrics {
            seen.inspected_traces = seen.inspected_traces.saturating_add(metrics.inspected_traces);
            seen.inspected_bytes += metrics.inspected_bytes;
            seen.inspected_spans += metrics.inspected_spans;
        }
    }
    Ok(MetricsBatch { partial: Some(message(sum)), metrics: Some(seen), ..MetricsBatch::default() })
}

/// [`metrics`] of a share of a block; a query that is to be explained takes all of it.
///
/// # Errors
/// As there.
pub fn metrics_block(
    block: &Arc<OpenBlock>,
    share: &Share,
    job: &MetricsJob,
    stop: &dyn Fn() -> bool,
) -> Result<MetricsBatch, Status> {
    let apart = share.rows_apart(block)?;
    if !job.explain {
        return metrics(&share.of(block).passing_over(apart), job, stop);
    }
    let source = ProfiledBlock::new(Arc::clone(block)).passing_over(apart);
    let batch = metrics(&source, job, stop)?;
    Ok(MetricsBatch { profile: Some(source.finish()), ..batch })
}

/// Adds what a job answered.
///
/// # Errors
/// INTERNAL when it does not belong to the plan, OUT_OF_RANGE when the series get too large.
pub fn merge_metrics(
    plan: &MetricsPlan,
    into: &mut MetricsPartial,
    message: vivace::MetricsPartial,
) -> Result<(), Status> {
    plan.merge(into, metrics_partial(message)?).map_err(status)
}

fn status(error: MetricsError) -> Status {
    match error {
        MetricsError::Fetch(error) => unavailable(&error),
        MetricsError::Eval(error) => Status::invalid_argument(error.to_string()),
        // It is the query's own: RESOURCE_EXHAUSTED says that a queue is full, and a second attempt may help.
        MetricsError::TooLarge { .. } => Status::out_of_range(error.to_string()),
        MetricsError::Cancelled => Status::cancelled(error.to_string()),
        MetricsError::Foreign(_) => Status::internal(error.to_string()),
    }
}

fn message(partial: MetricsPartial) -> vivace::MetricsPartial {
    let truncated = partial.truncated;
    let leaves = partial.into_parts().into_iter().map(|(groups, exemplars)| MetricsLeaf {
        groups: groups.into_iter().map(group_message).collect(),
        exemplars: exemplars.into_iter().map(exemplar_message).collect(),
    });
    vivace::MetricsPartial { leaves: leaves.collect(), truncated }
}

fn group_message(group: Group) -> MetricsGroup {
    let cells = group.cells.into_iter().map(|cells| MetricsCells {
        exponent: cells.exponent,
        first: cells.first,
        counts: cells.counts,
        values: cells.values,
        errors: cells.errors,
    });
    MetricsGroup { key: group.key.iter().map(value_message).collect(), cells: cells.collect() }
}

fn exemplar_message(exemplar: Exemplar) -> vivace::MetricsExemplar {
    let labels = exemplar.labels.iter();
    vivace::MetricsExemplar {
        slot: exemplar.slot,
        trace_id: exemplar.trace_id.to_vec(),
        start_unix_nano: exemplar.start_ns,
        value: exemplar.value,
        exponent: exemplar.exponent,
        key: exemplar.key.iter().map(value_message).collect(),
        labels: labels
            .map(|(name, value)| MetricsLabel { name: name.to_string(), value: Some(value_message(value)) })
            .collect(),
    }
}

fn value_message(value: &Value) -> MetricsValue {
    use metrics_value::Value as Message;
    let value = match value {
        Value::Nil => return MetricsValue::default(),
        Value::Int(value) => Message::Int(*value),
        Value::Float(value) => Message::Float(*value),
        Value::Duration(nanos) => Message::DurationNanos(*nanos),
        Value::Str(text) => Message::Text(text.to_string()),
        Value::Bool(value) => Message::Flag(*value),
        Value::Status(status) => Message::Status(u32::from(*status as u8)),
        Value::Kind(kind) => Message::Kind(u32::from(*kind as u8)),
        Value::List(items) => Message::List(MetricsList { values: items.iter().map(value_message).collect() }),
    };
    MetricsValue { value: Some(value) }
}

/// The contribution that a message carries.
///
/// # Errors
/// INTERNAL when the message is not one that [`metrics`] makes.
fn metrics_partial(message: vivace::MetricsPartial) -> Result<MetricsPartial, Status> {
    let leaf = |leaf: MetricsLeaf| -> Result<_, Status> {
        let groups = leaf.groups.into_iter().map(|group| Group {
            key: group.key.into_iter().map(value).collect(),
            cells: group
                .cells
                .into_iter()
                .map(|cells| Cells {
                    exponent: cells.exponent,
                    first: cells.first,
                    counts: cells.counts,
                    values: cells.values,
                    errors: cells.errors,
                })
                .collect(),
        });
        let exemplars: Result<Vec<Exemplar>, Status> = leaf.exemplars.into_iter().map(exemplar).collect();
        Ok((groups.collect(), exemplars?))
    };
    let leaves: Result<Vec<_>, Status> = message.leaves.into_iter().map(leaf).collect();
    Ok(MetricsPartial::from_parts(leaves?, message.truncated))
}

fn exemplar(message: vivace::MetricsExemplar) -> Result<Exemplar, Status> {
    let trace_id = <[u8; 16]>::try_from(message.trace_id.as_slice())
        .map_err(|_wrong_length| Status::internal("partial result: the trace id of an exemplar has not 16 bytes"))?;
    let label = |label: MetricsLabel| (label.name.into(), label.value.map(value).unwrap_or_default());
    Ok(Exemplar {
        slot: message.slot,
        trace_id,
        start_ns: message.start_unix_nano,
        value: message.value,
        exponent: message.exponent,
        key: message.key.into_iter().map(value).collect(),
        labels: message.labels.into_iter().map(label).collect(),
    })
}

fn value(message: MetricsValue) -> Value {
    use metrics_value::Value as Message;
    match message.value {
        None => Value::Nil,
        Some(Message::Int(value)) => Value::Int(value),
        Some(Message::Float(value)) => Value::Float(value),
        Some(Message::DurationNanos(nanos)) => Value::Duration(nanos),
        Some(Message::Text(text)) => Value::Str(text.into()),
        Some(Message::Flag(value)) => Value::Bool(value),
        Some(Message::Status(code)) => Value::Status(SpanStatus::from_code(u8::try_from(code).unwrap_or(0))),
        Some(Message::Kind(code)) => Value::Kind(Kind::from_code(u8::try_from(code).unwrap_or(0))),
        Some(Message::List(list)) => Value::List(list.values.into_iter().map(value).collect()),
    }
}

/// The answer of a range query; `metrics` is left to the asker.
#[must_use]
pub fn range_response(result: MetricsResult) -> QueryRangeResponse {
    let (status, message) = completeness(result.truncated);
    QueryRangeResponse { series: result.series.into_iter().map(time_series).collect(), metrics: None, status, message }
}

/// The answer of an instant query; `metrics` is left to the asker.
#[must_use]
pub fn instant_response(result: MetricsResult) -> QueryInstantResponse {
    let (status, message) = completeness(result.truncated);
    let series = result.series.iter().filter_map(|series| {
        let (_, value) = *series.samples.first()?;
        Some(InstantSeries { labels: series.labels.iter().map(label).collect(), value })
    });
    QueryInstantResponse { series: series.collect(), metrics: None, status, message }
}

fn completeness(truncated: Option<String>) -> (i32, String) {
    match truncated {
        Some(message) => (PartialStatus::Partial.into(), message),
        None => (PartialStatus::Complete.into(), String::new()),
    }
}

fn time_series(series: MetricsSeries) -> TimeSeries {
    let exemplar = |exemplar: vivace_traceql::MetricsExemplar| tempopb::Exemplar {
        labels: exemplar.labels.iter().map(label).collect(),
        value: exemplar.value,
        timestamp_ms: exemplar.timestamp_ms,
    };
    TimeSeries {
        labels: series.labels.iter().map(label).collect(),
        samples: series
            .samples
            .iter()
            .map(|(timestamp_ms, value)| Sample { value: *value, timestamp_ms: *timestamp_ms })
            .collect(),
        exemplars: series.exemplars.into_iter().map(exemplar).collect(),
    }
}

/// Clients know a missing value as the text `nil`.
fn label((key, value): &Label) -> KeyValue {
    let value = any_value(value);
    KeyValue { key: key.to_string(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests;

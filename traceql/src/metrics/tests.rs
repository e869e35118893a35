//! Each function by values computed by hand; any division of the spans gives the same; columns give what one span at a
//! time gives.

use super::*;
use crate::{
    MemorySource, Query, Value,
    memory::{MemorySpan, MemoryTrace},
    plan::PlanError,
};

mod divided;
mod functions;

/// A millisecond, the unit of times in samples.
const MS: u64 = 1_000_000;

/// A range from 0, in milliseconds.
fn request(end: u64, step: u64) -> MetricsRequest {
    MetricsRequest { start_ns: 0, end_ns: end * MS, step_ns: step * MS, instant: false, exemplars: 0, max_series: 0 }
}

fn observe(plan: &MetricsPlan, source: &MemorySource, window: Window) -> MetricsPartial {
    let mut partial = plan.partial();
    plan.observe(source, window, &mut partial, &|| false).unwrap();
    partial
}

fn run(text: &str, request: &MetricsRequest, traces: Vec<MemoryTrace>) -> MetricsResult {
    let plan = MetricsPlan::new(&Query::parse(text).unwrap(), request).unwrap();
    plan.finish(observe(&plan, &MemorySource::new(traces, 2), Window::ALL))
}

/// Labels and values as one line per series; `-` where an interval has no value.
fn lines(result: &MetricsResult, request: &MetricsRequest) -> Vec<String> {
    let line = |series: &MetricsSeries| {
        let labels: Vec<String> =
            series.labels.iter().map(|(name, value)| format!("{name}={}", super::series::plain(value))).collect();
        let values: Vec<String> = (0..request.intervals())
            .map(|interval| {
                let time = request.timestamp_ms(interval);
                let sample = series.samples.iter().find(|(at, _)| *at == time);
                sample.map_or_else(|| "-".to_owned(), |(_, value)| value.to_string())
            })
            .collect();
        format!("{}: {}", labels.join(" "), values.join(" "))
    };
    result.series.iter().map(line).collect()
}

/// A trace of spans, each given by its start in milliseconds and the attributes that it has.
fn trace(number: u8, spans: &[(u64, &[(&str, Value)])]) -> MemoryTrace {
    let spans = spans.iter().zip(1_u8..).map(|((start, attributes), own)| MemorySpan {
        id: [0, 0, 0, 0, 0, 0, number, own],
        start_ns: start * MS,
        attributes: attributes.iter().map(|(key, value)| ((*key).into(), value.clone())).collect(),
        ..MemorySpan::default()
    });
    MemoryTrace { id: [number; 16], spans: spans.collect() }
}

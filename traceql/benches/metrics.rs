//! Metrics over four batches of 32 768 spans (20 services, 5 000 URLs, one hour) on one core.
//!
//! Figures are spans per second. What is measured is everything after reading: filter, intervals, groups, cells. A source
//! hands out its batches by copying columns, which is within the figure (some tenths of a millisecond per run).

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vivace_traceql::{
    Column, Cursor, Dictionary, FetchError, FetchSpec, FetchStats, Field, LoadSpec, Loaded, MetricsPlan,
    MetricsRequest, Query, Source, SpanBatch, SpanHandle, Str, TraceInfo, Window,
};

const SPANS: u32 = 32_768;
const PER_TRACE: u32 = 16;
const BATCHES: usize = 4;
const SECOND: u64 = 1_000_000_000;

/// Hands out the same batch a few times.
struct Repeated(SpanBatch);

struct Reading<'a> {
    batch: &'a SpanBatch,
    left: usize,
}

impl Source for Repeated {
    type Cursor<'a> = Reading<'a>;

    fn fetch(&self, _spec: &FetchSpec) -> Result<Reading<'_>, FetchError> {
        Ok(Reading { batch: &self.0, left: BATCHES })
    }
}

impl Cursor for Reading<'_> {
    fn next(&mut self) -> Result<Option<SpanBatch>, FetchError> {
        let more = self.left > 0;
        self.left -= usize::from(more);
        Ok(more.then(|| self.batch.clone()))
    }

    fn load(&mut self, _: &[u32], _: &[SpanHandle], _: &LoadSpec) -> Result<Loaded, FetchError> {
        Ok(Loaded::default())
    }

    fn stats(&self) -> FetchStats {
        FetchStats::default()
    }
}

fn texts(values: u32, step: u32) -> Column {
    let mut dict = Dictionary::default();
    for value in 0..values {
        dict.push(&format!("/some/path/of/value-{value}"));
    }
    Column::Str(Str { dict: Arc::new(dict), ids: (0..SPANS).map(|span| span * step % values).collect() })
}

fn column(field: &Field) -> Column {
    let ints = |of: &dyn Fn(u32) -> u64| Column::Int {
        values: (0..SPANS).map(|span| i64::try_from(of(span)).unwrap_or(0)).collect(),
        valid: None,
    };
    match field.to_string().as_str() {
        "resource.service.name" => texts(20, 7),
        "span.url" => texts(5000, 31),
        "span:startTime" => ints(&|span| u64::from(span) * 3600 * SECOND / u64::from(SPANS) + 1),
        "duration" => ints(&|span| u64::from(span % 1009) * 1_000_000),
        "status" => Column::Code((0..SPANS).map(|span| if span % 13 == 0 { 2 } else { 0 }).collect()),
        _ => ints(&|span| u64::from(span * 37 % 1000)),
    }
}

fn batch(fields: &[Field]) -> SpanBatch {
    SpanBatch {
        traces: (0..SPANS / PER_TRACE)
            .map(|trace| TraceInfo {
                id: u128::from(trace).to_be_bytes(),
                spans: trace * PER_TRACE..(trace + 1) * PER_TRACE,
                ..TraceInfo::default()
            })
            .collect(),
        handles: (0..SPANS).map(|span| SpanHandle(u64::from(span))).collect(),
        columns: fields.iter().map(column).collect(),
        ..SpanBatch::default()
    }
}

/// Learns which columns a plan asks for.
#[derive(Default)]
struct Asked(std::cell::RefCell<Vec<Field>>);

impl Source for Asked {
    type Cursor<'a> = Reading<'a>;

    fn fetch(&self, spec: &FetchSpec) -> Result<Reading<'_>, FetchError> {
        self.0.replace(spec.fields.clone());
        static NOTHING: std::sync::LazyLock<SpanBatch> = std::sync::LazyLock::new(SpanBatch::default);
        Ok(Reading { batch: &NOTHING, left: 0 })
    }
}

fn observe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Elements(u64::from(SPANS) * BATCHES as u64));
    for text in [
        "{ } | rate()",
        "{ } | rate() by (resource.service.name)",
        "{ status = error } | rate() by (resource.service.name)",
        "{ } | count_over_time() by (span.url)",
        "{ } | count_over_time() by (resource.service.name, span.url)",
        "{ } | avg_over_time(duration) by (resource.service.name)",
        "{ } | max_over_time(span.n)",
        "{ } | quantile_over_time(duration, .5, .9, .99) by (resource.service.name)",
    ] {
        let query = Query::parse(text).expect("benchmark queries are valid");
        let request = MetricsRequest {
            start_ns: 0,
            end_ns: 3600 * SECOND,
            step_ns: 15 * SECOND,
            instant: false,
            exemplars: 100,
            max_series: 0,
        };
        let plan = MetricsPlan::new(&query, &request).expect("benchmark queries are metrics");
        let asked = Asked::default();
        plan.observe(&asked, Window::ALL, &mut plan.partial(), &|| false).expect("nothing is read");
        let source = Repeated(batch(&asked.0.borrow()));
        group.bench_function(text, |bench| {
            bench.iter(|| {
                let mut partial = plan.partial();
                plan.observe(black_box(&source), Window::ALL, &mut partial, &|| false).expect("the batch fits");
                partial
            });
        });
    }
    group.finish();
}

criterion_group!(benches, observe);
criterion_main!(benches);

//! What reading costs: a trace by id, a search by one string over a block, and a search over live traces.
//!
//! The data is made here: 20 000 traces of 10 spans, 10 attributes a span, some 470 bytes a span; everything in memory, one thread.
//! Not in it: the object store, other columns, several row groups. Run with `cargo bench -p vivace-storage --bench read`.

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use uuid::Uuid;
use vivace_protocol::{
    TraceId,
    otlp::{
        common::{AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any},
        resource::Resource,
        trace::{ResourceSpans, ScopeSpans, Span, Status, TracesData},
    },
};
use vivace_storage::{
    BlockSource, BlockSpec, BlockWriter, DedicatedColumns, LiveSource, MemoryBlock, OpenBlock, find_trace,
};
use vivace_traceql::{
    CompareOp, Condition, Cursor, FetchSpec, Field, Intrinsic, Predicate, Scope, Source, Test, Value,
};

const TRACES: u64 = 20_000;
const SPANS: u64 = 10;

fn text(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Any::StringValue(value)) }), ..KeyValue::default() }
}

fn int(key: &str, value: i64) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Any::IntValue(value)) }), ..KeyValue::default() }
}

/// A number that looks random and is the same in every run.
fn mixed(seed: u64) -> u64 {
    let x = (seed ^ (seed >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    (x ^ (x >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d)
}

fn span(trace: u64, number: u64, id: TraceId) -> Span {
    let noise = mixed(trace * SPANS + number);
    Span {
        trace_id: id.0.to_vec(),
        span_id: (noise | 1).to_be_bytes().to_vec(),
        parent_span_id: if number == 0 { Vec::new() } else { (mixed(trace * SPANS) | 1).to_be_bytes().to_vec() },
        name: format!("GET /api/v1/resource/{}", noise % 50),
        kind: 2,
        start_time_unix_nano: 1_790_000_000_000_000_000 + trace * 1_000_000 + number * 1000,
        end_time_unix_nano: 1_790_000_000_000_000_000 + trace * 1_000_000 + number * 1000 + noise % 1_000_000,
        attributes: vec![
            text("http.request.method", ["GET", "PUT", "POST"][usize::try_from(noise % 3).unwrap_or(0)].into()),
            text("url.path", format!("/api/v1/resource/{}", noise % 500)),
            int("http.response.status_code", if noise.is_multiple_of(100) { 500 } else { 200 }),
            text("customer.id", format!("customer-{}", noise % 5000)),
            text("cache.outcome", if noise.is_multiple_of(7) { "miss" } else { "hit" }.into()),
            text("feature", format!("feature-{}", noise % 40)),
            int("retries", i64::from(noise.is_multiple_of(9))),
            text("peer", format!("10.0.{}.{}", noise % 200, noise % 251)),
            text("thread.name", format!("worker-{}", noise % 64)),
            int("payload.bytes", i64::try_from(noise % 100_000).unwrap_or(0)),
        ],
        status: Some(Status::default()),
        ..Span::default()
    }
}

fn traces() -> Vec<(TraceId, Bytes)> {
    let mut all: Vec<(TraceId, Bytes)> = (0..TRACES)
        .map(|trace| {
            let id = TraceId((u128::from(mixed(trace)) << 64 | u128::from(trace)).to_be_bytes());
            let spans = (0..SPANS).map(|number| span(trace, number, id)).collect();
            let resource = Resource {
                attributes: vec![
                    text("service.name", format!("service-{}", trace % 20)),
                    text("k8s.pod.name", format!("pod-{}", trace % 100)),
                ],
                ..Resource::default()
            };
            let scope = InstrumentationScope { name: "bench".into(), ..InstrumentationScope::default() };
            let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
            let batch = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
            (id, TracesData { resource_spans: vec![batch] }.encode_to_vec().into())
        })
        .collect();
    all.sort_by_key(|(id, _)| *id);
    all
}

fn block(traces: &[(TraceId, Bytes)]) -> OpenBlock {
    let spec = BlockSpec::new("bench", Uuid::from_u128(1), DedicatedColumns::defaults());
    let mut writer = BlockWriter::new(spec).expect("the compressor starts");
    for (id, trace) in traces {
        writer.add_trace(id.0, std::slice::from_ref(trace)).expect("the traces are sound");
    }
    let finished = writer.finish().expect("there are traces");
    let blooms = finished.blooms.into_iter().enumerate();
    let objects = blooms.map(|(number, bloom)| (format!("bloom-{number}"), bloom)).collect();
    let data: Vec<u8> = finished.data.into_iter().flatten().collect();
    OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), objects)))
        .expect("what was written can be read")
}

fn equals(field: Field, text: &str) -> FetchSpec {
    let condition = Condition { field: field.clone(), test: Test::Compare(CompareOp::Eq, Value::str(text)) };
    FetchSpec { spans: Predicate::Is(condition), ..FetchSpec::of(vec![field, Intrinsic::Duration.into()]) }
}

fn spans(source: &impl Source, spec: &FetchSpec) -> usize {
    let mut cursor = source.fetch(spec).expect("memory can be read");
    let mut count = 0;
    while let Some(batch) = cursor.next().expect("memory can be read") {
        count += batch.len();
    }
    count
}

fn benchmarks(c: &mut Criterion) {
    let traces = traces();
    let bytes: usize = traces.iter().map(|(_, trace)| trace.len()).sum();
    let block = Arc::new(block(&traces));
    println!("{} raw bytes a span, {} stored", bytes as u64 / (TRACES * SPANS), block.meta().size / (TRACES * SPANS));

    let mut at = 0;
    c.bench_function("trace by id", |b| {
        b.iter(|| {
            at = (at + 7919) % traces.len();
            black_box(find_trace(&block, traces[at].0).expect("memory can be read"))
        });
    });

    let source = BlockSource::new(block.clone());
    let live = LiveSource::new(traces.iter().map(|(id, trace)| (*id, vec![trace.clone()])));
    let attribute = |name: &str| Field::attribute(Scope::Span, name);
    let searches = [
        ("dedicated, one in 500", equals(attribute("url.path"), "/api/v1/resource/77")),
        ("generic, one in 5000", equals(attribute("customer.id"), "customer-77")),
        ("generic, one in 7", equals(attribute("cache.outcome"), "miss")),
        ("name, one in 50", equals(Intrinsic::Name.into(), "GET /api/v1/resource/7")),
        ("absent value", equals(attribute("customer.id"), "nobody")),
        ("all spans, two fields", FetchSpec::of(vec![attribute("url.path"), Intrinsic::Duration.into()])),
    ];
    for (name, spec) in &searches {
        let found = spans(&source, spec);
        let mut group = c.benchmark_group(format!("{name} ({found} spans)"));
        group.throughput(Throughput::Elements(TRACES * SPANS)).sample_size(10);
        group.bench_function("block", |b| b.iter(|| black_box(spans(&source, spec))));
        group.bench_function("live", |b| b.iter(|| black_box(spans(&live, spec))));
        group.finish();
    }

    let mut group = c.benchmark_group("all traces put together again");
    group.throughput(Throughput::Elements(TRACES * SPANS)).sample_size(10);
    group.bench_function("block", |b| {
        b.iter(|| vivace_storage::rows(&block).map(|row| row.map_or(0, |(_, trace)| trace.len())).sum::<usize>())
    });
    group.finish();
}

criterion_group!(read, benchmarks);
criterion_main!(read);

//! Parsing, and filtering one batch of 100 000 spans (1 000 traces) on one core.
//!
//! Figures are spans per second for the filters (criterion's throughput) and time per query for parsing. The batch is
//! warm in cache as far as it fits; columns are built outside the measurement.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vivace_traceql::{Column, Query, SearchPlan, SpanBatch, SpanHandle, Str, Structure, TraceInfo};

const SPANS: u32 = 100_000;
const PER_TRACE: u32 = 100;

fn batch(plan: &SearchPlan) -> SpanBatch {
    let columns = plan
        .spec(None)
        .fields
        .iter()
        .map(|field| match field.to_string().as_str() {
            "resource.service.name" => {
                let names: Vec<String> = (0..20).map(|n| format!("service-{n}")).collect();
                let pick = |span: u32| Some(names[(span * 7 % 20) as usize].as_str());
                Column::Str(Str::from_texts((0..SPANS).map(pick)))
            }
            "span.url" => {
                let names: Vec<String> = (0..5000).map(|n| format!("http://host/path/{n}?session={n}")).collect();
                let pick = |span: u32| Some(names[(span * 31 % 5000) as usize].as_str());
                Column::Str(Str::from_texts((0..SPANS).map(pick)))
            }
            "kind" => Column::Code((0..SPANS).map(|span| [1, 2, 3][(span % 3) as usize]).collect()),
            _ => Column::Int { values: (0..SPANS).map(|span| i64::from(span * 37 % 1000)).collect(), valid: None },
        })
        .collect();
    let in_trace = |span: u32| i32::try_from(span % PER_TRACE).unwrap_or(0);
    SpanBatch {
        traces: (0..SPANS / PER_TRACE)
            .map(|trace| TraceInfo { spans: trace * PER_TRACE..(trace + 1) * PER_TRACE, ..TraceInfo::default() })
            .collect(),
        handles: (0..SPANS).map(|span| SpanHandle(u64::from(span))).collect(),
        columns,
        structure: Some(Structure {
            left: (0..SPANS).map(|span| in_trace(span) + 1).collect(),
            right: (0..SPANS).map(|span| 2 * i32::try_from(PER_TRACE).unwrap_or(0) - in_trace(span)).collect(),
            parent: (0..SPANS).map(|span| if in_trace(span) == 0 { -1 } else { in_trace(span) }).collect(),
        }),
        ..SpanBatch::default()
    }
}

fn parse(criterion: &mut Criterion) {
    for text in [
        r#"{ resource.service.name = "shop" }"#,
        r#"{ resource.service.name = "shop" && span.http.status_code >= 500 && duration > 100ms } | count() > 2"#,
        "{ kind = server } >> { status = error } | rate() by (resource.service.name, name)",
    ] {
        criterion.bench_function(&format!("parse {text}"), |bench| bench.iter(|| Query::parse(black_box(text))));
    }
}

fn filter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(u64::from(SPANS)));
    for text in [
        r#"{ resource.service.name = "service-3" }"#,
        r#"{ resource.service.name != "service-3" && span.n > 500 }"#,
        r#"{ span.url =~ ".*session=1.*" }"#,
        "{ span.n + span.m > 900 }",
    ] {
        let query = Arc::new(Query::parse(text).expect("benchmark queries are valid"));
        let plan = SearchPlan::new(&query).expect("benchmark queries are searches");
        let batch = batch(&plan);
        let mut evaluator = plan.evaluator();
        group.bench_function(text, |bench| bench.iter(|| evaluator.first_filter(black_box(&batch))));
    }
    for text in
        ["{ span.n > 990 } | count() > 1", "{ kind = server } >> { span.n > 900 }", "{ } | by(kind) | avg(span.n) > 3"]
    {
        let query = Query::parse(text).expect("benchmark queries are valid");
        let plan = SearchPlan::new(&query).expect("benchmark queries are searches");
        let batch = batch(&plan);
        let mut evaluator = plan.evaluator();
        group
            .bench_function(format!("all stages {text}"), |bench| bench.iter(|| evaluator.evaluate(black_box(&batch))));
    }
    group.finish();
}

criterion_group!(benches, parse, filter);
criterion_main!(benches);

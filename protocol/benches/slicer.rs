//! Cost of turning a received export request into a record, per span.
//!
//! Matrix: the recorded request of the tests (401 spans of 446 bytes and 8.8 attributes on average, 29 traces, 20 resources), and a made
//! one of 512 equal spans with 13 attributes in 8 resources, 64 traces. Ways: `slice` alone, `slice` and encode, and for comparison
//! `prost` decode alone. Criterion reports elements (spans) a second; the reciprocal is the cost of a span.
//!
//! Caveats: one thread, warm caches, buffers reused. Reference figures stand in the crate's README.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use prost::Message as _;
use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
use vivace_protocol::otlp::common::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use vivace_protocol::otlp::resource::Resource;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span, Status};
use vivace_protocol::slicer::{Limits, count_spans, slice};

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn span(n: u64) -> Span {
    let mut trace_id = vec![7; 16];
    // Eight spans of a trace follow each other.
    trace_id[..8].copy_from_slice(&(n / 8 % 64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Span {
        trace_id,
        span_id: (n + 1).to_le_bytes().to_vec(),
        parent_span_id: (n / 2 + 1).to_le_bytes().to_vec(),
        name: "GET /api/checkout".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_795_178_836_701_627_644 + n,
        end_time_unix_nano: 1_795_178_836_746_168_530 + n,
        attributes: vec![
            text("url.full", "http://checkout:8080/api/shipping?session=f7a91ec1d08a7720"),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            text("network.protocol.version", "1.1"),
            text("app.user.id", "2e5a545f-0000-4000-8000-0086c5f1b7ba"),
            attribute("app.cart.value", Value::DoubleValue(92.95)),
            attribute("app.cache.hit", Value::BoolValue(false)),
            text("http.request.method", "PUT"),
            attribute("http.response.status_code", Value::IntValue(200)),
            text("server.address", "checkout"),
            attribute("server.port", Value::IntValue(8080)),
            text("http.route", "/api/shipping"),
            text("thread.name", "worker-4"),
            attribute("thread.id", Value::IntValue(i64::try_from(n % 64).unwrap_or(0))),
        ],
        status: Some(Status::default()),
        ..Span::default()
    }
}

fn made() -> Bytes {
    let resource_spans = (0..8).map(|r| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", "checkout"), text("k8s.pod.name", &format!("checkout-{r}"))],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope { name: "http".to_owned(), ..InstrumentationScope::default() }),
            spans: (0..64).map(|s| span(r * 64 + s)).collect(),
            schema_url: String::new(),
        }],
        schema_url: String::new(),
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec().into()
}

fn bench(c: &mut Criterion, name: &str, body: &Bytes) {
    let limits = Limits { max_attribute_bytes: 2048 };
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(count_spans(body).unwrap_or_default() as u64));
    group.bench_function("slice", |b| b.iter(|| slice(black_box(body), &limits).is_ok()));
    let mut buf = BytesMut::new();
    group.bench_function("slice_and_encode", |b| {
        b.iter(|| {
            buf.clear();
            if let Ok(sliced) = slice(black_box(body), &limits) {
                sliced.encode_push_bytes(false, &mut buf);
            }
            buf.len()
        });
    });
    group.bench_function("prost_decode", |b| {
        b.iter(|| ExportTraceServiceRequest::decode(black_box(body).clone()).is_ok());
    });
    group.finish();
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    bench(&mut c, "recorded", &Bytes::from_static(include_bytes!("../tests/fixtures/otlp-request.pb")));
    bench(&mut c, "made", &made());
    c.final_summary();
}

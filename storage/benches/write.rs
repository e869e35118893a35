//! Writing a block: nanoseconds a span for taking encoded traces apart, encoding and compressing, and bytes stored a span.
//!
//! Input: traces of 8 spans in two resources, spans of about 470 encoded bytes with 13 attributes: some of few values
//! (methods, status codes, routes), some of many (ids, addresses, sizes, queries). Everything runs on one core, nothing is
//! written to disk. The size is printed before the measurement, each column's with `VIVACE_BENCH_COLUMNS=1`.
//!
//! 2026-11-20, two virtual cores: 2.46 µs a span (407 000 spans a second on one core), 531 bytes a span encoded, 49.6 stored.

#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "the input is made here, so numbers are small and nothing fails"
)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;
use vivace_storage::{BlockSpec, BlockWriter, DedicatedColumns};

const TRACES: u64 = 10_000;
const SPANS: u64 = 8;

/// A small generator of numbers, so that every run has the same input.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(number: u64, content: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn fixed(number: u64, value: u64, out: &mut Vec<u8>) {
    varint(number << 3 | 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn attribute(number: u64, key: &str, encoded: &[u8], out: &mut Vec<u8>) {
    let mut pair = Vec::new();
    bytes(1, key.as_bytes(), &mut pair);
    bytes(2, encoded, &mut pair);
    bytes(number, &pair, out);
}

fn text(number: u64, key: &str, value: &str, out: &mut Vec<u8>) {
    let mut encoded = Vec::new();
    bytes(1, value.as_bytes(), &mut encoded);
    attribute(number, key, &encoded, out);
}

fn int(number: u64, key: &str, value: u64, out: &mut Vec<u8>) {
    let mut encoded = Vec::new();
    varint(3 << 3, &mut encoded);
    varint(value, &mut encoded);
    attribute(number, key, &encoded, out);
}

fn span(id: &[u8; 16], parent: Option<u64>, start: u64, n: &mut Numbers, out: &mut Vec<u8>) -> u64 {
    let own = n.next();
    let route = n.below(60);
    bytes(1, id, out);
    bytes(2, &own.to_be_bytes(), out);
    if let Some(parent) = parent {
        bytes(4, &parent.to_be_bytes(), out);
    }
    bytes(5, format!("GET /api/v1/resource-{route}/item").as_bytes(), out);
    varint(6 << 3, out);
    varint(1 + n.below(4), out);
    fixed(7, start, out);
    fixed(8, start + 100_000 + n.below(50_000_000), out);
    text(9, "http.request.method", ["GET", "POST", "PUT", "DELETE"][n.below(4) as usize], out);
    int(9, "http.response.status_code", [200, 200, 200, 201, 404, 500][n.below(6) as usize], out);
    text(9, "url.path", &format!("/api/v1/resource-{route}/{}", n.below(5_000)), out);
    text(9, "server.address", &format!("backend-{}.svc.cluster.local", n.below(30)), out);
    int(9, "server.port", 8_000 + n.below(5), out);
    text(9, "db.system", ["postgresql", "redis", "mysql"][n.below(3) as usize], out);
    text(9, "user.id", &format!("user-{:06}", n.below(20_000)), out);
    text(9, "customer.tier", ["free", "gold", "silver"][n.below(3) as usize], out);
    text(9, "thread.name", &format!("worker-{}", n.below(64)), out);
    int(9, "http.response.body.size", n.below(20_000), out);
    text(9, "network.protocol.version", "1.1", out);
    text(9, "feature.flag", &format!("flag-{}", n.below(12)), out);
    int(9, "retry.count", n.below(3), out);
    own
}

fn traces() -> Vec<([u8; 16], Vec<Bytes>)> {
    let mut n = Numbers(7);
    let mut ids: Vec<[u8; 16]> =
        (0..TRACES).map(|_| (u128::from(n.next()) << 64 | u128::from(n.next())).to_be_bytes()).collect();
    ids.sort_unstable();
    let begin = 1_795_000_000_000_000_000;
    ids.into_iter()
        .map(|id| {
            let start = begin + n.below(300_000_000_000);
            let (mut parents, mut parts) = (Vec::new(), Vec::new());
            for half in 0..2 {
                let service = n.below(20);
                let (mut resource, mut scope, mut spans) = (Vec::new(), Vec::new(), Vec::new());
                text(1, "service.name", &format!("service-{service}"), &mut resource);
                text(1, "k8s.namespace.name", "production", &mut resource);
                text(1, "k8s.pod.name", &format!("service-{service}-7d9f8b6c5-{:05x}", n.below(200)), &mut resource);
                text(1, "telemetry.sdk.language", "go", &mut resource);
                bytes(1, b"go.opentelemetry.io/contrib/instrumentation/net/http", &mut scope);
                bytes(1, &scope, &mut spans);
                for position in 0..SPANS / 2 {
                    let parent = (!parents.is_empty()).then(|| parents[n.below(parents.len() as u64) as usize]);
                    let mut encoded = Vec::new();
                    let offset = (half * 4 + position) * 3_000_000 + n.below(2_000_000);
                    parents.push(span(&id, parent, start + offset, &mut n, &mut encoded));
                    bytes(2, &encoded, &mut spans);
                }
                let (mut batch, mut part) = (Vec::new(), Vec::new());
                bytes(1, &resource, &mut batch);
                bytes(2, &spans, &mut batch);
                bytes(1, &batch, &mut part);
                parts.push(Bytes::from(part));
            }
            (id, parts)
        })
        .collect()
}

fn write_block(traces: &[([u8; 16], Vec<Bytes>)]) -> vivace_storage::FinishedBlock {
    let mut writer = BlockWriter::new(BlockSpec::new("t", Uuid::nil(), DedicatedColumns::defaults())).unwrap();
    for (id, parts) in traces {
        writer.add_trace(*id, parts).unwrap();
    }
    writer.finish().unwrap()
}

fn write(c: &mut Criterion) {
    let traces = traces();
    let spans = TRACES * SPANS;
    let raw: usize = traces.iter().flat_map(|(_, parts)| parts).map(Bytes::len).sum();
    let block = write_block(&traces);
    println!(
        "{:.1} bytes a span encoded, {:.1} stored",
        raw as f64 / spans as f64,
        block.meta.size as f64 / spans as f64
    );
    if std::env::var_os("VIVACE_BENCH_COLUMNS").is_some() {
        print_columns(&block.data.concat(), spans);
    }
    let mut group = c.benchmark_group("write");
    group.throughput(Throughput::Elements(spans)).sample_size(10);
    group.bench_function("block", |b| {
        b.iter_batched(|| (), |()| black_box(write_block(&traces)), BatchSize::PerIteration)
    });
    group.finish();
}

fn print_columns(data: &[u8], spans: u64) {
    use parquet::file::{reader::FileReader, serialized_reader::SerializedFileReader};
    let file = SerializedFileReader::new(Bytes::copy_from_slice(data)).unwrap();
    for chunk in file.metadata().row_groups().iter().flat_map(|group| group.columns()) {
        let per_span = |size: i64| size as f64 / spans as f64;
        let (stored, before) = (per_span(chunk.compressed_size()), per_span(chunk.uncompressed_size()));
        println!("{stored:8.3} {before:8.3} {}", chunk.column_path());
    }
}

criterion_group!(benches, write);
criterion_main!(benches);

//! The block-builder's commits in a bucket.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use vivace_block_builder::{Config, Limits, Setup, Source};
use vivace_integration::process::binary;
use vivace_log::{Budget, GroupOffsets, Log, LogId, MemoryGroupOffsets, MemoryLog, Partition, Record};
use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::slicer::{Limits as SliceLimits, slice};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Bounds, Compute, Placement, Rng, Supervisor, SystemClock};
use vivace_storage::{Backend, BlockKey, BlockOpener, BloomSpec, DedicatedColumn, rows};

use super::{BUCKET, config, open, runtime, server};
use crate::crash::now_ns;

const LONG: Duration = Duration::from_secs(60);
const PARTITION: Partition = Partition(0);

struct NoLimits;

impl Limits for NoLimits {
    fn max_bytes_per_trace(&self, _tenant: &TenantId) -> usize {
        0
    }

    fn dedicated_columns(&self, _tenant: &TenantId) -> Vec<DedicatedColumn> {
        Vec::new()
    }
}

/// A record with one span of trace `n`.
fn record(n: u8) -> Record {
    use prost::Message;
    let id = n + 1;
    let span = Span { trace_id: vec![id; 16], span_id: vec![id; 8], name: format!("span {n}"), ..Span::default() };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    let request = ExportTraceServiceRequest { resource_spans: vec![resource] };
    let body = Bytes::from(request.encode_to_vec());
    let mut value = BytesMut::new();
    slice(&body, &SliceLimits { max_attribute_bytes: 0 }).unwrap().encode_push_bytes(false, &mut value);
    let timestamp_ms = i64::try_from(now_ns() / 1_000_000).unwrap();
    Record { tenant: Bytes::from_static(b"a"), value: value.freeze(), headers: Vec::new(), timestamp_ms }
}

/// A block-builder of partition 0 whose group knows nothing.
fn builder(log: &MemoryLog, backend: &Backend, seed: u64) -> (Supervisor, Arc<MemoryGroupOffsets>) {
    let offsets = Arc::new(MemoryGroupOffsets::new());
    let source = Source { log: Arc::new(log.clone()), offsets: offsets.clone() };
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let setup = Setup {
        config: Config { consume_cycle_duration: Duration::from_millis(50).into(), ..Config::default() },
        partitions: vec![0],
        row_group_bytes: 100_000_000,
        bloom: BloomSpec { shard_bytes: 2048, false_positives: 0.05 },
        backend: backend.clone(),
        connect: Arc::new(move || Box::pin(std::future::ready(Ok(source.clone())))),
        limits: Arc::new(NoLimits),
        compute: Compute::new("t", 1, Bounds::messages(64)).unwrap(),
        rng: Rng::seeded(seed),
        metrics: Registry::new(),
        hook: None,
    };
    vivace_block_builder::add(&root, setup, Placement::Here);
    root.start();
    (root, offsets)
}

async fn committed(offsets: &MemoryGroupOffsets, offset: u64) {
    let reached = async {
        while offsets.committed(PARTITION).await.unwrap().is_none_or(|at| at.0 < offset) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, reached).await.expect("the group commits");
}

#[test]
fn two_block_builders_race_in_a_bucket_and_every_record_is_in_one_block() {
    let Some(server) = server() else { return };
    // The store's requests run here; the builders on the test's own thread.
    let requests = runtime();
    let backend = {
        let _here = requests.enter();
        open(&config(&server, "builders"))
    };
    let log = MemoryLog::new(LogId::from_random([7; 16]), Budget::new(1 << 30, LONG));
    actix_rt::System::new().block_on(async {
        for n in 0..30 {
            log.append(PARTITION, record(n)).await.unwrap();
        }
        let (one, first) = builder(&log, &backend, 1);
        let (two, second) = builder(&log, &backend, 2);
        for n in 30..60 {
            log.append(PARTITION, record(n)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        committed(&first, 60).await;
        committed(&second, 60).await;
        assert!(one.drain(LONG).await && two.drain(LONG).await);
    });
    let opener = BlockOpener::new(backend.clone(), requests.handle().clone());
    let listed = requests.block_on(backend.list_blocks("a")).unwrap();
    assert_eq!(listed.incomplete, [], "who loses deletes what it wrote");
    let mut found: Vec<TraceId> = Vec::new();
    for block in listed.live {
        let meta = requests.block_on(backend.read_meta(&BlockKey::new("a", block))).unwrap();
        found.extend(rows(&opener.open(&meta).unwrap()).map(|row| row.unwrap().0));
    }
    let distinct: BTreeSet<TraceId> = found.iter().copied().collect();
    assert_eq!((found.len(), distinct.len()), (60, 60));
    // The same, proven from outside.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("vivace.yaml");
    std::fs::write(&file, "target: block-builder\n").unwrap();
    let audit = Command::new(binary().unwrap())
        .args(["blocks", "audit", &format!("-config.file={}", file.display())])
        .envs(server.environment(BUCKET, "builders"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&audit.stdout);
    assert!(audit.status.success(), "{said}{}", String::from_utf8_lossy(&audit.stderr));
    assert!(said.contains("partition 0: offsets 0 to 60") && said.contains("proven: "), "{said}");
}

//! The whole block-builder with a log and a bucket in memory: sections, restarts, poison, races, the end of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;
use vivace_log::{
    Budget, GroupOffsets, Log, LogId, MemoryGroupOffsets, MemoryLog, Offset, Partition, Record, Sequence,
};
use vivace_protocol::TenantId;
use vivace_protocol::slicer::{Limits as SliceLimits, slice};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Bounds, Clock, Compute, Placement, Rng, Supervisor, SystemClock};
use vivace_storage::{AuditRules, Backend, BloomSpec, Commit, CommitName, DedicatedColumn, Timestamp, audit};

use crate::{ApplyHook, Config, Limits, Setup, Source};

const LONG: Duration = Duration::from_secs(30);

struct NoLimits;

impl Limits for NoLimits {
    fn max_bytes_per_trace(&self, _tenant: &TenantId) -> usize {
        0
    }

    fn dedicated_columns(&self, _tenant: &TenantId) -> Vec<DedicatedColumn> {
        Vec::new()
    }
}

/// A record of tenant `tenant` with one span of trace `n`.
fn record(tenant: &'static str, n: u8) -> Record {
    use prost::Message;
    use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    let id = n + 1;
    let span = Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: format!("span {n}"),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 2_000,
        ..Span::default()
    };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() }],
    };
    let body = Bytes::from(request.encode_to_vec());
    let sliced = slice(&body, &SliceLimits { max_attribute_bytes: 0 }).unwrap();
    let mut value = BytesMut::new();
    sliced.encode_push_bytes(false, &mut value);
    let timestamp_ms = i64::try_from(SystemClock.unix().as_millis()).unwrap();
    Record { tenant: Bytes::from_static(tenant.as_bytes()), value: value.freeze(), headers: Vec::new(), timestamp_ms }
}

/// What outlives a process.
#[derive(Clone)]
struct World {
    log: MemoryLog,
    offsets: Arc<MemoryGroupOffsets>,
    backend: Backend,
}

impl World {
    fn new() -> Self {
        Self::with(Backend::memory())
    }

    fn with(backend: Backend) -> Self {
        let log = MemoryLog::new(LogId::from_random([7; 16]), Budget::new(1 << 30, LONG));
        Self { log, offsets: Arc::default(), backend }
    }

    fn start(&self, partitions: &[i32], hook: Option<ApplyHook>) -> Process {
        let registry = Registry::new();
        let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
        let source = Source { log: Arc::new(self.log.clone()), offsets: self.offsets.clone() };
        let config = Config { consume_cycle_duration: Duration::from_millis(20).into(), ..Config::default() };
        let setup = Setup {
            config,
            partitions: partitions.to_vec(),
            row_group_bytes: 100_000_000,
            bloom: BloomSpec { shard_bytes: 2048, false_positives: 0.05 },
            backend: self.backend.clone(),
            connect: Arc::new(move || Box::pin(std::future::ready(Ok(source.clone())))),
            limits: Arc::new(NoLimits),
            compute: Compute::new("t", 1, Bounds::messages(64)).unwrap(),
            rng: Rng::seeded(1),
            metrics: registry.clone(),
            hook,
        };
        crate::add(&root, setup, Placement::Here);
        root.start();
        Process { root, registry }
    }

    async fn append(&self, partition: i32, record: Record) -> u64 {
        self.log.append(Partition(partition), record).await.unwrap().offset.0
    }

    /// Waits until the group has committed this offset.
    async fn committed(&self, partition: i32, offset: u64) {
        let reached = async {
            while self.offsets.committed(Partition(partition)).await.unwrap().is_none_or(|at| at.0 < offset) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, reached).await.expect("the group commits");
    }

    async fn commits(&self) -> Vec<Commit> {
        let mut commits = Vec::new();
        for name in self.backend.list_commits().await.unwrap().keys() {
            commits.push(self.backend.read_commit(name).await.unwrap().unwrap());
        }
        commits
    }

    /// Traces in live blocks of a tenant, every chain proven.
    async fn traces(&self, tenant: &str) -> u64 {
        let rules = AuditRules { now: Timestamp(0), merged_kept: LONG };
        let found = audit(&self.backend, rules).await.unwrap();
        assert!(found.is_proven(), "{found:?}");
        assert_eq!(found.chains.iter().map(|chain| chain.incomplete).sum::<usize>(), 0);
        let mut traces = 0;
        for block in self.backend.list_blocks(tenant).await.unwrap().live {
            let key = vivace_storage::BlockKey::new(tenant, block);
            traces += self.backend.read_meta(&key).await.unwrap().total_objects;
        }
        traces
    }
}

struct Process {
    root: Supervisor,
    registry: Registry,
}

impl Process {
    async fn stop(self) {
        assert!(self.root.drain(LONG).await);
    }
}

fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

#[test]
fn records_of_every_partition_and_tenant_become_blocks_once_over_restarts() {
    run(async {
        let world = World::new();
        for round in 0..3 {
            let process = world.start(&[0, 1], None);
            for n in 0..10 {
                world.append(0, record("a", 20 * round + n)).await;
                world.append(1, record("b", 20 * round + n)).await;
            }
            for partition in [0, 1] {
                world.committed(partition, 10 * u64::from(round) + 10).await;
            }
            process.stop().await;
        }
        assert_eq!((world.traces("a").await, world.traces("b").await), (30, 30));
        // A group that has forgotten everything changes nothing.
        let forgetful = World { offsets: Arc::default(), ..world.clone() };
        let process = forgetful.start(&[0, 1], None);
        forgetful.append(0, record("a", 99)).await;
        forgetful.committed(0, 31).await;
        process.stop().await;
        assert_eq!((world.traces("a").await, world.traces("b").await), (31, 30));
    });
}

#[test]
fn copies_of_producers_count_once_also_over_a_restart() {
    run(async {
        let world = World::new();
        let numbered = |n: u8| {
            let header = Sequence { session: 9, number: u64::from(n) }.to_header();
            Record { headers: vec![header], ..record("a", n) }
        };
        let process = world.start(&[0], None);
        for n in [1, 2, 1, 3] {
            world.append(0, numbered(n)).await;
        }
        world.committed(0, 4).await;
        process.stop().await;
        let process = world.start(&[0], None);
        for n in [3, 2, 4] {
            world.append(0, numbered(n)).await;
        }
        world.committed(0, 7).await;
        assert!(process.registry.render().contains("vivace_block_builder_duplicate_records_total 2"));
        process.stop().await;
        assert_eq!(world.traces("a").await, 4);
    });
}

#[test]
fn poison_is_set_aside_with_its_offset_and_the_rest_goes_on() {
    run(async {
        let world = World::new();
        let hook: ApplyHook = Arc::new(|offset, _| assert_ne!(offset, 2, "planted"));
        let mut broken_trace = record("a", 3);
        // A record that reads, with a trace that does not: field 2 holds one byte that is no message.
        let mut value = vec![0x12, 1, 0xff, 0x1a, 16];
        value.extend([8; 16]);
        broken_trace.value = value.into();
        let nonsense = Record { value: Bytes::from_static(b"\xff\xff"), ..record("a", 4) };
        let no_tenant = Record { tenant: Bytes::from_static(b"\xff"), ..record("a", 5) };
        for record in [record("a", 0), nonsense, record("a", 2), broken_trace, no_tenant, record("a", 6)] {
            world.append(0, record).await;
        }
        let process = world.start(&[0], Some(hook));
        world.committed(0, 6).await;
        process.stop().await;
        let mut aside: Vec<(u64, String)> = world
            .commits()
            .await
            .into_iter()
            .flat_map(|commit| commit.quarantined)
            .map(|q| (q.offset, q.reason))
            .collect();
        aside.sort();
        let offsets: Vec<u64> = aside.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, [1, 2, 3, 4], "{aside:?}");
        assert!(aside[1].1.contains("panicked twice") && aside[2].1.contains("not well-formed"), "{aside:?}");
        assert_eq!(world.traces("a").await, 2);
    });
}

#[test]
fn two_builders_of_one_partition_write_every_record_once() {
    run(async {
        let world = World::new();
        for n in 0..40 {
            world.append(0, record("a", n)).await;
        }
        let other = World { offsets: Arc::default(), ..world.clone() };
        let (one, two) = (world.start(&[0], None), other.start(&[0], None));
        for n in 40..80 {
            world.append(0, record("a", n)).await;
            tokio::task::yield_now().await;
        }
        world.committed(0, 80).await;
        other.committed(0, 80).await;
        one.stop().await;
        two.stop().await;
        assert_eq!(world.traces("a").await, 80);
        let listed = world.backend.list_blocks("a").await.unwrap();
        assert_eq!(listed.incomplete, [], "who loses deletes what it wrote");
    });
}

#[test]
fn a_commit_whose_metadata_was_never_written_is_completed_at_the_start() {
    run(async {
        let world = World::new();
        let process = world.start(&[0], None);
        world.append(0, record("a", 1)).await;
        world.committed(0, 1).await;
        process.stop().await;
        let block = world.commits().await[0].blocks[0].clone();
        let key = vivace_storage::BlockKey::new("a", block.block_id);
        world.backend.delete(vivace_storage::Place::Block(&key, "meta.json")).await.unwrap();
        let process = world.start(&[0], None);
        world.append(0, record("a", 2)).await;
        world.committed(0, 2).await;
        process.stop().await;
        assert_eq!(world.traces("a").await, 2);
    });
}

#[test]
fn what_the_log_has_lost_is_named_in_the_chain() {
    run(async {
        let world = World::new();
        let process = world.start(&[0], None);
        world.append(0, record("a", 1)).await;
        world.committed(0, 1).await;
        process.stop().await;
        for n in 2..6 {
            world.append(0, record("a", n)).await;
        }
        world.log.reclaim(Partition(0), Offset(4)).await.unwrap();
        let process = world.start(&[0], None);
        world.committed(0, 5).await;
        process.stop().await;
        let lost: Vec<(u64, u64)> = world
            .commits()
            .await
            .into_iter()
            .flat_map(|commit| commit.lost)
            .map(|lost| (lost.first, lost.end))
            .collect();
        assert_eq!(lost, [(1, 4)]);
        assert_eq!(world.traces("a").await, 2);
    });
}

#[test]
fn another_builders_section_is_accepted_wherever_it_ends() {
    run(async {
        let world = World::new();
        for n in 0..5 {
            world.append(0, record("a", n)).await;
        }
        // Someone has committed [0, 3) already, between our start and our first commit: planted while the first record is filed.
        let (backend, planted) = (world.backend.clone(), Arc::new(AtomicUsize::new(0)));
        let log_id = world.log.id().to_string();
        let hook: ApplyHook = Arc::new(move |_, _| {
            if planted.fetch_add(1, Ordering::SeqCst) == 0 {
                let name = CommitName { log_id: log_id.clone(), partition: 0, first: 0 };
                let commit = Commit::new(name, 3, Uuid::from_u128(77));
                let created = futures::executor::block_on(backend.create_commit(&commit));
                assert!(created.unwrap());
            }
        });
        let process = world.start(&[0], Some(hook));
        world.committed(0, 5).await;
        assert!(process.registry.render().contains(r#"vivace_block_builder_commits_total{outcome="lost"} 1"#));
        process.stop().await;
        // The three that the other one "wrote" are in no block here.
        assert_eq!(world.traces("a").await, 2);
        assert_eq!(world.backend.list_blocks("a").await.unwrap().incomplete, []);
    });
}

#[test]
fn the_same_holds_on_local_disk() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let world = World::with(Backend::local(folder.path()).unwrap());
        for n in 0..20 {
            world.append(0, record("a", n)).await;
        }
        let other = World { offsets: Arc::default(), ..world.clone() };
        let (one, two) = (world.start(&[0], None), other.start(&[0], None));
        world.committed(0, 20).await;
        other.committed(0, 20).await;
        one.stop().await;
        two.stop().await;
        assert_eq!(world.traces("a").await, 20);
    });
}

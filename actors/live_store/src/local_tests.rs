//! The live-store of its own process with a log in memory and a real folder: crashes, refills, lag, retention, poison, expiry.

mod catch_up;
mod pages;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tonic::Code;
use vivace_log::{Budget, Error as LogError, Log, LogId, MemoryLog, Offset, Record, Sequence};
use vivace_protocol::vivace::{FindTraceRequest, TagNamesJob, TagValuesJob};
use vivace_runtime::config::GoDuration;
use vivace_runtime::{Clock, FakeClock, SystemClock};

use self::world::{Gate, Kafka, Life, eager, killed, lazy, poison};
use crate::Config;
use crate::tests::{LONG, PARTITION, piece, record, run};

#[test]
fn a_stop_leaves_everything_in_local_blocks_and_committed_and_a_restart_reads_nothing_again() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        kafka.write(1..=3).await;
        life.sees(3).await;
        assert_eq!(life.found(1..=4).await, [1, 1, 1, 0]);
        life.shows("tempo_live_store_partition_owned{partition=\"0\",zone=\"live-store-zone-a\"} 1");
        kafka.committed.reaches(0).await;
        assert_eq!(kafka.committed.get(), Some(0), "nothing of it is on the disk");
        let registry = life.registry.clone();
        life.stop().await;
        assert_eq!(kafka.committed.get(), Some(3));
        assert!(
            registry
                .render()
                .contains("tempo_live_store_partition_owned{partition=\"0\",zone=\"live-store-zone-a\"} 0")
        );
    });
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        kafka.write([4]).await;
        life.sees(1).await;
        assert_eq!(*life.seen.borrow(), 1, "only what came since is read");
        assert_eq!(life.found(1..=4).await, [1, 1, 1, 1]);
        assert_eq!(life.search().await.unwrap().0, ["span 1", "span 2", "span 3", "span 4"]);
        assert_eq!(life.spans().await, 4);
        life.stop().await;
    });
}

#[test]
fn a_kill_at_any_moment_loses_nothing_and_doubles_nothing() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    for round in 0..6u8 {
        killed(async {
            // Every other life makes a block of each record, so that it dies somewhere between slices and blocks.
            let config = if round % 2 == 0 { eager() } else { lazy() };
            let mut life = Life::start(dir.path(), &kafka, config);
            kafka.write(10 * round + 1..10 * round + 6).await;
            life.sees(5).await;
            if round == 2 {
                kafka.committed.reaches(u64::from(round) * 5 + 3).await;
            }
            life
        });
    }
    run(async {
        let life = Life::start(dir.path(), &kafka, lazy());
        kafka.write([100]).await;
        let mut life = life;
        let end = 31;
        while life.observed().await["next_offset"] != end {
            tokio::task::yield_now().await;
        }
        let all: Vec<u8> = (0..6).flat_map(|round| 10 * round + 1..10 * round + 6).chain([100]).collect();
        assert_eq!(life.found(all.iter().copied()).await, vec![1; all.len()]);
        assert_eq!(life.spans().await, 31);
        life.sees(1).await;
        life.stop().await;
        assert_eq!(kafka.committed.get(), Some(31));
    });
}

#[test]
fn head_and_local_blocks_answer_every_kind_of_question_as_one() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let mut life = Life::start(dir.path(), &kafka, eager());
        for (trace, span) in [(1, 1), (2, 2), (1, 11)] {
            kafka.append(piece(trace, span)).await;
        }
        life.sees(3).await;
        kafka.committed.reaches(3).await;
        life.stop().await;
    });
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        for (trace, span) in [(1, 12), (3, 3)] {
            kafka.append(piece(trace, span)).await;
        }
        life.sees(2).await;
        // The first trace has pieces in blocks and in the head.
        let (parts, _) = life.find(1).await;
        assert!(parts >= 2, "{parts}");
        let (traces, coverage) = life.search().await.unwrap();
        assert_eq!((coverage.total, coverage.read), (1, 1));
        assert!(coverage.newest_applied_unix_nano > 1_600_000_000_000_000_000);
        let mut named = traces.clone();
        named.dedup();
        assert_eq!(named, ["span 1", "span 2", "span 3"]);
        assert_eq!(life.spans().await, 5);
        let tenant = || "single-tenant".to_owned();
        let job = TagValuesJob { tenant: tenant(), tag: "name".into(), max_values: 10, ..TagValuesJob::default() };
        let reply = life.live.tag_values.call(job, LONG).await.unwrap();
        let values: Vec<_> = reply.values.iter().map(|value| value.value.as_str()).collect();
        assert_eq!(values, ["span 1", "span 2", "span 3"]);
        assert_eq!(reply.coverage.unwrap().read, 1);
        let job = TagNamesJob { tenant: tenant(), ..TagNamesJob::default() };
        assert_eq!(life.live.tag_names.call(job, LONG).await.unwrap().coverage.unwrap().read, 1);
        let other = FindTraceRequest { tenant: "other".into(), trace_id: vec![1; 16], ..FindTraceRequest::default() };
        let batches: Vec<_> = life.live.find.call(other, LONG).await.unwrap().collect().await;
        assert_eq!(batches.len(), 1, "nothing but the coverage");
        life.stop().await;
    });
}

#[test]
fn what_a_producer_wrote_twice_is_there_once_also_after_a_kill() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    let numbered =
        |n: u8| Record { headers: vec![Sequence { session: 5, number: u64::from(n) }.to_header()], ..record(n) };
    killed(async {
        let mut life = Life::start(dir.path(), &kafka, eager());
        for n in [1, 1, 2, 2] {
            kafka.append(numbered(n)).await;
        }
        kafka.committed.reaches(4).await;
        assert_eq!(life.found(1..=2).await, [1, 1]);
        life.sees(2).await;
        life.shows("vivace_live_store_duplicate_records_total 2");
        life
    });
    run(async {
        let life = Life::start(dir.path(), &kafka, lazy());
        for n in [2, 3, 1] {
            kafka.append(numbered(n)).await;
        }
        while life.observed().await["next_offset"] != 7 {
            tokio::task::yield_now().await;
        }
        assert_eq!(life.found(1..=3).await, [1, 1, 1]);
        life.stop().await;
    });
}

#[test]
fn before_the_replay_has_passed_nothing_is_just_not_found() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        kafka.write(1..=3).await;
        kafka.gate.hold(true);
        let strict = Config { readiness_target_lag: GoDuration::secs(5), ..lazy() };
        let mut life = Life::start(dir.path(), &kafka, strict);
        while life.observed().await["reads_the_log"] != true {
            tokio::task::yield_now().await;
        }
        let (parts, coverage) = life.find(1).await;
        assert_eq!((parts, coverage.total, coverage.read), (0, 1, 0));
        assert_eq!(coverage.skipped[0].what, "partition 0");
        assert!(coverage.skipped[0].reason.contains("3 records"), "{coverage:?}");
        let refused = life.search().await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("cannot guarantee complete results"), "{refused}");
        life.shows("tempo_live_store_lagged_requests_total{route=\"SearchRecent\"} 1");
        kafka.gate.hold(false);
        life.sees(3).await;
        assert_eq!(life.found(1..=3).await, [1, 1, 1]);
        assert_eq!(life.search().await.unwrap().0.len(), 3);
        life.stop().await;
    });
}

#[test]
fn with_a_lag_searches_answer_what_is_there_where_that_is_wanted() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        kafka.write([1]).await;
        kafka.gate.hold(true);
        let life = Life::start(dir.path(), &kafka, Config { fail_on_high_lag: false, ..lazy() });
        while life.observed().await["reads_the_log"] != true {
            tokio::task::yield_now().await;
        }
        let (traces, coverage) = life.search().await.unwrap();
        assert_eq!((traces.len(), coverage.total, coverage.read), (0, 1, 0));
        assert!(coverage.skipped[0].reason.contains("lags"), "{coverage:?}");
        life.stop().await;
    });
}

#[test]
fn readiness_waits_for_the_target_lag_or_for_its_patience() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    let config =
        || Config { readiness_target_lag: GoDuration::secs(5), readiness_max_wait: GoDuration::minutes(1), ..lazy() };
    run(async {
        // Far more than count as none.
        for _ in 0..1_200 {
            kafka.append(record(1)).await;
        }
        kafka.gate.hold(true);
        let clock = FakeClock::at(SystemClock.unix());
        let life = Life::start_at(dir.path(), &kafka, config(), Arc::new(clock.clone()), |_| ());
        while life.observed().await["reads_the_log"] != true {
            tokio::task::yield_now().await;
        }
        life.shows("tempo_live_store_ready 0");
        clock.advance(Duration::from_secs(2));
        life.observed().await;
        assert_eq!(life.live.readiness.not_ready().as_deref(), Some("live-store is starting"));
        clock.advance(Duration::from_secs(60));
        tokio::time::timeout(LONG, life.live.readiness.started()).await.unwrap();
        assert_eq!(life.live.readiness.not_ready(), None);
        life.shows("tempo_live_store_ready 1");
        let readiness = life.live.readiness.clone();
        life.stop().await;
        assert_eq!(readiness.not_ready().as_deref(), Some("live-store is stopping"));
    });
    run(async {
        kafka.gate.hold(false);
        let clock = FakeClock::at(SystemClock.unix());
        let mut life = Life::start_at(dir.path(), &kafka, config(), Arc::new(clock.clone()), |_| ());
        life.sees(1_200).await;
        clock.advance(Duration::from_secs(1));
        tokio::time::timeout(LONG, life.live.readiness.started()).await.unwrap();
        life.stop().await;
    });
}

#[test]
fn an_empty_disk_is_filled_again_and_what_is_too_old_is_passed_over() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    let aged = |n: u8, minutes: i64| Record { timestamp_ms: record(n).timestamp_ms - minutes * 60_000, ..record(n) };
    run(async {
        // Kept are 20 minutes, looked back is over 40.
        for (n, minutes) in [(1, 50), (2, 30), (3, 10), (4, 0)] {
            kafka.append(aged(n, minutes)).await;
        }
        kafka.committed.0.send_replace(Some(4));
        let mut life = Life::start(dir.path(), &kafka, lazy());
        life.sees(2).await;
        assert_eq!(life.found(1..=4).await, [0, 0, 1, 1]);
        life.shows("tempo_live_store_records_dropped_total{tenant=\"single-tenant\",reason=\"too_old\"} 1");
        life.shows("tempo_live_store_records_processed_total{tenant=\"single-tenant\"} 2");
        life.stop().await;
    });
    // A partition that is given up: what was committed lies with whoever had it.
    let (other, kafka) = (tempfile::tempdir().unwrap(), kafka);
    run(async {
        kafka.inactive.store(true, Ordering::SeqCst);
        kafka.committed.0.send_replace(Some(3));
        let mut life = Life::start(other.path(), &kafka, lazy());
        life.sees(1).await;
        assert_eq!(life.found(1..=4).await, [0, 0, 0, 1]);
        life.stop().await;
    });
}

#[test]
fn a_local_block_that_is_gone_makes_the_disk_an_empty_one() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let mut life = Life::start(dir.path(), &kafka, eager());
        kafka.write(1..=3).await;
        life.sees(3).await;
        kafka.committed.reaches(3).await;
        life.stop().await;
    });
    let tenant = dir.path().join("blocks/0/single-tenant");
    let block = std::fs::read_dir(&tenant).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(block.join("data.parquet")).unwrap();
    // What an interrupted writer left behind goes.
    let half = tenant.join("11111111-1111-4111-8111-111111111111");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("data.parquet"), "half").unwrap();
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        life.sees(3).await;
        assert_eq!(life.found(1..=3).await, [1, 1, 1]);
        assert_eq!(life.spans().await, 3);
        assert!(!half.exists() && !block.exists());
        life.stop().await;
    });
}

#[test]
fn a_poison_record_is_set_aside_and_the_rest_goes_on() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let life = Life::start_at(dir.path(), &kafka, lazy(), Arc::new(SystemClock), poison(1));
        kafka.write([1, 2]).await;
        kafka.append(Record { value: bytes::Bytes::from_static(b"\xff\xff\xff"), ..record(3) }).await;
        kafka.write([4]).await;
        while life.observed().await["next_offset"] != 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(life.found([1, 2, 4]).await, [1, 0, 1]);
        let observed = life.observed().await;
        let aside = observed["quarantined"].as_array().unwrap();
        assert_eq!(aside.len(), 2, "{observed}");
        assert!(aside[0].to_string().contains("panicked twice"), "{observed}");
        life.shows("tempo_live_store_records_dropped_total{tenant=\"single-tenant\",reason=\"decoding_failed\"} 1");
        life.stop().await;
    });
}

#[test]
fn a_trace_that_no_block_can_hold_stops_no_other() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let life = Life::start(dir.path(), &kafka, eager());
        // A PushBytesRequest that is well-formed, with a trace that is not.
        let broken = [&[0x12, 3, 0xff, 0xff, 0xff, 0x1a, 16][..], &[9; 16]].concat();
        kafka.append(Record { value: broken.into(), ..record(9) }).await;
        kafka.write([1]).await;
        kafka.committed.reaches(2).await;
        assert_eq!(life.found([1]).await, [1]);
        life.shows("vivace_live_store_quarantined_records_total 1");
        life.stop().await;
    });
}

#[test]
fn what_retention_took_before_it_was_read_is_counted_and_named() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        kafka.write([1]).await;
        life.sees(1).await;
        // The read that is on its way ends with what is there first.
        kafka.gate.hold(true);
        kafka.write([2]).await;
        life.sees(2).await;
        kafka.write([3, 4, 5]).await;
        kafka.gate.log.reclaim(PARTITION, Offset(4)).await.unwrap();
        kafka.gate.hold(false);
        life.sees(3).await;
        let (parts, coverage) = life.find(5).await;
        assert_eq!((parts, coverage.read), (1, 0));
        assert_eq!(coverage.skipped[0].reason, "its log removed offsets 2 to 3 before they were read here");
        life.shows("vivace_live_store_lost_records_total 2");
        assert_eq!(life.search().await.unwrap().0, ["span 1", "span 2", "span 5"], "waiting brings nothing back");
        life.stop().await;
    });
}

#[test]
fn while_the_log_is_away_the_disk_answers_and_says_what_is_not_known() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        kafka.write([1]).await;
        life.sees(1).await;
        life.stop().await;
    });
    run(async {
        kafka.write([2]).await;
        kafka.away.store(2, Ordering::SeqCst);
        let clock = FakeClock::at(SystemClock.unix());
        let mut life = Life::start_at(dir.path(), &kafka, lazy(), Arc::new(clock.clone()), |_| ());
        let (parts, coverage) = life.find(1).await;
        assert_eq!((parts, coverage.read), (1, 0));
        assert!(coverage.skipped[0].reason.contains("has not answered"), "{coverage:?}");
        let (traces, coverage) = life.search().await.unwrap();
        assert_eq!((traces, coverage.read), (vec!["span 1".to_owned()], 0), "it is not known to lag");
        while kafka.away.load(Ordering::SeqCst) > 0 || life.observed().await["reads_the_log"] != true {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
        life.sees(1).await;
        assert_eq!(life.found(1..=2).await, [1, 1]);
        life.stop().await;
    });
}

#[test]
fn a_stop_does_not_wait_for_a_log_that_does_not_answer() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        kafka.committed.reaches(0).await;
        kafka.write(1..=3).await;
        life.sees(3).await;
        kafka.committed.1.store(true, Ordering::SeqCst);
        life.stop().await;
        assert_eq!(kafka.committed.get(), Some(0));
    });
    run(async {
        kafka.committed.1.store(false, Ordering::SeqCst);
        let life = Life::start(dir.path(), &kafka, lazy());
        kafka.committed.reaches(3).await;
        assert_eq!(life.found(1..=3).await, [1, 1, 1]);
        assert_eq!(*life.seen.borrow(), 0, "nothing is read again");
        life.stop().await;
    });
}

#[test]
fn a_topic_made_anew_is_followed_and_what_came_from_the_old_one_stays() {
    let (dir, mut kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        kafka.write([1, 2]).await;
        life.sees(2).await;
        life.stop().await;
    });
    let fresh = MemoryLog::new(LogId::from_random([9; 16]), Budget::new(1 << 30, LONG));
    kafka.gate = Gate::new(fresh);
    kafka.committed.0.send_replace(None);
    run(async {
        let mut life = Life::start(dir.path(), &kafka, lazy());
        kafka.write([3]).await;
        life.sees(1).await;
        assert_eq!(life.found(1..=3).await, [1, 1, 1]);
        // It happens again, while it runs: the reader says so, and the log is reached anew.
        let (expected, found) = (kafka.gate.id(), kafka.gate.id());
        let replaced = LogError::TopicReplaced { topic: "traces".into(), expected, found };
        kafka.gate.errors.lock().push_back(replaced);
        kafka.write([4, 5]).await;
        life.sees(3).await;
        assert_eq!(life.found(1..=5).await, [1, 1, 1, 1, 1]);
        life.stop().await;
    });
}

#[test]
fn a_local_block_goes_when_its_time_is_over_from_answers_first() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    let tenant = dir.path().join("blocks/0/single-tenant");
    let blocks = || std::fs::read_dir(&tenant).map_or(0, Iterator::count);
    run(async {
        let clock = FakeClock::at(SystemClock.unix());
        let mut life = Life::start_at(dir.path(), &kafka, eager(), Arc::new(clock.clone()), |_| ());
        kafka.write([1]).await;
        life.sees(1).await;
        kafka.committed.reaches(1).await;
        assert_eq!((life.found([1]).await, blocks()), (vec![1], 1));
        clock.advance(Duration::from_secs(20 * 60 + 1));
        while life.observed().await["local_blocks"] != 0 {
            tokio::task::yield_now().await;
        }
        let (parts, _) = life.find(1).await;
        assert_eq!((parts, blocks()), (0, 1), "who reads it may finish");
        life.shows("tempo_live_store_blocks_cleared_total{block_type=\"complete\"} 1");
        while blocks() > 0 {
            clock.advance(Duration::from_secs(60));
            tokio::task::yield_now().await;
        }
        life.stop().await;
    });
}

//! Tests of segments that the disk has damaged, and of bytes that were never a segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use proptest::prelude::*;

use vivace_runtime::{Compute, Disk, FakeClock, Rng, SimDisk};

use crate::contract;
use crate::log::Skipped;
use crate::segment::{HEADER_BYTES, SegmentHeader};
use crate::{Budget, Error, LocalEnv, LocalLog, LocalOptions, Log, LogId, Metrics, Offset, Partition, Record};

const P: Partition = Partition(0);
/// What `record(number, 100)` takes in a segment: head, tenant, one header of one digit, value.
const FRAME_BYTES: u64 = 40 + 8 + 6 + 10 + 1 + 108;

/// As in the suite, with the header that the frozen segment has.
fn record(number: u64, value_bytes: usize) -> Record {
    let mut record = contract::record(number, value_bytes);
    record.headers[0].name = Bytes::from_static(b"vivace-seq");
    record
}

fn open_with(disk: &SimDisk, segment_bytes: u64) -> Result<LocalLog, Error> {
    let env = LocalEnv {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(FakeClock::default()),
        compute: Compute::inline(),
        budget: Budget::new(64 << 20, Duration::ZERO),
        metrics: Metrics::unregistered(),
    };
    let options = LocalOptions { segment_bytes, ..LocalOptions::in_dir("/log") };
    LocalLog::open_without_writers(&options, env, &mut Rng::seeded(1))
}

fn open(disk: &SimDisk) -> LocalLog {
    open_with(disk, 1 << 20).unwrap()
}

/// Commits each group of records, from one number to before another, as one batch.
fn append(log: &LocalLog, groups: &[(u64, u64)]) {
    for &(from, until) in groups {
        let replies: Vec<_> = (from..until).map(|number| log.append(P, record(number, 100))).collect();
        log.partition(P).unwrap().write_waiting();
        for reply in replies {
            reply.now_or_never().unwrap().unwrap();
        }
    }
}

/// Everything from the earliest offset on, and what was passed over.
fn read_all(log: &LocalLog) -> (Vec<u64>, Vec<Skipped>) {
    let (mut offsets, mut skipped) = (Vec::new(), Vec::new());
    let mut reader = log.reader(P, log.partition(P).unwrap().bounds().earliest).unwrap();
    while let Some(batch) = reader.next(500).now_or_never() {
        let batch = batch.unwrap();
        offsets.extend(batch.records.iter().map(|entry| entry.offset.0));
        skipped.extend(batch.skipped);
    }
    (offsets, skipped)
}

fn segment(first: u64) -> PathBuf {
    PathBuf::from(format!("/log/0/{first:020}.log"))
}

fn frame_at(index: u64) -> u64 {
    HEADER_BYTES + index * FRAME_BYTES
}

#[test]
fn damage_amid_the_last_segment_is_skipped_and_named_and_the_log_goes_on() {
    let disk = SimDisk::new(1);
    append(&open(&disk), &[(0, 3), (3, 6), (6, 9)]);
    disk.corrupt(&segment(0), frame_at(4) + 50);
    let log = open(&disk);
    append(&log, &[(9, 10)]);
    let (offsets, skipped) = read_all(&log);
    assert_eq!(offsets, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    let expected = Skipped {
        path: segment(0),
        position: frame_at(4),
        bytes: FRAME_BYTES,
        first: Offset(4),
        end: Offset(5),
        reason: "checksum does not match",
    };
    assert_eq!(skipped, [expected]);
}

#[test]
fn damage_in_the_last_batch_looks_torn_and_is_cut() {
    // The one case that cannot be told apart: nothing behind the damage proves that it was durable.
    let disk = SimDisk::new(1);
    append(&open(&disk), &[(0, 3), (3, 6)]);
    disk.corrupt(&segment(0), frame_at(4));
    let log = open(&disk);
    assert_eq!(read_all(&log), (vec![0, 1, 2, 3], vec![]));
    assert_eq!(disk.open(&segment(0)).unwrap().len().unwrap(), frame_at(4));
}

#[test]
fn a_damaged_length_hides_only_its_own_record() {
    for byte in 0..4 {
        let disk = SimDisk::new(1);
        append(&open(&disk), &[(0, 3), (3, 6)]);
        disk.corrupt(&segment(0), frame_at(1) + byte);
        let (offsets, skipped) = read_all(&open(&disk));
        assert_eq!(offsets, [0, 2, 3, 4, 5]);
        assert_eq!((skipped[0].first, skipped[0].end), (Offset(1), Offset(2)));
    }
}

#[test]
fn damage_in_earlier_segments_costs_only_what_is_damaged() {
    let disk = SimDisk::new(1);
    let groups: Vec<_> = (0..30).map(|number| (number, number + 1)).collect();
    append(&open_with(&disk, 1000).unwrap(), &groups);
    let files: Vec<_> = disk.list(Path::new("/log/0")).unwrap();
    assert!(files.len() > 4);
    // The last frame of the first, the header of the second.
    disk.corrupt(&files[0].path, files[0].len - 1);
    disk.corrupt(&files[1].path, 20);
    let log = open(&disk);
    let (offsets, skipped) = read_all(&log);
    let second: u64 = files[1].name[..20].parse().unwrap();
    let third: u64 = files[2].name[..20].parse().unwrap();
    let expected: Vec<_> = (0..30).filter(|&number| number < second - 1 || number >= third).collect();
    assert_eq!(offsets, expected);
    let ranges: Vec<_> = skipped.iter().map(|skipped| (skipped.first.0, skipped.end.0)).collect();
    assert_eq!(ranges, [(second - 1, second), (second, third)]);
    assert_eq!(skipped[1].reason, "segment header is damaged");
}

#[test]
fn a_damaged_header_of_the_last_segment_gives_no_offset_twice() {
    let disk = SimDisk::new(1);
    append(&open(&disk), &[(0, 3), (3, 6)]);
    disk.corrupt(&segment(0), 3);
    let log = open(&disk);
    append(&log, &[(6, 8)]);
    let (offsets, skipped) = read_all(&log);
    assert!(offsets.len() == 2 && offsets[0] >= 6, "{offsets:?}");
    assert_eq!(skipped[0].first, Offset(0));
    assert_eq!(skipped[0].path, segment(0));
    assert_eq!(read_all(&open(&disk)).0, offsets);
}

#[test]
fn a_segment_that_vanished_is_an_error_or_a_report_never_silence() {
    let disk = SimDisk::new(1);
    let groups: Vec<_> = (0..30).map(|number| (number, number + 1)).collect();
    append(&open_with(&disk, 1000).unwrap(), &groups);
    let files = disk.list(Path::new("/log/0")).unwrap();
    disk.remove(&files[2].path).unwrap();
    let (offsets, skipped) = read_all(&open(&disk));
    let (from, to): (u64, u64) = (files[2].name[..20].parse().unwrap(), files[3].name[..20].parse().unwrap());
    assert_eq!(offsets, (0..30).filter(|number| !(from..to).contains(number)).collect::<Vec<_>>());
    assert_eq!((skipped[0].first.0, skipped[0].end.0), (from, to));
}

#[test]
fn a_segment_of_another_log_is_refused_by_name() {
    let disk = SimDisk::new(1);
    drop(open(&disk));
    let id = LogId::from_bytes([9; 16]);
    let header = SegmentHeader { id, partition: P, first: Offset(70), previous_end: Offset(70) };
    disk.create(&segment(70)).unwrap().append(&[&header.encode()]).unwrap();
    let error = open_with(&disk, 1000).err().unwrap();
    assert!(
        matches!(&error, Error::ForeignSegment { path, found, .. } if *path == segment(70) && *found == id),
        "{error}"
    );
}

#[test]
fn a_full_disk_refuses_retryably_reads_go_on_and_room_heals_it() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, &[(0, 3)]);
    disk.set_capacity(Some(700));
    for _ in 0..3 {
        let refused = log.append(P, record(3, 100));
        log.partition(P).unwrap().write_waiting();
        let error = refused.now_or_never().unwrap().unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }) && error.is_retryable() && error.retry_after().is_some());
        assert_eq!(read_all(&log).0, [0, 1, 2]);
    }
    disk.set_capacity(None);
    append(&log, &[(3, 5)]);
    let offsets = read_all(&log).0;
    assert_eq!(offsets.len(), 5);
    disk.crash();
    assert_eq!(read_all(&open(&disk)), (offsets, vec![]));
}

/// One segment with two batches, as version 1 has written it.
fn segment_v1() -> Vec<u8> {
    let disk = SimDisk::new(1);
    append(&open(&disk), &[(0, 2), (2, 3)]);
    disk.read(&segment(0)).unwrap()
}

#[test]
fn format_1_is_frozen() {
    let frozen = include_bytes!("../tests/fixtures/segment-v1.log");
    assert!(segment_v1() == frozen, "the bytes that are written have changed: existing logs would not be read");
    let disk = SimDisk::new(1);
    drop(open(&disk));
    disk.open(&segment(0)).unwrap().write_at(frozen, 0).unwrap();
    assert_eq!(read_all(&open(&disk)), (vec![0, 1, 2], vec![]));
}

/// Opens a log whose only segment has these bytes, and uses it.
fn use_segment(bytes: &[u8]) {
    let disk = SimDisk::new(1);
    drop(open(&disk));
    let file = disk.open(&segment(0)).unwrap();
    file.truncate(0).unwrap();
    file.write_at(bytes, 0).unwrap();
    let Ok(log) = open_with(&disk, 1 << 20) else { return };
    let (before, _) = read_all(&log);
    append(&log, &[(7, 8)]);
    let (after, _) = read_all(&log);
    assert_eq!(after.len(), before.len() + 1);
    assert!(after.is_sorted_by(|a, b| a < b));
    drop(log);
    assert_eq!(read_all(&open(&disk)).0, after);
}

proptest! {
    #[test]
    fn arbitrary_bytes_as_a_segment_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        use_segment(&bytes);
        use_segment(&[&segment_v1()[..64], &bytes[..]].concat());
    }

    #[test]
    fn a_segment_with_random_changes_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        doubled in any::<bool>(),
    ) {
        let mut bytes = segment_v1();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if doubled {
            bytes.extend_from_within(64..);
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        use_segment(&bytes);
    }
}

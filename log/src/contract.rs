//! What every form of the log must do, as one suite; each form runs all of it, those of other crates included. Nothing here waits
//! for time. For tests only.
#![expect(clippy::unwrap_used, reason = "a suite of tests: what fails is to panic")]

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;

use crate::{Entry, Error, Header, Log, Offset, Partition, Reader, Record, Sequence};

const P: Partition = Partition(0);

/// A record that says which one it is.
#[must_use]
pub fn record(number: u64, value_bytes: usize) -> Record {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(8 + value_bytes, u8::try_from(number % 251).unwrap());
    Record {
        tenant: Bytes::from(format!("tenant-{}", number % 3)),
        value: Bytes::from(value),
        headers: vec![Header { name: Bytes::from_static(b"test-number"), value: Bytes::from(number.to_string()) }],
        timestamp_ms: 1_600_000_000_000 + i64::try_from(number).unwrap(),
    }
}

async fn append(log: &dyn Log, number: u64) -> Offset {
    log.append(P, record(number, 100)).await.unwrap().offset
}

async fn read(reader: &mut dyn Reader, count: usize, max_bytes: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let batch = reader.next(max_bytes).await.unwrap();
        assert!(batch.skipped.is_empty());
        assert_eq!(batch.end, reader.position());
        assert!(batch.high_watermark >= batch.end);
        entries.extend(batch.records.into_iter().map(without_sequence));
    }
    entries
}

/// Without the header that the Kafka form adds.
fn without_sequence(mut entry: Entry) -> Entry {
    entry.record.headers.retain(|header| header.name != Sequence::HEADER.as_bytes());
    entry
}

/// The error comes at once, or from the first `next` where the bounds are known elsewhere.
async fn is_out_of_range(log: &dyn Log, from: Offset) -> bool {
    let error = match log.reader(P, from) {
        Ok(mut reader) => reader.next(1000).await.err(),
        Err(error) => Some(error),
    };
    matches!(error, Some(Error::OutOfRange { .. }))
}

/// See the name.
pub async fn records_come_back_whole_in_order_and_once(log: Arc<dyn Log>) {
    let appends: Vec<_> = (0..200).map(|number| log.append(P, record(number, 50))).collect();
    let offsets: Vec<_> = join_all(appends).await.into_iter().map(|reply| reply.unwrap().offset).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "calls made one after the other keep their order");
    for max_bytes in [1, 1000, usize::MAX] {
        let mut reader = log.reader(P, Offset(0)).unwrap();
        let entries = read(&mut *reader, 200, max_bytes).await;
        let expected = offsets.iter().zip(0..).map(|(&offset, number)| Entry { offset, record: record(number, 50) });
        assert_eq!(entries, expected.collect::<Vec<_>>());
        assert!(reader.next(1).now_or_never().is_none(), "there is nothing more");
    }
    let bounds = log.bounds(P).await.unwrap();
    assert_eq!((bounds.earliest, bounds.end), (Offset(0), offsets[199].next()));
    assert_eq!(log.end(P).await.unwrap(), bounds.end);
}

/// See the name.
pub async fn a_reader_waits_for_news(log: Arc<dyn Log>) {
    let mut reader = log.reader(P, Offset(0)).unwrap();
    {
        let mut waiting = reader.next(1000);
        assert!((&mut waiting).now_or_never().is_none());
        let offset = append(&*log, 7).await;
        let batch = waiting.await.unwrap();
        let records: Vec<_> = batch.records.into_iter().map(without_sequence).collect();
        assert_eq!(records, [Entry { offset, record: record(7, 100) }]);
    }
    assert!(reader.next(1000).now_or_never().is_none());
    append(&*log, 8).await;
    assert_eq!(read(&mut *reader, 1, 1000).await[0].record, record(8, 100));
}

/// See the name.
pub async fn a_dropped_wait_loses_nothing(log: Arc<dyn Log>) {
    let mut reader = log.reader(P, Offset(0)).unwrap();
    for number in 0..20 {
        drop(reader.next(1000).now_or_never());
        append(&*log, number).await;
        drop(reader.next(1000));
    }
    let entries = read(&mut *log.reader(P, Offset(0)).unwrap(), 20, usize::MAX).await;
    assert_eq!(entries.len(), 20);
    let position = reader.position();
    let rest = entries.iter().filter(|entry| entry.offset >= position).count();
    assert_eq!(read(&mut *reader, rest, 1000).await.len(), rest);
}

/// See the name.
pub async fn a_reader_starts_anywhere_between_the_bounds_and_nowhere_else(log: Arc<dyn Log>) {
    let mut offsets = Vec::new();
    for number in 0..30 {
        offsets.push(append(&*log, number).await);
    }
    for (number, &offset) in offsets.iter().enumerate() {
        let entry = read(&mut *log.reader(P, offset).unwrap(), 1, 1).await.remove(0);
        assert_eq!(entry, Entry { offset, record: record(number as u64, 100) });
    }
    let end = log.bounds(P).await.unwrap().end;
    log.reader(P, end).unwrap();
    assert!(is_out_of_range(&*log, end.next()).await);
}

/// See the name.
pub async fn a_batch_is_within_the_bytes_asked_for_but_never_empty(log: Arc<dyn Log>) {
    for number in 0..30 {
        append(&*log, number).await;
    }
    let one = record(11, 100).charged_bytes();
    let mut reader = log.reader(P, Offset(0)).unwrap();
    assert_eq!(reader.next(0).await.unwrap().records.len(), 1);
    while reader.position() < log.bounds(P).await.unwrap().end {
        let count = reader.next(4 * one).await.unwrap().records.len();
        assert!((1..=4).contains(&count), "{count} records in a batch of at most four");
    }
}

/// See the name.
pub async fn reclaim_keeps_everything_at_or_above(log: Arc<dyn Log>) {
    let mut offsets = Vec::new();
    for number in 0..60 {
        offsets.push(append(&*log, number).await);
    }
    let mut behind = log.reader(P, Offset(0)).unwrap();
    log.reclaim(P, offsets[40]).await.unwrap();
    log.reclaim(P, offsets[40]).await.unwrap();
    let bounds = log.bounds(P).await.unwrap();
    assert!(bounds.earliest > Offset(0) && bounds.earliest <= offsets[40], "{bounds:?}");
    assert!(matches!(behind.next(1000).await, Err(Error::OutOfRange { .. })));
    assert!(is_out_of_range(&*log, Offset(0)).await);
    let entries = read(&mut *log.reader(P, offsets[40]).unwrap(), 20, 1000).await;
    assert_eq!(entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), offsets[40..]);
    log.reclaim(P, offsets[59].next()).await.unwrap();
    let end = log.bounds(P).await.unwrap().end;
    assert_eq!(end, offsets[59].next());
    assert!(append(&*log, 60).await >= end, "offsets go on after everything was reclaimed");
}

/// See the name.
pub async fn a_full_budget_refuses_and_appending_gives_it_back(log: Arc<dyn Log>) {
    let all = log.budget().acquire(usize::MAX).unwrap();
    let refused = log.append(P, record(1, 100)).await.unwrap_err();
    assert!(refused.is_retryable() && refused.retry_after().is_some());
    drop(all);
    append(&*log, 2).await;
    assert_eq!(log.budget().used_bytes(), 0);
    let permit = log.budget().acquire(500).unwrap();
    log.append_reserved(P, record(3, 100), permit).await.unwrap();
    assert_eq!(log.budget().used_bytes(), 0);
    assert_eq!(read(&mut *log.reader(P, Offset(0)).unwrap(), 2, usize::MAX).await.len(), 2);
}

/// See the name.
pub async fn a_record_that_is_too_large_is_refused_for_good(log: Arc<dyn Log>) {
    let error = log.append(P, record(1, 40 << 20)).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { .. }) && !error.is_retryable());
    append(&*log, 2).await;
}

/// See the name.
pub async fn closing_finishes_what_is_queued_and_readers_read_to_the_end(log: Arc<dyn Log>) {
    let mut reader = log.reader(P, Offset(0)).unwrap();
    let queued: Vec<_> = (0..20).map(|number| log.append(P, record(number, 100))).collect();
    log.close().await;
    assert!(join_all(queued).await.iter().all(Result::is_ok));
    assert!(matches!(log.append(P, record(20, 100)).await, Err(Error::Closed)));
    assert_eq!(read(&mut *reader, 20, 1000).await.len(), 20);
    assert!(matches!(reader.next(1000).await, Err(Error::Closed)));
}

#[cfg(test)]
mod forms;

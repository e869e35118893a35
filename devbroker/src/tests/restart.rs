//! What a broker keeps over its end, orderly or not.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{DeleteRecordsRequest, InitProducerIdRequest, delete_records_request};
use vivace_runtime::{FakeClock, SimDisk};

use super::groups::{commit, committed};
use super::raw::{Raw, base_offsets, numbered, text};
use super::topics::describe;
use crate::batch::tests::batch;
use crate::{DevBroker, Error, Options, code};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_topics_records_offsets_and_ids() {
    let folder = tempfile::tempdir().unwrap();
    let broker = DevBroker::start(Options::in_dir(folder.path()).topic("t", 3)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let before = describe(&mut client, "t").await;
    let producer = *client.ask(4, &InitProducerIdRequest::default().with_transactional_id(None)).await.producer_id;
    client.produce("t", 1, batch(&[10, 20, 30])).await;
    client.produce("t", 1, numbered(producer, 0, 0, &[40, 50])).await;
    client.ask(8, &commit("t", 1, 4)).await;
    let partition = delete_records_request::DeleteRecordsPartition::default().with_partition_index(1).with_offset(1);
    let asked = delete_records_request::DeleteRecordsTopic::default().with_name(text("t").into());
    let asked = asked.with_partitions(vec![partition]);
    client.ask(2, &DeleteRecordsRequest::default().with_topics(vec![asked])).await;
    broker.stop().await;

    // More partitions than there were; fewer would change nothing.
    let broker = DevBroker::start(Options::in_dir(folder.path()).topic("t", 4)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let after = describe(&mut client, "t").await;
    assert_eq!((&after.cluster_id, after.topics[0].topic_id), (&before.cluster_id, before.topics[0].topic_id));
    assert_eq!(after.topics[0].partitions.len(), 4);
    let found = client.fetch("t", 1, 1).await;
    assert_eq!((found.log_start_offset, found.high_watermark), (1, 5));
    assert_eq!(base_offsets(&found.records.unwrap()), [0, 3]);
    assert_eq!(committed(&mut client, "t", 1).await, (4, "remark".to_owned()));
    let again = client.produce("t", 1, numbered(producer, 0, 0, &[40, 50])).await;
    assert_eq!(again.base_offset, 3, "what an idempotent producer sends again is found over a restart");
    let other = *client.ask(4, &InitProducerIdRequest::default().with_transactional_id(None)).await.producer_id;
    assert!(other > producer);
    broker.stop().await;
}

/// Power goes at some changing call of the disk while batches are produced: everything acknowledged is there, in order, and the
/// broker takes more.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_power_goes() {
    for crash_at in [0, 1, 2, 3, 5, 8, 11, 15, 20, 40] {
        let disk = SimDisk::new(crash_at);
        let options =
            Options { disk: Arc::new(disk.clone()), segment_bytes: 300, ..Options::in_memory().topic("t", 1) };
        let broker = DevBroker::start(options.clone()).await.unwrap();
        let mut client = Raw::to(&broker).await;
        disk.crash_at(crash_at);
        let mut acknowledged = 0;
        for number in 0..30 {
            let answer = client.produce("t", 0, batch(&[number, number])).await;
            if answer.error_code != code::NONE {
                break;
            }
            assert_eq!(answer.base_offset, 2 * number);
            acknowledged = number + 1;
        }
        drop(client);
        broker.stop().await;
        disk.crash();
        let broker = DevBroker::start(options).await.unwrap();
        let mut client = Raw::to(&broker).await;
        let found = client.fetch("t", 0, 0).await;
        let offsets = base_offsets(&found.records.unwrap());
        let expected: Vec<_> = (0..acknowledged).map(|number| 2 * number).collect();
        assert!(offsets.starts_with(&expected), "crash at {crash_at}: {offsets:?} without {expected:?}");
        assert_eq!(client.produce("t", 0, batch(&[1])).await.error_code, code::NONE, "crash at {crash_at}");
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::in_dir(folder.path()).topic("t", 1);
    let broker = DevBroker::start(options.clone()).await.unwrap();
    let mut client = Raw::to(&broker).await;
    client.produce("t", 0, batch(&[1, 2])).await;
    let id = broker.broker().topics.get("t").unwrap().id;
    broker.stop().await;
    let segments = folder.path().join("partitions").join(format!("{}-0", id.simple())).join("0");
    let segment = std::fs::read_dir(segments).unwrap().next().unwrap().unwrap().path();
    let mut segment = std::fs::OpenOptions::new().append(true).open(segment).unwrap();
    segment.write_all(&[7; 100]).unwrap();

    let broker = DevBroker::start(options).await.unwrap();
    let mut client = Raw::to(&broker).await;
    assert_eq!(client.produce("t", 0, batch(&[3])).await.base_offset, 2);
    assert_eq!(base_offsets(&client.fetch("t", 0, 0).await.records.unwrap()), [0, 2]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_list_of_topics_stops_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::in_dir(folder.path()).topic("t", 1);
    DevBroker::start(options.clone()).await.unwrap().stop().await;
    std::fs::write(folder.path().join("topics"), b"nonsense").unwrap();
    let Err(error) = DevBroker::start(options).await else { panic!("it started") };
    assert!(
        matches!(&error, Error::Log(vivace_log::Error::Unreadable { path, .. }) if path.ends_with("topics")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_does_not_keep_goes_by_whole_segments() {
    let clock = FakeClock::at(Duration::from_secs(1000));
    let options = Options {
        clock: Arc::new(clock.clone()),
        segment_bytes: 1,
        retention: Some(Duration::from_secs(100)),
        ..Options::in_memory().topic("t", 1)
    };
    let broker = DevBroker::start(options).await.unwrap();
    let mut client = Raw::to(&broker).await;
    // Enough that each batch is a mark of the timeline of its own.
    let large = |second: i64| {
        let mut large = batch(&[second * 1000]);
        large.resize(300 << 10, 0);
        crate::batch::tests::seal(&mut large);
        large
    };
    for second in [1000, 1050, 1100] {
        assert_eq!(client.produce("t", 0, large(second)).await.error_code, code::NONE);
    }
    broker.broker().expire().await;
    assert_eq!(client.fetch("t", 0, 2).await.log_start_offset, 0);
    clock.advance(Duration::from_secs(101));
    broker.broker().expire().await;
    assert_eq!(client.fetch("t", 0, 2).await.log_start_offset, 1);
    assert_eq!(client.fetch("t", 0, 0).await.error_code, code::OFFSET_OUT_OF_RANGE);
    clock.advance(Duration::from_secs(1000));
    broker.broker().expire().await;
    assert_eq!(client.fetch("t", 0, 2).await.log_start_offset, 2, "the segment that is written to stays");
    broker.stop().await;
}

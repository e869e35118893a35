//! Reading while the broker misbehaves: nothing is lost, nothing comes twice, and what only the consumer can decide is an error.

use rskafka::client::ClientBuilder;
use rskafka::client::partition::UnknownTopicHandling;
use vivace_devbroker::{Action, Fault};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sits_out_whatever_passes() {
    let broker = broker().await;
    let log = log(&broker).await;
    let mut reader = log.reader(P, Offset(0)).unwrap();
    let mut got = Vec::new();
    let faults = [
        Action::CutBefore,
        Action::CutAfter,
        Action::Throttle { ms: 5 },
        Action::Error { code: 6 },
        Action::Error { code: 5 },
        Action::Hang,
        Action::Slow { ms: 50 },
    ];
    for (number, action) in (0..).zip(faults) {
        let fault = broker.faults().add(Fault::of(FETCH, action.clone()).times(2)).unwrap();
        log.append(P, record(number)).await.unwrap();
        while got.last() != Some(&number) {
            got.extend(reader.next(1 << 20).await.unwrap().records.iter().map(super::number));
        }
        broker.faults().remove(fault);
    }
    assert_eq!(got, (0..7).collect::<Vec<_>>());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_past_the_offset_is_told_with_the_bounds() {
    let broker = broker().await;
    let log = log(&broker).await;
    for number in 0..10 {
        log.append(P, record(number)).await.unwrap();
    }
    let mut behind = log.reader(P, Offset(2)).unwrap();
    let client = ClientBuilder::new(vec![broker.addr().to_string()]).build().await.unwrap();
    let partition = client.partition_client(TOPIC, 0, UnknownTopicHandling::Error).await.unwrap();
    partition.delete_records(6, 1000).await.unwrap();
    let error = behind.next(1 << 20).await.unwrap_err();
    assert!(
        matches!(error, Error::OutOfRange { requested: Offset(2), earliest: Offset(6), end: Offset(10) }),
        "{error}"
    );
    assert_eq!(behind.position(), Offset(2), "the consumer decides where it goes on");
    let mut again = log.reader(P, Offset(6)).unwrap();
    assert_eq!(again.next(1 << 20).await.unwrap().records.len(), 4);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_an_operator_can_mend_is_an_error() {
    let broker = broker().await;
    let log = log(&broker).await;
    log.append(P, record(0)).await.unwrap();
    // UNSUPPORTED_COMPRESSION_TYPE: what a broker answers for a topic that holds zstd.
    broker.faults().add(Fault::of(FETCH, Action::Error { code: 76 })).unwrap();
    let mut reader = log.reader(P, Offset(0)).unwrap();
    let error = reader.next(1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::BrokerRefused { .. }) && error.to_string().contains("zstd"), "{error}");
    broker.faults().clear();
    assert_eq!(reader.next(1 << 20).await.unwrap().records.len(), 1, "calling again tries again");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_are_asked_again_and_given_up_in_time() {
    let broker = broker().await;
    let log = log(&broker).await;
    log.append(P, record(0)).await.unwrap();
    broker.faults().add(Fault::of(LIST_OFFSETS, Action::CutBefore).times(1)).unwrap();
    assert_eq!(log.bounds(P).await.unwrap().end, Offset(1));
    broker.faults().add(Fault::of(LIST_OFFSETS, Action::Hang)).unwrap();
    let error = log.bounds(P).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("learn the bounds of a partition"), "{error}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_other_producers_are_read_as_they_are() {
    let broker = broker().await;
    let log = log(&broker).await;
    let client = ClientBuilder::new(vec![broker.addr().to_string()]).build().await.unwrap();
    let partition = client.partition_client(TOPIC, 0, UnknownTopicHandling::Error).await.unwrap();
    let bare = rskafka::record::Record {
        key: None,
        value: None,
        headers: [("traceparent".to_owned(), b"00".to_vec())].into(),
        timestamp: rskafka::chrono::DateTime::from_timestamp_millis(1_700_000_000_000).unwrap(),
    };
    partition.produce(vec![bare], rskafka::client::partition::Compression::Gzip).await.unwrap();
    let entry = log.reader(P, Offset(0)).unwrap().next(1 << 20).await.unwrap().records.remove(0);
    assert!(entry.record.tenant.is_empty() && entry.record.value.is_empty());
    assert_eq!(entry.record.headers[0].name.as_ref(), b"traceparent");
    assert_eq!(entry.record.timestamp_ms, 1_700_000_000_000);
    assert!(Dedup::default().is_first(&entry), "without a sequence every record counts");
    broker.stop().await;
}

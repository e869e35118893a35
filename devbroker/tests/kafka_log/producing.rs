//! Writing while the broker misbehaves: each acknowledged record is there once, in order, or its sender was told.

use futures::future::join_all;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use vivace_devbroker::{Action, Fault};
use vivace_log::Sequence;
use vivace_runtime::Clock as _;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_request_is_stored_once_and_the_throttling_counted() {
    let broker = broker().await;
    let env = env();
    let registry = env.registry.clone();
    let log = KafkaLog::connect(&config(&broker), env).await.unwrap();
    broker.faults().add(Fault::of(PRODUCE, Action::Throttle { ms: 250 }).times(2)).unwrap();
    for number in 0..3 {
        log.append(P, record(number)).await.unwrap();
    }
    let end = log.bounds(P).await.unwrap().end;
    assert_eq!(read_to(&log, end).await.0, [0, 1, 2]);
    assert!(registry.render().contains("vivace_kafka_throttled_seconds_total 0.5"), "{}", registry.render());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_library_sends_twice_when_it_is_throttled_counts_once() {
    let broker = broker().await;
    let log = log(&broker).await;
    broker.faults().add(Fault::of(PRODUCE, Action::Throttle { ms: 20 }).times(1)).unwrap();
    let client = ClientBuilder::new(vec![broker.addr().to_string()]).build().await.unwrap();
    let partition = client.partition_client(TOPIC, 0, UnknownTopicHandling::Error).await.unwrap();
    let sequence = Sequence { session: 1, number: 1 };
    let sent = rskafka::record::Record {
        key: None,
        value: Some(b"7".to_vec()),
        headers: [(Sequence::HEADER.to_owned(), sequence.to_bytes().to_vec())].into(),
        timestamp: rskafka::chrono::DateTime::from_timestamp_millis(0).unwrap(),
    };
    partition.produce(vec![sent], Compression::NoCompression).await.unwrap();
    let end = log.bounds(P).await.unwrap().end;
    let (all, once) = read_to(&log, end).await;
    assert_eq!((all.as_slice(), once.as_slice()), ([7, 7].as_slice(), [7].as_slice()));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_before_or_after_the_storing_cost_nothing_and_double_nothing() {
    for action in [Action::CutBefore, Action::CutAfter] {
        let broker = broker().await;
        let log = log(&broker).await;
        log.append(P, record(0)).await.unwrap();
        let fault = broker.faults().add(Fault::of(PRODUCE, action.clone()).times(2)).unwrap();
        for number in 1..4 {
            log.append(P, record(number)).await.unwrap();
        }
        assert_eq!(broker.faults().hits(fault), 2);
        let end = log.bounds(P).await.unwrap().end;
        let (all, once) = read_to(&log, end).await;
        assert_eq!(once, [0, 1, 2, 3], "{action:?}");
        assert_eq!(all.len(), if action == Action::CutAfter { 6 } else { 4 }, "{action:?}");
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_left_and_asked_again_on_a_new_connection() {
    let broker = broker().await;
    let log = log(&broker).await;
    broker.faults().add(Fault::of(PRODUCE, Action::Hang).times(1)).unwrap();
    log.append(P, record(0)).await.unwrap();
    log.append(P, record(1)).await.unwrap();
    let end = log.bounds(P).await.unwrap().end;
    assert_eq!(read_to(&log, end).await.1, [0, 1]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_for_good_is_unknown_and_what_was_refused_is_not() {
    let broker = broker().await;
    let log = log(&broker).await;
    broker.faults().add(Fault::of(PRODUCE, Action::Hang)).unwrap();
    let hanging = log.append(P, record(0)).await.unwrap_err();
    assert!(matches!(hanging, Error::DeadlineExceeded), "{hanging}");
    broker.faults().clear();
    // NOT_ENOUGH_REPLICAS: nothing was stored. NOT_ENOUGH_REPLICAS_AFTER_APPEND: nobody knows.
    broker.faults().add(Fault::of(PRODUCE, Action::Error { code: 19 })).unwrap();
    let refused = log.append(P, record(1)).await.unwrap_err();
    assert!(matches!(refused, Error::BrokerUnavailable { .. }) && refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains("NotEnoughReplicas"), "{refused}");
    broker.faults().clear();
    broker.faults().add(Fault::of(PRODUCE, Action::Error { code: 20 })).unwrap();
    let unknown = log.append(P, record(2)).await.unwrap_err();
    assert!(matches!(unknown, Error::DeadlineExceeded), "{unknown}");
    broker.faults().clear();
    // TOPIC_AUTHORIZATION_FAILED: an operator's matter, told at once.
    broker.faults().add(Fault::of(PRODUCE, Action::Error { code: 29 }).times(1)).unwrap();
    let denied = log.append(P, record(3)).await.unwrap_err();
    assert!(matches!(denied, Error::BrokerRefused { .. }) && !denied.is_retryable(), "{denied}");
    log.append(P, record(4)).await.unwrap();
    assert_eq!(log.budget().used_bytes(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_refusals_are_sat_out() {
    let broker = broker().await;
    let log = log(&broker).await;
    // Too few replicas, no leader, leader elsewhere, storage error.
    for code in [19, 5, 6, 56] {
        broker.faults().add(Fault::of(PRODUCE, Action::Error { code }).times(2)).unwrap();
        log.append(P, record(u64::try_from(code).unwrap())).await.unwrap();
    }
    let end = log.bounds(P).await.unwrap().end;
    assert_eq!(read_to(&log, end).await.1, [19, 5, 6, 56]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moves_is_followed() {
    let options = Options::in_memory().topic(TOPIC, 2).listen(&["127.0.0.1:0", "127.0.0.1:0"]);
    let broker = DevBroker::start(options).await.unwrap();
    let env = env();
    let registry = env.registry.clone();
    let log = KafkaLog::connect(&config(&broker), env).await.unwrap();
    log.append(P, record(0)).await.unwrap();
    let mut reader = log.reader(P, Offset(0)).unwrap();
    assert_eq!(reader.next(1 << 20).await.unwrap().records.len(), 1);
    let moved = broker.faults().add(Fault::leader_moved(TOPIC, 0, 2, broker.addrs()[1])).unwrap();
    let second = log.append(P, record(1)).await.unwrap();
    let refused = "vivace_kafka_call_failures_total{action=\"write records\",reason=\"busy\"} 1";
    assert!(registry.render().contains(refused), "the first listener has refused once: {}", registry.render());
    let mut got = Vec::new();
    while reader.position() <= second.offset {
        got.extend(reader.next(1 << 20).await.unwrap().records.iter().map(number));
    }
    assert_eq!(got, [1]);
    // And back again.
    broker.faults().remove(moved);
    log.append(P, record(2)).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_halved_until_the_broker_takes_them_and_a_record_above_its_limit_is_told() {
    let options = Options { max_message_bytes: 100_000, ..Options::in_memory().topic(TOPIC, 1) };
    let broker = DevBroker::start(options).await.unwrap();
    let config = KafkaConfig {
        producer_compression: "none".to_owned(),
        producer_linger: GoDuration::millis(50),
        ..config(&broker)
    };
    let log = KafkaLog::connect(&config, env()).await.unwrap();
    let of = |bytes: usize| Record { value: Bytes::from(vec![b'7'; bytes]), ..Record::default() };
    let large = log.append(P, of(150_000));
    let appends: Vec<_> = (0..60).map(|_| log.append(P, of(10_000))).collect();
    let error = large.await.unwrap_err();
    assert!(matches!(error, Error::TooLargeForBroker { bytes: 150_000.., .. }), "{error}");
    let offsets: Vec<_> = join_all(appends).await.into_iter().map(|done| done.unwrap().offset.0).collect();
    assert_eq!(offsets, (0..60).collect::<Vec<_>>(), "in order, each once");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_the_topic_does_not_have_is_a_clear_refusal() {
    let broker = broker().await;
    let log = log(&broker).await;
    let error = log.append(Partition(9), record(0)).await.unwrap_err();
    assert!(matches!(error, Error::BrokerUnavailable { .. }), "{error}");
    assert!(error.to_string().contains("partition 9"), "{error}");
    assert!(matches!(log.append(Partition(-1), record(0)).await, Err(Error::UnknownPartition(_))));
    log.append(Partition(1), record(0)).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_on_the_way_acknowledged_records_are_there_once_and_in_order() {
    let broker = broker().await;
    let log = log(&broker).await;
    let mut rng = Rng::seeded(7);
    let mut acknowledged = Vec::new();
    for round in 0..12 {
        let action = match rng.below(6) {
            0 => Action::CutBefore,
            1 => Action::CutAfter,
            2 => Action::Throttle { ms: 5 },
            3 => Action::Error { code: 19 },
            4 => Action::Error { code: 20 },
            _ => Action::Error { code: 6 },
        };
        let times = 1 + u32::try_from(rng.below(2)).unwrap();
        broker.faults().add(Fault::of(PRODUCE, action).times(times)).unwrap();
        let appends: Vec<_> =
            (0..25).map(|number| (round * 25 + number, log.append(P, record(round * 25 + number)))).collect();
        for (number, append) in appends {
            if append.await.is_ok() {
                acknowledged.push(number);
            }
        }
    }
    let end = log.bounds(P).await.unwrap().end;
    let (all, once) = read_to(&log, end).await;
    assert!(once.is_sorted_by(|a, b| a < b), "each once and in order: {once:?}");
    assert_eq!(acknowledged.len(), 300, "every fault passes within the time of a write");
    assert_eq!(once, acknowledged);
    assert!(all.len() > once.len(), "there were copies to drop");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_while_the_broker_is_away_is_told_within_the_time_of_a_write() {
    let broker = broker().await;
    let config = KafkaConfig { producer_linger: GoDuration::ZERO, ..config(&broker) };
    let log = KafkaLog::connect(&config, env()).await.unwrap();
    broker.stop().await;
    let started = SystemClock.now();
    let first = log.append(P, record(0));
    // The first is on its way alone; the others are the batches behind it.
    tokio::task::yield_now().await;
    let others: Vec<_> =
        (1..4).map(|number| log.append(P, Record { value: Bytes::from(vec![7; 9 << 20]), ..record(number) })).collect();
    assert!(first.await.unwrap_err().is_retryable());
    for refused in join_all(others).await {
        assert!(refused.unwrap_err().is_retryable());
    }
    // Two seconds for all that were queued together, and half a second for each of three batches.
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_vanishes_is_told_and_its_records_are_not_acknowledged() {
    let broker = broker().await;
    let log = log(&broker).await;
    log.append(P, record(0)).await.unwrap();
    let client = ClientBuilder::new(vec![broker.addr().to_string()]).build().await.unwrap();
    client.controller_client().unwrap().delete_topic(TOPIC, 1000).await.unwrap();
    let error = log.append(P, record(1)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("UnknownTopicOrPartition"), "{error}");
    assert!(log.bounds(P).await.unwrap_err().is_retryable());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_producer_is_a_new_session() {
    let broker = broker().await;
    let first = log(&broker).await;
    first.append(P, record(0)).await.unwrap();
    first.close().await;
    let second = log(&broker).await;
    second.append(P, record(1)).await.unwrap();
    let mut reader = second.reader(P, Offset(0)).unwrap();
    let mut sequences = Vec::new();
    while sequences.len() < 2 {
        let batch = reader.next(1 << 20).await.unwrap();
        sequences.extend(batch.records.iter().map(|entry| Sequence::of(&entry.record).unwrap()));
    }
    assert_eq!((sequences[0].number, sequences[1].number), (1, 1));
    assert_ne!(sequences[0].session, sequences[1].session);
    broker.stop().await;
}

//! Starting: addresses, credentials, a missing topic, brokers that come late.

use std::net::TcpListener;

use vivace_log::LogId;
use vivace_runtime::config::Secret;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_an_error_or_is_made() {
    let broker = broker().await;
    let missing = KafkaConfig { topic: "missing".to_owned(), ..config(&broker) };
    let error = KafkaLog::connect(&missing, env()).await.err().unwrap();
    assert!(matches!(error, Error::BrokerRefused { .. }), "{error}");
    assert!(error.to_string().contains("ingest.kafka.auto_create_topic_enabled"), "{error}");
    let made =
        KafkaConfig { auto_create_topic_enabled: true, auto_create_topic_default_partitions: 3, ..missing.clone() };
    let log = KafkaLog::connect(&made, env()).await.unwrap();
    log.append(Partition(2), record(0)).await.unwrap();
    let again = KafkaLog::connect(&missing, env()).await.unwrap();
    assert_eq!(again.id(), log.id());
    assert_ne!(log.id(), LogId::from_bytes([0; 16]));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_brokers_one_is_enough_and_ipv6_is_an_address() {
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let options = Options::in_memory().topic(TOPIC, 1).listen(&["[::1]:0"]);
    let broker = DevBroker::start(options).await.unwrap();
    // A port that nobody listens on: bound and given back.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [broker.addr().to_string(), format!("{nobody}, {}", broker.addr())] {
        let config = KafkaConfig { address, ..config(&broker) };
        let log = KafkaLog::connect(&config, env()).await.unwrap();
        log.append(P, record(0)).await.unwrap();
        log.offsets("g").commit(P, Offset(1)).await.unwrap();
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_shown_and_wrong_ones_told() {
    let options =
        Options { sasl_plain: Some(("u".to_owned(), "p".to_owned())), ..Options::in_memory().topic(TOPIC, 1) };
    let broker = DevBroker::start(options).await.unwrap();
    let right = KafkaConfig { sasl_username: "u".into(), sasl_password: Secret::new("p"), ..config(&broker) };
    let log = KafkaLog::connect(&right, env()).await.unwrap();
    log.append(P, record(0)).await.unwrap();
    log.offsets("g").commit(P, Offset(1)).await.unwrap();
    let wrong = KafkaConfig { sasl_password: Secret::new("q"), ..right };
    let error = KafkaLog::connect(&wrong, env()).await.err().unwrap();
    assert!(!error.is_retryable() && error.to_string().contains("see ingest.kafka.sasl_"), "{error}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_may_come_late_go_and_come_back() {
    let first = broker().await;
    let address = first.addr().to_string();
    let config = config(&first);
    let options = Options { listen: vec![address], ..first.options().clone() };
    first.stop().await;
    let connecting = tokio::spawn(async move { KafkaLog::connect(&config, env()).await });
    let broker = DevBroker::start(options.clone()).await.unwrap();
    let log = connecting.await.unwrap().unwrap();
    log.append(P, record(0)).await.unwrap();
    let mut reader = log.reader(P, Offset(0)).unwrap();
    assert_eq!(reader.next(1 << 20).await.unwrap().records.len(), 1);
    broker.stop().await;
    let away = log.append(P, record(1)).await.unwrap_err();
    assert!(away.is_retryable(), "{away}");
    let broker = DevBroker::start(options).await.unwrap();
    let last = log.append(P, record(2)).await.unwrap();
    let mut got = Vec::new();
    while reader.position() <= last.offset {
        got.extend(reader.next(1 << 20).await.unwrap().records.iter().map(number));
    }
    assert_eq!(got.last(), Some(&2));
    log.offsets("g").commit(P, Offset(1)).await.unwrap();
    broker.stop().await;
}

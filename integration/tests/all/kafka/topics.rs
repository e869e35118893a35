//! The topic: created when it is missing, and no other setting touched; told when it is missing or another one.

use futures::future::join_all;
use vivace_integration::kafka::Kafka;

use super::*;

#[test]
fn a_missing_topic_is_created_with_its_partitions_and_nothing_else_is_touched() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        let log = connect(&config(kafka, "created")).await;
        log.append(Partition(1), record(1)).await.unwrap();
        let again = connect(&config(kafka, "created")).await;
        assert_eq!(again.id(), log.id(), "the same topic is the same log");
        let by_default = KafkaConfig { auto_create_topic_default_partitions: 0, ..config(kafka, "created-by-default") };
        let other = connect(&by_default).await;
        assert_ne!(other.id(), log.id());
    });
    let described = kafka.tool(TOPICS, &["--bootstrap-server", &kafka.address(), "--describe"]).unwrap();
    let partitions = |topic: &str| {
        let line = described.lines().find(|line| line.starts_with(&format!("Topic: {topic}\t"))).unwrap();
        line.split('\t').find_map(|field| field.trim().strip_prefix("PartitionCount: ")).unwrap().to_owned()
    };
    assert_eq!(partitions("created"), "2");
    assert_eq!(partitions("created-by-default"), "3", "the broker's own default, which nobody has changed");
}

#[test]
fn a_topic_that_is_missing_and_may_not_be_created_is_a_clear_error() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        let strict = KafkaConfig { auto_create_topic_enabled: false, ..config(kafka, "missing") };
        let error = try_connect(&strict).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "open the topic: Kafka refuses: topic missing does not exist; create it, or set \
             ingest.kafka.auto_create_topic_enabled"
        );
        let bad = try_connect(&config(kafka, "not a name")).await.err().unwrap().to_string();
        assert!(bad.contains("InvalidTopicException"), "{bad}");
    });
}

#[test]
fn records_are_written_in_order_with_every_compression_and_found_by_time() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        for compression in ["none", "gzip", "snappy", "lz4"] {
            let config = KafkaConfig {
                producer_compression: compression.to_owned(),
                ..config(kafka, &format!("order-{compression}"))
            };
            let log = connect(&config).await;
            let appends: Vec<_> = (0..500).map(|number| log.append(P, record(number))).collect();
            let offsets: Vec<_> = join_all(appends).await.into_iter().map(|done| done.unwrap().offset.0).collect();
            assert!(offsets.is_sorted_by(|a, b| a < b));
            assert_eq!(values(&read(&log, 500).await), (0..500).collect::<Vec<_>>());
            let bounds = log.bounds(P).await.unwrap();
            assert_eq!((bounds.earliest, bounds.end), (Offset(0), Offset(500)));
            assert_eq!(log.offset_at(P, 1_700_000_000_123).await.unwrap(), Offset(123));
            assert_eq!(log.offset_at(P, 0).await.unwrap(), Offset(0));
            assert_eq!(log.offset_at(P, 1_800_000_000_000).await.unwrap(), Offset(500));
            let error = log.reader(P, Offset(501)).unwrap().next(1).await.unwrap_err();
            assert!(matches!(error, Error::OutOfRange { end: Offset(500), .. }), "{error}");
            log.close().await;
        }
    });
}

#[test]
fn large_records_and_batches_are_split_at_what_the_topic_takes() {
    let Some(kafka) = Kafka::shared() else { return };
    kafka
        .tool(
            TOPICS,
            &[
                "--bootstrap-server",
                &kafka.address(),
                "--create",
                "--topic",
                "small",
                "--partitions",
                "1",
                "--config",
                "max.message.bytes=200000",
            ],
        )
        .unwrap();
    block_on(async {
        let config = KafkaConfig { producer_compression: "none".to_owned(), ..config(kafka, "small") };
        let log = connect(&config).await;
        let of = |bytes: usize| Record { value: Bytes::from(vec![7; bytes]), ..Record::default() };
        let appends: Vec<_> = (0..40).map(|_| log.append(P, of(50_000))).collect();
        assert!(join_all(appends).await.iter().all(Result::is_ok), "two megabytes go out in parts");
        let error = log.append(P, of(300_000)).await.unwrap_err();
        assert!(matches!(error, Error::TooLargeForBroker { .. }) && !error.is_retryable(), "{error}");
        assert!(error.to_string().contains("max.message.bytes"), "{error}");
        log.append(P, of(100)).await.unwrap();
        assert_eq!(read(&log, 41).await.len(), 41);
    });
}

#[test]
fn a_topic_that_is_created_again_is_another_log() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        let log = connect(&config(kafka, "again")).await;
        log.append(P, record(1)).await.unwrap();
        kafka.tool(TOPICS, &["--bootstrap-server", &kafka.address(), "--delete", "--topic", "again"]).unwrap();
        let new = connect(&config(kafka, "again")).await;
        assert_ne!(new.id(), log.id());
        new.append(P, record(1)).await.unwrap();
        // Within its interval the old one notices, and then neither writes nor reads.
        let mut reader = log.reader(P, Offset(1)).unwrap();
        let error = reader.next(1).await.unwrap_err();
        assert!(matches!(error, Error::TopicReplaced { found, .. } if found == new.id()), "{error}");
        assert!(matches!(log.append(P, record(2)).await, Err(Error::TopicReplaced { .. })));
        assert!(matches!(log.bounds(P).await, Err(Error::TopicReplaced { .. })));
    });
}

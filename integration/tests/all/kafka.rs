//! The Kafka form of the log against real Apache Kafka.

mod bucket;
mod cluster;
mod consumers;
mod security;
mod topics;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vivace_integration::kafka::Kafka;
use vivace_log::config::KafkaConfig;
use vivace_log::kafka::{KafkaEnv, KafkaLog, Role};
use vivace_log::{Budget, Dedup, Entry, Error, Log, Offset, Partition, Record};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Rng, SystemClock};

const P: Partition = Partition(0);
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

/// What `main` of a process would do.
fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

/// A topic of the test's own on `kafka`.
fn config(kafka: &Kafka, topic: &str) -> KafkaConfig {
    KafkaConfig {
        address: kafka.address(),
        topic: topic.to_owned(),
        auto_create_topic_default_partitions: 2,
        ..KafkaConfig::default()
    }
}

async fn try_connect(config: &KafkaConfig) -> Result<Arc<KafkaLog>, Error> {
    let env = KafkaEnv {
        clock: Arc::new(SystemClock),
        rng: Rng::from_system(),
        budget: Budget::new(64 << 20, Duration::from_millis(100)),
        registry: Registry::new(),
        role: Role::Producer,
        runtime: tokio::runtime::Handle::current(),
    };
    KafkaLog::connect(config, env).await
}

async fn connect(config: &KafkaConfig) -> Arc<KafkaLog> {
    try_connect(config).await.unwrap()
}

fn record(number: u64) -> Record {
    Record {
        tenant: Bytes::from_static(b"acme"),
        value: Bytes::from(number.to_string()),
        timestamp_ms: 1_700_000_000_000 + i64::try_from(number).unwrap(),
        ..Record::default()
    }
}

/// Reads from the beginning until `count` records have come, copies of the producer left out.
async fn read(log: &KafkaLog, count: usize) -> Vec<Entry> {
    let mut reader = log.reader(P, Offset(0)).unwrap();
    let (mut dedup, mut entries) = (Dedup::default(), Vec::new());
    while entries.len() < count {
        let batch = reader.next(1 << 20).await.unwrap();
        entries.extend(batch.records.into_iter().filter(|entry| dedup.is_first(entry)));
    }
    entries
}

fn values(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.record.value).unwrap().parse().unwrap()).collect()
}

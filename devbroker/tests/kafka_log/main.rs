//! The Kafka form of the log against this broker: the contract of every log, and what goes wrong between a client and its broker.
#![allow(clippy::unwrap_used, reason = "tests")]

mod contract;
mod groups;
mod producing;
mod reading;
mod starting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vivace_devbroker::{DevBroker, Options, Running};
use vivace_log::config::KafkaConfig;
use vivace_log::kafka::{KafkaEnv, KafkaLog, Role};
use vivace_log::{Budget, Dedup, Entry, Error, Log, Offset, Partition, Record};
use vivace_runtime::config::GoDuration;
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Rng, SystemClock};

const P: Partition = Partition(0);
const TOPIC: &str = "traces";
/// Kinds of requests, by the protocol's numbers.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;

async fn broker() -> Running {
    DevBroker::start(Options::in_memory().topic(TOPIC, 2)).await.unwrap()
}

/// Time limits that a test can wait for.
fn config(broker: &Running) -> KafkaConfig {
    KafkaConfig {
        address: broker.addr().to_string(),
        topic: TOPIC.to_owned(),
        auto_create_topic_enabled: false,
        dial_timeout: GoDuration::millis(500),
        write_timeout: GoDuration::secs(2),
        last_produced_offset_retry_timeout: GoDuration::secs(1),
        producer_linger: GoDuration::millis(1),
        ..KafkaConfig::default()
    }
}

fn env() -> KafkaEnv {
    KafkaEnv {
        clock: Arc::new(SystemClock),
        rng: Rng::from_system(),
        budget: Budget::new(128 << 20, Duration::from_millis(100)),
        registry: Registry::new(),
        role: Role::Producer,
        runtime: tokio::runtime::Handle::current(),
    }
}

async fn log(broker: &Running) -> Arc<KafkaLog> {
    KafkaLog::connect(&config(broker), env()).await.unwrap()
}

fn record(number: u64) -> Record {
    Record { tenant: Bytes::from_static(b"t"), value: Bytes::from(number.to_string()), ..Record::default() }
}

/// Everything below `end`, and with copies left out.
async fn read_to(log: &KafkaLog, end: Offset) -> (Vec<u64>, Vec<u64>) {
    let mut reader = log.reader(P, Offset(0)).unwrap();
    let (mut dedup, mut all, mut once) = (Dedup::default(), Vec::new(), Vec::new());
    while reader.position() < end {
        for entry in reader.next(1 << 20).await.unwrap().records {
            all.push(number(&entry));
            if dedup.is_first(&entry) {
                once.push(number(&entry));
            }
        }
    }
    (all, once)
}

fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.record.value).unwrap().parse().unwrap()
}

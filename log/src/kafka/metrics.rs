//! What the Kafka form measures: Tempo's names where dashboards and alerts use them.

use std::time::Duration;

use vivace_runtime::metrics::{Buckets, Counter, Family, Gauge, Histogram, Registry};

use super::failure::Failure;
use crate::budget::Budget;
use crate::record::{Entry, Partition};

/// What a process does with the log; it decides which metrics are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writes records: `tempo_distributor_*`.
    Producer,
    /// Reads records: `tempo_ingest_storage_reader_*` with this value of the label `component`: `live-store`, `block-builder` or
    /// `generator`.
    Consumer(&'static str),
}

#[derive(Clone)]
pub(crate) struct Metrics {
    clients: Counter,
    failures: Family<Counter, 2>,
    producer: Option<Producer>,
    reader: Option<ReaderMetrics>,
}

#[derive(Clone)]
struct Producer {
    records: Counter,
    batches: Counter,
    bytes: Counter,
    waiting: Gauge,
    waiting_bytes: Gauge,
    limit_bytes: Gauge,
    failures: Family<Counter, 1>,
    latency: Histogram,
    partition_bytes: Family<Counter, 1>,
    throttled: Counter,
}

#[derive(Clone)]
struct ReaderMetrics {
    records: Counter,
    bytes: Counter,
    per_fetch: Histogram,
    delay: Histogram,
    passed: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, role: Role) -> Self {
        let (producer, reader) = match role {
            Role::Producer => (Some(Producer::new(registry)), None),
            Role::Consumer(component) => (None, Some(ReaderMetrics::new(registry, component))),
        };
        Self {
            clients: registry.counter(
                "vivace_kafka_clients_built_total",
                "Times that the way to the brokers was made anew from their list: at start, and after hanging or broken connections",
            ),
            failures: registry.counters(
                "vivace_kafka_call_failures_total",
                "Attempts of a call to a broker that failed, by action and reason (timeout, unreachable, broken, busy, out-of-range, \
                 record-too-large, refused)",
                ["action", "reason"],
            ),
            producer,
            reader,
        }
    }

    pub(crate) fn client_built(&self) {
        self.clients.inc();
    }

    pub(crate) fn failed(&self, action: &'static str, failure: &Failure) {
        self.failures.with([action, failure.label()]).inc();
    }

    pub(crate) fn queued(&self, budget: &Budget) {
        if let Some(producer) = &self.producer {
            producer.waiting.add(1.0);
            producer.waiting_bytes.set_count(budget.used_bytes());
            producer.limit_bytes.set_count(budget.limit_bytes());
        }
    }

    /// A batch left the queue, one way or another.
    pub(crate) fn settled(&self, records: usize, budget: &Budget) {
        if let Some(producer) = &self.producer {
            producer.waiting.add(-(records as f64));
            producer.waiting_bytes.set_count(budget.used_bytes());
        }
    }

    pub(crate) fn produced(&self, partition: Partition, records: usize, bytes: usize) {
        if let Some(producer) = &self.producer {
            producer.records.add(records as u64);
            producer.batches.inc();
            producer.bytes.add(bytes as u64);
            producer.partition_bytes.with([&format!("partition_{partition}")]).add(bytes as u64);
        }
    }

    /// The broker holds this client back, by its quota.
    pub(crate) fn throttled(&self, ms: i32) {
        if let Some(producer) = &self.producer {
            producer.throttled.add_f64(f64::from(ms) / 1000.0);
        }
    }

    pub(crate) fn waited(&self, latency: Duration) {
        if let Some(producer) = &self.producer {
            producer.latency.observe_duration(latency);
        }
    }

    pub(crate) fn refused(&self, reason: &'static str, records: usize) {
        if let Some(producer) = &self.producer {
            producer.failures.with([reason]).add(records as u64);
        }
    }

    pub(crate) fn fetched(&self, entries: &[Entry], now_ms: i64) {
        let Some(reader) = &self.reader else { return };
        reader.records.add(entries.len() as u64);
        reader.bytes.add(entries.iter().map(|entry| entry.record.value.len() as u64).sum());
        reader.per_fetch.observe(entries.len() as f64);
        for entry in entries {
            let delay_ms = u64::try_from(now_ms.saturating_sub(entry.record.timestamp_ms)).unwrap_or(0);
            reader.delay.observe_duration(Duration::from_millis(delay_ms));
        }
    }

    pub(crate) fn passed_over(&self) {
        if let Some(reader) = &self.reader {
            reader.passed.inc();
        }
    }
}

impl Producer {
    fn new(registry: &Registry) -> Self {
        let name = |what: &str| format!("tempo_distributor_{what}");
        Self {
            records: registry.counter(&name("produce_records_total"), "Records that Kafka has acknowledged"),
            batches: registry.counter(&name("produce_batches_total"), "Batches that Kafka has acknowledged"),
            bytes: registry
                .counter(&name("produce_bytes_total"), "Bytes of records that Kafka has acknowledged, uncompressed"),
            waiting: registry
                .gauge(&name("buffered_produce_records_total"), "Records that wait to be acknowledged by Kafka"),
            waiting_bytes: registry.gauge(&name("buffered_produce_bytes"), "Bytes of the budget of requests in flight"),
            limit_bytes: registry.gauge(&name("buffered_produce_bytes_limit"), "Bound of buffered_produce_bytes"),
            failures: registry.counters(
                &name("produce_failures_total"),
                "Records that were not acknowledged, by reason (timeout, buffer-full, record-too-large, \
                 cancelled-before-producing, other)",
                ["reason"],
            ),
            latency: registry.histogram(
                &name("kafka_write_latency_seconds"),
                "Time from queueing a record to Kafka's acknowledgement",
                &Buckets::seconds(),
            ),
            partition_bytes: registry.counters(
                &name("kafka_write_bytes_total"),
                "Bytes that Kafka has acknowledged, by partition (partition_<number>)",
                ["partition"],
            ),
            throttled: registry.counter(
                "vivace_kafka_throttled_seconds_total",
                "Time that brokers held this producer back because of a quota",
            ),
        }
    }
}

impl ReaderMetrics {
    fn new(registry: &Registry, component: &str) -> Self {
        let name = |what: &str| format!("tempo_ingest_storage_reader_{what}");
        let counter = |what: &str, help: &str| registry.counters(&name(what), help, ["component"]).with([component]);
        let histogram = |what: &str, help: &str, buckets: &Buckets| {
            registry.histograms(&name(what), help, ["component"], buckets).with([component])
        };
        Self {
            records: counter("fetch_records_total", "Records fetched from Kafka, by component"),
            bytes: counter("fetch_bytes_total", "Bytes of values fetched from Kafka, uncompressed, by component"),
            per_fetch: histogram(
                "records_per_fetch",
                "Records per answer to a fetch, by component",
                &Buckets::exponential(1.0, 2.0, 15),
            ),
            delay: histogram(
                "receive_delay_seconds",
                "Time between the producing of a record and its arrival here, by component",
                &Buckets::exponential(0.125, 2.0, 18),
            ),
            passed: counter(
                "passed_offsets_total",
                "Offsets that hold nothing this client can read (marks of transactions, compacted ranges), by component",
            ),
        }
    }
}

/// How far consumer groups are behind: two gauges by group and partition, as Tempo's consumers export them.
#[derive(Clone)]
pub struct LagMetrics {
    records: Family<Gauge, 2>,
    seconds: Family<Gauge, 2>,
}

impl LagMetrics {
    /// Registers both; registering again gives the same series.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let labels = ["group", "partition"];
        Self {
            records: registry.gauges(
                "tempo_ingest_group_partition_lag",
                "Records between a group's committed offset and the end of the partition, by group and partition",
                labels,
            ),
            seconds: registry.gauges(
                "tempo_ingest_group_partition_lag_seconds",
                "Age of the last consumed record when it was consumed, 0 when all is committed, by group and partition",
                labels,
            ),
        }
    }

    /// Sets the lag in records.
    pub fn records(&self, group: &str, partition: Partition, records: u64) {
        self.records.with([group, &partition.to_string()]).set(records as f64);
    }

    /// Sets the lag in seconds.
    pub fn seconds(&self, group: &str, partition: Partition, seconds: f64) {
        self.seconds.with([group, &partition.to_string()]).set(seconds);
    }

    /// Removes the series of a partition that this process no longer consumes.
    pub fn remove(&self, group: &str, partition: Partition) {
        self.records.remove([group, &partition.to_string()]);
        self.seconds.remove([group, &partition.to_string()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_metrics_is_this() {
        let producer = Registry::new();
        let metrics = Metrics::new(&producer, Role::Producer);
        metrics.failed("write records", &Failure::OutOfRange);
        metrics.produced(Partition(0), 1, 1);
        metrics.refused("timeout", 1);
        assert_eq!(
            producer.names(),
            [
                "tempo_distributor_buffered_produce_bytes gauge",
                "tempo_distributor_buffered_produce_bytes_limit gauge",
                "tempo_distributor_buffered_produce_records_total gauge",
                "tempo_distributor_kafka_write_bytes_total counter",
                "tempo_distributor_kafka_write_latency_seconds histogram",
                "tempo_distributor_produce_batches_total counter",
                "tempo_distributor_produce_bytes_total counter",
                "tempo_distributor_produce_failures_total counter",
                "tempo_distributor_produce_records_total counter",
                "vivace_kafka_call_failures_total counter",
                "vivace_kafka_clients_built_total counter",
                "vivace_kafka_throttled_seconds_total counter",
            ]
        );
        let reader = Registry::new();
        Metrics::new(&reader, Role::Consumer("live-store")).failed("fetch records", &Failure::OutOfRange);
        LagMetrics::register(&reader).records("g", Partition(0), 1);
        LagMetrics::register(&reader).seconds("g", Partition(0), 1.0);
        assert_eq!(
            reader.names(),
            [
                "tempo_ingest_group_partition_lag gauge",
                "tempo_ingest_group_partition_lag_seconds gauge",
                "tempo_ingest_storage_reader_fetch_bytes_total counter",
                "tempo_ingest_storage_reader_fetch_records_total counter",
                "tempo_ingest_storage_reader_passed_offsets_total counter",
                "tempo_ingest_storage_reader_receive_delay_seconds histogram",
                "tempo_ingest_storage_reader_records_per_fetch histogram",
                "vivace_kafka_call_failures_total counter",
                "vivace_kafka_clients_built_total counter",
            ]
        );
    }

    #[test]
    fn the_lag_of_a_partition_that_is_given_up_is_not_shown() {
        let registry = Registry::new();
        let lag = LagMetrics::register(&registry);
        lag.records("g", Partition(3), 7);
        lag.seconds("g", Partition(3), 1.5);
        assert!(registry.render().contains("tempo_ingest_group_partition_lag{group=\"g\",partition=\"3\"} 7"));
        lag.remove("g", Partition(3));
        assert!(!registry.render().contains("partition=\"3\""));
    }
}

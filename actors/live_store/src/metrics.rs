//! What the live-store counts. Names that Tempo has are Tempo's.

use std::time::Duration;

use vivace_protocol::TenantId;
use vivace_runtime::metrics::{Buckets, Counter, Family, Gauge, Histogram, Registry};

use crate::state::{Applied, Partition};

/// Handles into the registry; clones count into the same series.
#[derive(Clone)]
pub(crate) struct Metrics {
    bytes_received: Family<Counter, 2>,
    traces_created: Family<Counter, 1>,
    live_traces: Family<Gauge, 1>,
    head_bytes: Gauge,
    closing: Gauge,
    blocks_cut: Family<Counter, 1>,
    blocks_completed: Counter,
    failed_completions: Counter,
    completion_seconds: Histogram,
    completion_bytes: Histogram,
    discarded: Family<Counter, 2>,
    quarantined: Counter,
    completion_retries: Counter,
    queue_length: Gauge,
    back_pressure_seconds: Family<Counter, 1>,
    back_pressure_duration: Histogram,
    records_processed: Family<Counter, 1>,
    records_dropped: Family<Counter, 2>,
    inspected: Family<Counter, 2>,
}

/// What a live-store of its own process counts in addition.
#[derive(Clone)]
pub(crate) struct LocalMetrics {
    owned: Family<Gauge, 2>,
    ready: Gauge,
    catch_up: Gauge,
    cleared: Family<Counter, 1>,
    lagged: Family<Counter, 1>,
    awaited: Family<Counter, 1>,
    lag_records: Family<Gauge, 2>,
    lag_seconds: Family<Gauge, 2>,
    copies: Counter,
    lost: Counter,
    blocks: Gauge,
    commit_failures: Counter,
}

/// Whose lag it is.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) partition: String,
}

impl LocalMetrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let lag = ["group", "partition"];
        Self {
            owned: registry.gauges(
                "tempo_live_store_partition_owned",
                "1 while the partition is owned. zone: the consumer group, as in Tempo",
                ["partition", "zone"],
            ),
            ready: registry.gauge("tempo_live_store_ready", "1 while the live-store is ready"),
            catch_up: registry.gauge(
                "tempo_live_store_catch_up_duration_seconds",
                "Time from the start of the consumer until it was ready",
            ),
            cleared: registry.counters(
                "tempo_live_store_blocks_cleared_total",
                "Local blocks removed because their time was over. block_type: complete",
                ["block_type"],
            ),
            lagged: registry.counters(
                "tempo_live_store_lagged_requests_total",
                "Requests whose answer may miss what is in the log already. route: SearchRecent, QueryRange",
                ["route"],
            ),
            lag_records: registry.gauges(
                "tempo_ingest_group_partition_lag",
                "Records between a group's committed offset and the end of the partition, by group and partition",
                lag,
            ),
            lag_seconds: registry.gauges(
                "tempo_ingest_group_partition_lag_seconds",
                "Age of the last consumed record when it was consumed, 0 when all is committed, by group and partition",
                lag,
            ),
            awaited: registry.counters(
                "vivace_live_store_awaited_finds_total",
                "Questions for a trace that was found nowhere, answered once everything was applied that the log had. outcome: in_time, late (some of it was not applied within 250 ms)",
                ["outcome"],
            ),
            copies: registry.counter(
                "vivace_live_store_duplicate_records_total",
                "Records that a producer had written before; each counts once",
            ),
            lost: registry.counter(
                "vivace_live_store_lost_records_total",
                "Offsets that the log had removed before they were read",
            ),
            blocks: registry
                .gauge("vivace_live_store_local_blocks", "Complete blocks on the own disk that are queried"),
            commit_failures: registry.counter(
                "vivace_live_store_failed_commits_total",
                "Commits of the group's offset that failed and are repeated",
            ),
        }
    }

    pub(crate) fn owns(&self, group: &Group, owns: bool) {
        self.owned.with([&group.partition, &group.name]).set(f64::from(u8::from(owns)));
    }

    pub(crate) fn ready(&self, took: Option<Duration>) {
        self.ready.set(f64::from(u8::from(took.is_some())));
        if let Some(took) = took {
            self.catch_up.set(took.as_secs_f64());
        }
    }

    pub(crate) fn cleared(&self) {
        self.cleared.with(["complete"]).inc();
    }

    pub(crate) fn lagged(&self, route: &str) {
        self.lagged.with([route]).inc();
    }

    pub(crate) fn lag(&self, group: &Group, records: Option<u64>, time: Option<Duration>) {
        let labels = [group.name.as_str(), group.partition.as_str()];
        if let Some(records) = records {
            #[expect(clippy::cast_precision_loss, reason = "a number of records in a gauge")]
            self.lag_records.with(labels).set(records as f64);
        }
        if let Some(time) = time {
            self.lag_seconds.with(labels).set(time.as_secs_f64());
        }
    }

    /// The partition is not consumed any more.
    pub(crate) fn forget_lag(&self, group: &Group) {
        self.lag_records.remove([&group.name, &group.partition]);
        self.lag_seconds.remove([&group.name, &group.partition]);
    }

    pub(crate) fn awaited(&self, is_late: bool) {
        self.awaited.with([if is_late { "late" } else { "in_time" }]).inc();
    }

    pub(crate) fn copy(&self) {
        self.copies.inc();
    }

    pub(crate) fn lost(&self, records: u64) {
        self.lost.add(records);
    }

    pub(crate) fn blocks(&self, blocks: usize) {
        self.blocks.set_count(blocks);
    }

    pub(crate) fn commit_failed(&self) {
        self.commit_failures.inc();
    }
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let seconds = Buckets::exponential(1.0, 2.0, 10);
        let sizes = Buckets::exponential(1024.0 * 1024.0, 2.0, 10);
        Self {
            bytes_received: registry.counters(
                "tempo_live_store_bytes_received_total",
                "Bytes of traces taken from the log",
                ["tenant", "data_type"],
            ),
            traces_created: registry.counters(
                "tempo_live_store_traces_created_total",
                "Traces that began in the head",
                ["tenant"],
            ),
            live_traces: registry.gauges("tempo_live_store_live_traces", "Traces in the head", ["tenant"]),
            head_bytes: registry.gauge("vivace_live_store_head_bytes", "Bytes of traces in the head"),
            closing: registry.gauge("vivace_live_store_cuts_waiting", "Cuts whose blocks are not durable yet"),
            blocks_cut: registry.counters(
                "tempo_live_store_blocks_cut_total",
                "Cuts made. reason: max_block_duration, max_block_bytes (of all tenants, or max_live_traces_bytes of one), immediate (shutdown)",
                ["reason"],
            ),
            blocks_completed: registry.counter("tempo_live_store_blocks_completed_total", "Blocks written"),
            failed_completions: registry.counter(
                "tempo_live_store_failed_completions_total",
                "Attempts to write the blocks of a cut that failed and are repeated",
            ),
            completion_seconds: registry.histogram(
                "tempo_live_store_completion_duration_seconds",
                "Time to encode and store one block",
                &seconds,
            ),
            completion_bytes: registry.histogram(
                "tempo_live_store_completion_size_bytes",
                "Size of the blocks written",
                &sizes,
            ),
            discarded: registry.counters(
                "tempo_discarded_spans_total",
                "Spans that were not kept. reason: rate_limited, invalid_trace_id, invalid_span_id, trace_too_large, live_traces_exceeded",
                ["reason", "tenant"],
            ),
            quarantined: registry.counter(
                "vivace_live_store_quarantined_records_total",
                "Records set aside because they panicked their consumer or cannot be decoded, parts of traces that no block can hold, and damaged ranges of the log",
            ),
            completion_retries: registry.counter(
                "tempo_live_store_completion_retries_total",
                "Attempts to write the blocks of a cut that follow a failed one",
            ),
            queue_length: registry.gauge(
                "tempo_live_store_complete_queue_length",
                "Cuts whose blocks are not durable yet",
            ),
            back_pressure_seconds: registry.counters(
                "tempo_live_store_back_pressure_seconds_total",
                "Time during which the log was not read on. reason: waiting_for_wal (cuts wait for their blocks and the head is full)",
                ["reason"],
            ),
            back_pressure_duration: registry.histogram(
                "tempo_live_store_back_pressure_duration_seconds",
                "Length of each such wait",
                &Buckets::seconds(),
            ),
            records_processed: registry.counters(
                "tempo_live_store_records_processed_total",
                "Records of the log that were filed",
                ["tenant"],
            ),
            records_dropped: registry.counters(
                "tempo_live_store_records_dropped_total",
                "Records of the log that were not filed. reason: too_old, decoding_failed",
                ["tenant", "reason"],
            ),
            inspected: registry.counters(
                "tempo_live_store_query_inspected_bytes_total",
                "Bytes looked at for queries. op: search, search_tags, search_tag_values, trace_by_id, query_range",
                ["tenant", "op"],
            ),
        }
    }

    pub(crate) fn applied(&self, tenant: &TenantId, applied: &Applied) {
        let tenant = tenant.as_str();
        self.bytes_received.with([tenant, "trace"]).add(applied.bytes as u64);
        self.traces_created.with([tenant]).add(applied.traces_created as u64);
        for (_, discard, spans) in &applied.discarded {
            self.discarded.with([discard.reason(), tenant]).add(*spans);
        }
    }

    pub(crate) fn live(&self, state: &Partition) {
        for (tenant, traces) in state.live_traces() {
            self.live_traces.with([tenant.as_str()]).set_count(traces);
        }
        self.head_bytes.set_count(state.head_bytes());
        self.closing.set_count(state.closing().len());
        self.queue_length.set_count(state.closing().len());
    }

    pub(crate) fn processed(&self, tenant: &TenantId) {
        self.records_processed.with([tenant.as_str()]).inc();
    }

    /// `tenant` as the record has it: what cannot be one is not shown.
    pub(crate) fn dropped(&self, tenant: &[u8], reason: &str) {
        let tenant = std::str::from_utf8(tenant).ok().filter(|text| TenantId::parse(text).is_ok());
        self.records_dropped.with([tenant.unwrap_or_default(), reason]).inc();
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.back_pressure_seconds.with(["waiting_for_wal"]).add_f64(time.as_secs_f64());
        self.back_pressure_duration.observe_duration(time);
    }

    pub(crate) fn inspected(&self, tenant: &str, op: &str, bytes: u64) {
        self.inspected.with([tenant, op]).add(bytes);
    }

    pub(crate) fn cut(&self, why: &'static str) {
        self.blocks_cut.with([why]).inc();
    }

    pub(crate) fn flushed(&self, took: Duration, bytes: u64) {
        self.blocks_completed.inc();
        self.completion_seconds.observe_duration(took);
        #[expect(clippy::cast_precision_loss, reason = "a size in a histogram")]
        self.completion_bytes.observe(bytes as f64);
    }

    /// An attempt has failed; another follows.
    pub(crate) fn flush_failed(&self) {
        self.failed_completions.inc();
        self.completion_retries.inc();
    }

    pub(crate) fn quarantined(&self, records: u64) {
        self.quarantined.add(records);
    }
}

//! What the block-builder counts. Names that Tempo has are Tempo's.

use std::time::Duration;

use vivace_protocol::TenantId;
use vivace_runtime::metrics::{Buckets, Counter, Family, Gauge, Histogram, Registry};

use crate::state::Section;

/// Handles into the registry; clones count into the same series.
#[derive(Clone)]
pub(crate) struct Metrics {
    fetch_seconds: Family<Histogram, 1>,
    fetch_bytes: Family<Counter, 1>,
    fetch_records: Family<Counter, 1>,
    fetch_errors: Family<Counter, 1>,
    cycle_seconds: Histogram,
    section_seconds: Family<Histogram, 1>,
    flushed_blocks: Family<Counter, 1>,
    flush_bytes: Histogram,
    deduped: Family<Counter, 1>,
    discarded: Family<Counter, 2>,
    section_bytes: Gauge,
    commits: Family<Counter, 1>,
    copies: Counter,
    quarantined: Counter,
    lost: Counter,
    failures: Family<Counter, 1>,
}

impl Metrics {
    /// The lag of the group is the log's to tell.
    pub(crate) fn register(registry: &Registry, partitions: &[i32], state: &str) -> Self {
        let seconds = Buckets::exponential(0.001, 4.0, 10);
        let sizes = Buckets::exponential(1024.0 * 1024.0, 2.0, 10);
        let owned = registry.gauges(
            "tempo_block_builder_owned_partitions",
            "1 for each partition that this process reads",
            ["partition", "state"],
        );
        for partition in partitions {
            owned.with([&partition.to_string(), state]).set(1.0);
        }
        Self {
            fetch_seconds: registry.histograms(
                "tempo_block_builder_fetch_duration_seconds",
                "Time to get records of a partition",
                ["partition"],
                &seconds,
            ),
            fetch_bytes: registry.counters("tempo_block_builder_fetch_bytes_total", "Bytes of records read", ["partition"]),
            fetch_records: registry.counters("tempo_block_builder_fetch_records_total", "Records read", ["partition"]),
            fetch_errors: registry.counters(
                "tempo_block_builder_fetch_errors_total",
                "Reads of records that failed",
                ["partition"],
            ),
            cycle_seconds: registry.histogram(
                "tempo_block_builder_consume_cycle_duration_seconds",
                "Time of one cycle over all partitions, the rest after it left out",
                &seconds,
            ),
            section_seconds: registry.histograms(
                "tempo_block_builder_process_partition_section_duration_seconds",
                "Time to read, encode, store and commit one section",
                ["partition"],
                &seconds,
            ),
            flushed_blocks: registry.counters("tempo_block_builder_flushed_blocks", "Blocks committed", ["tenant"]),
            flush_bytes: registry.histogram("tempo_block_builder_flush_size_bytes", "Size of the blocks written", &sizes),
            deduped: registry.counters(
                "tempo_block_builder_spans_deduped_total",
                "Spans left out of a block because an equal one was in the same trace",
                ["tenant"],
            ),
            discarded: registry.counters(
                "tempo_discarded_spans_total",
                "Spans that were not kept. reason: rate_limited, invalid_trace_id, invalid_span_id, trace_too_large, live_traces_exceeded",
                ["reason", "tenant"],
            ),
            section_bytes: registry.gauge("vivace_block_builder_section_bytes", "Bytes of the section in memory"),
            commits: registry.counters(
                "vivace_block_builder_commits_total",
                "Sections committed. outcome: won, lost (to another builder)",
                ["outcome"],
            ),
            copies: registry.counter("vivace_block_builder_duplicate_records_total", "Records that a producer sent again"),
            quarantined: registry.counter(
                "vivace_block_builder_quarantined_records_total",
                "Records, or traces in them, set aside because they cannot be read or panic their reader",
            ),
            lost: registry.counter("vivace_block_builder_lost_records_total", "Offsets that the log did not have any more"),
            failures: registry.counters(
                "vivace_block_builder_failures_total",
                "Attempts that failed and are made again. step: read, write, commit",
                ["step"],
            ),
        }
    }

    pub(crate) fn fetched(&self, partition: i32, took: Duration, records: usize, bytes: usize) {
        let partition = partition.to_string();
        self.fetch_seconds.with([&partition]).observe_duration(took);
        self.fetch_records.with([&partition]).add(records as u64);
        self.fetch_bytes.with([&partition]).add(bytes as u64);
    }

    pub(crate) fn fetch_failed(&self, partition: i32) {
        self.fetch_errors.with([&partition.to_string()]).inc();
    }

    pub(crate) fn holds(&self, bytes: usize) {
        self.section_bytes.set_count(bytes);
    }

    pub(crate) fn cycle(&self, took: Duration) {
        self.cycle_seconds.observe_duration(took);
    }

    pub(crate) fn section(&self, partition: i32, took: Duration, section: &Section, won: bool) {
        self.section_seconds.with([&partition.to_string()]).observe_duration(took);
        self.commits.with([if won { "won" } else { "lost" }]).inc();
        if won {
            self.copies.add(section.copies);
            self.lost.add(section.lost.iter().map(|lost| lost.end - lost.first).sum());
        }
    }

    pub(crate) fn block(&self, tenant: &str, bytes: u64) {
        self.flushed_blocks.with([tenant]).inc();
        #[expect(clippy::cast_precision_loss, reason = "a size in a histogram")]
        self.flush_bytes.observe(bytes as f64);
    }

    pub(crate) fn deduped(&self, tenant: &TenantId, spans: u64) {
        self.deduped.with([tenant.as_str()]).add(spans);
    }

    pub(crate) fn too_large(&self, tenant: &TenantId, spans: u64) {
        self.discarded.with(["trace_too_large", tenant.as_str()]).add(spans);
    }

    pub(crate) fn quarantined(&self, records: usize) {
        self.quarantined.add(records as u64);
    }

    pub(crate) fn failed(&self, step: &str) {
        self.failures.with([step]).inc();
    }
}

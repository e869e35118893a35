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
                "Cuts made. reason: due, immediate (shutdown)",
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
                "Records set aside because they panicked their consumer or cannot be decoded, and damaged ranges of the log",
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
    }

    pub(crate) fn cut(&self, everything: bool) {
        self.blocks_cut.with([if everything { "immediate" } else { "due" }]).inc();
    }

    pub(crate) fn flushed(&self, took: Duration, bytes: u64) {
        self.blocks_completed.inc();
        self.completion_seconds.observe_duration(took);
        #[expect(clippy::cast_precision_loss, reason = "a size in a histogram")]
        self.completion_bytes.observe(bytes as f64);
    }

    pub(crate) fn flush_failed(&self) {
        self.failed_completions.inc();
    }

    pub(crate) fn quarantined(&self, records: u64) {
        self.quarantined.add(records);
    }
}

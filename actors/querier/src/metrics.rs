//! What the querier counts. Names that Tempo has are Tempo's.

use vivace_runtime::metrics::{Counter, Family, Gauge, Registry};

/// Handles into the registry; clones count into the same series.
#[derive(Clone)]
pub(crate) struct Metrics {
    blocklist: Family<Gauge, 1>,
    compacted: Family<Gauge, 1>,
    poll_errors: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        Self {
            blocklist: registry.gauges("tempodb_blocklist_length", "Live blocks", ["tenant"]),
            compacted: registry.gauges(
                "tempodb_compacted_blocklist_length",
                "Compacted blocks that are not deleted yet",
                ["tenant"],
            ),
            poll_errors: registry
                .counter("vivace_querier_blocklist_poll_errors_total", "Polls of the blocklist that failed"),
        }
    }

    pub(crate) fn blocklist(&self, tenant: &str, live: usize, compacted: usize) {
        self.blocklist.with([tenant]).set_count(live);
        self.compacted.with([tenant]).set_count(compacted);
    }

    pub(crate) fn poll_failed(&self) {
        self.poll_errors.inc();
    }
}

/// What the router to live-stores counts.
#[derive(Clone)]
pub(crate) struct RingMetrics {
    asked: Family<Counter, 1>,
}

impl RingMetrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        Self {
            asked: registry.counters(
                "vivace_querier_live_store_requests_total",
                "Answers of live-stores by result: whole, partial (it says that it lacks something), failed; and hedged, asked \
                 because another was slow",
                ["result"],
            ),
        }
    }

    pub(crate) fn asked(&self, result: &str) {
        self.asked.with([result]).inc();
    }
}

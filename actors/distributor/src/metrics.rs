//! What the distributor measures, under Tempo's names where dashboards know them.

use std::time::Duration;

use vivace_protocol::TenantId;
use vivace_protocol::slicer::Truncated;
use vivace_runtime::metrics::{Buckets, Counter, Family, Histogram, Registry};

/// Metrics of one distributor. Clones share the values.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    accepted_spans: Family<Counter, 2>,
    refused_spans: Family<Counter, 2>,
    push_seconds: Histogram,
    ingress_bytes: Family<Counter, 1>,
    received_bytes: Family<Counter, 1>,
    received_spans: Family<Counter, 1>,
    discarded_spans: Family<Counter, 2>,
    truncated_attributes: Family<Counter, 2>,
    repaired_texts: Family<Counter, 1>,
    traces_per_batch: Histogram,
    records_per_request: Histogram,
    added_latency_seconds: Family<Histogram, 1>,
    turned_away: Family<Counter, 1>,
}

/// Why a request was turned away although nothing is wrong with it; its sender was told to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// The byte budget or a mailbox was full.
    Overloaded,
    /// The log could not store it, or nobody applies what it stores.
    LogUnavailable,
    /// The outcome was not known in time.
    Deadline,
    /// The distributor is stopping.
    Stopping,
}

impl TurnedAway {
    const fn word(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::LogUnavailable => "log_unavailable",
            Self::Deadline => "deadline",
            Self::Stopping => "stopping",
        }
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            accepted_spans: registry.counters(
                "tempo_receiver_accepted_spans",
                "Spans that a receiver passed on successfully.",
                ["receiver", "transport"],
            ),
            refused_spans: registry.counters(
                "tempo_receiver_refused_spans",
                "Spans that a receiver could not pass on.",
                ["receiver", "transport"],
            ),
            push_seconds: registry.histogram(
                "tempo_distributor_push_duration_seconds",
                "Time from a request's arrival to its answer, waiting for the log included.",
                &Buckets::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            ),
            ingress_bytes: registry.counters(
                "tempo_distributor_ingress_bytes_total",
                "Bytes received, refused requests included.",
                ["tenant"],
            ),
            received_bytes: registry.counters(
                "tempo_distributor_bytes_received_total",
                "Bytes received within the rate limit.",
                ["tenant"],
            ),
            received_spans: registry.counters(
                "tempo_distributor_spans_received_total",
                "Spans received within the rate limit.",
                ["tenant"],
            ),
            discarded_spans: registry.counters(
                "tempo_discarded_spans_total",
                "Spans that were dropped for good, by reason.",
                ["reason", "tenant"],
            ),
            truncated_attributes: registry.counters(
                "tempo_distributor_attributes_truncated_total",
                "Attribute keys and values that were cut; scope is resource, scope, span, event or link.",
                ["tenant", "scope"],
            ),
            repaired_texts: registry.counters(
                "vivace_distributor_texts_repaired_total",
                "Texts that were not UTF-8 and were repaired.",
                ["tenant"],
            ),
            traces_per_batch: registry.histogram(
                "tempo_distributor_traces_per_batch",
                "Traces that a request had spans of.",
                &Buckets::exponential(2.0, 2.0, 10),
            ),
            records_per_request: registry.histogram(
                "tempo_distributor_kafka_records_per_request",
                "Records that a request became in one of its partitions: more than 1 where it was split.",
                &Buckets::exponential(1.0, 2.0, 8),
            ),
            added_latency_seconds: registry.histograms(
                "tempo_distributor_added_latency_seconds",
                "Time that requests were held back by artificial_delay.",
                ["tenant"],
                &Buckets::exponential(0.005, 2.0, 12),
            ),
            turned_away: registry.counters(
                "vivace_distributor_requests_turned_away_total",
                "Requests whose sender was told to try again; reason is overloaded, log_unavailable, deadline or stopping.",
                ["reason"],
            ),
        }
    }

    /// The two counters of one receiver; they are there, at zero, from the start.
    pub(crate) fn receiver(&self, id: &str, transport: &'static str) -> ReceiverMetrics {
        // `otlp` and `otlp/a` are both the OTLP receiver, and dashboards know it by this name.
        let kind = id.split('/').next().unwrap_or(id);
        let receiver = format!("{kind}/{kind}_receiver");
        ReceiverMetrics {
            accepted_spans: self.accepted_spans.with([&receiver, transport]),
            refused_spans: self.refused_spans.with([&receiver, transport]),
        }
    }

    pub(crate) fn ingress(&self, tenant: &TenantId, bytes: usize) {
        self.ingress_bytes.with([tenant.as_str()]).add(bytes as u64);
    }

    pub(crate) fn received(&self, tenant: &TenantId, bytes: usize, spans: usize) {
        self.received_bytes.with([tenant.as_str()]).add(bytes as u64);
        self.received_spans.with([tenant.as_str()]).add(spans as u64);
    }

    pub(crate) fn discarded(&self, tenant: &TenantId, reason: &'static str, spans: usize) {
        self.discarded_spans.with([reason, tenant.as_str()]).add(spans as u64);
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms take floats; counts are far below 2^53")]
    pub(crate) fn sliced(&self, tenant: &TenantId, traces: usize, truncated: Truncated, repaired: usize) {
        self.traces_per_batch.observe(traces as f64);
        if repaired > 0 {
            self.repaired_texts.with([tenant.as_str()]).add(repaired as u64);
        }
        let scopes = [
            ("resource", truncated.resource),
            ("scope", truncated.scope),
            ("span", truncated.span),
            ("event", truncated.event),
            ("link", truncated.link),
        ];
        for (scope, count) in scopes.into_iter().filter(|(_, count)| *count > 0) {
            self.truncated_attributes.with([tenant.as_str(), scope]).add(count);
        }
    }

    pub(crate) fn pushed(&self, took: Duration) {
        self.push_seconds.observe_duration(took);
    }

    /// A request was divided over partitions.
    pub(crate) fn divided(&self, records_per_partition: &[usize]) {
        for records in records_per_partition {
            self.records_per_request.observe(*records as f64);
        }
    }

    pub(crate) fn delayed(&self, tenant: &TenantId, by: Duration) {
        self.added_latency_seconds.with([tenant.as_str()]).observe_duration(by);
    }

    pub(crate) fn turned_away(&self, why: TurnedAway) {
        self.turned_away.with([why.word()]).inc();
    }
}

/// The counters of one receiver.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverMetrics {
    accepted_spans: Counter,
    refused_spans: Counter,
}

impl ReceiverMetrics {
    pub(crate) fn count<E>(&self, spans: usize, result: &Result<(), E>) {
        let counter = if result.is_ok() { &self.accepted_spans } else { &self.refused_spans };
        counter.add(spans as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_that_dashboards_know() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let tenant = TenantId::single();
        metrics.receiver("otlp/a", "grpc").count(3, &Ok::<_, ()>(()));
        metrics.ingress(&tenant, 5);
        metrics.received(&tenant, 5, 3);
        metrics.discarded(&tenant, "rate_limited", 2);
        metrics.sliced(&tenant, 1, Truncated { span: 4, ..Truncated::default() }, 1);
        metrics.delayed(&tenant, Duration::from_millis(1));
        metrics.turned_away(TurnedAway::Overloaded);
        let text = registry.render();
        for line in [
            "tempo_receiver_accepted_spans{receiver=\"otlp/otlp_receiver\",transport=\"grpc\"} 3",
            "tempo_receiver_refused_spans{receiver=\"otlp/otlp_receiver\",transport=\"grpc\"} 0",
            "tempo_distributor_ingress_bytes_total{tenant=\"single-tenant\"} 5",
            "tempo_distributor_bytes_received_total{tenant=\"single-tenant\"} 5",
            "tempo_distributor_spans_received_total{tenant=\"single-tenant\"} 3",
            "tempo_discarded_spans_total{reason=\"rate_limited\",tenant=\"single-tenant\"} 2",
            "tempo_distributor_attributes_truncated_total{tenant=\"single-tenant\",scope=\"span\"} 4",
            "tempo_distributor_traces_per_batch_bucket{le=\"1024\"} 1",
            "tempo_distributor_push_duration_seconds_count 0",
            "tempo_distributor_added_latency_seconds_count{tenant=\"single-tenant\"} 1",
            "vivace_distributor_requests_turned_away_total{reason=\"overloaded\"} 1",
            "vivace_distributor_texts_repaired_total{tenant=\"single-tenant\"} 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\nin\n{text}");
        }
    }
}

//! What is said of single spans, for debugging: `log_received_spans`, `log_discarded_spans`, `metric_received_spans`.
//!
//! Everything is off unless configured; then requests are decoded once more for it, where they are sliced. A request that
//! cannot be decoded says nothing here: its sender hears what is wrong with it.

use std::collections::HashSet;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use vivace_protocol::TenantId;
use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value};
use vivace_protocol::otlp::trace::{Span, status};
use vivace_runtime::metrics::{Counter, Family, Registry};

use crate::config::{Config, LogSpansConfig};

/// Names come from clients: what is beyond so many series is counted together.
const MAX_SERIES: usize = 10_000;
/// The labels of what is beyond.
const OVERFLOW: &str = "__overflow__";

/// Why a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Received,
    Discarded(&'static str),
}

/// The switches.
#[derive(Debug)]
pub(crate) struct SpanDebug {
    received: LogSpansConfig,
    discarded: LogSpansConfig,
    counted: Option<SpanCounter>,
}

impl SpanDebug {
    pub(crate) fn new(config: &Config, registry: &Registry) -> Self {
        let metric = &config.metric_received_spans;
        Self {
            received: config.log_received_spans.clone(),
            discarded: config.log_discarded_spans.clone(),
            counted: metric.enabled.then(|| SpanCounter::new(registry, metric.root_only)),
        }
    }

    /// Spans of a request that passed the rate limit.
    pub(crate) fn received(&self, tenant: &TenantId, request: &Bytes) {
        if !self.received.enabled && self.counted.is_none() {
            return;
        }
        each_span(request, |resource, service, span| {
            if self.received.enabled {
                log(&self.received, Why::Received, tenant, resource, service, span);
            }
            if let Some(counted) = &self.counted {
                counted.count(tenant, service, span);
            }
        });
    }

    /// Whether [`SpanDebug::discarded`] does anything.
    pub(crate) fn tells_discarded(&self) -> bool {
        self.discarded.enabled
    }

    /// Spans of a request that is refused for good, or until its sender slows down.
    pub(crate) fn discarded(&self, tenant: &TenantId, reason: &'static str, request: &Bytes) {
        if self.discarded.enabled {
            each_span(request, |resource, service, span| {
                log(&self.discarded, Why::Discarded(reason), tenant, resource, service, span);
            });
        }
    }
}

/// Calls `f` with every span, the attributes of its resource and the name of its service.
fn each_span(request: &Bytes, mut f: impl FnMut(&[KeyValue], &str, &Span)) {
    let Ok(request) = ExportTraceServiceRequest::decode(request.clone()) else { return };
    for resource_spans in &request.resource_spans {
        let resource = resource_spans.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let service = resource.iter().find(|attribute| attribute.key == "service.name");
        let service = service.and_then(|attribute| attribute.value.as_ref()).map(text).unwrap_or_default();
        for span in resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans) {
            f(resource, &service, span);
        }
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: &AnyValue) -> String {
    use any_value::Value;
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::BytesValue(bytes)) => hex(bytes),
        Some(Value::ArrayValue(list)) => format!("[{}]", list.values.iter().map(text).collect::<Vec<_>>().join(",")),
        Some(Value::KvlistValue(list)) => format!("{{{}}}", pairs(&list.values)),
        _ => String::new(),
    }
}

fn pairs(attributes: &[KeyValue]) -> String {
    let pair =
        |attribute: &KeyValue| format!("{}={}", attribute.key, attribute.value.as_ref().map(text).unwrap_or_default());
    attributes.iter().map(pair).collect::<Vec<_>>().join(",")
}

fn log(how: &LogSpansConfig, why: Why, tenant: &TenantId, resource: &[KeyValue], service: &str, span: &Span) {
    let failed = span.status.as_ref().is_some_and(|status| status.code == i32::from(status::StatusCode::Error));
    if how.filter_by_status_error && !failed {
        return;
    }
    let (word, reason) = match why {
        Why::Received => ("received", None),
        Why::Discarded(reason) => ("discarded", Some(reason)),
    };
    let (tenant, traceid, spanid) = (tenant.as_str(), hex(&span.trace_id), hex(&span.span_id));
    if !how.include_all_attributes {
        return tracing::info!(tenant, traceid, spanid, reason, "span {word}");
    }
    let status = span.status.as_ref().map(|status| status.code().as_str_name()).unwrap_or_default();
    tracing::info!(
        tenant,
        traceid,
        spanid,
        reason,
        service,
        name = span.name,
        kind = span.kind().as_str_name(),
        status,
        duration_ns = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        resource = pairs(resource),
        attributes = pairs(&span.attributes),
        "span {word}"
    );
}

/// Counts spans by service and name.
#[derive(Debug)]
struct SpanCounter {
    root_only: bool,
    spans: Family<Counter, 3>,
    seen: Mutex<HashSet<(String, String, String)>>,
}

impl SpanCounter {
    fn new(registry: &Registry, root_only: bool) -> Self {
        let spans = registry.counters(
            "tempo_distributor_debug_spans_received_total",
            "Spans received, for debugging. Beyond 10000 combinations name and service are __overflow__.",
            ["tenant", "name", "service"],
        );
        Self { root_only, spans, seen: Mutex::default() }
    }

    fn count(&self, tenant: &TenantId, service: &str, span: &Span) {
        if self.root_only && !span.parent_span_id.is_empty() {
            return;
        }
        let known = {
            let mut seen = self.seen.lock();
            let key = (tenant.to_string(), span.name.clone(), service.to_owned());
            seen.contains(&key) || (seen.len() < MAX_SERIES && seen.insert(key))
        };
        let (name, service) = if known { (span.name.as_str(), service) } else { (OVERFLOW, OVERFLOW) };
        self.spans.with([tenant.as_str(), name, service]).inc();
    }
}

#[cfg(test)]
mod tests {
    use vivace_protocol::otlp::resource::Resource;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans};

    use super::*;
    use crate::config::MetricSpansConfig;

    fn request(spans: Vec<Span>) -> Bytes {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue("shop".into())) });
        let service = KeyValue { key: "service.name".into(), value, ..KeyValue::default() };
        let resource_spans = ResourceSpans {
            resource: Some(Resource { attributes: vec![service], ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
    }

    fn span(name: &str) -> Span {
        Span { name: name.into(), trace_id: vec![1; 16], span_id: vec![0xab; 8], ..Span::default() }
    }

    fn counting(root_only: bool) -> (SpanDebug, Registry) {
        let registry = Registry::new();
        let metric_received_spans = MetricSpansConfig { enabled: true, root_only };
        (SpanDebug::new(&Config { metric_received_spans, ..Config::default() }, &registry), registry)
    }

    #[test]
    fn spans_are_counted_by_name_and_service_and_only_roots_if_asked() {
        for (root_only, children) in [(false, true), (true, false)] {
            let (debug, registry) = counting(root_only);
            let child = Span { parent_span_id: vec![1; 8], ..span("child") };
            debug.received(&TenantId::single(), &request(vec![span("root"), span("root"), child]));
            debug.received(&TenantId::single(), &Bytes::from_static(b"\xff"));
            let text = registry.render();
            let line = |name: &str, count: u8| {
                format!(
                    "tempo_distributor_debug_spans_received_total{{tenant=\"single-tenant\",name=\"{name}\",\
                     service=\"shop\"}} {count}"
                )
            };
            assert!(text.contains(&line("root", 2)), "{text}");
            assert_eq!(text.contains(&line("child", 1)), children, "{text}");
        }
    }

    /// Keeps what is logged on this thread.
    #[derive(Clone, Default)]
    struct Recorder(std::sync::Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Recorder {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().push(fields.0);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    struct Fields(String);

    impl tracing::field::Visit for Fields {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0.push_str(&format!("{}={value:?} ", field.name()));
        }
    }

    #[test]
    fn spans_are_logged_as_configured() {
        let failed = vivace_protocol::otlp::trace::Status { code: 2, ..Default::default() };
        let spans = request(vec![span("good"), Span { status: Some(failed), ..span("bad") }]);
        let lines = |received: LogSpansConfig, discarded: LogSpansConfig| {
            let config = Config { log_received_spans: received, log_discarded_spans: discarded, ..Config::default() };
            let debug = SpanDebug::new(&config, &Registry::new());
            let recorder = Recorder::default();
            tracing::subscriber::with_default(recorder.clone(), || {
                debug.received(&TenantId::single(), &spans);
                debug.discarded(&TenantId::single(), "rate_limited", &spans);
            });
            recorder.0.lock().clone()
        };
        let off = LogSpansConfig::default;
        assert_eq!(lines(off(), off()), Vec::<String>::new());
        let plain = lines(LogSpansConfig { enabled: true, ..off() }, off());
        assert_eq!(plain.len(), 2);
        assert!(plain[0].contains("span received") && plain[0].contains("spanid=\"abababababababab\""), "{}", plain[0]);
        assert!(!plain[0].contains("service"), "{}", plain[0]);
        let whole = LogSpansConfig { enabled: true, include_all_attributes: true, filter_by_status_error: true };
        let failed = lines(off(), whole);
        assert_eq!(failed.len(), 1);
        for part in
            ["span discarded", "reason=\"rate_limited\"", "name=\"bad\"", "service=\"shop\"", "STATUS_CODE_ERROR"]
        {
            assert!(failed[0].contains(part), "{part} in {}", failed[0]);
        }
    }

    #[test]
    fn series_are_bounded() {
        let (debug, registry) = counting(false);
        for n in 0..MAX_SERIES + 5 {
            debug.received(&TenantId::single(), &request(vec![span(&n.to_string())]));
        }
        let text = registry.render();
        assert!(text.contains("name=\"__overflow__\",service=\"__overflow__\"} 5"), "{}", text.len());
        assert!(text.contains("name=\"9999\"") && !text.contains("name=\"10000\""));
    }

    #[test]
    fn values_of_every_kind_are_printed() {
        use any_value::Value;
        let value = |value| AnyValue { value: Some(value) };
        let list = vivace_protocol::otlp::common::ArrayValue {
            values: vec![value(Value::IntValue(1)), value(Value::BoolValue(true))],
        };
        let pair = |key: &str, inner| KeyValue { key: key.into(), value: Some(value(inner)), ..KeyValue::default() };
        let map = vivace_protocol::otlp::common::KeyValueList { values: vec![pair("k", Value::DoubleValue(0.5))] };
        let attributes = [
            pair("a", Value::StringValue("x y".into())),
            pair("b", Value::ArrayValue(list)),
            pair("c", Value::KvlistValue(map)),
            pair("d", Value::BytesValue(vec![0xab, 1])),
            KeyValue { key: "e".into(), ..KeyValue::default() },
        ];
        assert_eq!(pairs(&attributes), "a=x y,b=[1,true],c={k=0.5},d=ab01,e=");
    }
}

//! Generated traces: realistic enough to compress like real ones, and cheap enough to send from the same two cores.
//!
//! A [`Template`] is one encoded OTLP request whose ids and times are patched in place for every send, so the client's
//! cost is a few nanoseconds a span. Ids follow from (seed, sequence number): a ledger needs only the numbers.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const SERVICES: [&str; 12] = [
    "frontend",
    "checkout",
    "cart",
    "payment",
    "shipping",
    "catalog",
    "currency",
    "email",
    "quote",
    "accounting",
    "recommendation",
    "ad",
];
const ROUTES: [&str; 16] = [
    "/api/cart",
    "/api/checkout",
    "/api/products/{id}",
    "/api/products",
    "/api/recommendations",
    "/api/currency",
    "/api/shipping/quote",
    "/api/payment/charge",
    "/api/data",
    "/api/user/{id}",
    "/api/orders",
    "/api/orders/{id}",
    "/healthz",
    "/",
    "/static/app.js",
    "/api/search",
];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// Number of attributes on every span.
pub const ATTRIBUTES: usize = 13;

/// One OTLP request with the places of its ids and times.
#[derive(Debug, Clone)]
pub struct Template {
    body: Vec<u8>,
    /// Per span: where its trace id, span id, parent id (if any), start and end stand in the body.
    spans: Vec<Places>,
    traces: usize,
}

#[derive(Debug, Clone)]
struct Places {
    trace: usize,
    index: u32,
    trace_id: usize,
    span_id: usize,
    parent: Option<(usize, u32)>,
    start: usize,
    end: usize,
    offset_ns: u64,
    duration_ns: u64,
}

/// The trace id of trace `index` of request `sequence`.
#[must_use]
pub fn trace_id(seed: u64, sequence: u64, index: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mix(seed ^ mix(sequence)).to_be_bytes());
    id[8..].copy_from_slice(&mix(seed.rotate_left(17) ^ (sequence << 20) ^ index as u64).to_be_bytes());
    id
}

/// The span id of span `index` of its trace.
#[must_use]
pub fn span_id(trace: &[u8; 16], index: u32) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&trace[8..]);
    (mix(u64::from_be_bytes(half) ^ u64::from(index)) | 1).to_be_bytes()
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Template {
    /// A request of about `spans` spans, eight to a trace, spread over the services.
    #[must_use]
    pub fn new(seed: u64, spans: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let traces = spans.div_ceil(8);
        // Spans of one service share a resource, as an agent's batch does.
        let mut by_service: Vec<Vec<(usize, u32)>> = vec![Vec::new(); SERVICES.len()];
        for trace in 0..traces {
            for index in 0..8u32.min(u32::try_from(spans - trace * 8).unwrap_or(8)) {
                by_service[rng.random_range(0..SERVICES.len())].push((trace, index));
            }
        }
        let mut body = Vec::with_capacity(spans * 500);
        let mut places = Vec::with_capacity(spans);
        for (service, members) in by_service.iter().enumerate().filter(|(_, m)| !m.is_empty()) {
            let mut scope_spans = field_bytes(1, &scope());
            let mut base = Vec::new();
            for (trace, index) in members {
                let (span, place) = span(&mut rng, *trace, *index);
                let mut framed = Vec::new();
                put_tag(&mut framed, 2, 2);
                put_varint(&mut framed, span.len() as u64);
                base.push((scope_spans.len() + framed.len(), place));
                scope_spans.extend_from_slice(&framed);
                scope_spans.extend_from_slice(&span);
            }
            let mut resource_spans = field_bytes(1, &resource(service, &mut rng));
            put_tag(&mut resource_spans, 2, 2);
            put_varint(&mut resource_spans, scope_spans.len() as u64);
            let inner = resource_spans.len();
            resource_spans.extend_from_slice(&scope_spans);
            put_tag(&mut body, 1, 2);
            put_varint(&mut body, resource_spans.len() as u64);
            let outer = body.len() + inner;
            body.extend_from_slice(&resource_spans);
            for (offset, mut place) in base {
                let shift = outer + offset;
                place.trace_id += shift;
                place.span_id += shift;
                place.start += shift;
                place.end += shift;
                place.parent = place.parent.map(|(at, parent)| (at + shift, parent));
                places.push(place);
            }
        }
        Self { body, spans: places, traces }
    }

    /// Number of spans in the request.
    #[must_use]
    pub fn span_count(&self) -> usize {
        self.spans.len()
    }

    /// Number of traces in the request.
    #[must_use]
    pub fn trace_count(&self) -> usize {
        self.traces
    }

    /// Spans of one of its traces.
    #[must_use]
    pub fn spans_of(&self, trace: usize) -> Vec<u32> {
        let mut spans: Vec<u32> = self.spans.iter().filter(|p| p.trace == trace).map(|p| p.index).collect();
        spans.sort_unstable();
        spans
    }

    /// The request with the ids of (seed, sequence) and times from `now_ns` on.
    pub fn fill(&mut self, seed: u64, sequence: u64, now_ns: u64) -> &[u8] {
        for place in &self.spans {
            let trace = trace_id(seed, sequence, place.trace);
            self.body[place.trace_id..place.trace_id + 16].copy_from_slice(&trace);
            self.body[place.span_id..place.span_id + 8].copy_from_slice(&span_id(&trace, place.index));
            if let Some((at, parent)) = place.parent {
                self.body[at..at + 8].copy_from_slice(&span_id(&trace, parent));
            }
            let start = now_ns + place.offset_ns;
            self.body[place.start..place.start + 8].copy_from_slice(&start.to_le_bytes());
            let end = start + place.duration_ns;
            self.body[place.end..place.end + 8].copy_from_slice(&end.to_le_bytes());
        }
        &self.body
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn put_tag(out: &mut Vec<u8>, field: u64, wire: u64) {
    put_varint(out, field << 3 | wire);
}

fn field_bytes(field: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 4);
    put_tag(&mut out, field, 2);
    put_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn field_varint(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_tag(&mut out, field, 0);
    put_varint(&mut out, value);
    out
}

fn text(key: &str, value: &str) -> Vec<u8> {
    [field_bytes(1, key.as_bytes()), field_bytes(2, &field_bytes(1, value.as_bytes()))].concat()
}

fn int(key: &str, value: u64) -> Vec<u8> {
    [field_bytes(1, key.as_bytes()), field_bytes(2, &field_varint(3, value))].concat()
}

fn flag(key: &str, value: bool) -> Vec<u8> {
    [field_bytes(1, key.as_bytes()), field_bytes(2, &field_varint(2, u64::from(value)))].concat()
}

fn double(key: &str, value: f64) -> Vec<u8> {
    let mut inner = Vec::new();
    put_tag(&mut inner, 4, 1);
    inner.extend_from_slice(&value.to_le_bytes());
    [field_bytes(1, key.as_bytes()), field_bytes(2, &inner)].concat()
}

fn resource(service: usize, rng: &mut impl Rng) -> Vec<u8> {
    let pod = format!("{}-{:04x}", SERVICES[service], rng.random_range(0..4u16));
    [
        text("service.name", SERVICES[service]),
        text("service.version", "1.14.2"),
        text("k8s.cluster.name", "eu-west-1a"),
        text("k8s.namespace.name", "shop"),
        text("k8s.pod.name", &pod),
        text("deployment.environment", "prod"),
    ]
    .iter()
    .flat_map(|attribute| field_bytes(1, attribute))
    .collect()
}

fn scope() -> Vec<u8> {
    [field_bytes(1, b"shop.instrumentation"), field_bytes(2, b"0.58.0")].concat()
}

fn span(rng: &mut impl Rng, trace: usize, index: u32) -> (Vec<u8>, Places) {
    let route = ROUTES[rng.random_range(0..ROUTES.len())];
    let method = METHODS[rng.random_range(0..METHODS.len())];
    let status = [200, 200, 200, 200, 200, 201, 204, 304, 404, 500][rng.random_range(0..10usize)];
    let user: u32 = rng.random_range(0..20_000);
    let mut out = Vec::with_capacity(480);
    let mut place = Places {
        trace,
        index,
        trace_id: 2,
        span_id: 0,
        parent: None,
        start: 0,
        end: 0,
        offset_ns: u64::from(index) * 250_000 + rng.random_range(0..200_000),
        duration_ns: rng.random_range(50_000..90_000_000),
    };
    out.extend_from_slice(&field_bytes(1, &[0; 16]));
    place.span_id = out.len() + 2;
    out.extend_from_slice(&field_bytes(2, &[0; 8]));
    if index > 0 {
        place.parent = Some((out.len() + 2, rng.random_range(0..index)));
        out.extend_from_slice(&field_bytes(4, &[0; 8]));
    }
    out.extend_from_slice(&field_bytes(5, format!("{method} {route}").as_bytes()));
    out.extend_from_slice(&field_varint(6, if index == 0 { 2 } else { rng.random_range(1..6) }));
    place.start = out.len() + 1;
    put_tag(&mut out, 7, 1);
    out.extend_from_slice(&[0; 8]);
    place.end = out.len() + 1;
    put_tag(&mut out, 8, 1);
    out.extend_from_slice(&[0; 8]);
    let attributes = [
        text("http.request.method", method),
        text("http.route", route),
        int("http.response.status_code", status),
        text("url.path", &route.replace("{id}", &user.to_string())),
        text("server.address", "shop.example.com"),
        int("server.port", 8080),
        text("network.protocol.version", "1.1"),
        text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
        text("app.user.id", &format!("user-{user:05}")),
        flag("app.cache.hit", rng.random_range(0..3u8) == 0),
        double("app.cart.value", f64::from(rng.random_range(0..20_000u32)) / 100.0),
        int("thread.id", rng.random_range(1..64)),
        text("thread.name", "worker"),
    ];
    debug_assert_eq!(attributes.len(), ATTRIBUTES);
    for attribute in &attributes {
        out.extend_from_slice(&field_bytes(9, attribute));
    }
    if status >= 500 {
        let kind = ["TimeoutError", "ConnectionRefused", "OutOfStock"][rng.random_range(0..3usize)];
        let event = [field_bytes(2, b"exception"), field_bytes(3, &text("exception.type", kind))].concat();
        out.extend_from_slice(&field_bytes(11, &event));
        out.extend_from_slice(&field_bytes(15, &field_varint(3, 2)));
    }
    (out, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_size_that_figures_are_quoted_for() {
        let template = Template::new(1, 500);
        assert_eq!(template.span_count(), 500);
        let per_span = template.body.len() / 500;
        assert!((440..500).contains(&per_span), "{per_span} bytes a span");
    }

    #[test]
    fn a_filled_request_decodes_to_the_ids_that_a_ledger_expects() {
        use prost::Message;
        let mut template = Template::new(3, 100);
        let body = template.fill(7, 42, 1_700_000_000_000_000_000).to_vec();
        let request = vivace_protocol::otlp::collector::ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let mut seen: Vec<(Vec<u8>, Vec<u8>)> = request
            .resource_spans
            .iter()
            .flat_map(|r| &r.scope_spans)
            .flat_map(|s| &s.spans)
            .map(|s| (s.trace_id.to_vec(), s.span_id.to_vec()))
            .collect();
        let mut expected: Vec<(Vec<u8>, Vec<u8>)> = (0..template.trace_count())
            .flat_map(|t| {
                let id = trace_id(7, 42, t);
                template.spans_of(t).into_iter().map(move |s| (id.to_vec(), span_id(&id, s).to_vec()))
            })
            .collect();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
    }
}

//! One trace of any number of spans: the requests that write it, and a list of those that an answer has brought.

use anyhow::ensure;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value};
use vivace_protocol::otlp::resource::Resource;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::tempopb::Trace;
use vivace_protocol::trace_walk::{SpanHead, for_each_span};
use vivace_protocol::wire::WireError;

/// The trace's id.
pub(crate) const ID: &str = "0af7651916cd43dd8448eb211c80319c";
const ID_BYTES: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
/// Spans of one request.
pub(crate) const PER_REQUEST: u64 = 500;
/// From the start of one span to that of the next, nanoseconds.
const STEP_NS: u64 = 1000;

/// Makes the requests. Span `n` (from 1) has the id `n` and is a child of span `n / 8`; its attributes do not compress well.
pub(crate) struct Requests {
    rng: StdRng,
    begin_ns: u64,
    spans: u64,
    next: u64,
}

impl Requests {
    pub(crate) fn new(spans: u64, begin_ns: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(1), begin_ns, spans, next: 1 }
    }

    /// The text of an attribute that only span `n` has.
    pub(crate) fn text_of(n: u64) -> String {
        format!("seq-{n:08}")
    }

    fn span(&mut self, n: u64) -> Span {
        let (route, user) = (n % 16, self.rng.random_range(0..20_000_u32));
        let digest = [(); 4].map(|()| format!("{:016x}", self.rng.next_u64())).concat();
        let statement = format!(
            "select * from orders where id = {:08x} and customer = {:08x}",
            self.rng.next_u32(),
            self.rng.next_u32()
        );
        let start = self.begin_ns + n * STEP_NS;
        Span {
            trace_id: ID_BYTES.to_be_bytes().to_vec(),
            span_id: n.to_be_bytes().to_vec(),
            parent_span_id: if n == 1 { Vec::new() } else { (n / 8).max(1).to_be_bytes().to_vec() },
            name: format!("GET /api/{route}"),
            kind: 2,
            start_time_unix_nano: start,
            end_time_unix_nano: start + 50_000_000,
            attributes: vec![
                text("http.request.method", "GET".to_owned()),
                text("http.route", format!("/api/{route}")),
                text("url.path", format!("/api/{route}/{user}")),
                text("server.address", "shop.example.com".to_owned()),
                text("network.protocol.version", "1.1".to_owned()),
                text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)".to_owned()),
                text("app.user.id", format!("user-{user:05}")),
                text("thread.name", format!("worker-{}", n % 64)),
                text("app.seq", Self::text_of(n)),
                text("request.digest", digest),
                text("db.statement", statement),
            ],
            ..Span::default()
        }
    }
}

impl Iterator for Requests {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = (self.next + PER_REQUEST).min(self.spans + 1);
        if self.next >= end {
            return None;
        }
        let numbers = self.next..end;
        self.next = end;
        let spans = numbers.map(|n| self.span(n)).collect();
        let resource = Resource { attributes: vec![text("service.name", "giant".to_owned())], ..Resource::default() };
        let scopes = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource = ResourceSpans { resource: Some(resource), scope_spans: scopes, ..ResourceSpans::default() };
        Some(Trace { resource_spans: vec![resource] }.encode_to_vec())
    }
}

fn text(key: &str, value: String) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value)) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// Which spans have come.
#[derive(Debug)]
pub(crate) struct Seen {
    spans: Vec<bool>,
    count: u64,
    /// The last that came, if it is asked for that they ascend.
    last: Option<u64>,
}

impl Seen {
    pub(crate) fn new(spans: u64) -> Self {
        Self { spans: vec![false; usize::try_from(spans).unwrap_or(usize::MAX) + 1], count: 0, last: None }
    }

    /// Marks the spans of an encoded trace, or of some of one. Of a page they have to be behind those of the page before.
    ///
    /// # Errors
    /// One is there twice, is none that was written, or stands before one of an earlier page.
    pub(crate) fn add(&mut self, trace: &[u8], page: bool) -> anyhow::Result<()> {
        let mut ids = Vec::new();
        for_each_span(trace, |span| {
            ids.push(u64::from_be_bytes(SpanHead::read(span.span)?.span_id.0));
            Ok::<_, WireError>(())
        })?;
        for id in &ids {
            let place = usize::try_from(*id).ok().filter(|_| *id > 0).and_then(|at| self.spans.get_mut(at));
            ensure!(place.is_some(), "span {id} was never written");
            ensure!(place.is_some_and(|seen| !std::mem::replace(seen, true)), "span {id} is there twice");
            self.count += 1;
        }
        if page {
            let (first, last) = (ids.iter().min().copied(), ids.iter().max().copied());
            ensure!(
                first.is_none() || self.last < first,
                "span {first:?} stands behind {:?} of an earlier page",
                self.last
            );
            self.last = last.or(self.last);
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_written_once_and_what_comes_twice_or_out_of_order_is_noticed() {
        let requests: Vec<Vec<u8>> = Requests::new(1200, 5).collect();
        assert_eq!(requests.len(), 3);
        let mut seen = Seen::new(1200);
        requests.iter().for_each(|request| seen.add(request, true).unwrap());
        assert_eq!(seen.count(), 1200);
        assert!(seen.add(&requests[0], false).unwrap_err().to_string().contains("span 1 is there twice"));
        let mut seen = Seen::new(1200);
        seen.add(&requests[1], true).unwrap();
        assert!(seen.add(&requests[0], true).unwrap_err().to_string().contains("earlier page"));
        assert!(Seen::new(400).add(&requests[0], false).unwrap_err().to_string().contains("never written"));
    }
}

//! A trace that grows beyond `max_bytes_per_trace`: what exceeds it is dropped and counted, what fits stays, everywhere.

use std::net::SocketAddr;

use prost::Message;
use vivace_integration::http::Connection;
use vivace_integration::ledger::{self, Outcome};
use vivace_integration::metrics;
use vivace_integration::process::{PATIENCE, Setup};
use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value::Value};
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};

use crate::crash::now_ns;

const LIMIT: &str = "overrides:\n  defaults:\n    global:\n      max_bytes_per_trace: 5000\n";
const GROWING: [u8; 16] = [0xab; 16];
const REQUESTS: u8 = 12;

fn span(trace: [u8; 16], number: u8, text_bytes: usize) -> Span {
    let text = AnyValue { value: Some(Value::StringValue("x".repeat(text_bytes))) };
    Span {
        trace_id: trace.to_vec(),
        span_id: vec![number + 1; 8],
        name: format!("span {number}"),
        start_time_unix_nano: now_ns(),
        end_time_unix_nano: now_ns() + 1000,
        attributes: vec![KeyValue { key: "text".to_owned(), value: Some(text), key_strindex: 0 }],
        ..Span::default()
    }
}

/// One more span of the growing trace, and a small trace of its own beside it.
fn request(number: u8) -> Vec<u8> {
    let spans = vec![span(GROWING, number, 1000), span([number + 1; 16], number, 10)];
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

fn discarded(http: SocketAddr) -> f64 {
    let labels = ["reason=\"trace_too_large\"", "tenant=\"single-tenant\""];
    metrics::read(http, "tempo_discarded_spans_total", &labels).unwrap().unwrap_or(0.0)
}

/// The spans kept of the growing trace, by number, after the small traces were found whole.
fn kept(http: SocketAddr) -> Vec<u8> {
    let mut connection = Connection::open(http, PATIENCE).unwrap();
    for number in 0..REQUESTS {
        let found = ledger::fetch(&mut connection, &[number + 1; 16]).unwrap();
        assert_eq!(found, [vec![number + 1; 8]], "a trace within the limit is untouched");
    }
    let mut kept: Vec<u8> =
        ledger::fetch(&mut connection, &GROWING).unwrap().iter().map(|span_id| span_id[0] - 1).collect();
    kept.sort_unstable();
    kept
}

#[test]
fn what_exceeds_the_bytes_of_a_trace_is_dropped_and_counted_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).yaml(LIMIT);
    let node = setup.start().unwrap();
    let (otlp, http) = (node.addr("otlp_http").unwrap(), node.addr("http").unwrap());
    let mut connection = None;
    for number in 0..REQUESTS {
        // As in Tempo, the sender is not told: the limit is found when the record is read.
        assert_eq!(ledger::send(&mut connection, otlp, &request(number)), Outcome::Acknowledged);
    }
    let before = kept(http);
    assert!((2..=4).contains(&before.len()), "spans of a thousand bytes under a limit of five thousand: {before:?}");
    assert_eq!(before, (0..before.len()).map(|n| u8::try_from(n).unwrap()).collect::<Vec<_>>(), "the first ones");
    let dropped = f64::from(REQUESTS) - f64::from(u32::try_from(before.len()).unwrap());
    assert_eq!(discarded(http), dropped);

    // A replay of the log decides the same.
    node.kill().unwrap();
    let node = setup.start().unwrap();
    let http = node.addr("http").unwrap();
    assert_eq!(kept(http), before);
    assert_eq!(discarded(http), dropped);
    let (status, _, _) = node.stop().unwrap();
    assert!(status.success());

    // And so does the block.
    let node = setup.start().unwrap();
    assert_eq!(kept(node.addr("http").unwrap()), before);
    node.stop().unwrap();
}

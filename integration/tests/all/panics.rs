//! A record that panics its consumer, planted through the front door: it is set aside, and nobody else notices.
//!
//! Needs a binary that was built with `--features vivace-node/fault-injection`, as `test.sh` does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use vivace_integration::http::{self, Connection};
use vivace_integration::ledger::{self, Ledger, Outcome, hex};
use vivace_integration::load::{self, Template};
use vivace_integration::process::{Node, PATIENCE, Setup};
use vivace_integration::{metrics, skip};
use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::tempopb;

use crate::crash::{PACE, SPANS, now_ns};

const MARKER: &str = "a-planted-record-that-panics";
const QUARANTINED: &str = "vivace_live_store_quarantined_records_total";
const CHECKERS: usize = 4;

fn planted() -> Vec<u8> {
    let span = Span {
        trace_id: vec![0xfa; 16],
        span_id: vec![0xfb; 8],
        name: MARKER.to_owned(),
        start_time_unix_nano: now_ns(),
        end_time_unix_nano: now_ns() + 1,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

/// Whether the binary knows faults; it says so at its start.
fn has_faults(node: &Node) -> bool {
    let line =
        node.wait_log(|l| l.contains("VIVACE_FAULT_PANIC_ON has no effect") || l.contains("will panic its consumer"));
    line.unwrap().contains("will panic its consumer")
}

/// The part `owner` in the tree of actors.
fn owner(http: SocketAddr) -> Value {
    fn find(node: &Value) -> Option<&Value> {
        match node {
            Value::Object(fields) if fields.get("name").and_then(Value::as_str) == Some("owner") => Some(node),
            Value::Object(fields) => fields.values().find_map(find),
            Value::Array(items) => items.iter().find_map(find),
            _ => None,
        }
    }
    let page = http::request(http, "GET", "/status/actors", &[("Accept", "application/json")], &[]).unwrap();
    let tree = page.json().unwrap();
    find(&tree).unwrap_or_else(|| panic!("no owner in {tree}")).clone()
}

/// Asks for one acknowledged trace: whole, or not to be answered now, but never missing and never in part.
fn ask(connection: &mut Connection, seed: u64, sequence: u64, trace: usize, template: &Template, second: bool) -> bool {
    let id = load::trace_id(seed, sequence, trace);
    let version = if second { "v2/" } else { "" };
    let path = format!("/api/{version}traces/{}", hex(&id));
    let answer = connection.send("GET", &path, &[("Accept", "application/protobuf")], &[]).unwrap();
    let found = match answer.status {
        503 => return false,
        200 if second => {
            let response = tempopb::TraceByIdResponse::decode(answer.body.as_slice()).unwrap();
            if response.status == i32::from(tempopb::PartialStatus::Partial) {
                return false;
            }
            response.trace.unwrap_or_default()
        }
        200 => tempopb::Trace::decode(answer.body.as_slice()).unwrap(),
        other => panic!("request {sequence}, trace {trace}: {path}: {other} {}", answer.text()),
    };
    let spans = found.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum::<usize>();
    assert_eq!(spans, template.spans_of(trace).len(), "request {sequence}, trace {trace}: {path}");
    true
}

#[test]
fn a_record_that_panics_its_consumer_is_set_aside_and_everything_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(dir.path());
    setup.env = vec![("VIVACE_FAULT_PANIC_ON".into(), MARKER.into())];
    let mut node = setup.start().unwrap();
    if !has_faults(&node) {
        skip::skip("the binary was built without --features vivace-node/fault-injection");
        return;
    }
    let (otlp, http) = (node.addr("otlp_http").unwrap(), node.addr("http").unwrap());
    let (pid, seed) = (node.pid(), 8_181);
    let template = Template::new(seed, SPANS);
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (next, stop, acknowledged) = (Arc::clone(&next), Arc::clone(&stop), Arc::clone(&acknowledged));
            std::thread::spawn(move || {
                let (mut template, mut connection, mut outcomes) = (Template::new(seed, SPANS), None, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let sequence = next.fetch_add(1, Ordering::Relaxed);
                    let outcome = ledger::send(&mut connection, otlp, template.fill(seed, sequence, now_ns()));
                    outcomes.push((sequence, outcome));
                    if outcome == Outcome::Acknowledged {
                        acknowledged.lock().unwrap().push(sequence);
                    }
                    std::thread::park_timeout(PACE);
                }
                outcomes
            })
        })
        .collect();
    let answered = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..2)
        .map(|number| {
            let (stop, acknowledged, answered) = (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&answered));
            let template = template.clone();
            std::thread::spawn(move || {
                let mut rng = StdRng::seed_from_u64(number);
                let mut connection = Connection::open(http, PATIENCE).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let sequence = {
                        let known = acknowledged.lock().unwrap();
                        if known.is_empty() {
                            continue;
                        }
                        // Mostly the newest, which only the log and the live-store have.
                        let last = known.len() - 1;
                        known[last.saturating_sub(rng.random_range(0..20))]
                    };
                    let trace = rng.random_range(0..template.trace_count());
                    if ask(&mut connection, seed, sequence, trace, &template, rng.random_range(0..2u8) == 1) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    node.wait_until("the load runs", || answered.load(Ordering::Relaxed) > 50).unwrap();
    assert_eq!(metrics::read(http, QUARANTINED, &[]).unwrap().unwrap_or(0.0), 0.0);
    let plant = std::thread::spawn(move || ledger::send(&mut None, otlp, &planted()));
    node.wait_until("the record is set aside", || {
        metrics::read(http, QUARANTINED, &[]).is_ok_and(|value| value == Some(1.0))
    })
    .unwrap();
    let before = answered.load(Ordering::Relaxed);
    node.wait_until("the load goes on", || answered.load(Ordering::Relaxed) > before + 50).unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut book = Ledger { seed, ..Ledger::default() };
    for writer in writers {
        book.outcomes.extend(writer.join().unwrap());
    }
    for reader in readers {
        reader.join().expect("no answer was a lie");
    }
    let planted_outcome = plant.join().unwrap();
    assert!(
        matches!(planted_outcome, Outcome::Acknowledged | Outcome::Refused(503) | Outcome::Unknown),
        "{planted_outcome:?}"
    );
    for (sequence, outcome) in &book.outcomes {
        assert!(
            matches!(outcome, Outcome::Acknowledged | Outcome::Refused(503 | 429)),
            "request {sequence}: {outcome:?}"
        );
    }
    let all = book.acknowledged();
    book.verify_parallel(&all, http, &template, CHECKERS).unwrap();
    let shown = owner(http);
    assert_eq!(shown["restarts"], 2, "{shown}");
    let aside = shown["observed"]["quarantined"].as_array().unwrap();
    assert_eq!(aside.len(), 1, "{shown}");
    let offset = aside[0][0].as_u64().unwrap();
    assert!(aside[0][1].as_str().unwrap().contains("panicked twice"), "{shown}");
    node.wait_log(|l| l.contains("record set aside") && l.contains(&format!("offset={offset}"))).unwrap();
    assert_eq!(http::get(http, "/ready").unwrap().status, 200);
    assert_eq!(node.pid(), pid);

    // Again after a kill, when the log is replayed with the record in it: the same, whatever was remembered.
    node.kill().unwrap();
    let node = setup.start().unwrap();
    let http = node.addr("http").unwrap();
    book.verify_parallel(&all, http, &template, CHECKERS).unwrap();
    let shown = owner(http);
    assert_eq!(shown["observed"]["quarantined"][0][0], offset, "{shown}");
    let (status, _, _) = node.stop().unwrap();
    assert!(status.success(), "{status}");

    // And after a clean end, when everything else is in blocks.
    let node = setup.start().unwrap();
    let http = node.addr("http").unwrap();
    book.verify_parallel(&book.newest(40), http, &template, CHECKERS).unwrap();
    assert_eq!(owner(http)["observed"]["quarantined"][0][0], offset, "what was set aside stays shown");
    node.stop().unwrap();
}

/// The feature does nothing unless it is asked to.
#[test]
fn without_the_variable_the_same_record_is_a_record_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().unwrap();
    let (otlp, http) = (node.addr("otlp_http").unwrap(), node.addr("http").unwrap());
    assert_eq!(ledger::send(&mut None, otlp, &planted()), Outcome::Acknowledged);
    let mut connection = Connection::open(http, PATIENCE).unwrap();
    assert_eq!(ledger::fetch(&mut connection, &[0xfa; 16]).unwrap(), [vec![0xfb; 8]]);
    assert_eq!(owner(http)["restarts"], 0);
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    Node::check_log(&log, &[]).unwrap();
}

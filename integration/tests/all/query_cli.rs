//! `vivace query` against a running process: every command, over HTTP and over the streams, and its exit codes.

use std::process::{Command, Output};

use serde_json::Value;
use vivace_integration::http;
use vivace_integration::ledger::hex;
use vivace_integration::load::{self, Template};
use vivace_integration::process::{self, Node, Setup};

use crate::crash::now_ns;

/// Requests sent before anything is asked.
const REQUESTS: u64 = 3;

fn send(node: &Node) -> Template {
    let mut template = Template::new(21, 80);
    for sequence in 0..REQUESTS {
        let body = template.fill(21, sequence, now_ns() - (20 - sequence) * 1_000_000_000);
        let headers = [("Content-Type", "application/x-protobuf")];
        let answer = http::request(node.addr("otlp_http").unwrap(), "POST", "/v1/traces", &headers, body).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    template
}

fn query(node: &Node, arguments: &[&str]) -> Output {
    let url = format!("-url=http://{}", node.addr("http").unwrap());
    Command::new(process::binary().unwrap()).arg("query").args(arguments).arg(url).output().unwrap()
}

fn shown(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", output.status, String::from_utf8_lossy(&output.stderr));
    // Nothing moves on the error output of somebody who is no terminal.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&shown(output)).unwrap()
}

fn sorted(values: &Value, what: impl Fn(&Value) -> String) -> Vec<String> {
    let mut all: Vec<String> = values.as_array().unwrap().iter().map(what).collect();
    all.sort();
    all
}

#[test]
fn every_command_answers_the_same_over_http_and_over_the_streams() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().unwrap();
    let template = send(&node);
    let grpc = format!("-grpc={}", node.addr("grpc").unwrap());
    let both = |arguments: &[&str]| {
        let with_grpc: Vec<&str> = arguments.iter().copied().chain([grpc.as_str()]).collect();
        [json(&query(&node, arguments)), json(&query(&node, &with_grpc))]
    };

    let traces = both(&["search", "{ }", "-limit=1000", "-since=10m", "-output=json"])
        .map(|answer| sorted(&answer["traces"], |trace| trace["traceID"].as_str().unwrap().to_owned()));
    assert_eq!(traces[0].len() as u64, template.trace_count() as u64 * REQUESTS);
    assert_eq!(traces[0], traces[1]);

    let tags = both(&["tags", "-scope=resource", "-output=json"])
        .map(|answer| sorted(&answer["scopes"][0]["tags"], |tag| tag.as_str().unwrap().to_owned()));
    assert!(tags[0].contains(&"service.name".to_owned()));
    assert_eq!(tags[0], tags[1]);

    let values = both(&["values", "resource.service.name", "-output=json"])
        .map(|answer| sorted(&answer["tagValues"], |value| value["value"].as_str().unwrap().to_owned()));
    assert!(values[0].contains(&"cart".to_owned()));
    assert_eq!(values[0], values[1]);

    // Every span counts once, whoever is asked.
    let spans = template.span_count() as f64 * REQUESTS as f64;
    let counted =
        both(&["metrics", "{ } | count_over_time()", "-since=10m", "-step=1s", "-output=json"]).map(|answer| {
            let samples = answer["series"][0]["samples"].as_array().unwrap().iter();
            samples.map(|sample| sample["value"].as_f64().unwrap_or(0.0)).sum::<f64>()
        });
    assert_eq!(counted, [spans, spans]);
    let at_once = both(&["metrics", "{ } | count_over_time()", "-since=10m", "-instant", "-output=json"]);
    assert_eq!(at_once.map(|answer| answer["series"][0]["value"].as_f64().unwrap()), [spans, spans]);

    let id = hex(&load::trace_id(21, 1, 0));
    let tree = shown(&query(&node, &["trace", &id]));
    assert!(tree.starts_with(&format!("trace {id}: {} spans of ", template.spans_of(0).len())), "{tree}");
    let table = shown(&query(&node, &["search", "{ resource.service.name = \"cart\" }", "-limit=2"]));
    assert!(table.starts_with("TRACE ID ") && table.lines().count() == 4, "{table}");
    let course = shown(&query(&node, &["metrics", "{ } | rate() by (resource.service.name)", "-since=5m"]));
    assert!(course.starts_with("SERIES ") && course.contains("{resource.service.name=cart}"), "{course}");
    node.stop().unwrap();
}

#[test]
fn exit_codes_and_words_say_what_went_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["trace", "12345"], 3, ""),
        (&["search", "{ foo }"], 2, "parse error at line 1, col 3: unknown identifier: foo\n  { foo }\n    ^"),
        (&["search", "{ } | rate()"], 2, "computes series: use `vivace query metrics`"),
        (&["find"], 2, "there is no `query find`"),
        (&["tags", "-scope=foo"], 1, "answered 400: invalid scope: foo"),
        (&["metrics", "{ } | rate()", "-step=1ms", "-since=1h"], 1, "minimum step for given range is 360ms"),
        (&["search", "{ }", "-start=5", "-end=4"], 2, "the window is empty"),
    ];
    for (arguments, code, words) in cases {
        let output = query(&node, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    let gone = format!("http://{}", node.addr("http").unwrap());
    node.stop().unwrap();
    let output = Command::new(process::binary().unwrap()).args(["query", "tags", "-url", &gone]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("refused") && told.contains("Is Vivace running there?"), "{told}");
}

#[test]
fn an_explanation_tells_plan_pruning_and_cost_of_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let node = setup.start().unwrap();
    send(&node);
    node.stop().unwrap();
    // Stopped and started again, everything lies in blocks.
    let node = setup.start().unwrap();
    let found = json(&query(&node, &["explain", "{ resource.service.name = \"cart\" }", "-since=1h", "-output=json"]));
    assert_eq!(found["plan"]["pushedDown"], "resource.service.name = `cart`");
    assert!(found["pruning"]["blocks"]["read"].as_u64().unwrap() >= 1, "{found}");
    assert!(found["pruning"]["rowGroups"]["read"].as_u64().unwrap() >= 1, "{found}");
    let (read, stored) = (found["actual"]["bytes"].as_u64().unwrap(), found["estimated"]["bytes"].as_u64().unwrap());
    assert!(read > 0 && read <= stored, "{found}");
    assert!(found["requests"]["objectStore"].as_u64().unwrap() > 0, "{found}");

    let nothing =
        json(&query(&node, &["explain", "{ resource.service.name = \"nowhere\" }", "-since=1h", "-output=json"]));
    assert_eq!(nothing["pruning"]["rowGroups"]["read"], 0, "{nothing}");
    assert!(nothing["pruning"]["rowGroups"]["byPredicate"].as_u64().unwrap() >= 1, "{nothing}");

    let series =
        json(&query(&node, &["explain", "{ } | rate() by (resource.service.name)", "-since=1h", "-output=json"]));
    assert_eq!(series["kind"], "metrics");
    assert!(series["actual"]["spans"].as_u64().unwrap() > 0, "{series}");

    let id = hex(&load::trace_id(21, 1, 0));
    let trace = json(&query(&node, &["explain", &id, "-output=json"]));
    assert_eq!((trace["kind"].as_str(), trace["pruning"]["blocks"]["byBloom"].as_u64()), (Some("trace"), Some(0)));
    let table = shown(&query(&node, &["explain", "{ resource.service.name = \"cart\" }", "-since=1h"]));
    assert!(
        table.contains("\npushed down   resource.service.name = `cart`\n") && table.contains("\nCOLUMN "),
        "{table}"
    );

    // Who does not ask is not told.
    let plain = http::get(node.addr("http").unwrap(), "/api/search?q=%7B%7D").unwrap().json().unwrap();
    let fields: Vec<&String> = plain.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["traces", "metrics"]);
    node.stop().unwrap();
}

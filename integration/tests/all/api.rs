//! The query API and the pages, over HTTP, as clients see them.

use std::net::SocketAddr;

use serde_json::{Value, json};
use vivace_integration::http::{self, encode};
use vivace_integration::ledger::hex;
use vivace_integration::load::{self, Template};
use vivace_integration::process::{Node, Setup};

use crate::crash::now_ns;

fn send(node: &Node, body: &[u8]) {
    let answer = http::request(
        node.addr("otlp_http").unwrap(),
        "POST",
        "/v1/traces",
        &[("Content-Type", "application/x-protobuf")],
        body,
    )
    .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn get(http: SocketAddr, path: &str) -> Value {
    let answer = http::get(http, path).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    answer.json().unwrap()
}

fn search(http: SocketAddr, query: &str) -> Vec<String> {
    let found = get(http, &format!("/api/search?limit=1000&q={}", encode(query)));
    let traces = found["traces"].as_array().unwrap();
    traces.iter().map(|t| t["traceID"].as_str().unwrap().to_owned()).collect()
}

/// Everything is asked twice: while it is recent, and once it is in a block.
#[test]
fn the_same_answers_come_from_recent_data_and_from_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let node = setup.start().unwrap();
    let mut template = Template::new(11, 80);
    let now = now_ns();
    for sequence in 0..5 {
        // Requests lie a second apart, so that "newest first" says something.
        send(&node, template.fill(11, sequence, now - (10 - sequence) * 1_000_000_000));
    }
    let ask = |http: SocketAddr| -> Vec<Value> {
        let one = hex(&load::trace_id(11, 3, 2));
        let searches = [
            "{}",
            "{ resource.service.name = \"cart\" }",
            "{ span.http.response.status_code >= 500 }",
            "{ status = error }",
            "{ span.app.cache.hit = true && kind = server }",
            "{ duration > 20ms && name =~ \"GET .*\" }",
            "{ .http.route = \"/api/cart\" || resource.k8s.pod.name =~ \"cart-.*\" }",
            "{ span.app.cart.value > 100.5 }",
            "{ nestedSetParent < 0 }",
            "{ rootName =~ \".*\" && traceDuration > 1ms }",
            "{ span.nothing = \"here\" }",
        ];
        let mut answers: Vec<Value> = searches.iter().map(|q| json!([q, search(http, q)])).collect();
        answers.push(get(
            http,
            &format!("/api/v2/search/tags?start={}&end={}", now / 1_000_000_000 - 60, now / 1_000_000_000 + 60),
        ));
        for tag in ["resource.service.name", "span.http.response.status_code", ".app.cache.hit", "name", "status"] {
            answers.push(get(http, &format!("/api/v2/search/tag/{tag}/values")));
        }
        let trace = get(http, &format!("/api/v2/traces/{one}"));
        let mut spans: Vec<Value> = trace["trace"]["resourceSpans"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|r| r["scopeSpans"].as_array().unwrap())
            .flat_map(|s| s["spans"].as_array().unwrap().clone())
            .collect();
        for span in &mut spans {
            // Dedicated columns come back after the other attributes.
            span["attributes"].as_array_mut().unwrap().sort_by_key(|a| a["key"].as_str().unwrap().to_owned());
        }
        spans.sort_by_key(|s| s["spanId"].as_str().unwrap().to_owned());
        answers.push(Value::from(spans));
        for answer in &mut answers {
            // What was read differs between the two, what was found may not.
            if let Some(object) = answer.as_object_mut() {
                object.remove("metrics");
            }
        }
        answers
    };
    let recent = ask(node.addr("http").unwrap());
    assert_eq!(recent[0][1].as_array().unwrap().len(), 50, "all traces are found");
    let newest = load::trace_id(11, 4, 0);
    assert!(recent[0][1][0].as_str().unwrap().len() <= 32);
    let first: Vec<String> =
        (0..10).map(|t| hex(&load::trace_id(11, 4, t)).trim_start_matches('0').to_owned()).collect();
    assert!(first.contains(&recent[0][1][0].as_str().unwrap().to_owned()), "newest first: {}", hex(&newest));
    assert!(recent[3][1].as_array().unwrap().len() > 1 && recent[10][1].as_array().unwrap().is_empty());

    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    Node::check_log(&log, &[]).unwrap();
    let node = setup.start().unwrap();
    let stored = ask(node.addr("http").unwrap());
    for (recent, stored) in recent.iter().zip(&stored) {
        assert_eq!(recent, stored);
    }
    node.stop().unwrap();
}

#[test]
fn wrong_requests_get_the_status_and_the_words_that_clients_know() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().unwrap();
    let addr = node.addr("http").unwrap();
    let cases: &[(&str, u16, &str)] = &[
        ("/api/echo", 200, "echo\n"),
        ("/ready", 200, "ready\n"),
        ("/api/traces/xyz", 400, "trace IDs can only contain hex characters: invalid character 'x' at position 1"),
        ("/api/traces/000000000000000000000000000000001", 400, "trace IDs can't be larger than 128 bits"),
        ("/api/traces/00000000000000000000000000000001", 404, ""),
        ("/api/v2/traces/00000000000000000000000000000001", 200, "{\"trace\":{},\"metrics\":{}}"),
        ("/api/traces/1?mode=foo", 400, "invalid value for mode foo"),
        ("/api/traces/1?start=5&end=4", 400, "http parameter start must be before end. received start=5 end=4"),
        (
            "/api/search?q=%7B",
            400,
            "invalid TraceQL query: parse error at line 1, col 2: syntax error: unexpected $end",
        ),
        (
            "/api/search?q=%7B%20foo%20%3D%20%7D",
            400,
            "invalid TraceQL query: parse error at line 1, col 3: unknown identifier: foo",
        ),
        (
            "/api/search?q=%7B%20duration%20%3E%20%22x%22%20%7D",
            400,
            "invalid TraceQL query: binary operations must operate on the same type: duration > `x`",
        ),
        ("/api/search?q=%7B%20.a%20%3D~%20%22(%22%20%7D", 400, "invalid TraceQL query: invalid regex: `(`"),
        ("/api/search?q=%7B%7D&limit=abc", 400, "invalid limit: strconv.ParseUint: parsing \"abc\": invalid syntax"),
        ("/api/search?q=%7B%7D&start=5&end=1", 400, "http parameter start must be before end. received start=5 end=1"),
        ("/api/v2/search/tags?scope=foo", 400, "invalid scope: foo"),
        ("/no/such/path", 404, "404 page not found\n"),
        (
            "/status/nothing",
            404,
            "there is no /status/nothing; there are version, services, endpoints, runtime_config, config, actors, overrides, log_level\n",
        ),
        ("/status/config?mode=zz", 500, "unknown value for mode query parameter: zz\n"),
    ];
    for (path, status, body) in cases {
        let answer = http::get(addr, path).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (*status, *body), "{path}");
    }
    let moved = http::get(addr, "//api//echo?a=%7B").unwrap();
    assert_eq!((moved.status, moved.header("location")), (301, Some("/api/echo?a=%7B")));
    let empty = http::get(addr, "/api/search?q=%7B%7D").unwrap().json().unwrap();
    assert_eq!(empty["traces"], json!([]));
    let build = http::get(addr, "/api/status/buildinfo").unwrap().json().unwrap();
    assert_eq!(build["version"], "3.1.0");
    let covered = http::get(addr, "/api/v2/traces/1").unwrap();
    assert_eq!(covered.header("x-vivace-coverage"), Some("read=1/1"));
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    Node::check_log(&log, &[]).unwrap();
}

#[test]
fn pages_show_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().unwrap();
    let addr = node.addr("http").unwrap();
    let services = http::get(addr, "/status/services").unwrap().text();
    for name in ["distributor", "live-store", "backend-worker", "querier", "query-frontend"] {
        let line = services.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name} in:\n{services}"));
        assert!(line.contains("Running"), "{line}");
    }
    let tree = http::request(addr, "GET", "/status/actors", &[("Accept", "application/json")], &[]).unwrap();
    let tree = tree.json().unwrap().to_string();
    for part in ["owner", "flusher", "worker", "blocklist", "queue", "keeper"] {
        assert!(tree.contains(&format!("\"{part}\"")), "{part} in {tree}");
    }
    let page = http::get(addr, "/status/actors").unwrap();
    assert!(page.header("content-type").unwrap().starts_with("text/html") && page.text().contains("owner"));
    let config = http::get(addr, "/status/config?mode=diff").unwrap().text();
    assert!(config.contains("http_listen_address: \"127.0.0.1\""), "{config}");
    assert!(http::get(addr, "/status/config?mode=defaults").unwrap().text().contains("max_block_bytes: 52428800"));
    assert!(http::get(addr, "/status/endpoints").unwrap().text().contains("/api/search"));
    let metrics = http::get(addr, "/metrics").unwrap();
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for name in ["process_resident_memory_bytes", "vivace_actor_up", "tempo_live_store_blocks_completed_total"] {
        assert!(metrics.text().contains(name), "{name}");
    }
    node.stop().unwrap();
}

#[test]
fn tenants_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).yaml("multitenancy_enabled: true\n").start().unwrap();
    let (otlp, http) = (node.addr("otlp_http").unwrap(), node.addr("http").unwrap());
    let mut template = Template::new(1, 16);
    let kind = ("Content-Type", "application/x-protobuf");
    let body = template.fill(1, 1, now_ns()).to_vec();
    let answer = http::request(otlp, "POST", "/v1/traces", &[kind, ("X-Scope-OrgID", "a")], &body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = format!("/api/traces/{}", hex(&load::trace_id(1, 1, 0)));
    let ask = |tenant: &[(&str, &str)]| http::request(http, "GET", &path, tenant, &[]).unwrap();
    assert_eq!(ask(&[("X-Scope-OrgID", "a")]).status, 200);
    assert_eq!(ask(&[("X-Scope-OrgID", "b")]).status, 404);
    assert_eq!(ask(&[("X-Scope-OrgID", "a|b")]).status, 200);
    let missing = ask(&[]);
    assert_eq!((missing.status, missing.text().as_str()), (401, "no org id\n"));
    let wrong = ask(&[("X-Scope-OrgID", "a b")]);
    assert_eq!((wrong.status, wrong.text().as_str()), (400, "tenant ID 'a b' contains unsupported character ' '"));
    let refused = http::request(otlp, "POST", "/v1/traces", &[kind], &body).unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(http::get(http, "/api/echo").unwrap().status, 200);
    node.stop().unwrap();
}

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::fake::{Frontend, NOW, Source, frontend};
use crate::Config;

fn enabled() -> Config {
    let mut config = Config::default();
    config.mcp_server.enabled = true;
    config
}

async fn send(frontend: &Frontend, method: Method, session: Option<&str>, body: Value) -> Response {
    let mut request = Request::builder().method(method).uri("/api/mcp");
    if let Some(session) = session {
        request = request.header("Mcp-Session-Id", session);
    }
    frontend.served.http.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn request(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

async fn begin(frontend: &Frontend) -> String {
    let hello = request("initialize", json!({ "protocolVersion": "2025-03-26" }));
    let response = send(frontend, Method::POST, None, hello).await;
    let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let answer: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(answer["result"]["protocolVersion"], "2025-03-26");
    assert_eq!(answer["result"]["serverInfo"]["name"], "tempo");
    session
}

async fn ask(frontend: &Frontend, session: &str, method: &str, params: Value) -> Value {
    let response = send(frontend, Method::POST, Some(session), request(method, params)).await;
    assert_eq!(response.status(), 200);
    let answer: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(7)));
    answer
}

#[actix::test]
async fn tools_answer_as_the_api_does() {
    let frontend = frontend(enabled(), false, |world| {
        let recent = Source { traces: vec![(9, NOW - 10)], names: vec!["a", "b"], ..Source::default() };
        world.recent("single-tenant", recent);
    });
    let session = begin(&frontend).await;
    let tools = ask(&frontend, &session, "tools/list", json!({})).await;
    let tools = tools["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 9);
    let call = async |name: &str, arguments: Value| {
        ask(&frontend, &session, "tools/call", json!({ "name": name, "arguments": arguments })).await["result"].clone()
    };
    let found = async |name: &str, arguments: Value| -> Value {
        let result = call(name, arguments).await;
        assert!(result.get("isError").is_none(), "{result}");
        assert_eq!(result["_meta"]["encoding"], "json");
        serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap()
    };
    let id = "09".repeat(16);
    let traces = found("traceql-search", json!({ "query": "{ }" })).await;
    assert_eq!(traces["traces"][0]["traceID"], id[1..]);
    let trace = found("get-trace", json!({ "trace_id": id })).await;
    assert_eq!(trace["trace"]["traceId"], id);
    let diff = found("trace-diff", json!({ "base_trace_id": id, "compare_trace_id": id })).await;
    assert_eq!(diff["patch"]["stats"]["matchedSpans"], 1);
    let names = found("get-attribute-names", json!({ "scope": "span" })).await;
    assert_eq!(names["scopes"][0]["tags"], json!(["a", "b"]));
    let values = found("get-attribute-values", json!({ "name": "span.x" })).await;
    assert_eq!(values["tagValues"], json!({ "string": ["a", "b"] }));

    let failed = async |name: &str, arguments: Value| -> String {
        let result = call(name, arguments).await;
        assert_eq!(result["isError"], true, "{result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(failed("traceql-search", json!({})).await, "argument \"query\" is required");
    assert!(failed("traceql-search", json!({ "query": "{" })).await.starts_with("invalid TraceQL query: parse error"));
    let other = failed("traceql-search", json!({ "query": "{ } | rate()" })).await;
    assert!(other.contains("traceql-metrics-range"), "{other}");
    let other = failed("traceql-metrics-instant", json!({ "query": "{ }" })).await;
    assert!(other.contains("traceql-search"), "{other}");
    for (filter, why) in
        [("{", "parse error at line 1, col 2"), ("{ } > { }", "a single filter"), ("{ } | rate()", "a single filter")]
    {
        let text = failed("get-attribute-values", json!({ "name": "span.x", "filter-query": filter })).await;
        assert!(text.starts_with("invalid filter-query: ") && text.contains(why), "{filter}: {text}");
    }
    let filtered = json!({ "name": "span.x", "filter-query": "{ status = error }" });
    assert!(call("get-attribute-values", filtered).await.get("isError").is_none());
    let time = failed("traceql-search", json!({ "query": "{ }", "start": "yesterday" })).await;
    assert!(time.contains("RFC3339"), "{time}");
    assert_eq!(failed("get-trace", json!({ "trace_id": "1" })).await, "there is no trace with this id");
    assert!(failed("docs-traceql", json!({ "name": "x" })).await.contains("basic, aggregates, structural, metrics"));
    let docs = call("docs-traceql", json!({ "name": "metrics" })).await;
    assert!(docs["content"][0]["text"].as_str().unwrap().contains("rate()"));

    let unknown = ask(&frontend, &session, "tools/call", json!({ "name": "drop-tables" })).await;
    assert_eq!(unknown["error"]["code"], -32602);
    assert_eq!(ask(&frontend, &session, "nonsense", json!({})).await["error"]["code"], -32601);
    let templates = ask(&frontend, &session, "resources/templates/list", json!({})).await;
    assert_eq!(templates["result"], json!({ "resourceTemplates": [] }));
    let read = ask(&frontend, &session, "resources/read", json!({ "uri": "docs://config/overview" })).await;
    assert!(read["result"]["contents"][0]["text"].as_str().unwrap().contains("-config.verify"));
    frontend.end().await;
}

#[actix::test]
async fn calls_need_a_session_and_the_server_its_key() {
    let frontend = frontend(enabled(), false, |_| {});
    let list = || request("tools/list", json!({}));
    for session in [None, Some("mcp-session-00000000-0000-0000-0000-000000000000"), Some("x")] {
        let response = send(&frontend, Method::POST, session, list()).await;
        assert_eq!(response.status(), 404);
        assert_eq!(text(response).await, "Invalid session ID");
    }
    let session = begin(&frontend).await;
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(send(&frontend, Method::POST, Some(&session), notification).await.status(), 202);
    let events = send(&frontend, Method::GET, Some(&session), json!(null)).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert_eq!(send(&frontend, Method::DELETE, Some(&session), json!(null)).await.status(), 200);
    assert_eq!(send(&frontend, Method::POST, Some(&session), list()).await.status(), 404);
    frontend.end().await;

    let off = super::fake::frontend(Config::default(), false, |_| {});
    assert_eq!(send(&off, Method::POST, None, request("initialize", json!({}))).await.status(), 404);
    off.end().await;
}

#[actix::test]
async fn what_is_no_request_is_told_so() {
    let frontend = frontend(enabled(), true, |_| {});
    let raw = async |body: &'static str, tenant: Option<&str>| {
        let mut request = Request::builder().method(Method::POST).uri("/api/mcp");
        if let Some(tenant) = tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let response: Response =
            frontend.served.http.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        (response.status().as_u16(), text(response).await)
    };
    assert_eq!(raw("{}", None).await, (401, "no org id\n".to_owned()));
    let (status, body) = raw("{", Some("a")).await;
    assert!(status == 400 && body.contains("-32700"), "{body}");
    let (status, body) = raw("[]", Some("a")).await;
    assert!(status == 400 && body.contains("-32600"), "{body}");
    frontend.end().await;
}

//! `/api/mcp`: the Model Context Protocol over HTTP, for language models. Served only with `query_frontend.mcp_server.enabled`.
//!
//! JSON-RPC in POST; `initialize` begins a session, whose id later calls must send. A GET is an event stream on which nothing is
//! ever told, as no tool changes anything. A session holds nothing but its id: who is asked for what is the tenant header's
//! matter, in every call anew.

mod tools;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use futures::stream;
use futures::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;
use vivace_protocol::TenantId;

use super::Api;
use crate::respond::Refusal;
use crate::tenant;

const SESSION: &str = "Mcp-Session-Id";
/// Versions of the protocol that are spoken, the newest first.
const VERSIONS: [&str; 3] = ["2025-06-18", "2025-03-26", "2024-11-05"];
/// Sessions at once; beyond, the oldest ends.
const MAX_SESSIONS: usize = 10_000;

/// The sessions, in the order of their beginning.
#[derive(Debug, Default)]
struct Sessions {
    begun: u64,
    open: VecDeque<Uuid>,
}

impl Sessions {
    fn begin(&mut self, now_ns: u64) -> Uuid {
        self.begun += 1;
        // No secret: it only tells sessions apart.
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("mcp session {} at {now_ns}", self.begun).as_bytes());
        if self.open.len() >= MAX_SESSIONS {
            self.open.pop_front();
        }
        self.open.push_back(id);
        id
    }

    fn named(&self, headers: &HeaderMap) -> Option<Uuid> {
        let id = headers.get(SESSION)?.to_str().ok()?.strip_prefix("mcp-session-")?.parse().ok()?;
        self.open.contains(&id).then_some(id)
    }

    fn end(&mut self, id: Uuid) {
        self.open.retain(|open| *open != id);
    }
}

type Shared = Arc<Mutex<Sessions>>;

/// The endpoint.
pub(super) fn routes(api: Api, path: &str) -> Router {
    let sessions = Shared::default();
    let handler = move |method: Method, headers: HeaderMap, body: Bytes| {
        let (api, sessions) = (api.clone(), Arc::clone(&sessions));
        async move { answer(&api, &sessions, &method, &headers, &body).await.unwrap_or_else(Refusal::response) }
    };
    Router::new().route(path, any(handler))
}

async fn answer(
    api: &Api,
    sessions: &Shared,
    method: &Method,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Refusal> {
    let planner = &api.planner;
    let tenants = tenant::tenants(headers, planner.multitenancy, planner.config.multi_tenant_queries_enabled)?;
    let session = || {
        let named = sessions.lock().named(headers);
        named.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "Invalid session ID"))
    };
    match *method {
        Method::POST => {}
        Method::GET => {
            session()?;
            return Ok(events());
        }
        Method::DELETE => {
            // Looked up first: the lock of the next line is taken before its argument is worked out.
            let ended = session()?;
            sessions.lock().end(ended);
            return Ok(Response::new(Body::empty()));
        }
        _ => return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed")),
    }
    let Ok(message) = serde_json::from_slice::<Value>(body) else {
        return Ok(reply(StatusCode::BAD_REQUEST, &failure(&Value::Null, -32700, "the request is no JSON")));
    };
    let id = message.get("id").cloned().unwrap_or(Value::Null);
    let (Some("2.0"), Some(name)) = (message["jsonrpc"].as_str(), message["method"].as_str()) else {
        let text = "the request is no JSON-RPC 2.0 request";
        return Ok(reply(StatusCode::BAD_REQUEST, &failure(&id, -32600, text)));
    };
    if name == "initialize" {
        let begun = sessions.lock().begin(planner.clock.unix_nanos());
        let mut response = reply(StatusCode::OK, &success(&id, initialize(&message["params"])));
        if let Ok(value) = HeaderValue::from_str(&format!("mcp-session-{begun}")) {
            response.headers_mut().insert(SESSION, value);
        }
        return Ok(response);
    }
    session()?;
    if message.get("id").is_none() {
        // A notification wants no answer.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    let answer = match name {
        "ping" => success(&id, json!({})),
        "tools/list" => success(&id, json!({ "tools": tools::list() })),
        "tools/call" => call(api, &tenants, &id, &message["params"]).await,
        "resources/list" => success(&id, json!({ "resources": resources() })),
        // Clients ask for these as soon as there are resources.
        "resources/templates/list" => success(&id, json!({ "resourceTemplates": [] })),
        "resources/read" => resource(&id, &message["params"]),
        _ => failure(&id, -32601, &format!("there is no method {name:?}")),
    };
    Ok(reply(StatusCode::OK, &answer))
}

fn initialize(params: &Value) -> Value {
    let wanted = params["protocolVersion"].as_str();
    let version = VERSIONS.into_iter().find(|version| Some(*version) == wanted).unwrap_or(VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": {}, "resources": {} },
        "serverInfo": { "name": "tempo", "version": "0.1.0" },
    })
}

async fn call(api: &Api, tenants: &[TenantId], id: &Value, params: &Value) -> Value {
    let Some(name) = params["name"].as_str() else { return failure(id, -32602, "the call names no tool") };
    // Boxed, because a future of so many kinds of queries is large.
    let running = async { Ok(tools::call(api, tenants, name, &params["arguments"]).await) }.boxed();
    match api.in_time(running).await {
        Ok(None) => failure(id, -32602, &format!("there is no tool {name:?}")),
        Ok(Some(Ok(found))) => success(
            id,
            json!({
                "_meta": { "type": found.kind, "encoding": found.encoding, "version": found.version() },
                "content": [{ "type": "text", "text": found.text }],
            }),
        ),
        Ok(Some(Err(refusal))) | Err(refusal) => {
            success(id, json!({ "content": [{ "type": "text", "text": refusal.text }], "isError": true }))
        }
    }
}

/// Documents by their addresses.
fn documents() -> Vec<(String, String)> {
    let traceql = tools::TRACEQL.iter().map(|(name, text)| (format!("docs://traceql/{name}"), (*text).to_owned()));
    let config = tools::CONFIG.iter().map(|(name, text)| (format!("docs://config/{name}"), (*text).to_owned()));
    let all: Vec<&str> = tools::TRACEQL.iter().map(|(_, text)| *text).collect();
    std::iter::once(("docs://traceql/query".to_owned(), all.join("\n"))).chain(traceql).chain(config).collect()
}

fn resources() -> Vec<Value> {
    let resource = |(uri, text): (String, String)| {
        let title = text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
        json!({ "uri": uri, "name": title, "mimeType": "text/markdown" })
    };
    documents().into_iter().map(resource).collect()
}

fn resource(id: &Value, params: &Value) -> Value {
    let uri = params["uri"].as_str().unwrap_or_default();
    match documents().into_iter().find(|(known, _)| known == uri) {
        Some((uri, text)) => {
            success(id, json!({ "contents": [{ "uri": uri, "mimeType": "text/markdown", "text": text }] }))
        }
        None => failure(id, -32002, &format!("there is no resource {uri:?}")),
    }
}

fn success(id: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn failure(id: &Value, code: i32, text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } })
}

fn reply(status: StatusCode, message: &Value) -> Response {
    let mut response = Response::new(Body::from(message.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An event stream that stays open until the client goes away.
fn events() -> Response {
    let hello = stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from_static(b": connected\n\n"))));
    let mut response = Response::new(Body::from_stream(hello.chain(stream::pending())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_stay_bounded_and_are_told_apart() {
        let mut sessions = Sessions::default();
        let first = sessions.begin(1);
        let named = |id: Uuid| {
            let value = HeaderValue::from_str(&format!("mcp-session-{id}")).unwrap();
            HeaderMap::from_iter([(http::HeaderName::from_static("mcp-session-id"), value)])
        };
        assert_eq!(sessions.named(&named(first)), Some(first));
        let second = sessions.begin(1);
        assert_ne!(first, second);
        for _ in 0..MAX_SESSIONS - 1 {
            sessions.begin(1);
        }
        assert_eq!(sessions.named(&named(first)), None);
        assert_eq!(sessions.open.len(), MAX_SESSIONS);
        sessions.end(second);
        assert_eq!(sessions.named(&named(second)), None);
        assert_eq!(sessions.named(&HeaderMap::new()), None);
    }

    #[test]
    fn every_document_has_an_address_and_a_title() {
        let all = resources();
        let uris: Vec<_> = all.iter().map(|resource| resource["uri"].as_str().unwrap()).collect();
        assert_eq!(
            uris,
            [
                "docs://traceql/query",
                "docs://traceql/basic",
                "docs://traceql/aggregates",
                "docs://traceql/structural",
                "docs://traceql/metrics",
                "docs://config/overview",
                "docs://config/reference",
            ]
        );
        assert!(all.iter().all(|resource| !resource["name"].as_str().unwrap().is_empty()));
    }
}

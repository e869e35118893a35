//! A trace by its id: `/api/traces/{id}` and `/api/v2/traces/{id}`.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use prost::Message;
use uuid::Uuid;
use vivace_protocol::combine::Combine;
use vivace_protocol::{TraceId, json, tempopb};

use super::{Api, Request};
use crate::params::BadParam;
use crate::planner::FoundTrace;
use crate::respond::{self, Form, Refusal};

const MODES: [&str; 4] = ["all", "blocks", "ingesters", "external"];

async fn find(api: &Api, request: &Request, id: &str) -> Result<FoundTrace, Refusal> {
    let id = TraceId::parse_hex(id).map_err(|error| Refusal::bad(error.to_string()))?;
    let (start, end) = (request.params.i64("start")?.unwrap_or(0), request.params.i64("end")?.unwrap_or(0));
    if start > 0 && end > 0 && start >= end {
        let text = format!("http parameter start must be before end. received start={start} end={end}");
        return Err(BadParam(text).into());
    }
    let mode = request.params.get("mode").unwrap_or("all");
    if !MODES.contains(&mode) {
        return Err(Refusal::bad(format!("invalid value for mode {mode}")));
    }
    if mode == "external" {
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "external mode is not enabled"));
    }
    for (name, shown) in [("blockStart", "blockstart"), ("blockEnd", "blockEnd")] {
        if let Some(value) = request.params.get(name) {
            Uuid::parse_str(value).map_err(|error| Refusal::bad(format!("invalid value for {shown}: {error}")))?;
        }
    }
    let seconds = |s: i64| u64::try_from(s).unwrap_or(0).saturating_mul(1_000_000_000);
    Ok(api.0.find_trace(&request.tenants, id, seconds(start), seconds(end)).await)
}

pub(crate) async fn v1(api: &Api, request: Request, id: &str) -> Result<Response, Refusal> {
    let found = find(api, &request, id).await?;
    // This form cannot say that something is missing, so an incomplete answer is none.
    if !found.covered.complete() {
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the trace may be incomplete: {}", found.covered.message()),
        ));
    }
    let max_bytes = api.0.max_bytes_per_trace(&request.tenants);
    let trace = Combine { max_bytes, ..Combine::default() }.parts(&found.parts).map_err(|error| broken(&error))?;
    if trace.partial {
        return Err(Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("trace exceeds max size (max bytes: {max_bytes})"),
        ));
    }
    if trace.trace.is_empty() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let body = match request.form {
        Form::Protobuf => trace.trace,
        Form::Json => json::to_vec(&json::Batches(&trace.decode().map_err(|error| broken(&error))?)).into(),
    };
    Ok(respond::ok(&request.headers, request.form, body, Some(found.covered.header())))
}

pub(crate) async fn v2(api: &Api, request: Request, id: &str) -> Result<Response, Refusal> {
    let found = find(api, &request, id).await?;
    let max_bytes = api.0.max_bytes_per_trace(&request.tenants);
    let trace = Combine { max_bytes, ..Combine::default() }.parts(&found.parts).map_err(|error| broken(&error))?;
    let mut messages = Vec::new();
    if trace.partial {
        messages.push(format!("Trace exceeds maximum size of {max_bytes} bytes, a partial trace is returned"));
    }
    if !found.covered.complete() {
        messages.push(found.covered.message());
    }
    let status = if messages.is_empty() { tempopb::PartialStatus::Complete } else { tempopb::PartialStatus::Partial };
    let answer = tempopb::TraceByIdResponse {
        trace: Some(trace.decode().map_err(|error| broken(&error))?),
        metrics: Some(tempopb::TraceByIdMetrics { inspected_bytes: found.inspected_bytes, ..Default::default() }),
        status: status.into(),
        message: messages.join("; "),
    };
    let body: bytes::Bytes = match request.form {
        Form::Protobuf => answer.encode_to_vec().into(),
        Form::Json => json::to_vec(&answer).into(),
    };
    Ok(respond::ok(&request.headers, request.form, body, Some(found.covered.header())))
}

/// Stored bytes that do not decode: a bug or damaged storage, never the client's fault.
fn broken(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("combine the trace: {error}"))
}

//! A trace by its id: `/api/traces/{id}` and `/api/v2/traces/{id}`.
//!
//! Parts are combined, ids that two spans share are told apart, spans are filtered, then pruned, then written. A trace of some
//! size is written piece by piece, so that it is never held as objects or as JSON; a large one is written while it is read
//! ([`flow`]), so that it is never held at all.

mod filter;
mod flow;
mod gather;
mod page;
mod pruning;
mod zipkin;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use prost::Message;
use uuid::Uuid;
use vivace_protocol::combine::{Batching, Combine};
use vivace_protocol::otlp::trace::ResourceSpans;
use vivace_protocol::vivace::find_trace_request::From;
use vivace_protocol::wire::{self, Reader, WireError};
use vivace_protocol::{TenantId, TraceId, json, tempopb};

use self::filter::Filter;
use self::flow::{Version, json_tail};
pub(super) use self::gather::{Gathered, whole};
use self::gather::{Gathering, HELD};
use self::page::PageSpec;
use self::pruning::Pruning;
use super::{Api, Request};
use crate::coverage::Covered;
use crate::explain;
use crate::params::BadParam;
use crate::planner::TracePlan;
use crate::respond::{Form, Manner, Refusal};

/// JSON of a trace from this size on is written piece by piece.
const PIECES_FROM: usize = 4 << 20;

const FILTERED: &str = "Trace filtered, only a subset of spans matching the filter is returned";

fn plan(request: &Request, id: &str) -> Result<TracePlan, Refusal> {
    let id = TraceId::parse_hex(id).map_err(|error| Refusal::bad(error.to_string()))?;
    // One without the other is no range.
    let (start, end) = match (request.params.i64("start")?, request.params.i64("end")?) {
        (Some(start), Some(end)) if start >= end => {
            let text = format!("http parameter start must be before end. received start={start} end={end}");
            return Err(BadParam(text).into());
        }
        (Some(start), Some(end)) => (start, end),
        _ => (0, 0),
    };
    let from = match request.params.get("mode").unwrap_or("all") {
        "all" => From::Everything,
        "ingesters" => From::Recent,
        "blocks" => From::Blocks,
        "external" => {
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "external mode is not enabled"));
        }
        other => return Err(Refusal::bad(format!("invalid value for mode {other}"))),
    };
    let block = |name: &str, shown: &str, open: u128| match request.params.get(name) {
        Some(value) => match Uuid::parse_str(value) {
            Ok(id) => Ok(id.as_u128()),
            Err(error) => Err(Refusal::bad(format!("invalid value for {shown}: {error}"))),
        },
        None => Ok(open),
    };
    let blocks = (block("blockStart", "blockstart", 0)?, block("blockEnd", "blockEnd", u128::MAX)?);
    let nanos = |s: i64| u64::try_from(s).unwrap_or(0).saturating_mul(1_000_000_000);
    let explain = request.params.bool("explain")?.unwrap_or(false);
    Ok(TracePlan { id, start_ns: nanos(start), end_ns: nanos(end), from, blocks, explain, page: None })
}

/// The encoded trace with ids that two spans share told apart.
fn separated(trace: Bytes) -> Result<Bytes, Refusal> {
    if !zipkin::has_shared_ids(&trace).map_err(|error| broken(&error))? {
        return Ok(trace);
    }
    let mut decoded = tempopb::Trace::decode(trace).map_err(|error| broken(&error))?;
    zipkin::separate(&mut decoded);
    Ok(decoded.encode_to_vec().into())
}

pub(crate) async fn v1(api: &Api, request: Request, id: &str) -> Result<Response, Refusal> {
    let plan = plan(&request, id)?;
    if PageSpec::of(&request.params)?.is_some() {
        return Err(Refusal::bad("pages of a trace are answered by /api/v2/traces"));
    }
    let max_bytes = api.planner.max_bytes_per_trace(&request.tenants);
    let (began, manner) = (api.planner.clock.now(), request.manner);
    let mut gathering = Gathering::new(api, &request.tenants, &plan, Combine { max_bytes, ..Combine::default() });
    // Explained, an answer is one object.
    if !plan.explain && !gathering.hold(HELD).await? {
        return Ok(flow::answer(gathering, Version::One, manner, max_bytes, true));
    }
    let Gathered { search, combined } = gathering.whole().await?;
    let covered = search.covered();
    // This form cannot say that something is missing, so an incomplete answer is none.
    if combined.partial {
        let text = format!("trace exceeds max size (max bytes: {max_bytes})");
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    if !covered.complete() {
        let text = format!("the trace may be incomplete: {}", covered.message());
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).covering(covered));
    }
    if combined.trace.is_empty() {
        return Ok(not_found(covered));
    }
    let trace = separated(combined.trace)?;
    if plan.explain {
        let elapsed = api.planner.clock.now().saturating_duration_since(began);
        let trace = tempopb::Trace::decode(trace).map_err(|error| broken(&error))?;
        let body = explain::insert(json::to_vec(&json::Batches(&trace)), &search.explain(&plan, elapsed));
        return Ok(Manner { form: Form::Json, ..manner }.answer(body, covered));
    }
    if manner.form == Form::Protobuf {
        return Ok(manner.whole(trace, covered));
    }
    // Models are told so by the content type, the body is the same.
    if trace.len() >= PIECES_FROM {
        return pieces(&trace, "{\"batches\":[", &format!("]{}", manner.tail(covered, false)), manner, covered);
    }
    let trace = tempopb::Trace::decode(trace).map_err(|error| broken(&error))?;
    Ok(manner.answer(json::to_vec(&json::Batches(&trace)), covered))
}

fn not_found(covered: &Covered) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(coverage) = HeaderValue::from_str(&covered.header()) {
        response.headers_mut().insert("X-Vivace-Coverage", coverage);
    }
    response
}

pub(crate) async fn v2(api: &Api, request: Request, id: &str) -> Result<Response, Refusal> {
    let plan = plan(&request, id)?;
    let filter = Filter::of(&request.params)?;
    let pruning = Pruning::of(&api.planner.config.trace_by_id, &request.params)?;
    if let Some(page) = PageSpec::of(&request.params)? {
        if plan.explain || pruning.is_some() || filter.as_ref().is_some_and(Filter::has_surroundings) {
            let text = "a page of a trace comes without explain and span_pruning, and its filter without keep_hierarchy and match_depth";
            return Err(Refusal::bad(text));
        }
        return paged(api, request, plan, page, filter).await;
    }
    let (began, manner) = (api.planner.clock.now(), request.manner);
    let (max_bytes, require_complete) =
        (api.planner.max_bytes_per_trace(&request.tenants), api.planner.config.require_complete);
    let batching = if manner.form == Form::Llm { Batching::Merge } else { Batching::Keep };
    let mut gathering = Gathering::new(api, &request.tenants, &plan, Combine { max_bytes, batching });
    let as_a_whole = filter.is_some() || pruning.is_some() || plan.explain || manner.form == Form::Llm;
    if !as_a_whole && !gathering.hold(HELD).await? {
        return Ok(flow::answer(gathering, Version::Two, manner, max_bytes, require_complete));
    }
    let Gathered { search, combined } = gathering.whole().await?;
    let elapsed = api.planner.clock.now().saturating_duration_since(began);
    let covered = search.covered();
    covered.check(require_complete)?;
    let mut messages = Vec::new();
    if combined.partial {
        messages.push(too_large(max_bytes));
    }
    if !covered.complete() {
        messages.push(covered.message());
    }
    let mut trace = separated(combined.trace)?;
    if filter.is_some() || pruning.is_some() {
        let mut decoded = tempopb::Trace::decode(trace.clone()).map_err(|error| broken(&error))?;
        if let Some(filter) = filter
            && filter.apply(plan.id, trace, &mut decoded).map_err(|error| broken(&error))?
        {
            messages.push(FILTERED.to_owned());
        }
        messages.extend(pruning.and_then(|pruning| pruning.apply(&mut decoded)));
        trace = decoded.encode_to_vec().into();
    }
    let rest = rest(search.inspected_bytes(), &messages);
    if plan.explain {
        // Explained, an answer is JSON in one piece.
        let trace = tempopb::Trace::decode(trace).map_err(|error| broken(&error))?;
        let body = json::to_vec(&tempopb::TraceByIdResponse { trace: Some(trace), ..rest });
        let manner = Manner { form: Form::Json, ..manner };
        return Ok(manner.answer(explain::insert(body, &search.explain(&plan, elapsed)), covered));
    }
    written(trace, rest, manner, covered)
}

/// One page of a trace, and in a header how to ask for the next one if there is one. The tenant's limit is that of a page: what is too
/// large at once can be had in several.
async fn paged(
    api: &Api,
    request: Request,
    plan: TracePlan,
    spec: PageSpec,
    filter: Option<Filter>,
) -> Result<Response, Refusal> {
    let mut page = spec.begin(api.planner.max_bytes_per_trace(&request.tenants));
    let plan = TracePlan { page: Some(spec.of_source()), ..plan };
    let mut search = api.planner.find_trace(&request.tenants, &plan);
    while let Some(parts) = search.next().await? {
        for part in parts {
            page.add(&part).map_err(|error| broken(&error))?;
        }
    }
    let covered = search.covered();
    covered.check(api.planner.config.require_complete)?;
    let (mut trace, next) = page.finish().map_err(|error| broken(&error))?;
    let mut messages = Vec::new();
    if !covered.complete() {
        messages.push(covered.message());
    }
    if let Some(filter) = filter {
        let mut decoded = tempopb::Trace::decode(trace.clone()).map_err(|error| broken(&error))?;
        if filter.apply(plan.id, trace, &mut decoded).map_err(|error| broken(&error))? {
            messages.push(FILTERED.to_owned());
        }
        trace = decoded.encode_to_vec().into();
    }
    let rest = rest(search.inspected_bytes(), &messages);
    let mut response = written(trace, rest, request.manner, covered)?;
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(page::NEXT, next);
    }
    Ok(response)
}

/// A whole trace as language models get it; none if it was not found.
pub(super) async fn for_models(api: &Api, tenants: &[TenantId], id: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let id = TraceId::parse_hex(id).map_err(|error| Refusal::bad(error.to_string()))?;
    let blocks = (0, u128::MAX);
    let plan = TracePlan { id, start_ns: 0, end_ns: 0, from: From::Everything, blocks, explain: false, page: None };
    let max_bytes = api.planner.max_bytes_per_trace(tenants);
    let combine = Combine { max_bytes, batching: Batching::Merge };
    let Gathered { search, combined } = whole(api, tenants, &plan, combine).await?;
    let covered = search.covered();
    covered.check(api.planner.config.require_complete)?;
    if combined.trace.is_empty() && covered.complete() {
        return Ok(None);
    }
    let mut messages = Vec::new();
    if combined.partial {
        messages.push(too_large(max_bytes));
    }
    if !covered.complete() {
        messages.push(covered.message());
    }
    let trace = tempopb::Trace::decode(separated(combined.trace)?).map_err(|error| broken(&error))?;
    let rest = rest(search.inspected_bytes(), &messages);
    Ok(Some(json::trace_for_models(&tempopb::TraceByIdResponse { trace: Some(trace), ..rest })))
}

fn too_large(max_bytes: usize) -> String {
    format!("Trace exceeds maximum size of {max_bytes} bytes, a partial trace is returned")
}

/// The answer without the trace.
fn rest(inspected_bytes: u64, messages: &[String]) -> tempopb::TraceByIdResponse {
    let status = if messages.is_empty() { tempopb::PartialStatus::Complete } else { tempopb::PartialStatus::Partial };
    tempopb::TraceByIdResponse {
        trace: None,
        metrics: Some(tempopb::TraceByIdMetrics { inspected_bytes, ..Default::default() }),
        status: status.into(),
        message: messages.join("; "),
    }
}

/// Writes the answer of the second endpoint: a trace as it is encoded, and everything else.
fn written(
    trace: Bytes,
    rest: tempopb::TraceByIdResponse,
    manner: Manner,
    covered: &Covered,
) -> Result<Response, Refusal> {
    if manner.form == Form::Protobuf {
        // The field of the trace first, also when it is empty: clients go into it. It is not decoded for that.
        let mut body = Vec::with_capacity(trace.len() + 64);
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut body);
        prost::encoding::encode_varint(trace.len() as u64, &mut body);
        body.extend_from_slice(&trace);
        rest.encode(&mut body).map_err(|error| broken(&error))?;
        return Ok(manner.whole(body.into(), covered));
    }
    if trace.len() >= PIECES_FROM && manner.form == Form::Json {
        let tail = String::from_utf8_lossy(&json_tail(&rest, manner, covered)).into_owned();
        return pieces(&trace, "{\"trace\":{\"resourceSpans\":[", &tail, manner, covered);
    }
    let trace = tempopb::Trace::decode(trace).map_err(|error| broken(&error))?;
    let answer = tempopb::TraceByIdResponse { trace: Some(trace), ..rest };
    let body = if manner.form == Form::Llm { json::trace_for_models(&answer) } else { json::to_vec(&answer) };
    Ok(manner.answer(body, covered))
}

/// JSON of a trace, one resource after the other.
fn pieces(trace: &Bytes, head: &str, tail: &str, manner: Manner, covered: &Covered) -> Result<Response, Refusal> {
    let resources = resources(trace).map_err(|error| broken(&error))?;
    let (mut head, tail) = (head.to_owned().into_bytes(), tail.to_owned().into_bytes());
    let pieces = resources.into_iter().map(move |resource| {
        // The first begins with the head, all others with a comma.
        let mut out = std::mem::replace(&mut head, b",".to_vec());
        let decoded = ResourceSpans::decode(resource)?;
        json::write_resource_spans(&decoded, &mut out);
        Ok::<_, prost::DecodeError>(out)
    });
    Ok(manner.pieces(stream::iter(pieces.chain(std::iter::once(Ok(tail)))), covered))
}

/// The encoded resources of an encoded trace.
fn resources(trace: &Bytes) -> Result<Vec<Bytes>, WireError> {
    let mut resources = Vec::new();
    let mut reader = Reader::new(trace);
    while let Some(key) = reader.key()? {
        if key == 0x0a {
            resources.push(trace.slice_ref(reader.bytes()?));
        } else {
            reader.skip(key, wire::GROUP_DEPTH)?;
        }
    }
    Ok(resources)
}

/// Stored bytes that do not decode: a bug or damaged storage, never the client's fault.
fn broken(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("combine the trace: {error}"))
}

#[cfg(test)]
mod tests {
    use vivace_protocol::otlp::trace::{ScopeSpans, Span};

    use super::*;

    fn trace(resources: usize) -> tempopb::Trace {
        let spans = |n: usize| ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![Span { name: format!("span {n}"), ..Span::default() }],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        };
        tempopb::Trace { resource_spans: (0..resources).map(spans).collect() }
    }

    async fn body(response: Response) -> Bytes {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    }

    #[tokio::test]
    async fn pieces_joined_are_the_json_of_the_whole() {
        let manner = Manner { form: Form::Json, gzip: false, coverage: false };
        let covered = Covered::default();
        let trace = trace(3);
        let encoded: Bytes = trace.encode_to_vec().into();
        let told = body(pieces(&encoded, "{\"batches\":[", "]}", manner, &covered).unwrap()).await;
        assert_eq!(told, json::to_vec(&json::Batches(&trace)));
    }

    #[tokio::test]
    async fn an_answer_for_protobuf_readers_always_has_a_trace() {
        let manner = Manner { form: Form::Protobuf, gzip: false, coverage: false };
        for trace in [trace(0), trace(2)] {
            let rest = tempopb::TraceByIdResponse { message: "m".to_owned(), ..Default::default() };
            let encoded = trace.encode_to_vec().into();
            let told = body(written(encoded, rest.clone(), manner, &Covered::default()).unwrap()).await;
            let due = tempopb::TraceByIdResponse { trace: Some(trace), ..rest };
            assert_eq!(tempopb::TraceByIdResponse::decode(told).unwrap(), due);
        }
    }
}

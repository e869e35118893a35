//! Names and values of tags.

use std::collections::BTreeSet;

use axum::response::Response;
use prost::Message;
use vivace_protocol::{json, tempopb};
use vivace_storage::query::parse_field;
use vivace_traceql::Query;

use super::{Api, Request};
use crate::params;
use crate::planner::TagPlan;
use crate::respond::{self, Form, Refusal};

const SCOPES: [&str; 9] = ["", "none", "span", "resource", "event", "link", "instrumentation", "trace", "intrinsic"];

/// The names that queries know besides attributes.
const INTRINSICS: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// Adds the intrinsics where they are asked for.
fn with_intrinsics(mut scopes: Vec<tempopb::SearchTagsV2Scope>, plan: &TagPlan) -> Vec<tempopb::SearchTagsV2Scope> {
    if matches!(plan.scope.as_str(), "" | "none" | "intrinsic") {
        let tags = INTRINSICS.iter().map(|name| (*name).to_owned()).collect();
        scopes.push(tempopb::SearchTagsV2Scope { name: "intrinsic".to_owned(), tags });
    }
    scopes
}

fn plan(api: &Api, request: &Request, filter: bool) -> Result<TagPlan, Refusal> {
    let params = &request.params;
    let window = params::window(params, &api.time_rules(&request.tenants[0]), true)?;
    let scope = params.get("scope").unwrap_or("");
    if !SCOPES.contains(&scope) {
        return Err(Refusal::bad(format!("invalid scope: {scope}")));
    }
    // A filter that does not parse is left out, as autocompletion sends queries that are being typed.
    let query = params.get("q").filter(|q| filter && Query::parse(q).is_ok()).unwrap_or("");
    Ok(TagPlan {
        scope: scope.to_owned(),
        query: query.to_owned(),
        start_ns: u64::from(window.start) * 1_000_000_000,
        end_ns: (u64::from(window.end) + 1) * 1_000_000_000 - 1,
        limit: params.u32("limit")?.unwrap_or(0),
        ..TagPlan::default()
    })
}

fn metrics(inspected_bytes: u64) -> Option<tempopb::MetadataMetrics> {
    Some(tempopb::MetadataMetrics { inspected_bytes, ..tempopb::MetadataMetrics::default() })
}

pub(crate) async fn names_v1(api: &Api, request: Request) -> Result<Response, Refusal> {
    let plan = plan(api, &request, false)?;
    let (scopes, inspected, covered) = api.0.tag_names(&request.tenants, &plan).await?;
    // The first API shows intrinsics only to who asks for nothing else.
    let scopes = if plan.scope == "intrinsic" { with_intrinsics(scopes, &plan) } else { scopes };
    let names: BTreeSet<String> = scopes.into_iter().flat_map(|s| s.tags).collect();
    let limit = if plan.limit == 0 { usize::MAX } else { usize::try_from(plan.limit).unwrap_or(usize::MAX) };
    let answer =
        tempopb::SearchTagsResponse { tag_names: names.into_iter().take(limit).collect(), metrics: metrics(inspected) };
    let body: bytes::Bytes = match request.form {
        Form::Protobuf => answer.encode_to_vec().into(),
        Form::Json => json::to_vec(&answer).into(),
    };
    Ok(respond::ok(&request.headers, request.form, body, Some(covered.header())))
}

pub(crate) async fn names_v2(api: &Api, request: Request) -> Result<Response, Refusal> {
    let plan = plan(api, &request, true)?;
    let (scopes, inspected, covered) = api.0.tag_names(&request.tenants, &plan).await?;
    let scopes = with_intrinsics(scopes, &plan);
    let answer = tempopb::SearchTagsV2Response { scopes, metrics: metrics(inspected) };
    let body: bytes::Bytes = match request.form {
        Form::Protobuf => answer.encode_to_vec().into(),
        Form::Json => json::to_vec(&answer).into(),
    };
    Ok(respond::ok(&request.headers, request.form, body, Some(covered.header())))
}

/// The tag's name out of `{tag}/values`; the name itself may contain slashes.
fn tag(path: &str) -> Result<&str, Refusal> {
    let name = path
        .strip_suffix("/values")
        .ok_or_else(|| Refusal::new(http::StatusCode::NOT_FOUND, "404 page not found\n"))?;
    if name.is_empty() {
        return Err(Refusal::bad("please provide a non-empty tagName"));
    }
    Ok(name)
}

pub(crate) async fn values_v1(api: &Api, request: Request, path: &str) -> Result<Response, Refusal> {
    let name = tag(path)?;
    let mut plan = plan(api, &request, false)?;
    // The first API names attributes without a scope; the names with a meaning of their own come first.
    plan.tag = match name {
        "status.code" => "status".to_owned(),
        "error" => "error".to_owned(),
        "name" | "duration" | "kind" | "status" => name.to_owned(),
        "root.name" => "rootName".to_owned(),
        "root.service.name" => "rootServiceName".to_owned(),
        _ => format!(".{}", serde_json::Value::from(name)),
    };
    let (values, inspected, covered) = if plan.tag == "error" {
        let value = tempopb::TagValue { r#type: "keyword".into(), value: "true".into() };
        (vec![value], 0, crate::coverage::Covered::default())
    } else {
        api.0.tag_values(&request.tenants, &plan).await?
    };
    let values: BTreeSet<String> = values.into_iter().map(|v| v.value).collect();
    let answer =
        tempopb::SearchTagValuesResponse { tag_values: values.into_iter().collect(), metrics: metrics(inspected) };
    let body: bytes::Bytes = match request.form {
        Form::Protobuf => answer.encode_to_vec().into(),
        Form::Json => json::to_vec(&answer).into(),
    };
    Ok(respond::ok(&request.headers, request.form, body, Some(covered.header())))
}

pub(crate) async fn values_v2(api: &Api, request: Request, path: &str) -> Result<Response, Refusal> {
    let name = tag(path)?;
    parse_field(name).map_err(|error| {
        Refusal::bad(format!("please provide a valid tagName: failed to parse identifier {name}: {error}"))
    })?;
    let mut plan = plan(api, &request, true)?;
    name.clone_into(&mut plan.tag);
    let (tag_values, inspected, covered) = api.0.tag_values(&request.tenants, &plan).await?;
    let answer = tempopb::SearchTagValuesV2Response { tag_values, metrics: metrics(inspected) };
    let body: bytes::Bytes = match request.form {
        Form::Protobuf => answer.encode_to_vec().into(),
        Form::Json => json::to_vec(&answer).into(),
    };
    Ok(respond::ok(&request.headers, request.form, body, Some(covered.header())))
}

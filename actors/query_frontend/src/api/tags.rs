//! Names and values of tags.

use axum::response::Response;
use vivace_protocol::{TenantId, json, tempopb};
use vivace_traceql::Field;

use super::{Api, Request, answer_whole, tag_filter};
use crate::params::{self, Params};
use crate::planner::{Grouping, Progress, TagNames, TagPlan, TagValues, complete};
use crate::respond::{Form, Refusal};

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

/// The two generations of these endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Without scopes, types and filters.
    One,
    Two,
}

fn plan(api: &Api, tenants: &[TenantId], params: &Params, version: Version) -> Result<TagPlan, Refusal> {
    let window = params::window(params, &api.time_rules(tenants), true)?;
    let scope = params.get("scope").unwrap_or("");
    if !SCOPES.contains(&scope) {
        return Err(Refusal::bad(format!("invalid scope: {scope}")));
    }
    let query = match params.get("q") {
        Some(query) if version == Version::Two => tag_filter::filter(query)?,
        _ => String::new(),
    };
    Ok(TagPlan {
        scope: scope.to_owned(),
        tag: String::new(),
        query,
        start_ns: u64::from(window.start) * 1_000_000_000,
        end_ns: (u64::from(window.end) + 1) * 1_000_000_000 - 1,
        limit: params.u32("limit")?.unwrap_or(0),
        max_stale: params.u32("maxStaleValues")?.unwrap_or(0),
        typed: version == Version::Two,
    })
}

/// A checked query for names, ready to run.
pub(crate) fn names(api: &Api, tenants: &[TenantId], params: &Params, version: Version) -> Result<TagNames, Refusal> {
    let plan = plan(api, tenants, params, version)?;
    // The first version shows intrinsics only to who asks for nothing else.
    let intrinsics = match version {
        Version::One => plan.scope == "intrinsic",
        Version::Two => matches!(plan.scope.as_str(), "" | "none" | "intrinsic"),
    };
    let known: &[(&str, &[&str])] = if intrinsics { &[("intrinsic", &INTRINSICS)] } else { &[] };
    let grouping = if version == Version::One { Grouping::One } else { Grouping::Scopes };
    Ok(TagNames::new(&api.planner, tenants, plan, grouping, known))
}

/// A checked query for values, ready to run.
pub(crate) fn values(
    api: &Api,
    tenants: &[TenantId],
    params: &Params,
    name: &str,
    version: Version,
) -> Result<TagValues, Refusal> {
    if name.is_empty() {
        return Err(Refusal::bad("please provide a non-empty tagName"));
    }
    let mut plan = plan(api, tenants, params, version)?;
    match version {
        Version::Two => {
            let field: Field = name.parse().map_err(|error| {
                Refusal::bad(format!("please provide a valid tagName: failed to parse identifier {name}: {error}"))
            })?;
            plan.tag = field.to_string();
        }
        // The first version names attributes without a scope; the names with a meaning of their own come first.
        Version::One => {
            plan.tag = match name {
                "error" => return Ok(TagValues::known(&api.planner, plan, &["true"])),
                "status.code" | "status" => {
                    return Ok(TagValues::known(&api.planner, plan, &["unset", "ok", "error"]));
                }
                "name" | "kind" => name.to_owned(),
                "root.name" => "rootName".to_owned(),
                "root.service.name" => "rootServiceName".to_owned(),
                _ => format!(".{}", serde_json::Value::from(name)),
            };
        }
    }
    Ok(TagValues::new(&api.planner, tenants, plan))
}

/// Names without their scopes.
pub(crate) fn flat_names(answer: tempopb::SearchTagsV2Response) -> tempopb::SearchTagsResponse {
    let tag_names = answer.scopes.into_iter().flat_map(|scope| scope.tags).collect();
    tempopb::SearchTagsResponse { tag_names, metrics: answer.metrics }
}

/// Values without their types.
pub(crate) fn flat_values(answer: tempopb::SearchTagValuesV2Response) -> tempopb::SearchTagValuesResponse {
    let tag_values = answer.tag_values.into_iter().map(|value| value.value).collect();
    tempopb::SearchTagValuesResponse { tag_values, metrics: answer.metrics }
}

/// A request over gRPC as the parameters that it stands for.
pub(crate) fn name_parameters(request: &tempopb::SearchTagsRequest) -> Params {
    Params::from_pairs([
        ("scope", request.scope.clone()),
        ("q", request.query.clone()),
        ("start", number(request.start)),
        ("end", number(request.end)),
        ("limit", number(request.max_tags_per_scope)),
        ("maxStaleValues", number(request.stale_values_threshold)),
    ])
}

/// As [`name_parameters`]; the tag's name is no parameter.
pub(crate) fn value_parameters(request: &tempopb::SearchTagValuesRequest) -> Params {
    Params::from_pairs([
        ("q", request.query.clone()),
        ("start", number(request.start)),
        ("end", number(request.end)),
        ("limit", number(request.max_tag_values)),
        ("maxStaleValues", number(request.stale_value_threshold)),
    ])
}

fn number(n: u32) -> String {
    if n == 0 { String::new() } else { n.to_string() }
}

pub(crate) async fn names_v1(api: &Api, request: Request) -> Result<Response, Refusal> {
    let names = names(api, &request.tenants, &request.params, Version::One)?;
    answer_whole(names, request.manner, flat_names).await
}

pub(crate) async fn names_v2(api: &Api, request: Request) -> Result<Response, Refusal> {
    let names = names(api, &request.tenants, &request.params, Version::Two)?;
    answer_whole(names, request.manner, std::convert::identity).await
}

/// The tag's name out of `{tag}/values`; the name itself may contain slashes. Some clients escape it twice.
fn tag(path: &str) -> Result<String, Refusal> {
    let name = path
        .strip_suffix("/values")
        .ok_or_else(|| Refusal::new(http::StatusCode::NOT_FOUND, "404 page not found\n"))?;
    Ok(params::unescape(name))
}

pub(crate) async fn values_v1(api: &Api, request: Request, path: &str) -> Result<Response, Refusal> {
    let values = values(api, &request.tenants, &request.params, &tag(path)?, Version::One)?;
    answer_whole(values, request.manner, flat_values).await
}

pub(crate) async fn values_v2(api: &Api, request: Request, path: &str) -> Result<Response, Refusal> {
    let mut values = values(api, &request.tenants, &request.params, &tag(path)?, Version::Two)?;
    if request.manner.form != Form::Llm {
        return answer_whole(values, request.manner, std::convert::identity).await;
    }
    let whole = complete(&mut values).await?;
    Ok(request.manner.answer(json::tag_values_for_models(&whole), values.covered()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_escaped_twice_are_names() {
        assert_eq!(tag("span.%22with%20space%22/values").unwrap(), "span.\"with space\"");
        assert_eq!(tag("resource.a/b/values").unwrap(), "resource.a/b");
        assert_eq!(tag("resource.a").unwrap_err().status, http::StatusCode::NOT_FOUND);
    }

    #[test]
    fn requests_over_grpc_stand_for_parameters() {
        let request = tempopb::SearchTagsRequest {
            scope: "span".to_owned(),
            max_tags_per_scope: 5,
            stale_values_threshold: 9,
            ..tempopb::SearchTagsRequest::default()
        };
        let params = name_parameters(&request);
        assert_eq!(params.get("scope"), Some("span"));
        assert_eq!(
            [params.u32("limit"), params.u32("maxStaleValues"), params.u32("end")],
            [Ok(Some(5)), Ok(Some(9)), Ok(None),]
        );
    }
}

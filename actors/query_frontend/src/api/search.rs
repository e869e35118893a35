//! `/api/search`.

use axum::response::Response;
use vivace_protocol::{TenantId, json, tempopb};
use vivace_traceql::{Query, SearchPlan as Compiled};

use super::{Api, Request, answer_whole, legacy};
use crate::explain;
use crate::params::{self, BadParam, Params};
use crate::planner::{Progress, Search, SearchPlan, complete};
use crate::respond::{Form, Manner, Refusal};

pub(crate) async fn search(api: &Api, request: Request) -> Result<Response, Refusal> {
    let plan = plan(api, &request.tenants, &request.params)?;
    if plan.explain {
        return explained(api, request, plan).await;
    }
    let search = Search::new(&api.planner, &request.tenants, plan);
    answer_whole(search, request.manner, std::convert::identity).await
}

/// The same as JSON, with how it was run.
async fn explained(api: &Api, request: Request, plan: SearchPlan) -> Result<Response, Refusal> {
    let mut search = Search::new(&api.planner, &request.tenants, plan);
    let body = json::to_vec(&complete(&mut search).await?);
    let explanation = search.explain(&request.tenants).await?;
    let manner = Manner { form: Form::Json, ..request.manner };
    Ok(manner.answer(explain::insert(body, &explanation), search.covered()))
}

/// What a request asks for, checked.
pub(crate) fn plan(api: &Api, tenants: &[TenantId], params: &Params) -> Result<SearchPlan, Refusal> {
    let config = &api.planner.config.search;
    let limit = limit(params, config.default_result_limit, config.max_result_limit)?;
    let spans = spans_per_set(params, config.default_spans_per_span_set, config.max_spans_per_span_set)?;
    let older = legacy::query(params)?;
    let (text, metadata_only) = match params.get("q") {
        Some(_) if params.get("tags").is_some() => {
            return Err(Refusal::bad("invalid request: can't specify tags and q in the same query"));
        }
        Some(query) => (query.to_owned(), false),
        None => (older, true),
    };
    let window = params::window(params, &api.time_rules(tenants), false)?;
    let invalid = |error: &dyn std::fmt::Display| Refusal::bad(format!("invalid TraceQL query: {error}"));
    let query = Query::parse(&text).map_err(|error| invalid(&error))?;
    let compiled = Compiled::new(&query).map_err(|error| invalid(&error))?;
    Ok(SearchPlan {
        most_recent: compiled.most_recent(),
        query: text,
        start_ns: u64::from(window.start) * 1_000_000_000,
        // The end is inclusive by the second.
        end_ns: (u64::from(window.end) + 1) * 1_000_000_000 - 1,
        limit,
        spans_per_span_set: if metadata_only { 1 } else { spans },
        metadata_only,
        explain: params.bool("explain")?.unwrap_or(false),
    })
}

/// A request over gRPC as the parameters that it stands for.
pub(crate) fn parameters(request: &tempopb::SearchRequest) -> Params {
    let number = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    let millis = |n: u32| if n == 0 { String::new() } else { format!("{n}ms") };
    Params::from_pairs([
        ("q", request.query.clone()),
        ("tags", legacy::written_tags(&request.tags)),
        ("minDuration", millis(request.min_duration_ms)),
        ("maxDuration", millis(request.max_duration_ms)),
        ("limit", number(request.limit)),
        ("spss", number(request.spans_per_span_set)),
        ("start", number(request.start)),
        ("end", number(request.end)),
    ])
}

fn limit(params: &Params, default: u64, max: u64) -> Result<u32, BadParam> {
    let Some(limit) = params.u32("limit")? else { return Ok(u32::try_from(default).unwrap_or(u32::MAX)) };
    if limit == 0 {
        return Err(BadParam("invalid limit: must be a positive number".into()));
    }
    if max > 0 && u64::from(limit) > max {
        return Err(BadParam(format!("limit {limit} exceeds max limit {max}")));
    }
    Ok(limit)
}

fn spans_per_set(params: &Params, default: u64, max: u64) -> Result<u32, BadParam> {
    let default = u32::try_from(default).unwrap_or(u32::MAX);
    let spans = params.u32("spss")?.unwrap_or(default);
    if max > 0 && u64::from(spans) > max {
        return Err(BadParam(format!("spans per span set exceeds {max}. received {spans}")));
    }
    Ok(if spans == 0 { default.max(1) } else { spans })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_tempo_says_them() {
        assert_eq!(
            limit(&Params::parse("limit=0"), 20, 100).unwrap_err().0,
            "invalid limit: must be a positive number"
        );
        assert_eq!(limit(&Params::parse("limit=101"), 20, 100).unwrap_err().0, "limit 101 exceeds max limit 100");
        assert_eq!(
            limit(&Params::parse("limit=abc"), 20, 100).unwrap_err().0,
            "invalid limit: strconv.ParseUint: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            spans_per_set(&Params::parse("spss=101"), 3, 100).unwrap_err().0,
            "spans per span set exceeds 100. received 101"
        );
        assert_eq!(spans_per_set(&Params::parse("spss=0"), 3, 100), Ok(3));
    }

    #[test]
    fn a_request_over_grpc_stands_for_parameters() {
        let request = tempopb::SearchRequest {
            tags: [("service.name".to_owned(), "a b".to_owned())].into(),
            min_duration_ms: 1500,
            limit: 7,
            start: 10,
            end: 20,
            ..tempopb::SearchRequest::default()
        };
        let params = parameters(&request);
        assert_eq!(params.get("tags"), Some("service.name=\"a b\""));
        assert_eq!(params.get("minDuration"), Some("1500ms"));
        assert_eq!(params.u32("limit"), Ok(Some(7)));
        assert_eq!(params.u32("end"), Ok(Some(20)));
        assert_eq!([params.get("q"), params.get("spss"), params.get("maxDuration")], [None, None, None]);
    }
}

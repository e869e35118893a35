//! `POST /api/v2/traces/diff`: how one trace differs from another.

mod forest;
mod patch;
mod summary;

use std::collections::{HashMap, HashSet};

use axum::Router;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use vivace_protocol::combine::Combine;
use vivace_protocol::vivace::find_trace_request::From;
use vivace_protocol::{TenantId, TraceId, tempopb};

use self::forest::{Forest, pairs};
use self::patch::Patch;
use super::Api;
use super::trace::{Gathered, whole};
use crate::coverage::Covered;
use crate::planner::TracePlan;
use crate::respond::{Form, Manner, Refusal};
use crate::tenant;

const PATCH: &str = "trace-patch-v0";
const NATIVE: &str = "trace-summary-v0-native";
pub(super) const COMPOSED: &str = "trace-summary-v0-composed";
/// A patch above this is left out of a composed answer.
const COMPOSED_PATCH_BYTES: usize = 64 << 10;
/// Names of spans that differ more than this say more about the request than about the operation.
const HIGH_CARDINALITY: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    #[serde(default)]
    base: Side,
    #[serde(default)]
    compare: Side,
    #[serde(default)]
    format: String,
}

/// One of the two traces. Times are seconds since the epoch, 0 is open.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Side {
    #[serde(default)]
    pub(super) trace_id: String,
    #[serde(default)]
    pub(super) start: i64,
    #[serde(default)]
    pub(super) end: i64,
}

impl Side {
    fn plan(&self, name: &str) -> Result<TracePlan, Refusal> {
        if self.trace_id.is_empty() {
            return Err(Refusal::bad(format!("{name}.traceId is required")));
        }
        let id = TraceId::parse_hex(&self.trace_id)
            .map_err(|error| Refusal::bad(format!("invalid {name}.traceId: {error}")))?;
        let (start, end) = (self.start, self.end);
        if start > 0 && end > 0 && start >= end {
            return Err(Refusal::bad(format!(
                "{name}.start must be before {name}.end. received start={start} end={end}"
            )));
        }
        let nanos = |s: i64| u64::try_from(s).unwrap_or(0).saturating_mul(1_000_000_000);
        Ok(TracePlan {
            id,
            start_ns: nanos(start),
            end_ns: nanos(end),
            from: From::Everything,
            blocks: (0, u128::MAX),
            explain: false,
            page: None,
        })
    }
}

/// The endpoint.
pub(super) fn routes(api: Api, path: &str) -> Router {
    let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let api = api.clone();
        async move { answer(&api, &method, &uri, &headers, &body).await.unwrap_or_else(Refusal::response) }
    };
    Router::new().route(path, any(handler))
}

async fn answer(api: &Api, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Result<Response, Refusal> {
    if *method != Method::POST {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
    }
    let planner = &api.planner;
    let tenants = tenant::tenants(headers, planner.multitenancy, planner.config.multi_tenant_queries_enabled)?;
    api.check_url(uri)?;
    let asked: Asked = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("invalid trace diff request body: {error}")))?;
    let format = if asked.format.is_empty() { PATCH } else { &asked.format };
    let (diff, covered) = api.in_time(diff(api, &tenants, &asked.base, &asked.compare, format)).await?;
    let manner = Manner { form: Form::Json, ..Manner::wanted(headers, false)? };
    Ok(manner.answer(diff.to_string().into_bytes(), &covered))
}

/// The difference in one of the formats.
pub(super) async fn diff(
    api: &Api,
    tenants: &[TenantId],
    base: &Side,
    compare: &Side,
    format: &str,
) -> Result<(Value, Covered), Refusal> {
    if ![PATCH, NATIVE, COMPOSED].contains(&format) {
        let text = format!("invalid format {format:?}: must be one of {PATCH}, {NATIVE}, {COMPOSED}");
        return Err(Refusal::bad(text));
    }
    let plans = [("base", base.plan("base")?), ("compare", compare.plan("compare")?)];
    let mut covered = Covered::default();
    let (mut traces, mut bytes) = (Vec::new(), 0);
    for (name, plan) in &plans {
        let max_bytes = api.planner.max_bytes_per_trace(tenants);
        let combine = Combine { max_bytes, ..Combine::default() };
        let Gathered { search, combined } = whole(api, tenants, plan, combine).await?;
        // A difference to a part of a trace would be none.
        let partial = || {
            let text = format!("fetch {name} trace: trace {}: partial traces cannot be diffed", plan.id);
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text)
        };
        if combined.partial || !search.covered().complete() {
            return Err(partial());
        }
        if combined.trace.is_empty() {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "Not Found"));
        }
        bytes += combined.trace.len();
        if max_bytes > 0 && bytes > max_bytes {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "trace diff input too large: combined trace size {bytes} bytes exceeds limit {max_bytes} bytes"
                ),
            ));
        }
        covered.join(search.covered().clone());
        traces.push(Forest::of(tempopb::Trace::decode(combined.trace).map_err(|error| broken(&error))?));
    }
    let [(_, base), (_, compare)] = plans;
    Ok((told(&traces[0], base.id, &traces[1], compare.id, format), covered))
}

fn told(base: &Forest, base_id: TraceId, compare: &Forest, compare_id: TraceId, format: &str) -> Value {
    let pairs = pairs(base, compare);
    let patch = Patch::of(base, compare, &pairs);
    let warnings = warnings(base, compare);
    let patched = || {
        let mut change = patch.json(base, compare);
        change["version"] = PATCH.into();
        change["base"] = json!({ "traceId": base_id.to_string(), "spanCount": base.nodes.len() });
        change["compare"] = json!({ "traceId": compare_id.to_string(), "spanCount": compare.nodes.len() });
        change["warnings"] = warnings.clone().into();
        change
    };
    if format == PATCH {
        return patched();
    }
    let mut summary = summary::json(base, compare, &pairs, &patch);
    summary["version"] = NATIVE.into();
    summary["base"] = summary::side(base_id, base);
    summary["compare"] = summary::side(compare_id, compare);
    if !warnings.is_empty() {
        summary["warnings"] = warnings.clone().into();
    }
    if format == NATIVE {
        return summary;
    }
    let change = patched();
    let bytes = change.to_string().len();
    let mut both = json!({ "version": COMPOSED, "summary": summary });
    if bytes <= COMPOSED_PATCH_BYTES {
        both["patch"] = change;
    } else {
        both["patchOmitted"] = json!({ "bytes": bytes, "reason": "over_budget" });
    }
    both
}

/// What makes the difference less certain.
fn warnings(base: &Forest, compare: &Forest) -> Vec<Value> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, message: String| warnings.push(json!({ "code": code, "message": message }));
    for (name, forest) in [("base", base), ("compare", compare)] {
        if forest.nodes.is_empty() {
            warn("zero_span_trace", format!("the {name} trace has no spans"));
        }
        let mut names: HashMap<&str, HashSet<&str>> = HashMap::new();
        let mut ids: HashSet<&[u8]> = HashSet::new();
        let (mut repeated, mut invalid) = (0, 0);
        for node in &forest.nodes {
            names.entry(&node.service).or_default().insert(&node.span.name);
            repeated += usize::from(!ids.insert(&node.span.span_id));
            invalid += usize::from(node.span.end_time_unix_nano < node.span.start_time_unix_nano);
        }
        let mut many: Vec<_> = names.iter().filter(|(_, names)| names.len() > HIGH_CARDINALITY).collect();
        many.sort_by_key(|(service, _)| **service);
        for (service, names) in many {
            let count = names.len();
            warn(
                "high_cardinality_span_name",
                format!("service {service:?} of the {name} trace has {count} span names"),
            );
        }
        if repeated > 0 {
            warn("duplicate_span_id", format!("{repeated} spans of the {name} trace have the id of another one"));
        }
        if invalid > 0 {
            warn("invalid_duration", format!("{invalid} spans of the {name} trace end before they start"));
        }
    }
    warnings
}

fn broken(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("combine the trace: {error}"))
}

#[cfg(test)]
mod tests {
    use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value};
    use vivace_protocol::otlp::resource::Resource;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span, Status};

    use super::*;

    fn text(key: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
        KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
    }

    fn span(name: &str, own: u64, parent: u64, millis: u64) -> Span {
        Span {
            span_id: own.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
            name: name.to_owned(),
            start_time_unix_nano: own * 1_000_000,
            end_time_unix_nano: (own + millis) * 1_000_000,
            ..Span::default()
        }
    }

    fn forest(service: &str, spans: Vec<Span>) -> Forest {
        let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
        let scope = ScopeSpans { spans, ..ScopeSpans::default() };
        Forest::of(tempopb::Trace {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![scope],
                ..ResourceSpans::default()
            }],
        })
    }

    fn diff(base: &Forest, compare: &Forest, format: &str) -> Value {
        told(base, TraceId([1; 16]), compare, TraceId([2; 16]), format)
    }

    #[test]
    fn a_trace_does_not_differ_from_itself_whatever_its_ids_and_times() {
        let a = forest("shop", vec![span("root", 1, 0, 100), span("a", 2, 1, 10), span("b", 3, 1, 10)]);
        let b = forest("shop", vec![span("b", 53, 51, 11), span("root", 51, 0, 101), span("a", 52, 51, 10)]);
        let patch = diff(&a, &b, PATCH);
        assert_eq!([&patch["modified"], &patch["added"], &patch["removed"]], [&json!([]), &json!([]), &json!([])]);
        assert_eq!(patch["stats"]["matchedSpans"], 3);
        let summary = diff(&a, &b, NATIVE);
        assert_eq!(summary["signals"]["structure"], "unchanged");
        assert_eq!(summary["trust"], json!({ "matchedSpanRatio": 1.0, "structureOverlap": 1.0 }));
        assert_eq!(summary["changedServices"], json!([]));
    }

    #[test]
    fn changes_additions_and_removals_are_told_with_their_places() {
        let mut changed = span("a", 2, 1, 10);
        changed.attributes = vec![text("kept", "x"), text("gone", "x"), text("other", "x")];
        let a = forest("shop", vec![span("root", 1, 0, 100), changed.clone(), span("old", 3, 1, 5)]);
        changed.attributes = vec![text("kept", "x"), text("other", "y"), text("new", "x")];
        changed.status = Some(Status { code: 2, message: String::new() });
        changed.end_time_unix_nano += 90_000_000;
        let b = forest("shop", vec![span("root", 1, 0, 100), changed, span("fresh", 4, 2, 5)]);
        let patch = diff(&a, &b, PATCH);
        let changes = patch["modified"][0]["changes"].as_array().unwrap();
        let what: Vec<String> = changes
            .iter()
            .map(|c| {
                let target = &c["target"];
                let name = target["name"].as_str().or_else(|| target["key"].as_str()).unwrap();
                format!("{} {name}", c["op"].as_str().unwrap())
            })
            .collect();
        assert_eq!(what, ["modify duration_nanos", "modify status", "remove gone", "modify other", "add new"]);
        assert_eq!(patch["modified"][0]["span"]["path"], json!([0, 0]));
        assert_eq!(patch["removed"][0]["target"]["path"], json!([0, 1]));
        assert_eq!(patch["added"][0]["target"], json!({ "type": "span", "parentPath": [0, 0], "index": 0 }));
        assert_eq!(patch["stats"]["fieldChanges"], 2);
        assert_eq!(patch["stats"]["attributeChanges"], 3);
        assert_eq!(changes[1]["before"], "unset");
        assert_eq!(patch["removed"][0]["span"]["kind"], "unspecified");
        let both = diff(&a, &b, COMPOSED);
        assert_eq!((&both["version"], &both["patch"]), (&json!(COMPOSED), &patch));
        let summary = &both["summary"];
        assert_eq!(summary, &diff(&a, &b, NATIVE));
        assert_eq!(summary["signals"]["errors"], "increased");
        assert_eq!(summary["signals"]["structure"], "changed");
        assert_eq!(summary["stats"]["errorSpanDelta"], 1);
        assert_eq!(summary["services"][0]["newErrors"], 1);
        assert_eq!(summary["services"][0]["sumSpanDurationDeltaMs"], 90);
    }

    #[test]
    fn a_span_below_another_parent_is_found_and_a_large_patch_left_out() {
        let a = forest("shop", vec![span("root", 1, 0, 100), span("a", 2, 1, 10), span("x", 3, 2, 5)]);
        let b = forest("shop", vec![span("root", 1, 0, 100), span("a", 2, 1, 10), span("x", 3, 1, 5)]);
        let summary = diff(&a, &b, NATIVE);
        assert_eq!(summary["stats"]["matchedSpans"], 3);
        assert_eq!(summary["signals"]["structure"], "changed");
        let mut many = vec![span("root", 1, 0, 100)];
        many.extend((2..1000).map(|n| span(&format!("span {n}"), n, 1, 1)));
        let large = diff(&a, &forest("shop", many), COMPOSED);
        assert_eq!(large["patchOmitted"]["reason"], "over_budget");
        assert!(large.get("patch").is_none());
        assert_eq!(large["summary"]["warnings"][0]["code"], "high_cardinality_span_name");
    }

    #[test]
    fn the_patch_of_a_very_deep_trace_is_cut() {
        let deep = |name: &str| forest("shop", (1..3000).map(|n| span(name, n, n - 1, 1)).collect());
        let patch = diff(&deep("a"), &deep("b"), PATCH);
        assert_eq!(patch["stats"]["truncated"], true);
        assert_eq!(patch["stats"]["addedSpans"], 2999);
        assert!(patch["added"].as_array().unwrap().len() < 2999);
    }

    #[test]
    fn circles_of_parents_and_repeated_ids_are_no_obstacle() {
        let circle = forest("shop", vec![span("a", 1, 2, 1), span("b", 2, 1, 1), span("b", 2, 1, 1)]);
        assert_eq!(circle.nodes.len(), 3);
        let patch = diff(&circle, &circle, PATCH);
        assert_eq!(patch["stats"]["matchedSpans"], 3);
        assert_eq!(patch["warnings"][0]["code"], "duplicate_span_id");
    }
}

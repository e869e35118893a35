//! The tools: what they are called, what they take, and what they do.

use http::StatusCode;
use serde_json::{Value, json};
use vivace_protocol::TenantId;
use vivace_protocol::json::{tag_values_for_models, to_vec};
use vivace_traceql::Query;
use vivace_traceql::ast::{Body, SpansetExpr, Stage};

use super::super::tags::{Version, names, values};
use super::super::{Api, diff, metrics, search, trace};
use crate::params::{Params, rfc3339};
use crate::planner::{Search, at_once, complete};
use crate::respond::Refusal;

/// Documents by the names under which the tools and the resources give them.
pub(super) const TRACEQL: [(&str, &str); 4] = [
    ("basic", include_str!("basic.md")),
    ("aggregates", include_str!("aggregates.md")),
    ("structural", include_str!("structural.md")),
    ("metrics", include_str!("metrics.md")),
];
pub(super) const CONFIG: [(&str, &str); 2] =
    [("overview", include_str!("config.md")), ("reference", include_str!("../../../../../configs/reference.md"))];

/// Without `start` the last hour is meant.
const DEFAULT_RANGE_S: u64 = 3600;

/// What a tool found: its kind, its encoding, its text.
pub(super) struct Found {
    pub(super) kind: &'static str,
    pub(super) encoding: &'static str,
    pub(super) text: String,
}

impl Found {
    /// Of the form of the text: what depends on the data's form has had two.
    pub(super) fn version(&self) -> &'static str {
        match self.kind {
            "trace" | "trace-diff" | "attribute-names" | "attribute-values" => "2",
            _ => "1",
        }
    }
}

fn found(kind: &'static str, json: Vec<u8>) -> Found {
    Found { kind, encoding: "json", text: String::from_utf8_lossy(&json).into_owned() }
}

/// The list of tools with their arguments.
pub(super) fn list() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let tool = |name: &str, about: &str, properties: Value, required: &[&str]| {
        json!({
            "name": name,
            "description": about,
            "inputSchema": { "type": "object", "properties": properties, "required": required },
            "annotations": { "readOnlyHint": true },
        })
    };
    let ranged = || {
        json!({
            "query": text("A TraceQL query; see the tool docs-traceql."),
            "start": text("Start of the range, RFC3339. Default: an hour before the end."),
            "end": text("End of the range, RFC3339. Default: now."),
        })
    };
    let document = |names: Vec<&str>| json!({ "name": { "type": "string", "enum": names } });
    json!([
        tool("traceql-search", "Searches traces. Answers the newest.", ranged(), &["query"]),
        tool("traceql-metrics-instant", "Computes one value a series over the whole range.", ranged(), &["query"]),
        tool("traceql-metrics-range", "Computes time series.", ranged(), &["query"]),
        tool(
            "get-trace",
            "Gets one trace with all its spans.",
            json!({ "trace_id": text("The trace's id in hexadecimal digits.") }),
            &["trace_id"],
        ),
        tool(
            "trace-diff",
            "Tells how one trace differs from another.",
            json!({
                "base_trace_id": text("The first trace's id."),
                "compare_trace_id": text("The second trace's id."),
                "base_start": text("Where the first trace is looked for, RFC3339. Default: everywhere."),
                "base_end": text("As base_start."),
                "compare_start": text("Where the second trace is looked for, RFC3339. Default: everywhere."),
                "compare_end": text("As compare_start."),
                "format": text("trace-summary-v0-composed (default), trace-summary-v0-native or trace-patch-v0."),
            }),
            &["base_trace_id", "compare_trace_id"],
        ),
        tool(
            "get-attribute-names",
            "Lists the names of attributes that queries can use.",
            json!({ "scope": text("span, resource, event, link, instrumentation or intrinsic. Default: all.") }),
            &[],
        ),
        tool(
            "get-attribute-values",
            "Lists the values of an attribute.",
            json!({
                "name": text("The attribute as queries name it, for instance resource.service.name."),
                "filter-query": text("Only values on spans that meet this TraceQL filter."),
            }),
            &["name"],
        ),
        tool(
            "docs-traceql",
            "Explains the query language.",
            document(TRACEQL.iter().map(|(name, _)| *name).collect()),
            &["name"],
        ),
        tool(
            "docs-config",
            "Explains the configuration.",
            document(CONFIG.iter().map(|(name, _)| *name).collect()),
            &["name"],
        ),
    ])
}

/// The arguments of a call, all of them text.
struct Arguments<'a>(&'a Value);

impl<'a> Arguments<'a> {
    fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match &self.0[name] {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text)),
            other => Err(Refusal::bad(format!("argument {name:?} must be a string, not {other}"))),
        }
    }

    fn required(&self, name: &str) -> Result<&'a str, Refusal> {
        self.text(name)?.ok_or_else(|| Refusal::bad(format!("argument {name:?} is required")))
    }

    fn time(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || Refusal::bad(format!("argument {name:?} must be a time as in RFC3339, not {text:?}"));
        rfc3339(text).map(Some).ok_or_else(wrong)
    }

    /// Query and range as parameters of the API.
    fn ranged(&self, api: &Api) -> Result<Params, Refusal> {
        let end = self.time("end")?.unwrap_or_else(|| api.planner.clock.unix().as_secs());
        let start = self.time("start")?.unwrap_or_else(|| end.saturating_sub(DEFAULT_RANGE_S));
        let query = self.required("query")?.to_owned();
        Ok(Params::from_pairs([("q", query), ("start", start.to_string()), ("end", end.to_string())]))
    }
}

/// Runs a tool; none if there is none of that name.
pub(super) async fn call(
    api: &Api,
    tenants: &[TenantId],
    name: &str,
    arguments: &Value,
) -> Option<Result<Found, Refusal>> {
    let arguments = Arguments(arguments);
    Some(match name {
        "traceql-search" => search_tool(api, tenants, &arguments).await,
        "traceql-metrics-instant" => metrics_tool(api, tenants, &arguments, true).await,
        "traceql-metrics-range" => metrics_tool(api, tenants, &arguments, false).await,
        "get-trace" => trace_tool(api, tenants, &arguments).await,
        "trace-diff" => diff_tool(api, tenants, &arguments).await,
        "get-attribute-names" => names_tool(api, tenants, &arguments).await,
        "get-attribute-values" => values_tool(api, tenants, &arguments).await,
        "docs-traceql" => document(&TRACEQL, &arguments),
        "docs-config" => document(&CONFIG, &arguments),
        _ => return None,
    })
}

async fn search_tool(api: &Api, tenants: &[TenantId], arguments: &Arguments<'_>) -> Result<Found, Refusal> {
    let params = arguments.ranged(api)?;
    api.check(&params)?;
    if is_metrics(&params) == Some(true) {
        return Err(Refusal::bad(
            "this is a metrics query: use the tool traceql-metrics-instant or traceql-metrics-range for it",
        ));
    }
    let plan = search::plan(api, tenants, &params)?;
    let mut query = Search::new(&api.planner, tenants, plan);
    Ok(found("search-results", to_vec(&complete(&mut query).await?)))
}

/// Whether the query computes series; none if it is no query.
fn is_metrics(params: &Params) -> Option<bool> {
    Query::parse(params.get("q").unwrap_or_default()).ok().map(|query| query.is_metrics())
}

async fn metrics_tool(
    api: &Api,
    tenants: &[TenantId],
    arguments: &Arguments<'_>,
    instant: bool,
) -> Result<Found, Refusal> {
    let params = arguments.ranged(api)?;
    api.check(&params)?;
    if is_metrics(&params) == Some(false) {
        return Err(Refusal::bad("this is no metrics query: use the tool traceql-search for it"));
    }
    let mut query = metrics::begin(api, tenants, &params, instant)?;
    let answer = complete(&mut query).await?;
    Ok(if instant {
        found("metrics-instant", to_vec(&at_once(answer)))
    } else {
        found("metrics-range", to_vec(&answer))
    })
}

async fn trace_tool(api: &Api, tenants: &[TenantId], arguments: &Arguments<'_>) -> Result<Found, Refusal> {
    let answer = trace::for_models(api, tenants, arguments.required("trace_id")?).await?;
    match answer {
        Some(json) => Ok(found("trace", json)),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "there is no trace with this id")),
    }
}

async fn diff_tool(api: &Api, tenants: &[TenantId], arguments: &Arguments<'_>) -> Result<Found, Refusal> {
    let seconds = |name: &str| Ok::<_, Refusal>(arguments.time(name)?.and_then(|s| i64::try_from(s).ok()).unwrap_or(0));
    let base = diff::Side {
        trace_id: arguments.required("base_trace_id")?.to_owned(),
        start: seconds("base_start")?,
        end: seconds("base_end")?,
    };
    let compare = diff::Side {
        trace_id: arguments.required("compare_trace_id")?.to_owned(),
        start: seconds("compare_start")?,
        end: seconds("compare_end")?,
    };
    let format = arguments.text("format")?.unwrap_or(diff::COMPOSED);
    let (answer, _covered) = diff::diff(api, tenants, &base, &compare, format).await?;
    Ok(found("trace-diff", answer.to_string().into_bytes()))
}

async fn names_tool(api: &Api, tenants: &[TenantId], arguments: &Arguments<'_>) -> Result<Found, Refusal> {
    let scope = arguments.text("scope")?.unwrap_or_default().to_owned();
    let params = Params::from_pairs([("scope", scope)]);
    let mut query = names(api, tenants, &params, Version::Two)?;
    Ok(found("attribute-names", to_vec(&complete(&mut query).await?)))
}

async fn values_tool(api: &Api, tenants: &[TenantId], arguments: &Arguments<'_>) -> Result<Found, Refusal> {
    let filter = arguments.text("filter-query")?.unwrap_or_default().to_owned();
    if !filter.is_empty() {
        // Others get what is usable of a filter that they are typing; a model is better told what is wrong.
        checked(&filter).map_err(|why| Refusal::bad(format!("invalid filter-query: {why}")))?;
    }
    let params = Params::from_pairs([("q", filter)]);
    api.check(&params)?;
    let mut query = values(api, tenants, &params, arguments.required("name")?, Version::Two)?;
    Ok(found("attribute-values", tag_values_for_models(&complete(&mut query).await?)))
}

/// Whether a filter is one: the spans that it selects, and nothing that is computed of them.
fn checked(filter: &str) -> Result<(), String> {
    let query = Query::parse(filter).map_err(|error| error.to_string())?;
    let is_filter = match query.body() {
        Body::Search(pipeline) => matches!(pipeline.stages.as_slice(), [Stage::Spans(SpansetExpr::Filter(_))]),
        Body::Metrics { .. } | Body::ScalarComparison(_) => false,
    };
    let single = "it has to be a single filter, as in { status = error && duration > 1s }";
    if is_filter { Ok(()) } else { Err(single.to_owned()) }
}

fn document(documents: &[(&str, &str)], arguments: &Arguments<'_>) -> Result<Found, Refusal> {
    let wanted = arguments.required("name")?;
    match documents.iter().find(|(name, _)| *name == wanted) {
        Some((_, text)) => Ok(Found { kind: "documentation", encoding: "markdown", text: (*text).to_owned() }),
        None => {
            let names: Vec<&str> = documents.iter().map(|(name, _)| *name).collect();
            Err(Refusal::bad(format!("there is no document {wanted:?}, only {}", names.join(", "))))
        }
    }
}

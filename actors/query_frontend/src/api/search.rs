//! `/api/search`.

use std::fmt::Write;

use axum::response::Response;
use prost::Message;
use vivace_protocol::{json, tempopb};
use vivace_traceql::Query;

use super::{Api, Request};
use crate::params::{self, BadParam, Params};
use crate::planner::SearchPlan;
use crate::respond::{self, Form, Refusal};

pub(crate) async fn search(api: &Api, request: Request) -> Result<Response, Refusal> {
    let config = &api.0.config.search;
    let window = params::window(&request.params, &api.time_rules(&request.tenants[0]), false)?;
    let limit = limit(&request.params, config.default_result_limit, config.max_result_limit)?;
    let spans = spans_per_set(&request.params, config.default_spans_per_span_set, config.max_spans_per_span_set)?;
    let query = query_text(&request.params, api.0.config.max_query_expression_size_bytes)?;
    Query::parse(&query).map_err(|error| Refusal::bad(format!("invalid TraceQL query: {error}")))?;
    let plan = SearchPlan {
        query,
        start_ns: u64::from(window.start) * 1_000_000_000,
        // The end is inclusive by the second.
        end_ns: (u64::from(window.end) + 1) * 1_000_000_000 - 1,
        limit,
        spans_per_span_set: spans,
    };
    let found = api.0.search(&request.tenants, &plan).await?;
    let answer = tempopb::SearchResponse { traces: found.traces, metrics: Some(found.metrics) };
    let body: bytes::Bytes = match request.form {
        Form::Protobuf => answer.encode_to_vec().into(),
        Form::Json => json::to_vec(&answer).into(),
    };
    Ok(respond::ok(&request.headers, request.form, body, Some(found.covered.header())))
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

/// The TraceQL of a request: `q`, or the older `tags` and duration bounds said in TraceQL.
pub(crate) fn query_text(params: &Params, max_bytes: u64) -> Result<String, Refusal> {
    if let Some(query) = params.get("q") {
        if params.get("tags").is_some() {
            return Err(Refusal::bad("invalid request: can't specify tags and q in the same query"));
        }
        if query.len() as u64 > max_bytes {
            return Err(Refusal::bad(format!(
                "TraceQL expression exceeds the configured maximum size of {max_bytes} bytes, reduce the query \
                 expression size or contact your system administrator"
            )));
        }
        return Ok(query.to_owned());
    }
    let mut conditions = Vec::new();
    for (key, value) in tags(params.get("tags").unwrap_or(""))? {
        conditions.push(condition(&key, &value));
    }
    let (min, max) = (params.go_duration("minDuration")?, params.go_duration("maxDuration")?);
    if let (Some(min), Some(max)) = (min, max)
        && max <= min
    {
        return Err(Refusal::bad("invalid maxDuration: must be greater than minDuration"));
    }
    conditions.extend(min.map(|d| format!("traceDuration >= {}ns", d.as_nanos())));
    conditions.extend(max.map(|d| format!("traceDuration <= {}ns", d.as_nanos())));
    Ok(format!("{{ {} }}", conditions.join(" && ")))
}

/// One tag as a condition: the names with a meaning of their own first, then an attribute of span or resource.
fn condition(key: &str, value: &str) -> String {
    let quoted = quote(value);
    match key {
        "name" => format!("name = {quoted}"),
        "root.name" => format!("rootName = {quoted}"),
        "root.service.name" => format!("rootServiceName = {quoted}"),
        "status.code" if matches!(value, "ok" | "error" | "unset") => format!("status = {value}"),
        "error" if value == "true" => "status = error".to_owned(),
        _ if value.parse::<i64>().is_ok() => format!("(.{0} = {quoted} || .{0} = {value})", quote(key)),
        _ => format!(".{} = {quoted}", quote(key)),
    }
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or(()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `k=v k2="v 2"`.
fn tags(text: &str) -> Result<Vec<(String, String)>, BadParam> {
    let mut tags: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = rest[..end].to_owned();
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            if let Some(quoted) = after.strip_prefix('"') {
                let mut chars = quoted.char_indices();
                let mut closed = None;
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' => {
                            closed = Some(at + 1);
                            break;
                        }
                        '\\' => value.extend(chars.next().map(|(_, c)| c)),
                        c => value.push(c),
                    }
                }
                let Some(closed) = closed else {
                    return Err(BadParam(format!("invalid tags: the value of tag {key} has no closing quote")));
                };
                rest = &quoted[closed..];
            } else {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                after[..end].clone_into(&mut value);
                rest = &after[end..];
            }
        }
        if key.is_empty() {
            return Err(BadParam("invalid tags: a tag has no name".into()));
        }
        if tags.iter().any(|(k, _)| *k == key) {
            return Err(BadParam(format!("invalid tags: tag {key} has been set twice")));
        }
        tags.push((key, value));
        rest = rest.trim_start();
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(query: &str) -> Result<String, String> {
        query_text(&Params::parse(query), 1000).map_err(|refusal| refusal.text)
    }

    #[test]
    fn older_searches_become_traceql() {
        assert_eq!(text("").unwrap(), "{  }");
        assert_eq!(
            text("tags=service.name%3Dshop%20name%3D%22GET%20%2F%22&minDuration=10ms").unwrap(),
            "{ .\"service.name\" = \"shop\" && name = \"GET /\" && traceDuration >= 10000000ns }"
        );
        assert_eq!(text("tags=a%3D1").unwrap(), "{ (.\"a\" = \"1\" || .\"a\" = 1) }");
    }

    #[test]
    fn errors_read_as_tempo_says_them() {
        assert_eq!(text("tags=a%3D1%20a%3D2").unwrap_err(), "invalid tags: tag a has been set twice");
        assert_eq!(
            text("q=%7B%7D&tags=a%3D1").unwrap_err(),
            "invalid request: can't specify tags and q in the same query"
        );
        assert_eq!(
            text("minDuration=5s&maxDuration=1s").unwrap_err(),
            "invalid maxDuration: must be greater than minDuration"
        );
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
    }

    #[test]
    fn every_made_query_parses() {
        for tags in ["a=b", "weird\"key=1", "x.y=\"a\\\\b \\\"c\"", "status.code=error", "k"] {
            let encoded: String = tags.bytes().map(|b| format!("%{b:02X}")).collect();
            let query = text(&format!("tags={encoded}")).unwrap();
            Query::parse(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
        }
    }
}

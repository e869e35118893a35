//! Traces of a search, names and values of tags.

use serde_json::Value;

use super::{duration, footer, list, number, text, time};
use crate::query::table::{Side, Table};

/// One line a trace, newest first as they come.
pub(in crate::query) fn search(body: &Value) -> String {
    let mut table = Table::new(&[
        ("TRACE ID", Side::Left),
        ("START", Side::Left),
        ("DURATION", Side::Right),
        ("MATCHED", Side::Right),
        ("SERVICE", Side::Left),
        ("NAME", Side::Left),
    ]);
    let mut found = 0;
    for trace in list(&body["traces"]) {
        found += 1;
        let matched: u64 = list(&trace["spanSets"]).map(|set| number(&set["matched"])).sum();
        table.row([
            format!("{:0>32}", text(&trace["traceID"])),
            time(number(&trace["startTimeUnixNano"])),
            duration(number(&trace["durationMs"]).saturating_mul(1_000_000)),
            matched.to_string(),
            text(&trace["rootServiceName"]),
            text(&trace["rootTraceName"]),
        ]);
    }
    let rows = if table.is_empty() { String::new() } else { table.render() };
    format!("{rows}{}", footer(found, "trace", &body["metrics"]))
}

/// One line a tag, scope by scope.
pub(in crate::query) fn tags(body: &Value) -> String {
    let mut table = Table::new(&[("SCOPE", Side::Left), ("TAG", Side::Left)]);
    let mut found = 0;
    for scope in list(&body["scopes"]) {
        for tag in list(&scope["tags"]) {
            found += 1;
            table.row([text(&scope["name"]), text(tag)]);
        }
    }
    let rows = if table.is_empty() { String::new() } else { table.render() };
    format!("{rows}{}", footer(found, "tag", &body["metrics"]))
}

/// One line a value.
pub(in crate::query) fn values(body: &Value) -> String {
    let mut table = Table::new(&[("TYPE", Side::Left), ("VALUE", Side::Left)]);
    let mut found = 0;
    for value in list(&body["tagValues"]) {
        found += 1;
        table.row([text(&value["type"]), text(&value["value"])]);
    }
    let rows = if table.is_empty() { String::new() } else { table.render() };
    format!("{rows}{}", footer(found, "value", &body["metrics"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_shows_a_line_for_each_trace() {
        let body = serde_json::json!({
            "traces": [
                {"traceID": "2f3e0cee77ae5dc9c17ade3689eb2e54", "rootServiceName": "shop", "rootTraceName": "GET /",
                 "startTimeUnixNano": "1700000000012345678", "durationMs": 1557, "spanSets": [{"matched": 2}, {"matched": 1}]},
                {"traceID": "ab", "rootServiceName": "<root span not yet received>", "startTimeUnixNano": "1699999999000000000"},
            ],
            "metrics": {"inspectedBytes": "2048", "completedJobs": 2, "totalJobs": 3},
        });
        let expected = "\
TRACE ID                          START                     DURATION  MATCHED  SERVICE                       NAME
2f3e0cee77ae5dc9c17ade3689eb2e54  2023-11-14T22:13:20.012Z    1.557s        3  shop                          GET /
000000000000000000000000000000ab  2023-11-14T22:13:19.000Z        0s        0  <root span not yet received>
2 traces, 2.0 KiB read, 2 of 3 jobs
";
        assert_eq!(search(&body), expected);
        assert_eq!(search(&serde_json::json!({"traces": [], "metrics": {}})), "0 traces\n");
    }

    #[test]
    fn tags_and_values_show_scope_and_type() {
        let body = serde_json::json!({"scopes": [{"name": "span", "tags": ["a", "http.route"]}, {"name": "event"}]});
        assert_eq!(tags(&body), "SCOPE  TAG\nspan   a\nspan   http.route\n2 tags\n");
        let body = serde_json::json!({"tagValues": [{"type": "string", "value": "cart"}], "metrics": {}});
        assert_eq!(values(&body), "TYPE    VALUE\nstring  cart\n1 value\n");
    }
}

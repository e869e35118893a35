//! How a query was run: the plan, what was left out and why, what was read, and where the time went.

use serde_json::Value;

use super::{bytes, list, number, text};
use crate::query::table::{Side, Table, plain};

/// The object `explain` of an answer.
pub(in crate::query) fn explain(explained: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{name:<14}{}\n", plain(&value)));
        }
    };
    line(&text(&explained["kind"]), text(&explained["query"]));
    let window = &explained["window"];
    if number(&window["endUnixNano"]) > 0 {
        let (start, end) = (number(&window["startUnixNano"]), number(&window["endUnixNano"]));
        line("window", format!("{} to {}", super::time(start), super::time(end)));
    }
    let plan = &explained["plan"];
    line("pushed down", text(&plan["pushedDown"]));
    for demand in list(&plan["perTrace"]) {
        line("per trace", text(demand));
    }
    let names = |fields: &Value| list(fields).map(text).collect::<Vec<_>>().join(", ");
    line("first pass", names(&plan["firstPass"]));
    line("second pass", names(&plan["secondPass"]));
    pruning(&explained["pruning"], &mut line);
    let requests = &explained["requests"];
    let opened = format!(
        "open blocks: {} at hand, {} opened",
        number(&requests["openBlocks"]["hits"]),
        number(&requests["openBlocks"]["misses"]),
    );
    let store =
        requests.get("objectStore").map_or_else(String::new, |n| format!("{} to the object store; ", number(n)));
    line("requests", store + &opened);
    let stages = explained["stages"].as_object().into_iter().flatten();
    let stages = stages.map(|(stage, millis)| format!("{stage} {millis} ms")).collect::<Vec<_>>();
    line("time", stages.join(", "));
    if let (Some(estimated), Some(actual)) = (explained.get("estimated"), explained.get("actual")) {
        line(
            "cost",
            format!(
                "{} of {} read; {} spans looked at, the blocks hold {}",
                bytes(number(&actual["bytes"])),
                bytes(number(&estimated["bytes"])),
                number(&actual["spans"]),
                number(&estimated["spans"]),
            ),
        );
    }
    for skipped in list(&explained["sources"]["skipped"]) {
        line("not read", format!("{}: {}", text(&skipped["what"]), text(&skipped["reason"])));
    }
    let columns = columns(&explained["columns"]);
    if columns.is_empty() { out } else { format!("{out}\n{columns}") }
}

fn pruning(pruning: &Value, line: &mut impl FnMut(&str, String)) {
    let counts = |object: &Value| {
        let counts = object.as_object().into_iter().flatten();
        let counts = counts.filter(|(what, count)| number(count) > 0 || matches!(what.as_str(), "listed" | "read"));
        counts.map(|(what, count)| format!("{count} {}", words(what))).collect::<Vec<_>>().join(", ")
    };
    for (name, key) in [("blocks", "blocks"), ("row groups", "rowGroups"), ("pages", "pages")] {
        line(name, counts(&pruning[key]));
    }
}

/// `byTime` as `by time`.
fn words(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push(' ');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The columns that were touched, those that cost most first.
fn columns(columns: &Value) -> String {
    let mut table = Table::new(&[
        ("COLUMN", Side::Left),
        ("READ", Side::Right),
        ("STORED", Side::Right),
        ("PAGES", Side::Right),
        ("SKIPPED", Side::Right),
        ("REQUESTS", Side::Right),
    ]);
    for column in list(columns) {
        table.row([
            text(&column["column"]),
            bytes(number(&column["bytes"])),
            bytes(number(&column["storedBytes"])),
            number(&column["pages"]).to_string(),
            number(&column["pagesSkipped"]).to_string(),
            number(&column["requests"]).to_string(),
        ]);
    }
    if table.is_empty() { String::new() } else { table.render() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_reads_from_plan_to_cost() {
        let explained = serde_json::json!({
            "kind": "search", "query": "{ .a = 1 }",
            "window": {"startUnixNano": 1_700_000_000_000_000_000u64, "endUnixNano": 1_700_000_060_000_000_000u64},
            "plan": {"pushedDown": ".a = 1", "perTrace": [], "firstPass": ["span.a", "resource.a"], "secondPass": ["span:id"]},
            "sources": {"total": 3, "read": 2, "skipped": [{"what": "live-store", "reason": "gone"}]},
            "pruning": {"blocks": {"listed": 5, "leftOut": 3, "read": 2}, "rowGroups": {"read": 1, "byPredicate": 4, "byTime": 0}, "pages": {"read": 2, "skipped": 9}},
            "requests": {"objectStore": 7, "openBlocks": {"hits": 1, "misses": 1}},
            "stages": {"open": 1.5, "read": 2.25},
            "estimated": {"bytes": 4096, "spans": 1000}, "actual": {"bytes": 1024, "spans": 10},
            "columns": [{"column": "rs.a", "bytes": 1024, "storedBytes": 4096, "pages": 2, "pagesSkipped": 9, "requests": 3}],
        });
        let expected = "\
search        { .a = 1 }
window        2023-11-14T22:13:20.000Z to 2023-11-14T22:14:20.000Z
pushed down   .a = 1
first pass    span.a, resource.a
second pass   span:id
blocks        5 listed, 3 left out, 2 read
row groups    1 read, 4 by predicate
pages         2 read, 9 skipped
requests      7 to the object store; open blocks: 1 at hand, 1 opened
time          open 1.5 ms, read 2.25 ms
cost          1.0 KiB of 4.0 KiB read; 10 spans looked at, the blocks hold 1000
not read      live-store: gone

COLUMN     READ   STORED  PAGES  SKIPPED  REQUESTS
rs.a    1.0 KiB  4.0 KiB      2        9         3
";
        assert_eq!(explain(&explained), expected);
    }

    #[test]
    fn a_look_up_by_id_tells_of_blocks_only() {
        let explained = serde_json::json!({
            "kind": "trace", "query": "ab", "sources": {"total": 3, "read": 3, "skipped": []},
            "pruning": {"blocks": {"listed": 5, "leftOut": 0, "byBloom": 4, "read": 1}},
            "requests": {"openBlocks": {"hits": 5, "misses": 0}}, "stages": {"open": 0.1, "wall": 2.0},
        });
        let expected = "\
trace         ab
blocks        5 listed, 4 by bloom, 1 read
requests      open blocks: 5 at hand, 0 opened
time          open 0.1 ms, wall 2.0 ms
";
        assert_eq!(explain(&explained), expected);
    }
}

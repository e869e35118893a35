//! Answers as tables. What is read here is the JSON of the public API; a field that is not there shows as nothing.

mod explain;
mod metrics;
mod search;
mod trace;

use serde_json::Value;

pub(super) use explain::explain;
pub(super) use metrics::{instant, range};
pub(super) use search::{search, tags, values};
pub(super) use trace::trace;

/// A number of bytes with a unit.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut whole, mut rest, mut unit) = (bytes / 1024, bytes % 1024, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        (whole, rest) = (whole / 1024, whole % 1024);
        unit += 1;
    }
    format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit])
}

/// An instant to the millisecond, in UTC.
fn time(unix_ns: u64) -> String {
    let seconds = i64::try_from(unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let second = prost_types::Timestamp { seconds, nanos: 0 }.to_string();
    format!("{}.{:03}Z", second.trim_end_matches('Z'), unix_ns % 1_000_000_000 / 1_000_000)
}

fn duration(nanos: u64) -> String {
    vivace_traceql::format_duration(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// A 64-bit number, which stands as text in the API's JSON.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

/// What follows the table: how much was found, and what it took.
fn footer(found: usize, what: &str, metrics: &Value) -> String {
    let plural = if found == 1 || what.ends_with('s') { "" } else { "s" };
    let mut line = format!("{found} {what}{plural}");
    let (read, jobs) = (number(&metrics["inspectedBytes"]), number(&metrics["completedJobs"]));
    if read > 0 {
        line.push_str(&format!(", {} read", bytes(read)));
    }
    if jobs > 0 {
        line.push_str(&format!(", {jobs} of {} jobs", number(&metrics["totalJobs"])));
    }
    line.push('\n');
    line
}

/// A value of a label as the API writes it: `{"stringValue": "x"}`.
fn json_value(value: &Value) -> String {
    let Some((kind, value)) = value.as_object().and_then(|object| object.iter().next()) else {
        return "nil".to_owned();
    };
    match (kind.as_str(), value) {
        ("stringValue" | "intValue", Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short_and_exact_enough() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
        assert_eq!(time(1_700_000_000_012_345_678), "2023-11-14T22:13:20.012Z");
        assert_eq!(duration(1_500_000_000), "1.5s");
    }

    #[test]
    fn label_values_show_without_their_type() {
        assert_eq!(json_value(&serde_json::json!({"stringValue": "x"})), "x");
        assert_eq!(json_value(&serde_json::json!({"intValue": "200"})), "200");
        assert_eq!(json_value(&serde_json::json!({"doubleValue": 0.5})), "0.5");
        assert_eq!(json_value(&serde_json::json!({"boolValue": false})), "false");
        assert_eq!(json_value(&serde_json::json!({})), "nil");
    }
}

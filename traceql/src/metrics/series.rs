//! Series: what a metrics query answers with.

use std::{cmp::Ordering, sync::Arc};

use crate::value::{Value, format_duration};

/// A label's name and value.
pub type Label = (Arc<str>, Value);

/// A series of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsSeries {
    /// In the order in which clients expect them. A value of nil is shown as the text `nil`.
    pub labels: Vec<Label>,
    /// Milliseconds since the epoch and value, ascending; intervals without a value have none.
    pub samples: Vec<(i64, f64)>,
    /// In the order of their times.
    pub exemplars: Vec<MetricsExemplar>,
}

/// A span as an example behind a series.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsExemplar {
    /// `trace:id` first, then what the query read of the span.
    pub labels: Vec<Label>,
    /// The span's value, or that of the series at its time.
    pub value: f64,
    /// Start of the span in milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// What a metrics query answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsResult {
    /// Fewer labels first, then by label.
    pub series: Vec<MetricsSeries>,
    /// Why the answer is partial: series were left out because of the request's `max_series`.
    pub truncated: Option<String>,
}

/// A series on its way: one value per interval, NaN for none.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) labels: Vec<Label>,
    pub(crate) values: Vec<f64>,
    pub(crate) exemplars: Vec<Example>,
}

/// An exemplar of a series on its way.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    pub(crate) labels: Vec<Label>,
    pub(crate) start_ns: u64,
    /// NaN: to be replaced by the value of the series.
    pub(crate) value: f64,
}

/// Name of the label that names the function where nothing else tells series apart.
pub(crate) const NAME: &str = "__name__";

impl Series {
    pub(crate) fn name(&self) -> Option<&Value> {
        self.labels.iter().find(|(name, _)| &**name == NAME).map(|(_, value)| value)
    }

    /// All labels but the name.
    pub(crate) fn own_labels(&self) -> impl Iterator<Item = &Label> {
        self.labels.iter().filter(|(name, _)| &**name != NAME)
    }

    pub(crate) fn has_values(&self) -> bool {
        self.values.iter().any(|value| !value.is_nan())
    }
}

/// The order of series in answers: fewer labels first, then label by label by name, type and printed value.
pub(crate) fn output_order(a: &[Label], b: &[Label]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| {
        let each = a
            .iter()
            .zip(b)
            .map(|((a_name, a), (b_name, b))| a_name.cmp(b_name).then_with(|| printed(a).cmp(&printed(b))));
        each.fold(Ordering::Equal, Ordering::then)
    })
}

/// A value with its type before it, text in quotes: how clients see values of different types sorted.
fn printed(value: &Value) -> (u8, String) {
    match value {
        Value::List(items) => (0, items.iter().map(|item| printed(item).1).collect::<Vec<_>>().join(" ")),
        Value::Bool(value) => (1, value.to_string()),
        Value::Float(value) => (2, plain_float(*value)),
        Value::Int(value) => (3, value.to_string()),
        value => (4, format!("{:?}", plain(value))),
    }
}

/// A value as bare text.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Str(text) => text.to_string(),
        Value::Float(value) => plain_float(*value),
        Value::Duration(nanos) => format_duration(*nanos),
        other => other.to_string(),
    }
}

/// Shortest decimals; exponent form below 1e-4 and from 1e21 on.
fn plain_float(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => match exponent.strip_prefix('-') {
            Some(digits) => format!("{mantissa}e-{digits:0>2}"),
            None => format!("{mantissa}e+{exponent:0>2}"),
        },
        None => text,
    }
}

/// Which of two series is preferred where `topk` has a choice: the one with the alphabetically earlier texts, then the one with the
/// larger numbers. Texts count before names, names before numbers.
pub(crate) fn preference(a: &[Label], b: &[Label]) -> Ordering {
    let pairs = || a.iter().zip(b);
    let values = pairs().map(|((_, a), (_, b))| text(a).cmp(&text(b))).fold(Ordering::Equal, Ordering::then);
    values
        .then_with(|| pairs().map(|((a, _), (b, _))| a.cmp(b)).fold(Ordering::Equal, Ordering::then))
        .then_with(|| a.len().cmp(&b.len()))
        .then_with(|| pairs().map(|((_, a), (_, b))| b.total_cmp(a)).fold(Ordering::Equal, Ordering::then))
}

/// What is compared as text; of numbers and truth values nothing.
fn text(value: &Value) -> Option<String> {
    (!matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_))).then(|| plain(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: Value) -> Vec<Label> {
        vec![("x".into(), value)]
    }

    #[test]
    fn series_are_ordered_by_count_then_name_then_printed_value() {
        let texts = ["DELETE /api", "DELETE", "GET", "frontend", "frontend-proxy"];
        for pair in texts.windows(2) {
            let (a, b) = (labels(Value::str(pair[0])), labels(Value::str(pair[1])));
            assert_eq!(output_order(&a, &b), Ordering::Less, "{pair:?}");
        }
        // Numbers as texts, and types before values.
        assert_eq!(output_order(&labels(Value::Int(19)), &labels(Value::Int(3))), Ordering::Less);
        assert_eq!(output_order(&labels(Value::Int(200)), &labels(Value::str("nil"))), Ordering::Less);
        assert_eq!(output_order(&labels(Value::Float(1.5e-5)), &labels(Value::Float(2.0))), Ordering::Less);
        let two = vec![("a".into(), Value::Int(1)), ("b".into(), Value::Int(1))];
        assert_eq!(output_order(&labels(Value::str("zzz")), &two), Ordering::Less);
    }

    #[test]
    fn equal_series_are_preferred_by_earlier_texts_and_then_by_larger_numbers() {
        let two = |kind: &str, bound: f64| vec![("kind".into(), Value::str(kind)), ("b".into(), Value::Float(bound))];
        let mut series = [two("server", 0.5), two("client", 0.03), two("client", 0.25), two("internal", 9.0)];
        series.sort_by(|a, b| preference(a, b));
        assert_eq!(series, [two("client", 0.25), two("client", 0.03), two("internal", 9.0), two("server", 0.5)]);
        let mut numbers = [20, 9, 63, 7].map(|n| labels(Value::Int(n)));
        numbers.sort_by(|a, b| preference(a, b));
        assert_eq!(numbers, [63, 20, 9, 7].map(|n| labels(Value::Int(n))));
    }

    #[test]
    fn floats_print_with_an_exponent_only_when_they_are_tiny_or_huge() {
        let texts = [0.5, 1.6777216e-5, 1e21, 123456789.0, 0.0, -2e-7].map(plain_float);
        assert_eq!(texts, ["0.5", "1.6777216e-05", "1e+21", "123456789", "0", "-2e-07"]);
    }
}

//! Series: one line each, with the figures that fit on it and the course of the values.

use serde_json::Value;

use super::{footer, json_value, list};
use crate::query::table::{Side, Table};

/// Points of the course on a line.
const COURSE: usize = 40;
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Series over time.
pub(in crate::query) fn range(body: &Value) -> String {
    let mut table = Table::new(&[
        ("SERIES", Side::Left),
        ("POINTS", Side::Right),
        ("MIN", Side::Right),
        ("AVG", Side::Right),
        ("MAX", Side::Right),
        ("LAST", Side::Right),
        ("COURSE", Side::Left),
    ]);
    let mut found = 0;
    for series in list(&body["series"]) {
        found += 1;
        let values: Vec<f64> = list(&series["samples"]).map(|sample| float(&sample["value"])).collect();
        let figure = |value: Option<f64>| value.map_or_else(String::new, short);
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let count = finite().fold(0.0, |count, _| count + 1.0);
        table.row([
            labels(&series["labels"]),
            values.len().to_string(),
            figure(finite().reduce(f64::min)),
            figure((count > 0.0).then(|| finite().sum::<f64>() / count)),
            figure(finite().reduce(f64::max)),
            figure(values.last().copied()),
            course(&values),
        ]);
    }
    let rows = if table.is_empty() { String::new() } else { table.render() };
    format!("{rows}{}", footer(found, "series", &body["metrics"]))
}

/// One value a series.
pub(in crate::query) fn instant(body: &Value) -> String {
    let mut table = Table::new(&[("SERIES", Side::Left), ("VALUE", Side::Right)]);
    let mut found = 0;
    for series in list(&body["series"]) {
        found += 1;
        table.row([labels(&series["labels"]), short(float(&series["value"]))]);
    }
    let rows = if table.is_empty() { String::new() } else { table.render() };
    format!("{rows}{}", footer(found, "series", &body["metrics"]))
}

fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = list(labels)
        .map(|label| format!("{}={}", label["key"].as_str().unwrap_or(""), json_value(&label["value"])))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A sample of zero is not written, one that is no number is text.
fn float(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) => text.parse().unwrap_or(f64::NAN),
        _ => 0.0,
    }
}

/// Six significant digits, which a table can hold.
fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let size = value.abs();
    if !(1e-4..1e9).contains(&size) {
        return format!("{value:.5e}");
    }
    let mut text = format!("{value:.6}");
    if text.contains('.') {
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
    }
    text
}

/// Bars from the smallest value to the largest, each the mean of its part of the points.
fn course(values: &[f64]) -> String {
    let width = values.len().div_ceil(COURSE).max(1);
    let means: Vec<f64> = values
        .chunks(width)
        .map(|part| {
            let (sum, count) = part
                .iter()
                .filter(|value| value.is_finite())
                .fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            sum / count
        })
        .collect();
    let finite = || means.iter().copied().filter(|mean| mean.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bars = means.iter().map(|mean| {
        if !mean.is_finite() {
            return ' ';
        }
        // The first height whose part of the range holds the value; a flat line lies at the bottom.
        let place = HEIGHTS.iter().zip(1u8..).find(|(_, step)| (mean - low) * 8.0 <= (high - low) * f64::from(*step));
        place.map_or('█', |(bar, _)| *bar)
    });
    bars.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_shows_figures_and_course() {
        let body = serde_json::json!({
            "series": [
                {"labels": [{"key": "resource.service.name", "value": {"stringValue": "cart"}}],
                 "samples": [{"timestampMs": "1000"}, {"timestampMs": "2000", "value": 2.5}, {"timestampMs": "3000", "value": 5}]},
                {"labels": [{"key": "p", "value": {"doubleValue": 0.9}}], "samples": [{"timestampMs": "1000", "value": "NaN"}]},
            ],
            "metrics": {"inspectedBytes": "10"},
        });
        let expected = "\
SERIES                        POINTS  MIN  AVG  MAX  LAST  COURSE
{resource.service.name=cart}       3    0  2.5    5     5  ▁▄█
{p=0.9}                            1                  NaN
2 series, 10 B read
";
        assert_eq!(range(&body), expected);
    }

    #[test]
    fn an_instant_shows_one_value_a_series() {
        let body = serde_json::json!({"series": [{"labels": [{"key": "__name__", "value": {"stringValue": "rate"}}], "value": 8.134328358}]});
        assert_eq!(instant(&body), "SERIES              VALUE\n{__name__=rate}  8.134328\n1 series\n");
        assert_eq!(instant(&serde_json::json!({"metrics": {}})), "0 series\n");
    }

    #[test]
    fn figures_stay_short() {
        for (value, shown) in [
            (0.0, "0"),
            (54.5, "54.5"),
            (1e-7, "1.00000e-7"),
            (2e12, "2.00000e12"),
            (100.0, "100"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(value), shown);
        }
        assert_eq!(course(&[7.0; 100]).chars().count(), 34);
        assert_eq!(course(&[]), "");
    }
}

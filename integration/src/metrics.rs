//! Reads a figure from `/metrics`.

use std::net::SocketAddr;

use anyhow::Context;

use crate::http;

/// The sum of all series of this name that carry all of these labels, each written as `name="value"`; `None` when there is
/// no such series.
///
/// # Errors
/// When the page does not answer, or a value is no number.
pub fn read(http: SocketAddr, name: &str, labels: &[&str]) -> anyhow::Result<Option<f64>> {
    let page = http::get(http, "/metrics").context("get /metrics")?;
    sum(&page.text(), name, labels)
}

fn sum(page: &str, name: &str, labels: &[&str]) -> anyhow::Result<Option<f64>> {
    let mut sum = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ").with_context(|| format!("no series: {line}"))?,
            None => ("", rest.strip_prefix(' ').unwrap_or("")),
        };
        if value.is_empty() || !labels.iter().all(|label| found.contains(label)) {
            continue;
        }
        let value: f64 = value.trim().parse().with_context(|| format!("no number: {line}"))?;
        *sum.get_or_insert(0.0) += value;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn series_are_found_by_name_and_labels_and_added_up() {
        let page = "# HELP a_total x\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_total_more 9\nb 5\n";
        assert_eq!(sum(page, "a_total", &["x=\"1\""]).unwrap(), Some(7.0));
        assert_eq!(sum(page, "a_total", &["y=\"3\""]).unwrap(), Some(4.0));
        assert_eq!(sum(page, "b", &[]).unwrap(), Some(5.0));
        assert_eq!(sum(page, "c", &[]).unwrap(), None);
    }
}

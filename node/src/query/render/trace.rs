//! A trace as a tree: each span below its parent, with its distance from the start of the trace.

use std::collections::{HashMap, HashSet};

use vivace_protocol::otlp::trace::{Span, status::StatusCode};
use vivace_protocol::{TraceId, tempopb};

use super::{duration, time};
use crate::query::table::{Side, Table};

/// Deeper spans are shown at this depth.
const DEEPEST: usize = 40;

/// The tree below a line about the whole.
pub(in crate::query) fn trace(trace: &tempopb::Trace) -> String {
    let mut spans: Vec<(&Span, &str)> = Vec::new();
    for resource_spans in &trace.resource_spans {
        let attributes = resource_spans.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let service = attributes.iter().find(|attribute| attribute.key == "service.name");
        let service = service.and_then(|attribute| match attribute.value.as_ref()?.value.as_ref()? {
            vivace_protocol::otlp::common::any_value::Value::StringValue(name) => Some(name.as_str()),
            _ => None,
        });
        for scope_spans in &resource_spans.scope_spans {
            spans.extend(scope_spans.spans.iter().map(|span| (span, service.unwrap_or(""))));
        }
    }
    spans.sort_by(|(a, _), (b, _)| {
        a.start_time_unix_nano.cmp(&b.start_time_unix_nano).then_with(|| a.span_id.cmp(&b.span_id))
    });
    let Some((first, _)) = spans.first() else { return String::new() };
    let start = first.start_time_unix_nano;
    let end = spans.iter().map(|(span, _)| span.end_time_unix_nano).max().unwrap_or(start);
    let services: HashSet<&str> = spans.iter().map(|(_, service)| *service).collect();
    let id = TraceId::from_slice(&first.trace_id).map_or_else(String::new, |id| format!("{:0>32}", id.to_string()));
    let (count, plural) = (spans.len(), if spans.len() == 1 { "" } else { "s" });
    let head = format!(
        "trace {id}: {count} span{plural} of {} service{}, {} from {}\n",
        services.len(),
        if services.len() == 1 { "" } else { "s" },
        duration(end.saturating_sub(start)),
        time(start),
    );
    let mut table = Table::new(&[
        ("AFTER", Side::Right),
        ("DURATION", Side::Right),
        ("SERVICE", Side::Left),
        ("SPAN", Side::Left),
        ("STATUS", Side::Left),
    ]);
    for (at, depth) in order(&spans) {
        let (span, service) = spans[at];
        let indent = "  ".repeat(depth.min(DEEPEST));
        table.row([
            duration(span.start_time_unix_nano.saturating_sub(start)),
            duration(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano)),
            service.to_owned(),
            format!("{indent}{}", span.name),
            status(span),
        ]);
    }
    head + &table.render()
}

fn status(span: &Span) -> String {
    let Some(status) = &span.status else { return String::new() };
    match StatusCode::try_from(status.code) {
        Ok(StatusCode::Error) if status.message.is_empty() => "error".to_owned(),
        Ok(StatusCode::Error) => format!("error: {}", status.message),
        Ok(StatusCode::Ok) => "ok".to_owned(),
        _ => String::new(),
    }
}

/// Places in `spans`, parents before children, with their depth. What has no parent here is a root; so is one span of
/// every circle of parents.
fn order(spans: &[(&Span, &str)]) -> Vec<(usize, usize)> {
    let places: HashMap<&[u8], usize> = spans.iter().enumerate().map(|(at, (span, _))| (&*span.span_id, at)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut roots = Vec::new();
    for (at, (span, _)) in spans.iter().enumerate() {
        match places.get(&*span.parent_span_id) {
            Some(parent) if *parent != at => children[*parent].push(at),
            _ => roots.push(at),
        }
    }
    let mut ordered = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    // Those behind the roots are reached only when no root leads to them.
    for root in roots.into_iter().chain(0..spans.len()) {
        let mut open = vec![(root, 0)];
        while let Some((at, depth)) = open.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            ordered.push((at, depth));
            open.extend(children[at].iter().rev().map(|child| (*child, depth + 1)));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value};
    use vivace_protocol::otlp::resource::Resource;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Status};

    use super::*;

    const START: u64 = 1_700_000_000_000_000_000;

    fn span(id: u8, parent: u8, after_ms: u64, lasts_ms: u64, name: &str) -> Span {
        let start = START + after_ms * 1_000_000;
        Span {
            trace_id: vec![7; 16],
            span_id: vec![id; 8],
            parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
            name: name.to_owned(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + lasts_ms * 1_000_000,
            ..Span::default()
        }
    }

    fn of(service: &str, spans: Vec<Span>) -> ResourceSpans {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(service.to_owned())) });
        let attributes = vec![KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() }];
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    }

    #[test]
    fn children_stand_below_their_parents_in_the_order_of_time() {
        let mut failed = span(3, 1, 5, 20, "charge");
        failed.status = Some(Status { message: "declined".to_owned(), code: 2 });
        let whole = tempopb::Trace {
            resource_spans: vec![
                of("pay", vec![failed]),
                of(
                    "shop",
                    vec![
                        span(4, 2, 3, 1, "SELECT"),
                        span(1, 0, 0, 30, "GET /"),
                        span(2, 1, 2, 8, "cart"),
                        span(9, 8, 40, 1, "orphan"),
                    ],
                ),
            ],
        };
        let expected = "\
trace 07070707070707070707070707070707: 5 spans of 2 services, 41ms from 2023-11-14T22:13:20.000Z
AFTER  DURATION  SERVICE  SPAN        STATUS
   0s      30ms  shop     GET /
  2ms       8ms  shop       cart
  3ms       1ms  shop         SELECT
  5ms      20ms  pay        charge    error: declined
 40ms       1ms  shop     orphan
";
        assert_eq!(trace(&whole), expected);
    }

    #[test]
    fn circles_and_deep_chains_end() {
        let circle = tempopb::Trace {
            resource_spans: vec![of("a", vec![span(1, 2, 0, 1, "x"), span(2, 1, 1, 1, "y"), span(3, 3, 2, 1, "self")])],
        };
        assert_eq!(trace(&circle).lines().count(), 5);
        let chain = (1..=200).map(|id| span(id, id - 1, u64::from(id), 1, "deep")).collect();
        let shown = trace(&tempopb::Trace { resource_spans: vec![of("a", chain)] });
        assert_eq!(shown.lines().count(), 202);
        assert!(shown.lines().all(|line| line.len() < 160));
        assert_eq!(trace(&tempopb::Trace::default()), "");
    }
}

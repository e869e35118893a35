//! The filter `q` of queries for names and values, as it is typed: what is usable of it narrows the answer, the rest is left out.

use vivace_traceql::Query;
use vivace_traceql::ast::{BinaryOp, Body, Expr, MetricExpr, Pipeline, SpansetExpr, Stage};

use crate::respond::Refusal;

/// Most alternatives of a filter.
const MAX_GROUPS: usize = 100;

/// The pipeline that selects the spans meant; empty when all are.
pub(crate) fn filter(text: &str) -> Result<String, Refusal> {
    let Some(pipeline) = pipeline(text).or_else(|| pipeline(&usable(text))) else { return Ok(String::new()) };
    let groups = pipeline.stages.iter().map(stage_groups).max().unwrap_or(1);
    if groups > MAX_GROUPS {
        return Err(Refusal::bad(format!(
            "the filter has {groups} groups joined by OR, which is too many (limit: {MAX_GROUPS}). Reduce the number of OR \
             conditions in the query"
        )));
    }
    let everything = Stage::Spans(SpansetExpr::Filter(Expr::Literal(vivace_traceql::Value::Bool(true))));
    if pipeline.stages == [everything] {
        return Ok(String::new());
    }
    Ok(pipeline.to_string())
}

/// The selection of spans, without what is computed of them.
fn pipeline(text: &str) -> Option<Pipeline> {
    match Query::parse(text).ok()?.body() {
        Body::Search(pipeline) => Some(pipeline.clone()),
        Body::Metrics { expr: MetricExpr::Leaf(leaf), .. } => Some(leaf.pipeline.clone()),
        Body::Metrics { .. } | Body::ScalarComparison(_) => None,
    }
}

/// The first filter of a query that does not parse, with those of its conditions that do by themselves.
fn usable(text: &str) -> String {
    let Some(open) = text.find('{') else { return String::new() };
    let mut parts = vec![String::new()];
    let (mut quote, mut escaped) = (None, false);
    let mut rest = text[open + 1..].chars().peekable();
    while let Some(c) = rest.next() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if c == '}' => break,
            None if c == '&' && rest.peek() == Some(&'&') => {
                rest.next();
                parts.push(String::new());
                continue;
            }
            None => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let usable = |part: &String| !part.trim().is_empty() && Query::parse(&format!("{{ {part} }}")).is_ok();
    let parts: Vec<String> = parts.into_iter().filter(usable).map(|part| part.trim().to_owned()).collect();
    format!("{{ {} }}", parts.join(" && "))
}

fn stage_groups(stage: &Stage) -> usize {
    match stage {
        Stage::Spans(set) => set_groups(set),
        Stage::Scalar(_) | Stage::By(_) | Stage::Coalesce | Stage::Select(_) => 1,
    }
}

fn set_groups(set: &SpansetExpr) -> usize {
    match set {
        SpansetExpr::Filter(expr) => groups(expr),
        SpansetExpr::Binary { left, right, .. } => set_groups(left).saturating_add(set_groups(right)),
        SpansetExpr::Pipeline(pipeline) => pipeline.stages.iter().map(stage_groups).max().unwrap_or(1),
    }
}

/// Alternatives of an expression, once its conjunctions are multiplied out.
fn groups(expr: &Expr) -> usize {
    match expr {
        Expr::Binary { op: BinaryOp::Or, left, right } => groups(left).saturating_add(groups(right)),
        Expr::Binary { op: BinaryOp::And, left, right } => groups(left).saturating_mul(groups(right)),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_filters_are_kept_and_metrics_are_dropped() {
        assert_eq!(filter("{ .a = 1 }").unwrap(), "{ .a = 1 }");
        assert_eq!(filter("{ .a = 1 } | rate()").unwrap(), "{ .a = 1 }");
        assert_eq!(filter("{ }").unwrap(), "");
        assert_eq!(filter("").unwrap(), "");
        assert_eq!(filter("no query").unwrap(), "");
    }

    #[test]
    fn of_a_filter_that_is_being_typed_the_finished_conditions_are_kept() {
        assert_eq!(filter("{ .a = 1 && .b = }").unwrap(), "{ .a = 1 }");
        assert_eq!(filter("{ .b = && .a = \"x && }\" && span.").unwrap(), "{ .a = `x && }` }");
        assert_eq!(filter("{ .a = \"open").unwrap(), "");
    }

    #[test]
    fn too_many_alternatives_are_refused() {
        let any = |n: usize| (0..n).map(|i| format!(".a = {i}")).collect::<Vec<_>>().join(" || ");
        assert!(filter(&format!("{{ {} }}", any(100))).is_ok());
        let text = filter(&format!("{{ {} }}", any(101))).unwrap_err().text;
        assert!(text.ends_with("(limit: 100). Reduce the number of OR conditions in the query"), "{text}");
        assert!(filter(&format!("{{ ({}) && ({}) }}", any(11), any(11))).is_err());
    }
}

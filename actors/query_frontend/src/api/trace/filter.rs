//! The span filter of the second trace endpoint: `q` keeps the matching spans of a trace, with their surroundings on request.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use vivace_protocol::TraceId;
use vivace_protocol::otlp::trace::Span;
use vivace_protocol::tempopb::Trace;
use vivace_storage::LiveSource;
use vivace_traceql::ast::{BinaryOp, Body, Expr, SpansetExpr, Stage};
use vivace_traceql::{Field, Intrinsic, Kind, Merger, Query, SearchError, SearchPlan, SpanHit, Value};

use crate::params::{BadParam, Params};

/// A checked filter.
#[derive(Debug)]
pub(crate) struct Filter {
    plan: SearchPlan,
    /// How many hops of ancestors stay above a match; none is all.
    above: Option<u64>,
    /// How many hops of descendants stay below it.
    below: Option<u64>,
}

fn invalid(why: impl std::fmt::Display) -> BadParam {
    BadParam(format!("invalid TraceQL filter: {why}"))
}

impl Filter {
    /// The filter of a request; none without `q`.
    pub(crate) fn of(params: &Params) -> Result<Option<Self>, BadParam> {
        let Some(text) = params.get("q") else { return Ok(None) };
        let query =
            Query::parse(text).map_err(|error| invalid(format!("failed to parse TraceQL spanset filter: {error}")))?;
        let only = "only a single TraceQL filter is supported: got a";
        let Body::Search(pipeline) = query.body() else { return Err(invalid(format!("{only} metrics query"))) };
        let [Stage::Spans(SpansetExpr::Filter(expr))] = pipeline.stages.as_slice() else {
            return Err(invalid(format!("{only} structural or aggregate query")));
        };
        if let Some(intrinsic) = needs_whole_trace(expr) {
            return Err(invalid(format!("intrinsic is not supported by this filter: \"{intrinsic}\"")));
        }
        // With the kind, which tells apart spans that share an id.
        let query = Query::parse(&format!("{pipeline} | select(kind)")).map_err(invalid)?;
        let plan = SearchPlan::new(&query).map_err(invalid)?.with_none_lacking();
        let depth = |name: &str, default: i64| {
            let depth = params.i64(name)?.unwrap_or(default);
            if depth < -1 {
                return Err(BadParam(format!("invalid value for {name}: must be >= -1")));
            }
            // -1 is all.
            Ok(u64::try_from(depth).ok())
        };
        let keep_hierarchy = params.bool("keep_hierarchy")?.unwrap_or(false);
        let below = depth("match_depth", 0)?;
        let above = if keep_hierarchy { depth("ancestor_depth", -1)? } else { Some(0) };
        Ok(Some(Self { plan, above, below }))
    }

    /// Whether spans stay because of others.
    pub(crate) fn has_surroundings(&self) -> bool {
        self.above != Some(0) || self.below != Some(0)
    }

    /// Removes the spans that are not wanted, and the groups left empty; whether there were any.
    ///
    /// # Errors
    /// When the encoded trace cannot be read.
    pub(crate) fn apply(&self, id: TraceId, encoded: Bytes, trace: &mut Trace) -> Result<bool, SearchError> {
        let source = LiveSource::new([(id, vec![encoded])]);
        let mut merger = Merger::new(1, false);
        vivace_traceql::search(&source, &self.plan, None, usize::MAX, &mut merger)?;
        let hits = merger.finish();
        let spans = hits.iter().flat_map(|hit| &hit.span_sets).flat_map(|set| &set.spans);
        let matches: HashSet<Identity<'_>> = spans.map(of_hit).collect();
        let keep = self.kept(trace, &matches);
        let before = keep.len();
        let mut kept = keep.into_iter();
        let mut after = 0;
        trace.resource_spans.retain_mut(|resource| {
            resource.scope_spans.retain_mut(|scope| {
                scope.spans.retain(|_| kept.next().unwrap_or(false));
                after += scope.spans.len();
                !scope.spans.is_empty()
            });
            !resource.scope_spans.is_empty()
        });
        Ok(after < before)
    }

    /// For each span in order, whether it stays.
    fn kept(&self, trace: &Trace, matches: &HashSet<Identity<'_>>) -> Vec<bool> {
        let spans: Vec<&Span> =
            trace.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).collect();
        let mut by_id: HashMap<&[u8], Vec<usize>> = HashMap::new();
        let mut children: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            by_id.entry(&span.span_id).or_default().push(at);
            if !span.parent_span_id.is_empty() {
                children.entry(&span.parent_span_id).or_default().push(at);
            }
        }
        let matching: Vec<usize> = (0..spans.len()).filter(|at| matches.contains(&of_span(spans[*at]))).collect();
        let none = Vec::new();
        let mut keep = vec![false; spans.len()];
        spread(&matching, self.above, &mut keep, |at| by_id.get(spans[at].parent_span_id.as_slice()).unwrap_or(&none));
        spread(&matching, self.below, &mut keep, |at| children.get(spans[at].span_id.as_slice()).unwrap_or(&none));
        keep
    }
}

/// What tells a span of a trace from the others.
type Identity<'a> = (&'a [u8], u64, Kind);

fn of_span(span: &Span) -> Identity<'_> {
    (&span.span_id, span.start_time_unix_nano, Kind::from_code(u8::try_from(span.kind).unwrap_or(0)))
}

fn of_hit(hit: &SpanHit) -> Identity<'_> {
    let kind = hit.attributes.iter().find_map(|(_, value)| match value {
        Value::Kind(kind) => Some(*kind),
        _ => None,
    });
    (hit.id.as_slice(), hit.start_ns, kind.unwrap_or(Kind::Unspecified))
}

/// Marks what can be reached from `from` within a number of hops; each is visited once, so that circles end.
fn spread<'a>(from: &[usize], hops: Option<u64>, keep: &mut [bool], next: impl Fn(usize) -> &'a Vec<usize>) {
    let mut seen = vec![false; keep.len()];
    let mut front = from.to_vec();
    let mut hop = 0;
    while !front.is_empty() {
        let mut following = Vec::new();
        for at in front {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            keep[at] = true;
            if hops.is_none_or(|hops| hop < hops) {
                following.extend(next(at));
            }
        }
        front = following;
        hop += 1;
    }
}

/// The first intrinsic that one span alone does not know.
fn needs_whole_trace(expr: &Expr) -> Option<Intrinsic> {
    match expr {
        Expr::Field(Field::Intrinsic(intrinsic)) => match intrinsic {
            Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::ChildCount
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent => Some(*intrinsic),
            _ => None,
        },
        Expr::Field(_) | Expr::Literal(_) => None,
        Expr::Negate(inner) | Expr::Not(inner) | Expr::Exists(inner) | Expr::Missing(inner) => needs_whole_trace(inner),
        Expr::Binary { op: BinaryOp::Compare(_) | BinaryOp::Match | BinaryOp::NotMatch, left, right }
        | Expr::Binary { op: BinaryOp::And | BinaryOp::Or | BinaryOp::Arithmetic(_), left, right } => {
            needs_whole_trace(left).or_else(|| needs_whole_trace(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans};

    use super::*;

    /// root -> a -> b -> c, and root -> d in another resource.
    fn trace() -> Trace {
        let span = |name: &str, own: u64, parent: u64| Span {
            trace_id: vec![1; 16],
            span_id: own.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
            name: name.to_owned(),
            start_time_unix_nano: own * 10,
            end_time_unix_nano: own * 10 + 5,
            ..Span::default()
        };
        let resource = |spans| ResourceSpans {
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        };
        let first = vec![span("root", 1, 0), span("a", 2, 1), span("b", 3, 2), span("c", 4, 3)];
        Trace { resource_spans: vec![resource(first), resource(vec![span("d", 5, 1)])] }
    }

    fn kept(parameters: &str) -> (Vec<String>, bool) {
        let filter = Filter::of(&Params::parse(parameters)).unwrap().unwrap();
        let mut trace = trace();
        let dropped = filter.apply(TraceId([1; 16]), trace.encode_to_vec().into(), &mut trace).unwrap();
        let spans = trace.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        (spans.map(|span| span.name.clone()).collect(), dropped)
    }

    #[test]
    fn matching_spans_stay_with_the_surroundings_asked_for() {
        let q = "q={name=\"b\"}";
        assert_eq!(kept(q), (vec!["b".into()], true));
        assert_eq!(kept(&format!("{q}&match_depth=1")).0, ["b", "c"]);
        assert_eq!(kept(&format!("{q}&keep_hierarchy=true")).0, ["root", "a", "b"]);
        assert_eq!(kept(&format!("{q}&keep_hierarchy=true&ancestor_depth=1&match_depth=-1")).0, ["a", "b", "c"]);
        // Without the hierarchy its depth is not even read.
        assert_eq!(kept(&format!("{q}&ancestor_depth=nonsense")).0, ["b"]);
        assert_eq!(kept("q={}"), (["root", "a", "b", "c", "d"].map(String::from).into(), false));
        assert_eq!(kept("q={name=\"nothing\"}"), (Vec::new(), true));
        assert_eq!(kept("q={name=\"d\"}").0, ["d"]);
    }

    #[test]
    fn spans_that_share_an_id_and_a_start_are_told_apart() {
        let mut trace = trace();
        let spans = &mut trace.resource_spans[0].scope_spans[0].spans;
        let shared = Span { name: "server".into(), kind: 2, ..spans[2].clone() };
        spans[2].kind = 3;
        spans.push(shared);
        let filter = Filter::of(&Params::parse("q={name=\"b\"}")).unwrap().unwrap();
        assert!(filter.apply(TraceId([1; 16]), trace.encode_to_vec().into(), &mut trace).unwrap());
        let kept = trace.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        assert_eq!(kept.map(|span| (span.name.as_str(), span.kind)).collect::<Vec<_>>(), [("b", 3)]);
    }

    #[test]
    fn who_has_no_events_lacks_their_attributes() {
        assert_eq!(kept("q={event.k = nil}").0.len(), 5);
        assert_eq!(kept("q={link.k = nil %26%26 name=\"b\"}").0, ["b"]);
        assert!(kept("q={event.k != nil}").0.is_empty());
    }

    #[test]
    fn errors_read_as_tempo_says_them() {
        let error = |parameters: &str| Filter::of(&Params::parse(parameters)).unwrap_err().0;
        assert!(
            error("q={").starts_with("invalid TraceQL filter: failed to parse TraceQL spanset filter: parse error"),
            "{}",
            error("q={")
        );
        let only = "invalid TraceQL filter: only a single TraceQL filter is supported: got a";
        for query in ["{} >> {}", "{} | count() > 1", "{} && {}"] {
            assert_eq!(
                error(&format!("q={}", query.replace('&', "%26"))),
                format!("{only} structural or aggregate query")
            );
        }
        assert_eq!(error("q={} | rate()"), format!("{only} metrics query"));
        assert_eq!(
            error("q={ .a = 1 || traceDuration > 1s }"),
            "invalid TraceQL filter: intrinsic is not supported by this filter: \"traceDuration\""
        );
        assert_eq!(error("q={}&match_depth=-2"), "invalid value for match_depth: must be >= -1");
        assert_eq!(error("q={}&keep_hierarchy=1&ancestor_depth=-2"), "invalid value for ancestor_depth: must be >= -1");
    }

    #[test]
    fn circles_of_parents_end() {
        let mut circle = trace();
        circle.resource_spans[0].scope_spans[0].spans[0].parent_span_id = 4_u64.to_be_bytes().to_vec();
        let filter = Filter::of(&Params::parse("q={name=\"b\"}&keep_hierarchy=true&match_depth=-1")).unwrap().unwrap();
        filter.apply(TraceId([1; 16]), circle.encode_to_vec().into(), &mut circle).unwrap();
        assert_eq!(circle.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).count(), 5);
    }
}

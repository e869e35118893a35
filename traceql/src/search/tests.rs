//! The batch evaluator against a naive one that looks at one span at a time and compares every pair.

use proptest::prelude::*;

use super::*;
use crate::{
    ast::{BinaryOp, Body, Expr, Form, Relation, SpansetExpr, SpansetOp, Stage},
    memory::{MemoryEvent, MemoryLink, MemorySource, MemorySpan, MemoryTrace, Position},
    pattern::Pattern,
    query::Query,
    value::{Kind, Status},
};

fn id(number: u8) -> [u8; 8] {
    [0, 0, 0, 0, 0, 0, 0, number]
}

fn attribute_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => (-1_i64..4).prop_map(Value::Int),
        2 => prop_oneof![Just("x"), Just("y"), Just("xx"), Just("nil")].prop_map(Value::str),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => (-1_i32..4).prop_map(|n| Value::Float(f64::from(n) / 2.0)),
        1 => prop::collection::vec(prop_oneof![Just("x"), Just("y")].prop_map(Value::str), 0..3).prop_map(Value::list),
        1 => prop::collection::vec((0_i64..3).prop_map(Value::Int), 2..3).prop_map(Value::list),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<(Arc<str>, Value)>> {
    prop::collection::vec((prop_oneof![Just("a"), Just("b"), Just("c")], attribute_value()), 0..3).prop_map(|list| {
        let mut unique: Vec<(Arc<str>, Value)> = Vec::new();
        for (key, value) in list {
            if !unique.iter().any(|(known, _)| **known == *key) {
                unique.push((key.into(), value));
            }
        }
        unique
    })
}

fn span() -> impl Strategy<Value = MemorySpan> {
    let event = (prop_oneof![Just("x"), Just("y")], attributes()).prop_map(|(name, attributes)| MemoryEvent {
        time_ns: 5,
        name: name.into(),
        attributes,
    });
    let link = attributes().prop_map(|attributes| MemoryLink { trace_id: [1; 16], span_id: id(3), attributes });
    (
        (prop_oneof![Just("x"), Just("y"), Just("xyz")], 0_u8..6, 0_u8..3, 1_u8..12, 0_u8..12, 0_u64..4),
        (attributes(), attributes(), attributes()),
        (prop::collection::vec(event, 0..3), prop::collection::vec(link, 0..3)),
    )
        .prop_map(
            |((name, kind, status, own, parent, duration_ns), (attributes, resource, scope), (events, links))| {
                MemorySpan {
                    id: id(own),
                    parent_id: id(parent.saturating_sub(3)),
                    name: name.into(),
                    kind: Kind::from_code(kind),
                    status: Status::from_code(status),
                    start_ns: 3,
                    duration_ns,
                    attributes,
                    resource: Arc::new(resource),
                    scope_attributes: scope,
                    events,
                    links,
                    ..MemorySpan::default()
                }
            },
        )
}

fn traces() -> impl Strategy<Value = Vec<MemoryTrace>> {
    prop::collection::vec(prop::collection::vec(span(), 1..9), 1..5).prop_map(|traces| {
        (1_u8..).zip(traces).map(|(number, spans)| MemoryTrace { id: [number; 16], spans }).collect()
    })
}

/// Well-typed truth values.
fn condition() -> impl Strategy<Value = String> {
    let attribute = || {
        prop_oneof![
            4 => Just(".a"), 2 => Just(".b"), 2 => Just("span.a"), 1 => Just("resource.b"), 2 => Just("event.a"),
            1 => Just("link.a"), 1 => Just("instrumentation.c"),
        ]
    };
    let literal =
        || prop_oneof![Just("1"), Just("2"), Just("0.5"), Just("\"x\""), Just("\"y\""), Just("\"nil\""), Just("1ns"),];
    let order = || prop_oneof![Just("="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let atom = prop_oneof![
        6 => (attribute(), order(), literal()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        2 => (literal(), order(), attribute()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        2 => (attribute(), order(), attribute()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        2 => (attribute(), prop_oneof![Just("=~"), Just("!~")], prop_oneof![Just("x.*"), Just("x|y"), Just("x+")])
            .prop_map(|(a, op, b)| format!("{a} {op} \"{b}\"")),
        1 => (attribute(), prop_oneof![Just("="), Just("!=")]).prop_map(|(a, op)| format!("{a} {op} nil")),
        1 => attribute().prop_map(str::to_owned),
        2 => (attribute(), prop_oneof![Just("+"), Just("*"), Just("/"), Just("^"), Just("%")], attribute(), order())
            .prop_map(|(a, math, b, op)| format!("{a} {math} {b} {op} 1")),
        4 => prop_oneof![
            Just("name = \"x\""), Just("name =~ \"x.*\""), Just("name > \"x\""), Just("status = error"),
            Just("status != unset"), Just("kind = server"), Just("kind != client"), Just("duration > 1ns"),
            Just("duration >= 1.5"), Just("3 > duration"), Just("traceDuration > 2ns"), Just("rootName = \"x\""),
            Just("rootServiceName = \"\""), Just("event:name = \"x\""), Just("event:timeSinceStart > 1ns"),
            Just("link:spanID = \"0000000000000003\""), Just("span:id = \"0000000000000004\""),
            Just("span:parentID != \"0000000000000000\""), Just("span:id > \"0000000000000004\""),
            Just("nestedSetParent < 0"), Just("nestedSetLeft + 1 = nestedSetRight"), Just("span:childCount > 0.5"),
            Just("trace:id = \"2020202020202020202020202020202\""), Just("trace:id != \"01010101010101010101010101010101\""),
            Just("true"), Just("false"), Just("event:name != nil"), Just("event.a = nil"), Just("link.b = nil"),
        ].prop_map(str::to_owned),
    ];
    atom.prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            3 => (inner.clone(), prop_oneof![Just("&&"), Just("||")], inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            1 => inner.prop_map(|a| format!("({a}) = false")),
        ]
    })
}

fn spanset() -> impl Strategy<Value = String> {
    condition().prop_map(|expr| format!("{{ {expr} }}")).prop_recursive(2, 6, 2, |inner| {
        let op = prop_oneof![
            Just("&&"),
            Just("||"),
            Just(">"),
            Just("<"),
            Just(">>"),
            Just("<<"),
            Just("~"),
            Just("!>"),
            Just("!<"),
            Just("!>>"),
            Just("!<<"),
            Just("!~"),
            Just("&>"),
            Just("&<"),
            Just("&>>"),
            Just("&<<"),
            Just("&~"),
        ];
        (inner.clone(), op, inner).prop_map(|(a, op, b)| format!("({a}) {op} ({b})"))
    })
}

struct Naive<'a> {
    trace: &'a MemoryTrace,
    positions: Vec<Position>,
}

/// A span with a choice of event and link, `None` where it has none.
#[derive(Clone, Copy)]
struct Choice {
    row: usize,
    event: Option<usize>,
    link: Option<usize>,
}

impl Naive<'_> {
    fn field(&self, choice: Choice, field: &Field) -> Value {
        let mut values = self.trace.values(choice.row, self.positions[choice.row], field);
        let index = match field.level() {
            Level::Event => choice.event,
            Level::Link => choice.link,
            Level::Trace | Level::Span => Some(0),
        };
        index.map_or(Value::Nil, |index| values.swap_remove(index))
    }

    fn value(&self, choice: Choice, expr: &Expr) -> Value {
        let of = |expr: &Expr| self.value(choice, expr);
        let holds = |expr: &Expr| of(expr) == Value::Bool(true);
        match expr {
            Expr::Literal(value) => value.clone(),
            Expr::Field(field) => self.field(choice, field),
            Expr::Negate(inner) => crate::arithmetic::negate(&of(inner)).unwrap_or_default(),
            Expr::Not(inner) => match of(inner) {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Nil,
            },
            Expr::Exists(inner) => Value::Bool(!of(inner).is_nil()),
            Expr::Missing(inner) => {
                let owner = match &**inner {
                    Expr::Field(field) if field.level() == Level::Event => choice.event.is_some(),
                    Expr::Field(field) if field.level() == Level::Link => choice.link.is_some(),
                    _ => true,
                };
                Value::Bool(owner && of(inner).is_nil())
            }
            Expr::Binary { op, left, right } => match op {
                BinaryOp::And => Value::Bool(holds(left) && holds(right)),
                BinaryOp::Or => Value::Bool(holds(left) || holds(right)),
                BinaryOp::Arithmetic(op) => op.apply(&of(left), &of(right)).unwrap_or_default(),
                BinaryOp::Match | BinaryOp::NotMatch => {
                    let Value::Str(source) = of(right) else { return Value::Nil };
                    let pattern = Pattern::new(&source).unwrap();
                    let wanted = *op == BinaryOp::Match;
                    Value::Bool(match of(left) {
                        Value::Str(text) => pattern.is_match(&text) == wanted,
                        Value::List(items) if items.is_empty() => !wanted,
                        Value::List(items) => {
                            let mut each = items.iter().map(|item| match item {
                                Value::Str(text) => Some(pattern.is_match(text)),
                                _ => None,
                            });
                            if wanted { each.any(|m| m == Some(true)) } else { each.all(|m| m == Some(false)) }
                        }
                        _ => false,
                    })
                }
                BinaryOp::Compare(op) => {
                    let (left_value, right_value) = (of(left), of(right));
                    let strict = |field: &Expr, value: &Value, literal: &Expr| match (field, literal) {
                        (Expr::Field(Field::Attribute { .. }), Expr::Literal(literal)) => {
                            let own = value.type_of();
                            own.element().unwrap_or(own) != literal.type_of()
                                && !matches!(value, Value::List(items) if items.is_empty())
                        }
                        _ => false,
                    };
                    if strict(left, &left_value, right) || strict(right, &right_value, left) {
                        return Value::Bool(false);
                    }
                    Value::Bool(left_value.compare(*op, &right_value))
                }
            },
        }
    }

    fn selects(&self, row: usize, expr: &Expr) -> bool {
        let span = &self.trace.spans[row];
        let choices = |count: usize| if count == 0 { vec![None] } else { (0..count).map(Some).collect() };
        choices(span.events.len()).into_iter().any(|event| {
            choices(span.links.len())
                .into_iter()
                .any(|link| self.value(Choice { row, event, link }, expr) == Value::Bool(true))
        })
    }

    fn related(&self, relation: Relation, l: usize, r: usize) -> bool {
        let (left, right) = (self.positions[l], self.positions[r]);
        match relation {
            Relation::Child => right.parent != 0 && left.left != 0 && right.parent == left.left,
            Relation::Parent => self.related(Relation::Child, r, l),
            Relation::Descendant => {
                left.left != 0 && right.left != 0 && right.left > left.left && right.right < left.right
            }
            Relation::Ancestor => self.related(Relation::Descendant, r, l),
            Relation::Sibling => l != r && left.parent != 0 && left.parent == right.parent,
        }
    }

    fn spans(&self, expr: &SpansetExpr) -> Vec<usize> {
        let all = 0..self.trace.spans.len();
        match expr {
            SpansetExpr::Filter(filter) => all.filter(|row| self.selects(*row, filter)).collect(),
            SpansetExpr::Pipeline(_) => unreachable!("not generated"),
            SpansetExpr::Binary { op, left, right } => {
                let (left, right) = (self.spans(left), self.spans(right));
                let either = |row: &usize| left.contains(row) || right.contains(row);
                match op {
                    SpansetOp::And if left.is_empty() || right.is_empty() => Vec::new(),
                    SpansetOp::And | SpansetOp::Or => all.filter(either).collect(),
                    SpansetOp::Structural { relation, form } => {
                        let r_holds = |r: usize| left.iter().any(|l| self.related(*relation, *l, r));
                        let l_holds = |l: usize| right.iter().any(|r| self.related(*relation, l, *r));
                        all.filter(|row| match form {
                            Form::Plain => right.contains(row) && r_holds(*row),
                            Form::Negated => right.contains(row) && !r_holds(*row),
                            Form::Union => {
                                (right.contains(row) && r_holds(*row)) || (left.contains(row) && l_holds(*row))
                            }
                        })
                        .collect()
                    }
                }
            }
        }
    }
}

fn run(text: &str, traces: Vec<MemoryTrace>, per_batch: usize) -> Vec<TraceHit> {
    let plan = SearchPlan::new(&Query::parse(text).unwrap()).unwrap();
    let mut merger = Merger::new(100, false);
    search(&MemorySource::new(traces, per_batch), &plan, None, 100, &mut merger).unwrap();
    merger.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn batches_give_what_one_span_at_a_time_gives(text in spanset(), traces in traces(), per_batch in 1_usize..4) {
        let Ok(query) = Query::parse(&text) else { return Err(TestCaseError::reject("ill typed")) };
        let Body::Search(pipeline) = query.body() else { unreachable!("no metrics generated") };
        let [Stage::Spans(expr)] = pipeline.stages.as_slice() else { unreachable!("one stage generated") };
        let hits = run(&text, traces.clone(), per_batch);
        for trace in &traces {
            let naive = Naive { trace, positions: trace.positions() };
            let expected: Vec<[u8; 8]> = naive.spans(expr).into_iter().map(|row| trace.spans[row].id).collect();
            let got: Vec<[u8; 8]> = hits
                .iter()
                .filter(|hit| hit.trace_id == trace.id)
                .flat_map(|hit| &hit.span_sets)
                .flat_map(|set| &set.spans)
                .map(|span| span.id)
                .collect();
            prop_assert_eq!(got, expected, "{} on {:?}", text, trace);
        }
    }

    #[test]
    fn the_merged_newest_do_not_depend_on_the_order_of_arrival(starts in prop::collection::vec(0_u64..5, 0..20), limit in 1_usize..6) {
        let hits: Vec<TraceHit> = (1_u8..).zip(starts).map(|(number, start)| hit(number, start, 1)).collect();
        let merged = |hits: &mut dyn Iterator<Item = &TraceHit>| {
            let mut merger = Merger::new(limit, true);
            hits.for_each(|hit| { merger.add(hit.clone()); });
            merger.finish()
        };
        prop_assert_eq!(merged(&mut hits.iter()), merged(&mut hits.iter().rev()));
    }
}

fn hit(number: u8, start_ns: u64, matched: u32) -> TraceHit {
    TraceHit {
        trace_id: [number; 16],
        root_service: "".into(),
        root_name: "".into(),
        start_ns,
        duration_ns: 1,
        service_stats: Vec::new(),
        span_sets: vec![SpanSet { spans: Vec::new(), matched, attributes: Vec::new() }],
    }
}

#[test]
fn parts_of_one_trace_are_overlaid() {
    let mut merger = Merger::new(2, false);
    let stat = |spans, errors| ServiceStat { service: "s".into(), spans, errors };
    merger.add(TraceHit { service_stats: vec![stat(3, 0)], ..hit(1, 9, 2) });
    merger.add(TraceHit { root_name: "r".into(), duration_ns: 7, service_stats: vec![stat(2, 1)], ..hit(1, 5, 4) });
    assert!(!merger.is_full(u64::MAX));
    merger.add(hit(2, 1, 1));
    assert!(merger.is_full(u64::MAX) && !merger.add(hit(3, 99, 1)));
    let hits = merger.finish();
    assert_eq!(hits.len(), 2);
    assert_eq!((hits[0].start_ns, hits[0].duration_ns, &*hits[0].root_name), (5, 7, "r"));
    assert_eq!(hits[0].service_stats, [stat(3, 1)]);
    assert_eq!((hits[0].span_sets.len(), hits[0].span_sets[0].matched), (1, 4));
}

fn small() -> Vec<MemoryTrace> {
    let resource: Arc<Vec<(Arc<str>, Value)>> = Arc::new(vec![("service.name".into(), Value::str("shop"))]);
    let span = |number: u8, parent: u8, size: i64, kind: Kind| MemorySpan {
        id: id(number),
        parent_id: id(parent),
        name: format!("op{number}").into(),
        kind,
        start_ns: 1000 + u64::from(number),
        duration_ns: 10 * u64::from(number),
        attributes: vec![("size".into(), Value::Int(size))],
        resource: resource.clone(),
        ..MemorySpan::default()
    };
    vec![MemoryTrace {
        id: [1; 16],
        spans: vec![
            span(1, 0, 5, Kind::Server),
            span(2, 1, -7, Kind::Client),
            span(3, 1, 2, Kind::Client),
            span(4, 3, 2, Kind::Internal),
        ],
    }]
}

#[test]
fn results_carry_what_the_query_read() {
    let hits = run("{ kind = client } | select(.size, name)", small(), 1);
    let hit = &hits[0];
    assert_eq!((&*hit.root_name, &*hit.root_service, hit.start_ns, hit.duration_ns), ("op1", "shop", 1001, 43));
    assert_eq!(hit.service_stats, [ServiceStat { service: "shop".into(), spans: 4, errors: 0 }]);
    assert_eq!(hit.span_sets[0].matched, 2);
    let span = &hit.span_sets[0].spans[0];
    assert_eq!((span.id, &*span.name, span.start_ns, span.duration_ns), (id(2), "op2", 1002, 20));
    assert_eq!(span.attributes, [("kind".into(), Value::Kind(Kind::Client)), ("size".into(), Value::Int(-7))]);
    assert_eq!(&*run("{ kind = client }", small(), 1)[0].span_sets[0].spans[0].name, "");
}

#[test]
fn pipelines_group_aggregate_and_coalesce() {
    let attributes = |text: &str| -> Vec<Vec<(String, Value)>> {
        run(text, small(), 1)
            .into_iter()
            .flat_map(|hit| hit.span_sets)
            .map(|set| set.attributes.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
            .collect()
    };
    let by = |kind| ("by(kind)".to_owned(), Value::Kind(kind));
    assert_eq!(
        attributes("{ } | by(kind) | count() > 1"),
        [vec![by(Kind::Client), ("count()".to_owned(), Value::Int(2))]]
    );
    assert_eq!(attributes("{ } | by(kind) | coalesce()"), [vec![]]);
    assert_eq!(attributes("{ } | avg(.size) < 1"), [vec![("avg(.size)".to_owned(), Value::Float(0.5))]]);
    assert_eq!(attributes("{ } | max(duration) = 40ns"), [vec![("max(duration)".to_owned(), Value::Duration(40))]]);
    assert_eq!(attributes("{ } | min(.size) = -7")[0][0].1, Value::Int(-7));
    assert_eq!(attributes("{ } | sum(.size) = 2")[0][0].1, Value::Int(2));
    assert!(attributes("{ } | sum(.nothing) = 0").is_empty());
    assert_eq!(attributes("({ kind = client } | count() > 1) && ({ kind = server } | select(.x))").len(), 1);
    let plan = SearchPlan::new(&Query::parse("({ } | by(kind)) > ({ } | select(.x))").unwrap()).unwrap();
    let error = search(&MemorySource::new(small(), 1), &plan, None, 3, &mut Merger::new(1, false)).unwrap_err();
    assert!(error.to_string().contains("coalesce()"));
}

/// One span with events named `a`, `log` and `log`; `k` counts from 1, and the first has no `k`.
fn with_events() -> Vec<MemoryTrace> {
    let event = |(name, k): (&str, Option<i64>)| MemoryEvent {
        time_ns: 1000,
        name: name.into(),
        attributes: k.into_iter().map(|k| ("k".into(), Value::Int(k))).collect(),
    };
    let link = |number: u8| MemoryLink {
        trace_id: [number; 16],
        span_id: id(number),
        attributes: vec![("n".into(), Value::Int(number.into()))],
    };
    let span = MemorySpan {
        id: id(1),
        start_ns: 1000,
        events: [("a", None), ("log", Some(1)), ("log", Some(2))].map(event).into(),
        links: [1, 2].map(link).into(),
        ..MemorySpan::default()
    };
    let earlier = MemorySpan { id: id(2), events: vec![event(("other", Some(9)))], ..span.clone() };
    vec![MemoryTrace { id: [1; 16], spans: vec![earlier, span] }]
}

#[test]
fn of_events_and_links_those_are_shown_that_the_filter_held_for() {
    let shown = |text: &str| -> Vec<(String, Value)> {
        let hits = run(text, with_events(), 1);
        let spans = hits.into_iter().flat_map(|hit| hit.span_sets).flat_map(|set| set.spans);
        let span = spans.into_iter().find(|span| span.id == id(1)).unwrap();
        span.attributes.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    };
    let (name, k) = (|name| ("event:name".to_owned(), Value::str(name)), |k| ("k".to_owned(), Value::Int(k)));
    assert_eq!(shown("{ event:name = `log` }"), [name("log")]);
    assert_eq!(shown("{ event:name = `log` && event.k = 2 }"), [name("log"), k(2)]);
    assert_eq!(shown("{ event:name = `log` } | select(event.k)"), [name("log"), k(1)]);
    assert_eq!(shown("{ event.k > 1 } | select(event:name)"), [k(2), name("log")]);
    // The last filter chooses; what the chosen event lacks is shown of the first that has it.
    assert_eq!(shown("{ event:name = `log` } | { event.k = 2 }"), [name("log"), k(2)]);
    assert_eq!(shown("{ event:name = `a` } | select(event.k)"), [name("a"), k(1)]);
    assert_eq!(shown("{ } | select(event:name, event.k)"), [name("a"), k(1)]);
    assert_eq!(shown("{ link.n > 1 }"), [("n".to_owned(), Value::Int(2))]);
    assert_eq!(shown("{ event.k = 2 && link.n = 2 }"), [k(2), ("n".to_owned(), Value::Int(2))]);
}

#[test]
fn groups_and_aggregates_are_of_the_events_that_the_filter_held_for() {
    let sets = |text: &str| -> Vec<Vec<Value>> {
        let hits = run(text, with_events(), 1);
        let sets = hits.into_iter().flat_map(|hit| hit.span_sets);
        sets.map(|set| set.attributes.into_iter().map(|(_, value)| value).collect()).collect()
    };
    assert_eq!(sets("{ event:name = `log` } | by(event:name)"), [[Value::str("log")]]);
    assert_eq!(sets("{ event.k > 1 && event.k < 5 } | max(event.k) < 9"), [[Value::Int(2)]]);
    assert_eq!(sets("{ event:name = `log` } | by(event.k)"), [[Value::Int(1)]]);
    assert_eq!(sets("{ } | min(event.k) < 5"), [[Value::Int(1)]]);
}

#[test]
fn a_span_without_events_lacks_their_attributes_where_the_plan_says_so() {
    let mut traces = with_events();
    let bare = MemorySpan { id: id(3), ..MemorySpan::default() };
    traces[0].spans.push(bare);
    let found = |text: &str, none_lacks: bool| -> Vec<[u8; 8]> {
        let plan = SearchPlan::new(&Query::parse(text).unwrap()).unwrap();
        let plan = if none_lacks { plan.with_none_lacking() } else { plan };
        let mut merger = Merger::new(1, false);
        search(&MemorySource::new(traces.clone(), 1), &plan, None, 9, &mut merger).unwrap();
        let sets = merger.finish().into_iter().flat_map(|hit| hit.span_sets);
        sets.flat_map(|set| set.spans).map(|span| span.id).collect()
    };
    assert_eq!(found("{ event.k = nil }", false), [id(1)]);
    assert_eq!(found("{ event.k = nil }", true), [id(1), id(3)]);
    assert_eq!(found("{ link.n = nil }", true), [id(3)]);
    assert_eq!(found("{ event.k != nil }", true), [id(2), id(1)]);
}

#[test]
fn selected_nested_set_numbers_are_shown() {
    let hits = run("{ kind = client } | select(nestedSetLeft, nestedSetParent, nestedSetLeft)", small(), 1);
    let span = &hits[0].span_sets[0].spans[1];
    let kind = ("kind".into(), Value::Kind(Kind::Client));
    let (left, parent) = (("nestedSetLeft".into(), Value::Int(4)), ("nestedSetParent".into(), Value::Int(1)));
    assert_eq!(span.attributes, [kind, left, parent]);
}

#[test]
fn only_the_first_spans_of_a_set_are_shown_and_all_are_counted() {
    let plan = SearchPlan::new(&Query::parse("{ }").unwrap()).unwrap();
    let mut merger = Merger::new(1, false);
    search(&MemorySource::new(small(), 1), &plan, None, 3, &mut merger).unwrap();
    let set = &merger.finish()[0].span_sets[0];
    assert_eq!((set.spans.len(), set.matched), (3, 4));
}

#[test]
fn a_query_that_matches_nothing_reads_nothing() {
    let plan = SearchPlan::new(&Query::parse("{ false } || { .a && false }").unwrap()).unwrap();
    assert!(plan.is_empty());
}

#[test]
fn groups_of_one_trace_are_bounded_and_the_error_says_so() {
    let plan = SearchPlan::new(&Query::parse("{ } | by(span.x)").unwrap()).unwrap();
    let evaluated = |spans: u32, values: i64| {
        let info = crate::fetch::TraceInfo { spans: 0..spans, ..crate::fetch::TraceInfo::default() };
        let values = (0..i64::from(spans)).map(|row| row % values).collect();
        let batch = SpanBatch {
            traces: vec![info],
            handles: (0..u64::from(spans)).map(SpanHandle).collect(),
            columns: vec![crate::column::Column::Int { values, valid: None }],
            ..SpanBatch::default()
        };
        plan.evaluator().evaluate(&batch)
    };
    let most = 1 << 18;
    assert_eq!(evaluated(most + 9, i64::from(most)).unwrap()[0].sets.len(), 1 << 18);
    let error = evaluated(most + 9, i64::from(most) + 1).unwrap_err().to_string();
    assert_eq!(
        error,
        "by(span.x) makes more than 262144 groups of the spans of one trace, group by what has fewer values"
    );
}

#[test]
fn conditions_are_mirrored_and_negation_is_not_pushed_down() {
    let spec = |text: &str| SearchPlan::new(&Query::parse(text).unwrap()).unwrap().spec(None);
    let printed = |text: &str| format!("{:?}", spec(text).spans);
    assert_eq!(printed("{ 5 < .a }"), printed("{ .a > 5 }"));
    assert_eq!(printed("{ !(span.a = `x`) }"), "Always");
    assert!(spec("{ .a } >> { .b }").structure);
    assert_eq!(spec("{ .a } >> { .b }").traces.len(), 2);
    assert_eq!(spec("{ .a } !>> { .b }").traces.len(), 1);
    assert_eq!(spec("{ .a } || { .b }").traces.len(), 0);
}

proptest! {
    /// What is not among the candidates can change nothing: a merger that is shown candidates only ends like one that is shown all,
    /// as long as every part of a trace knows when it started.
    #[test]
    fn candidates_lose_nothing_that_would_be_kept(
        batches in prop::collection::vec(prop::collection::vec(0_u8..12, 0..9), 1..6),
        starts in prop::array::uniform12(0_u64..9),
        limit in 0_usize..5,
        most_recent in any::<bool>(),
    ) {
        let (mut narrow, mut wide) = (Merger::new(limit, most_recent), Merger::new(limit, most_recent));
        for traces in batches {
            let info = |number: &u8| crate::fetch::TraceInfo {
                id: [*number; 16],
                start_ns: starts[usize::from(*number)],
                ..crate::fetch::TraceInfo::default()
            };
            let batch = SpanBatch { traces: traces.iter().map(info).collect(), ..SpanBatch::default() };
            let all: Vec<Survivor> =
                (0..u32::try_from(traces.len()).unwrap()).map(|trace| Survivor { trace, sets: Vec::new(), chosen: Arc::default() }).collect();
            let hit = |survivor: &Survivor| {
                let trace = &batch.traces[survivor.trace as usize];
                TraceHit {
                    trace_id: trace.id,
                    root_service: "".into(),
                    root_name: "".into(),
                    start_ns: trace.start_ns,
                    duration_ns: 0,
                    service_stats: Vec::new(),
                    span_sets: Vec::new(),
                }
            };
            // A source gives each trace once in a batch.
            let mut seen = std::collections::BTreeSet::new();
            let all: Vec<Survivor> =
                all.into_iter().filter(|survivor| seen.insert(batch.traces[survivor.trace as usize].id)).collect();
            let candidates = narrow.candidates(&batch, all.clone());
            if most_recent {
                let held = candidates.iter().filter(|survivor| narrow.traces.contains_key(&hit(survivor).trace_id));
                prop_assert!(candidates.len() <= limit + held.count());
            }
            candidates.iter().for_each(|survivor| { narrow.add(hit(survivor)); });
            all.iter().for_each(|survivor| { wide.add(hit(survivor)); });
        }
        prop_assert_eq!(narrow.finish(), wide.finish());
    }
}

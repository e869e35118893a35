//! Random spans: columns against one span at a time, and parts of the spans against all of them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    Field, Intrinsic,
    ast::{Body, MetricExpr, MetricFunction, OverTimeOp},
    memory::Position,
    metrics::{numbers::exponent, quantile::quantile, series::Label},
};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-3_i64..40).prop_map(Value::Int),
        2 => (-6_i32..9).prop_map(|n| Value::Float(f64::from(n) / 2.0)),
        1 => prop_oneof![Just("x"), Just("y")].prop_map(Value::str),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => prop::collection::vec((0_i64..3).prop_map(Value::Int), 2..4).prop_map(Value::list),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<(std::sync::Arc<str>, Value)>> {
    let one = |key: &'static str| prop::option::weighted(0.7, value()).prop_map(move |value| Some((key, value?)));
    (one("a"), one("b")).prop_map(|(a, b)| a.into_iter().chain(b).map(|(key, value)| (key.into(), value)).collect())
}

fn span() -> impl Strategy<Value = MemorySpan> {
    (0_u64..70, 0_u64..5000, attributes(), attributes(), prop_oneof![Just("x"), Just("y"), Just("z")]).prop_map(
        |(start_ns, duration_ns, attributes, resource, name)| MemorySpan {
            start_ns,
            duration_ns,
            attributes,
            resource: std::sync::Arc::new(resource),
            name: name.into(),
            ..MemorySpan::default()
        },
    )
}

fn traces() -> impl Strategy<Value = Vec<MemoryTrace>> {
    prop::collection::vec(prop::collection::vec(span(), 1..7), 0..7).prop_map(|traces| {
        (1_u8..).zip(traces).map(|(number, spans)| MemoryTrace { id: [number; 16], spans }).collect()
    })
}

/// A pipeline as text, and the rows of a trace that it selects.
type Selector = (&'static str, fn(&MemoryTrace) -> Vec<usize>);

fn named(trace: &MemoryTrace, name: &str) -> Vec<usize> {
    (0..trace.spans.len()).filter(|row| &*trace.spans[*row].name == name).collect()
}

const SELECTORS: [Selector; 4] = [
    ("{ }", |trace| (0..trace.spans.len()).collect()),
    ("{ name = \"x\" }", |trace| named(trace, "x")),
    ("{ name = \"x\" } && { name = \"y\" }", |trace| {
        let (x, y) = (named(trace, "x"), named(trace, "y"));
        if x.is_empty() || y.is_empty() { Vec::new() } else { x.into_iter().chain(y).collect() }
    }),
    ("{ name != \"z\" } | by(name) | count() > 1", |trace| {
        ["x", "y"].into_iter().map(|name| named(trace, name)).filter(|rows| rows.len() > 1).flatten().collect()
    }),
];

fn function() -> impl Strategy<Value = String> {
    let field = || {
        prop_oneof![
            Just("span.a"),
            Just("resource.b"),
            Just(".a"),
            Just("duration"),
            Just("traceDuration"),
            Just("name")
        ]
    };
    let call = prop_oneof![
        Just("rate()".to_owned()),
        Just("count_over_time()".to_owned()),
        (prop_oneof![Just("min"), Just("max"), Just("avg"), Just("sum"), Just("histogram")], field())
            .prop_map(|(function, field)| format!("{function}_over_time({field})")),
        field().prop_map(|field| format!("quantile_over_time({field}, 0.25, 0.9)")),
    ];
    (call, prop::collection::vec(field(), 0..3))
        .prop_map(|(call, by)| if by.is_empty() { call } else { format!("{call} by ({})", by.join(", ")) })
}

fn axis() -> impl Strategy<Value = MetricsRequest> {
    (0_u64..20, 1_u64..60, 1_u64..30, any::<bool>()).prop_map(|(start_ns, range, step_ns, instant)| MetricsRequest {
        start_ns,
        end_ns: start_ns + range,
        step_ns,
        instant,
        exemplars: 5,
        max_series: 0,
    })
}

/// One span after the other, by the words of the reference.
fn naive(
    text: &str,
    selector: Selector,
    request: &MetricsRequest,
    traces: &[MemoryTrace],
) -> HashMap<Vec<Label>, Vec<f64>> {
    let query = Query::parse(text).unwrap();
    let Body::Metrics { expr: MetricExpr::Leaf(leaf), .. } = query.body() else {
        unreachable!("no arithmetic generated")
    };
    let MetricFunction::OverTime { op, field, quantiles, by } = &leaf.function else {
        unreachable!("no compare generated")
    };
    let step = if request.instant { request.end_ns - request.start_ns } else { request.step_ns };
    let intervals = usize::try_from((request.end_ns - request.start_ns).div_ceil(step)).unwrap();
    let mut groups: HashMap<Vec<Value>, Vec<(usize, Value)>> = HashMap::new();
    for trace in traces {
        for row in selector.1(trace) {
            let start = trace.spans[row].start_ns;
            if start <= request.start_ns || start > request.end_ns {
                continue;
            }
            let interval = (0..intervals).zip(1..).find(|(_, edge)| start <= request.start_ns + edge * step).unwrap().0;
            let of = |field: &Field| trace.values(row, Position::default(), field).remove(0);
            let argument = field.as_ref().map_or(Value::Nil, of);
            groups.entry(by.iter().map(of).collect()).or_default().push((interval, argument));
        }
    }
    if by.is_empty() {
        groups.entry(Vec::new()).or_default();
    }
    let is_duration = field.as_ref().is_some_and(|field| field.static_type() == crate::Type::Duration);
    let scale = if field == &Some(Field::Intrinsic(Intrinsic::Duration)) { 1e9 } else { 1.0 };
    let mut series = HashMap::new();
    for (key, spans) in groups {
        let labels: Vec<Label> = by
            .iter()
            .zip(&key)
            .filter(|(_, value)| !value.is_nil())
            .map(|(field, value)| (field.to_string().into(), value.clone()))
            .collect();
        let alone = match by.first() {
            Some(first) => (first.to_string().into(), Value::Nil),
            None => ("__name__".into(), Value::str(op.as_str())),
        };
        let own = if labels.is_empty() { vec![alone] } else { labels.clone() };
        let within = |interval: usize| spans.iter().filter(move |(at, _)| *at == interval).map(|(_, value)| value);
        let numbers = |interval: usize| -> Vec<f64> {
            within(interval).filter_map(Value::as_f64).map(|value| value / scale).collect()
        };
        let powers = |interval: usize| -> Vec<u8> {
            let each = within(interval).map(|value| match value {
                Value::Int(value) | Value::Duration(value) => exponent(*value),
                _ => 0,
            });
            each.filter(|power| *power > 0).collect()
        };
        let bound = |power: u8| f64::from(power).exp2() / if is_duration { 1e9 } else { 1.0 };
        let all: Vec<usize> = (0..intervals).collect();
        let by_interval =
            |value: &dyn Fn(usize) -> f64| -> Vec<f64> { all.iter().map(|interval| value(*interval)).collect() };
        let or_gap = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let mut add = |labels: Vec<Label>, values: Vec<f64>| {
            if values.iter().any(|value| !value.is_nan()) {
                series.insert(labels, values);
            }
        };
        match op {
            OverTimeOp::Rate => add(own, by_interval(&|i| within(i).count() as f64 / (step as f64 / 1e9))),
            OverTimeOp::Count => add(own, by_interval(&|i| within(i).count() as f64)),
            OverTimeOp::Min => add(own, by_interval(&|i| or_gap(numbers(i).into_iter().reduce(f64::min)))),
            OverTimeOp::Max => add(own, by_interval(&|i| or_gap(numbers(i).into_iter().reduce(f64::max)))),
            OverTimeOp::Sum => add(own, by_interval(&|i| or_gap(numbers(i).into_iter().reduce(|a, b| a + b)))),
            OverTimeOp::Avg => add(
                own,
                by_interval(&|i| or_gap(numbers(i).into_iter().reduce(|a, b| a + b)) / numbers(i).len() as f64),
            ),
            OverTimeOp::Histogram | OverTimeOp::Quantile => {
                let mut seen: Vec<u8> = all.iter().flat_map(|interval| powers(*interval)).collect();
                seen.sort_unstable();
                seen.dedup();
                let count = |i: usize, power: u8| powers(i).into_iter().filter(|other| *other == power).count() as u64;
                if *op == OverTimeOp::Histogram {
                    for power in seen {
                        let mut labels = labels.clone();
                        labels.push(("__bucket".into(), Value::Float(bound(power))));
                        add(labels, by_interval(&|i| count(i, power) as f64));
                    }
                } else if !seen.is_empty() {
                    for q in quantiles {
                        let mut labels = labels.clone();
                        labels.push(("p".into(), Value::Float(q.0)));
                        let at = |i: usize| {
                            let buckets: Vec<(f64, u64)> =
                                seen.iter().map(|power| (bound(*power), count(i, *power))).collect();
                            quantile(q.0, &buckets)
                        };
                        add(labels, by_interval(&at));
                    }
                }
            }
        }
    }
    series
}

fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

fn dense(series: &MetricsSeries, request: &MetricsRequest) -> Vec<f64> {
    // Steps of a few nanoseconds share their milliseconds, so samples are matched by their number where all are there.
    let times: Vec<i64> = (0..request.intervals()).map(|interval| request.timestamp_ms(interval)).collect();
    assert!(series.samples.iter().all(|(time, _)| times.contains(time)));
    series.samples.iter().map(|(_, value)| *value).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn columns_give_what_one_span_at_a_time_gives(
        function in function(), selector in 0..SELECTORS.len(), request in axis(), traces in traces(), per_batch in 1_usize..4,
    ) {
        let selector = SELECTORS[selector];
        let text = format!("{} | {function}", selector.0);
        let plan = MetricsPlan::new(&Query::parse(&text).unwrap(), &request).unwrap();
        let result = plan.finish(observe(&plan, &MemorySource::new(traces.clone(), per_batch), Window::ALL));
        let mut wanted = naive(&text, selector, &request, &traces);
        for series in &result.series {
            let Some(values) = wanted.remove(&series.labels) else {
                return Err(TestCaseError::fail(format!("{text}: unexpected series {:?}", series.labels)));
            };
            let values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
            let got = dense(series, &request);
            prop_assert!(
                got.len() == values.len() && got.iter().zip(&values).all(|(a, b)| close(*a, *b)),
                "{} {:?}: {:?} instead of {:?}", text, series.labels, got, values
            );
        }
        prop_assert!(wanted.is_empty(), "{text}: missing {wanted:?}");
    }

    #[test]
    fn any_division_of_the_spans_gives_the_same_series(
        function in function(), selector in 0..SELECTORS.len(), request in axis(), traces in traces(),
        places in prop::collection::vec(0_usize..3, 7), cut in 0_u64..80, order in any::<bool>(),
    ) {
        let text = format!("{} | {function}", SELECTORS[selector].0);
        let plan = MetricsPlan::new(&Query::parse(&text).unwrap(), &request).unwrap();
        let whole = plan.finish(observe(&plan, &MemorySource::new(traces.clone(), 100), Window::ALL));

        let mut parts = Vec::new();
        for place in 0..3 {
            let own: Vec<MemoryTrace> =
                traces.iter().zip(&places).filter(|(_, at)| **at == place).map(|(trace, _)| trace.clone()).collect();
            let source = MemorySource::new(own, 2);
            // Two jobs over adjacent windows.
            parts.push(observe(&plan, &source, Window { until_ns: cut, ..Window::ALL }));
            parts.push(observe(&plan, &source, Window { after_ns: cut, ..Window::ALL }));
        }
        if order {
            parts.reverse();
        }
        // Half of the parts are added up first, then the sums.
        let mut sum = plan.partial();
        for pair in parts.chunks(2) {
            let mut half = plan.partial();
            for part in pair {
                let leaves = part.leaves().iter().map(|leaf| (leaf.groups().to_vec(), leaf.exemplars().to_vec())).collect();
                plan.merge(&mut half, MetricsPartial::from_parts(leaves, part.truncated)).unwrap();
            }
            plan.merge(&mut sum, half).unwrap();
        }
        let divided = plan.finish(sum);
        prop_assert_eq!(divided.series.len(), whole.series.len(), "{}", &text);
        for (a, b) in divided.series.iter().zip(&whole.series) {
            prop_assert_eq!(&a.labels, &b.labels, "{}", &text);
            prop_assert!(
                a.samples.len() == b.samples.len()
                    && a.samples.iter().zip(&b.samples).all(|(a, b)| a.0 == b.0 && close(a.1, b.1)),
                "{}: {:?} and {:?}", text, a, b
            );
            prop_assert_eq!(a.exemplars.len(), b.exemplars.len(), "{}", &text);
            for (a, b) in a.exemplars.iter().zip(&b.exemplars) {
                prop_assert!(a.labels == b.labels && a.timestamp_ms == b.timestamp_ms && close(a.value, b.value), "{}", text);
            }
        }
    }

    #[test]
    fn compare_of_parts_is_compare_of_all(traces in traces(), places in prop::collection::vec(any::<bool>(), 7), request in axis()) {
        let query = Query::parse("{ name != \"z\" } | compare({ span.a > 2 }, 2)").unwrap();
        let plan = MetricsPlan::new(&query, &request).unwrap();
        let whole = plan.finish(observe(&plan, &MemorySource::new(traces.clone(), 100), Window::ALL));
        let mut sum = plan.partial();
        for side in [true, false] {
            let own: Vec<MemoryTrace> =
                traces.iter().zip(&places).filter(|(_, at)| **at == side).map(|(trace, _)| trace.clone()).collect();
            plan.merge(&mut sum, observe(&plan, &MemorySource::new(own, 1), Window::ALL)).unwrap();
        }
        prop_assert_eq!(plan.finish(sum), whole);
    }
}

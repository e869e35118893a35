//! Functions by hand. Times are milliseconds.

use super::*;
use crate::{
    FetchError, FetchSpec, Source, TimeRange,
    memory::MemoryEvent,
    value::{Kind, Status},
};

fn number(value: i64) -> (&'static str, Value) {
    ("n", Value::Int(value))
}

fn spans() -> Vec<MemoryTrace> {
    let (a, b) = (("g", Value::str("a")), ("g", Value::str("b")));
    vec![
        trace(1, &[(1, &[a.clone(), number(4)]), (10, &[a.clone(), number(8)]), (11, std::slice::from_ref(&b))]),
        trace(2, &[(25, &[b, number(-3)]), (30, &[number(5)]), (31, &[a.clone(), number(100)]), (0, &[a, number(7)])]),
    ]
}

fn expect(text: &str, wanted: &[&str]) {
    let request = request(30, 10);
    assert_eq!(lines(&run(text, &request, spans()), &request), wanted, "{text}");
}

#[test]
fn counts_and_rates_are_dense_and_a_span_at_the_edge_belongs_to_the_left() {
    expect("{ } | count_over_time()", &["__name__=count_over_time: 2 1 2"]);
    expect("{ } | rate()", &["__name__=rate: 200 100 200"]);
    expect("{ } | count_over_time() by (span.g)", &["span.g=a: 2 0 0", "span.g=b: 0 1 1", "span.g=nil: 0 0 1"]);
    expect("{ span.n > 4 } | count_over_time() by (.g)", &[".g=a: 1 0 0", ".g=nil: 0 0 1"]);
}

#[test]
fn extremes_sums_and_means_leave_gaps_and_pass_over_spans_without_the_value() {
    expect("{ } | min_over_time(span.n)", &["__name__=min_over_time: 4 - -3"]);
    expect("{ } | max_over_time(.n)", &["__name__=max_over_time: 8 - 5"]);
    expect("{ } | sum_over_time(span.n)", &["__name__=sum_over_time: 12 - 2"]);
    expect("{ } | avg_over_time(span.n) by (span.g)", &["span.g=a: 6 - -", "span.g=b: - - -3", "span.g=nil: - - 5"]);
    // Text is no number.
    expect("{ } | max_over_time(span.g)", &[]);
}

#[test]
fn histograms_have_a_series_per_power_of_two() {
    expect("{ } | histogram_over_time(span.n)", &["__bucket=4: 1 0 0", "__bucket=8: 1 0 1"]);
    expect(
        "{ } | histogram_over_time(span.n) by (span.g)",
        &["__bucket=8: 0 0 1", "span.g=a __bucket=4: 1 0 0", "span.g=a __bucket=8: 1 0 0"],
    );
}

#[test]
fn quantiles_come_from_histograms() {
    // Values 4 and 8 in the first interval, 5 in the last.
    expect(
        "{ } | quantile_over_time(span.n, 0.5, 1) by (span.g)",
        &["p=0.5: 0 0 8", "p=1: 0 0 8", "span.g=a p=0.5: 4 0 0", "span.g=a p=1: 8 0 0"],
    );
}

#[test]
fn durations_count_in_seconds_and_other_durations_in_nanoseconds() {
    let mut span = MemorySpan { start_ns: 5 * MS, duration_ns: 1_500_000_000, ..MemorySpan::default() };
    span.events = vec![MemoryEvent { time_ns: 5 * MS + 2000, ..MemoryEvent::default() }];
    let traces = vec![MemoryTrace { id: [1; 16], spans: vec![span] }];
    let request = request(10, 10);
    let value = |text: &str| lines(&run(text, &request, traces.clone()), &request).join("; ");
    assert_eq!(value("{ } | max_over_time(duration)"), "__name__=max_over_time: 1.5");
    assert_eq!(value("{ } | max_over_time(traceDuration)"), "__name__=max_over_time: 1500000000");
    assert_eq!(value("{ } | max_over_time(event:timeSinceStart)"), "__name__=max_over_time: 2000");
    // 2^31 nanoseconds are the next power of two for both.
    assert_eq!(value("{ } | histogram_over_time(duration)"), "__bucket=2.147483648: 1");
    assert_eq!(value("{ } | histogram_over_time(traceDuration)"), "__bucket=2.147483648: 1");
}

#[test]
fn of_events_and_links_those_count_that_the_filter_held_for_or_else_the_first_with_the_value() {
    let event = |name: &str, kind: Option<&str>| MemoryEvent {
        name: name.into(),
        attributes: kind.map(|kind| ("type".into(), Value::str(kind))).into_iter().collect(),
        ..MemoryEvent::default()
    };
    let span = |events| MemorySpan { start_ns: 5 * MS, events, ..MemorySpan::default() };
    let spans = vec![
        span(vec![event("log", None), event("exception", Some("timeout")), event("exception", Some("refused"))]),
        span(vec![event("exception", None)]),
        span(Vec::new()),
    ];
    let traces = vec![MemoryTrace { id: [1; 16], spans }];
    let request = request(10, 10);
    let of = |text: &str| lines(&run(text, &request, traces.clone()), &request);
    assert_eq!(
        of("{ event:name = \"exception\" } | count_over_time() by (event.type)"),
        ["event.type=nil: 1", "event.type=timeout: 1"]
    );
    assert_eq!(
        of("{ } | count_over_time() by (event:name)"),
        ["event:name=exception: 1", "event:name=log: 1", "event:name=nil: 1",]
    );
    assert_eq!(of("{ event:name = \"exception\" } | count_over_time() by (event:name)"), ["event:name=exception: 2"]);
    assert_eq!(
        of("{ event.type = \"refused\" } | count_over_time() by (event:name, event.type)"),
        ["event:name=exception event.type=refused: 1"]
    );
}

#[test]
fn instant_queries_have_one_value_over_the_range_and_no_exemplars() {
    let request = MetricsRequest { instant: true, exemplars: 10, ..request(30, 10) };
    let result = run("{ } | rate() by (span.g)", &request, spans());
    // Five spans in 30 ms; the one that starts at 0 lies outside, as does the one at 31.
    let values: Vec<(i64, f64)> = result.series.iter().map(|series| series.samples[0]).collect();
    let per_second = |spans: f64| (30, spans / 0.03);
    assert_eq!(values, [per_second(2.0), per_second(2.0), per_second(1.0)]);
    assert!(result.series.iter().all(|series| series.samples.len() == 1 && series.exemplars.is_empty()));
}

#[test]
fn no_spans_are_a_zero_only_where_nothing_is_grouped() {
    let request = request(20, 10);
    let of = |text: &str| lines(&run(text, &request, Vec::new()), &request);
    assert_eq!(of("{ } | rate()"), ["__name__=rate: 0 0"]);
    assert_eq!(of("{ } | count_over_time()"), ["__name__=count_over_time: 0 0"]);
    for text in [
        "{ } | rate() by (name)",
        "{ } | max_over_time(duration)",
        "{ } | quantile_over_time(duration, .5)",
        "{ false } | rate()",
    ] {
        assert!(of(text).is_empty(), "{text}");
    }
    let empty = |text: &str| MetricsPlan::new(&Query::parse(text).unwrap(), &request).unwrap().is_empty();
    assert!(empty("{ false } | rate()") && !empty("{ } | rate()"));
}

#[test]
fn series_of_values_that_print_alike_stay_apart() {
    let traces = vec![trace(
        1,
        &[(1, &[("g", Value::Int(200))]), (2, &[("g", Value::str("200"))]), (3, &[("g", Value::str("200"))])],
    )];
    let request = request(10, 10);
    let result = run("{ } | count_over_time() by (span.g)", &request, traces);
    let series: Vec<(Value, f64)> = result.series.iter().map(|s| (s.labels[0].1.clone(), s.samples[0].1)).collect();
    assert_eq!(series, [(Value::Int(200), 1.0), (Value::str("200"), 2.0)]);
}

#[test]
fn second_stages_and_arithmetic_run_on_the_whole_result() {
    expect("{ } | count_over_time() by (span.g) | topk(1)", &["span.g=a: 2 - -", "span.g=b: - 1 1"]);
    expect("{ } | count_over_time() by (span.g) > 1", &["span.g=a: 2 - -"]);
    expect(
        "({ span.n > 4 } | count_over_time()) / ({ } | count_over_time()) * 100",
        &["__name__=(count_over_time / count_over_time): 50 0 50"],
    );
    expect(
        "({ } | count_over_time() by (span.g)) / ({ } | count_over_time())",
        &["span.g=a: 1 0 0", "span.g=b: 0 1 0.5", "span.g=nil: 0 0 0.5"],
    );
    // Leaves of one text are one sub-query.
    let text = "({ } | rate()) / ({ } | rate())";
    let plan = MetricsPlan::new(&Query::parse(text).unwrap(), &request(30, 10)).unwrap();
    assert_eq!(plan.partial().leaves().len(), 1);
    expect(text, &["__name__=(rate / rate): 1 1 1"]);
}

#[test]
fn structural_queries_count_only_selected_spans_within_the_range() {
    let child = |own: u8, parent: u8, start: u64| MemorySpan {
        id: [own; 8],
        parent_id: [parent; 8],
        start_ns: start * MS,
        ..MemorySpan::default()
    };
    // The root starts before the range and still decides.
    let root = MemorySpan { name: "root".into(), ..child(1, 0, 5) };
    let traces =
        vec![MemoryTrace { id: [1; 16], spans: vec![root, child(2, 1, 12), child(3, 2, 15), child(4, 1, 40)] }];
    let request = MetricsRequest { start_ns: 10 * MS, ..request(30, 10) };
    let of = |text: &str| lines(&run(text, &request, traces.clone()), &request).join("; ");
    assert_eq!(of("{ name = \"root\" } > { } | count_over_time()"), "__name__=count_over_time: 1 0");
    assert_eq!(of("{ name = \"root\" } >> { } | count_over_time()"), "__name__=count_over_time: 2 0");
    assert_eq!(of("{ } | count() > 3 | count_over_time()"), "__name__=count_over_time: 2 0");
}

#[test]
fn compare_splits_spans_and_counts_every_value() {
    let traces = vec![trace(
        1,
        &[
            (1, &[("a", Value::str("x")), number(1)]),
            (2, &[("a", Value::str("x")), number(2)]),
            (12, &[("a", Value::str("y")), number(2)]),
            (13, &[("a", Value::str("z"))]),
        ],
    )];
    let request = request(20, 10);
    let result = run("{ } | compare({ span.n = 2 }, 2)", &request, traces);
    let all = lines(&result, &request);
    let of = |field: &str| -> Vec<&String> { all.iter().filter(|line| line.contains(&format!(" {field}="))).collect() };
    assert_eq!(
        of("span.a"),
        [
            "__meta_type=baseline span.a=x: 1 0",
            "__meta_type=baseline span.a=z: 0 1",
            "__meta_type=baseline_total span.a=nil: 1 1",
            "__meta_type=selection span.a=x: 1 0",
            "__meta_type=selection span.a=y: 0 1",
            "__meta_type=selection_total span.a=nil: 1 1",
        ]
    );
    assert_eq!(
        of("span.n"),
        [
            "__meta_type=baseline span.n=1: 1 0",
            "__meta_type=baseline_total span.n=nil: 1 0",
            "__meta_type=selection span.n=2: 1 1",
            "__meta_type=selection_total span.n=nil: 1 1",
        ]
    );
    for absent in ["duration", "span:id", "span:parentID", "trace:id", "nestedSetLeft", "traceDuration"] {
        assert!(of(absent).is_empty(), "{absent}");
    }
    assert_eq!(of("rootName").len(), 4);
}

#[test]
fn compare_keeps_the_most_frequent_values_and_says_what_it_dropped() {
    let spans: Vec<(u64, Vec<(&str, Value)>)> =
        (1_u64..).zip([0, 0, 1, 1, 1, 2, 2, 2]).map(|(n, value)| (n, vec![("a", Value::Int(value))])).collect();
    let spans: Vec<(u64, &[(&str, Value)])> = spans.iter().map(|(start, list)| (*start, list.as_slice())).collect();
    let request = request(10, 10);
    let lines = lines(&run("{ } | compare({ false }, 1)", &request, vec![trace(1, &spans)]), &request);
    let of: Vec<&String> = lines.iter().filter(|line| line.contains(" span.a=")).collect();
    // The ones and the twos are equally frequent: the smaller value stays.
    assert_eq!(
        of,
        [
            "__meta_error=__too_many_values__ span.a=nil: 0",
            "__meta_type=baseline span.a=1: 3",
            "__meta_type=baseline_total span.a=nil: 8",
        ]
    );
}

#[test]
fn the_selection_of_compare_may_have_a_window() {
    let traces = vec![trace(1, &[(5, &[number(1)]), (6, &[number(1)]), (8, &[number(1)]), (9, &[number(1)])])];
    let request = request(10, 10);
    let lines = lines(&run("{ } | compare({ true }, 5, 5000000, 8000000)", &request, traces), &request);
    let of: Vec<&String> = lines.iter().filter(|line| line.contains("_total span.n=")).collect();
    assert_eq!(of, ["__meta_type=baseline_total span.n=nil: 2", "__meta_type=selection_total span.n=nil: 2"]);
}

#[test]
fn exemplars_carry_what_the_query_read_and_the_value_of_their_time() {
    let request = MetricsRequest { exemplars: 100, ..request(30, 10) };
    let result = run("{ span.n > 0 } | max_over_time(span.n) by (span.g)", &request, spans());
    let of_a = &result.series[0];
    assert_eq!(of_a.labels[0].1, Value::str("a"));
    assert_eq!(of_a.exemplars[0].value, 4.0);
    let labels: Vec<String> = of_a.exemplars[0].labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["trace:id=`1010101010101010101010101010101`", "span.n=4", "span.g=`a`"]);
    // A count has no value of a single span: the series' own stands in for it.
    let counted = run("{ } | count_over_time()", &request, spans());
    assert!(counted.series[0].exemplars.iter().any(|exemplar| exemplar.value == 2.0));
    // A comparison drops such exemplars.
    let compared = run("{ } | count_over_time() > 0", &request, spans());
    assert!(compared.series[0].exemplars.is_empty());
    // Exemplars of a dropped point are dropped.
    let none = run("{ } | max_over_time(span.n) > 6", &request, spans());
    assert!(none.series.iter().flat_map(|series| &series.exemplars).all(|exemplar| exemplar.value > 6.0));
}

#[test]
fn an_exemplar_of_a_histogram_goes_to_its_bucket_and_one_of_a_quantile_to_the_closest() {
    let request = MetricsRequest { exemplars: 100, ..request(30, 10) };
    let result = run("{ } | histogram_over_time(span.n)", &request, spans());
    let counts: Vec<usize> = result.series.iter().map(|series| series.exemplars.len()).collect();
    assert_eq!(counts, [1, 2]);
    assert_eq!(result.series[1].exemplars[0].value, 1.0);
    let quantiles = run("{ } | quantile_over_time(span.n, 0, 1) by (span.g)", &request, spans());
    let of_a: Vec<(f64, Vec<f64>)> = quantiles.series[2..]
        .iter()
        .map(|series| (series.samples[0].1, series.exemplars.iter().map(|exemplar| exemplar.value).collect()))
        .collect();
    assert_eq!(of_a, [(4.0, vec![4.0]), (8.0, vec![8.0])]);
}

#[test]
fn a_limit_of_series_leaves_out_the_rest_and_says_so() {
    let request = MetricsRequest { max_series: 2, ..request(30, 10) };
    let result = run("{ } | count_over_time() by (span.g)", &request, spans());
    assert_eq!(result.series.len(), 2);
    let message = result.truncated.unwrap();
    assert!(message.starts_with("Response exceeds maximum series limit of 2,"), "{message}");
    let enough = MetricsRequest { max_series: 3, ..request };
    assert_eq!(run("{ } | count_over_time() by (span.g)", &enough, spans()).truncated, None);
}

#[test]
fn status_kind_and_root_are_labels_like_any_other() {
    let span = |kind, status| MemorySpan { start_ns: 5 * MS, kind, status, name: "op".into(), ..MemorySpan::default() };
    let traces = vec![MemoryTrace {
        id: [1; 16],
        spans: vec![span(Kind::Server, Status::Error), span(Kind::Client, Status::Ok)],
    }];
    let request = request(10, 10);
    assert_eq!(
        lines(&run("{ } | count_over_time() by (status, kind, rootName)", &request, traces), &request),
        ["status=error kind=server rootName=op: 1", "status=ok kind=client rootName=op: 1",]
    );
}

#[test]
fn what_cannot_run_is_refused_with_a_reason() {
    let plan = |text: &str, request: MetricsRequest| {
        MetricsPlan::new(&Query::parse(text).unwrap(), &request).map(|_| ()).unwrap_err()
    };
    assert_eq!(plan("{ }", request(10, 10)), PlanError::NotMetrics);
    assert_eq!(plan("{ }", request(10, 10)).to_string(), "not a metrics query");
    assert_eq!(plan("{ } | rate()", request(0, 10)).to_string(), "end must be greater than start");
    assert!(matches!(plan("{ } | rate()", request(10, 0)), PlanError::Range(_)));
    let endless = MetricsRequest { end_ns: u64::MAX, step_ns: 1, ..request(10, 1) };
    assert!(matches!(plan("{ } | rate()", endless), PlanError::Range(_)));
}

/// A source without spans that remembers what was asked of it.
#[derive(Default)]
struct Asked(MemorySource, std::cell::RefCell<Option<FetchSpec>>);

impl Source for Asked {
    type Cursor<'a> = <MemorySource as Source>::Cursor<'a>;

    fn fetch(&self, spec: &FetchSpec) -> Result<Self::Cursor<'_>, FetchError> {
        self.1.replace(Some(spec.clone()));
        self.0.fetch(spec)
    }
}

#[test]
fn filters_and_the_part_of_the_window_within_the_range_are_pushed_down() {
    let text = "{ span.n > 4 } | sum_over_time(span.m) by (.g)";
    let plan = MetricsPlan::new(&Query::parse(text).unwrap(), &request(30, 10)).unwrap();
    let source = Asked::default();
    let window = Window { after_ns: 10 * MS, until_ns: 90 * MS };
    plan.observe(&source, window, &mut plan.partial(), &|| false).unwrap();
    let spec = source.1.take().unwrap();
    assert_eq!(spec.window, Some(TimeRange { start_ns: 10 * MS + 1, end_ns: 30 * MS }));
    assert_eq!(spec.spans.required().len(), 1);
    let fields: Vec<String> = spec.fields.iter().map(ToString::to_string).collect();
    assert_eq!(fields, ["span.n", "span:startTime", "span.m", "span.g", "resource.g"]);
    assert!(!spec.select_all && !spec.structure);
    // A window beside the range asks for nothing.
    let beside = Window { after_ns: 30 * MS, ..Window::ALL };
    plan.observe(&source, beside, &mut plan.partial(), &|| false).unwrap();
    assert!(source.1.take().is_none());
}

#[test]
fn a_query_ends_when_nobody_waits_for_it() {
    let plan = MetricsPlan::new(&Query::parse("{ } | rate()").unwrap(), &request(30, 10)).unwrap();
    let source = MemorySource::new(spans(), 1);
    let error = plan.observe(&source, Window::ALL, &mut plan.partial(), &|| true).unwrap_err();
    assert!(matches!(error, MetricsError::Cancelled));
}

#[test]
fn series_that_would_take_all_memory_are_refused() {
    let spans: Vec<MemorySpan> = (0..200_u32)
        .flat_map(|group| {
            [1, 9_999_999].map(|start_ns| MemorySpan {
                start_ns,
                duration_ns: 1000,
                attributes: vec![("g".into(), Value::Int(group.into()))],
                ..MemorySpan::default()
            })
        })
        .collect();
    // A hundred thousand intervals for each of two hundred series, which leave most of them empty.
    let axis = MetricsRequest { step_ns: 100, ..request(10, 1) };
    let source = MemorySource::new(vec![MemoryTrace { id: [1; 16], spans: spans.clone() }], 1);
    let refused = |text: &str, axis: &MetricsRequest| {
        let plan = MetricsPlan::new(&Query::parse(text).unwrap(), axis).unwrap();
        let result = plan.observe(&source, Window::ALL, &mut plan.partial(), &|| false);
        assert!(result.is_ok() || result.as_ref().is_err_and(|error| error.to_string().contains("larger step")));
        matches!(result, Err(MetricsError::TooLarge { .. }))
    };
    for function in ["rate()", "max_over_time(span.g)", "histogram_over_time(duration)"] {
        let text = format!("{{ }} | {function} by (span.g)");
        assert!(refused(&text, &axis), "{text}");
        assert!(!refused(&text, &request(10, 1)), "{text}");
    }
    // Many quantiles are many series, too.
    let quantiles = "0.1, ".repeat(5000);
    assert!(refused(&format!("{{ }} | quantile_over_time(duration, {quantiles}0.5) by (span.g)"), &request(10, 1)));
    // What fits in two parts need not fit in their sum.
    let plan = MetricsPlan::new(&Query::parse("{ } | rate() by (span.g)").unwrap(), &axis).unwrap();
    let part = |spans: &[MemorySpan]| {
        let source = MemorySource::new(vec![MemoryTrace { id: [1; 16], spans: spans.to_vec() }], 1);
        observe(&plan, &source, Window::ALL)
    };
    let mut sum = part(&spans[..150]);
    assert!(matches!(plan.merge(&mut sum, part(&spans[150..300])), Err(MetricsError::TooLarge { .. })));
}

#[test]
fn a_part_of_another_query_is_refused() {
    let plan = |text: &str| MetricsPlan::new(&Query::parse(text).unwrap(), &request(30, 10)).unwrap();
    let source = MemorySource::new(spans(), 1);
    let grouped = plan("{ } | rate() by (span.g)");
    let part = observe(&grouped, &source, Window::ALL);
    for other in
        ["{ } | rate()", "{ } | max_over_time(span.n) by (span.g)", "({ } | rate()) + ({ } | count_over_time())"]
    {
        let other = plan(other);
        let error = other.merge(&mut other.partial(), part.clone()).unwrap_err();
        assert!(matches!(error, MetricsError::Foreign(_)), "{error}");
    }
    let cells = Cells { first: 2, counts: vec![1, 1], ..Cells::default() };
    let beyond = MetricsPartial::from_parts(
        vec![(vec![Group { key: Box::new([Value::Nil]), cells: vec![cells] }], Vec::new())],
        false,
    );
    assert!(matches!(grouped.merge(&mut grouped.partial(), beyond), Err(MetricsError::Foreign(_))));
}

//! Several workers over groups, walked or in columns, against the plain walk over all traces.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use vivace_protocol::{
    TraceId,
    otlp::{
        common::{AnyValue, KeyValue, any_value::Value as Any},
        resource::Resource,
        trace::{ResourceSpans, ScopeSpans, Span, Status, TracesData, span::Event},
    },
    tempopb::TraceSearchMetadata,
    vivace::{MetricsJob, SearchJob, TagNamesJob, TagValuesJob},
};

use vivace_traceql::Budget;

use super::*;
use crate::{Decoded, LiveGroup, LivePart, LiveSource, query};

const QUERIES: [&str; 18] = [
    "{ }",
    "{ status = error }",
    "{ resource.service.name = \"s1\" }",
    "{ resource.service.name = \"s2\" && span.key = \"v1\" }",
    "{ resource.service.name = \"s0\" || resource.service.name = \"s3\" }",
    "{ span.key =~ \".*1\" }",
    "{ .key = \"v2\" && duration > 500ms }",
    "{ resource.service.name != \"s1\" && event:name = \"e\" }",
    "{ } >> { status = error }",
    "{ resource.service.name = \"s1\" } >> { resource.service.name = \"s2\" }",
    "{ resource.service.name = \"s1\" } && { resource.service.name = \"s2\" }",
    "{ span.key != nil } | count() > 1",
    "{ } | by(resource.service.name) | avg(duration) > 400ms",
    "{ rootServiceName = \"s1\" } | select(span.number)",
    "{ trace:duration > 2s && resource.service.name = \"s0\" }",
    "{ span.key = \"nobody\" }",
    "{ nestedSetParent < 0 && status = error }",
    "{ span.key = \"v1\" } ~ { resource.service.name = \"s1\" }",
];

const METRICS: [&str; 5] = [
    "{ } | rate() by (resource.service.name)",
    "{ resource.service.name = \"s1\" } | count_over_time()",
    "{ status = error } | quantile_over_time(duration, .5, .9)",
    "{ resource.service.name = \"s1\" || span.key = \"v1\" } | max_over_time(duration) by (span.key)",
    "({ status = error } | rate()) + ({ } | rate())",
];

/// A span in a few small numbers.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    part: u8,
    service: u8,
    start: u16,
    duration: u16,
    key: u8,
    error: bool,
    event: bool,
    /// Comes again in the last part.
    again: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let numbers = (0..3u8, 0..4u8, 0..4000u16, 0..1000u16, 0..4u8);
    (numbers, any::<[bool; 3]>()).prop_map(|((part, service, start, duration, key), [error, event, again])| Drawn {
        part,
        service,
        start,
        duration,
        key,
        error,
        event,
        again,
    })
}

fn text(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Any::StringValue(value)) }), ..KeyValue::default() }
}

const BASE: u64 = 1_790_000_000_000_000_000;
/// Starts and durations are drawn in milliseconds.
const MS: u64 = 1_000_000;

fn span(number: usize, drawn: Drawn) -> Span {
    let start = BASE + u64::from(drawn.start) * MS;
    let id = |number: usize| (number as u64 + 1).to_be_bytes().to_vec();
    let key = (drawn.key > 0).then(|| text("key", format!("v{}", drawn.key)));
    let event = Event { name: "e".into(), time_unix_nano: start, ..Event::default() };
    Span {
        span_id: id(number),
        // A tree below the first span.
        parent_span_id: if number == 0 { Vec::new() } else { id((number - 1) / 2) },
        name: format!("n{}", number % 3),
        kind: 1,
        start_time_unix_nano: start,
        end_time_unix_nano: start + u64::from(drawn.duration) * MS,
        attributes: key.into_iter().chain([text("number", number.to_string())]).collect(),
        events: if drawn.event { vec![event] } else { Vec::new() },
        status: Some(Status { code: if drawn.error { 2 } else { 0 }, ..Status::default() }),
        ..Span::default()
    }
}

/// The slices of a trace, in order.
fn parts(spans: &[Drawn]) -> Vec<Bytes> {
    let of = |part: u8| {
        let own = spans.iter().enumerate().filter(|(_, drawn)| drawn.part == part || (part == 3 && drawn.again));
        let batches = own.map(|(number, drawn)| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", format!("s{}", drawn.service))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans: vec![span(number, *drawn)], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        });
        TracesData { resource_spans: batches.collect() }.encode_to_vec()
    };
    (0..4).map(|part| Bytes::from(of(part))).filter(|part| !part.is_empty()).collect()
}

/// Where a trace is, and where an older form of it is that must not be seen.
#[derive(Debug, Clone)]
struct Lying {
    spans: Vec<Drawn>,
    group: usize,
    older: Option<usize>,
}

const GROUPS: usize = 4;

fn lying() -> impl Strategy<Value = Lying> {
    (vec(drawn(), 1..12), 0..GROUPS, proptest::option::of(0..GROUPS)).prop_map(|(spans, group, older)| Lying {
        spans,
        group,
        older: older.filter(|older| *older != group),
    })
}

fn id(number: usize) -> TraceId {
    // Not in the order of their numbers.
    TraceId((u128::from((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | number as u128).to_be_bytes())
}

fn plain(traces: &[Lying]) -> LiveSource {
    LiveSource::new(traces.iter().enumerate().map(|(number, trace)| (id(number), parts(&trace.spans))))
}

fn view(traces: &[Lying], encoded: [bool; GROUPS]) -> LiveView {
    let decoded = Decoded::new(1 << 20);
    let mut view = LiveView::default();
    for (number, encoded) in encoded.into_iter().enumerate() {
        let (mut own, mut stale) = (Vec::new(), Vec::new());
        for (at, trace) in traces.iter().enumerate() {
            let mut parts = parts(&trace.spans);
            if trace.older == Some(number) {
                parts.truncate(1);
                stale.push(id(at));
            } else if trace.group != number {
                continue;
            }
            own.push(Arc::new(LiveTrace::new(id(at), parts)));
        }
        let group = Arc::new(LiveGroup::new(own));
        if encoded && !group.is_empty() {
            group.encode(&decoded);
            assert!(group.is_encoded());
        }
        let mut without: Vec<u32> = stale.iter().map(|id| group.position(id).unwrap()).collect();
        without.sort_unstable();
        view.parts.push(LivePart { group, without: without.into() });
    }
    view
}

/// What `job` makes of the scan: one worker that takes `first` units of it, then three at once.
fn run<T: Send>(view: &LiveView, first: usize, job: impl Fn(&LiveShare) -> T + Sync) -> Vec<T> {
    let scan = LiveScan::new(view.clone(), &Arc::default());
    if first % 2 == 1 {
        (0..3).for_each(|worker| scan.measure(worker, 3));
        assert_eq!(scan.unmeasured(), 0);
    }
    let mut results = vec![job(&scan.beginning(first))];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| job(&scan.share()))).collect();
        results.extend(workers.into_iter().map(|worker| worker.join().unwrap()));
    });
    assert!(scan.is_done());
    results
}

/// Blocks keep the spans of one resource together, so the order of a trace's spans is theirs.
fn in_order(mut traces: Vec<TraceSearchMetadata>) -> Vec<TraceSearchMetadata> {
    for set in traces.iter_mut().flat_map(|trace| &mut trace.span_sets) {
        set.spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
    }
    for trace in &mut traces {
        trace.span_sets.sort_by_key(|set| format!("{:?}", set.attributes));
    }
    traces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_search_by_several_workers_finds_what_the_plain_walk_finds(
        traces in vec(lying(), 1..160),
        encoded in any::<[bool; GROUPS]>(),
        queries in proptest::sample::subsequence(QUERIES.to_vec(), 4),
        limit in proptest::sample::select(vec![1u32, 3, 20, 1000]),
        window in proptest::option::of((0..4000u64, 0..2000u64)),
        first in 0..4usize,
    ) {
        let (plain, view) = (plain(&traces), view(&traces, encoded));
        for text in queries {
            let (from, len) = window.unwrap_or_default();
            let job = SearchJob {
                query: text.to_owned(),
                limit,
                spans_per_span_set: 100,
                start_unix_nano: if window.is_some() { BASE + from * MS } else { 0 },
                end_unix_nano: if window.is_some() { BASE + (from + len) * MS } else { 0 },
                ..SearchJob::default()
            };
            let due = query::search(&plain, &job).unwrap();
            let found = query::found_of_parts(run(&view, first, |share| query::search_part(share, &job, &Budget::default()).unwrap()));
            prop_assert_eq!(in_order(found.traces), in_order(due.traces), "{}", text);
        }
    }

    #[test]
    fn metrics_by_several_workers_add_up(
        traces in vec(lying(), 1..120),
        encoded in any::<[bool; GROUPS]>(),
        text in proptest::sample::select(METRICS.to_vec()),
        first in 0..4usize,
    ) {
        let (plain, view) = (plain(&traces), view(&traces, encoded));
        let job = MetricsJob {
            query: text.to_owned(),
            start_unix_nano: BASE,
            end_unix_nano: BASE + 5000 * MS,
            step_nanos: 1000 * MS,
            ..MetricsJob::default()
        };
        let answer = |batch: vivace_protocol::vivace::MetricsBatch| {
            let plan = query::metrics_plan(&job).unwrap();
            let mut sum = plan.partial();
            query::merge_metrics(&plan, &mut sum, batch.partial.unwrap()).unwrap();
            let mut series = query::range_response(plan.finish(sum)).series;
            series.sort_by_key(|series| format!("{:?}", series.labels));
            series
        };
        let due = answer(query::metrics(&plain, &job, &|| false).unwrap());
        let parts = run(&view, first, |share| query::metrics(share, &job, &|| false).unwrap());
        let found = answer(query::metrics_of_parts(&job, parts).unwrap());
        prop_assert_eq!(found, due, "{}", text);
    }

    #[test]
    fn names_and_values_of_the_groups_are_those_of_all_traces(
        traces in vec(lying(), 1..40),
        encoded in any::<[bool; GROUPS]>(),
        filter in proptest::sample::select(vec!["", "{ status = error }", "{ resource.service.name = \"s1\" }"]),
    ) {
        let (plain, view) = (plain(&traces), view(&traces, encoded));
        let names = TagNamesJob { query: filter.to_owned(), ..TagNamesJob::default() };
        let own = |view: LiveView| LiveScan::new(view, &Arc::default()).share();
        let sum = |replies: Vec<_>| {
            let mut sum = query::TagNamesSum::new(0, 0);
            replies.into_iter().for_each(|reply| sum.add(reply).unwrap());
            sum.finish()
        };
        let parts = view.clone().split().into_iter().map(|view| query::tag_names(&own(view), &names).unwrap());
        prop_assert_eq!(sum(parts.collect()), sum(vec![query::tag_names(&plain, &names).unwrap()]));
        for tag in ["span.key", "resource.service.name", ".key", "name", "rootName", "span.nobody"] {
            let job = TagValuesJob { tag: tag.to_owned(), query: filter.to_owned(), ..TagValuesJob::default() };
            let sum = |replies: Vec<_>| {
                let mut sum = query::TagValuesSum::new(0, 0);
                replies.into_iter().for_each(|reply| sum.add(reply).unwrap());
                sum.finish()
            };
            let parts = view.clone().split().into_iter().map(|view| query::tag_values_of(&own(view), &job).unwrap());
            let due = sum(vec![query::tag_values_of(&plain, &job).unwrap()]);
            prop_assert_eq!(sum(parts.collect()), due, "{}", tag);
        }
    }
}

fn lines(count: usize) -> Vec<Lying> {
    let drawn = |at: usize| Drawn {
        part: 0,
        service: 0,
        start: u16::try_from(at).unwrap(),
        duration: 1,
        key: 1,
        error: false,
        event: false,
        again: false,
    };
    (0..count).map(|at| Lying { spans: vec![drawn(at)], group: at % GROUPS, older: None }).collect()
}

#[test]
fn the_newest_are_found_without_a_look_at_the_others() {
    let view = view(&lines(2000), [false; GROUPS]);
    let scan = LiveScan::new(view, &Arc::default());
    let job = SearchJob { query: "{ }".to_owned(), limit: 20, ..SearchJob::default() };
    let found = query::found_of_parts(vec![query::search_part(&scan.beginning(2), &job, &Budget::default()).unwrap()]);
    let starts: Vec<u64> = found.traces.iter().map(|trace| (trace.start_time_unix_nano - BASE) / MS).collect();
    assert_eq!(starts, (1980..2000).rev().collect::<Vec<_>>());
    assert!(found.metrics.unwrap().inspected_traces <= 64 && scan.is_done());
}

#[test]
fn a_scan_that_nobody_waits_for_ends() {
    let (view, ended) = (view(&lines(2000), [false; GROUPS]), Arc::new(AtomicBool::new(false)));
    let scan = LiveScan::new(view, &ended);
    let share = scan.share();
    let mut cursor = share.fetch(&FetchSpec::of(Vec::new())).unwrap();
    assert!(cursor.next().unwrap().is_some());
    ended.store(true, Ordering::Relaxed);
    assert!(cursor.next().unwrap().is_none() && !scan.is_done());
}

#[test]
fn spans_of_other_resources_are_not_read() {
    let mut traces = lines(400);
    traces.iter_mut().enumerate().for_each(|(at, trace)| trace.spans[0].service = u8::from(at % 10 == 0));
    let spans = |query: &str, view: LiveView| {
        let job = SearchJob { query: query.to_owned(), limit: 1000, ..SearchJob::default() };
        let scan = LiveScan::new(view, &Arc::default());
        let found = query::found_of_parts(vec![query::search_part(&scan.share(), &job, &Budget::default()).unwrap()]);
        (found.traces.len(), found.metrics.unwrap().inspected_spans)
    };
    let view = view(&traces, [false; GROUPS]);
    assert_eq!(spans("{ resource.service.name = \"s1\" }", view.clone()), (40, 40));
    assert_eq!(spans("{ resource.service.name = \"s1\" && span.key = \"v1\" }", view.clone()), (40, 40));
    assert_eq!(spans("{ span.key = \"v1\" }", view), (400, 400));
}

#[test]
fn a_group_is_encoded_once_it_was_walked_often_enough() {
    let mut traces = lines(2000);
    traces.iter_mut().for_each(|trace| trace.group = 0);
    let view = view(&traces, [false; GROUPS]);
    let group = Arc::clone(&view.parts[0].group);
    assert!(!group.claim());
    let job = SearchJob { query: "{ span.key = \"nobody\" }".to_owned(), limit: 20, ..SearchJob::default() };
    let search = || {
        let scan = LiveScan::new(view.clone(), &Arc::default());
        let found = query::found_of_parts(vec![query::search_part(&scan.share(), &job, &Budget::default()).unwrap()]);
        found.metrics.unwrap().inspected_spans
    };
    // Too small to be worth it.
    (0..20).for_each(|_| assert_eq!(search(), 2000));
    assert!(group.bytes() < 1 << 20 && !group.claim());
    group.encode(&Decoded::new(1 << 20));
    assert!(search() <= 2000 && group.is_encoded());
    let large: Vec<_> = (0..40_000u32)
        .map(|number| {
            Arc::new(LiveTrace::new(
                TraceId(u128::from(number).to_be_bytes()),
                parts(&traces[number as usize % 2000].spans),
            ))
        })
        .collect();
    let group = LiveGroup::new(large);
    group.walked(group.bytes() * 7);
    assert!(!group.claim());
    group.walked(group.bytes() * 2);
    assert!(group.claim() && !group.claim());
}

#[test]
fn damaged_traces_are_an_error_and_stay_as_they_are() {
    let mut slice = parts(&lines(1)[0].spans).swap_remove(0).to_vec();
    slice.truncate(slice.len() - 3);
    let group = Arc::new(LiveGroup::new(vec![Arc::new(LiveTrace::new(id(0), vec![slice.into()]))]));
    group.encode(&Decoded::new(1 << 20));
    assert!(!group.is_encoded());
    let view = LiveView { parts: vec![LivePart::whole(group)] };
    let job =
        SearchJob { query: "{ }".to_owned(), limit: 20, start_unix_nano: 1, end_unix_nano: 2, ..SearchJob::default() };
    let scan = LiveScan::new(view, &Arc::default());
    assert!(query::search_part(&scan.share(), &job, &Budget::default()).is_err());
}

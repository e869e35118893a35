//! Several workers over groups, walked or in columns, against the plain walk over all traces.

use proptest::collection::vec;
use proptest::prelude::*;
use vivace_protocol::{
    TraceId,
    tempopb::TraceSearchMetadata,
    vivace::{MetricsJob, SearchJob, TagNamesJob, TagValuesJob},
};
use vivace_traceql::{Budget, CompareOp, Condition, Field, Predicate, Scope, Test, Value};

use self::drawn::{AS_THEY_CAME, BASE, GROUPS, MS, Prepared, id, lines, lying, parts, plain, view};
use super::*;
use crate::live::group::ENCODING_COST;
use crate::{
    Decoded, LiveGroup, LivePart, Preparation, query,
    tags::{TagLimits, TagNames, TagSource},
};

mod drawn;

const QUERIES: [&str; 36] = [
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
    "{ span.number = \"7\" }",
    "{ span.number =~ \".*1.*\" && span.key != nil }",
    "{ span.number = \"11\" || span.key = \"v3\" }",
    "{ name = \"n2\" }",
    "{ event:name = \"e\" && span.code = 3 }",
    "{ span.code = 77 }",
    "{ span.tags = \"t2\" }",
    "{ span.tags = \"t7\" }",
    "{ .flag = true }",
    "{ span.flag != true }",
    "{ span.nothing != \"v1\" || resource.nothing = 1 }",
    "{ rootName = \"n0\" && span.key = \"v3\" }",
    "{ rootServiceName = \"s9\" }",
    "{ trace:id = \"9e3779b97f4a7c150000000000000001\" }",
    "{ span.key = \"v1\" } !>> { span.key = \"v2\" }",
    "{ resource.service.name = \"\" }",
    "{ resource.service.name !~ \"s1\" } | select(.service.name)",
    "{ .service.name = nil }",
];

const METRICS: [&str; 5] = [
    "{ } | rate() by (resource.service.name)",
    "{ resource.service.name = \"s1\" } | count_over_time()",
    "{ status = error } | quantile_over_time(duration, .5, .9)",
    "{ resource.service.name = \"s1\" || span.key = \"v1\" } | max_over_time(duration) by (span.key)",
    "({ status = error } | rate()) + ({ } | rate())",
];

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
        prepared in any::<Prepared>(),
        queries in proptest::sample::subsequence(QUERIES.to_vec(), 4),
        limit in proptest::sample::select(vec![1u32, 3, 20, 1000]),
        window in proptest::option::of((0..4000u64, 0..2000u64)),
        first in 0..4usize,
    ) {
        let (plain, view) = (plain(&traces), view(&traces, prepared));
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
        prepared in any::<Prepared>(),
        text in proptest::sample::select(METRICS.to_vec()),
        first in 0..4usize,
    ) {
        let (plain, view) = (plain(&traces), view(&traces, prepared));
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
        prepared in any::<Prepared>(),
        filter in proptest::sample::select(vec!["", "{ status = error }", "{ resource.service.name = \"s1\" }"]),
    ) {
        let (plain, view) = (plain(&traces), view(&traces, prepared));
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

#[test]
fn the_newest_are_found_without_a_look_at_the_others() {
    let view = view(&lines(2000), AS_THEY_CAME);
    let scan = LiveScan::new(view, &Arc::default());
    let job = SearchJob { query: "{ }".to_owned(), limit: 20, ..SearchJob::default() };
    let found = query::found_of_parts(vec![query::search_part(&scan.beginning(2), &job, &Budget::default()).unwrap()]);
    let starts: Vec<u64> = found.traces.iter().map(|trace| (trace.start_time_unix_nano - BASE) / MS).collect();
    assert_eq!(starts, (1980..2000).rev().collect::<Vec<_>>());
    assert!(found.metrics.unwrap().inspected_traces <= 64 && scan.is_done());
}

#[test]
fn a_scan_that_nobody_waits_for_ends() {
    let (view, ended) = (view(&lines(2000), AS_THEY_CAME), Arc::new(AtomicBool::new(false)));
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
    let view = view(&traces, AS_THEY_CAME);
    assert_eq!(spans("{ resource.service.name = \"s1\" }", view.clone()), (40, 40));
    assert_eq!(spans("{ resource.service.name = \"s1\" && span.key = \"v1\" }", view.clone()), (40, 40));
    assert_eq!(spans("{ span.key = \"v1\" }", view), (400, 400));
}

/// What a search finds and inspects.
fn inspected(view: &LiveView, query: &str) -> (usize, u64) {
    let job = SearchJob { query: query.to_owned(), limit: 5000, ..SearchJob::default() };
    let scan = LiveScan::new(view.clone(), &Arc::default());
    let found = query::found_of_parts(vec![query::search_part(&scan.share(), &job, &Budget::default()).unwrap()]);
    (found.traces.len(), found.metrics.unwrap().inspected_spans)
}

#[test]
fn traces_without_a_text_that_is_asked_for_are_not_walked() {
    let mut traces = lines(2000);
    traces[1234].spans[0].key = 2;
    let view = view(&traces, AS_THEY_CAME);
    // Two bytes stand in some times as well.
    let few = |query: &str| {
        let (traces, spans) = inspected(&view, query);
        assert!(spans < 200, "{query}: {spans}");
        traces
    };
    assert_eq!(few("{ span.key = \"v2\" }"), 1);
    assert_eq!(few("{ span.key =~ \"v2.*\" }"), 1);
    assert_eq!(few("{ span.key = \"v2\" || span.key = \"v3\" }"), 1);
    assert_eq!(few("{ span.key = \"v2\" && name = \"n9\" }"), 0);
    assert_eq!(inspected(&view, "{ trace:id = \"9e3779b97f4a7c150000000000000001\" }"), (1, 1));
    assert_eq!(inspected(&view, "{ span.key = \"v2\" || duration > 1h }"), (1, 2000));
}

#[test]
fn a_group_without_what_is_asked_for_is_not_looked_at() {
    let mut traces = lines(2000);
    traces.iter_mut().for_each(|trace| trace.group = 0);
    let view = view(&traces, [(false, true), (false, false), (false, false), (false, false)]);
    let absent = [
        "{ span.nobody != nil }",
        "{ span.key = \"v2\" }",
        "{ span.code = 77 }",
        "{ name = \"v1\" }",
        "{ resource.service.name = \"s1\" }",
        "{ span.key = \"v2\" } >> { }",
        "{ rootServiceName = \"s1\" }",
    ];
    for query in absent {
        let scan = LiveScan::new(view.clone(), &Arc::default());
        let job = SearchJob { query: query.to_owned(), limit: 20, ..SearchJob::default() };
        let share = scan.beginning(0);
        let found = query::found_of_parts(vec![query::search_part(&share, &job, &Budget::default()).unwrap()]);
        assert!(found.traces.is_empty() && scan.is_done(), "{query}");
    }
    let digest = view.parts[0].group.digest().unwrap();
    assert!(digest.bytes() <= 1024, "{} bytes of 2000 spans with few values", digest.bytes());
}

#[test]
fn who_looks_through_everything_makes_the_digests_first_as_long_as_they_tell() {
    let digested = |query: &str, first: Option<usize>| {
        let mut traces = lines(2000);
        traces[1600].spans[0].key = 2;
        let view = view(&traces, AS_THEY_CAME);
        let scan = LiveScan::new(view.clone(), &Arc::default());
        let share = first.map_or_else(|| scan.share(), |first| scan.beginning(first));
        let job = SearchJob { query: query.to_owned(), limit: 20, ..SearchJob::default() };
        let found = query::found_of_parts(vec![query::search_part(&share, &job, &Budget::default()).unwrap()]);
        let made = view.parts.iter().map(|part| part.group.is_digested()).collect::<Vec<_>>();
        (made, found.traces.len(), found.metrics.unwrap().inspected_spans)
    };
    const ALL: [bool; GROUPS] = [true; GROUPS];
    const NONE: [bool; GROUPS] = [false; GROUPS];
    // Nothing is looked at where none has it.
    assert_eq!(digested("{ span.key = \"v9\" }", None), (ALL.to_vec(), 0, 0));
    // The first group has one, the last to be digested.
    let (made, found, spans) = digested("{ span.key = \"v2\" }", None);
    assert!(made == ALL && found == 1 && spans < 200, "{made:?} {found} {spans}");
    // What is in the newest is in others as well.
    assert_eq!(digested("{ span.number = \"0\" }", None).0, [false, false, false, true]);
    // Whoever begins only, or looks for no value, makes none.
    assert_eq!(digested("{ span.key = \"v9\" }", Some(3)).0, NONE);
    assert_eq!(digested("{ span.key =~ \"v9.*\" }", None).0, NONE);
    assert_eq!(digested("{ span.key = \"v9\" || duration > 1h }", None).0, NONE);
}

#[test]
fn workers_wait_for_digests_that_others_make_and_none_begins_one_for_nobody() {
    let view = view(&lines(2000), AS_THEY_CAME);
    let ended = Arc::new(AtomicBool::new(false));
    let scan = LiveScan::new(view.clone(), &ended);
    let job = SearchJob { query: "{ span.key = \"v9\" }".to_owned(), limit: 20, ..SearchJob::default() };
    let search = || query::search_part(&scan.share(), &job, &Budget::default()).unwrap();
    let found = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(search)).collect();
        query::found_of_parts(workers.into_iter().map(|worker| worker.join().unwrap()).collect())
    });
    assert_eq!(found.metrics.unwrap().inspected_spans, 0);
    assert!(view.parts.iter().all(|part| part.group.is_digested()));
    let view = self::view(&lines(2000), AS_THEY_CAME);
    ended.store(true, Ordering::Relaxed);
    let scan = LiveScan::new(view.clone(), &ended);
    let field = Field::attribute(Scope::Span, "key");
    let absent = Condition { field, test: Test::Compare(CompareOp::Eq, Value::str("v9")) };
    let spec = FetchSpec { spans: Predicate::Is(absent), ..FetchSpec::of(Vec::new()) };
    scan.fetch(0, &spec).rule_out(&scan);
    assert!(!view.parts.iter().any(|part| part.group.is_digested()));
    ended.store(false, Ordering::Relaxed);
    scan.fetch(0, &spec).rule_out(&scan);
    assert!(view.parts.iter().all(|part| part.group.is_digested()) && scan.is_done());
}

#[test]
fn a_group_is_prepared_by_how_often_it_was_asked_and_walked() {
    let mut traces = lines(2000);
    traces.iter_mut().for_each(|trace| trace.group = 0);
    let small = view(&traces, AS_THEY_CAME);
    let group = Arc::clone(&small.parts[0].group);
    // Too small to be worth it.
    (0..20).for_each(|_| assert_eq!(inspected(&small, "{ span.key = \"v9\" || duration > 1h }"), (0, 2000)));
    assert!(group.bytes() < 1 << 20 && group.claim().is_none());
    group.prepare(Preparation::Columns, &Decoded::new(1 << 20));
    assert!(inspected(&small, "{ span.key = \"v9\" || duration > 1h }").1 <= 2000 && group.is_encoded());
    let large: Vec<_> = (0..40_000u32)
        .map(|number| {
            Arc::new(LiveTrace::new(
                TraceId(u128::from(number).to_be_bytes()),
                parts(&traces[number as usize % 2000].spans),
            ))
        })
        .collect();
    let group = Arc::new(LiveGroup::new(large));
    let view = LiveView { parts: vec![LivePart::whole(Arc::clone(&group))] };
    let ask = |query: &str| {
        let job = SearchJob { query: query.to_owned(), limit: 20, ..SearchJob::default() };
        let scan = LiveScan::new(view.clone(), &Arc::default());
        query::search_part(&scan.beginning(0), &job, &Budget::default()).unwrap();
    };
    group.walked(group.bytes() * (ENCODING_COST - 1));
    ask("{ }");
    ask("{ span.key = \"v9\" || duration > 1h }");
    assert_eq!(group.claim(), None);
    ask("{ span.key = \"v9\" }");
    assert_eq!((group.claim(), group.claim()), (Some(Preparation::Digest), None));
    group.release(Preparation::Digest);
    assert_eq!(group.claim(), Some(Preparation::Digest));
    group.walked(group.bytes() * 2);
    assert_eq!((group.claim(), group.claim()), (Some(Preparation::Columns), None));
}

#[test]
fn columns_of_all_spans_count_more_than_a_walk() {
    let mut traces = lines(2000);
    traces.iter_mut().for_each(|trace| trace.group = 0);
    let walked = |query: &str| {
        let view = view(&traces, AS_THEY_CAME);
        assert_eq!(inspected(&view, query).1, 2000);
        view.parts[0].group.walks()
    };
    assert_eq!((walked("{ duration > 1h }"), walked("{ }")), (1, WALKS_FOR_COLUMNS));
}

#[test]
fn names_that_nobody_waits_for_are_not_gathered() {
    let ended = Arc::new(AtomicBool::new(true));
    let scan = LiveScan::new(view(&lines(100), AS_THEY_CAME), &ended);
    let mut names = TagNames::new(TagLimits::default());
    scan.share().tag_names(None, &mut names).unwrap();
    assert!(names.into_scopes().is_empty());
    ended.store(false, Ordering::Relaxed);
    let mut names = TagNames::new(TagLimits::default());
    scan.share().tag_names(None, &mut names).unwrap();
    assert_eq!(names.into_scopes().len(), 2);
}

#[test]
fn names_of_a_group_are_listed_once_whatever_scope_was_asked_for_first() {
    let view = view(&lines(100), AS_THEY_CAME);
    let told = |scope| {
        let mut names = TagNames::new(TagLimits::default());
        LiveScan::new(view.clone(), &Arc::default()).share().tag_names(scope, &mut names).unwrap();
        format!("{:?}", names.into_scopes())
    };
    let walks = || view.parts.iter().map(|part| part.group.walks()).collect::<Vec<_>>();
    let spans = told(Some(Scope::Span));
    let walked = walks();
    assert!(walked.iter().all(|walks| *walks == 1), "{walked:?}");
    let fresh = {
        let view = self::view(&lines(100), AS_THEY_CAME);
        let mut names = TagNames::new(TagLimits::default());
        LiveScan::new(view, &Arc::default()).share().tag_names(None, &mut names).unwrap();
        format!("{:?}", names.into_scopes())
    };
    assert_eq!((told(None), told(Some(Scope::Span))), (fresh, spans));
    assert_eq!(walks(), walked);
}

#[test]
fn damaged_traces_are_an_error_and_stay_as_they_are() {
    let mut slice = parts(&lines(1)[0].spans).swap_remove(0).to_vec();
    slice.truncate(slice.len() - 3);
    let group = Arc::new(LiveGroup::new(vec![Arc::new(LiveTrace::new(id(0), vec![slice.into()]))]));
    let decoded = Decoded::new(1 << 20);
    [Preparation::Columns, Preparation::Digest].into_iter().for_each(|work| group.prepare(work, &decoded));
    assert!(!group.is_encoded() && !group.is_digested());
    let view = LiveView { parts: vec![LivePart::whole(group)] };
    let job =
        SearchJob { query: "{ }".to_owned(), limit: 20, start_unix_nano: 1, end_unix_nano: 2, ..SearchJob::default() };
    let scan = LiveScan::new(view, &Arc::default());
    assert!(query::search_part(&scan.share(), &job, &Budget::default()).is_err());
}

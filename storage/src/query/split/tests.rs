//! Queries on traces that are cut over blocks, against the same traces in one row each, and against evaluation without any storage.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;
use vivace_protocol::tempopb::{QueryRangeResponse, SpanSet, TraceSearchMetadata};
use vivace_traceql::MemorySource;

use super::*;
use crate::live::tests::memory_trace;
use crate::query::{Share, budget, merge_metrics, metrics_block, range_response, search, search_block};
use crate::split::tests::{BEGIN_MS, Traces, drawn, encoded};

const SEARCHES: [&str; 30] = [
    "{ }",
    "{ status = error }",
    "{ } >> { status = error }",
    "{ kind = server } > { kind = client }",
    "{ name = `a` } << { name = `b` }",
    "{ name = `a` } < { }",
    "{ } ~ { status = error }",
    "{ } !>> { status = error }",
    "{ name = `b` } !> { }",
    "{ } !~ { name = `a` }",
    "{ name = `a` } !<< { }",
    "{ name = `a` } &>> { name = `b` }",
    "{ status = error } &> { }",
    "{ name = `a` } &~ { name = `c` }",
    "{ status = error } | count() > 2",
    "{ name = `a` } && { name = `b` }",
    "{ name = `a` } || { span.k = `x` }",
    "{ } | avg(duration) > 40ms",
    "{ } | by(span.k) | count() > 1",
    "{ } | by(name) | max(span.n) > 3 | select(span.n)",
    "{ span:childCount > 1 } | select(span:childCount)",
    "{ span:childCount = 0 && status = error }",
    "{ nestedSetParent < 0 }",
    "{ rootName = `a` }",
    "{ rootServiceName = `shop` && status = error }",
    "{ traceDuration > 120ms && name = `c` }",
    "{ status = error } | select(span.k, event:name, resource.service.name)",
    "{ event:name = `e1` } >> { span.k = 3 }",
    "{ trace:id =~ `.*2.*` } | by(resource.service.name) | sum(duration) > 50ms",
    "({ name = `a` } >> { name = `b` }) && ({ status = error } | count() > 1)",
];

const METRICS: [&str; 8] = [
    "{ } | rate()",
    "{ } >> { status = error } | count_over_time() by (name)",
    "{ traceDuration > 120ms } | rate() by (resource.service.name)",
    "{ span:childCount > 1 } | sum_over_time(duration)",
    "{ name = `a` } && { name = `b` } | rate()",
    "{ nestedSetParent < 0 } | count_over_time() by (rootName)",
    "{ status = error } | histogram_over_time(duration)",
    "{ } !> { name = `c` } | max_over_time(duration) by (span.k)",
];

fn metas(blocks: &[Arc<OpenBlock>]) -> Vec<Arc<BlockMeta>> {
    blocks.iter().map(|block| Arc::new(block.meta().clone())).collect()
}

fn opened(split: &SplitOver, blocks: &[Arc<OpenBlock>]) -> Vec<Arc<OpenBlock>> {
    let find = |meta: &Arc<BlockMeta>| blocks.iter().find(|block| block.meta().block_id == meta.block_id).unwrap();
    split.blocks.iter().map(|meta| Arc::clone(find(meta))).collect()
}

/// As a querier does it, with a job for each block: each trace is found once.
fn asked(blocks: &[Arc<OpenBlock>], job: &SearchJob) -> Vec<TraceSearchMetadata> {
    let (mut found, listed) = (Vec::new(), metas(blocks));
    for (at, block) in blocks.iter().enumerate() {
        found.extend(search_block(block, &Share::whole().apart(), job).unwrap().traces);
        for split in SplitOver::begun_in(&listed[at..=at], &listed, (0, 0)) {
            let batch = search_split(split.trace, &opened(&split, blocks), job, &budget(0)).unwrap();
            found.extend(batch.traces);
        }
    }
    let ids: BTreeSet<&String> = found.iter().map(|trace| &trace.trace_id).collect();
    assert_eq!(ids.len(), found.len(), "a trace is found twice by {}", job.query);
    newest(found, job.limit)
}

fn newest(mut found: Vec<TraceSearchMetadata>, limit: u32) -> Vec<TraceSearchMetadata> {
    let order = |trace: &TraceSearchMetadata| (std::cmp::Reverse(trace.start_time_unix_nano), trace.trace_id.clone());
    found.sort_by_key(order);
    found.truncate(usize::try_from(limit).unwrap());
    found.into_iter().map(sorted).collect()
}

/// In which order spans and groups stand is that of the storage.
fn sorted(mut trace: TraceSearchMetadata) -> TraceSearchMetadata {
    for set in &mut trace.span_sets {
        set.spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
    }
    let key = |set: &SpanSet| format!("{:?}{:?}", set.attributes, set.spans);
    trace.span_sets.sort_by_key(key);
    trace
}

fn naive(traces: &Traces) -> MemorySource {
    let whole = |(id, parts): &(TraceId, Vec<bytes::Bytes>)| memory_trace(*id, &parts.concat());
    MemorySource::new(traces.iter().map(whole).collect(), 10)
}

fn counted(blocks: &[Arc<OpenBlock>], job: &MetricsJob) -> QueryRangeResponse {
    let (whole, listed) = (asks_for_traces(job).unwrap(), metas(blocks));
    let mut batches = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        let share = if whole { Share::whole().apart() } else { Share::whole() };
        batches.push(metrics_block(block, &share, job, &|| false).unwrap());
        for split in SplitOver::begun_in(&listed[at..=at], &listed, (0, 0)).into_iter().filter(|_| whole) {
            batches.push(metrics_split(split.trace, &opened(&split, blocks), job, &|| false).unwrap());
        }
    }
    series(batches, job)
}

fn series(batches: Vec<MetricsBatch>, job: &MetricsJob) -> QueryRangeResponse {
    let plan = metrics_plan(job).unwrap();
    let mut sum = plan.partial();
    batches.into_iter().for_each(|batch| merge_metrics(&plan, &mut sum, batch.partial.unwrap()).unwrap());
    let mut response = range_response(plan.finish(sum));
    response.series.sort_by_key(|series| format!("{:?}", series.labels));
    response
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn a_trace_in_several_blocks_is_searched_as_one(seed in any::<u64>(), most in 300usize..3000, limit in 1u32..8) {
        let traces = drawn(6, 40, seed);
        let (split, whole, naive) = (encoded(&traces, most), encoded(&traces, usize::MAX), naive(&traces));
        for query in SEARCHES {
            for limit in [100, limit] {
                let job = SearchJob { query: query.to_owned(), limit, spans_per_span_set: 1000, ..SearchJob::default() };
                let found = asked(&split, &job);
                let one = newest(search_block(&whole[0], &Share::whole(), &job).unwrap().traces, limit);
                prop_assert_eq!(&found, &one, "{}", query);
                let due = newest(search(&naive, &job).unwrap().traces, limit);
                prop_assert_eq!(&found, &due, "{} without storage", query);
            }
        }
    }

    #[test]
    fn a_trace_in_several_blocks_is_counted_as_one(seed in any::<u64>(), most in 300usize..3000) {
        let traces = drawn(6, 40, seed);
        let (split, whole, naive) = (encoded(&traces, most), encoded(&traces, usize::MAX), naive(&traces));
        for query in METRICS {
            let (start_unix_nano, step_nanos) = ((BEGIN_MS - 10_000) * 1_000_000, 4_000_000_000);
            let job = MetricsJob { query: query.to_owned(), start_unix_nano, step_nanos, ..MetricsJob::default() };
            let job = MetricsJob { end_unix_nano: start_unix_nano + 40 * 1_000_000_000, ..job };
            let found = counted(&split, &job);
            let one = series(vec![metrics_block(&whole[0], &Share::whole(), &job, &|| false).unwrap()], &job);
            prop_assert_eq!(&found, &one, "{}", query);
            let due = series(vec![metrics(&naive, &job, &|| false).unwrap()], &job);
            prop_assert_eq!(&found, &due, "{} without storage", query);
        }
    }
}

#[test]
fn only_queries_about_whole_traces_ask_for_them() {
    let asks = METRICS.map(|query| {
        asks_for_traces(&MetricsJob {
            query: query.to_owned(),
            start_unix_nano: 1,
            end_unix_nano: 1 << 40,
            step_nanos: 1 << 34,
            ..MetricsJob::default()
        })
        .unwrap()
    });
    assert_eq!(asks, [false, true, true, true, true, true, false, true]);
}

/// Jobs are made by one list of blocks and run by another: whatever was merged meanwhile, a trace is evaluated by one of them.
#[test]
fn a_trace_belongs_to_the_job_with_its_first_part_whatever_was_merged_meanwhile() {
    let blocks = metas(&encoded(&drawn(1, 60, 5), 700));
    assert!(blocks.len() > 2);
    let merged = |block: &Arc<BlockMeta>| {
        Arc::new(BlockMeta { block_id: Uuid::from_u128(block.block_id.as_u128() + 1000), ..(**block).clone() })
    };
    let later: Vec<_> = blocks.iter().map(merged).collect();
    let both: Vec<_> = blocks.iter().chain(&later).cloned().collect();
    for (jobs, listed) in [(&blocks, &blocks), (&blocks, &later), (&later, &later), (&blocks, &both)] {
        let begun: Vec<SplitOver> =
            (0..jobs.len()).flat_map(|at| SplitOver::begun_in(&jobs[at..=at], listed, (0, 0))).collect();
        assert_eq!(begun.len(), 1);
        assert_eq!(begun[0].blocks[0].block_id, jobs[0].block_id);
        assert!(parts_of(&begun[0]).eq(0..u32::try_from(blocks.len()).unwrap()), "{begun:?}");
    }
    // Both in one job: still once.
    let begun = SplitOver::begun_in(&both, &later, (0, 0));
    assert_eq!((begun.len(), begun[0].blocks.len()), (1, blocks.len()));
}

fn parts_of(split: &SplitOver) -> impl Iterator<Item = u32> + '_ {
    split.blocks.iter().map(|block| block.split_traces[0].part)
}

/// A trace that was written in parts at two times is one trace. It belongs to the job with the first part that the query's window has a
/// block of.
#[test]
fn parts_that_were_written_at_different_times_are_evaluated_together() {
    let early = metas(&encoded(&drawn(1, 60, 5), 700));
    let shift = 3600 * 1_000_000_000;
    let late: Vec<_> = early
        .iter()
        .map(|block| {
            let mut later =
                BlockMeta { block_id: Uuid::from_u128(block.block_id.as_u128() + 1000), ..(**block).clone() };
            (later.start_time.0, later.end_time.0) = (later.start_time.0 + shift, later.end_time.0 + shift);
            for mark in &mut later.split_traces {
                mark.first = Uuid::from_u128(mark.first.as_u128() - 1);
                mark.received_ms += 3_600_000;
            }
            Arc::new(later)
        })
        .collect();
    let both: Vec<_> = late.iter().chain(&early).cloned().collect();
    let begun = |window: (u64, u64)| -> Vec<(Uuid, usize)> {
        let at =
            |at: usize| SplitOver::begun_in(&both[at..=at], &both, window).into_iter().map(move |split| (at, split));
        (0..both.len()).flat_map(at).map(|(at, split)| (both[at].block_id, split.blocks.len())).collect()
    };
    let (first, after) = (early[0].start_time.0, early[0].end_time.0 + 10 * 1_000_000_000);
    assert_eq!(begun((0, 0)), [(early[0].block_id, both.len())]);
    assert_eq!(begun((first, after)), [(early[0].block_id, both.len())]);
    assert_eq!(begun((after, after + 2 * shift)), [(late[0].block_id, both.len())]);
    assert!(begun((after + 10 * shift, 0)).is_empty());
    assert!(begun((0, first - 10 * shift / 3600)).is_empty());
    let order: Vec<i64> = SplitOver::begun_in(&both, &both, (0, 0))[0]
        .blocks
        .iter()
        .map(|block| block.split_traces[0].received_ms)
        .collect();
    assert!(order.is_sorted() && order[0] < order[order.len() - 1], "{order:?}");
}

#[test]
fn a_metrics_job_is_about_what_its_blocks_are_chosen_for() {
    let job = |start_unix_nano, end_unix_nano, after_unix_nano, until_unix_nano| {
        window_of(&MetricsJob {
            start_unix_nano,
            end_unix_nano,
            after_unix_nano,
            until_unix_nano,
            ..MetricsJob::default()
        })
    };
    assert_eq!([job(5, 20, 0, 0), job(5, 20, 5, 12), job(5, 20, 5, 30)], [(5, 20), (5, 12), (5, 20)]);
}

//! Jobs on blocks that are really there.

use std::path::Path;

use prost::Message;
use uuid::Uuid;
use vivace_protocol::TraceId;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::tempopb::Trace;
use vivace_protocol::vivace::find_trace_request::From;
use vivace_storage::{
    BlockKey, BlockOpener, BlockSpec, BlockWriter, Continued, DedicatedColumns, Received, encode_block,
};

use super::*;

const TENANT: &str = "a";

/// A part of trace `n`: one span with this id.
fn part(n: u8, span: u8, name_bytes: usize) -> bytes::Bytes {
    let span = Span {
        trace_id: vec![n; 16],
        span_id: vec![span; 8],
        name: "n".repeat(name_bytes),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 2_000,
        ..Span::default()
    };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let spans = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    Trace { resource_spans: vec![spans] }.encode_to_vec().into()
}

async fn store(bucket: &Path, id: Uuid, traces: &[(u8, Vec<bytes::Bytes>)]) {
    let mut writer = BlockWriter::new(BlockSpec::new(TENANT, id, DedicatedColumns(Vec::new()))).unwrap();
    for (n, parts) in traces {
        assert!(writer.add_trace([*n; 16], parts).unwrap().leftover.is_empty());
    }
    Backend::local(bucket).unwrap().put_block(&writer.finish().unwrap()).await.unwrap();
}

/// A querier over a bucket as it is now, without recent data.
fn querier(bucket: &Path) -> (Supervisor, Querier) {
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let live = super::echo(&root);
    let backend = Backend::local(bucket).unwrap();
    let (plan, _news) = Plan::new(Setup {
        config: Config::default(),
        poll_period: LONG,
        backend: backend.clone(),
        opener: Arc::new(BlockOpener::new(backend, tokio::runtime::Handle::current())),
        compute: Compute::inline(),
        metrics: Registry::new(),
    });
    let querier = plan.add(&root, live, Placement::Here);
    root.start();
    (root, querier)
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// The pieces of a trace with the sum of what was said of them.
async fn find(querier: &Querier, request: FindTraceRequest) -> (Vec<bytes::Bytes>, Coverage, u64) {
    let mut batches = querier.find.call(request, LONG).await.unwrap();
    let (mut parts, mut coverage, mut inspected) = (Vec::new(), Coverage::default(), 0);
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        let told = batch.coverage.unwrap_or_default();
        (coverage.total, coverage.read) = (coverage.total + told.total, coverage.read + told.read);
        coverage.skipped.extend(told.skipped);
        inspected += batch.inspected_bytes;
        parts.extend(batch.parts);
    }
    (parts, coverage, inspected)
}

fn in_blocks(n: u8) -> FindTraceRequest {
    FindTraceRequest {
        tenant: TENANT.to_owned(),
        trace_id: vec![n; 16],
        from: From::Blocks.into(),
        ..FindTraceRequest::default()
    }
}

#[actix::test]
async fn the_pieces_of_a_trace_come_from_every_block_that_has_some_large_ones_in_parts() {
    let bucket = tempfile::tempdir().unwrap();
    // Nine MiB in one block, a span in another, nothing in the third.
    let large: Vec<_> = (1..10).map(|span| part(7, span, 1 << 20)).collect();
    store(bucket.path(), id(1), &[(7, large)]).await;
    store(bucket.path(), id(2), &[(7, vec![part(7, 20, 10)]), (8, vec![part(8, 1, 10)])]).await;
    store(bucket.path(), id(3), &[(9, vec![part(9, 1, 10)])]).await;
    let (root, querier) = querier(bucket.path());
    let (parts, coverage, inspected) = find(&querier, in_blocks(7)).await;
    assert_eq!((coverage.total, coverage.read, coverage.skipped.len()), (3, 3, 0));
    assert!(parts.len() >= 4 && parts.iter().all(|part| part.len() <= 5 << 20), "{}", parts.len());
    let combined = vivace_protocol::combine::Combine::default().parts(&parts).unwrap();
    assert_eq!(combined.span_count, 10);
    assert!((9 << 20..10 << 20).contains(&inspected), "{inspected}");

    let shard = FindTraceRequest {
        block_start: id(2).as_bytes().to_vec(),
        block_end: id(3).as_bytes().to_vec(),
        ..in_blocks(7)
    };
    let (parts, coverage, _) = find(&querier, shard).await;
    assert_eq!((parts.len(), coverage.total, coverage.read), (1, 2, 2));

    let (parts, coverage, _) = find(&querier, FindTraceRequest { from: From::Everything.into(), ..in_blocks(8) }).await;
    // The live-store of these tests gives back what it was asked, twice.
    assert_eq!((parts.len(), coverage.total, coverage.read), (3, 4, 4));
    root.drain(LONG).await;
}

/// A part of trace `n`: one span with this id and start.
fn starting(n: u8, span: u8, start: u64) -> bytes::Bytes {
    let mut trace = Trace::decode(part(n, span, 10)).unwrap();
    trace.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano = start;
    trace.encode_to_vec().into()
}

#[actix::test]
async fn of_a_page_only_the_blocks_are_read_that_have_some_of_it() {
    let bucket = tempfile::tempdir().unwrap();
    for (block, starts) in [(1, 10..20), (2, 20..30), (3, 40..50)] {
        let parts = starts.map(|at| starting(7, at, u64::from(at))).collect();
        store(bucket.path(), id(block), &[(7, parts)]).await;
    }
    let (root, querier) = querier(bucket.path());
    let told = async |from: u64, count: u32| {
        let request = FindTraceRequest { page_from_unix_nano: from, page_spans: count, ..in_blocks(7) };
        let (parts, coverage, _) = find(&querier, request).await;
        assert_eq!((coverage.total, coverage.read, coverage.skipped.len()), (3, 3, 0));
        let traces = parts.into_iter().flat_map(|part| Trace::decode(part).unwrap().resource_spans);
        let spans = traces.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        let mut starts: Vec<u64> = spans.map(|span| span.start_time_unix_nano).collect();
        starts.sort_unstable();
        starts
    };
    // The span at the place itself and as many that start later.
    assert_eq!(told(0, 3).await, [10, 11, 12]);
    assert_eq!(told(12, 3).await, [12, 13, 14, 15]);
    // The first two blocks have enough of them together, so the third is not read.
    assert_eq!(told(18, 3).await, [18, 19, 20, 21]);
    assert_eq!(told(45, 9).await, [45, 46, 47, 48, 49]);
    assert_eq!(told(50, 9).await, [] as [u64; 0]);
    root.drain(LONG).await;
}

#[actix::test]
async fn a_block_that_cannot_be_read_is_missing_and_the_others_are_not() {
    let bucket = tempfile::tempdir().unwrap();
    store(bucket.path(), id(1), &[(7, vec![part(7, 1, 10)])]).await;
    store(bucket.path(), id(2), &[(7, vec![part(7, 2, 10)])]).await;
    std::fs::write(bucket.path().join(TENANT).join(id(2).to_string()).join("data.parquet"), b"PAR1").unwrap();
    let (root, querier) = querier(bucket.path());
    let (parts, coverage, _) = find(&querier, in_blocks(7)).await;
    assert_eq!((parts.len(), coverage.total, coverage.read, coverage.skipped.len()), (1, 2, 1, 1));
    assert_eq!(coverage.skipped[0].what, format!("block {}", id(2)));
    root.drain(LONG).await;
}

#[actix::test]
async fn a_job_may_name_blocks_that_this_querier_has_not_heard_of() {
    let bucket = tempfile::tempdir().unwrap();
    store(bucket.path(), id(1), &[(7, vec![part(7, 1, 10)])]).await;
    let (root, querier) = querier(bucket.path());
    // The list is polled before anything is answered; these come later, and the next poll is far.
    querier.blocks.call(BlockListRequest { tenant: TENANT.to_owned(), known_version: 0 }, LONG).await.unwrap();
    store(bucket.path(), id(2), &[(8, vec![part(8, 1, 10)])]).await;
    store(bucket.path(), id(3), &[(9, vec![part(9, 1, 10)])]).await;
    Backend::local(bucket.path()).unwrap().mark_compacted(&BlockKey::new(TENANT, id(3))).await.unwrap();
    let job = SearchJob {
        tenant: TENANT.to_owned(),
        query: "{}".to_owned(),
        limit: 10,
        spans_per_span_set: 1,
        block_ids: [1, 2, 3, 4].map(|n| id(n).to_string()).into(),
        ..SearchJob::default()
    };
    let batches: Vec<_> = querier.search.call(job, LONG).await.unwrap().collect().await;
    let (mut found, mut read, mut skipped) = (0, 0, Vec::new());
    for batch in batches.into_iter().map(Result::unwrap) {
        found += batch.traces.len();
        let coverage = batch.coverage.unwrap_or_default();
        read += coverage.read;
        skipped.extend(coverage.skipped.into_iter().map(|skipped| format!("{}: {}", skipped.what, skipped.reason)));
    }
    assert_eq!((found, read), (3, 3));
    assert_eq!(skipped, [format!("block {}: it is no longer in the store", id(4))]);
    root.drain(LONG).await;
}

#[actix::test]
async fn a_job_over_its_memory_ends_with_an_error_and_is_no_gap_in_the_coverage() {
    let bucket = tempfile::tempdir().unwrap();
    for n in [1u8, 2] {
        store(bucket.path(), id(n.into()), &[(n, vec![part(n, 1, 10)]), (n + 10, vec![part(n + 10, 1, 10)])]).await;
    }
    let (root, querier) = querier(bucket.path());
    let block_ids: Vec<String> = [1, 2].map(|n| id(n).to_string()).into();
    let job = |max_bytes| SearchJob {
        tenant: TENANT.to_owned(),
        query: "{}".to_owned(),
        limit: 10,
        spans_per_span_set: 1,
        block_ids: block_ids.clone(),
        max_bytes,
        ..SearchJob::default()
    };
    let error = async |max_bytes| {
        let batches: Vec<_> = querier.search.call(job(max_bytes), LONG).await.unwrap().collect().await;
        batches.into_iter().find_map(Result::err).map(|status| (status.code(), status.message().to_owned()))
    };
    assert_eq!(error(0).await, None);
    assert_eq!(error(1 << 20).await, None);
    let due = (tonic::Code::OutOfRange, "the results of the query take more than 100 bytes".to_owned());
    assert_eq!(error(100).await, Some(due));
    let values = TagValuesJob {
        tenant: TENANT.to_owned(),
        tag: "name".to_owned(),
        block_ids,
        max_bytes: 20,
        ..TagValuesJob::default()
    };
    assert_eq!(querier.tag_values.call(values, LONG).await.unwrap_err().code(), tonic::Code::OutOfRange);
    root.drain(LONG).await;
}

/// More row groups than a first look opens, so that workers take turns.
#[actix::test]
async fn a_search_over_many_row_groups_finds_the_newest_of_all_once() {
    let bucket = tempfile::tempdir().unwrap();
    let spec = BlockSpec { row_group_bytes: 500, ..BlockSpec::new(TENANT, id(1), DedicatedColumns(Vec::new())) };
    let mut writer = BlockWriter::new(spec).unwrap();
    let start = |n: u8| u64::from(n.wrapping_mul(37)) + 1;
    for n in 0..=u8::MAX {
        let span = Span {
            trace_id: vec![n; 16],
            span_id: vec![n.max(1); 8],
            start_time_unix_nano: start(n),
            end_time_unix_nano: start(n) + 1,
            ..Span::default()
        };
        let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        let spans = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        writer.add_trace([n; 16], &[Trace { resource_spans: vec![spans] }.encode_to_vec().into()]).unwrap();
    }
    let finished = writer.finish().unwrap();
    assert!(finished.meta.total_records > 8);
    Backend::local(bucket.path()).unwrap().put_block(&finished).await.unwrap();
    let (root, querier) = querier(bucket.path());
    for (limit, explain) in [(5, false), (100, false), (100, true), (1000, false)] {
        let job = SearchJob {
            tenant: TENANT.to_owned(),
            query: "{ duration < 1s }".to_owned(),
            limit,
            spans_per_span_set: 1,
            block_ids: vec![id(1).to_string()],
            explain,
            ..SearchJob::default()
        };
        let batches: Vec<_> = querier.search.call(job, LONG).await.unwrap().collect().await;
        let batches: Vec<_> = batches.into_iter().map(Result::unwrap).collect();
        let read: u32 = batches.iter().filter_map(|batch| batch.coverage.as_ref()).map(|coverage| coverage.read).sum();
        let found: Vec<u64> =
            batches.iter().flat_map(|batch| &batch.traces).map(|trace| trace.start_time_unix_nano).collect();
        let due: Vec<u64> = (1..=256).rev().take(limit as usize).collect();
        assert_eq!((found, read), (due, 1), "limit {limit}");
        assert_eq!(batches.iter().any(|batch| batch.profile.is_some()), explain);
    }
    root.drain(LONG).await;
}

#[actix::test]
async fn a_block_that_left_the_list_is_closed() {
    let bucket = tempfile::tempdir().unwrap();
    let backend = Backend::local(bucket.path()).unwrap();
    let mut metas = Vec::new();
    for n in [1, 2] {
        store(bucket.path(), id(n.into()), &[(n, vec![part(n, 1, 10)])]).await;
        metas.push(backend.read_meta(&BlockKey::new(TENANT, id(n.into()))).await.unwrap());
    }
    let opener = Arc::new(BlockOpener::new(backend, tokio::runtime::Handle::current()));
    let blocks = crate::blocks::Blocks::new(opener, 1 << 20, vivace_storage::Decoded::new(1 << 20));
    let at_hand = |n: usize| blocks.get(&metas[n]).unwrap().1;
    assert!(!at_hand(0) && !at_hand(1) && at_hand(0) && at_hand(1));
    blocks.retain(|listed| *listed == id(2));
    assert!(at_hand(1) && !at_hand(0));
}

/// Span `span` of trace 7 below span `parent`.
fn below(span: u8, parent: u8) -> bytes::Bytes {
    let mut trace = Trace::decode(part(7, span, 10)).unwrap();
    if parent > 0 {
        trace.resource_spans[0].scope_spans[0].spans[0].parent_span_id = vec![parent; 8];
    }
    trace.encode_to_vec().into()
}

/// Blocks of a trace that does not fit one row, as those who write blocks make them.
async fn store_split(bucket: &Path, parts: Vec<bytes::Bytes>) -> Vec<BlockMeta> {
    let (mut metas, mut rest) = (Vec::new(), parts);
    while !rest.is_empty() {
        let mut spec = BlockSpec::new(TENANT, id(10 + metas.len() as u128), DedicatedColumns(Vec::new()));
        spec.max_trace_bytes = 2 * rest[rest.len() - 1].len();
        spec.continued = Continued::after(&metas);
        let traces = [(TraceId([7; 16]), &rest[..])];
        let received = Received { between_ms: (1, 2), slack: Duration::ZERO };
        let mut encoded = encode_block(spec, traces, received, false).unwrap();
        let block = encoded.block.unwrap();
        Backend::local(bucket).unwrap().put_block(&block).await.unwrap();
        metas.push(block.meta);
        rest = encoded.leftover.pop().map(|(_, parts)| parts).unwrap_or_default();
    }
    metas
}

#[actix::test]
async fn a_trace_in_several_blocks_is_evaluated_as_one_by_one_of_their_jobs() {
    let bucket = tempfile::tempdir().unwrap();
    let metas = store_split(bucket.path(), (1..=7).map(|span| below(span, span - 1)).collect()).await;
    assert_eq!(metas.len(), 4);
    store(bucket.path(), id(1), &[(8, vec![part(8, 1, 10)])]).await;
    let (root, querier) = querier(bucket.path());
    let ids: Vec<String> = metas.iter().map(|meta| meta.block_id.to_string()).chain([id(1).to_string()]).collect();
    let jobs: Vec<Vec<String>> = ids.iter().map(|id| vec![id.clone()]).chain([ids.clone()]).collect();
    // The spans that each job finds of the trace, first the job of each block, then one of all blocks.
    let found = async |query: &str| {
        let mut counts = Vec::new();
        for block_ids in jobs.clone() {
            let blocks = u32::try_from(block_ids.len()).unwrap();
            let (tenant, query, limit) = (TENANT.to_owned(), query.to_owned(), 10);
            let job = SearchJob { tenant, query, limit, block_ids, spans_per_span_set: 3, ..SearchJob::default() };
            let mut batches = querier.search.call(job, LONG).await.unwrap();
            let (mut matched, mut coverage) = (Vec::new(), (0, 0));
            while let Some(batch) = batches.next().await {
                let batch = batch.unwrap();
                let told = batch.coverage.unwrap_or_default();
                coverage = (coverage.0 + told.total, coverage.1 + told.read);
                let of_trace = batch.traces.iter().filter(|trace| trace.trace_id.starts_with("07"));
                matched.extend(of_trace.map(|trace| trace.span_sets[0].matched));
            }
            assert_eq!(coverage, (blocks, blocks));
            counts.push(matched);
        }
        counts
    };
    let once = |count: u32| vec![vec![count], vec![], vec![], vec![], vec![], vec![count]];
    assert_eq!(found("{ }").await, once(7));
    assert_eq!(found("{ } >> { }").await, once(6));
    assert_eq!(found("{ } !> { }").await, once(1));
    assert_eq!(found("{ span:childCount = 1 } | count() > 5").await, once(6));

    let counted = async |query: &str, block_ids: Vec<String>, held: &[String]| {
        let (tenant, query, held_block_ids) = (TENANT.to_owned(), query.to_owned(), held.to_vec());
        let job = MetricsJob { tenant, query, block_ids, held_block_ids, ..MetricsJob::default() };
        let job = MetricsJob { end_unix_nano: 10_000, step_nanos: 10_000, ..job };
        let mut batches = querier.metrics.call(job, LONG).await.unwrap();
        let mut sum = 0;
        while let Some(batch) = batches.next().await {
            let leaves = batch.unwrap().partial.unwrap_or_default().leaves;
            let groups = leaves.iter().flat_map(|leaf| &leaf.groups).flat_map(|group| &group.cells);
            sum += groups.flat_map(|cells| &cells.counts).sum::<u64>();
        }
        sum
    };
    // Spans that are looked at one by one are counted where they are.
    for (query, due) in [("{ } >> { } | count_over_time()", [6, 0, 0, 0, 0, 6]), ("{ } | rate()", [2, 2, 2, 1, 1, 8])] {
        for (block_ids, due) in jobs.iter().zip(due) {
            assert_eq!(counted(query, block_ids.clone(), &[]).await, due, "{query} in {block_ids:?}");
        }
    }
    // The last part counts elsewhere, or the first two: what is left is counted where it begins.
    let descendants = "{ } >> { } | count_over_time()";
    assert_eq!(counted(descendants, vec![ids[0].clone()], &ids[3..4]).await, 5);
    let (rest, first) = (ids[2..4].to_vec(), ids[..2].to_vec());
    assert_eq!(counted("{ traceDuration > 0ns } | count_over_time()", rest, &first).await, 3);
    root.drain(LONG).await;
}

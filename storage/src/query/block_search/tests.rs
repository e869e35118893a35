use proptest::prelude::*;
use std::ops::Range;

use prost::Message;
use uuid::Uuid;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status as OtlpStatus};
use vivace_protocol::tempopb::{Trace, TraceSearchMetadata};
use vivace_protocol::vivace::MetricsJob;

use super::*;
use crate::{
    BlockMeta, BlockObjects, BlockSource, BlockSpec, BlockWriter, Decoded, DedicatedColumns, MemoryBlock, Ranges,
    ReadError, query,
};

/// A trace of spans that begin at these offsets, every third of them with an error.
fn trace(id: u8, start: u64, spans: &[u8]) -> Trace {
    let span = |(number, offset): (u8, &u8)| OtlpSpan {
        trace_id: [id; 16].to_vec(),
        span_id: [id, number, 1, 1, 1, 1, 1, 1].to_vec(),
        parent_span_id: if number == 0 { Vec::new() } else { [id, 0, 1, 1, 1, 1, 1, 1].to_vec() },
        name: format!("name {}", offset % 5),
        start_time_unix_nano: 1_000_000_000 * (100 + start) + u64::from(*offset),
        end_time_unix_nano: 1_000_000_000 * (100 + start) + 1000 * u64::from(*offset),
        status: Some(OtlpStatus { code: if offset % 3 == 0 { 2 } else { 0 }, ..OtlpStatus::default() }),
        ..OtlpSpan::default()
    };
    let spans = (0u8..).zip(spans).map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    Trace { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

/// Traces by ascending id, each with its start and the offsets of its spans.
fn written(traces: &[(u64, Vec<u8>)], row_group_bytes: u64) -> (BlockMeta, bytes::Bytes) {
    let mut spec = BlockSpec::new("t", Uuid::from_u128(1), DedicatedColumns::defaults());
    (spec.row_group_bytes, spec.page_entries) = (row_group_bytes, 8);
    let mut writer = BlockWriter::new(spec).unwrap();
    for (id, (start, spans)) in (1u8..).zip(traces) {
        writer.add_trace([id; 16], &[trace(id, *start, spans).encode_to_vec().into()]).unwrap();
    }
    let finished = writer.finish().unwrap();
    let data: Vec<u8> = finished.data.into_iter().flatten().collect();
    (finished.meta, data.into())
}

fn block(traces: &[(u64, Vec<u8>)], row_group_bytes: u64) -> OpenBlock {
    let (meta, data) = written(traces, row_group_bytes);
    OpenBlock::open(meta, Arc::new(MemoryBlock::new(data, Vec::new()))).unwrap()
}

fn job(query: &str, limit: u32, spans_per_span_set: u32) -> SearchJob {
    SearchJob { query: query.to_owned(), limit, spans_per_span_set, ..SearchJob::default() }
}

/// By several threads, whoever comes first.
fn by_workers(block: &Arc<OpenBlock>, share: &Share, job: &SearchJob, workers: usize) -> SearchBatch {
    let search = BlockSearch::begin(block, share, job).unwrap();
    std::thread::scope(|scope| {
        let work = || search.work().unwrap();
        (0..workers).for_each(|_| drop(scope.spawn(work)));
    });
    assert_eq!(search.left(), 0);
    search.finish().unwrap()
}

const QUERIES: [&str; 7] = [
    "{ }",
    "{ status = error }",
    "{ status = error } | count() > 1",
    "{ name = \"name 1\" } >> { status = error }",
    "{ } | by(name) | select(nestedSetLeft, status)",
    "{ name =~ \"name [12]\" } | avg(duration) > 20us",
    "{ trace:id =~ \".*07.*\" || trace:duration > 100us }",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The other engine loads what is shown of every batch at once and keeps the newest of all. Few starts, so that many are equal.
    #[test]
    fn what_is_loaded_last_is_what_is_loaded_at_once(
        traces in prop::collection::vec((0u64..6, prop::collection::vec(any::<u8>(), 1..7)), 1..60),
        row_group_bytes in prop_oneof![Just(u64::MAX), 200u64..3000],
        limit in 0u32..30,
        spans in 0u32..5,
        kept in any::<bool>(),
    ) {
        let opened = block(&traces, row_group_bytes);
        let opened = Arc::new(if kept { opened.keeping(&Decoded::new(1 << 20)) } else { opened });
        for text in QUERIES {
            let job = job(text, limit, spans);
            let due = query::search(&BlockSource::new(Arc::clone(&opened)), &job).unwrap().traces;
            for workers in [1, 3] {
                let found = by_workers(&opened, &Share::whole(), &job, workers).traces;
                prop_assert_eq!(&found, &due, "{}, limit {}, {} workers", text, limit, workers);
            }
            // What a share has found too old the next ones leave out.
            let shares = Share::split(opened.row_groups(), 3);
            let mut found: Vec<TraceSearchMetadata> =
                shares.iter().flat_map(|share| by_workers(&opened, share, &job, 1).traces).collect();
            found.sort_by(|a, b| (b.start_time_unix_nano, &a.trace_id).cmp(&(a.start_time_unix_nano, &b.trace_id)));
            found.truncate(usize::try_from(limit).unwrap());
            prop_assert_eq!(&found, &due, "{}, limit {}, shares", text, limit);
        }
    }
}

/// Traces of which the newest stand in the middle row group, all of them with an error.
fn ages() -> Vec<(u64, Vec<u8>)> {
    (0u64..200).map(|n| (if (90..110).contains(&n) { 1000 + n } else { n }, vec![3, 6, 9])).collect()
}

#[test]
fn only_what_is_shown_is_read_of_the_columns_that_are_only_shown() {
    let block = Arc::new(block(&ages(), 2000));
    assert!(block.row_groups() > 5, "{}", block.row_groups());
    for (query, limit) in [("{ status = error }", 5), ("{ status = error } | count() > 2", 5), ("{ }", 5)] {
        let explained = SearchJob { explain: true, ..job(query, limit, 1) };
        let batch = query::search_block(&block, &Share::whole(), &explained).unwrap();
        let newest: Vec<u64> = batch.traces.iter().map(|trace| trace.start_time_unix_nano / 1_000_000_000).collect();
        assert_eq!(newest, [1209, 1208, 1207, 1206, 1205], "{query}");
        let profile = batch.profile.unwrap();
        let pages = |path: &str| {
            let column = profile.columns.iter().find(|column| column.path == path);
            column.unwrap_or_else(|| panic!("{path} is read")).pages
        };
        // Five traces that stand side by side, three spans each: in pages of eight entries, or of one trace where pages are cut into parts.
        for (shown, most) in
            [("rs.ss.Spans.SpanID", 5), ("TraceID", 5), ("RootSpanName", 3), ("rs.ss.Spans.StartTimeUnixNano", 5)]
        {
            assert!((1..=most).contains(&pages(shown)), "{query}: {} pages of {shown}", pages(shown));
        }
        let groups = u64::try_from(block.row_groups()).unwrap();
        assert_eq!(profile.row_groups_read + profile.row_groups_by_time + profile.row_groups_by_selection, groups);
        assert!(profile.row_groups_by_time >= groups - 2, "{query}: {profile:?}");
    }
}

/// An object in memory that notes what is announced and what is read.
struct Noted {
    data: bytes::Bytes,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    announced: Vec<Range<u64>>,
    read: Vec<Range<u64>>,
    /// Whether the store does not answer any more, and how often it was waited for since.
    dead: bool,
    waits: usize,
}

impl Notes {
    fn answer(&mut self) -> Result<(), ReadError> {
        if !self.dead {
            return Ok(());
        }
        self.waits += 1;
        Err(ReadError::Missing("data.parquet".to_owned()))
    }
}

struct NotedBlock(Arc<Noted>);

impl Ranges for Noted {
    fn len(&self) -> u64 {
        Ranges::len(&self.data)
    }

    fn read(&self, range: Range<u64>) -> Result<bytes::Bytes, ReadError> {
        let mut notes = self.notes.lock();
        notes.read.push(range.clone());
        notes.answer()?;
        self.data.read(range)
    }

    fn will_need(&self, ranges: &[Range<u64>]) -> Result<(), ReadError> {
        let mut notes = self.notes.lock();
        notes.announced.extend_from_slice(ranges);
        notes.answer()
    }
}

impl BlockObjects for NotedBlock {
    fn data(&self) -> Arc<dyn Ranges> {
        Arc::clone(&self.0) as Arc<dyn Ranges>
    }

    fn object(&self, _name: &str) -> Result<Option<bytes::Bytes>, ReadError> {
        Ok(None)
    }
}

#[test]
fn what_is_shown_is_announced_before_it_is_read_and_nothing_is_read_twice() {
    let (meta, data) = written(&ages(), u64::MAX);
    let noted = Arc::new(Noted { data, notes: Mutex::default() });
    let block = Arc::new(OpenBlock::open(meta, Arc::new(NotedBlock(Arc::clone(&noted)))).unwrap());
    let search = BlockSearch::begin(&block, &Share::whole(), &job("{ status = error }", 5, 3)).unwrap();
    search.work().unwrap();
    let before = std::mem::take(&mut *noted.notes.lock());
    assert_eq!(search.finish().unwrap().traces.len(), 5);
    let after = std::mem::take(&mut *noted.notes.lock());
    assert!(after.read.len() >= 8, "{:?}", after.read);
    for range in &after.read {
        // Of a small column all is read, of which a part was announced.
        let is_announced = |told: &Range<u64>| told.start < range.end && range.start < told.end;
        assert!(after.announced.iter().any(is_announced), "{range:?} is not among {:?}", after.announced);
    }
    let mut all: Vec<_> = before.read.into_iter().chain(after.read).collect();
    all.sort_by_key(|range| range.start);
    assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start), "{all:?}");
}

#[test]
fn what_a_metrics_query_counts_is_announced_before_it_is_read() {
    for query in ["{ } | rate() by (name)", "{ status = error } | rate()", "{ } | max_over_time(duration)"] {
        let (meta, data) = written(&ages(), u64::MAX);
        let noted = Arc::new(Noted { data, notes: Mutex::default() });
        let block = Arc::new(OpenBlock::open(meta, Arc::new(NotedBlock(Arc::clone(&noted)))).unwrap());
        block.row_group(0).unwrap();
        // What is read to find the columns.
        drop(std::mem::take(&mut *noted.notes.lock()));
        let second = 1_000_000_000;
        let job = MetricsJob {
            query: query.to_owned(),
            start_unix_nano: 100 * second,
            end_unix_nano: 2000 * second,
            step_nanos: 100 * second,
            exemplars: 10,
            ..MetricsJob::default()
        };
        let counted = query::metrics_block(&block, &Share::whole(), &job, &|| false).unwrap();
        assert!(counted.metrics.unwrap().inspected_spans > 0, "{query}");
        let notes = std::mem::take(&mut *noted.notes.lock());
        assert!(notes.read.len() >= 3, "{query}: {:?}", notes.read);
        for range in &notes.read {
            let is_announced = |told: &Range<u64>| told.start < range.end && range.start < told.end;
            assert!(notes.announced.iter().any(is_announced), "{query}: {range:?} is not among {:?}", notes.announced);
        }
    }
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_once() {
    let (meta, data) = written(&ages(), u64::MAX);
    let noted = Arc::new(Noted { data, notes: Mutex::default() });
    let block = Arc::new(OpenBlock::open(meta, Arc::new(NotedBlock(Arc::clone(&noted)))).unwrap());
    let search = BlockSearch::begin(&block, &Share::whole(), &job("{ status = error }", 5, 3)).unwrap();
    search.work().unwrap();
    let announced = noted.notes.lock().announced.len();
    noted.notes.lock().dead = true;
    assert!(search.finish().is_err());
    let notes = std::mem::take(&mut *noted.notes.lock());
    assert!(notes.announced.len() > announced, "what is shown is announced");
    assert_eq!(notes.waits, 1);
}

#[test]
fn a_search_that_fails_leaves_nothing_for_others_to_do() {
    let block = Arc::new(block(&ages(), 2000));
    // More than the first look takes, and nothing may be held.
    let budget = query::budget(1);
    let share = Share::whole().within(&budget);
    let failed = BlockSearch::begin(&block, &share, &job("{ status = error }", 500, 3)).err().unwrap();
    assert_eq!(failed.code(), tonic::Code::OutOfRange);
    assert_eq!(budget.used(), 0);
}

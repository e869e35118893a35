//! What blocks say of their rare values, against the pages themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost::Message;
use uuid::Uuid;
use vivace_protocol::{
    otlp::common::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    tempopb::Trace,
    vivace::SearchJob,
};
use vivace_traceql::{
    Condition, Cursor as _, FetchSpec, Field, Intrinsic, Pattern, Predicate, Scope, Source as _, Test,
};

use super::*;
use crate::{
    BlockSource, BlockSpec, BlockWriter, CompactSpec, DedicatedColumns, FinishedBlock, MemoryBlock, OpenBlock, compact,
    query::{self, Share},
    read::{chunk::ChunkReader, rows, tests, values::Values},
};

fn text(text: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text)) }
}

fn opened(finished: FinishedBlock, before: Vec<Bytes>) -> OpenBlock {
    let data: Vec<u8> = before.into_iter().chain(finished.data).flatten().collect();
    OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), Vec::new()))).unwrap()
}

fn spec() -> BlockSpec {
    let mut spec = BlockSpec::new("single-tenant", Uuid::from_u128(7), DedicatedColumns::defaults());
    (spec.page_entries, spec.row_group_bytes) = (60, 900_000);
    spec
}

/// A block of the recorded traces, three times over, whose number is `of` modulo two, or of all. The first span of each has an
/// attribute of its own and one with several values, some of which others have too.
fn block(of: Option<usize>) -> OpenBlock {
    let mut writer = BlockWriter::new(spec()).unwrap();
    let recorded: Vec<Bytes> = rows(&tests::open_v5()).map(|row| row.unwrap().1).collect();
    let traces = recorded.iter().cycle().take(3 * recorded.len()).enumerate();
    for (number, trace) in traces.filter(|(number, _)| of.is_none_or(|of| number % 2 == of)) {
        let mut trace = Trace::decode(trace.clone()).unwrap();
        let values = vec![text(format!("list {}", number % 7)), text(format!("list {number}"))];
        let list = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) };
        let span = &mut trace.resource_spans[0].scope_spans[0].spans[0];
        let own = [("own", text(format!("own {number}"))), ("list", list)];
        span.attributes.extend(own.map(|(key, value)| KeyValue {
            key: key.to_owned(),
            value: Some(value),
            ..KeyValue::default()
        }));
        let id = u128::try_from(number).unwrap().to_be_bytes();
        writer.add_trace(id, &[trace.encode_to_vec().into()]).unwrap();
    }
    opened(writer.finish().unwrap(), Vec::new())
}

/// Compares every entry; answers how many are listed and how many are not.
fn check(block: &OpenBlock) -> (usize, usize) {
    let leaf = block.schema().columns().span.attrs.value;
    let mut counts = (0, 0);
    for group in 0..block.row_groups() {
        let mut reader = ChunkReader::new(block, group, leaf, None).unwrap();
        let entries = reader.dictionary().unwrap().unwrap().len();
        let mut due: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
        while let Some(page) = reader.next_page().unwrap() {
            let Values::Ids(ids) = &page.values else { panic!("the column has a dictionary") };
            for row in 0..page.rows() {
                for at in page.span_of(row..row + 1, reader.shape().max_def).values {
                    let number = page.first_row + u32::try_from(row).unwrap();
                    due.entry(to_usize(ids.id(at).unwrap())).or_default().insert(number);
                }
            }
        }
        let row_group = block.row_group(group).unwrap();
        let (offset, len) = row_group.chunks[leaf].rare.expect("rare values are listed");
        let bytes = block.data().read(offset..offset + u64::from(len)).unwrap();
        let list = RareRows::new(&bytes, entries, row_group.rows).unwrap();
        for (entry, due) in due {
            let found: Option<BTreeSet<u32>> =
                list.rows_of(std::iter::once(entry)).unwrap().map(|rows| rows.iter().collect());
            let is_rare = due.len() <= to_usize(MOST_ROWS);
            *(if is_rare { &mut counts.0 } else { &mut counts.1 }) += 1;
            assert_eq!(found, is_rare.then_some(due), "entry {entry} of row group {group}");
        }
    }
    counts
}

#[test]
fn every_rare_value_of_a_block_is_listed_with_its_rows_however_the_block_came_to_be() {
    let (rare, common) = check(&block(None));
    assert!(rare > 400 && common > 2, "{rare} rare, {common} common");
    let inputs = [block(Some(0)), block(Some(1))];
    let mut before = Vec::new();
    let mut data = |part| before.push(part);
    let compact_spec = CompactSpec { block: spec(), drop: &|_| false, data: &mut data, go_on: &|| true };
    let merged = compact(&[&inputs[0], &inputs[1]], compact_spec).unwrap();
    let merged = opened(merged, before);
    assert_eq!(merged.rows(), 3 * tests::open_v5().rows());
    let (rare, common) = check(&merged);
    assert!(rare > 400 && common > 2, "{rare} rare, {common} common");
}

/// Spans found and pages of the lists that were read for it.
fn search(block: &Arc<OpenBlock>, key: &str, pattern: &str) -> (usize, u64) {
    let field = Field::attribute(Scope::Span, key);
    let condition = Condition { field, test: Test::Match(Arc::new(Pattern::new(pattern).unwrap())) };
    let spec = FetchSpec { spans: Predicate::Is(condition), ..FetchSpec::of(vec![Intrinsic::SpanId.into()]) };
    let source = BlockSource::new(Arc::clone(block));
    let mut cursor = source.fetch(&spec).unwrap();
    let mut spans = 0;
    while let Some(batch) = cursor.next().unwrap() {
        spans += batch.len();
    }
    let costs = cursor.costs();
    let lists = costs.iter().filter(|(path, _)| path.starts_with("rs.ss.Spans.Attrs."));
    (spans, lists.map(|(_, cost)| cost.pages).sum())
}

#[test]
fn a_search_for_a_rare_value_reads_the_pages_of_its_rows_alone() {
    let block = Arc::new(block(None));
    let groups = u64::try_from(block.row_groups()).unwrap();
    let rows = usize::try_from(block.rows()).unwrap();
    assert!(rows > 100, "{rows}");
    // One page of values and one of keys.
    for number in [0, 7, 50, rows - 1] {
        let (spans, pages) = search(&block, "own", &format!(".*own {number}"));
        assert_eq!(spans, 1, "own {number}");
        assert!(pages <= 2, "{pages} pages for own {number}");
        assert_eq!(
            search(&block, "list", &format!(".*list {number}")).0,
            if number < 7 { rows.div_ceil(7).max(1) } else { 1 }
        );
    }
    // What has another key is none of it.
    assert_eq!(search(&block, "list", ".*own 7").0, 0);
    // What most rows have is looked for in all of them.
    let (spans, pages) = search(&block, "own", ".*own.*");
    assert!(spans == rows && pages > 4 * groups, "{spans} spans, {pages} pages");
}

#[test]
fn who_wants_the_newest_looks_at_hardly_more_rows_than_are_shown() {
    let block = Arc::new(block(None));
    let queries = [
        r#"{ span.own =~ ".*own .*7" }"#,
        r#"{ span.own =~ ".*own .*7" && duration > 1ms }"#,
        r#"{ span.own =~ ".*own .*7" } >> { status = error }"#,
        r#"{ span.own =~ ".*own .*7" || status = error }"#,
        r#"{ span.list = "list 3" } | count() > 0"#,
        r#"{ span.own = "list 3" }"#,
    ];
    for query in queries {
        for limit in [1, 3, 40] {
            let job = SearchJob {
                query: query.to_owned(),
                limit,
                spans_per_span_set: 3,
                explain: true,
                ..SearchJob::default()
            };
            let due = query::search(&BlockSource::new(Arc::clone(&block)), &job).unwrap().traces;
            let batch = query::search_block(&block, &Share::whole(), &job).unwrap();
            assert_eq!(batch.traces, due, "{query}, limit {limit}");
            if query == queries[0] && limit == 3 {
                assert_eq!(due.len(), 3);
                let columns = batch.profile.unwrap().columns;
                let values = columns.iter().find(|column| column.path == "rs.ss.Spans.Attrs.Value").unwrap();
                assert!(values.pages < 38 / 2, "{} pages, where 38 traces match", values.pages);
            }
        }
    }
}

#[test]
fn places_that_cannot_be_are_refused() {
    let whole = block(None);
    let data = whole.data().read(0..whole.data().len()).unwrap();
    let at = data.windows(KEY.len()).rposition(|window| window == KEY.as_bytes()).expect("the name is in the footer");
    let open = |change: &dyn Fn(&mut [u8])| {
        let mut data = data.to_vec();
        change(&mut data[at..]);
        OpenBlock::open(whole.meta().clone(), Arc::new(MemoryBlock::new(data.into(), Vec::new())))
    };
    assert!(open(&|_| {}).is_ok());
    // Other names are nobody's business.
    let other = open(&|footer| footer[0] = b'x').unwrap();
    assert!(other.row_group(0).unwrap().chunks.iter().all(|chunk| chunk.rare.is_none()));
    // "0 leaf offset length" follows, behind its kind and length.
    let line = KEY.len() + data[at + KEY.len()..].iter().position(|byte| *byte == b' ').unwrap() - 1;
    assert_eq!(data[at + line], b'0');
    for byte in [b'9', b'x', 0xff] {
        let error = open(&|footer| footer[line] = byte).unwrap_err();
        assert!(error.to_string().contains("a list of rare values lies nowhere"), "{error}");
    }
}

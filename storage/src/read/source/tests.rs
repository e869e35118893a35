//! Blocks as a source, against the reference source over the same traces put together again.

use bytes::Bytes;
use vivace_protocol::TraceId;
use vivace_traceql::{Intrinsic, Predicate, TimeRange};

use super::*;
use crate::{
    live::tests::{all_fields, assert_same, memory, predicates, table},
    read::{rows, tests},
};

fn traces(block: &OpenBlock) -> Vec<(TraceId, Bytes)> {
    rows(block).map(Result::unwrap).collect()
}

/// The same traces in several row groups of many pages, so that pages are passed over.
fn small_pages() -> OpenBlock {
    let whole = tests::open_v5();
    let mut spec = crate::BlockSpec::new("t", uuid::Uuid::from_u128(3), whole.meta().dedicated_columns.clone());
    (spec.row_group_bytes, spec.page_bytes) = (150_000, 700);
    let mut writer = crate::BlockWriter::new(spec).unwrap();
    for (id, trace) in traces(&whole) {
        writer.add_trace(id.0, &[trace]).unwrap();
    }
    let finished = writer.finish().unwrap();
    let data: Vec<u8> = finished.data.into_iter().flatten().collect();
    let block = OpenBlock::open(finished.meta, Arc::new(crate::MemoryBlock::new(data.into(), Vec::new()))).unwrap();
    assert!(block.row_groups() > 2);
    block
}

/// Blocks as they are, and some that keep what they have taken apart, also attributes as columns of their own.
fn both() -> Vec<(BlockSource, Vec<(TraceId, Bytes)>)> {
    let kept = [tests::open_v4(), small_pages()].map(|block| block.keeping(&Decoded::new(64 << 20)));
    [tests::open_v5(), tests::open_v4(), small_pages()]
        .into_iter()
        .chain(kept)
        .map(|block| {
            let traces = traces(&block);
            (BlockSource::new(Arc::new(block)), traces)
        })
        .collect()
}

fn everything(fields: Vec<Field>) -> FetchSpec {
    FetchSpec { trace_fields: TraceFields::ALL, structure: true, ..FetchSpec::of(fields) }
}

/// vParquet4 does not store how many children a span has.
fn stored_in(source: &BlockSource, mut fields: Vec<Field>) -> Vec<Field> {
    let known = source.block().schema().columns().span.child_count.is_some();
    fields.retain(|field| known || *field != Intrinsic::ChildCount.into());
    fields
}

#[test]
fn all_fields_and_facts_are_those_of_the_reference() {
    for (source, traces) in both() {
        let spec = everything(stored_in(&source, all_fields(&traces)));
        assert_same(&table(&source, &spec, None), &table(&memory(&traces), &spec, None));
    }
}

#[test]
fn each_field_alone_is_that_of_the_reference() {
    for (source, traces) in both() {
        for field in stored_in(&source, all_fields(&traces)) {
            let spec = FetchSpec::of(vec![field]);
            let due = table(&memory(&traces), &spec, None);
            // From pages, while a column is made of it, and out of that.
            for _ in 0..if source.block().decoded().is_some() { 3 } else { 1 } {
                assert_same(&table(&source, &spec, None), &due);
            }
        }
    }
}

#[test]
fn a_second_pass_delivers_the_same_as_a_first() {
    for (source, traces) in both() {
        let fields = stored_in(&source, all_fields(&traces));
        let load = LoadSpec { fields, trace_fields: TraceFields::ALL };
        let spec = FetchSpec::of(vec![Intrinsic::Name.into()]);
        assert_same(&table(&source, &spec, Some(&load)), &table(&memory(&traces), &spec, Some(&load)));
    }
}

#[test]
fn no_span_that_meets_a_condition_is_lost() {
    for (source, traces) in both() {
        let fields = stored_in(&source, all_fields(&traces));
        let all = predicates(&fields, &traces);
        let reference = memory(&traces);
        // Conditions alone, and each with a neighbour in both ways.
        let pairs = all
            .windows(2)
            .flat_map(|pair| [Predicate::all(pair.iter().cloned()), Predicate::any_of(pair.iter().cloned())]);
        let (mut kept, mut due_spans) = (0, 0);
        for predicate in all.iter().step_by(2).cloned().chain(pairs) {
            let spec = FetchSpec { spans: predicate.clone(), ..FetchSpec::of(vec![Intrinsic::SpanId.into()]) };
            let (found, due) = (table(&source, &spec, None), table(&reference, &spec, None));
            for (head, spans) in &due.0 {
                let found = found.0.get(head).unwrap_or_else(|| panic!("{head} is lost by {predicate:?}"));
                for span in spans {
                    assert!(found.contains(span), "{span} is lost by {predicate:?}");
                }
            }
            kept += found.0.values().map(Vec::len).sum::<usize>();
            due_spans += due.0.values().map(Vec::len).sum::<usize>();
        }
        // Conditions are of use: hardly more comes than is due.
        assert!(kept < due_spans + due_spans / 5, "{kept} spans for {due_spans}");
    }
}

#[test]
fn an_attribute_that_is_asked_for_again_is_taken_out_of_the_lists_once() {
    let source = BlockSource::new(Arc::new(small_pages().keeping(&Decoded::new(64 << 20))));
    let field = Field::attribute(vivace_traceql::Scope::Span, "app.user.id");
    let asked = |pattern: &str| {
        let pattern = Arc::new(vivace_traceql::Pattern::new(pattern).unwrap());
        let condition = vivace_traceql::Condition { field: field.clone(), test: vivace_traceql::Test::Match(pattern) };
        let spec = FetchSpec { spans: Predicate::Is(condition), ..FetchSpec::of(vec![field.clone()]) };
        let mut cursor = source.fetch(&spec).unwrap();
        let mut spans = 0;
        while let Some(batch) = cursor.next().unwrap() {
            spans += batch.len();
        }
        let costs = cursor.costs();
        let lists = costs.iter().filter(|(path, _)| path.contains(".Spans.Attrs."));
        (spans, lists.map(|(_, cost)| cost.bytes + cost.at_hand + cost.pages).sum::<u64>())
    };
    let first = asked(".*1.*");
    assert!(first.0 > 0 && first.1 > 0, "{first:?}");
    assert!(asked(".*1.*").1 > 0, "the lists are read for the last time");
    assert_eq!(asked(".*1.*"), (first.0, 0));
}

#[test]
fn demands_on_the_trace_keep_traces_that_meet_each() {
    for (source, traces) in both() {
        let fields = [Intrinsic::Name.into(), Intrinsic::Kind.into()];
        let demands = predicates(&fields, &traces);
        for pair in demands.windows(2) {
            let spec = FetchSpec { traces: pair.to_vec(), ..FetchSpec::of(Vec::new()) };
            let found = table(&source, &spec, None);
            let meets = |demand: &Predicate| {
                let spec = FetchSpec { spans: demand.clone(), ..FetchSpec::of(Vec::new()) };
                table(&memory(&traces), &spec, None).0.into_keys().collect::<std::collections::BTreeSet<_>>()
            };
            let due: Vec<String> = meets(&pair[0]).intersection(&meets(&pair[1])).cloned().collect();
            assert_eq!(found.0.into_keys().collect::<Vec<_>>(), due, "{pair:?}");
        }
    }
}

#[test]
fn the_window_keeps_traces_that_overlap_it() {
    for (source, traces) in both() {
        let bounds: Vec<(u64, u64)> = memory(&traces).traces().iter().map(|trace| trace.bounds()).collect();
        let middle = bounds.iter().map(|(start, _)| *start / bounds.len() as u64).sum::<u64>();
        for window in [(0, middle), (middle, u64::MAX), (middle, middle + 1), (0, 1)] {
            let window = TimeRange { start_ns: window.0, end_ns: window.1 };
            let spec = FetchSpec { window: Some(window), ..FetchSpec::of(vec![Intrinsic::SpanId.into()]) };
            assert_same(&table(&source, &spec, None), &table(&memory(&traces), &spec, None));
        }
    }
}

#[test]
fn select_all_delivers_what_live_traces_do() {
    for (source, traces) in both() {
        let spec = FetchSpec { select_all: true, ..everything(vec![Intrinsic::Name.into()]) };
        let load = LoadSpec { fields: vec![Intrinsic::Status.into()], trace_fields: TraceFields::ALL };
        assert_same(&table(&source, &spec, Some(&load)), &table(&memory(&traces), &spec, Some(&load)));
        let batch = source.fetch(&spec).unwrap().next().unwrap().unwrap();
        assert!(batch.everything.len() > 20);
    }
}

#[test]
fn a_condition_that_no_dictionary_entry_meets_reads_no_page_of_values() {
    let block = Arc::new(tests::open_v5());
    let source = BlockSource::new(block);
    let condition = vivace_traceql::Condition {
        field: Field::attribute(vivace_traceql::Scope::Span, "url.path"),
        test: vivace_traceql::Test::Compare(vivace_traceql::CompareOp::Eq, vivace_traceql::Value::str("/nowhere")),
    };
    let spec = FetchSpec { spans: Predicate::Is(condition), ..FetchSpec::of(vec![Intrinsic::Name.into()]) };
    let mut cursor = source.fetch(&spec).unwrap();
    assert!(cursor.next().unwrap().is_none());
    assert_eq!(cursor.costs().iter().map(|(_, cost)| cost.pages).sum::<u64>(), 0);
}

/// What Tempo found in the vParquet5 block: by query, trace ids with the number of matching spans.
fn answers() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(tests::fixture("answers.json")).unwrap()).unwrap()
}

#[test]
fn conditions_find_what_tempo_found() {
    use vivace_traceql::{CompareOp, Condition, Scope, Status, Test, Value};
    let is =
        |field: Field, op: CompareOp, value: Value| Predicate::Is(Condition { field, test: Test::Compare(op, value) });
    let exists = |field: Field| Predicate::Is(Condition { field, test: Test::Exists });
    let span = |name: &str| Field::attribute(Scope::Span, name);
    let queries = [
        (
            r#"{ span.http.response.status_code >= 500 }"#,
            is(span("http.response.status_code"), CompareOp::GreaterEq, Value::Int(500)),
        ),
        ("{ status = error }", is(Intrinsic::Status.into(), CompareOp::Eq, Value::Status(Status::Error))),
        (r#"{ name = "redis HGET" }"#, is(Intrinsic::Name.into(), CompareOp::Eq, Value::str("redis HGET"))),
        ("{ span.app.cart.value > 99.5 }", is(span("app.cart.value"), CompareOp::Greater, Value::Float(99.5))),
        (r#"{ event:name = "exception" }"#, is(Intrinsic::EventName.into(), CompareOp::Eq, Value::str("exception"))),
        (
            r#"{ event.exception.type = "TimeoutError" }"#,
            is(Field::attribute(Scope::Event, "exception.type"), CompareOp::Eq, Value::str("TimeoutError")),
        ),
        ("{ link:spanID != nil }", exists(Intrinsic::LinkSpanId.into())),
        ("{ span.missing != nil }", exists(span("missing"))),
        (
            r#"{ span:duration > 5ms && trace:rootService = "checkout" }"#,
            Predicate::all([
                is(Intrinsic::Duration.into(), CompareOp::Greater, Value::Duration(5_000_000)),
                is(Intrinsic::RootServiceName.into(), CompareOp::Eq, Value::str("checkout")),
            ]),
        ),
        (
            r#"{ .service.name = "cart" && duration > 10ms }"#,
            Predicate::all([
                is(Field::attribute(Scope::Any, "service.name"), CompareOp::Eq, Value::str("cart")),
                is(Intrinsic::Duration.into(), CompareOp::Greater, Value::Duration(10_000_000)),
            ]),
        ),
    ];
    let answers = answers();
    for block in [tests::open_v5(), tests::open_v4(), small_pages()] {
        let source = BlockSource::new(Arc::new(block));
        for (query, predicate) in &queries {
            let spec = FetchSpec { spans: predicate.clone(), ..FetchSpec::of(Vec::new()) };
            let mut cursor = source.fetch(&spec).unwrap();
            let mut found = serde_json::Map::new();
            while let Some(batch) = cursor.next().unwrap() {
                for trace in batch.traces {
                    found.insert(TraceId(trace.id).short_hex(), trace.spans.len().into());
                }
            }
            assert_eq!(Some(&serde_json::Value::Object(found)), answers["searches"].get(query), "{query}");
        }
    }
}

//! Traces cut into rows of several blocks, against the reference source over the same spans in one piece.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;
use vivace_protocol::{TraceId, otlp::trace::TracesData};
use vivace_traceql::{CompareOp, Condition, Test, TraceFields, Value};

use super::*;
use crate::{
    BlockSpec, BlockWriter, DedicatedColumns, MemoryBlock,
    live::tests::{all_fields, assert_same, memory, predicates, stored, table},
    read::{locate_trace, read_trace},
};

const ID: TraceId = TraceId([0x80; 16]);

/// The spans of some traces as one trace in so many parts, whatever part each span comes to.
fn parts(traces: &[(TraceId, Bytes)], count: usize, mut turns: u64) -> Vec<Bytes> {
    let mut parts = vec![TracesData::default(); count];
    for batch in traces.iter().flat_map(|(_, trace)| TracesData::decode(trace.clone()).unwrap().resource_spans) {
        for part in &mut parts {
            let mut own = batch.clone();
            own.scope_spans.iter_mut().for_each(|scope| scope.spans.clear());
            part.resource_spans.push(own);
        }
        for (scope, scoped) in batch.scope_spans.iter().enumerate() {
            for span in &scoped.spans {
                turns = turns.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let part = usize::try_from(turns >> 33).unwrap() % count;
                parts[part].resource_spans.last_mut().unwrap().scope_spans[scope].spans.push(span.clone());
            }
        }
    }
    parts.iter().map(|part| part.encode_to_vec().into()).collect()
}

/// A block with a part between other traces, in small pages.
fn block(part: &Bytes, others: &[(TraceId, Bytes)]) -> Arc<OpenBlock> {
    let mut spec = BlockSpec::new("t", uuid::Uuid::from_u128(3), DedicatedColumns::defaults());
    (spec.row_group_bytes, spec.page_bytes) = (40_000, 700);
    let mut writer = BlockWriter::new(spec).unwrap();
    let mut rows = others.to_vec();
    rows.push((ID, part.clone()));
    rows.sort_by_key(|(id, _)| *id);
    rows.iter().for_each(|(id, trace)| drop(writer.add_trace(id.0, std::slice::from_ref(trace)).unwrap()));
    let finished = writer.finish().unwrap();
    let data: Vec<u8> = finished.data.into_iter().flatten().collect();
    let blooms = finished.blooms.into_iter().enumerate().map(|(shard, bloom)| (format!("bloom-{shard}"), bloom));
    Arc::new(OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), blooms.collect()))).unwrap())
}

/// A trace in rows of so many blocks, and in one piece.
fn cut(count: usize, turns: u64) -> (JoinedTrace, Vec<(TraceId, Bytes)>) {
    let traces = stored();
    let blocks = parts(&traces[..20], count, turns).iter().map(|part| block(part, &traces[20..40])).collect::<Vec<_>>();
    let (mut rows, mut whole) = (Vec::new(), BytesMut::new());
    for block in blocks {
        let Some(row) = locate_trace(&block, ID).unwrap() else { continue };
        whole.extend_from_slice(&read_trace(&block, row).unwrap());
        rows.push((block, row));
    }
    (JoinedTrace::new(rows), vec![(ID, whole.freeze())])
}

fn everything(fields: Vec<Field>) -> FetchSpec {
    FetchSpec { trace_fields: TraceFields::ALL, structure: true, ..FetchSpec::of(fields) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn all_fields_and_facts_are_those_of_the_trace_in_one_piece(count in 1usize..6, turns in any::<u64>()) {
        let (joined, whole) = cut(count, turns);
        let fields = all_fields(&whole);
        let spec = everything(fields.clone());
        assert_same(&table(&joined, &spec, None), &table(&memory(&whole), &spec, None));
        let load = LoadSpec { fields, trace_fields: TraceFields::ALL };
        let spec = FetchSpec::of(vec![Intrinsic::Name.into()]);
        assert_same(&table(&joined, &spec, Some(&load)), &table(&memory(&whole), &spec, Some(&load)));
    }

    #[test]
    fn no_span_that_meets_a_condition_is_lost(count in 2usize..5, turns in any::<u64>(), from in 0usize..40) {
        let (joined, whole) = cut(count, turns);
        let reference = memory(&whole);
        let trace_wide = [
            (Intrinsic::TraceDuration, CompareOp::Greater, Value::Duration(0)),
            (Intrinsic::RootName, CompareOp::NotEq, Value::str("nobody")),
            (Intrinsic::ChildCount, CompareOp::GreaterEq, Value::Int(1)),
        ];
        let trace_wide = trace_wide.map(|(field, op, value)| {
            Predicate::Is(Condition { field: field.into(), test: Test::Compare(op, value) })
        });
        let all = predicates(&all_fields(&whole), &whole);
        for predicate in all.iter().skip(from).step_by(40).chain(&trace_wide) {
            for spans in [predicate.clone(), Predicate::all([predicate.clone(), trace_wide[2].clone()])] {
                // What comes beside is structure, which is that of the whole trace however few spans come.
                let spec = FetchSpec { spans, ..everything(vec![Intrinsic::SpanId.into(), Intrinsic::ChildCount.into()]) };
                let (found, due) = (table(&joined, &spec, None), table(&reference, &spec, None));
                for (head, spans) in &due.0 {
                    let found = found.0.get(head).unwrap_or_else(|| panic!("{head} is lost by {predicate:?}"));
                    spans.iter().for_each(|span| assert!(found.contains(span), "{span} is lost by {predicate:?}"));
                }
            }
        }
    }
}

#[test]
fn spans_that_cannot_meet_a_condition_do_not_come() {
    let (joined, _) = cut(3, 7);
    let count = |field: Field, test| {
        let spans = Predicate::Is(Condition { field, test });
        let spec = FetchSpec { spans, ..FetchSpec::of(Vec::new()) };
        table(&joined, &spec, None).0.values().map(Vec::len).sum::<usize>()
    };
    let all = count(Intrinsic::RootName.into(), Test::Compare(CompareOp::Eq, Value::str("no root has this name")));
    assert!(all > 20, "a row does not know the root: {all}");
    assert_eq!(count(Intrinsic::Name.into(), Test::Compare(CompareOp::Eq, Value::str("no span has this name"))), 0);
}

#[test]
fn a_trace_beyond_what_may_be_joined_comes_in_several_pieces() {
    let (joined, whole) = cut(5, 3);
    let spans = memory(&whole).traces()[0].spans.len();
    let mut cursor = joined.fetch(&everything(vec![Intrinsic::SpanId.into()])).unwrap();
    cursor.most_spans = spans as u64 / 2;
    let (mut seen, mut batches) = (0, 0);
    while let Some(batch) = cursor.next().unwrap() {
        assert_eq!(batch.traces.len(), 1);
        assert!(batch.len() as u64 <= spans as u64 / 2);
        let load = LoadSpec { fields: vec![Intrinsic::SpanId.into()], trace_fields: TraceFields::ALL };
        let loaded = cursor.load(&[0], &batch.handles, &load).unwrap();
        let field = Intrinsic::SpanId.into();
        for row in 0..batch.len() {
            assert_eq!(loaded.columns[0].value(row, &field), batch.columns[0].value(row, &field));
        }
        (seen, batches) = (seen + batch.len(), batches + 1);
    }
    assert!(batches > 1 && seen == spans, "{seen} of {spans} spans in {batches} batches");
    assert_eq!(cursor.stats().spans, spans as u64);
}

#[test]
fn what_takes_too_much_memory_is_an_error_that_says_so() {
    let (joined, whole) = cut(3, 11);
    let fields = all_fields(&whole);
    let mut cursor = joined.fetch(&FetchSpec::of(fields.clone())).unwrap();
    cursor.most_bytes = 4000;
    let error = format!("{:?}", cursor.next().unwrap_err());
    assert!(error.contains("takes more than 0 MiB; ask for fewer attributes"), "{error}");
    let mut cursor = joined.fetch(&FetchSpec::of(fields)).unwrap();
    cursor.most_bytes = 1 << 20;
    assert!(cursor.next().unwrap().is_some());
}

#[test]
fn a_trace_without_rows_is_none_and_everything_at_once_is_refused() {
    let none = JoinedTrace::new([]);
    assert!(none.is_empty());
    assert!(none.fetch(&FetchSpec::of(Vec::new())).unwrap().next().unwrap().is_none());
    let error = none.fetch(&FetchSpec { select_all: true, ..FetchSpec::of(Vec::new()) }).err().unwrap();
    assert!(format!("{error:?}").contains("several blocks"), "{error:?}");
}

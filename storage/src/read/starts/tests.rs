use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;
use vivace_protocol::{
    TraceId,
    otlp::{
        common::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
        resource::Resource,
        trace::{
            ResourceSpans, ScopeSpans, Span, TracesData,
            span::{Event, Link},
        },
    },
    trace_walk::{SpanHead, for_each_span},
    wire::WireError,
};

use super::{
    super::{
        locate_trace, read_trace_in_pieces,
        record::RecordReader,
        rows,
        rows::RowSet,
        tests::{open_v4, open_v5, spans},
    },
    *,
};
use crate::{BlockSpec, BlockWriter, DedicatedColumns, MemoryBlock};

const ID: TraceId = TraceId([7; 16]);

fn starts(pieces: &[Bytes]) -> Vec<u64> {
    let mut starts = Vec::new();
    for piece in pieces {
        let seen = for_each_span(piece, |span| {
            starts.push(SpanHead::read(span.span)?.start_unix_nano);
            Ok::<_, WireError>(())
        });
        seen.unwrap();
    }
    starts.sort_unstable();
    starts
}

#[test]
fn the_first_spans_from_a_time_on_are_told_and_read_alone() {
    for block in [open_v5(), open_v4()] {
        for row in rows(&block).step_by(16) {
            let (id, trace) = row.unwrap();
            let at = locate_trace(&block, id).unwrap().unwrap();
            let all = starts(&[trace]);
            for from in [0, all[0], all[all.len() / 2], all[all.len() - 1] + 1] {
                for count in [1, 2, all.len() + 1] {
                    let page = PageStarts::new(from, count);
                    let first = page.first_of(&block, at).unwrap();
                    let later: Vec<u64> = all.iter().copied().filter(|start| *start > from).collect();
                    let last = later.get(count - 1).copied().unwrap_or(u64::MAX);
                    let due: Vec<u64> = all.iter().copied().filter(|start| (from..=last).contains(start)).collect();
                    assert_eq!((page.starts(), first), (from..=last, due.first().copied()));
                    let read = read_trace_in_pieces(&block, at, 1, page.starts()).unwrap();
                    assert_eq!(starts(&read), due);
                }
            }
        }
    }
}

fn text(key: &str, values: Vec<any_value::Value>) -> KeyValue {
    let values: Vec<_> = values.into_iter().map(|value| AnyValue { value: Some(value) }).collect();
    let value = match &values[..] {
        [one] => one.clone(),
        _ => AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values })) },
    };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// Span number `n`, of which several start at the same time and others have more or fewer of everything.
fn span(n: u64) -> Span {
    let attribute = |at: u64| {
        let string = any_value::Value::StringValue(format!("{n}-{at}"));
        let numbers = (0..at).map(|number| any_value::Value::IntValue(number.cast_signed())).collect();
        text(&format!("key {at}"), if at < 2 { vec![string] } else { numbers })
    };
    let attributes = |count| (0..count).map(attribute).collect();
    let event =
        |at| Event { time_unix_nano: n + at, name: "e".repeat(3), attributes: attributes(at), ..Event::default() };
    let link = |at| Link { trace_id: vec![9; 16], span_id: vec![8; 8], attributes: attributes(at), ..Link::default() };
    let start = n * 7919 % 601 / 3;
    Span {
        trace_id: ID.as_bytes().to_vec(),
        span_id: (n + 1).to_be_bytes().to_vec(),
        name: format!("span {n}"),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + n,
        attributes: attributes(n % 5),
        events: (0..n % 3).map(event).collect(),
        links: (0..n % 4).map(link).collect(),
        ..Span::default()
    }
}

/// A block with one row of so many spans, in several resources and scopes, between two small rows.
fn block(count: u64) -> OpenBlock {
    let scope = |spans: &[Span], name: usize| ScopeSpans {
        scope: Some(InstrumentationScope { name: format!("scope {name}"), ..InstrumentationScope::default() }),
        spans: spans.to_vec(),
        ..ScopeSpans::default()
    };
    let resource = |spans: &[Span], name: usize| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", vec![any_value::Value::StringValue(name.to_string())])],
            ..Resource::default()
        }),
        scope_spans: spans.chunks(40).enumerate().map(|(at, spans)| scope(spans, at)).collect(),
        ..ResourceSpans::default()
    };
    let all: Vec<Span> = (0..count).map(span).collect();
    let batches = all.chunks(100).enumerate().map(|(at, spans)| resource(spans, at)).collect();
    let large = Bytes::from(TracesData { resource_spans: batches }.encode_to_vec());
    let small = Bytes::from(TracesData { resource_spans: vec![resource(&all[..2], 9)] }.encode_to_vec());
    let mut writer = BlockWriter::new(BlockSpec::new("t", Uuid::nil(), DedicatedColumns::defaults())).unwrap();
    for (id, part) in [([1; 16], &small), (ID.0, &large), ([9; 16], &small)] {
        writer.add_trace(id, std::slice::from_ref(part)).unwrap();
    }
    let finished = writer.finish().unwrap();
    let blooms = finished.blooms.into_iter().enumerate().map(|(n, bloom)| (format!("bloom-{n}"), bloom)).collect();
    OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(finished.data.concat().into(), blooms))).unwrap()
}

/// All there is to know of the spans that start at such times.
fn told(pieces: &[Bytes], starts: &RangeInclusive<u64>) -> BTreeSet<String> {
    let mut batches: Vec<ResourceSpans> =
        pieces.iter().flat_map(|piece| TracesData::decode(piece.clone()).unwrap().resource_spans).collect();
    for scope in batches.iter_mut().flat_map(|batch| &mut batch.scope_spans) {
        scope.spans.retain(|span| starts.contains(&span.start_time_unix_nano));
    }
    spans(&batches).into_values().flatten().collect()
}

#[test]
fn pages_of_a_row_are_its_spans_and_no_other_span_is_put_together_for_a_page() {
    let (block, total) = (block(600), 600);
    let row = locate_trace(&block, ID).unwrap().unwrap();
    let whole = read_trace_in_pieces(&block, row, usize::MAX, ANY_START).unwrap();
    assert_eq!(told(&whole, &ANY_START).len(), total);
    for (count, most) in [(50, usize::MAX), (7, usize::MAX), (7, 1), (50, 3000)] {
        let (mut from, mut pages, mut looked_at, mut seen) = (0, 0, 0, BTreeSet::new());
        loop {
            let page = PageStarts::new(from, count);
            let first = page.first_of(&block, row).unwrap().unwrap();
            assert!(first >= from);
            let mut records =
                RecordReader::new(&block, row.group, Some(&RowSet::one(row.row))).unwrap().starting_in(page.starts());
            records.seek(row.row).unwrap();
            let (_, pieces) = records.next_row_in_pieces(most).unwrap().unwrap();
            let due = told(&whole, &page.starts());
            assert_eq!(told(&pieces, &ANY_START), due);
            assert_eq!(records.spans_read(), due.len() as u64);
            // Of what has no span of the page not even the resource is told.
            let batches = pieces.iter().flat_map(|piece| TracesData::decode(piece.clone()).unwrap().resource_spans);
            assert!(
                most != usize::MAX
                    || batches.into_iter().all(|batch| batch.scope_spans.iter().any(|s| !s.spans.is_empty()))
            );
            looked_at += records.spans_read();
            pages += 1;
            seen.extend(due);
            from = *page.starts().end();
            if from == u64::MAX {
                break;
            }
        }
        assert_eq!(seen.len(), total);
        // A page begins with the spans that start when the page before ends: three at most.
        assert!(looked_at <= total as u64 + 3 * pages, "{looked_at} of {pages} pages");
    }
}

#[test]
fn rows_fill_a_page_together() {
    let (one, other) = (block(600), block(600));
    let row = locate_trace(&one, ID).unwrap().unwrap();
    let page = PageStarts::new(0, 30);
    assert_eq!(page.first_of(&one, row).unwrap(), Some(0));
    let end = *page.starts().end();
    assert!((9..=11).contains(&end), "{end}");
    // The same spans again are no more.
    assert_eq!((page.first_of(&other, row).unwrap(), page.starts()), (Some(0), 0..=end));
    // Half of them are already there with others, in another part.
    let page = PageStarts::new(0, 1000);
    page.first_of(&one, row).unwrap();
    assert_eq!(page.starts(), 0..=u64::MAX);
    page.holds(&(1000..2000).collect::<Vec<_>>());
    assert!((1400..1410).contains(page.starts().end()), "{:?}", page.starts());
}

proptest! {
    #[test]
    fn copies_of_a_span_count_once(
        spans in prop::collection::vec((0_u64..8, 0_u8..4, 0_i64..2), 0..60),
        count in 1_usize..30,
    ) {
        let later = spans.iter().enumerate().map(|(nth, (start, ..))| (*start, nth)).collect();
        let known = || Ok(spans.iter().map(|(_, id, kind)| (Box::from([*id]), *kind)).collect());
        let apart: BTreeSet<_> = spans.iter().collect();
        let due: Vec<u64> = apart.into_iter().take(count).map(|(start, ..)| *start).collect();
        prop_assert_eq!(first_starts(later, count, known).unwrap(), due);
    }

    #[test]
    fn a_page_ends_behind_its_last_span_and_not_behind_what_fills_it(
        parts in prop::collection::vec(prop::collection::btree_set((1_u64..60, 0_u8..3), 0..20), 0..6),
        count in 1_usize..25,
    ) {
        let page = PageStarts::new(0, count);
        let nth = |spans: &BTreeSet<(u64, u8)>| spans.iter().nth(count - 1).map_or(u64::MAX, |(start, _)| *start);
        let mut least = u64::MAX;
        for part in &parts {
            page.holds(&part.iter().take(count).map(|(start, _)| *start).collect::<Vec<_>>());
            least = least.min(nth(part));
        }
        let all: BTreeSet<(u64, u8)> = parts.iter().flatten().copied().collect();
        let end = *page.starts().end();
        prop_assert!((nth(&all)..=least).contains(&end), "{end} of {} to {least}", nth(&all));
        let starts: BTreeSet<u64> = all.iter().map(|(start, _)| *start).collect();
        prop_assert!(starts.len() < all.len() || end == nth(&all));
    }
}

//! Values of the groups against the plain walk over all traces, over messages in every form that the wire allows.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use vivace_protocol::{TraceId, vivace::TagValuesJob, wire::put_varint};

use super::*;
use crate::{Decoded, LivePart, LiveScan, LiveTrace, LiveView, Preparation, query, tags::TagLimits};

/// An attribute: name, value, and whether the value comes first.
type Attribute = (u8, u8, bool);
/// Several of one field, of which the last counts.
type Texts = Vec<u8>;
/// Name, version and attributes of a scope, or of a piece of it.
type ScopePiece = (Texts, Texts, Vec<Attribute>);
type ScopeSpans = (Vec<ScopePiece>, Vec<Span>);
/// Pieces of the resource, and what is in it.
type ResourceSpans = (Vec<Vec<Attribute>>, Vec<ScopeSpans>);

#[derive(Debug, Clone)]
struct Span {
    id: u8,
    start: u8,
    parent: bool,
    names: Texts,
    attributes: Vec<Attribute>,
    statuses: Vec<Texts>,
    events: Vec<(Texts, Vec<Attribute>)>,
    links: Vec<Vec<Attribute>>,
}

fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
    vec((0..3u8, 0..12u8, any::<bool>()), 0..4)
}

fn texts() -> impl Strategy<Value = Texts> {
    vec(0..4u8, 0..3)
}

fn span() -> impl Strategy<Value = Span> {
    let lists = (vec(texts(), 0..3), vec((texts(), attributes()), 0..3), vec(attributes(), 0..2));
    (0..24u8, 0..3u8, any::<bool>(), texts(), attributes(), lists).prop_map(|drawn| {
        let (id, start, parent, names, attributes, (statuses, events, links)) = drawn;
        Span { id, start, parent, names, attributes, statuses, events, links }
    })
}

fn part() -> impl Strategy<Value = Bytes> {
    let scopes = (vec((texts(), texts(), attributes()), 0..3), vec(span(), 0..3));
    vec((vec(attributes(), 0..3), vec(scopes, 0..3)), 0..3).prop_map(|part| {
        let of = |out: &mut Vec<u8>| part.iter().for_each(|spans| put(out, 0x0a, &resource_spans(spans)));
        message(of).into()
    })
}

fn put(out: &mut Vec<u8>, key: u8, message: &[u8]) {
    out.push(key);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

fn message(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

fn put_texts(out: &mut Vec<u8>, key: u8, texts: &[u8]) {
    texts.iter().for_each(|text| put(out, key, [&b""[..], b"t1", b"t2", b"\xff"][usize::from(*text)]));
}

fn put_attributes(out: &mut Vec<u8>, key: u8, attributes: &[Attribute]) {
    for (name, value, value_first) in attributes {
        let name = message(|out| put(out, 0x0a, [&b"a"[..], b"service.name", b"b"][usize::from(*name)]));
        let value = message(|out| put_value(out, *value));
        put(out, key, &if *value_first { [value, name] } else { [name, value] }.concat());
    }
}

/// A value as the field of a `KeyValue`.
fn put_value(out: &mut Vec<u8>, value: u8) {
    let text = |text: &[u8]| message(|out| put(out, 0x0a, text));
    let list = |items: &[&[u8]]| {
        let items = message(|out| items.iter().for_each(|item| put(out, 0x0a, item)));
        message(|out| put(out, 0x2a, &items))
    };
    let value = match value {
        0 => text(b"x"),
        1 => text(b"y"),
        2 => text(b""),
        3 => text(b"\xff"),
        4 => vec![0x18, 1],
        5 => vec![0x21, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f],
        6 => vec![0x10, 1],
        7 => list(&[&text(b"x"), &text(b"z")]),
        8 => list(&[&text(b"x"), &[0x18, 1]]),
        9 => list(&[&[0x18, 7]]),
        10 => vec![0x3a, 1, b'x'],
        _ => return,
    };
    put(out, 0x12, &value);
}

fn span_bytes(span: &Span) -> Vec<u8> {
    message(|out| {
        put(out, 0x12, &u64::from(span.id).to_be_bytes());
        if span.parent {
            put(out, 0x22, &[9; 8]);
        }
        put_attributes(out, 0x4a, &span.attributes);
        put_texts(out, 0x2a, &span.names);
        out.push(0x39);
        out.extend((1000 + u64::from(span.start)).to_le_bytes());
        for (names, attributes) in &span.events {
            let event = message(|out| {
                put_attributes(out, 0x1a, attributes);
                put_texts(out, 0x12, names);
            });
            put(out, 0x5a, &event);
        }
        span.links.iter().for_each(|link| put(out, 0x6a, &message(|out| put_attributes(out, 0x22, link))));
        span.statuses.iter().for_each(|texts| put(out, 0x7a, &message(|out| put_texts(out, 0x12, texts))));
    })
}

/// The scope comes behind its spans, and the resource behind its own.
fn resource_spans((pieces, scopes): &ResourceSpans) -> Vec<u8> {
    message(|out| {
        for (pieces, spans) in scopes {
            let scope_spans = message(|out| {
                spans.iter().for_each(|span| put(out, 0x12, &span_bytes(span)));
                for (names, versions, attributes) in pieces {
                    let piece = message(|out| {
                        put_texts(out, 0x0a, names);
                        put_texts(out, 0x12, versions);
                        put_attributes(out, 0x1a, attributes);
                    });
                    put(out, 0x0a, &piece);
                }
            });
            put(out, 0x12, &scope_spans);
        }
        pieces.iter().for_each(|piece| put(out, 0x0a, &message(|out| put_attributes(out, 0x0a, piece))));
    })
}

/// A trace of one span with this id and these attributes.
fn with(span: u8, attributes: &[(&str, &str)]) -> Bytes {
    let span = message(|out| {
        put(out, 0x12, &[span; 8]);
        for (name, value) in attributes {
            let value = message(|out| put(out, 0x0a, value.as_bytes()));
            let attribute = message(|out| {
                put(out, 0x0a, name.as_bytes());
                put(out, 0x12, &value);
            });
            put(out, 0x4a, &attribute);
        }
    });
    [0x12, 0x12, 0x0a].into_iter().fold(span, |inner, key| message(|out| put(out, key, &inner))).into()
}

fn id(number: usize) -> TraceId {
    TraceId((number as u128 + 1).to_be_bytes())
}

type Traces = Vec<(TraceId, Vec<Bytes>)>;

fn group(traces: Traces) -> Arc<LiveGroup> {
    Arc::new(LiveGroup::new(traces.into_iter().map(|(id, parts)| Arc::new(LiveTrace::new(id, parts))).collect()))
}

/// Of spans whose attribute `kind` has two values and whose attribute `number` has another each, with enough beside them to be
/// noted of.
fn numbered(count: usize) -> Arc<LiveGroup> {
    let padding = "p".repeat(1000);
    let trace = |number: usize| {
        let kind = if number.is_multiple_of(2) { "even" } else { "odd" };
        with(1, &[("padding", padding.as_str()), ("kind", kind), ("number", &number.to_string())])
    };
    group((0..count).map(|number| (id(number), vec![trace(number)])).collect())
}

/// What a source tells of a field.
fn told(source: &impl TagSource, tag: &str) -> BTreeSet<(String, String)> {
    let job = TagValuesJob { tag: tag.to_owned(), ..TagValuesJob::default() };
    let reply = query::tag_values_of(source, &job).unwrap();
    reply.values.into_iter().map(|value| (value.r#type, value.value)).collect()
}

fn share(view: &LiveView) -> LiveShare {
    LiveScan::new(view.clone(), &Arc::default()).share()
}

fn whole(group: &Arc<LiveGroup>) -> LiveView {
    LiveView { parts: vec![LivePart::whole(Arc::clone(group))] }
}

const TAGS: [&str; 14] = [
    "span.a",
    "resource.a",
    "resource.service.name",
    "instrumentation.a",
    "event.a",
    "link.a",
    ".a",
    "name",
    "statusMessage",
    "event:name",
    "instrumentation:name",
    "instrumentation:version",
    "rootName",
    "rootServiceName",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn values_of_groups_are_those_of_a_walk_over_everything_each_time(
        traces in vec((vec(part(), 1..3), any::<bool>(), any::<bool>()), 1..8),
        // Of small groups nothing is noted, and of those in between nothing of fields with many values.
        bytes in proptest::sample::select(vec![0usize, 132_000, 300_000]),
    ) {
        let mut all: Traces = Vec::new();
        let mut groups: [Traces; 2] = Default::default();
        let mut stale: [Vec<TraceId>; 2] = Default::default();
        for (number, (parts, second, moved)) in traces.into_iter().enumerate() {
            let (now, before) = (usize::from(second), usize::from(!second));
            if moved {
                groups[before].push((id(number), parts[..1].to_vec()));
                stale[before].push(id(number));
            }
            all.push((id(number), parts.clone()));
            groups[now].push((id(number), parts));
        }
        for (number, group) in groups.iter_mut().enumerate() {
            let padding = (id(100 + number), vec![with(1, &[("padding", "p".repeat(bytes).as_str())])]);
            all.push(padding.clone());
            group.push(padding);
        }
        let parts = groups.into_iter().zip(stale).map(|(traces, stale)| {
            let group = group(traces);
            let without: Vec<u32> = stale.iter().map(|id| group.position(id).unwrap()).collect();
            LivePart { group, without: without.into() }
        });
        let (view, plain) = (LiveView { parts: parts.collect() }, LiveSource::new(all));
        for tag in TAGS {
            let due = told(&plain, tag);
            for time in 0..3 {
                let apart: BTreeSet<_> =
                    view.clone().split().iter().flat_map(|view| told(&share(view), tag)).collect();
                prop_assert_eq!(&apart, &due, "{}, time {}", tag, time);
                prop_assert_eq!(&told(&share(&view), tag), &due, "{}, time {}, at once", tag, time);
            }
        }
    }
}

fn texts_of(values: &[&str]) -> BTreeSet<(String, String)> {
    values.iter().map(|value| ("string".to_owned(), (*value).to_owned())).collect()
}

#[test]
fn values_of_a_group_are_listed_once_and_stay_known() {
    let group = numbered(300);
    for _ in 0..20 {
        assert_eq!(told(&share(&whole(&group)), "span.kind"), texts_of(&["even", "odd"]));
        assert_eq!(told(&share(&whole(&group)), "span.nobody"), texts_of(&[]));
    }
    // Each list is as much work as a quarter of a walk.
    assert_eq!(group.walks(), 0);
    group.prepare(Preparation::Columns, &Decoded::new(1 << 20));
    assert!(group.is_encoded());
    assert_eq!(told(&share(&whole(&group)), "span.kind"), texts_of(&["even", "odd"]));
}

#[test]
fn many_values_are_listed_each_time() {
    let group = numbered(300);
    let due: BTreeSet<_> = (0..300).map(|number: usize| ("string".to_owned(), number.to_string())).collect();
    for _ in 0..10 {
        assert_eq!(told(&share(&whole(&group)), "span.number"), due);
    }
    assert!(group.walks() >= 2, "{}", group.walks());
    let field = Field::attribute(Scope::Span, "number");
    assert_eq!(group.known().of(&field), Some(Noted::TooMany));
}

#[test]
fn values_of_new_spans_are_told_beside_those_that_are_known() {
    let old = numbered(300);
    assert_eq!(told(&share(&whole(&old)), "span.kind"), texts_of(&["even", "odd"]));
    let grown = vec![old.traces()[7].parts()[0].clone(), with(2, &[("kind", "neither")])];
    let view = LiveView {
        parts: vec![
            LivePart { group: Arc::clone(&old), without: [7].into() },
            LivePart::whole(group(vec![(id(7), grown)])),
        ],
    };
    assert_eq!(told(&share(&view), "span.kind"), texts_of(&["even", "neither", "odd"]));
}

#[test]
fn limits_of_a_request_hold_for_what_is_known() {
    let group = numbered(300);
    for _ in 0..2 {
        let job = |max_values, max_bytes| TagValuesJob {
            tag: "span.kind".to_owned(),
            max_values,
            max_bytes,
            ..TagValuesJob::default()
        };
        let answer = |job| query::tag_values_of(&share(&whole(&group)), &job);
        assert_eq!(answer(job(1, 0)).unwrap().values.len(), 1);
        assert_eq!(answer(job(0, 100)).unwrap_err().code(), tonic::Code::OutOfRange);
        assert_eq!(answer(job(0, 1000)).unwrap().values.len(), 2);
    }
}

#[test]
fn a_list_that_nobody_waits_for_is_not_noted() {
    let (group, field) = (numbered(300), Field::attribute(Scope::Span, "kind"));
    let looks = AtomicU32::new(0);
    let mut some = TagSet::new(TagLimits::default());
    let whole_list = list(&group, &field, &|| looks.fetch_add(1, Ordering::Relaxed) >= 1, &mut some).unwrap();
    assert!(!whole_list && some.into_entries().len() == 1);
    let ended = Arc::new(AtomicBool::new(true));
    let share = LiveScan::new(whole(&group), &ended).share();
    let mut none = TagSet::new(TagLimits::default());
    assert!(share.known_values(&field, &mut none).unwrap() && none.into_entries().is_empty());
    assert_eq!(group.known().of(&field), None);
    ended.store(false, Ordering::Relaxed);
    assert_eq!(told(&share, "span.kind"), texts_of(&["even", "odd"]));
}

#[test]
fn values_of_damaged_traces_are_an_error_each_time() {
    let trace = with(1, &[("kind", "x"), ("padding", &"p".repeat(200_000))]);
    let damaged = group(vec![(id(0), vec![trace.slice(..trace.len() - 1)])]);
    for _ in 0..2 {
        for tag in ["span.kind", "name", "resource.a", "rootName"] {
            let job = TagValuesJob { tag: tag.to_owned(), ..TagValuesJob::default() };
            assert!(query::tag_values_of(&share(&whole(&damaged)), &job).is_err(), "{tag}");
        }
    }
}

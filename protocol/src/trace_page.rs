//! Of the pieces of a trace what is on a page: the spans that start at some time, and of those that start later the first so many.
//!
//! When the first and the last span of a piece start is found out once ([`Extent`]) and kept by whoever keeps the piece. It says of most
//! pieces that they have nothing of a page, so that a page costs about as much as what is on it, and all pages as much as the trace.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes};

use crate::trace_walk::{SpanAt, SpanHead, for_each_span};
use crate::wire::{self, WireError};

/// When the first and the last span of a piece start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    first: u64,
    last: u64,
}

impl Extent {
    /// Walks a piece. Of one that cannot be read, everything is said to be on every page, so that who reads it meets the error.
    #[must_use]
    pub fn of(piece: &[u8]) -> Self {
        // Without spans it is on no page.
        let mut extent = Self { first: u64::MAX, last: 0 };
        let walked = for_each_span(piece, |span| {
            let start = SpanHead::read(span.span)?.start_unix_nano;
            extent = Self { first: extent.first.min(start), last: extent.last.max(start) };
            Ok::<_, WireError>(())
        });
        if walked.is_ok() { extent } else { Self { first: 0, last: u64::MAX } }
    }

    fn overlaps(self, starts: &RangeInclusive<u64>) -> bool {
        self.first <= self.last && self.first <= *starts.end() && self.last >= *starts.start()
    }

    fn is_within(self, starts: &RangeInclusive<u64>) -> bool {
        starts.contains(&self.first) && starts.contains(&self.last)
    }
}

/// Pieces of a trace that somebody reads a page of.
#[derive(Debug)]
pub struct PagedPieces {
    pieces: Vec<(Bytes, Extent)>,
    inspected_bytes: u64,
}

impl PagedPieces {
    /// Each piece is an encoded `tempopb.Trace`.
    #[must_use]
    pub fn new(pieces: Vec<(Bytes, Extent)>) -> Self {
        Self { pieces, inspected_bytes: 0 }
    }

    /// When the first `count` spans start that start later than `from`, ascending. A span can be in several pieces, and counts once.
    pub fn first_starts(&mut self, from: u64, count: usize) -> Vec<u64> {
        let mut order: Vec<&(Bytes, Extent)> = self.pieces.iter().filter(|(_, extent)| extent.last > from).collect();
        order.sort_unstable_by_key(|(_, extent)| extent.first);
        let mut later = BTreeSet::new();
        for (piece, extent) in order {
            let full = later.len() >= count;
            if full && later.last().is_none_or(|(last, _)| extent.first > *last) {
                break;
            }
            self.inspected_bytes += piece.len() as u64;
            let walked = for_each_span(piece, |span| {
                let head = SpanHead::read(span.span)?;
                let place = (head.start_unix_nano, head.identity());
                if place.0 > from && (later.len() < count || later.last().is_some_and(|last| place < *last)) {
                    later.insert(place);
                    if later.len() > count {
                        later.pop_last();
                    }
                }
                Ok::<_, WireError>(())
            });
            // Damaged pieces are handed out whole, whatever else is on the page.
            walked.ok();
        }
        later.into_iter().map(|(start, _)| start).collect()
    }

    /// The spans that start in `starts`, in pieces again. Pieces that have nothing else, and such that cannot be read, are handed out as
    /// they are; of the others what is wanted is copied.
    pub fn starting_in(&mut self, starts: &RangeInclusive<u64>) -> Vec<Bytes> {
        let mut wanted = Vec::new();
        for (piece, extent) in self.pieces.iter().filter(|(_, extent)| extent.overlaps(starts)) {
            self.inspected_bytes += piece.len() as u64;
            if extent.is_within(starts) {
                wanted.push(piece.clone());
                continue;
            }
            match cut(piece, starts) {
                Ok(part) if part.is_empty() => {}
                Ok(part) => wanted.push(part),
                Err(_damaged) => wanted.push(piece.clone()),
            }
        }
        wanted
    }

    /// Bytes of the pieces that were looked into, or handed out, so far.
    #[must_use]
    pub fn inspected_bytes(&self) -> u64 {
        self.inspected_bytes
    }
}

/// The spans of a piece that start in `starts`, as a trace of its own.
fn cut(piece: &[u8], starts: &RangeInclusive<u64>) -> Result<Bytes, WireError> {
    let (mut open, mut trace) = (None::<Scope>, Vec::new());
    for_each_span(piece, |span| {
        if !starts.contains(&SpanHead::read(span.span)?.start_unix_nano) {
            return Ok(());
        }
        if open.as_ref().is_none_or(|open| open.index != span.scope_index)
            && let Some(before) = open.replace(Scope::of(&span))
        {
            before.end(&mut trace);
        }
        if let Some(open) = &mut open {
            put(&mut open.scope, SPAN, span.span);
        }
        Ok::<_, WireError>(())
    })?;
    if let Some(last) = open {
        last.end(&mut trace);
    }
    Ok(trace.into())
}

const HEAD: u32 = 0x0a;
const SCHEMA_URL: u32 = 0x1a;
const RESOURCE_SPANS: u32 = 0x0a;
const SCOPE_SPANS: u32 = 0x12;
const SPAN: u32 = 0x12;

/// Spans of one scope, and the resource around it.
struct Scope {
    index: usize,
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Scope {
    fn of(span: &SpanAt<'_>) -> Self {
        let head = |message: &[u8], schema_url: &[u8]| {
            let mut head = Vec::new();
            put(&mut head, HEAD, message);
            if !schema_url.is_empty() {
                put(&mut head, SCHEMA_URL, schema_url);
            }
            head
        };
        Self {
            index: span.scope_index,
            resource: head(span.resource, span.resource_schema_url),
            scope: head(span.scope, span.scope_schema_url),
        }
    }

    fn end(self, trace: &mut Vec<u8>) {
        let Self { mut resource, scope, .. } = self;
        put(&mut resource, SCOPE_SPANS, &scope);
        put(trace, RESOURCE_SPANS, &resource);
    }
}

fn put(out: &mut Vec<u8>, key: u32, message: &[u8]) {
    wire::put_varint(out, u64::from(key));
    wire::put_varint(out, message.len() as u64);
    out.put_slice(message);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::otlp::common::InstrumentationScope;
    use crate::otlp::resource::Resource;
    use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    use crate::tempopb::Trace;

    /// Start and id, from which everything else follows.
    type Known = (u64, u16);

    fn piece(scopes: &[Vec<Known>]) -> Bytes {
        let span = |(start, id): &Known| Span {
            span_id: u64::from(*id).to_be_bytes().to_vec(),
            start_time_unix_nano: *start,
            name: format!("{start} {id}"),
            ..Span::default()
        };
        let resource = |(at, spans): (usize, &Vec<Known>)| {
            let dropped_attributes_count = u32::try_from(at / 2).unwrap();
            let name = format!("scope {at}");
            ResourceSpans {
                resource: Some(Resource { dropped_attributes_count, ..Resource::default() }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope { name, ..InstrumentationScope::default() }),
                    spans: spans.iter().map(span).collect(),
                    schema_url: "s".to_owned(),
                }],
                schema_url: "r".repeat(at % 2),
            }
        };
        Trace { resource_spans: scopes.iter().enumerate().map(resource).collect() }.encode_to_vec().into()
    }

    fn measured(pieces: &[Bytes]) -> PagedPieces {
        PagedPieces::new(pieces.iter().map(|piece| (piece.clone(), Extent::of(piece))).collect())
    }

    /// All there is to know of the spans.
    fn told(pieces: &[Bytes]) -> Vec<(u64, String)> {
        let mut told = Vec::new();
        for resource in pieces.iter().flat_map(|piece| Trace::decode(piece.clone()).unwrap().resource_spans) {
            for scope in resource.scope_spans {
                for span in scope.spans {
                    let around = (&resource.resource, &resource.schema_url, &scope.scope, &scope.schema_url);
                    told.push((span.start_time_unix_nano, format!("{span:?} of {around:?}")));
                }
            }
        }
        told.sort_unstable();
        told
    }

    #[test]
    fn pieces_without_spans_of_a_page_are_left_out_and_copies_count_once() {
        let pieces: Vec<Bytes> = (1..=4).map(|at| piece(&[vec![(at, 1)]])).collect();
        let narrowed = |pieces: &[Bytes], from, count| {
            let mut paged = measured(pieces);
            let end = paged.first_starts(from, count).get(count - 1).copied().unwrap_or(u64::MAX);
            paged.starting_in(&(from..=end))
        };
        let twice = [pieces.clone(), pieces.clone()].concat();
        assert_eq!(narrowed(&pieces, 0, 2), pieces[..2]);
        assert_eq!(narrowed(&pieces, 2, 1), pieces[1..3]);
        assert_eq!(narrowed(&twice, 0, 2), [&pieces[..2], &pieces[..2]].concat());
        assert_eq!(narrowed(&pieces, 4, 9), pieces[3..]);
        assert!(narrowed(&pieces, 5, 9).is_empty());
        assert!(narrowed(&[piece(&[]), Bytes::new()], 0, 9).is_empty());
        let damaged = vec![Bytes::from_static(&[0x0a, 9])];
        assert_eq!(narrowed(&damaged, 5, 9), damaged);
    }

    #[test]
    fn all_pages_of_a_trace_look_at_about_as_much_as_the_trace_has() {
        // As they are sent: each piece has spans of a short time, neighbours overlap, and they do not come in order.
        let spans = |at: u64| (0..100).map(|n| (at * 60 + n, u16::try_from(at * 100 + n).unwrap())).collect();
        let pieces: Vec<Bytes> = (0..200).map(|at| piece(&[spans(at * 77 % 200)])).collect();
        let total: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let (mut from, mut pages, mut inspected) = (0, 0, 0);
        loop {
            let mut paged = measured(&pieces);
            let end = paged.first_starts(from, 500).get(499).copied();
            let last = end.unwrap_or(u64::MAX);
            assert!(paged.starting_in(&(from..=last)).len() < 20);
            inspected += paged.inspected_bytes();
            pages += 1;
            match end {
                Some(end) => from = end,
                None => break,
            }
        }
        assert_eq!(pages, 40);
        // Once to see where a page ends, once to hand it out, and twice the pieces that are on two pages.
        assert!(inspected < 5 * total, "{inspected} of {total}");
    }

    proptest! {
        #[test]
        fn what_is_handed_out_is_what_is_on_the_page(
            scopes in prop::collection::vec(prop::collection::vec(prop::collection::vec((0_u64..12, 0_u16..9), 0..5), 0..4), 0..7),
            from in 0_u64..13,
            count in 1_usize..12,
        ) {
            let pieces: Vec<Bytes> = scopes.iter().map(|scopes| piece(scopes)).collect();
            let later: BTreeSet<&Known> = scopes.iter().flatten().flatten().filter(|(start, _)| *start > from).collect();
            let firsts: Vec<u64> = later.iter().take(count).map(|(start, _)| *start).collect();
            let due_end = firsts.get(count - 1).copied();
            let mut paged = measured(&pieces);
            prop_assert_eq!(paged.first_starts(from, count), firsts);
            // Whoever else has a part of the trace may have brought the end forward.
            for end in [due_end.unwrap_or(u64::MAX), due_end.unwrap_or(from).saturating_sub(1)] {
                let starts = from..=end;
                let due: Vec<_> = told(&pieces).into_iter().filter(|(start, _)| starts.contains(start)).collect();
                prop_assert_eq!(told(&paged.starting_in(&starts)), due);
            }
        }

        #[test]
        fn damaged_pieces_come_as_they_are(bytes in prop::collection::vec(prop_oneof![Just(0x0a), Just(0x12), 0u8..24, any::<u8>()], 1..80)) {
            let piece = Bytes::from(bytes);
            let readable = for_each_span(&piece, |span| SpanHead::read(span.span).map(drop)).is_ok();
            let mut paged = measured(std::slice::from_ref(&piece));
            paged.first_starts(3, 2);
            prop_assert!(readable || paged.starting_in(&(3..=4)) == [piece]);
        }
    }
}

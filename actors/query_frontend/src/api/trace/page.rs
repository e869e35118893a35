//! Pages of a trace that is larger than a client wants at once, or than one may get: `page_spans=N`, then `page=…` with what the
//! answer before named in `X-Vivace-Next-Page`.
//!
//! Spans are paged in the order of their start, ties by id and kind. A page goes on behind a span, not behind a number of spans or
//! a place, so what moves from recent data into blocks, or is merged, between two pages is neither missed nor there twice. A page
//! takes all sources into account; of the trace nothing is held but the page.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use vivace_protocol::SpanId;
use vivace_protocol::combine::{Batching, Combine};
use vivace_protocol::trace_walk::{SpanAt, SpanHead, SpanIdentity, for_each_span};
use vivace_protocol::wire::{self, WireError};

use crate::params::{BadParam, Params};

/// The header that names the next page; absent on the last.
pub(super) const NEXT: &str = "x-vivace-next-page";
/// Most spans of a page.
const MAX_SPANS: u32 = 100_000;
/// A page is full at this size, whatever the number of its spans.
const MAX_BYTES: usize = 16 << 20;

/// A place in a trace: behind the span with this start and identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64, SpanIdentity);

impl Place {
    fn of(head: &SpanHead) -> Self {
        Self(head.start_unix_nano, head.identity())
    }

    /// As it stands in a request and in the header of an answer.
    fn text(&self) -> String {
        format!("{:016x}{}{:08x}", self.0, self.1.span_id, self.1.kind.cast_unsigned())
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = |from: usize, to: usize| u64::from_str_radix(text.get(from..to)?, 16).ok();
        if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (start, id, kind) = (digits(0, 16)?, digits(16, 32)?, u32::try_from(digits(32, 40)?).ok()?);
        let span_id = SpanId::from_slice(&id.to_be_bytes())?;
        Some(Self(start, SpanIdentity { span_id, kind: kind.cast_signed(), start_unix_nano: start }))
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageSpec {
    spans: u32,
    after: Option<Place>,
}

impl PageSpec {
    /// The page of a request; none if it wants the whole trace.
    pub(super) fn of(params: &Params) -> Result<Option<Self>, BadParam> {
        let after = match params.get("page") {
            Some(text) => Some(Place::parse(text).ok_or_else(|| {
                BadParam(format!("invalid page {text:?}: it is the X-Vivace-Next-Page of the answer before"))
            })?),
            None => None,
        };
        match params.u32("page_spans")? {
            Some(spans) if (1..=MAX_SPANS).contains(&spans) => Ok(Some(Self { spans, after })),
            Some(spans) => Err(BadParam(format!("invalid page_spans {spans}: a page has 1 to {MAX_SPANS} spans"))),
            None if after.is_some() => Err(BadParam("page needs page_spans, the number of spans of a page".to_owned())),
            None => Ok(None),
        }
    }

    /// What each source has to tell: spans from when on, and how many of those that start later. One more than the page has, so that it
    /// is seen whether there is another.
    pub(super) fn of_source(&self) -> (u64, u32) {
        (self.after.map_or(0, |after| after.0), self.spans.saturating_add(1))
    }

    /// An empty page of at most `max_bytes` (0: no limit of the tenant).
    pub(super) fn begin(self, max_bytes: usize) -> Page {
        let max_bytes = if max_bytes == 0 { MAX_BYTES } else { max_bytes.min(MAX_BYTES) };
        Page { spec: self, max_bytes, bytes: 0, spans: BTreeMap::new(), bound: None }
    }
}

/// The resource and the scope of some spans, encoded.
#[derive(Debug)]
struct Around {
    resource: Bytes,
    resource_schema_url: Bytes,
    scope: Bytes,
    scope_schema_url: Bytes,
}

#[derive(Debug)]
struct Kept {
    around: Arc<Around>,
    span: Bytes,
}

impl Kept {
    fn len(&self) -> usize {
        self.span.len() + self.around.resource.len() + self.around.scope.len()
    }
}

/// A page that is being filled: the first spans behind a place, of all that were shown.
#[derive(Debug)]
pub(super) struct Page {
    spec: PageSpec,
    max_bytes: usize,
    bytes: usize,
    spans: BTreeMap<Place, Kept>,
    /// The first span that had no room. It and what follows are on later pages, even if something smaller fitted.
    bound: Option<Place>,
}

impl Page {
    /// Takes the spans of an encoded trace that belong on the page.
    pub(super) fn add(&mut self, part: &[u8]) -> Result<(), WireError> {
        let mut around: Option<(usize, Arc<Around>)> = None;
        for_each_span(part, |span| {
            let place = Place::of(&SpanHead::read(span.span)?);
            let before = self.spec.after.is_some_and(|after| place <= after);
            if before || self.bound.is_some_and(|bound| place >= bound) || self.spans.contains_key(&place) {
                return Ok(());
            }
            let around = match &around {
                Some((scope, around)) if *scope == span.scope_index => Arc::clone(around),
                _ => Arc::clone(&around.insert((span.scope_index, Arc::new(Around::of(&span)))).1),
            };
            // Copied: a slice would keep all of the part.
            let kept = Kept { around, span: Bytes::copy_from_slice(span.span) };
            self.bytes += kept.len();
            self.spans.insert(place, kept);
            self.cut();
            Ok(())
        })
    }

    fn cut(&mut self) {
        let most = usize::try_from(self.spec.spans).unwrap_or(usize::MAX);
        // One span is a page, whatever its size.
        while self.spans.len() > most || (self.bytes > self.max_bytes && self.spans.len() > 1) {
            let Some((place, kept)) = self.spans.pop_last() else { return };
            self.bytes -= kept.len();
            self.bound = Some(self.bound.map_or(place, |bound| bound.min(place)));
        }
    }

    /// The page as an encoded trace, and how the next one is asked for if there is one.
    pub(super) fn finish(self) -> Result<(Bytes, Option<String>), WireError> {
        let next = self.bound.and_then(|_| self.spans.keys().next_back().map(Place::text));
        let spans: Vec<Kept> = self.spans.into_values().collect();
        let alike = spans.chunk_by(|a, b| Arc::ptr_eq(&a.around, &b.around));
        let parts: Vec<Bytes> = alike.filter_map(|alike| alike.first().map(|first| first.around.with(alike))).collect();
        let combined = Combine { max_bytes: 0, batching: Batching::Merge }.parts(&parts)?;
        Ok((combined.trace, next))
    }
}

impl Around {
    fn of(span: &SpanAt<'_>) -> Self {
        let copy = Bytes::copy_from_slice;
        Self {
            resource: copy(span.resource),
            resource_schema_url: copy(span.resource_schema_url),
            scope: copy(span.scope),
            scope_schema_url: copy(span.scope_schema_url),
        }
    }

    /// A trace of these spans.
    fn with(&self, spans: &[Kept]) -> Bytes {
        let (mut scope, mut resource, mut trace) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        put(&mut scope, 0x0a, &self.scope);
        spans.iter().for_each(|kept| put(&mut scope, 0x12, &kept.span));
        put(&mut scope, 0x1a, &self.scope_schema_url);
        put(&mut resource, 0x0a, &self.resource);
        put(&mut resource, 0x12, &scope);
        put(&mut resource, 0x1a, &self.resource_schema_url);
        put(&mut trace, 0x0a, &resource);
        trace.freeze()
    }
}

fn put(out: &mut BytesMut, key: u32, message: &[u8]) {
    wire::put_varint(out, u64::from(key));
    wire::put_varint(out, message.len() as u64);
    out.put_slice(message);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use vivace_protocol::combine::Combined;
    use vivace_protocol::otlp::resource::Resource;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    use vivace_protocol::tempopb::Trace;
    use vivace_protocol::trace_page::{Extent, PagedPieces};

    use super::*;

    /// Start, id and kind, from which everything else follows.
    type Known = (u64, u8, i32);

    fn part(spans: &[Known], name_bytes: usize) -> Bytes {
        let resource = |(start, id, kind): &Known| {
            let resource = Resource { dropped_attributes_count: u32::from(id % 3), ..Resource::default() };
            let span = Span {
                span_id: vec![*id; 8],
                kind: *kind,
                start_time_unix_nano: *start,
                name: "n".repeat(name_bytes),
                ..Span::default()
            };
            let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
            ResourceSpans { resource: Some(resource), scope_spans: vec![scope], ..ResourceSpans::default() }
        };
        Trace { resource_spans: spans.iter().map(resource).collect() }.encode_to_vec().into()
    }

    fn merged(parts: &[Bytes]) -> Combined {
        Combine { max_bytes: 0, batching: Batching::Merge }.parts(parts).unwrap()
    }

    fn request(page_spans: u32, after: Option<String>) -> Result<Option<PageSpec>, BadParam> {
        let after = after.map(|after| ("page", after));
        PageSpec::of(&Params::from_pairs([("page_spans", page_spans.to_string())].into_iter().chain(after)))
    }

    /// All pages of what the sources hold, asked for as a client does.
    fn pages(sources: &[Vec<Bytes>], page_spans: u32, max_bytes: usize) -> Vec<Bytes> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let spec = request(page_spans, after).unwrap().unwrap();
            let (from, count) = spec.of_source();
            let mut page = spec.begin(max_bytes);
            for source in sources {
                let pieces = source.iter().map(|piece| (piece.clone(), Extent::of(piece)));
                let mut told = PagedPieces::new(pieces.collect());
                let count = usize::try_from(count).unwrap();
                let end = told.first_starts(from, count).get(count - 1).copied().unwrap_or(u64::MAX);
                told.starting_in(&(from..=end)).iter().for_each(|part| page.add(part).unwrap());
            }
            let (trace, next) = page.finish().unwrap();
            pages.push(trace);
            assert!(pages.len() < 1000, "it goes on");
            let Some(next) = next else { return pages };
            after = Some(next);
        }
    }

    fn known() -> impl Strategy<Value = Known> {
        (0_u64..6, 1_u8..20, 0..3)
    }

    proptest! {
        #[test]
        fn pages_joined_are_the_trace_and_no_span_is_on_two(
            sources in prop::collection::vec(prop::collection::vec(prop::collection::vec(known(), 0..6), 0..5), 0..4),
            page_spans in 1_u32..8,
        ) {
            let sources: Vec<Vec<Bytes>> =
                sources.iter().map(|parts| parts.iter().map(|spans| part(spans, 1)).collect()).collect();
            let all = merged(&sources.concat());
            let pages = pages(&sources, page_spans, 0);
            prop_assert_eq!(&merged(&pages), &all);
            let counts: Vec<usize> = pages.iter().map(|page| merged(std::slice::from_ref(page)).span_count).collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), all.span_count);
            // All pages but the last are full.
            let full = usize::try_from(page_spans).unwrap();
            prop_assert!(counts[..counts.len() - 1].iter().all(|count| *count == full) && counts[counts.len() - 1] <= full);
        }

        #[test]
        fn a_place_is_read_as_it_was_written(start in any::<u64>(), id in any::<[u8; 8]>(), kind in any::<i32>()) {
            let head = SpanHead { span_id: SpanId(id), kind, start_unix_nano: start, ..SpanHead::default() };
            let place = Place::of(&head);
            prop_assert_eq!(Place::parse(&place.text()), Some(place));
        }
    }

    #[test]
    fn a_page_is_full_of_bytes_too_and_never_passes_over_a_span_that_has_no_room() {
        // The second has no room beside the first, the third would have.
        let sources = [vec![part(&[(1, 1, 0)], 100), part(&[(2, 2, 0)], 1000), part(&[(3, 3, 0)], 10)]];
        let pages = pages(&sources, 10, 300);
        let ids = |page: &Bytes| -> Vec<u8> {
            let trace = Trace::decode(page.clone()).unwrap();
            trace
                .resource_spans
                .iter()
                .flat_map(|r| &r.scope_spans)
                .flat_map(|s| &s.spans)
                .map(|s| s.span_id[0])
                .collect()
        };
        assert_eq!(pages.iter().map(ids).collect::<Vec<_>>(), [[1], [2], [3]]);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        assert_eq!(PageSpec::of(&Params::parse("")), Ok(None));
        for (query, why) in [
            ("page_spans=0", "a page has 1 to 100000 spans"),
            ("page_spans=100001", "a page has 1 to 100000 spans"),
            ("page=00", "invalid page"),
            ("page_spans=5&page=+00000000000000000000000000000000000000f", "invalid page"),
            (&format!("page={}", "0".repeat(40)), "page needs page_spans"),
        ] {
            let refused = PageSpec::of(&Params::parse(query)).unwrap_err().to_string();
            assert!(refused.contains(why), "{query}: {refused}");
        }
    }
}

//! One trace from its parts: what live-stores and blocks each hold of it, with overlaps.

use std::collections::{HashMap, HashSet};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use crate::tempopb::Trace;
use crate::trace_walk::{SpanAt, SpanHead, SpanIdentity, for_each_span};
use crate::wire::{self, Reader, WireError};

/// What becomes of `ResourceSpans` that say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Batching {
    /// They stay as many as were written. Clients that compare answers with what they sent, as tempo-vulture does, rely on it.
    #[default]
    Keep,
    /// Those with the same resource become one, and in it scopes that are the same. The smallest answer.
    Merge,
}

/// How to combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Combine {
    /// The part with which the encoded trace passes this size is the last that is taken. 0 takes all.
    pub max_bytes: usize,
    pub batching: Batching,
}

/// A combined trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combined {
    /// An encoded `tempopb.Trace`; empty if no part held a span.
    pub trace: Bytes,
    /// Spans in it, each once.
    pub span_count: usize,
    /// Whether it passed `max_bytes`, so that spans may be missing.
    pub partial: bool,
}

impl Combined {
    /// The trace as objects.
    ///
    /// # Errors
    /// If something inside a span cannot be read: combining does not look there.
    pub fn decode(&self) -> Result<Trace, prost::DecodeError> {
        Trace::decode(self.trace.clone())
    }
}

impl Combine {
    /// Combines encoded `tempopb.Trace`s of one trace.
    ///
    /// Of spans with the same [`SpanIdentity`] the first is kept, within a part as between parts. Spans are ordered by start, then id;
    /// scopes and resources by their first span. So the result does not depend on the order of the parts, except through the limit
    /// and through copies of a span that differ.
    ///
    /// Written for readers that tell absent from empty: `resource`, `scope` and `status` are always there, `parent_span_id` never is
    /// if it is empty or zero.
    ///
    /// # Errors
    /// If the outer layers of a part, or those of a span, cannot be read.
    pub fn parts(&self, parts: &[Bytes]) -> Result<Combined, WireError> {
        let mut combiner = self.begin();
        for part in parts {
            combiner.add(part)?;
            if combiner.is_full() {
                break;
            }
        }
        Ok(combiner.finish())
    }

    /// For parts that come one after the other.
    #[must_use]
    pub fn begin(&self) -> Combiner {
        Combiner { gathered: Gathered::new(self.batching), max_bytes: self.max_bytes, drained_bytes: 0 }
    }
}

/// A trace that is being combined. What was taken out of it is forgotten but for the identities of its spans, so a trace of any
/// size passes through, each span once.
pub struct Combiner {
    gathered: Gathered,
    max_bytes: usize,
    drained_bytes: usize,
}

impl std::fmt::Debug for Combiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (spans, held) = (self.gathered.seen.len(), self.gathered.size);
        write!(f, "Combiner({spans} spans, {held} bytes held, {} drained)", self.drained_bytes)
    }
}

impl Combiner {
    /// Takes the spans of one part that were not there yet.
    ///
    /// # Errors
    /// As [`Combine::parts`].
    pub fn add(&mut self, part: &Bytes) -> Result<(), WireError> {
        self.gathered.part(part)
    }

    /// Whether `max_bytes` is passed, so that no further part should be taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.max_bytes > 0 && self.drained_bytes + self.gathered.size > self.max_bytes
    }

    /// About what the encoded spans take that are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.gathered.size
    }

    /// Spans so far, those that were taken out included.
    #[must_use]
    pub fn span_count(&self) -> usize {
        self.gathered.seen.len()
    }

    /// Takes out what is held, an encoded `tempopb.Trace` in the order of [`Combine::parts`]; empty if nothing is.
    pub fn drain(&mut self) -> Bytes {
        self.gathered.sort();
        let trace = self.gathered.encode();
        self.drained_bytes += std::mem::take(&mut self.gathered.size);
        self.gathered.resources = Vec::new();
        self.gathered.by_resource = HashMap::new();
        self.gathered.by_scope = HashMap::new();
        trace
    }

    /// What is held as the trace.
    #[must_use]
    pub fn finish(mut self) -> Combined {
        let partial = self.is_full();
        Combined { span_count: self.span_count(), trace: self.drain(), partial }
    }
}

struct Gathered {
    batching: Batching,
    seen: HashSet<SpanIdentity>,
    resources: Vec<ResourceGroup>,
    by_resource: HashMap<Head, usize>,
    by_scope: HashMap<(usize, Head), usize>,
    /// About what the encoded trace takes.
    size: usize,
}

/// A resource or scope with its schema URL.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Head {
    message: Bytes,
    schema_url: Bytes,
}

struct ResourceGroup {
    head: Head,
    scopes: Vec<ScopeGroup>,
}

struct ScopeGroup {
    head: Head,
    spans: Vec<Kept>,
}

struct Kept {
    head: SpanHead,
    span: Bytes,
    add_status: bool,
}

impl Kept {
    fn order(&self) -> (u64, SpanIdentity) {
        (self.head.start_unix_nano, self.head.identity())
    }

    fn encoded_len(&self) -> usize {
        self.span.len() + if self.add_status { 2 } else { 0 }
    }
}

impl Gathered {
    fn new(batching: Batching) -> Self {
        Self {
            batching,
            seen: HashSet::new(),
            resources: Vec::new(),
            by_resource: HashMap::new(),
            by_scope: HashMap::new(),
            size: 0,
        }
    }

    fn part(&mut self, part: &Bytes) -> Result<(), WireError> {
        // Where the spans of the resource and scope at hand go: their numbers in the part, then ours.
        let mut at: Option<(usize, usize, usize, usize)> = None;
        for_each_span(part, |span| {
            let head = SpanHead::read(span.span)?;
            if !self.seen.insert(head.identity()) {
                return Ok(());
            }
            let (resource, scope) = match at {
                Some((r, s, resource, scope)) if (r, s) == (span.resource_index, span.scope_index) => (resource, scope),
                _ => {
                    let known = at.filter(|(r, ..)| *r == span.resource_index).map(|(_, _, resource, _)| resource);
                    let resource = known.unwrap_or_else(|| self.resource(part, &span));
                    let scope = self.scope(resource, part, &span);
                    at = Some((span.resource_index, span.scope_index, resource, scope));
                    (resource, scope)
                }
            };
            let kept = keep(part, span.span, head)?;
            self.size += wire::len_field_size(kept.encoded_len());
            self.resources[resource].scopes[scope].spans.push(kept);
            Ok(())
        })
    }

    fn resource(&mut self, part: &Bytes, span: &SpanAt<'_>) -> usize {
        let head =
            Head { message: slice_of(part, span.resource), schema_url: slice_of(part, span.resource_schema_url) };
        let new = self.resources.len();
        let place = match self.batching {
            Batching::Keep => new,
            Batching::Merge => *self.by_resource.entry(head.clone()).or_insert(new),
        };
        if place == new {
            self.size += head.encoded_len();
            self.resources.push(ResourceGroup { head, scopes: Vec::new() });
        }
        place
    }

    fn scope(&mut self, resource: usize, part: &Bytes, span: &SpanAt<'_>) -> usize {
        let head = Head { message: slice_of(part, span.scope), schema_url: slice_of(part, span.scope_schema_url) };
        let scopes = &mut self.resources[resource].scopes;
        let new = scopes.len();
        let place = match self.batching {
            Batching::Keep => new,
            Batching::Merge => *self.by_scope.entry((resource, head.clone())).or_insert(new),
        };
        if place == new {
            self.size += head.encoded_len();
            scopes.push(ScopeGroup { head, spans: Vec::new() });
        }
        place
    }

    fn sort(&mut self) {
        for resource in &mut self.resources {
            for scope in &mut resource.scopes {
                scope.spans.sort_by_key(Kept::order);
            }
            resource.scopes.sort_by_key(ScopeGroup::order);
        }
        self.resources.sort_by_key(|resource| resource.scopes.first().and_then(ScopeGroup::order));
    }

    fn encode(&self) -> Bytes {
        let mut buf = BytesMut::with_capacity(self.size + 16 * self.resources.len());
        for resource in &self.resources {
            let scopes = resource.scopes.iter().map(|scope| wire::len_field_size(scope.encoded_len()));
            put_len_key(0x0a, resource.head.encoded_len() + scopes.sum::<usize>(), &mut buf);
            resource.head.put_message(&mut buf);
            for scope in &resource.scopes {
                put_len_key(0x12, scope.encoded_len(), &mut buf);
                scope.head.put_message(&mut buf);
                for kept in &scope.spans {
                    put_len_key(0x12, kept.encoded_len(), &mut buf);
                    buf.put_slice(&kept.span);
                    if kept.add_status {
                        buf.put_slice(&EMPTY_STATUS);
                    }
                }
                scope.head.put_schema_url(&mut buf);
            }
            resource.head.put_schema_url(&mut buf);
        }
        buf.freeze()
    }
}

impl Head {
    fn encoded_len(&self) -> usize {
        let schema_url = if self.schema_url.is_empty() { 0 } else { wire::len_field_size(self.schema_url.len()) };
        wire::len_field_size(self.message.len()) + schema_url
    }

    fn put_message(&self, buf: &mut BytesMut) {
        put_len_key(0x0a, self.message.len(), buf);
        buf.put_slice(&self.message);
    }

    fn put_schema_url(&self, buf: &mut BytesMut) {
        if !self.schema_url.is_empty() {
            put_len_key(0x1a, self.schema_url.len(), buf);
            buf.put_slice(&self.schema_url);
        }
    }
}

impl ScopeGroup {
    fn order(&self) -> Option<(u64, SpanIdentity)> {
        self.spans.first().map(Kept::order)
    }

    fn encoded_len(&self) -> usize {
        let spans = self.spans.iter().map(|kept| wire::len_field_size(kept.encoded_len()));
        self.head.encoded_len() + spans.sum::<usize>()
    }
}

/// `Span.status`, present and empty.
const EMPTY_STATUS: [u8; 2] = [0x7a, 0];

/// The span with its `status` there and an empty or zero `parent_span_id` not.
fn keep(part: &Bytes, span: &[u8], head: SpanHead) -> Result<Kept, WireError> {
    let mut has_status = false;
    let mut empty_parent = false;
    let mut reader = Reader::new(span);
    while let Some(key) = reader.key()? {
        match key {
            0x22 => empty_parent |= reader.bytes()?.iter().all(|b| *b == 0),
            0x7a => {
                has_status = true;
                reader.skip(key, wire::GROUP_DEPTH)?;
            }
            _ => reader.skip(key, wire::GROUP_DEPTH)?,
        }
    }
    let span = if empty_parent { without_empty_parent(span)? } else { slice_of(part, span) };
    Ok(Kept { head, span, add_status: !has_status })
}

fn without_empty_parent(span: &[u8]) -> Result<Bytes, WireError> {
    let mut out = BytesMut::with_capacity(span.len());
    let mut reader = Reader::new(span);
    loop {
        let before = reader.rest();
        let Some(key) = reader.key()? else { return Ok(out.freeze()) };
        let left_out = if key == 0x22 {
            reader.bytes()?.iter().all(|b| *b == 0)
        } else {
            reader.skip(key, wire::GROUP_DEPTH)?;
            false
        };
        if !left_out {
            out.put_slice(&before[..before.len() - reader.rest().len()]);
        }
    }
}

/// `slice` as a slice of `part` if it lies in it, else a copy.
fn slice_of(part: &Bytes, slice: &[u8]) -> Bytes {
    if part.as_ptr_range().contains(&slice.as_ptr()) { part.slice_ref(slice) } else { Bytes::copy_from_slice(slice) }
}

fn put_len_key(key: u8, len: usize, buf: &mut BytesMut) {
    buf.put_u8(key);
    wire::put_varint(buf, len as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::otlp::common::InstrumentationScope;
    use crate::otlp::resource::Resource;
    use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span, Status};

    fn span(id: u8, kind: i32, start: u64) -> Span {
        Span {
            trace_id: vec![1; 16],
            span_id: vec![id; 8],
            kind,
            start_time_unix_nano: start,
            status: Some(Status::default()),
            ..Span::default()
        }
    }

    fn batch(resource: u32, scope: &str, spans: Vec<Span>) -> ResourceSpans {
        ResourceSpans {
            resource: Some(Resource { dropped_attributes_count: resource, ..Default::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: scope.to_owned(), ..Default::default() }),
                spans,
                schema_url: "s".to_owned(),
            }],
            schema_url: "r".to_owned(),
        }
    }

    fn part(batches: Vec<ResourceSpans>) -> Bytes {
        Trace { resource_spans: batches }.encode_to_vec().into()
    }

    const KEEP: Combine = Combine { max_bytes: 0, batching: Batching::Keep };
    const MERGE: Combine = Combine { max_bytes: 0, batching: Batching::Merge };

    #[test]
    fn a_span_that_several_parts_hold_comes_once() {
        let first = part(vec![batch(1, "a", vec![span(1, 2, 10), span(2, 3, 5), span(1, 2, 10)])]);
        let second = part(vec![batch(1, "a", vec![span(1, 2, 10), span(3, 3, 7)]), batch(2, "b", vec![span(2, 3, 5)])]);
        let combined = KEEP.parts(&[first.clone(), second.clone()]).unwrap();
        assert_eq!((combined.span_count, combined.partial), (3, false));
        let expected = vec![batch(1, "a", vec![span(2, 3, 5), span(1, 2, 10)]), batch(1, "a", vec![span(3, 3, 7)])];
        assert_eq!(combined.decode().unwrap().resource_spans, expected);

        let merged = MERGE.parts(&[first, second]).unwrap().decode().unwrap();
        assert_eq!(merged.resource_spans, vec![batch(1, "a", vec![span(2, 3, 5), span(3, 3, 7), span(1, 2, 10)])]);
    }

    #[test]
    fn kind_and_start_tell_spans_with_one_id_apart() {
        let spans = vec![span(1, 3, 10), span(1, 2, 10), span(1, 3, 11)];
        assert_eq!(KEEP.parts(&[part(vec![batch(1, "a", spans)])]).unwrap().span_count, 3);
    }

    #[test]
    fn merging_keeps_different_scopes_of_one_resource_apart() {
        let parts = [
            part(vec![batch(1, "a", vec![span(1, 1, 1)]), batch(1, "b", vec![span(2, 1, 2)])]),
            part(vec![batch(1, "a", vec![span(3, 1, 3)])]),
        ];
        let merged = MERGE.parts(&parts).unwrap().decode().unwrap();
        let shape = |t: &Trace| {
            let scopes = t.resource_spans.iter().map(|r| r.scope_spans.iter().map(|s| s.spans.len()).collect());
            scopes.collect::<Vec<Vec<_>>>()
        };
        assert_eq!(shape(&merged), [[2, 1]]);
        assert_eq!(shape(&KEEP.parts(&parts).unwrap().decode().unwrap()), [[1], [1], [1]]);
    }

    #[test]
    fn the_part_that_passes_the_limit_is_the_last_one() {
        let parts: Vec<_> = (1..4).map(|n| part(vec![batch(1, "a", vec![span(n, 1, 1)])])).collect();
        let limited = Combine { max_bytes: parts[0].len() + 1, ..KEEP }.parts(&parts).unwrap();
        assert_eq!((limited.span_count, limited.partial), (2, true));
        let exact = Combine { max_bytes: KEEP.parts(&parts).unwrap().trace.len(), ..KEEP }.parts(&parts).unwrap();
        assert_eq!((exact.span_count, exact.partial), (3, false));
    }

    #[test]
    fn messages_that_readers_need_are_added_and_empty_parents_dropped() {
        let mut bare = span(1, 1, 1);
        bare.status = None;
        let mut root = span(2, 1, 2);
        root.parent_span_id = vec![0; 8];
        let batches = vec![ResourceSpans {
            scope_spans: vec![ScopeSpans { spans: vec![bare, root], ..Default::default() }],
            ..Default::default()
        }];
        let combined = KEEP.parts(&[part(batches)]).unwrap().decode().unwrap();
        let resource_spans = &combined.resource_spans[0];
        assert!(resource_spans.resource.is_some() && resource_spans.scope_spans[0].scope.is_some());
        assert_eq!(resource_spans.scope_spans[0].spans, [span(1, 1, 1), span(2, 1, 2)]);
    }

    #[test]
    fn what_is_drained_on_the_way_is_the_whole_each_span_once() {
        let parts: Vec<_> = (1..6).map(|n| part(vec![batch(1, "a", vec![span(n, 1, 9), span(n + 1, 1, 8)])])).collect();
        let mut combiner = MERGE.begin();
        let mut drained = Vec::new();
        for part in &parts {
            combiner.add(part).unwrap();
            drained.push(combiner.drain());
            assert_eq!(combiner.held_bytes(), 0);
        }
        assert_eq!(combiner.span_count(), 10);
        assert_eq!(MERGE.parts(&drained).unwrap(), MERGE.parts(&parts).unwrap());
        let spans = drained.iter().map(|trace| MERGE.parts(std::slice::from_ref(trace)).unwrap().span_count);
        assert_eq!(spans.sum::<usize>(), 10);
    }

    #[test]
    fn the_limit_counts_what_was_drained() {
        let parts: Vec<_> = (1..4).map(|n| part(vec![batch(1, "a", vec![span(n, 1, 1)])])).collect();
        let mut combiner = Combine { max_bytes: parts[0].len() + 1, ..KEEP }.begin();
        combiner.add(&parts[0]).unwrap();
        combiner.drain();
        assert!(!combiner.is_full());
        combiner.add(&parts[1]).unwrap();
        assert!(combiner.is_full());
    }

    #[test]
    fn no_parts_make_an_empty_trace() {
        let combined = KEEP.parts(&[Bytes::new()]).unwrap();
        assert_eq!((combined.trace.len(), combined.span_count, combined.partial), (0, 0, false));
    }

    proptest! {
        #[test]
        fn parts_of_a_trace_give_the_same_in_any_order_and_overlap(
            batches in prop::collection::vec((0u32..3, "[ab]", prop::collection::vec((1u8..9, 0i32..3, 0u64..9), 1..4)), 1..6),
            order in any::<u64>(),
        ) {
            // Copies of a span must agree on where they belong, so the batch follows from the span.
            let mut parts: Vec<Bytes> = batches
                .iter()
                .map(|(_, _, spans)| {
                    part(spans.iter().map(|(id, kind, start)| {
                        batch(u32::from(*id % 3), "a", vec![span(*id, *kind, *start)])
                    }).collect())
                })
                .collect();
            for combine in [KEEP, MERGE] {
                let one = combine.parts(&parts).unwrap();
                let turn = usize::try_from(order % parts.len() as u64).unwrap();
                parts.rotate_left(turn);
                parts.push(parts[0].clone());
                let other = combine.parts(&parts).unwrap();
                prop_assert_eq!(&one, &other);
                prop_assert_eq!(&combine.parts(std::slice::from_ref(&one.trace)).unwrap().trace, &one.trace);
                prop_assert!(one.decode().is_ok());
            }
        }

        #[test]
        fn damaged_parts_are_errors_and_never_panics(bytes in prop::collection::vec(prop_oneof![Just(0x0a), Just(0x12), 0u8..24, any::<u8>()], 0..60)) {
            // Either verdict is fine: spans are not looked into.
            prop_assert!(MERGE.parts(&[bytes.into()]).map_or(true, |c| c.trace.is_empty() == (c.span_count == 0)));
        }
    }
}

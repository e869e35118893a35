//! The wire slicer: one walk over an export request finds the spans of every trace without decoding anything.
//!
//! Problem: a distributor must validate ids, cut over-long attributes, group spans by trace and write each trace as an encoded
//! `tempopb.Trace`. Decoding into objects, regrouping and encoding again costs some 1.5 µs a span, nearly all of it allocation.
//!
//! Choice: the request is walked once. A span's bytes are the same in the request and in the trace, so a trace is described by
//! ranges of the received buffer: for each group the fields of its `ResourceSpans` and `ScopeSpans` other than the spans
//! ("head"), and its spans. Neighbouring spans of one group are one range. Only a span in which a text is too long or no UTF-8
//! is written anew, into a side buffer.
//!
//! ```text
//! request   [rs1 [resource] [ss [scope] [span a1] [span a2] [span b1]] [schema]] [rs2 ...]
//! trace a   [rs1 [resource] [schema] [ss [scope] [span a1] [span a2]]] ...
//! trace b   [rs1 [resource] [schema] [ss [scope] [span b1]]] ...
//! ```

mod check;
mod encode;
mod rewrite;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;

use crate::wire::{self, Reader, WireError};
use crate::{Error, SpanId, TraceId};
use check::{Check, SpanFacts};
pub use rewrite::Truncated;
use rewrite::{Rewriter, Shape};

/// How deep messages may nest, the request itself counted. `prost` stops at 100; ours is lower, so that a trace can still be decoded
/// when it sits inside an answer.
pub const MAX_DEPTH: u32 = 90;

/// Larger requests are refused: ranges are kept as 32-bit offsets, with room for spans that grow when they are repaired.
pub const MAX_REQUEST_BYTES: usize = 1 << 30;

/// No index: the end of a chain.
const NONE: u32 = u32::MAX;

/// What a request is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attribute keys and string values of more bytes are cut, at the last whole character that fits. 0 switches this off.
    pub max_attribute_bytes: usize,
}

/// Why a request is refused as a whole. Nothing of it is kept; sending it again gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// Not an encoded `ExportTraceServiceRequest`.
    #[error("request cannot be decoded")]
    Malformed(#[source] WireError),
    /// A trace id that has not 16 bytes, or is all zero (which counts as empty).
    #[error("trace ids must be 128 bit, received {bits} bits")]
    TraceId { bits: usize },
    /// A span id that has not 8 bytes, or is all zero (which counts as empty).
    #[error("span ids must be 64 bit and not all zero, received {bits} bits")]
    SpanId { bits: usize },
    /// More than [`MAX_REQUEST_BYTES`].
    #[error("request of {bytes} bytes is too large")]
    TooLarge { bytes: usize },
}

impl SliceError {
    /// The label value under which the spans of the request count as discarded, if they do.
    pub fn discard_reason(&self) -> Option<&'static str> {
        match self {
            Self::TraceId { .. } => Some("invalid_trace_id"),
            Self::SpanId { .. } => Some("invalid_span_id"),
            Self::Malformed(_) | Self::TooLarge { .. } => None,
        }
    }
}

impl From<WireError> for SliceError {
    fn from(error: WireError) -> Self {
        Self::Malformed(error)
    }
}

impl From<SliceError> for Error {
    fn from(error: SliceError) -> Self {
        Error::fix_request(error.to_string()).with_source(error)
    }
}

/// A request cut by trace, ready to be written. Holds the received buffer.
#[derive(Debug, Clone)]
pub struct Sliced {
    body: Bytes,
    /// Spans and heads that were written anew. Offsets of segments above `body.len()` lie here.
    rewritten: Vec<u8>,
    segments: Vec<Segment>,
    resources: Vec<Head>,
    scopes: Vec<Scope>,
    groups: Vec<Group>,
    traces: Vec<SlicedTrace>,
    span_count: usize,
    truncated: Truncated,
    repaired: usize,
}

/// One trace of a request.
#[derive(Debug, Clone)]
pub struct SlicedTrace {
    id: TraceId,
    encoded_len: usize,
    span_count: u32,
    start_unix_nano: u64,
    end_unix_nano: u64,
    first_group: u32,
    last_group: u32,
}

impl SlicedTrace {
    /// The trace's id.
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// Bytes of its encoded `tempopb.Trace`.
    pub fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// Spans of this trace in this request, at least one.
    pub fn span_count(&self) -> u32 {
        self.span_count
    }

    /// The earliest start of its spans.
    pub fn start_unix_nano(&self) -> u64 {
        self.start_unix_nano
    }

    /// The latest end of its spans.
    pub fn end_unix_nano(&self) -> u64 {
        self.end_unix_nano
    }
}

/// A range of the body or of the rewritten bytes, chained to the next of its list.
#[derive(Debug, Clone, Copy)]
struct Segment {
    start: u32,
    end: u32,
    next: u32,
}

/// A list of segments that are written one after the other.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
    bytes: u32,
}

impl Chain {
    const EMPTY: Self = Self { first: NONE, last: NONE, bytes: 0 };
}

/// All fields of a message but its repeated children.
type Head = Chain;

/// One distinct scope of one incoming `ResourceSpans`.
#[derive(Debug, Clone, Copy)]
struct Scope {
    resource: u32,
    head: Head,
}

/// The spans of one trace in one scope: one `ResourceSpans` with one `ScopeSpans` in the output.
#[derive(Debug, Clone, Copy)]
struct Group {
    trace: u32,
    scope: u32,
    /// The next group of the same trace.
    next: u32,
    spans: Chain,
    scope_spans_len: u32,
    resource_spans_len: u32,
}

/// Cuts an encoded `ExportTraceServiceRequest` by trace.
///
/// Each distinct pair of scope and trace within an incoming `ResourceSpans` becomes a `ResourceSpans` of its own with one
/// `ScopeSpans`, in the order of first appearance. Schema URLs and unknown fields below the request itself are kept. Two scopes are
/// the same if everything that their `ScopeSpans` say besides the spans is the same, byte for byte (Tempo looks at name and version
/// only, and loses what differs otherwise).
///
/// Accepts what `prost` accepts, with these differences: ids are checked, texts that are not UTF-8 are repaired with U+FFFD instead of
/// refused, and nesting is bounded by [`MAX_DEPTH`]. The cost is linear in the body. What comes out may be larger: every trace
/// repeats its resource. Ask [`Sliced::push_bytes_len`] before writing it.
///
/// # Errors
/// All or nothing: the first fault refuses the request.
pub fn slice(body: &Bytes, limits: &Limits) -> Result<Sliced, SliceError> {
    if body.len() > MAX_REQUEST_BYTES {
        return Err(SliceError::TooLarge { bytes: body.len() });
    }
    let mut walker = Walker::new(body, limits);
    walker.request()?;
    Ok(walker.finish())
}

/// The number of spans in a request, also in one that [`slice()`] refuses for its ids.
///
/// # Errors
/// If the outer three layers cannot be read.
pub fn count_spans(body: &[u8]) -> Result<usize, WireError> {
    let mut spans = 0;
    for_each_child(body, 1, |resource_spans| {
        for_each_child(resource_spans, 2, |scope_spans| {
            for_each_child(scope_spans, 2, |_span| {
                spans += 1;
                Ok(())
            })
        })
    })?;
    Ok(spans)
}

fn for_each_child(
    message: &[u8],
    number: u32,
    mut f: impl FnMut(&[u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        if key == wire::key(number, wire::LEN) {
            f(reader.bytes()?)?;
        } else {
            reader.skip(key, MAX_DEPTH)?;
        }
    }
    Ok(())
}

/// Offsets fit, because [`MAX_REQUEST_BYTES`] bounds the body and repairing at most triples it.
#[inline]
fn offset(at: usize) -> u32 {
    debug_assert!(u32::try_from(at).is_ok());
    u32::try_from(at).unwrap_or(NONE)
}

#[inline]
fn index(at: u32) -> usize {
    at as usize
}

/// A span of the scope at hand: the whole field, and where its payload begins.
#[derive(Clone, Copy)]
struct SpanField<'a> {
    start: usize,
    end: usize,
    payload: &'a [u8],
}

struct Walker<'a> {
    body: &'a [u8],
    rewriter: Rewriter,
    check: Check,
    out: Sliced,
    by_id: HashMap<TraceId, u32, SeededIds>,
    /// The trace of the span before, since spans of one trace come together.
    last_trace: u32,
    /// Scopes of the resource at hand by the bytes of their head.
    scope_of_head: HashMap<Cow<'a, [u8]>, u32>,
    /// Groups of the resource at hand by (trace, scope); filled only once a scope comes up for the second time.
    scattered: Option<HashMap<(u32, u32), u32>>,
    first_group_of_resource: usize,
    /// Spans of the scope at hand; kept for its capacity.
    fields: Vec<SpanField<'a>>,
}

impl<'a> Walker<'a> {
    fn new(body: &'a Bytes, limits: &Limits) -> Self {
        let max = if limits.max_attribute_bytes == 0 { usize::MAX } else { limits.max_attribute_bytes };
        Self {
            body,
            rewriter: Rewriter::new(max),
            check: Check::new(max),
            out: Sliced {
                body: body.clone(),
                rewritten: Vec::new(),
                segments: Vec::with_capacity(64),
                resources: Vec::with_capacity(8),
                scopes: Vec::with_capacity(8),
                groups: Vec::with_capacity(32),
                traces: Vec::with_capacity(32),
                span_count: 0,
                truncated: Truncated::default(),
                repaired: 0,
            },
            by_id: HashMap::with_hasher(SeededIds::new()),
            last_trace: NONE,
            scope_of_head: HashMap::new(),
            scattered: None,
            first_group_of_resource: 0,
            fields: Vec::new(),
        }
    }

    /// Where `rest`, a tail of the message that ends at `end`, begins in the body.
    #[inline]
    fn position(end: usize, rest: &[u8]) -> usize {
        end - rest.len()
    }

    fn request(&mut self) -> Result<(), SliceError> {
        let mut reader = Reader::new(self.body);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => {
                    let resource_spans = reader.bytes()?;
                    let end = Self::position(self.body.len(), reader.rest());
                    self.resource_spans(resource_spans, end)?;
                }
                _ if key >> 3 == 1 => return Err(WireError::WireType.into()),
                _ => reader.skip(key, MAX_DEPTH)?,
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, message: &'a [u8], end: usize) -> Result<(), SliceError> {
        let resource = offset(self.out.resources.len());
        self.out.resources.push(Chain::EMPTY);
        self.scope_of_head.clear();
        self.scattered = None;
        self.first_group_of_resource = self.out.groups.len();

        let mut reader = Reader::new(message);
        loop {
            let start = Self::position(end, reader.rest());
            let Some(key) = reader.key()? else { return Ok(()) };
            if key == 0x12 {
                let scope_spans = reader.bytes()?;
                let scope_end = Self::position(end, reader.rest());
                self.scope_spans(scope_spans, scope_end, resource)?;
                continue;
            }
            self.check.dirty = false;
            self.check.resource_spans_field(key, &mut reader, MAX_DEPTH - 1)?;
            let field = start..Self::position(end, reader.rest());
            let mut head = self.out.resources[index(resource)];
            self.append_head(&mut head, field, Shape::ResourceSpans);
            self.out.resources[index(resource)] = head;
        }
    }

    /// Two steps, because a field of the head may follow the spans: first the head and where the spans are, then the spans.
    fn scope_spans(&mut self, message: &'a [u8], end: usize, resource: u32) -> Result<(), SliceError> {
        let mut head = Chain::EMPTY;
        let mut head_bytes: Cow<'a, [u8]> = Cow::Borrowed(&[]);
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        let mut reader = Reader::new(message);
        loop {
            let start = Self::position(end, reader.rest());
            let Some(key) = reader.key()? else { break };
            if key == 0x12 {
                let payload = reader.bytes()?;
                fields.push(SpanField { start, end: Self::position(end, reader.rest()), payload });
                continue;
            }
            self.check.dirty = false;
            self.check.scope_spans_field(key, &mut reader, MAX_DEPTH - 2)?;
            let field = start..Self::position(end, reader.rest());
            let bytes = &self.body[field.clone()];
            if head_bytes.is_empty() {
                head_bytes = Cow::Borrowed(bytes);
            } else {
                head_bytes.to_mut().extend_from_slice(bytes);
            }
            self.append_head(&mut head, field, Shape::ScopeSpans);
        }
        if !fields.is_empty() {
            let scope = self.scope(resource, head, head_bytes);
            for field in &fields {
                self.span(field, scope)?;
            }
        }
        self.fields = fields;
        Ok(())
    }

    fn scope(&mut self, resource: u32, head: Head, head_bytes: Cow<'a, [u8]>) -> u32 {
        let new = offset(self.out.scopes.len());
        let scope = *self.scope_of_head.entry(head_bytes).or_insert(new);
        if scope == new {
            self.out.scopes.push(Scope { resource, head });
        } else if self.scattered.is_none() {
            let groups = self.out.groups.iter().enumerate().skip(self.first_group_of_resource);
            self.scattered = Some(groups.map(|(at, group)| ((group.trace, group.scope), offset(at))).collect());
        }
        scope
    }

    fn span(&mut self, field: &SpanField<'a>, scope: u32) -> Result<(), SliceError> {
        self.check.dirty = false;
        let facts = self.check.span(field.payload, MAX_DEPTH - 3)?;
        let id = valid_ids(&facts)?;
        let trace = self.trace(id);
        let group = self.group(trace, scope);

        let slot = &mut self.out.traces[index(trace)];
        slot.span_count += 1;
        slot.start_unix_nano = slot.start_unix_nano.min(facts.start_unix_nano);
        slot.end_unix_nano = slot.end_unix_nano.max(facts.end_unix_nano);
        self.out.span_count += 1;

        let mut spans = self.out.groups[index(group)].spans;
        if self.check.dirty {
            let start = self.out.rewritten.len();
            self.rewriter.child_field(0x12, field.payload, Shape::Span, &mut self.out.rewritten);
            self.append_rewritten(&mut spans, start);
        } else {
            self.append(&mut spans, field.start, field.end);
        }
        self.out.groups[index(group)].spans = spans;
        Ok(())
    }

    #[inline]
    fn trace(&mut self, id: TraceId) -> u32 {
        if let Some(last) = self.out.traces.get(index(self.last_trace))
            && last.id == id
        {
            return self.last_trace;
        }
        let new = offset(self.out.traces.len());
        let trace = *self.by_id.entry(id).or_insert(new);
        if trace == new {
            self.out.traces.push(SlicedTrace {
                id,
                encoded_len: 0,
                span_count: 0,
                start_unix_nano: u64::MAX,
                end_unix_nano: 0,
                first_group: NONE,
                last_group: NONE,
            });
        }
        self.last_trace = trace;
        trace
    }

    #[inline]
    fn group(&mut self, trace: u32, scope: u32) -> u32 {
        let last = self.out.traces[index(trace)].last_group;
        if let Some(group) = self.out.groups.get(index(last))
            && group.scope == scope
        {
            return last;
        }
        let new = offset(self.out.groups.len());
        if let Some(scattered) = &mut self.scattered {
            let group = *scattered.entry((trace, scope)).or_insert(new);
            if group != new {
                return group;
            }
        }
        self.out.groups.push(Group {
            trace,
            scope,
            next: NONE,
            spans: Chain::EMPTY,
            scope_spans_len: 0,
            resource_spans_len: 0,
        });
        let slot = &mut self.out.traces[index(trace)];
        slot.last_group = new;
        if last == NONE {
            slot.first_group = new;
        } else {
            self.out.groups[index(last)].next = new;
        }
        new
    }

    fn append_head(&mut self, head: &mut Head, field: std::ops::Range<usize>, parent: Shape) {
        if self.check.dirty {
            let start = self.out.rewritten.len();
            self.rewriter.fields(&self.body[field], parent, &mut self.out.rewritten);
            self.append_rewritten(head, start);
        } else {
            self.append(head, field.start, field.end);
        }
    }

    fn append_rewritten(&mut self, chain: &mut Chain, start: usize) {
        // One byte of distance, so that no segment of the body can seem to continue in the rewritten bytes.
        let base = self.body.len() + 1;
        self.append(chain, base + start, base + self.out.rewritten.len());
    }

    #[inline]
    fn append(&mut self, chain: &mut Chain, start: usize, end: usize) {
        let (start, end) = (offset(start), offset(end));
        chain.bytes += end - start;
        if let Some(last) = self.out.segments.get_mut(index(chain.last))
            && last.end == start
        {
            last.end = end;
            return;
        }
        let new = offset(self.out.segments.len());
        self.out.segments.push(Segment { start, end, next: NONE });
        if chain.first == NONE {
            chain.first = new;
        } else {
            self.out.segments[index(chain.last)].next = new;
        }
        chain.last = new;
    }

    fn finish(mut self) -> Sliced {
        for group in &mut self.out.groups {
            let scope = self.out.scopes[index(group.scope)];
            let resource = self.out.resources[index(scope.resource)];
            group.scope_spans_len = scope.head.bytes + group.spans.bytes;
            let scope_spans_field = wire::len_field_size(index(group.scope_spans_len));
            group.resource_spans_len = resource.bytes + offset(scope_spans_field);
            let trace = &mut self.out.traces[index(group.trace)];
            trace.encoded_len += wire::len_field_size(index(group.resource_spans_len));
        }
        self.out.truncated = self.rewriter.truncated;
        self.out.repaired = self.rewriter.repaired;
        self.out
    }
}

/// An all-zero id counts as an empty one, as in OpenTelemetry's own libraries.
fn valid_ids(facts: &SpanFacts<'_>) -> Result<TraceId, SliceError> {
    let bits = |id: &[u8]| if id.iter().all(|b| *b == 0) { 0 } else { id.len() * 8 };
    let id = TraceId::from_slice(facts.trace_id).filter(|id| !id.is_zero());
    let id = id.ok_or_else(|| SliceError::TraceId { bits: bits(facts.trace_id) })?;
    let span = SpanId::from_slice(facts.span_id).filter(|id| !id.is_zero());
    span.map(|_| id).ok_or_else(|| SliceError::SpanId { bits: bits(facts.span_id) })
}

/// Hashing of trace ids by two multiplications. Seeded, because clients choose the ids and could make them collide otherwise.
#[derive(Clone)]
struct SeededIds(u64, u64);

impl SeededIds {
    fn new() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(0), random.hash_one(1))
    }
}

impl BuildHasher for SeededIds {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { state: self.0, seed: self.1 | 1 }
    }
}

struct IdHasher {
    state: u64,
    seed: u64,
}

impl IdHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.seed);
        let high = u64::try_from(product >> 64).unwrap_or_default();
        let low = u64::try_from(product & u128::from(u64::MAX)).unwrap_or_default();
        self.state = high ^ low.rotate_left(23) ^ self.seed;
    }
}

impl Hasher for IdHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_usize(&mut self, _length_prefix: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests;

//! The pieces of a trace on their way between components: many small messages instead of one that holds everything.
//!
//! A batch holds parts of about [`BATCH_BYTES`]. A part that is larger by itself is cut between spans; each piece names the
//! resource and the scope again, so that it is a whole `tempopb.Trace`. A span is never cut.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::vivace::{FindTraceBatch, FindTraceRequest};
use crate::wire::{self, Reader, WireError};

/// Parts of one message take about this much.
pub const BATCH_BYTES: usize = 4 << 20;
/// How long the pieces of a trace may be on their way: as long as it takes a slow reader to take a large one. Whoever waits for the
/// next piece bounds that by a time limit of its own.
pub const LONGEST: Duration = Duration::from_secs(600);

const RESOURCE_SPANS: u32 = 0x0a;
const SCOPE_SPANS: u32 = 0x12;
const SPAN: u32 = 0x12;

/// The page that a request is for, none for the whole trace: from when on, and how many of the spans that start later.
#[must_use]
pub fn page(request: &FindTraceRequest) -> Option<(u64, usize)> {
    let spans = usize::try_from(request.page_spans).unwrap_or(usize::MAX);
    (spans > 0).then_some((request.page_from_unix_nano, spans))
}

/// Batches with all of `parts`, each an encoded `tempopb.Trace`, made one by one. Only `parts` is set in them.
#[must_use]
pub fn batches(parts: Vec<Bytes>) -> Batches {
    Batches { parts: parts.into(), pieces: None }
}

/// See [`batches`].
#[derive(Debug)]
pub struct Batches {
    parts: VecDeque<Bytes>,
    pieces: Option<Pieces>,
}

impl Iterator for Batches {
    type Item = Result<FindTraceBatch, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = FindTraceBatch::default();
        let mut bytes = 0;
        loop {
            if let Some(pieces) = &mut self.pieces {
                match pieces.next() {
                    // Pieces are as large as a batch may be.
                    Some(Ok(piece)) => {
                        batch.parts.push(piece);
                        return Some(Ok(batch));
                    }
                    Some(Err(error)) => {
                        self.pieces = None;
                        return Some(Err(error));
                    }
                    None => self.pieces = None,
                }
            }
            let next = self.parts.front().map(Bytes::len);
            match next {
                Some(len) if bytes > 0 && bytes + len > BATCH_BYTES => return Some(Ok(batch)),
                Some(len) => {
                    let Some(part) = self.parts.pop_front() else { continue };
                    if len > BATCH_BYTES {
                        self.pieces = Some(pieces(part, BATCH_BYTES));
                    } else {
                        bytes += len;
                        batch.parts.push(part);
                    }
                }
                None if batch.parts.is_empty() => return None,
                None => return Some(Ok(batch)),
            }
        }
    }
}

/// Cuts an encoded `tempopb.Trace` into ones of about `max_bytes`, except for spans that are larger. Together they say the same.
/// What can be is a slice of `trace`.
#[must_use]
pub fn pieces(trace: Bytes, max_bytes: usize) -> Pieces {
    Pieces { max_bytes, rest: trace, resource: None }
}

/// See [`pieces`].
#[derive(Debug)]
pub struct Pieces {
    max_bytes: usize,
    rest: Bytes,
    /// The `ResourceSpans` that is being cut.
    resource: Option<Level>,
}

/// A message that is being cut: what each of its pieces repeats, and what is still to come.
#[derive(Debug)]
struct Level {
    /// Fields other than the children.
    head: Bytes,
    rest: Bytes,
    /// The child that is being cut as well.
    child: Option<Box<Level>>,
}

/// One field with its key and length.
struct Field {
    key: u32,
    whole: Bytes,
    value: Bytes,
}

/// Takes the first field off `rest`.
fn take(rest: &mut Bytes) -> Result<Option<Field>, WireError> {
    let mut reader = Reader::new(rest);
    let Some(key) = reader.key()? else { return Ok(None) };
    let value = if key & 7 == wire::LEN {
        rest.slice_ref(reader.bytes()?)
    } else {
        reader.skip(key, wire::GROUP_DEPTH)?;
        Bytes::new()
    };
    let whole = rest.len() - reader.rest().len();
    Ok(Some(Field { key, whole: rest.split_to(whole), value }))
}

impl Level {
    fn new(message: Bytes, child_key: u32) -> Result<Self, WireError> {
        let (mut walk, mut head) = (message.clone(), BytesMut::new());
        while let Some(field) = take(&mut walk)? {
            if field.key != child_key {
                head.put_slice(&field.whole);
            }
        }
        Ok(Self { head: head.freeze(), rest: message, child: None })
    }

    /// The next children of about `max_bytes`, and whether the first of what follows has to be cut itself.
    fn children(&mut self, child_key: u32, max_bytes: usize) -> Result<(BytesMut, Option<Bytes>), WireError> {
        let mut children = BytesMut::new();
        loop {
            let before = self.rest.clone();
            let Some(field) = take(&mut self.rest)? else { return Ok((children, None)) };
            if field.key != child_key {
                continue;
            }
            if field.whole.len() > max_bytes && children.is_empty() {
                return Ok((children, Some(field.value)));
            }
            if !children.is_empty() && children.len() + field.whole.len() > max_bytes {
                self.rest = before;
                return Ok((children, None));
            }
            children.put_slice(&field.whole);
        }
    }

    /// The message with these children.
    fn with(&self, key: u32, children: &[u8]) -> Bytes {
        let len = self.head.len() + children.len();
        let mut out = BytesMut::with_capacity(wire::len_field_size(len));
        wire::put_varint(&mut out, u64::from(key));
        wire::put_varint(&mut out, len as u64);
        out.put_slice(&self.head);
        out.put_slice(children);
        out.freeze()
    }
}

impl Pieces {
    fn piece(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            let Some(resource) = &mut self.resource else {
                match self.whole()? {
                    Some(piece) => return Ok(Some(piece)),
                    None if self.resource.is_some() => continue,
                    None => return Ok(None),
                }
            };
            if let Some(scope) = &mut resource.child {
                let (mut spans, giant) = scope.children(SPAN, self.max_bytes)?;
                if let Some(span) = giant {
                    // A span stays in one piece, whatever its size.
                    wire::put_varint(&mut spans, u64::from(SPAN));
                    wire::put_varint(&mut spans, span.len() as u64);
                    spans.put_slice(&span);
                }
                if spans.is_empty() {
                    resource.child = None;
                    continue;
                }
                let scope = scope.with(SCOPE_SPANS, &spans);
                return Ok(Some(resource.with(RESOURCE_SPANS, &scope)));
            }
            let (scopes, giant) = resource.children(SCOPE_SPANS, self.max_bytes)?;
            if let Some(scope) = giant {
                resource.child = Some(Box::new(Level::new(scope, SPAN)?));
                continue;
            }
            if scopes.is_empty() {
                self.resource = None;
                continue;
            }
            return Ok(Some(resource.with(RESOURCE_SPANS, &scopes)));
        }
    }

    /// As many whole fields as fit; none when there is nothing left, or when the next has to be cut.
    fn whole(&mut self) -> Result<Option<Bytes>, WireError> {
        let (all, mut taken) = (self.rest.clone(), 0);
        loop {
            let before = self.rest.clone();
            let Some(field) = take(&mut self.rest)? else { break };
            let len = field.whole.len();
            if len > self.max_bytes && taken == 0 && field.key == RESOURCE_SPANS {
                self.resource = Some(Level::new(field.value, SCOPE_SPANS)?);
                return Ok(None);
            }
            if taken > 0 && taken + len > self.max_bytes {
                self.rest = before;
                break;
            }
            taken += len;
        }
        Ok((taken > 0).then(|| all.slice(..taken)))
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.piece();
        if piece.is_err() {
            (self.rest, self.resource) = (Bytes::new(), None);
        }
        piece.transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::combine::{Batching, Combine};
    use crate::otlp::common::InstrumentationScope;
    use crate::otlp::resource::Resource;
    use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    use crate::tempopb::Trace;

    /// Names of spans by resource and scope.
    fn trace(resources: &[Vec<Vec<usize>>]) -> Bytes {
        let mut id: u64 = 0;
        let mut span = |len: &usize| {
            id += 1;
            Span {
                span_id: id.to_be_bytes().to_vec(),
                start_time_unix_nano: id,
                name: "n".repeat(*len),
                ..Span::default()
            }
        };
        let resources = resources.iter().enumerate().map(|(r, scopes)| ResourceSpans {
            resource: Some(Resource { dropped_attributes_count: u32::try_from(r).unwrap() + 1, ..Resource::default() }),
            scope_spans: scopes
                .iter()
                .enumerate()
                .map(|(s, spans)| ScopeSpans {
                    scope: Some(InstrumentationScope { name: format!("scope {s}"), ..InstrumentationScope::default() }),
                    spans: spans.iter().map(&mut span).collect(),
                    schema_url: "s".to_owned(),
                })
                .collect(),
            schema_url: "r".to_owned(),
        });
        Trace { resource_spans: resources.collect() }.encode_to_vec().into()
    }

    fn merged(parts: &[Bytes]) -> Bytes {
        Combine { max_bytes: 0, batching: Batching::Merge }.parts(parts).unwrap().trace
    }

    #[test]
    fn what_fits_is_a_slice_of_what_was_there() {
        let whole = trace(&[vec![vec![10, 10]], vec![vec![10]]]);
        let cut: Vec<_> = pieces(whole.clone(), 1 << 20).map(Result::unwrap).collect();
        assert_eq!(cut.len(), 1);
        assert_eq!(cut[0].as_ptr(), whole.as_ptr());
        assert_eq!(pieces(Bytes::new(), 10).count(), 0);
    }

    #[test]
    fn a_large_scope_is_cut_between_spans_and_named_again() {
        let whole = trace(&[vec![vec![100; 50]]]);
        let cut: Vec<_> = pieces(whole.clone(), 1000).map(Result::unwrap).collect();
        assert!(cut.len() > 5, "{}", cut.len());
        for piece in &cut {
            assert!(piece.len() < 1200, "{}", piece.len());
            let piece = Trace::decode(piece.clone()).unwrap();
            assert_eq!(piece.resource_spans[0].resource.as_ref().unwrap().dropped_attributes_count, 1);
            assert_eq!(piece.resource_spans[0].scope_spans[0].scope.as_ref().unwrap().name, "scope 0");
        }
        assert_eq!(merged(&cut), merged(&[whole]));
    }

    #[test]
    fn batches_hold_small_parts_together_and_large_ones_in_pieces() {
        let small = trace(&[vec![vec![1000]]]);
        let large = trace(&[vec![vec![1 << 20; 9]]]);
        let parts = vec![small.clone(), small.clone(), large, small];
        let all: Vec<_> = batches(parts.clone()).map(Result::unwrap).collect();
        for batch in &all {
            let bytes: usize = batch.parts.iter().map(Bytes::len).sum();
            assert!(bytes <= BATCH_BYTES + (1 << 20) + 100, "{bytes}");
        }
        assert!(all.len() >= 4, "{}", all.len());
        let back: Vec<Bytes> = all.into_iter().flat_map(|batch| batch.parts).collect();
        assert_eq!(merged(&back), merged(&parts));
        assert_eq!(batches(Vec::new()).count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_together_say_what_the_whole_said(
            resources in prop::collection::vec(prop::collection::vec(prop::collection::vec(0usize..300, 0..6), 0..4), 0..4),
            max in 1usize..2000,
        ) {
            let whole = trace(&resources);
            let cut: Vec<_> = pieces(whole.clone(), max).map(Result::unwrap).collect();
            prop_assert_eq!(merged(&cut), merged(&[whole]));
        }

        #[test]
        fn damaged_traces_are_errors_and_end(bytes in prop::collection::vec(prop_oneof![Just(0x0a), Just(0x12), 0u8..24, any::<u8>()], 0..80)) {
            prop_assert!(pieces(bytes.into(), 4).count() <= 81);
        }
    }
}

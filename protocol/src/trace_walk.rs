//! Walking over the spans of an encoded `tempopb.Trace` (or, the same bytes, an OTLP `TracesData` or export request) in place.

use std::borrow::Cow;

use crate::wire::{self, Reader, WireError};
use crate::{SpanId, TraceId};

/// One span and where it belongs. All parts are encoded messages without their key and length.
#[derive(Debug, Clone, Copy)]
pub struct SpanAt<'a> {
    /// Counts the `ResourceSpans` of the trace; it changes when `resource` does.
    pub resource_index: usize,
    /// An OTLP `Resource`, empty if there is none.
    pub resource: &'a [u8],
    /// Of the resource. Not checked to be UTF-8.
    pub resource_schema_url: &'a [u8],
    /// Counts the `ScopeSpans` over the whole trace; it changes when `scope` does.
    pub scope_index: usize,
    /// An OTLP `InstrumentationScope`, empty if there is none.
    pub scope: &'a [u8],
    /// Of the scope. Not checked to be UTF-8.
    pub scope_schema_url: &'a [u8],
    /// An OTLP `Span`.
    pub span: &'a [u8],
}

/// Calls `f` for every span, in order. Resources and scopes without spans are not seen.
///
/// What `f` gets are slices of `trace`, so [`bytes::Bytes::slice_ref`] makes them owned without copying. Except if a message was
/// written in several pieces, which no known writer does: resource and scope are then merged copies.
///
/// # Errors
/// The first fault of the outer three layers, or of `f`. Spans are not looked into.
pub fn for_each_span<E: From<WireError>>(
    trace: &[u8],
    mut f: impl FnMut(SpanAt<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut resource_index = 0;
    let mut scope_index = 0;
    let mut traces = Reader::new(trace);
    while let Some(resource_spans) = next_child(&mut traces, 0x0a)? {
        let (resource, resource_schema_url) = head(resource_spans)?;
        let mut scopes = Reader::new(resource_spans);
        while let Some(scope_spans) = next_child(&mut scopes, 0x12)? {
            let (scope, scope_schema_url) = head(scope_spans)?;
            let mut spans = Reader::new(scope_spans);
            while let Some(span) = next_child(&mut spans, 0x12)? {
                f(SpanAt {
                    resource_index,
                    resource: &resource,
                    resource_schema_url,
                    scope_index,
                    scope: &scope,
                    scope_schema_url,
                    span,
                })?;
            }
            scope_index += 1;
        }
        resource_index += 1;
    }
    Ok(())
}

/// The next field with this key, others left out.
fn next_child<'a>(reader: &mut Reader<'a>, wanted: u32) -> Result<Option<&'a [u8]>, WireError> {
    while let Some(key) = reader.key()? {
        if key == wanted {
            return reader.bytes().map(Some);
        }
        reader.skip(key, wire::GROUP_DEPTH)?;
    }
    Ok(None)
}

/// Field 1 (resource or scope) and field 3 (schema URL) of a `ResourceSpans` or `ScopeSpans`.
fn head(message: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), WireError> {
    let mut first = Cow::Borrowed(&[][..]);
    let mut schema_url = &[][..];
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            0x0a => {
                let piece = reader.bytes()?;
                if first.is_empty() {
                    first = Cow::Borrowed(piece);
                } else {
                    // Pieces of one message merge by being read one after the other.
                    first.to_mut().extend_from_slice(piece);
                }
            }
            0x1a => schema_url = reader.bytes()?,
            _ => reader.skip(key, wire::GROUP_DEPTH)?,
        }
    }
    Ok((first, schema_url))
}

/// The fields of a span that identify and place it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanHead {
    /// Zero if the span has no id of 8 bytes.
    pub span_id: SpanId,
    /// `None` for a root span, also if the parent is written as zeros or has not 8 bytes.
    pub parent: Option<SpanId>,
    /// An OTLP `SpanKind`, also an unknown one.
    pub kind: i32,
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
}

impl SpanHead {
    /// Reads them from an encoded OTLP `Span`, stepping over everything else.
    ///
    /// # Errors
    /// If the outer layer of the span cannot be read.
    pub fn read(span: &[u8]) -> Result<Self, WireError> {
        let mut head = Self::default();
        let mut reader = Reader::new(span);
        while let Some(key) = reader.key()? {
            match key {
                0x12 => head.span_id = SpanId::from_slice(reader.bytes()?).unwrap_or_default(),
                0x22 => head.parent = SpanId::from_slice(reader.bytes()?).filter(|id| !id.is_zero()),
                0x30 => head.kind = wire::int32(reader.varint()?),
                0x39 => head.start_unix_nano = reader.fixed64()?,
                0x41 => head.end_unix_nano = reader.fixed64()?,
                _ => reader.skip(key, wire::GROUP_DEPTH)?,
            }
        }
        Ok(head)
    }

    /// What makes two copies of a span the same span within a trace.
    pub fn identity(&self) -> SpanIdentity {
        SpanIdentity { span_id: self.span_id, kind: self.kind, start_unix_nano: self.start_unix_nano }
    }
}

/// Within a trace, spans with the same identity are one span, sent or stored more than once. The kind belongs to it, because Zipkin's
/// client and server spans share their id; the start, because some clients reuse ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanIdentity {
    pub span_id: SpanId,
    pub kind: i32,
    pub start_unix_nano: u64,
}

/// The trace id that an encoded OTLP `Span` carries, if it has 16 bytes.
///
/// # Errors
/// If the outer layer of the span cannot be read.
pub fn trace_id(span: &[u8]) -> Result<Option<TraceId>, WireError> {
    let mut id = None;
    let mut reader = Reader::new(span);
    while let Some(key) = reader.key()? {
        match key {
            0x0a => id = TraceId::from_slice(reader.bytes()?),
            _ => reader.skip(key, wire::GROUP_DEPTH)?,
        }
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    use crate::otlp::{common, resource};
    use crate::tempopb::Trace;

    fn span(id: u8, kind: i32) -> Span {
        Span {
            trace_id: vec![9; 16],
            span_id: vec![id; 8],
            parent_span_id: if id == 1 { vec![0; 8] } else { vec![1; 8] },
            kind,
            start_time_unix_nano: 100 + u64::from(id),
            end_time_unix_nano: 200 + u64::from(id),
            ..Span::default()
        }
    }

    #[test]
    fn every_span_comes_with_its_resource_and_scope() {
        let scope = |name: &str| common::InstrumentationScope { name: name.to_owned(), ..Default::default() };
        let trace = Trace {
            resource_spans: vec![
                ResourceSpans {
                    resource: Some(resource::Resource { dropped_attributes_count: 7, ..Default::default() }),
                    scope_spans: vec![
                        ScopeSpans {
                            scope: Some(scope("a")),
                            spans: vec![span(1, 2), span(2, 3)],
                            schema_url: "s".into(),
                        },
                        ScopeSpans { scope: Some(scope("b")), spans: vec![span(3, -1)], schema_url: String::new() },
                    ],
                    schema_url: "r".into(),
                },
                ResourceSpans {
                    scope_spans: vec![ScopeSpans { spans: vec![span(4, 1)], ..Default::default() }],
                    ..Default::default()
                },
            ],
        };
        let encoded = Bytes::from(trace.encode_to_vec());
        let mut seen = Vec::new();
        for_each_span::<WireError>(&encoded, |at| {
            // A slice of the trace, so it can be kept without a copy.
            let kept = encoded.slice_ref(at.span);
            let head = SpanHead::read(&kept)?;
            assert_eq!(trace_id(&kept)?, Some(TraceId([9; 16])));
            seen.push((
                at.resource_index,
                at.scope_index,
                head.span_id.0[0],
                head.parent,
                head.kind,
                head.start_unix_nano,
            ));
            if at.resource_index == 0 {
                assert_eq!(resource::Resource::decode(at.resource).unwrap().dropped_attributes_count, 7);
                assert_eq!(at.resource_schema_url, b"r");
            }
            Ok(())
        })
        .unwrap();
        let parent = Some(SpanId([1; 8]));
        assert_eq!(
            seen,
            [(0, 0, 1, None, 2, 101), (0, 0, 2, parent, 3, 102), (0, 1, 3, parent, -1, 103), (1, 2, 4, parent, 1, 104)]
        );
    }

    #[test]
    fn a_resource_in_two_pieces_is_merged() {
        let piece = |key: &str| {
            let attribute = common::KeyValue { key: key.to_owned(), ..Default::default() };
            let resource = resource::Resource { attributes: vec![attribute], ..Default::default() };
            ResourceSpans { resource: Some(resource), ..Default::default() }.encode_to_vec()
        };
        let spans = ScopeSpans { spans: vec![span(1, 1)], ..Default::default() };
        let mut resource_spans = [piece("a"), piece("b")].concat();
        resource_spans.extend(ResourceSpans { scope_spans: vec![spans], ..Default::default() }.encode_to_vec());
        let mut trace = Vec::new();
        prost::encoding::bytes::encode(1, &resource_spans, &mut trace);
        let mut keys = Vec::new();
        for_each_span::<WireError>(&trace, |at| {
            keys = resource::Resource::decode(at.resource).unwrap().attributes.into_iter().map(|kv| kv.key).collect();
            Ok(())
        })
        .unwrap();
        assert_eq!(keys, ["a", "b"]);
    }
}

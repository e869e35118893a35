//! One walk over the bytes of a trace: every span's fixed fields, and the values of the attributes that are wanted.

use std::collections::HashSet;

use smallvec::SmallVec;
use vivace_protocol::wire::{Reader, WireError};

use super::{
    any::{self, GROUP_DEPTH},
    positions::{Node, Position, positions},
    wants::Wants,
};

/// Marks a slot without value.
const NONE: u32 = u32::MAX;
/// Up to this many spans, repeats are found by comparing all with all.
const FEW: usize = 16;

/// By slot; encoded values, none where the key is absent.
pub(super) type Values<'a> = SmallVec<[Option<&'a [u8]>; 2]>;

/// The resource of some spans, as far as it is wanted.
#[derive(Debug, Default)]
pub(super) struct ResourceView<'a> {
    pub(super) pieces: SmallVec<[&'a [u8]; 1]>,
    pub(super) service: &'a [u8],
    pub(super) values: Values<'a>,
}

/// The instrumentation scope of some spans, as far as it is wanted.
#[derive(Debug, Default)]
pub(super) struct ScopeView<'a> {
    pub(super) pieces: SmallVec<[&'a [u8]; 1]>,
    pub(super) name: &'a [u8],
    pub(super) version: &'a [u8],
    pub(super) values: Values<'a>,
}

/// One span.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpanView<'a> {
    pub(super) message: &'a [u8],
    /// Number of the span in its trace, passed over and repeated ones counted.
    pub(super) row: u32,
    pub(super) resource: u32,
    pub(super) scope: u32,
    pub(super) id: &'a [u8],
    pub(super) parent: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) kind: u8,
    pub(super) status: u8,
    pub(super) status_message: &'a [u8],
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) has_links: bool,
    /// The last of its values in [`TraceView::hits`].
    hits: u32,
}

/// A wanted attribute of a span: slot, encoded value, and the one before of the same span.
type Hit<'a> = (u32, &'a [u8], u32);

/// One trace, spans in order of arrival and each once.
#[derive(Debug, Default)]
pub(super) struct TraceView<'a> {
    pub(super) resources: Vec<ResourceView<'a>>,
    pub(super) scopes: Vec<ScopeView<'a>>,
    pub(super) spans: Vec<SpanView<'a>>,
    hits: Vec<Hit<'a>>,
    /// Spans so far.
    rows: u32,
    /// Spans that came more than once.
    pub(super) repeats: usize,
}

/// How to walk a trace.
pub(super) struct Way<'w, F> {
    pub(super) wants: &'w Wants,
    /// It is known that no span comes twice.
    pub(super) unique: bool,
    /// Whether of the spans of a resource nothing is to be read.
    pub(super) pass_over: F,
}

impl<'a> TraceView<'a> {
    /// Walks `parts`, each an encoded `tempopb.Trace`, and replaces what it held before: one that is used again allocates nothing.
    pub(super) fn walk<F: Fn(&ResourceView<'a>) -> Result<bool, WireError>>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
        way: &Way<'_, F>,
    ) -> Result<(), WireError> {
        self.resources.clear();
        self.scopes.clear();
        self.spans.clear();
        self.hits.clear();
        (self.rows, self.repeats) = (0, 0);
        for part in parts {
            let mut reader = Reader::new(part);
            while let Some(key) = reader.key()? {
                if key == 0x0a {
                    self.resource_spans(reader.bytes()?, way)?;
                } else {
                    reader.skip(key, GROUP_DEPTH)?;
                }
            }
        }
        if !way.unique {
            self.drop_repeats();
        }
        Ok(())
    }

    fn resource_spans<F: Fn(&ResourceView<'a>) -> Result<bool, WireError>>(
        &mut self,
        message: &'a [u8],
        way: &Way<'_, F>,
    ) -> Result<(), WireError> {
        let wants = way.wants;
        // The resource may come behind its spans, so it is looked for first.
        let mut resource = ResourceView { values: nones(&wants.resource_keys), ..ResourceView::default() };
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            if key == 0x0a && wants.resources() {
                let piece = reader.bytes()?;
                resource.pieces.push(piece);
                resource.read(piece, &wants.resource_keys)?;
            } else {
                reader.skip(key, GROUP_DEPTH)?;
            }
        }
        resource.drop_empty_name(&wants.resource_keys)?;
        if (way.pass_over)(&resource)? {
            self.rows += count(message)?;
            return Ok(());
        }
        let index = number(self.resources.len());
        self.resources.push(resource);
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            if key == 0x12 {
                self.scope_spans(reader.bytes()?, index, wants)?;
            } else {
                reader.skip(key, GROUP_DEPTH)?;
            }
        }
        Ok(())
    }

    fn scope_spans(&mut self, message: &'a [u8], resource: u32, wants: &Wants) -> Result<(), WireError> {
        let mut scope = ScopeView { values: nones(&wants.scope_keys), ..ScopeView::default() };
        let index = number(self.scopes.len());
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a if wants.scopes() => {
                    let piece = reader.bytes()?;
                    scope.pieces.push(piece);
                    scope.read(piece, &wants.scope_keys)?;
                }
                0x12 => {
                    let message = reader.bytes()?;
                    self.span(message, resource, index, wants)?;
                }
                _ => reader.skip(key, GROUP_DEPTH)?,
            }
        }
        self.scopes.push(scope);
        Ok(())
    }

    #[inline]
    fn span(&mut self, message: &'a [u8], resource: u32, scope: u32, wants: &Wants) -> Result<(), WireError> {
        let mut span = SpanView {
            message,
            row: self.rows,
            resource,
            scope,
            id: &[],
            parent: &[],
            name: &[],
            kind: 0,
            status: 0,
            status_message: &[],
            start: 0,
            end: 0,
            has_links: false,
            hits: NONE,
        };
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x12 => span.id = reader.bytes()?,
                0x22 => span.parent = reader.bytes()?,
                0x2a => span.name = reader.bytes()?,
                0x30 => span.kind = small(reader.varint()?),
                0x39 => span.start = reader.fixed64()?,
                0x41 => span.end = reader.fixed64()?,
                0x4a => {
                    let attribute = reader.bytes()?;
                    if !wants.span_keys.is_empty() {
                        self.attribute(&mut span, attribute, wants)?;
                    }
                }
                0x6a => {
                    reader.bytes()?;
                    span.has_links = true;
                }
                0x7a => {
                    let mut status = Reader::new(reader.bytes()?);
                    while let Some(key) = status.key()? {
                        match key {
                            0x12 => span.status_message = status.bytes()?,
                            0x18 => span.status = small(status.varint()?),
                            _ => status.skip(key, GROUP_DEPTH)?,
                        }
                    }
                }
                _ => reader.skip(key, GROUP_DEPTH)?,
            }
        }
        if is_zero(span.parent) {
            span.parent = &[];
        }
        self.rows += 1;
        self.spans.push(span);
        Ok(())
    }

    #[inline]
    fn attribute(&mut self, span: &mut SpanView<'a>, attribute: &'a [u8], wants: &Wants) -> Result<(), WireError> {
        let name = any::name(attribute)?;
        let Some(slot) = wants.span_keys.iter().position(|key| **key == *name) else { return Ok(()) };
        let slot = number(slot);
        let (_, value) = any::key_value(attribute)?;
        if self.span_value_encoded(span, slot).is_none() {
            self.hits.push((slot, value, span.hits));
            span.hits = number(self.hits.len() - 1);
        }
        Ok(())
    }

    fn span_value_encoded(&self, span: &SpanView<'a>, slot: u32) -> Option<&'a [u8]> {
        let mut at = span.hits;
        while let Some((found, value, before)) = self.hits.get(at as usize) {
            if *found == slot {
                return Some(value);
            }
            at = *before;
        }
        None
    }

    /// The encoded value of a wanted span attribute.
    #[inline]
    pub(super) fn span_value(&self, span: &SpanView<'a>, slot: usize) -> Option<&'a [u8]> {
        self.span_value_encoded(span, number(slot))
    }

    fn drop_repeats(&mut self) {
        let before = self.spans.len();
        // The start first: it tells most spans apart.
        let identity = |span: &SpanView<'a>| (span.start, span.kind, span.id);
        if before <= FEW {
            let mut kept = 0;
            for row in 0..before {
                let this = identity(&self.spans[row]);
                if !self.spans[..kept].iter().any(|span| identity(span) == this) {
                    self.spans.swap(kept, row);
                    kept += 1;
                }
            }
            self.spans.truncate(kept);
        } else {
            let mut seen = HashSet::with_capacity(before);
            self.spans.retain(|span| seen.insert(identity(span)));
        }
        self.repeats = before - self.spans.len();
    }

    /// Earliest start and latest end; zeros count as unknown for the start.
    pub(super) fn bounds(&self) -> (u64, u64) {
        let start = self.spans.iter().map(|span| span.start).filter(|start| *start > 0).min().unwrap_or(0);
        (start, self.spans.iter().map(|span| span.end).max().unwrap_or(0))
    }

    pub(super) fn resource(&self, span: &SpanView<'a>) -> &ResourceView<'a> {
        &self.resources[span.resource as usize]
    }

    pub(super) fn scope(&self, span: &SpanView<'a>) -> &ScopeView<'a> {
        &self.scopes[span.scope as usize]
    }

    pub(super) fn positions(&self) -> Vec<Position> {
        let nodes: Vec<Node> = self
            .spans
            .iter()
            .map(|span| Node {
                id: u64::from_be_bytes(id8(span.id)),
                parent: (!span.parent.is_empty()).then(|| u64::from_be_bytes(id8(span.parent))),
                kind: span.kind,
            })
            .collect();
        positions(&nodes)
    }

    /// The last span without parent that is not linked as a child of a span of the same trace.
    pub(super) fn root(&self, trace: &[u8; 16]) -> Result<Option<&SpanView<'a>>, WireError> {
        for span in self.spans.iter().rev().filter(|span| span.parent.is_empty()) {
            if !span.has_links || !is_linked_child(span.message, trace)? {
                return Ok(Some(span));
            }
        }
        Ok(None)
    }
}

/// Spans of an encoded `ResourceSpans`.
fn count(resource_spans: &[u8]) -> Result<u32, WireError> {
    let mut spans = 0;
    let mut reader = Reader::new(resource_spans);
    while let Some(key) = reader.key()? {
        if key != 0x12 {
            reader.skip(key, GROUP_DEPTH)?;
            continue;
        }
        let mut scope = Reader::new(reader.bytes()?);
        while let Some(key) = scope.key()? {
            scope.skip(key, GROUP_DEPTH)?;
            spans += u32::from(key == 0x12);
        }
    }
    Ok(spans)
}

fn is_linked_child(span: &[u8], trace: &[u8; 16]) -> Result<bool, WireError> {
    let mut reader = Reader::new(span);
    while let Some(key) = reader.key()? {
        if key != 0x6a {
            reader.skip(key, GROUP_DEPTH)?;
            continue;
        }
        let (mut same_trace, mut child_of) = (false, false);
        let mut link = Reader::new(reader.bytes()?);
        while let Some(key) = link.key()? {
            match key {
                0x0a => same_trace = link.bytes()? == trace,
                0x22 => {
                    let (name, value) = any::key_value(link.bytes()?)?;
                    let is_child = matches!(any::cell(value)?, crate::read::cells::Cell::Str(b"child_of"));
                    child_of |= name == b"opentracing.ref_type" && is_child;
                }
                _ => link.skip(key, GROUP_DEPTH)?,
            }
        }
        if same_trace && child_of {
            return Ok(true);
        }
    }
    Ok(false)
}

impl<'a> ResourceView<'a> {
    fn read(&mut self, message: &'a [u8], keys: &[Box<[u8]>]) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            if key != 0x0a {
                reader.skip(key, GROUP_DEPTH)?;
                continue;
            }
            let (name, value) = any::key_value(reader.bytes()?)?;
            if name == b"service.name"
                && self.service.is_empty()
                && let crate::read::cells::Cell::Str(service) = any::cell(value)?
            {
                self.service = service;
            }
            keep(&mut self.values, keys, name, value);
        }
        Ok(())
    }

    /// A service without a name is none: blocks cannot tell the two apart.
    fn drop_empty_name(&mut self, keys: &[Box<[u8]>]) -> Result<(), WireError> {
        let Some(slot) = keys.iter().position(|key| **key == *b"service.name") else { return Ok(()) };
        if let Some(value) = self.values[slot]
            && matches!(any::cell(value)?, crate::read::cells::Cell::Str(b""))
        {
            self.values[slot] = None;
        }
        Ok(())
    }
}

impl<'a> ScopeView<'a> {
    fn read(&mut self, message: &'a [u8], keys: &[Box<[u8]>]) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => self.name = reader.bytes()?,
                0x12 => self.version = reader.bytes()?,
                0x1a => {
                    let (name, value) = any::key_value(reader.bytes()?)?;
                    keep(&mut self.values, keys, name, value);
                }
                _ => reader.skip(key, GROUP_DEPTH)?,
            }
        }
        Ok(())
    }
}

fn nones<'a>(keys: &[Box<[u8]>]) -> Values<'a> {
    SmallVec::from_elem(None, keys.len())
}

/// The first value of a key counts.
fn keep<'a>(values: &mut [Option<&'a [u8]>], keys: &[Box<[u8]>], name: &[u8], value: &'a [u8]) {
    if let Some(slot) = keys.iter().position(|key| **key == *name) {
        values[slot].get_or_insert(value);
    }
}

pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(NONE)
}

/// Kinds and codes beyond those that OTLP has read as unspecified.
fn small(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(0)
}

fn is_zero(id: &[u8]) -> bool {
    id.iter().all(|byte| *byte == 0)
}

/// The first eight bytes of a span id, zeros where it is shorter.
pub(crate) fn id8(id: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    let len = id.len().min(8);
    out[8 - len..].copy_from_slice(&id[..len]);
    out
}

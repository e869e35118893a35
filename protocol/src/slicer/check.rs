//! Checks the messages of a request in place and notes whether something in them must be written anew.

use crate::wire::{Reader, WireError};

/// What the slicer needs to know of a span.
#[derive(Default)]
pub(super) struct SpanFacts<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) start_unix_nano: u64,
    pub(super) end_unix_nano: u64,
}

pub(super) struct Check {
    max_attribute_bytes: usize,
    /// Set when a text is too long or no UTF-8; the caller clears it.
    pub(super) dirty: bool,
}

/// Keys of the known fields below are spelled as bytes: field number times eight plus wire type. A field whose number is known but
/// whose key is not listed has the wrong wire type.
impl Check {
    pub(super) fn new(max_attribute_bytes: usize) -> Self {
        Self { max_attribute_bytes, dirty: false }
    }

    /// One field of `ResourceSpans` other than the scopes.
    pub(super) fn resource_spans_field(
        &mut self,
        key: u32,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<(), WireError> {
        match key {
            0x0a => self.resource(reader.bytes()?, enter(depth)?),
            0x1a => self.text(reader),
            _ => unknown(key, 3, reader, depth),
        }
    }

    /// One field of `ScopeSpans` other than the spans.
    pub(super) fn scope_spans_field(&mut self, key: u32, reader: &mut Reader<'_>, depth: u32) -> Result<(), WireError> {
        match key {
            0x0a => self.scope(reader.bytes()?, enter(depth)?),
            0x1a => self.text(reader),
            _ => unknown(key, 3, reader, depth),
        }
    }

    fn resource(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => self.attribute(reader.bytes()?, enter(depth)?)?,
                0x10 => reader.varint().map(drop)?,
                0x1a => self.entity_ref(reader.bytes()?, enter(depth)?)?,
                _ => unknown(key, 3, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    fn entity_ref(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a | 0x12 | 0x1a | 0x22 => self.text(&mut reader)?,
                _ => unknown(key, 4, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    fn scope(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a | 0x12 => self.text(&mut reader)?,
                0x1a => self.attribute(reader.bytes()?, enter(depth)?)?,
                0x20 => reader.varint().map(drop)?,
                _ => unknown(key, 4, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    /// A span; its fields may come in any order, and of a field that comes twice the last one counts.
    #[inline]
    pub(super) fn span<'a>(&mut self, message: &'a [u8], depth: u32) -> Result<SpanFacts<'a>, WireError> {
        let mut facts = SpanFacts::default();
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => facts.trace_id = reader.bytes()?,
                0x12 => facts.span_id = reader.bytes()?,
                0x1a | 0x2a => self.text(&mut reader)?,
                0x22 => reader.bytes().map(drop)?,
                0x30 | 0x50 | 0x60 | 0x70 => reader.varint().map(drop)?,
                0x39 => facts.start_unix_nano = reader.fixed64()?,
                0x41 => facts.end_unix_nano = reader.fixed64()?,
                0x4a => self.attribute(reader.bytes()?, enter(depth)?)?,
                0x5a => self.event(reader.bytes()?, enter(depth)?)?,
                0x6a => self.link(reader.bytes()?, enter(depth)?)?,
                0x7a => self.status(reader.bytes()?, enter(depth)?)?,
                0x85 => reader.fixed32().map(drop)?,
                _ => unknown(key, 16, &mut reader, depth)?,
            }
        }
        Ok(facts)
    }

    fn event(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x09 => reader.fixed64().map(drop)?,
                0x12 => self.text(&mut reader)?,
                0x1a => self.attribute(reader.bytes()?, enter(depth)?)?,
                0x20 => reader.varint().map(drop)?,
                _ => unknown(key, 4, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    fn link(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a | 0x12 => reader.bytes().map(drop)?,
                0x1a => self.text(&mut reader)?,
                0x22 => self.attribute(reader.bytes()?, enter(depth)?)?,
                0x28 => reader.varint().map(drop)?,
                0x35 => reader.fixed32().map(drop)?,
                _ => unknown(key, 6, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    fn status(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x12 => self.text(&mut reader)?,
                0x18 => reader.varint().map(drop)?,
                // Number 1 is retired: whatever is there counts as unknown.
                _ if key >> 3 == 1 => reader.skip(key, depth)?,
                _ => unknown(key, 3, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    /// A `KeyValue` whose key and direct text value are bounded.
    #[inline]
    fn attribute(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        if self.is_plain_attribute(message) {
            return Ok(());
        }
        self.key_value(message, self.max_attribute_bytes, depth)
    }

    /// Whether this is an attribute as nearly all are: a short ASCII key, then a text, boolean, integer or double, written in that order
    /// and with nothing to be changed. No more than a shortcut: all others are looked at field by field.
    #[inline]
    fn is_plain_attribute(&self, message: &[u8]) -> bool {
        let [0x0a, key_len @ ..0x80, rest @ ..] = message else { return false };
        let Some((key, rest)) = rest.split_at_checked(usize::from(*key_len)) else { return false };
        let [0x12, value_len @ ..0x80, value_key, value @ ..] = rest else { return false };
        if usize::from(*value_len) != value.len() + 1 || key.len() > self.max_attribute_bytes {
            return false;
        }
        match (value_key, value) {
            // Lengths and keys are below 0x80 here, so one look tells that both texts are ASCII.
            (0x0a, [len @ ..0x80, text @ ..]) => {
                usize::from(*len) == text.len() && text.len() <= self.max_attribute_bytes && is_ascii(message)
            }
            (0x10 | 0x18, varint) => {
                let mut reader = Reader::new(varint);
                reader.varint().is_ok() && reader.rest().is_empty() && is_ascii(key)
            }
            (0x21, double) => double.len() == 8 && is_ascii(key),
            _ => false,
        }
    }

    #[inline]
    fn key_value(&mut self, message: &[u8], max: usize, depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => self.bounded_text(&mut reader, max)?,
                0x12 => self.any_value(reader.bytes()?, max, enter(depth)?)?,
                0x18 => reader.varint().map(drop)?,
                _ => unknown(key, 3, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn any_value(&mut self, message: &[u8], max: usize, depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => self.bounded_text(&mut reader, max)?,
                0x10 | 0x18 | 0x40 => reader.varint().map(drop)?,
                0x21 => reader.fixed64().map(drop)?,
                0x2a => self.array(reader.bytes()?, enter(depth)?)?,
                0x32 => self.key_value_list(reader.bytes()?, enter(depth)?)?,
                0x3a => reader.bytes().map(drop)?,
                _ => unknown(key, 8, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    fn array(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => self.any_value(reader.bytes()?, usize::MAX, enter(depth)?)?,
                _ => unknown(key, 1, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    fn key_value_list(&mut self, message: &[u8], depth: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => self.key_value(reader.bytes()?, usize::MAX, enter(depth)?)?,
                _ => unknown(key, 1, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn text(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        self.bounded_text(reader, usize::MAX)
    }

    #[inline]
    fn bounded_text(&mut self, reader: &mut Reader<'_>, max: usize) -> Result<(), WireError> {
        let text = reader.bytes()?;
        self.dirty |= text.len() > max || !is_utf8(text);
        Ok(())
    }
}

/// Texts are short and nearly always ASCII, which is quicker to see than UTF-8 is to check.
#[inline]
fn is_utf8(text: &[u8]) -> bool {
    is_ascii(text) || std::str::from_utf8(text).is_ok()
}

/// As the standard library's, but inlined and without a loop by bytes for the tail: the last eight bytes may be looked at twice.
#[inline]
fn is_ascii(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().fold(0, |all, byte| all | byte) < 0x80;
    };
    let words = text.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
    words.fold(u64::from_ne_bytes(*last), |all, word| all | word) & 0x8080_8080_8080_8080 == 0
}

#[inline]
fn enter(depth: u32) -> Result<u32, WireError> {
    match depth {
        0 => Err(WireError::TooDeep),
        _ => Ok(depth - 1),
    }
}

/// Steps over a field that is not known; one whose number is known (all up to `known` are) has the wrong wire type.
#[cold]
fn unknown(key: u32, known: u32, reader: &mut Reader<'_>, depth: u32) -> Result<(), WireError> {
    if key >> 3 <= known {
        return Err(WireError::WireType);
    }
    if depth == 0 {
        return Err(WireError::TooDeep);
    }
    reader.skip(key, depth)
}

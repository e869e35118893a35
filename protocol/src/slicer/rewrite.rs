//! Writes a message anew with over-long attribute texts cut and texts that are not UTF-8 repaired. The slow path: taken only for
//! messages that need it, after they have been checked.

use std::borrow::Cow;

use crate::wire::{self, Reader};

/// How many keys and values were cut, by where the attribute sits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Truncated {
    pub resource: u64,
    pub scope: u64,
    pub span: u64,
    pub event: u64,
    pub link: u64,
}

impl Truncated {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.resource + self.scope + self.span + self.event + self.link
    }
}

/// Where an attribute sits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Resource,
    Scope,
    Span,
    Event,
    Link,
}

/// The messages of a request, as far as rewriting must tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    ResourceSpans,
    Resource,
    EntityRef,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    Status,
    /// A `KeyValue` whose texts are bounded.
    Attribute(Owner),
    /// The `AnyValue` directly in an attribute.
    AttributeValue(Owner),
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

enum Field {
    Copy,
    Text,
    BoundedText(Owner),
    Message(Shape),
}

impl Shape {
    /// What a length-delimited field of this message is.
    fn field(self, number: u32) -> Field {
        match (self, number) {
            (Self::ResourceSpans, 1) => Field::Message(Self::Resource),
            (Self::ScopeSpans, 1) => Field::Message(Self::Scope),
            (Self::ResourceSpans | Self::ScopeSpans, 3) => Field::Text,
            (Self::Resource, 1) => Field::Message(Self::Attribute(Owner::Resource)),
            (Self::Resource, 3) => Field::Message(Self::EntityRef),
            (Self::EntityRef, 1..=4) => Field::Text,
            (Self::Scope, 1 | 2) => Field::Text,
            (Self::Scope, 3) => Field::Message(Self::Attribute(Owner::Scope)),
            (Self::Span, 3 | 5) => Field::Text,
            (Self::Span, 9) => Field::Message(Self::Attribute(Owner::Span)),
            (Self::Span, 11) => Field::Message(Self::Event),
            (Self::Span, 13) => Field::Message(Self::Link),
            (Self::Span, 15) => Field::Message(Self::Status),
            (Self::Event, 2) => Field::Text,
            (Self::Event, 3) => Field::Message(Self::Attribute(Owner::Event)),
            (Self::Link, 3) => Field::Text,
            (Self::Link, 4) => Field::Message(Self::Attribute(Owner::Link)),
            (Self::Status, 2) => Field::Text,
            (Self::Attribute(owner) | Self::AttributeValue(owner), 1) => Field::BoundedText(owner),
            (Self::Attribute(owner), 2) => Field::Message(Self::AttributeValue(owner)),
            (Self::KeyValue | Self::AnyValue, 1) => Field::Text,
            (Self::KeyValue, 2) => Field::Message(Self::AnyValue),
            (Self::AttributeValue(_) | Self::AnyValue, 5) => Field::Message(Self::ArrayValue),
            (Self::AttributeValue(_) | Self::AnyValue, 6) => Field::Message(Self::KeyValueList),
            (Self::ArrayValue, 1) => Field::Message(Self::AnyValue),
            (Self::KeyValueList, 1) => Field::Message(Self::KeyValue),
            _ => Field::Copy,
        }
    }
}

pub(super) struct Rewriter {
    max_attribute_bytes: usize,
    pub(super) truncated: Truncated,
    /// Texts that were not UTF-8.
    pub(super) repaired: usize,
}

impl Rewriter {
    pub(super) fn new(max_attribute_bytes: usize) -> Self {
        Self { max_attribute_bytes, truncated: Truncated::default(), repaired: 0 }
    }

    /// Appends `payload` as a field with the given one-byte key.
    pub(super) fn child_field(&mut self, key: u32, payload: &[u8], shape: Shape, out: &mut Vec<u8>) {
        let mut child = Vec::with_capacity(payload.len());
        self.fields(payload, shape, &mut child);
        put_field(key, &child, out);
    }

    /// Appends the fields of a message that has been checked.
    pub(super) fn fields(&mut self, message: &[u8], shape: Shape, out: &mut Vec<u8>) {
        let mut reader = Reader::new(message);
        loop {
            let before = reader.rest();
            let Ok(Some(key)) = reader.key() else { break };
            let field = if key & 7 == wire::LEN { shape.field(key >> 3) } else { Field::Copy };
            if let Field::Copy = field {
                if reader.skip(key, super::MAX_DEPTH).is_err() {
                    break;
                }
                out.extend_from_slice(&before[..before.len() - reader.rest().len()]);
                continue;
            }
            let Ok(payload) = reader.bytes() else { break };
            match field {
                Field::Copy => {}
                Field::Text => put_field(key, self.repair(payload).as_bytes(), out),
                Field::BoundedText(owner) => {
                    let text = self.repair(payload);
                    put_field(key, self.cut(&text, owner).as_bytes(), out);
                }
                Field::Message(child) => self.child_field(key, payload, child, out),
            }
        }
        // Checked messages are read to their end.
        debug_assert!(reader.rest().is_empty());
    }

    fn repair<'t>(&mut self, text: &'t [u8]) -> Cow<'t, str> {
        let repaired = String::from_utf8_lossy(text);
        if let Cow::Owned(_) = repaired {
            self.repaired += 1;
        }
        repaired
    }

    fn cut<'t>(&mut self, text: &'t str, owner: Owner) -> &'t str {
        if text.len() <= self.max_attribute_bytes {
            return text;
        }
        let counter = match owner {
            Owner::Resource => &mut self.truncated.resource,
            Owner::Scope => &mut self.truncated.scope,
            Owner::Span => &mut self.truncated.span,
            Owner::Event => &mut self.truncated.event,
            Owner::Link => &mut self.truncated.link,
        };
        *counter += 1;
        &text[..text.floor_char_boundary(self.max_attribute_bytes)]
    }
}

fn put_field(key: u32, payload: &[u8], out: &mut Vec<u8>) {
    wire::put_varint(out, u64::from(key));
    wire::put_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

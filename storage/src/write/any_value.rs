//! Attribute values on the wire, and the protobuf-JSON of those that no typed column can hold.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::wire::{Damaged, Fields, Wire};

/// Deeper nesting is cut off with an unset value: it would only serve to exhaust the stack.
const MAX_DEPTH: u32 = 64;

/// An attribute value; lists and maps as their encoded message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum AnyValue<'a> {
    Unset,
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(&'a [u8]),
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

/// Kinds that a typed column exists for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Bool,
    Int,
    Double,
}

impl<'a> AnyValue<'a> {
    /// Reads an encoded `AnyValue`; of several values the last counts, as protobuf demands of a oneof.
    #[inline]
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Damaged> {
        let (mut fields, mut value) = (Fields::of(message), Self::Unset);
        while let Some((number, wire)) = fields.next()? {
            value = match (number, wire) {
                (1, Wire::Bytes(text)) => Self::Text(text),
                (2, Wire::Varint(bool)) => Self::Bool(bool != 0),
                (3, Wire::Varint(int)) => Self::Int(int.cast_signed()),
                (4, Wire::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
                (5, Wire::Bytes(array)) => Self::Array(array),
                (6, Wire::Bytes(map)) => Self::Map(map),
                (7, Wire::Bytes(bytes)) => Self::Bytes(bytes),
                _ => value,
            };
        }
        Ok(value)
    }

    fn scalar(self) -> Option<Scalar> {
        match self {
            Self::Text(_) => Some(Scalar::Text),
            Self::Bool(_) => Some(Scalar::Bool),
            Self::Int(_) => Some(Scalar::Int),
            Self::Double(_) => Some(Scalar::Double),
            Self::Unset | Self::Array(_) | Self::Map(_) | Self::Bytes(_) => None,
        }
    }

    /// Appends the value in protobuf's JSON mapping.
    pub(super) fn put_json(self, out: &mut Vec<u8>) {
        self.put_json_within(MAX_DEPTH, out);
    }

    fn put_json_within(self, depth: u32, out: &mut Vec<u8>) {
        let text = |text: &[u8], out: &mut Vec<u8>| {
            let text = String::from_utf8_lossy(text);
            serde_json::to_writer(out, &text).expect("text always has a JSON form, and memory takes it");
        };
        if depth == 0 {
            out.extend_from_slice(b"{}");
            return;
        }
        match self {
            Self::Unset => out.extend_from_slice(b"{"),
            Self::Text(value) => {
                out.extend_from_slice(br#"{"stringValue":"#);
                text(value, out);
            }
            Self::Bool(value) => out.extend_from_slice(format!(r#"{{"boolValue":{value}"#).as_bytes()),
            Self::Int(value) => out.extend_from_slice(format!(r#"{{"intValue":"{value}""#).as_bytes()),
            Self::Double(value) => {
                out.extend_from_slice(br#"{"doubleValue":"#);
                match value {
                    _ if value.is_nan() => out.extend_from_slice(br#""NaN""#),
                    f64::INFINITY => out.extend_from_slice(br#""Infinity""#),
                    f64::NEG_INFINITY => out.extend_from_slice(br#""-Infinity""#),
                    _ => out.extend_from_slice(value.to_string().as_bytes()),
                }
            }
            Self::Bytes(value) => {
                out.extend_from_slice(format!(r#"{{"bytesValue":"{}""#, STANDARD.encode(value)).as_bytes());
            }
            Self::Array(message) => {
                out.extend_from_slice(br#"{"arrayValue":{"values":["#);
                let before = out.len();
                for_each(message, |item| {
                    comma(before, out);
                    item.put_json_within(depth - 1, out);
                });
                out.extend_from_slice(b"]}");
            }
            Self::Map(message) => {
                out.extend_from_slice(br#"{"kvlistValue":{"values":["#);
                let (before, mut fields) = (out.len(), Fields::of(message));
                while let Ok(Some((number, wire))) = fields.next() {
                    if let (1, Wire::Bytes(pair)) = (number, wire)
                        && let Ok(KeyValue { key, value }) = KeyValue::parse(pair)
                    {
                        comma(before, out);
                        out.extend_from_slice(br#"{"key":"#);
                        text(key, out);
                        out.extend_from_slice(br#","value":"#);
                        value.put_json_within(depth - 1, out);
                        out.push(b'}');
                    }
                }
                out.extend_from_slice(b"]}");
            }
        }
        out.push(b'}');
    }
}

fn comma(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
}

/// Calls `with` for each element of an encoded `ArrayValue`; stops at damage.
pub(super) fn for_each<'a>(array: &'a [u8], mut with: impl FnMut(AnyValue<'a>)) {
    let mut fields = Fields::of(array);
    while let Ok(Some((number, wire))) = fields.next() {
        if let (1, Wire::Bytes(item)) = (number, wire) {
            let Ok(item) = AnyValue::parse(item) else { return };
            with(item);
        }
    }
}

/// What an array's elements have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elements {
    None,
    /// All of one kind, this many.
    All(Scalar, usize),
    /// Of several kinds, or of a kind without a column.
    Mixed,
}

/// Looks through an encoded `ArrayValue`.
pub(super) fn elements(array: &[u8]) -> Elements {
    let mut found = Elements::None;
    for_each(array, |item| {
        found = match (found, item.scalar()) {
            (Elements::None, Some(kind)) => Elements::All(kind, 1),
            (Elements::All(kind, count), Some(other)) if kind == other => Elements::All(kind, count + 1),
            _ => Elements::Mixed,
        };
    });
    found
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct KeyValue<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: AnyValue<'a>,
}

impl<'a> KeyValue<'a> {
    /// Reads an encoded `KeyValue`.
    #[inline]
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Damaged> {
        let mut fields = Fields::of(message);
        let (mut key, mut value) = (&[][..], AnyValue::Unset);
        while let Some((number, wire)) = fields.next()? {
            match (number, wire) {
                (1, Wire::Bytes(text)) => key = text,
                (2, Wire::Bytes(message)) => value = AnyValue::parse(message)?,
                _ => {}
            }
        }
        Ok(Self { key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn json(message: &[u8]) -> String {
        let mut out = Vec::new();
        AnyValue::parse(message).unwrap().put_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_forms_are_those_of_protobuf() {
        let mixed = field(5, &[field(1, &field(1, b"m")), field(1, &[0x18, 3])].concat());
        assert_eq!(json(&mixed), r#"{"arrayValue":{"values":[{"stringValue":"m"},{"intValue":"3"}]}}"#);
        let map = field(6, &field(1, &[field(1, b"n"), field(2, &[0x18, 9])].concat()));
        assert_eq!(json(&map), r#"{"kvlistValue":{"values":[{"key":"n","value":{"intValue":"9"}}]}}"#);
        assert_eq!(json(&field(7, &[0, 1, 0xC7])), r#"{"bytesValue":"AAHH"}"#);
        assert_eq!(json(&[]), "{}");
        assert_eq!(json(&[0x21, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F]), r#"{"doubleValue":"NaN"}"#);
    }

    #[test]
    fn arrays_are_of_one_kind_or_mixed() {
        let (text, int) = (field(1, &field(1, b"a")), field(1, &[0x18, 1]));
        assert_eq!(elements(&[]), Elements::None);
        assert_eq!(elements(&[text.clone(), text.clone()].concat()), Elements::All(Scalar::Text, 2));
        assert_eq!(elements(&[text, int.clone(), int].concat()), Elements::Mixed);
        assert_eq!(elements(&field(1, &[])), Elements::Mixed);
    }

    #[test]
    fn nesting_without_end_is_cut() {
        let mut message = vec![];
        for _ in 0..30 {
            message = field(5, &field(1, &message));
        }
        assert!(json(&message).ends_with("]}}"));
    }
}

//! Encoded `AnyValue` and `KeyValue` messages, read in place.

use vivace_protocol::wire::{Reader, WireError};
use vivace_traceql::Value;

use crate::read::cells::Cell;

/// Groups are unknown fields in OTLP; nested ones deeper than this are refused.
pub(super) const GROUP_DEPTH: u32 = 16;

/// Shows every field of `key` that a message has, in order.
#[inline]
pub(super) fn each<'a>(
    message: &'a [u8],
    key: u32,
    mut show: impl FnMut(&'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some(found) = reader.key()? {
        if found == key {
            show(reader.bytes()?)?;
        } else {
            reader.skip(found, GROUP_DEPTH)?;
        }
    }
    Ok(())
}

/// The encoded value of the first `KeyValue` of this name among the fields of `key`. What comes behind it is not looked at.
#[inline]
pub(super) fn first<'a>(message: &'a [u8], key: u32, wanted: &[u8]) -> Result<Option<&'a [u8]>, WireError> {
    let mut reader = Reader::new(message);
    while let Some(found) = reader.key()? {
        if found != key {
            reader.skip(found, GROUP_DEPTH)?;
            continue;
        }
        let attribute = reader.bytes()?;
        if name(attribute)? == wanted {
            return Ok(Some(key_value(attribute)?.1));
        }
    }
    Ok(None)
}

/// Key of a `KeyValue`. It comes first in practice; looking at the first field only saves walking what nobody wants.
#[inline]
pub(super) fn name(attribute: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(attribute);
    match reader.key()? {
        Some(0x0a) => reader.bytes(),
        _ => Ok(key_value(attribute)?.0),
    }
}

/// Key and encoded value of a `KeyValue`.
#[inline]
pub(super) fn key_value(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut name, mut value) = (&[][..], &[][..]);
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            0x0a => name = reader.bytes()?,
            0x12 => value = reader.bytes()?,
            _ => reader.skip(key, GROUP_DEPTH)?,
        }
    }
    Ok((name, value))
}

/// What the language sees of an encoded `AnyValue`: maps, bytes and arrays of several types are nil.
pub(super) fn cell(message: &[u8]) -> Result<Cell<'_>, WireError> {
    let mut cell = Cell::Nil;
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            0x0a => cell = Cell::Str(reader.bytes()?),
            0x10 => cell = Cell::Bool(reader.varint()? != 0),
            0x18 => cell = Cell::Int(reader.varint()?.cast_signed()),
            0x21 => cell = Cell::Float(f64::from_bits(reader.fixed64()?)),
            0x2a => cell = list(reader.bytes()?)?,
            0x32 | 0x3a => {
                reader.bytes()?;
                cell = Cell::Nil;
            }
            _ => reader.skip(key, GROUP_DEPTH)?,
        }
    }
    Ok(cell)
}

fn list(message: &[u8]) -> Result<Cell<'_>, WireError> {
    let mut items: Vec<Value> = Vec::new();
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        if key != 0x0a {
            reader.skip(key, GROUP_DEPTH)?;
            continue;
        }
        // Items that are arrays themselves are not looked into, so nesting costs nothing.
        let item = scalar(reader.bytes()?)?;
        if item.is_nil() || items.first().is_some_and(|first| first.type_of() != item.type_of()) {
            return Ok(Cell::Nil);
        }
        items.push(item);
    }
    Ok(Cell::List(items))
}

fn scalar(message: &[u8]) -> Result<Value, WireError> {
    let mut value = Value::Nil;
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        value = match key {
            0x0a => Value::str(&String::from_utf8_lossy(reader.bytes()?)),
            0x10 => Value::Bool(reader.varint()? != 0),
            0x18 => Value::Int(reader.varint()?.cast_signed()),
            0x21 => Value::Float(f64::from_bits(reader.fixed64()?)),
            0x2a | 0x32 | 0x3a => {
                reader.bytes()?;
                Value::Nil
            }
            _ => {
                reader.skip(key, GROUP_DEPTH)?;
                continue;
            }
        };
    }
    Ok(value)
}

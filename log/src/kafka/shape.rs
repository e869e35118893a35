//! Bounds the body of a message of the Kafka protocol before the protocol library decodes it.
//!
//! The library reserves room for as many elements as an array claims to have, and a claim of two thousand million takes the process
//! down. So a request that a broker gets, and an answer that a client gets, is first walked by its own table: every length must lie
//! within the bytes that are there, and all arrays together may have so many elements. Nothing is allocated here.

use std::ops::RangeInclusive;

/// What a field is on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, null or not.
    Text,
    /// Bytes, null or not.
    Blob,
    /// An array whose elements are structures: in flexible versions each ends with tagged fields.
    Structs(&'static [Field]),
    /// An array of plain values.
    Values(&'static Kind),
}

/// An integer of 8 bits, or a truth value.
pub const I8: Kind = Kind::Fixed(1);
/// An integer of 16 bits.
pub const I16: Kind = Kind::Fixed(2);
/// An integer of 32 bits.
pub const I32: Kind = Kind::Fixed(4);
/// An integer of 64 bits.
pub const I64: Kind = Kind::Fixed(8);
/// A UUID.
pub const UUID: Kind = Kind::Fixed(16);
/// More than any version: of a message that has no flexible one.
pub const NEVER: i16 = i16::MAX;

/// A field and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    from: i16,
    until: i16,
    kind: Kind,
}

/// The body of one kind of message, over all versions that are taken.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The first version with compact lengths and tagged fields.
    flexible_from: i16,
    fields: &'static [Field],
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// A field is longer than what is left.
    #[error("the message ends within a field")]
    CutOff,
    /// Neither a length nor null.
    #[error("a length is negative")]
    NegativeLength,
    /// More than are permitted.
    #[error("the arrays have more than {0} elements")]
    TooManyElements(usize),
    /// It is longer than its kind of message.
    #[error("{0} bytes follow the message")]
    Left(usize),
}

/// A field of all versions.
#[must_use]
pub const fn all(kind: Kind) -> Field {
    Field { from: 0, until: i16::MAX, kind }
}

/// A field of versions from this one on.
#[must_use]
pub const fn since(from: i16, kind: Kind) -> Field {
    Field { from, until: i16::MAX, kind }
}

/// A field of versions up to this one.
#[must_use]
pub const fn until(until: i16, kind: Kind) -> Field {
    Field { from: 0, until, kind }
}

/// A field of these versions.
#[must_use]
pub const fn between(versions: RangeInclusive<i16>, kind: Kind) -> Field {
    Field { from: *versions.start(), until: *versions.end(), kind }
}

impl Shape {
    /// The fields in their order, and the first version with compact lengths and tagged fields.
    #[must_use]
    pub const fn new(flexible_from: i16, fields: &'static [Field]) -> Self {
        Self { flexible_from, fields }
    }

    /// Walks the body to its end. All arrays and tagged fields together may have `elements`; one takes the library some 100 bytes.
    ///
    /// # Errors
    /// See [`BadShape`].
    pub fn check(&self, version: i16, body: &[u8], elements: usize) -> Result<(), BadShape> {
        let flexible = version >= self.flexible_from;
        let mut walk = Walk { rest: body, version, flexible, elements, elements_left: elements };
        walk.fields(self.fields)?;
        match walk.rest.len() {
            0 => Ok(()),
            left => Err(BadShape::Left(left)),
        }
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
    elements_left: usize,
}

impl Walk<'_> {
    /// A structure: its fields, then the tagged ones.
    fn fields(&mut self, fields: &[Field]) -> Result<(), BadShape> {
        for field in fields {
            if (field.from..=field.until).contains(&self.version) {
                self.field(&field.kind)?;
            }
        }
        if self.flexible { self.tagged() } else { Ok(()) }
    }

    fn field(&mut self, kind: &Kind) -> Result<(), BadShape> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => {
                let length = if self.flexible { self.compact_length()? } else { self.short_length()? };
                self.skip(length)
            }
            Kind::Blob => {
                let length = self.long_length()?;
                self.skip(length)
            }
            Kind::Structs(fields) => {
                for _ in 0..self.count()? {
                    self.fields(fields)?;
                }
                Ok(())
            }
            Kind::Values(kind) => {
                for _ in 0..self.count()? {
                    self.field(kind)?;
                }
                Ok(())
            }
        }
    }

    fn tagged(&mut self) -> Result<(), BadShape> {
        let count = self.varint()?;
        self.charge(count)?;
        for _ in 0..count {
            self.varint()?;
            let bytes = self.varint()?;
            self.skip(bytes)?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<usize, BadShape> {
        let count = self.long_length()?;
        self.charge(count)?;
        Ok(count)
    }

    fn charge(&mut self, elements: usize) -> Result<(), BadShape> {
        self.elements_left =
            self.elements_left.checked_sub(elements).ok_or(BadShape::TooManyElements(self.elements))?;
        Ok(())
    }

    /// Of bytes and arrays; null counts as empty.
    fn long_length(&mut self) -> Result<usize, BadShape> {
        if self.flexible {
            return self.compact_length();
        }
        match i32::from_be_bytes(self.take()?) {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_negative| BadShape::NegativeLength),
        }
    }

    fn short_length(&mut self) -> Result<usize, BadShape> {
        match i16::from_be_bytes(self.take()?) {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_negative| BadShape::NegativeLength),
        }
    }

    fn compact_length(&mut self) -> Result<usize, BadShape> {
        Ok(self.varint()?.saturating_sub(1))
    }

    /// As the library reads it: at most five bytes, the last one with as many bits as are left.
    fn varint(&mut self) -> Result<usize, BadShape> {
        let mut value = 0_u32;
        for group in 0..5 {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << (group * 7);
            if byte < 0x80 {
                break;
            }
        }
        usize::try_from(value).map_err(|_wide| BadShape::CutOff)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadShape> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(BadShape::CutOff)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), BadShape> {
        self.rest = self.rest.get(bytes..).ok_or(BadShape::CutOff)?;
        Ok(())
    }
}

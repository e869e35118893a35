//! Reading protobuf's wire form in place: no copies, no objects, every step bounds-checked.
//!
//! Accepts and refuses exactly what `prost` does: varints of at most ten bytes, field numbers from 1, groups only as unknown fields,
//! nesting bounded by the caller's depth.

/// Wire types, the low three bits of a key.
pub const VARINT: u32 = 0;
/// Eight bytes, little endian.
pub const FIXED64: u32 = 1;
/// A length, then that many bytes.
pub const LEN: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
/// Four bytes, little endian.
pub const FIXED32: u32 = 5;

/// Depth for groups in unknown fields, where the messages around them are of fixed depth.
pub const GROUP_DEPTH: u32 = 90;

/// What is wrong with some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("message ends in the middle of a field")]
    Truncated,
    #[error("variable-length integer is too long")]
    Varint,
    #[error("field key is not valid")]
    Key,
    #[error("field has the wrong wire type")]
    WireType,
    #[error("group is not closed properly")]
    Group,
    #[error("messages are nested too deeply")]
    TooDeep,
}

/// The key of a field as written: number times eight plus wire type.
pub const fn key(number: u32, wire_type: u32) -> u32 {
    number << 3 | wire_type
}

/// A position in an encoded message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first field of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The key of the next field, `None` at the end.
    #[inline]
    pub fn key(&mut self) -> Result<Option<u32>, WireError> {
        match self.rest {
            [] => Ok(None),
            // One byte serves field numbers below 16.
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                let key = u32::from(*first);
                if key < 8 || key & 7 > FIXED32 { Err(WireError::Key) } else { Ok(Some(key)) }
            }
            _ => self.long_key().map(Some),
        }
    }

    fn long_key(&mut self) -> Result<u32, WireError> {
        let Ok(key) = u32::try_from(self.varint()?) else { return Err(WireError::Key) };
        if key < 8 || key & 7 > FIXED32 { Err(WireError::Key) } else { Ok(key) }
    }

    /// A varint.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            [first, second, rest @ ..] if *second < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first & 0x7f) | u64::from(*second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            if at == 9 && *byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(WireError::Truncated)
    }

    /// A length and that many bytes.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.varint()?;
        // A length beyond the address space is beyond the message, too.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Eight bytes.
    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// Four bytes.
    #[inline]
    pub fn fixed32(&mut self) -> Result<u32, WireError> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// Steps over the value of a field whose key has been read. `depth` bounds the nesting of groups.
    #[inline]
    pub fn skip(&mut self, key: u32, depth: u32) -> Result<(), WireError> {
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            LEN => self.bytes().map(drop),
            FIXED32 => self.fixed32().map(drop),
            START_GROUP => self.skip_group(key >> 3, depth),
            _ => Err(WireError::Group),
        }
    }

    #[cold]
    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), WireError> {
        let depth = depth.checked_sub(1).ok_or(WireError::TooDeep)?;
        loop {
            match self.key()? {
                None => return Err(WireError::Truncated),
                Some(key) if key & 7 == END_GROUP => {
                    return if key >> 3 == number { Ok(()) } else { Err(WireError::Group) };
                }
                Some(_) if depth == 0 => return Err(WireError::TooDeep),
                Some(key) => self.skip(key, depth)?,
            }
        }
    }
}

/// An `int32` or enum as its varint was written: the low half counts, as the format demands.
#[inline]
pub fn int32(varint: u64) -> i32 {
    let [a, b, c, d, ..] = varint.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// Bytes that a varint takes.
#[inline]
pub fn varint_len(value: usize) -> usize {
    // Seven bits a byte, without a division: exact for all 64-bit values.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

/// Bytes that a field with a one-byte key and `len` bytes takes.
#[inline]
pub fn len_field_size(len: usize) -> usize {
    1 + varint_len(len) + len
}

/// Appends a varint.
#[inline]
pub fn put_varint(buf: &mut impl bytes::BufMut, value: u64) {
    prost::encoding::encode_varint(value, buf);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_read_as_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..13)) {
            let mut rest = bytes.as_slice();
            let theirs = prost::encoding::decode_varint(&mut rest).ok();
            let mut reader = Reader::new(&bytes);
            let ours = reader.varint().ok();
            prop_assert_eq!(ours, theirs);
            if ours.is_some() {
                prop_assert_eq!(reader.rest(), rest);
            }
        }

        #[test]
        fn varint_lengths_are_exact(value in any::<usize>(), shift in 0u32..64) {
            let value = value >> shift;
            prop_assert_eq!(varint_len(value), prost::encoding::encoded_len_varint(value as u64));
        }
    }
}

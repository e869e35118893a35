//! Walks the fields of an encoded protobuf message without building anything.

/// The message ends within a field or holds what no message of these may hold. Kept this small, and apart from the
/// writer's errors, since it is part of every step over every field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

impl From<Damaged> for super::Error {
    fn from(_: Damaged) -> Self {
        Self::Wire
    }
}

/// One field's content. Groups do not occur in the messages read here and are refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    /// The content of a length-delimited field; of another wire type, nothing.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32(_) => &[],
        }
    }

    /// The content of a numeric field; of another wire type, 0.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => number,
            Self::Fixed32(number) => u64::from(number),
            Self::Bytes(_) => 0,
        }
    }

    /// As [`Self::number`] for 32-bit fields, which are cut to their low half as protobuf demands.
    #[expect(clippy::cast_possible_truncation, reason = "protobuf demands it for 32-bit fields")]
    pub(super) fn number32(self) -> u32 {
        self.number() as u32
    }
}

/// The fields of one message, in the order written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and content, or `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Damaged> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_too_large| Damaged)?;
        let content = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_too_large| Damaged)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Damaged),
        };
        Ok(Some((number, content)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Damaged> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        let mut value = 0;
        for (position, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * position);
            if *byte < 0x80 {
                self.rest = &self.rest[position + 1..];
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Damaged)?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_type_is_walked_and_damage_is_an_error() {
        let message = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1A, 2, b'h', b'i', 0x25, 2, 0, 0, 0];
        let mut fields = Fields::of(&message);
        assert_eq!(fields.next().unwrap(), Some((1, Wire::Varint(150))));
        assert_eq!(fields.next().unwrap(), Some((2, Wire::Fixed64(1))));
        assert_eq!(fields.next().unwrap(), Some((3, Wire::Bytes(b"hi"))));
        assert_eq!(fields.next().unwrap(), Some((4, Wire::Fixed32(2))));
        assert_eq!(fields.next().unwrap(), None);
        for damaged in [&[0x08][..], &[0x1A, 5, 0], &[0x11, 1], &[0x0B], &[0xFF; 11]] {
            assert!(Fields::of(damaged).next().is_err(), "{damaged:?}");
        }
    }
}

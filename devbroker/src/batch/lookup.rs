//! Finds the first record of a batch at or after a time.

use super::unpack::unpack;
use super::{HEAD_BYTES, Head};

/// The place of a record within its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset_delta: u32,
    pub(crate) timestamp_ms: i64,
}

/// The first record whose time is `at_ms` or later, in a batch that has one. If the records cannot be read it is the first one
/// altogether, so a reader who starts there sees everything that it asked for and perhaps a little before.
pub(crate) fn first_at_or_after(batch: &[u8], head: &Head, at_ms: i64) -> Found {
    let whole = Found { offset_delta: 0, timestamp_ms: head.base_timestamp_ms };
    let Some(records) = unpack(head.codec(), batch.get(HEAD_BYTES..).unwrap_or_default()) else { return whole };
    let mut rest = &records[..];
    while let Some(record) = Record::take(&mut rest) {
        let timestamp_ms = head.base_timestamp_ms.saturating_add(record.timestamp_delta);
        if timestamp_ms >= at_ms {
            let offset_delta = u32::try_from(record.offset_delta).unwrap_or(0).min(head.last_offset_delta);
            return Found { offset_delta, timestamp_ms };
        }
    }
    // The head promised one. The client who wrote it was wrong, and the start of the batch is on the safe side.
    whole
}

struct Record {
    timestamp_delta: i64,
    offset_delta: i64,
}

impl Record {
    /// Length, attributes, time, offset; the rest of the record is passed over.
    fn take(rest: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(varint(rest)?).ok()?;
        let (mut record, behind) = rest.split_at_checked(length)?;
        *rest = behind;
        record = record.get(1..)?;
        Some(Self { timestamp_delta: varint(&mut record)?, offset_delta: varint(&mut record)? })
    }
}

/// A zigzag number of at most ten bytes.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for group in 0..10 {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << (group * 7);
        if byte < 0x80 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

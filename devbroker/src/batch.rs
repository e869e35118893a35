//! The record batch of the Kafka protocol (magic 2), as far as a broker looks into it: its head.
//!
//! ```text
//!  0  8 base offset            21  2 attributes: codec (0..3), log append time, transactional, control
//!  8  4 length after this      23  4 last offset delta
//! 12  4 leader epoch           27  8 base timestamp    35  8 max timestamp
//! 16  1 magic, 2               43  8 producer id       51  2 producer epoch   53  4 base sequence
//! 17  4 CRC32C of 21..         57  4 record count      61    records
//! ```
//!
//! A batch is stored as it was received. Base offset and leader epoch lie before the checksummed part, so they are written anew
//! into every answer and the checksum of the client stays true.

use bytes::{BufMut, Bytes, BytesMut};

use crate::code::{self, Code};

pub(crate) mod lookup;
mod unpack;

/// Bytes before the records.
pub(crate) const HEAD_BYTES: usize = 61;
/// Bytes before the part that the length counts.
const LENGTH_END: usize = 12;
const CRC_START: usize = 17;
const CHECKED_START: usize = 21;
const CODEC_MASK: i16 = 0x07;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// Codecs above this do not exist: none, gzip, snappy, lz4, zstd.
const LAST_CODEC: i16 = 4;

/// What the head of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) attributes: i16,
    /// The last record's offset less the base offset: 0 or more.
    pub(crate) last_offset_delta: u32,
    pub(crate) base_timestamp_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    /// -1 without idempotence.
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
}

/// Why a batch is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadBatch {
    #[error("there are no records")]
    Empty,
    #[error("the batch is cut off")]
    CutOff,
    #[error("message format {0} is not supported, only 2")]
    Magic(u8),
    #[error("there is more than one batch for a partition")]
    SeveralBatches,
    #[error("the checksum does not match")]
    Checksum,
    #[error("the number of records contradicts the last offset")]
    Count,
    #[error("codec {0} does not exist")]
    Codec(i16),
    #[error("transactions are not supported")]
    Transactional,
    #[error("control batches come from brokers only")]
    Control,
}

impl BadBatch {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::CutOff | Self::Checksum => code::CORRUPT_MESSAGE,
            Self::Magic(_) => code::UNSUPPORTED_FOR_MESSAGE_FORMAT,
            Self::Codec(_) => code::UNSUPPORTED_COMPRESSION_TYPE,
            Self::Empty | Self::SeveralBatches | Self::Count | Self::Transactional | Self::Control => {
                code::INVALID_RECORD
            }
        }
    }
}

impl Head {
    /// Reads the head of one batch and checks that the bytes are exactly that batch, untouched.
    pub(crate) fn check(bytes: &[u8]) -> Result<Self, BadBatch> {
        let head = Self::read(bytes)?;
        let fields = Fields(bytes);
        let length = usize::try_from(fields.i32(8)).map_err(|_negative| BadBatch::CutOff)?;
        match bytes.len() - LENGTH_END {
            here if here < length => return Err(BadBatch::CutOff),
            here if here > length => return Err(BadBatch::SeveralBatches),
            _ => {}
        }
        if crc32c::crc32c(&bytes[CHECKED_START..]) != fields.u32(CRC_START) {
            return Err(BadBatch::Checksum);
        }
        if i64::from(fields.i32(57)) != i64::from(head.last_offset_delta) + 1 {
            return Err(BadBatch::Count);
        }
        match head.attributes {
            a if a & CONTROL != 0 => Err(BadBatch::Control),
            a if a & TRANSACTIONAL != 0 => Err(BadBatch::Transactional),
            a if a & CODEC_MASK > LAST_CODEC => Err(BadBatch::Codec(a & CODEC_MASK)),
            _ => Ok(head),
        }
    }

    /// Reads the head of a batch that was checked when it was taken.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BadBatch> {
        if bytes.is_empty() {
            return Err(BadBatch::Empty);
        }
        // The magic stands at the same place in all formats, and older ones are shorter.
        match bytes.get(16) {
            Some(2) => {}
            Some(&magic) => return Err(BadBatch::Magic(magic)),
            None => return Err(BadBatch::CutOff),
        }
        if bytes.len() < HEAD_BYTES {
            return Err(BadBatch::CutOff);
        }
        let fields = Fields(bytes);
        Ok(Self {
            attributes: fields.i16(21),
            last_offset_delta: u32::try_from(fields.i32(23)).map_err(|_negative| BadBatch::Count)?,
            base_timestamp_ms: fields.i64(27),
            max_timestamp_ms: fields.i64(35),
            producer_id: fields.i64(43),
            producer_epoch: fields.i16(51),
            base_sequence: fields.i32(53),
        })
    }

    pub(crate) fn codec(&self) -> i16 {
        self.attributes & CODEC_MASK
    }

    /// The sequence number of the last record; numbers go on at 0 behind the largest.
    pub(crate) fn last_sequence(&self) -> i32 {
        let last = (i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) % (i64::from(i32::MAX) + 1);
        i32::try_from(last).unwrap_or(i32::MAX)
    }
}

/// Writes a stored batch into an answer, with its place.
pub(crate) fn put(answer: &mut BytesMut, batch: &Bytes, base_offset: u64, leader_epoch: i32) {
    answer.put_i64(i64::try_from(base_offset).unwrap_or(i64::MAX));
    answer.put_slice(&batch[8..LENGTH_END]);
    answer.put_i32(leader_epoch);
    answer.put_slice(&batch[16..]);
}

/// Big-endian fields of a head that is whole.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_be_bytes(self.array(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_be_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_be_bytes(self.array(at))
    }
}

#[cfg(test)]
pub(crate) mod tests;

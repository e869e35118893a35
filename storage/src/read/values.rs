//! Decoded values of one page or one dictionary.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use vivace_traceql::{Bitmap, Condition};

use super::{
    delta,
    error::{Error, Result},
    packed::Packed,
    rle,
};

/// Byte strings as slices of one buffer, ascending.
#[derive(Debug, Clone, Default)]
pub(crate) struct ByteValues {
    data: Bytes,
    bounds: Bounds,
}

#[derive(Debug, Clone)]
enum Bounds {
    /// So many of the same length, one behind the other.
    Equal { first: u32, length: u32, count: usize },
    /// Where each ends; between it and the one before lies a gap, and before the first one that begins at `first`.
    Ends { first: u32, gap: u32, ends: Vec<u32> },
}

impl Default for Bounds {
    fn default() -> Self {
        Self::Equal { first: 0, length: 0, count: 0 }
    }
}

impl ByteValues {
    /// Each of `ends`, which ascend by at least `gap` from `first` on, lies inside `data`.
    pub(crate) fn new(data: Bytes, first: u32, gap: u32, ends: Vec<u32>) -> Self {
        Self { data, bounds: Bounds::Ends { first, gap, ends } }
    }

    /// `count` values of `length` bytes, from `first` on, all inside `data`.
    pub(crate) fn equal(data: Bytes, first: u32, length: u32, count: usize) -> Self {
        Self { data, bounds: Bounds::Equal { first, length, count } }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.bounds {
            Bounds::Equal { count, .. } => *count,
            Bounds::Ends { ends, .. } => ends.len(),
        }
    }

    #[inline]
    fn range(&self, index: usize) -> Option<Range<usize>> {
        match &self.bounds {
            Bounds::Equal { first, length, count } => {
                let start = to_usize(*first) + index.checked_mul(to_usize(*length))?;
                (index < *count).then(|| start..start + to_usize(*length))
            }
            Bounds::Ends { first, gap, ends } => {
                let end = *ends.get(index)?;
                let before = if index == 0 { *first } else { ends[index - 1] };
                Some(to_usize(before) + to_usize(*gap)..to_usize(end))
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        self.data.get(self.range(index)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Which values satisfy the condition, where that can be told from the buffer as a whole.
    pub(crate) fn matching(&self, condition: &Condition) -> Option<Bitmap> {
        condition.matches_texts(&self.data, self.len(), |index| self.range(index).unwrap_or_default())
    }

    /// As [`Self::get`], sharing the buffer.
    pub(crate) fn bytes(&self, index: usize) -> Option<Bytes> {
        Some(self.data.slice(self.range(index)?))
    }

    /// Memory held.
    pub(crate) fn size(&self) -> usize {
        let bounds = match &self.bounds {
            Bounds::Equal { .. } => 0,
            Bounds::Ends { ends, .. } => ends.len() * 4,
        };
        self.data.len() + bounds
    }
}

/// Copies, side by side.
impl<'a> FromIterator<&'a [u8]> for ByteValues {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for value in values {
            data.extend_from_slice(value);
            ends.push(offset(&data));
        }
        data.shrink_to_fit();
        Self::new(data.into(), 0, 0, ends)
    }
}

/// Past 4 GiB, which the pages of a chunk do not reach, values would come out empty.
fn offset(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

/// `u32` to index; every platform this runs on has at least 32 bits.
#[inline]
pub(crate) fn to_usize(value: u32) -> usize {
    value as usize
}

/// Physical type of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    Int32,
    Int64,
    Double,
    ByteArray,
}

/// Values of one page without its nulls.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    /// Byte strings written out.
    Bytes(ByteValues),
    /// Entries of the chunk's dictionary of byte strings.
    Ids(Packed),
    /// INT32 (sign-extended) and INT64, in as few bytes as they need.
    Ints(Packed),
    Doubles(Vec<f64>),
    Bools(Vec<bool>),
}

impl Values {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Ids(ids) => ids.len(),
            Self::Ints(ints) => ints.len(),
            Self::Doubles(doubles) => doubles.len(),
            Self::Bools(bools) => bools.len(),
        }
    }

    /// In less memory, for keeping.
    pub(crate) fn pack(self) -> Self {
        match self {
            Self::Ids(ids) => Self::Ids(ids.pack()),
            Self::Ints(ints) => Self::Ints(ints.pack()),
            Self::Bytes(_) | Self::Doubles(_) | Self::Bools(_) => self,
        }
    }

    /// Memory held.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Bytes(values) => values.size(),
            Self::Ids(ids) => ids.memory(),
            Self::Ints(ints) => ints.memory(),
            Self::Doubles(doubles) => doubles.len() * 8,
            Self::Bools(bools) => bools.len(),
        }
    }
}

/// Numbers of the encodings in page headers.
mod encoding {
    pub(super) const PLAIN: i32 = 0;
    pub(super) const PLAIN_DICTIONARY: i32 = 2;
    pub(super) const RLE: i32 = 3;
    pub(super) const DELTA_BINARY_PACKED: i32 = 5;
    pub(super) const DELTA_LENGTH_BYTE_ARRAY: i32 = 6;
    pub(super) const DELTA_BYTE_ARRAY: i32 = 7;
    pub(super) const RLE_DICTIONARY: i32 = 8;
    pub(super) const BYTE_STREAM_SPLIT: i32 = 9;
}

/// Largest page that DELTA_BYTE_ARRAY may expand to.
const MAX_EXPANDED: usize = 1 << 30;

fn malformed(why: &'static str) -> Error {
    Error::malformed("page values", why)
}

/// Whether values of such an encoding are kept as slices of the page.
pub(crate) fn shares(physical: Physical, encoding: i32) -> bool {
    physical == Physical::ByteArray && encoding != encoding::DELTA_BYTE_ARRAY
}

/// Decodes `count` values. `dictionary` gives that of the chunk; it is asked only when a value needs it.
pub(crate) fn decode(
    physical: Physical,
    encoding: i32,
    data: &Bytes,
    count: usize,
    dictionary: impl FnOnce() -> Result<Option<Arc<Values>>>,
) -> Result<Values> {
    match encoding {
        encoding::PLAIN => plain(physical, data, count),
        encoding::PLAIN_DICTIONARY | encoding::RLE_DICTIONARY if count == 0 => plain(physical, &Bytes::new(), 0),
        encoding::PLAIN_DICTIONARY | encoding::RLE_DICTIONARY => {
            let dictionary = dictionary()?.ok_or_else(|| malformed("dictionary ids without a dictionary"))?;
            let ids = rle::ids(data, dictionary.len(), count)?;
            Ok(match &*dictionary {
                Values::Bytes(_) | Values::Ids(_) => Values::Ids(ids),
                Values::Ints(entries) => {
                    // The ids were checked against the number of entries.
                    let picked = ids.iter().filter_map(|id| entries.get(usize::try_from(id).ok()?));
                    packed(picked)
                }
                Values::Doubles(entries) => Values::Doubles(pick(entries, &ids)),
                Values::Bools(entries) => Values::Bools(pick(entries, &ids)),
            })
        }
        encoding::RLE if physical == Physical::Boolean => Ok(Values::Bools(rle::booleans(data, count)?)),
        encoding::DELTA_BINARY_PACKED => {
            if !matches!(physical, Physical::Int64 | Physical::Int32) {
                return Err(malformed("integer encoding of another type"));
            }
            delta::with_numbers(|ints| {
                delta::integers(data, count, ints)?;
                if physical == Physical::Int32 {
                    // The deltas of 32-bit columns wrap at 32 bits.
                    ints.iter_mut().for_each(|int| *int = i64::from(low_i32(*int)));
                }
                Ok(Values::Ints(Packed::narrow(ints)))
            })
        }
        encoding::DELTA_LENGTH_BYTE_ARRAY if physical == Physical::ByteArray => {
            Ok(Values::Bytes(delta::byte_arrays(data, count)?))
        }
        encoding::DELTA_BYTE_ARRAY if physical == Physical::ByteArray => {
            Ok(Values::Bytes(delta::prefixed_byte_arrays(data, count, MAX_EXPANDED)?))
        }
        encoding::BYTE_STREAM_SPLIT => split(physical, data, count),
        other => Err(Error::Unsupported(format!("encoding {other} of a {physical:?} column"))),
    }
}

fn packed(ints: impl Iterator<Item = i64>) -> Values {
    delta::with_numbers(|all| {
        all.extend(ints);
        Values::Ints(Packed::narrow(all))
    })
}

/// The caller checked that every id has an entry.
fn pick<T: Copy>(entries: &[T], ids: &Packed) -> Vec<T> {
    ids.iter().filter_map(|id| entries.get(usize::try_from(id).ok()?).copied()).collect()
}

#[allow(clippy::cast_possible_truncation, reason = "the low 32 bits are the value")]
fn low_i32(wide: i64) -> i32 {
    wide as i32
}

fn plain(physical: Physical, data: &Bytes, count: usize) -> Result<Values> {
    let width = match physical {
        Physical::Boolean => 0,
        Physical::Int32 => 4,
        Physical::Int64 | Physical::Double => 8,
        Physical::ByteArray => return Ok(Values::Bytes(plain_byte_arrays(data, count)?)),
    };
    let needed = if width == 0 { count.div_ceil(8) } else { count.saturating_mul(width) };
    let raw = data.get(..needed).ok_or_else(|| malformed("fewer than the page has"))?;
    Ok(match physical {
        Physical::Boolean => Values::Bools((0..count).map(|bit| raw[bit >> 3] >> (bit & 7) & 1 == 1).collect()),
        Physical::Int32 => packed(chunks::<4>(raw).map(|word| i64::from(i32::from_le_bytes(word)))),
        Physical::Int64 => packed(chunks::<8>(raw).map(i64::from_le_bytes)),
        Physical::Double | Physical::ByteArray => Values::Doubles(chunks::<8>(raw).map(f64::from_le_bytes).collect()),
    })
}

fn chunks<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> {
    raw.as_chunks::<N>().0.iter().copied()
}

/// Bytes before each value, which say how long it is.
const LENGTH: usize = 4;
const GAP: u32 = 4;

fn plain_byte_arrays(data: &Bytes, count: usize) -> Result<ByteValues> {
    let end = u32::try_from(data.len()).map_err(|_too_big| malformed("page above 4 GiB"))?;
    // Each value takes at least the four bytes of its length.
    if count > data.len() / 4 {
        return Err(malformed("fewer than the page has"));
    }
    let mut ends = Vec::with_capacity(count);
    let mut at = 0u32;
    for _ in 0..count {
        let raw = data.get(to_usize(at)..).and_then(<[u8]>::first_chunk::<LENGTH>);
        let raw = raw.ok_or_else(|| malformed("ends early"))?;
        at = (at + GAP)
            .checked_add(u32::from_le_bytes(*raw))
            .filter(|next| *next <= end)
            .ok_or_else(|| malformed("byte array past the end"))?;
        ends.push(at);
    }
    Ok(ByteValues::new(data.clone(), 0, GAP, ends))
}

fn split(physical: Physical, data: &Bytes, count: usize) -> Result<Values> {
    let width = match physical {
        Physical::Int32 => 4,
        Physical::Int64 | Physical::Double => 8,
        Physical::Boolean | Physical::ByteArray => return Err(malformed("stream split of another type")),
    };
    let raw = data.get(..count.saturating_mul(width)).ok_or_else(|| malformed("fewer than the page has"))?;
    let word = |index: usize| {
        let mut word = [0u8; 8];
        (0..width).for_each(|lane| word[lane] = raw[lane * count + index]);
        word
    };
    Ok(match physical {
        Physical::Double => Values::Doubles((0..count).map(|index| f64::from_le_bytes(word(index))).collect()),
        Physical::Int32 => packed((0..count).map(|index| i64::from(low_i32(i64::from_le_bytes(word(index)))))),
        Physical::Int64 | Physical::Boolean | Physical::ByteArray => {
            packed((0..count).map(|index| i64::from_le_bytes(word(index))))
        }
    })
}

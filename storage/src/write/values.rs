//! The values of one leaf that wait for their page, and what is known of all values of its chunk.

use parquet::{
    data_type::ByteArray,
    file::statistics::{Statistics, ValueStatistics},
};

use super::{delta, dictionary::Dictionary, hybrid, page_header::PageEncoding};

/// Bounds of byte strings are cut to this length; readers take cut bounds as inexact.
const BOUND_BYTES: usize = 64;

/// Least and greatest value so far.
type Bounds<T> = Option<(T, T)>;

/// Values by type. The variant also fixes the encoding of the whole chunk.
#[derive(Debug)]
pub(super) enum Values {
    /// Numbers of byte strings.
    Dictionary { ids: Vec<u32>, dictionary: Dictionary },
    /// 64-bit integers; unsigned ones as their bits.
    Int64 { values: Vec<i64>, unsigned: bool, packed: bool, bounds: Bounds<i64> },
    /// 32-bit integers; unsigned ones as their bits.
    Int32 { values: Vec<i32>, unsigned: bool, bounds: Bounds<i32> },
    /// Floating point numbers.
    Double { values: Vec<f64>, bounds: Bounds<f64> },
    /// Truth values.
    Bool { values: Vec<bool>, bounds: Bounds<bool> },
    /// Byte strings that hardly repeat. Bounds are kept for ids only: blobs have none in Tempo's files either.
    Bytes { lengths: Vec<i32>, data: Vec<u8>, bounds: Bounds<Vec<u8>>, bounded: bool },
}

fn widen<T: Copy>(bounds: &mut Bounds<T>, values: &[T], less: impl Fn(T, T) -> bool) {
    let Some(first) = values.first() else { return };
    let (mut min, mut max) = bounds.unwrap_or((*first, *first));
    for value in values {
        if less(*value, min) {
            min = *value;
        }
        if less(max, *value) {
            max = *value;
        }
    }
    *bounds = Some((min, max));
}

impl Values {
    /// Whether a page without values has no bytes after its levels.
    pub(super) fn is_plain(&self) -> bool {
        self.encoding() == PageEncoding::Plain
    }

    /// Bytes that the waiting values will take before compression, about.
    pub(super) fn pending_bytes(&self) -> usize {
        match self {
            Self::Dictionary { ids, dictionary } => ids.len() * bits_of(dictionary) as usize / 8,
            Self::Int64 { values, .. } => values.len() * 8,
            Self::Int32 { values, .. } => values.len() * 4,
            Self::Double { values, .. } => values.len() * 8,
            Self::Bool { values, .. } => values.len() / 8,
            Self::Bytes { data, .. } => data.len(),
        }
    }

    pub(super) fn encoding(&self) -> PageEncoding {
        match self {
            Self::Dictionary { .. } => PageEncoding::RleDictionary,
            Self::Int64 { packed: true, .. } | Self::Int32 { .. } => PageEncoding::DeltaBinaryPacked,
            Self::Bytes { .. } => PageEncoding::DeltaLengthByteArray,
            Self::Int64 { .. } | Self::Double { .. } | Self::Bool { .. } => PageEncoding::Plain,
        }
    }

    #[inline]
    pub(super) fn push_text(&mut self, value: &[u8]) {
        match self {
            Self::Dictionary { ids, dictionary } => ids.push(dictionary.intern(value)),
            Self::Bytes { lengths, data, .. } => {
                lengths.push(i32::try_from(value.len()).expect("a value is shorter than a part of a trace"));
                data.extend_from_slice(value);
            }
            other => unreachable!("byte string for {:?}", other.encoding()),
        }
    }

    /// Appends a value that the chunk's dictionary has numbered before.
    #[inline]
    pub(super) fn push_id(&mut self, id: u32) {
        match self {
            Self::Dictionary { ids, .. } => ids.push(id),
            other => unreachable!("dictionary number for {:?}", other.encoding()),
        }
    }

    /// Numbers a value without appending it.
    pub(super) fn intern(&mut self, value: &[u8]) -> u32 {
        match self {
            Self::Dictionary { dictionary, .. } => dictionary.intern(value),
            other => unreachable!("dictionary number for {:?}", other.encoding()),
        }
    }

    #[inline]
    pub(super) fn push_i64(&mut self, value: i64) {
        match self {
            Self::Int64 { values, .. } => values.push(value),
            other => unreachable!("64-bit integer for {:?}", other.encoding()),
        }
    }

    #[inline]
    pub(super) fn push_i32(&mut self, value: i32) {
        match self {
            Self::Int32 { values, .. } => values.push(value),
            other => unreachable!("32-bit integer for {:?}", other.encoding()),
        }
    }

    #[inline]
    pub(super) fn push_double(&mut self, value: f64) {
        match self {
            Self::Double { values, .. } => values.push(value),
            other => unreachable!("double for {:?}", other.encoding()),
        }
    }

    #[inline]
    pub(super) fn push_bool(&mut self, value: bool) {
        match self {
            Self::Bool { values, .. } => values.push(value),
            other => unreachable!("truth value for {:?}", other.encoding()),
        }
    }

    /// Appends the first `count` of the waiting values in their encoding, and forgets them.
    pub(super) fn encode(&mut self, count: usize, out: &mut Vec<u8>) {
        match self {
            Self::Dictionary { ids, dictionary } => {
                let width = width_of(dictionary);
                out.push(u8::try_from(width).expect("at most 32"));
                hybrid::encode(&ids[..count], width, out);
                ids.drain(..count);
            }
            Self::Int64 { values, unsigned, packed, bounds } => {
                let first = &values[..count];
                if *unsigned {
                    widen(bounds, first, |a, b| a.cast_unsigned() < b.cast_unsigned());
                } else {
                    widen(bounds, first, |a, b| a < b);
                }
                if *packed {
                    delta::encode_i64(first, out);
                } else {
                    out.extend(first.iter().flat_map(|value| value.to_le_bytes()));
                }
                values.drain(..count);
            }
            Self::Int32 { values, unsigned, bounds } => {
                let first = &values[..count];
                if *unsigned {
                    widen(bounds, first, |a, b| a.cast_unsigned() < b.cast_unsigned());
                } else {
                    widen(bounds, first, |a, b| a < b);
                }
                delta::encode_i32(first, out);
                values.drain(..count);
            }
            Self::Double { values, bounds } => {
                widen(bounds, &values[..count], |a, b| a < b);
                out.extend(values.drain(..count).flat_map(f64::to_le_bytes));
            }
            Self::Bool { values, bounds } => {
                let first = &values[..count];
                widen(bounds, first, |a, b| !a & b);
                let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
                out.extend(first.chunks(8).map(byte));
                values.drain(..count);
            }
            Self::Bytes { lengths, data, bounds, bounded } => {
                let first = &lengths[..count];
                let size = size_of_all(first);
                if *bounded {
                    widen_bytes(bounds, first, data);
                }
                delta::encode_i32(first, out);
                out.extend_from_slice(&data[..size]);
                lengths.drain(..count);
                data.drain(..size);
            }
        }
    }

    /// The dictionary page's content, if the chunk has a dictionary.
    pub(super) fn dictionary(&self) -> Option<&Dictionary> {
        match self {
            Self::Dictionary { dictionary, .. } => Some(dictionary),
            _ => None,
        }
    }

    /// Statistics of all values encoded since the last [`Self::reset`].
    pub(super) fn statistics(&self, nulls: u64) -> Statistics {
        let nulls = Some(nulls);
        match self {
            Self::Dictionary { dictionary, .. } => byte_statistics(dictionary.bounds(), nulls),
            Self::Bytes { bounds, .. } => {
                byte_statistics(bounds.as_ref().map(|(min, max)| (min.as_slice(), max.as_slice())), nulls)
            }
            Self::Int64 { bounds, .. } => {
                Statistics::int64(bounds.map(|b| b.0), bounds.map(|b| b.1), None, nulls, false)
            }
            Self::Int32 { bounds, .. } => {
                Statistics::int32(bounds.map(|b| b.0), bounds.map(|b| b.1), None, nulls, false)
            }
            Self::Double { bounds, .. } => {
                // Bounds with a NaN say nothing, and zeros of either sign compare equal: both are left out or widened.
                let sane = bounds.filter(|(min, max)| !min.is_nan() && !max.is_nan());
                let min = sane.map(|(min, _)| if min == 0.0 { -0.0 } else { min });
                let max = sane.map(|(_, max)| if max == 0.0 { 0.0 } else { max });
                Statistics::double(min, max, None, nulls, false)
            }
            Self::Bool { bounds, .. } => {
                Statistics::boolean(bounds.map(|b| b.0), bounds.map(|b| b.1), None, nulls, false)
            }
        }
    }

    /// Bounds of the first `count` waiting values as the column index wants them; only for leaves without repetition.
    pub(super) fn page_bounds(&self, count: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        match self {
            Self::Dictionary { ids, dictionary } => {
                let ids = &ids[..count];
                let first = dictionary.get(*ids.first()?);
                let values = ids.iter().map(|id| dictionary.get(*id));
                let (min, max) = values.fold((first, first), |(min, max), value| (min.min(value), max.max(value)));
                Some((cut_down(min).to_vec(), cut_up(max)?))
            }
            Self::Bytes { lengths, data, .. } => {
                let mut bounds = None;
                widen_bytes(&mut bounds, &lengths[..count], data);
                let (min, max) = bounds?;
                Some((cut_down(&min).to_vec(), cut_up(&max)?))
            }
            Self::Int64 { values, unsigned: true, .. } => {
                let values = &values[..count];
                let min = values.iter().min_by_key(|value| value.cast_unsigned())?;
                let max = values.iter().max_by_key(|value| value.cast_unsigned())?;
                Some((min.to_le_bytes().to_vec(), max.to_le_bytes().to_vec()))
            }
            _ => None,
        }
    }

    /// Starts the next chunk.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Dictionary { dictionary, .. } => dictionary.clear(),
            Self::Int64 { bounds, .. } => *bounds = None,
            Self::Int32 { bounds, .. } => *bounds = None,
            Self::Double { bounds, .. } => *bounds = None,
            Self::Bool { bounds, .. } => *bounds = None,
            Self::Bytes { bounds, .. } => *bounds = None,
        }
    }
}

/// Bits that the dictionary numbers given so far need: early pages are narrower.
fn bits_of(dictionary: &Dictionary) -> u32 {
    let last = u32::try_from(dictionary.len().saturating_sub(1)).expect("numbers are u32");
    hybrid::bits_for(last).max(1)
}

/// Width of the dictionary numbers of a page. From a byte on it is whole bytes: the compressor finds what repeats from span to span
/// only at bytes, and saves more than the bits cost.
fn width_of(dictionary: &Dictionary) -> u32 {
    match bits_of(dictionary) {
        bits @ ..=8 => bits,
        bits => bits.next_multiple_of(8),
    }
}

fn size_of_all(lengths: &[i32]) -> usize {
    lengths.iter().map(|length| usize::try_from(*length).expect("pushed as a length")).sum()
}

fn widen_bytes(bounds: &mut Bounds<Vec<u8>>, lengths: &[i32], data: &[u8]) {
    let mut rest = data;
    for length in lengths {
        let (value, after) = rest.split_at(usize::try_from(*length).expect("pushed as a length"));
        rest = after;
        match bounds {
            None => *bounds = Some((value.to_vec(), value.to_vec())),
            Some((min, _)) if value < min.as_slice() => *min = value.to_vec(),
            Some((_, max)) if value > max.as_slice() => *max = value.to_vec(),
            Some(_) => {}
        }
    }
}

fn cut_down(value: &[u8]) -> &[u8] {
    &value[..value.len().min(BOUND_BYTES)]
}

/// A short string that is not below `value`; none if there is no such string.
fn cut_up(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() <= BOUND_BYTES {
        return Some(value.to_vec());
    }
    let mut cut = value[..BOUND_BYTES].to_vec();
    while let Some(last) = cut.pop() {
        if last < 0xFF {
            cut.push(last + 1);
            return Some(cut);
        }
    }
    None
}

fn byte_statistics(bounds: Option<(&[u8], &[u8])>, nulls: Option<u64>) -> Statistics {
    let min = bounds.map(|(min, _)| ByteArray::from(cut_down(min).to_vec()));
    let max = bounds.and_then(|(_, max)| cut_up(max)).map(ByteArray::from);
    let exact = |bound: Option<&[u8]>| bound.is_some_and(|bound| bound.len() <= BOUND_BYTES);
    let statistics = ValueStatistics::new(min, max, None, nulls, false)
        .with_min_is_exact(exact(bounds.map(|b| b.0)))
        .with_max_is_exact(exact(bounds.map(|b| b.1)));
    Statistics::ByteArray(statistics)
}

//! DELTA_BINARY_PACKED, and the two byte-array encodings that are built on it.

use std::cell::RefCell;

use bytes::Bytes;

use super::{
    error::{Error, Result},
    rle::{each_packed, low_bits, word_at},
    values::ByteValues,
};

fn malformed(why: &'static str) -> Error {
    Error::malformed("delta data", why)
}

fn varint(buf: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = buf.split_first().ok_or_else(|| malformed("ends early"))?;
        *buf = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(malformed("varint is too long"))
}

fn zigzag(buf: &mut &[u8]) -> Result<i64> {
    let raw = varint(buf)?;
    Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
}

fn size(buf: &mut &[u8]) -> Result<usize> {
    usize::try_from(varint(buf)?).map_err(|_too_big| malformed("number does not fit"))
}

/// How the blocks of a page are laid out, and the first value.
struct Layout {
    minis: usize,
    /// Values of a miniblock.
    per_mini: usize,
    first: i64,
}

fn layout(buf: &mut &[u8], count: usize) -> Result<Layout> {
    let block = size(buf)?;
    let minis = size(buf)?;
    let total = size(buf)?;
    let first = zigzag(buf)?;
    if total != count {
        return Err(malformed("other number of values than the page has"));
    }
    if minis == 0 || block == 0 || !block.is_multiple_of(minis) || !(block / minis).is_multiple_of(8) || block > 1 << 20
    {
        return Err(malformed("block layout"));
    }
    Ok(Layout { minis, per_mini: block / minis, first })
}

/// `count` integers instead of what is in `out`; answers the bytes behind them. Arithmetic wraps, as the format says.
pub(crate) fn integers<'a>(mut buf: &'a [u8], count: usize, out: &mut Vec<i64>) -> Result<&'a [u8]> {
    out.clear();
    if count == 0 && buf.is_empty() {
        return Ok(buf);
    }
    let Layout { minis, per_mini, first: mut value } = layout(&mut buf, count)?;
    if count > 0 {
        out.push(value);
    }
    while out.len() < count {
        let min_delta = zigzag(&mut buf)?;
        let (widths, rest) = buf.split_at_checked(minis).ok_or_else(|| malformed("ends early"))?;
        buf = rest;
        for &width in widths {
            let wanted = per_mini.min(count - out.len());
            if wanted == 0 {
                break;
            }
            if width > 64 {
                return Err(malformed("bit width above 64"));
            }
            let bits = usize::from(width);
            // The last miniblock is padded to its full length by the format, but not by every writer.
            let bytes = (per_mini * bits / 8).min(buf.len());
            if bytes < (wanted * bits).div_ceil(8) {
                return Err(malformed("ends inside a miniblock"));
            }
            let (packed, rest) = buf.split_at(bytes);
            buf = rest;
            let from = out.len();
            out.resize(from + wanted, value);
            let mut slots = out[from..].iter_mut();
            let mut add = |delta: u64| {
                value = value.wrapping_add(min_delta.wrapping_add(delta.cast_signed()));
                slots.next().into_iter().for_each(|slot| *slot = value);
            };
            match width {
                // They are there already.
                0 if min_delta == 0 => {}
                0 => (0..wanted).for_each(|_| add(0)),
                1..=56 => each_packed(packed, width, wanted, add),
                _ => (0..wanted).for_each(|index| add(wide(packed, index * bits, width))),
            }
        }
    }
    Ok(buf)
}

/// The integer that all `count` are, and the bytes behind them; none when they differ or are written in another way.
fn constant(mut buf: &[u8], count: usize) -> Result<Option<(i64, &[u8])>> {
    let Layout { minis, per_mini, first } = layout(&mut buf, count)?;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let min_delta = zigzag(&mut buf)?;
        let (widths, rest) = buf.split_at_checked(minis).ok_or_else(|| malformed("ends early"))?;
        let used = left.div_ceil(per_mini).min(minis);
        if min_delta != 0 || widths[..used].iter().any(|width| *width > 0) {
            return Ok(None);
        }
        buf = rest;
        left = left.saturating_sub(minis * per_mini);
    }
    Ok(Some((first, buf)))
}

thread_local! {
    /// Integers that are needed for a moment.
    static NUMBERS: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// Larger memory is not kept for the next page.
const MAX_KEPT: usize = 1 << 16;

/// Calls `each` with a list whose memory is used again and again.
pub(crate) fn with_numbers<T>(each: impl FnOnce(&mut Vec<i64>) -> T) -> T {
    let mut numbers = NUMBERS.take();
    numbers.clear();
    let out = each(&mut numbers);
    if numbers.capacity() <= MAX_KEPT {
        NUMBERS.set(numbers);
    }
    out
}

/// A value of 57 to 64 bits, which with its offset may touch nine bytes.
fn wide(packed: &[u8], bit: usize, width: u8) -> u64 {
    let shift = bit & 7;
    let low = word_at(packed, bit >> 3) >> shift;
    let high = if shift == 0 { 0 } else { word_at(packed, (bit >> 3) + 8) << (64 - shift) };
    let mask = if width == 64 { u64::MAX } else { low_bits(width) };
    (low | high) & mask
}

/// DELTA_LENGTH_BYTE_ARRAY: all lengths, then all bytes. The values are slices of `buf`.
pub(crate) fn byte_arrays(buf: &Bytes, count: usize) -> Result<ByteValues> {
    let end = u32::try_from(buf.len()).map_err(|_too_big| malformed("page above 4 GiB"))?;
    let place = |rest: &[u8]| u32::try_from(buf.len() - rest.len()).map_err(|_too_big| malformed("page above 4 GiB"));
    let past_end = || malformed("byte array past the end");
    if count > 0
        && let Some((length, rest)) = constant(buf, count)?
    {
        let (first, length) = (place(rest)?, u32::try_from(length).map_err(|_negative| past_end())?);
        let all = u64::from(length).checked_mul(count as u64).ok_or_else(past_end)?;
        if all > u64::from(end - first) {
            return Err(past_end());
        }
        return Ok(ByteValues::equal(buf.clone(), first, length, count));
    }
    with_numbers(|lengths| {
        let first = place(integers(buf, count, lengths)?)?;
        let mut at = first;
        let mut ends = Vec::with_capacity(count);
        for length in lengths {
            at = u32::try_from(*length)
                .ok()
                .and_then(|length| at.checked_add(length))
                .filter(|next| *next <= end)
                .ok_or_else(past_end)?;
            ends.push(at);
        }
        Ok(ByteValues::new(buf.clone(), first, 0, ends))
    })
}

/// DELTA_BYTE_ARRAY: each value is a prefix of the one before and a suffix. `limit` bounds the bytes that come out.
pub(crate) fn prefixed_byte_arrays(buf: &Bytes, count: usize, limit: usize) -> Result<ByteValues> {
    let mut prefixes = Vec::new();
    let rest = integers(buf, count, &mut prefixes)?;
    let suffixes = byte_arrays(&buf.slice_ref(rest), count)?;
    let mut data: Vec<u8> = Vec::with_capacity(rest.len());
    let mut ends = Vec::with_capacity(count);
    let mut last = 0..0;
    for (index, prefix) in prefixes.into_iter().enumerate() {
        let prefix = usize::try_from(prefix)
            .ok()
            .filter(|prefix| *prefix <= last.len())
            .ok_or_else(|| malformed("prefix longer than the value before"))?;
        let suffix = suffixes.get(index).unwrap_or_default();
        let start = data.len();
        if start + prefix + suffix.len() > limit {
            return Err(malformed("values too large"));
        }
        data.extend_from_within(last.start..last.start + prefix);
        data.extend_from_slice(suffix);
        last = start..data.len();
        ends.push(u32::try_from(last.end).map_err(|_too_big| malformed("values above 4 GiB"))?);
    }
    Ok(ByteValues::new(Bytes::from(data), 0, 0, ends))
}

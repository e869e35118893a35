//! DELTA_BINARY_PACKED, and the two byte-array encodings that are built on it.

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

/// `count` integers; answers them and the bytes behind them. Arithmetic wraps, as the format says.
pub(crate) fn integers(mut buf: &[u8], count: usize) -> Result<(Vec<i64>, &[u8])> {
    if count == 0 && buf.is_empty() {
        return Ok((Vec::new(), buf));
    }
    let block = size(&mut buf)?;
    let minis = size(&mut buf)?;
    let total = size(&mut buf)?;
    let mut value = zigzag(&mut buf)?;
    if total != count {
        return Err(malformed("other number of values than the page has"));
    }
    if minis == 0 || block == 0 || !block.is_multiple_of(minis) || !(block / minis).is_multiple_of(8) || block > 1 << 20
    {
        return Err(malformed("block layout"));
    }
    let per_mini = block / minis;
    let mut out = Vec::with_capacity(count);
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
            let mut add = |delta: u64| {
                value = value.wrapping_add(min_delta).wrapping_add(delta.cast_signed());
                out.push(value);
            };
            match width {
                0 => (0..wanted).for_each(|_| add(0)),
                1..=56 => each_packed(packed, width, wanted, add),
                _ => (0..wanted).for_each(|index| add(wide(packed, index * bits, width))),
            }
        }
    }
    Ok((out, buf))
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
    let (lengths, rest) = integers(buf, count)?;
    let mut at = u32::try_from(buf.len() - rest.len()).map_err(|_too_big| malformed("page above 4 GiB"))?;
    let end = u32::try_from(buf.len()).map_err(|_too_big| malformed("page above 4 GiB"))?;
    let mut bounds = Vec::with_capacity(count);
    for length in lengths {
        let next = u32::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length))
            .filter(|next| *next <= end)
            .ok_or_else(|| malformed("byte array past the end"))?;
        bounds.push((at, next));
        at = next;
    }
    Ok(ByteValues::new(buf.clone(), bounds))
}

/// DELTA_BYTE_ARRAY: each value is a prefix of the one before and a suffix. `limit` bounds the bytes that come out.
pub(crate) fn prefixed_byte_arrays(buf: &Bytes, count: usize, limit: usize) -> Result<ByteValues> {
    let (prefixes, rest) = integers(buf, count)?;
    let suffixes = byte_arrays(&buf.slice_ref(rest), count)?;
    let mut data: Vec<u8> = Vec::with_capacity(rest.len());
    let mut bounds = Vec::with_capacity(count);
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
        let bound = |at: usize| u32::try_from(at).map_err(|_too_big| malformed("values above 4 GiB"));
        bounds.push((bound(last.start)?, bound(last.end)?));
    }
    Ok(ByteValues::new(Bytes::from(data), bounds))
}

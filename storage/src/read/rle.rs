//! The RLE / bit-packed hybrid of levels, booleans and dictionary ids.

use super::{
    error::{Error, Result},
    packed::Packed,
};

/// One run of the hybrid.
pub(crate) enum Run<'a> {
    /// The same value `len` times.
    Repeat { value: u32, len: usize },
    /// `len` values of the width of the stream, least significant bit first.
    Packed { bytes: &'a [u8], len: usize },
}

/// Iterates over the runs of at most `left` values.
pub(crate) struct Hybrid<'a> {
    buf: &'a [u8],
    width: u8,
    left: usize,
}

impl<'a> Hybrid<'a> {
    /// `width` is at most 32; `count` is how many values the caller expects.
    pub(crate) fn new(buf: &'a [u8], width: u8, count: usize) -> Result<Self> {
        if width > 32 {
            return Err(malformed("bit width above 32"));
        }
        Ok(Self { buf, width, left: count })
    }

    /// The next run, none after `count` values. Running out of bytes before is an error.
    pub(crate) fn next_run(&mut self) -> Result<Option<Run<'a>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let head = self.varint()?;
        let count = usize::try_from(head >> 1).map_err(|_too_big| malformed("run does not fit"))?;
        if count == 0 {
            return Err(malformed("empty run"));
        }
        if head & 1 == 0 {
            let bytes = usize::from(self.width.div_ceil(8));
            let raw = self.buf.get(..bytes).ok_or_else(|| malformed("ends inside a run"))?;
            let mut word = [0u8; 4];
            word[..bytes].copy_from_slice(raw);
            self.buf = &self.buf[bytes..];
            let len = count.min(self.left);
            self.left -= len;
            return Ok(Some(Run::Repeat { value: u32::from_le_bytes(word), len }));
        }
        let len = count.saturating_mul(8).min(self.left);
        let bytes = count.saturating_mul(usize::from(self.width));
        // The last group may be cut where no wanted value lies any more.
        let needed = len.saturating_mul(usize::from(self.width)).div_ceil(8);
        let bytes = bytes.min(self.buf.len());
        if bytes < needed {
            return Err(malformed("ends inside a run"));
        }
        let (run, rest) = self.buf.split_at(bytes);
        self.buf = rest;
        self.left -= len;
        Ok(Some(Run::Packed { bytes: run, len }))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..42).step_by(7) {
            let (&byte, rest) = self.buf.split_first().ok_or_else(|| malformed("ends inside a run header"))?;
            self.buf = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("run header is too long"))
    }
}

fn malformed(why: &'static str) -> Error {
    Error::malformed("run-length data", why)
}

/// Fills `out` with values of `width` bits. `bytes` holds all of them, which [`Hybrid::next_run`] checked.
#[inline]
fn unpack<T: Copy + Default>(bytes: &[u8], width: u8, out: &mut [T], of: impl Fn(u64) -> T) {
    if width == 0 {
        out.fill(of(0));
        return;
    }
    let count = out.len();
    let mut slots = out.iter_mut();
    each_packed(bytes, width, count, |word| slots.next().into_iter().for_each(|slot| *slot = of(word)));
}

/// Calls `each` with the `count` values of `width` bits, 1 to 57, that stand in `bytes` one behind the other.
#[inline]
pub(crate) fn each_packed(bytes: &[u8], width: u8, count: usize, mut each: impl FnMut(u64)) {
    let (mask, step) = (low_bits(width), usize::from(width));
    // Up to seven bits of a word lie before the first value, so this many are whole in it.
    let in_word = 57 / step;
    let (mut bit, mut left) = (0, count);
    while left > 0 {
        let mut word = word_at(bytes, bit >> 3) >> (bit & 7);
        let now = in_word.min(left);
        for _ in 0..now {
            each(word & mask);
            word >>= width;
        }
        bit += step * now;
        left -= now;
    }
}

/// Spreads eight values that stand one behind the other into a byte each: by halves, quarters and eighths of a word.
#[derive(Clone, Copy)]
struct Spread {
    width: u8,
    halves: u64,
    quarters: u64,
    eighths: u64,
}

impl Spread {
    /// For values of `width` bits, 1 to 8.
    fn new(width: u8) -> Self {
        Self {
            width,
            halves: low_bits(width * 4),
            quarters: low_bits(width * 2) * 0x0000_0001_0000_0001,
            eighths: low_bits(width) * 0x0001_0001_0001_0001,
        }
    }

    #[inline]
    fn bytes(self, word: u64) -> [u8; 8] {
        let width = self.width;
        let word = word & self.halves | (word & self.halves << (width * 4)) << (32 - width * 4);
        let word = word & self.quarters | (word & self.quarters << (width * 2)) << (16 - width * 2);
        let word = word & self.eighths | (word & self.eighths << width) << (8 - width);
        word.to_le_bytes()
    }
}

/// As [`unpack`], for values that fit a byte.
#[inline]
fn unpack_bytes(bytes: &[u8], width: u8, out: &mut [u8]) {
    if width == 0 {
        out.fill(0);
        return;
    }
    // Eight values are exactly `width` bytes, so one word holds them.
    let (spread, step) = (Spread::new(width), usize::from(width));
    let (eights, rest) = out.as_chunks_mut::<8>();
    let mut at = 0;
    for eight in eights {
        *eight = spread.bytes(word_at(bytes, at));
        at += step;
    }
    let last = spread.bytes(word_at(bytes, at));
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Mask of the low `width` bits, `width` in 1..=63.
#[inline]
pub(crate) fn low_bits(width: u8) -> u64 {
    (1u64 << width) - 1
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the caller masked the value to at most 32 bits")]
fn low32(word: u64) -> u32 {
    word as u32
}

#[inline]
fn low16(word: u64) -> u16 {
    let [low, high, ..] = word.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Eight bytes at `at`, zeros past the end.
#[inline]
pub(crate) fn word_at(bytes: &[u8], at: usize) -> u64 {
    if let Some(raw) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        return u64::from_le_bytes(*raw);
    }
    let mut word = [0u8; 8];
    let tail = bytes.get(at..).unwrap_or_default();
    word[..tail.len()].copy_from_slice(tail);
    u64::from_le_bytes(word)
}

/// All values of the runs in `buf`, each made by `of` out of its low bits.
fn decode<T: Copy + Default>(buf: &[u8], width: u8, count: usize, of: impl Fn(u64) -> T + Copy) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(count);
    let mut runs = Hybrid::new(buf, width, count)?;
    while let Some(run) = runs.next_run()? {
        let from = out.len();
        match run {
            Run::Repeat { value, len } => out.resize(from + len, of(u64::from(value))),
            Run::Packed { bytes, len } => {
                out.resize(from + len, T::default());
                unpack(bytes, width, &mut out[from..], of);
            }
        }
    }
    Ok(out)
}

/// Levels of a page: `count` values of at most `max`.
pub(crate) fn levels(buf: &[u8], max: u8, count: usize) -> Result<Vec<u8>> {
    let width = level_width(max);
    // All bits set is a level: then packed runs cannot hold one above the maximum.
    let dense = u64::from(max) == low_bits(width.max(1)) || width == 0;
    let mut out = Vec::with_capacity(count);
    let mut runs = Hybrid::new(buf, width, count)?;
    while let Some(run) = runs.next_run()? {
        let from = out.len();
        match run {
            Run::Repeat { value, len } => {
                let value = u8::try_from(value).ok().filter(|value| *value <= max).ok_or_else(too_high)?;
                out.resize(from + len, value);
            }
            Run::Packed { bytes, len } => {
                out.resize(from + len, 0);
                unpack_bytes(bytes, width, &mut out[from..]);
                if !dense && out[from..].iter().copied().max().unwrap_or(0) > max {
                    return Err(too_high());
                }
            }
        }
    }
    Ok(out)
}

fn too_high() -> Error {
    malformed("level above its maximum")
}

/// Bits of a level whose maximum is `max`.
pub(crate) fn level_width(max: u8) -> u8 {
    u8::try_from(u8::BITS - max.leading_zeros()).unwrap_or(8)
}

/// Dictionary ids of a page, all below `entries`, in as few bytes each as their bit width needs. The first byte of `buf` is that.
pub(crate) fn ids(buf: &[u8], entries: usize, count: usize) -> Result<Packed> {
    if count == 0 {
        return Ok(Vec::<u32>::new().into());
    }
    let (&width, buf) = buf.split_first().ok_or_else(|| malformed("no bit width"))?;
    let (ids, highest) = match width {
        0..=8 => {
            let ids = decode_bytes(buf, width, count)?;
            let highest = ids.iter().copied().max().map(u32::from);
            (ids.into(), highest)
        }
        9..=16 => {
            let ids = decode(buf, width, count, low16)?;
            let highest = ids.iter().copied().max().map(u32::from);
            (Packed::from(ids), highest)
        }
        _ => {
            let ids = decode(buf, width, count, low32)?;
            let highest = ids.iter().copied().max();
            (ids.into(), highest)
        }
    };
    if usize::try_from(highest.unwrap_or(0)).is_ok_and(|id| id < entries) {
        Ok(ids)
    } else {
        Err(malformed("dictionary id without entry"))
    }
}

/// As [`decode`], for values of at most eight bits.
fn decode_bytes(buf: &[u8], width: u8, count: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(count);
    let mut runs = Hybrid::new(buf, width, count)?;
    while let Some(run) = runs.next_run()? {
        let from = out.len();
        match run {
            Run::Repeat { value, len } => out.resize(from + len, value.to_le_bytes()[0]),
            Run::Packed { bytes, len } => {
                out.resize(from + len, 0);
                unpack_bytes(bytes, width, &mut out[from..]);
            }
        }
    }
    Ok(out)
}

/// Booleans of a page in RLE encoding: a four-byte length, then the hybrid of width 1.
pub(crate) fn booleans(buf: &[u8], count: usize) -> Result<Vec<bool>> {
    let (len, rest) = buf.split_first_chunk::<4>().ok_or_else(|| malformed("no length"))?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_too_big| malformed("length does not fit"))?;
    let data = rest.get(..len).ok_or_else(|| malformed("length past the end"))?;
    decode(data, 1, count, |word| word != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_values_come_out_one_by_one_and_eight_at_once(
            width in 1_u8..33,
            values in prop::collection::vec(any::<u32>(), 0..70),
        ) {
            let values: Vec<u64> = values.iter().map(|value| u64::from(*value) & low_bits(width)).collect();
            let mut bits = vec![0_u8; (values.len() * usize::from(width)).div_ceil(8)];
            for (index, value) in values.iter().enumerate() {
                for bit in (0..width).filter(|bit| value >> bit & 1 == 1) {
                    let at = index * usize::from(width) + usize::from(bit);
                    bits[at / 8] |= 1 << (at % 8);
                }
            }
            let mut found = Vec::new();
            each_packed(&bits, width, values.len(), |value| found.push(value));
            prop_assert_eq!(&found, &values);
            if width <= 8 {
                let mut bytes = vec![0xff; values.len()];
                unpack_bytes(&bits, width, &mut bytes);
                prop_assert_eq!(bytes.into_iter().map(u64::from).collect::<Vec<_>>(), values);
            }
        }
    }
}

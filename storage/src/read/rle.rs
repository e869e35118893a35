//! The RLE / bit-packed hybrid of levels, booleans and dictionary ids.

use bytes::Bytes;

use super::{
    bits::Bits,
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

/// How many values of `width` bits, 1 to 57, are whole in a word of which up to seven bits lie before the first.
#[inline]
pub(crate) fn whole_in_word(width: u8) -> usize {
    // A look is quicker than a division, for those who want few values.
    const COUNTS: [u8; 58] = {
        let mut counts = [57; 58];
        let mut width = 1;
        while width < 58 {
            counts[width as usize] = 57 / width;
            width += 1;
        }
        counts
    };
    usize::from(COUNTS[usize::from(width)])
}

/// Calls `each` with the `count` values of `width` bits, 1 to 57, that stand in `bytes` one behind the other.
#[inline]
pub(crate) fn each_packed(bytes: &[u8], width: u8, count: usize, mut each: impl FnMut(u64)) {
    let (mask, step, in_word) = (low_bits(width), usize::from(width), whole_in_word(width));
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

/// Fills `out` with values of `width` bits, 0 to 8, that stand in `bytes` one behind the other. Past the end of `bytes` there are zeros.
#[inline]
pub(crate) fn unpack_bytes(bytes: &[u8], width: u8, out: &mut [u8]) {
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

/// Bits of a level whose maximum is `max`.
pub(crate) fn level_width(max: u8) -> u8 {
    u8::try_from(u8::BITS - max.leading_zeros()).unwrap_or(8)
}

/// Dictionary ids of a page, all below `entries`, as they stand there. The first byte of `buf`, which the result holds on to, is how
/// many bits they have.
pub(crate) fn ids(buf: &Bytes, entries: usize, count: usize) -> Result<Packed> {
    if count == 0 {
        return Ok(Vec::<u32>::new().into());
    }
    let &width = buf.first().ok_or_else(|| malformed("no bit width"))?;
    let ids = Bits::decode(&buf.slice(1..), width, count, true)?;
    if ids.all_below(entries) { Ok(ids.into()) } else { Err(malformed("dictionary id without entry")) }
}

/// Booleans of a page in RLE encoding: a four-byte length, then the hybrid of width 1.
pub(crate) fn booleans(buf: &[u8], count: usize) -> Result<Vec<bool>> {
    let (len, rest) = buf.split_first_chunk::<4>().ok_or_else(|| malformed("no length"))?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_too_big| malformed("length does not fit"))?;
    let data = rest.get(..len).ok_or_else(|| malformed("length past the end"))?;
    let mut out = Vec::with_capacity(count);
    let mut runs = Hybrid::new(data, 1, count)?;
    while let Some(run) = runs.next_run()? {
        match run {
            Run::Repeat { value, len } => out.resize(out.len() + len, value != 0),
            Run::Packed { bytes, len } => each_packed(bytes, 1, len, |word| out.push(word != 0)),
        }
    }
    Ok(out)
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

//! Small numbers of one width, one behind the other as pages have them: nothing is expanded before somebody wants it.
//!
//! Pages have runs of two kinds. A page of one run is kept as it is; runs that change are packed again into one, so that every number
//! is found by its place. Levels and ids of small dictionaries are compared many at once, inside of words: see [`Fields`].

use std::ops::Range;

use bytes::Bytes;
use vivace_traceql::Bitmap;

use super::{
    error::{Error, Result},
    fields::{Fields, of_width},
    rle::{Hybrid, Run, low_bits, unpack_bytes, whole_in_word, word_at},
};

/// Numbers that are looked at together: a bit for each fits a word.
pub(crate) const BLOCK: usize = 64;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Bits {
    form: Form,
    len: usize,
}

#[derive(Debug, Clone)]
enum Form {
    /// All the same.
    Same(u32),
    /// So many bits each, 1 to 32, least significant first. The bytes hold all of them.
    Packed(u8, Bytes),
}

impl Bits {
    /// The same number `len` times.
    pub(crate) fn same(number: u32, len: usize) -> Self {
        Self { form: Form::Same(number), len }
    }

    /// The first `len` numbers of the hybrid in `buf`, which have `width` bits, at most 32. The result holds on to `buf` if it
    /// `shares` it, and otherwise has bytes of its own.
    pub(crate) fn decode(buf: &Bytes, width: u8, len: usize, shares: bool) -> Result<Self> {
        let mut runs = Hybrid::new(buf, width, len)?;
        let form = match runs.next_run()? {
            None => Form::Same(0),
            Some(Run::Repeat { value, len: run }) if run == len => Form::Same(fitting(value, width)?),
            Some(Run::Packed { len: run, .. }) if width == 0 && run == len => Form::Same(0),
            Some(Run::Packed { bytes, len: run }) if run == len => {
                let bytes = &bytes[..(len * usize::from(width)).div_ceil(8)];
                Form::Packed(width, if shares { buf.slice_ref(bytes) } else { Bytes::copy_from_slice(bytes) })
            }
            Some(first) => joined(first, runs, width, len)?,
        };
        Ok(Self { form, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Memory held beside the value itself.
    pub(crate) fn memory(&self) -> usize {
        match &self.form {
            Form::Same(_) => 0,
            Form::Packed(_, bytes) => bytes.len(),
        }
    }

    /// The number that all are, if that is known.
    pub(crate) fn all_same(&self) -> Option<u32> {
        match self.form {
            Form::Same(number) => Some(number),
            Form::Packed(..) => None,
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<u32> {
        if index >= self.len {
            return None;
        }
        Some(match &self.form {
            Form::Same(number) => *number,
            Form::Packed(width, bytes) => {
                let bit = index * usize::from(*width);
                low32(word_at(bytes, bit >> 3) >> (bit & 7) & low_bits(*width))
            }
        })
    }

    /// Calls `each` with the numbers of `range`, which is cut at the end.
    #[inline]
    pub(crate) fn each(&self, range: Range<usize>, mut each: impl FnMut(u32)) {
        let range = range.start..range.end.min(self.len);
        match &self.form {
            Form::Same(number) => range.for_each(|_| each(*number)),
            Form::Packed(width, bytes) => {
                let (mask, step, in_word) = (low_bits(*width), usize::from(*width), whole_in_word(*width));
                let (mut bit, mut left) = (range.start * step, range.len());
                while left > 0 {
                    let mut word = word_at(bytes, bit >> 3) >> (bit & 7);
                    let now = in_word.min(left);
                    for _ in 0..now {
                        each(low32(word & mask));
                        word >>= *width;
                    }
                    bit += step * now;
                    left -= now;
                }
            }
        }
    }

    /// Appends the numbers of `range`, which is cut at the end, each made into something by `of`.
    pub(crate) fn extend<T>(&self, range: Range<usize>, out: &mut Vec<T>, of: impl Fn(u32) -> T) {
        let range = range.start..range.end.min(self.len).max(range.start);
        out.reserve(range.len());
        let Form::Packed(width @ 1..=8, bytes) = &self.form else {
            return self.each(range, |number| out.push(of(number)));
        };
        // Eight numbers begin with a byte.
        let whole = range.start.next_multiple_of(8).min(range.end);
        self.each(range.start..whole, |number| out.push(of(number)));
        let mut unpacked = [0; BLOCK];
        for from in (whole..range.end).step_by(BLOCK) {
            let unpacked = &mut unpacked[..(range.end - from).min(BLOCK)];
            unpack_bytes(bytes.get(from / 8 * usize::from(*width)..).unwrap_or_default(), *width, unpacked);
            out.extend(unpacked.iter().map(|number| of(u32::from(*number))));
        }
    }

    /// Which numbers of `range`, which is cut at the end, pass a test.
    pub(crate) fn test(&self, range: Range<usize>, mut passes: impl FnMut(u32) -> bool) -> Bitmap {
        let range = range.start..range.end.min(self.len).max(range.start);
        if let Form::Same(number) = self.form {
            return Bitmap::filled(range.len(), !range.is_empty() && passes(number));
        }
        let mut word_of = |some: Range<usize>| {
            let (mut word, mut bit) = (0, 0);
            self.each(some, |number| {
                word |= u64::from(passes(number)) << bit;
                bit += 1;
            });
            word
        };
        if range.len() <= BLOCK {
            return Bitmap::from_words(range.len(), [word_of(range)]);
        }
        let words = range.clone().step_by(BLOCK).map(|from| word_of(from..range.end.min(from + BLOCK)));
        Bitmap::from_words(range.len(), words)
    }

    /// Which numbers of `range`, which is cut at the end, are `number`.
    pub(crate) fn equal(&self, range: Range<usize>, number: u32) -> Bitmap {
        let end = range.end.min(self.len);
        match &self.form {
            Form::Packed(width @ 1..=8, bytes) if range.start.is_multiple_of(BLOCK) && range.start < end => {
                if u64::from(number) > low_bits(*width) {
                    return Bitmap::zeros(end - range.start);
                }
                let number = u64::from(number);
                let blocks = range.start / BLOCK..end.div_ceil(BLOCK);
                Bitmap::from_words(
                    end - range.start,
                    blocks.map(|block| of_width!(*width, equal(bytes, block, number))),
                )
            }
            _ => self.test(range, |found| found == number),
        }
    }

    /// Which of 64 numbers are at least `least`: a bit each, from `64 * block` on. Bits past the end mean nothing. For widths up to 8.
    #[inline]
    pub(crate) fn at_least(&self, block: usize, least: u32) -> u64 {
        match &self.form {
            Form::Same(number) => all_or_none(*number >= least),
            Form::Packed(..) if least == 0 => u64::MAX,
            Form::Packed(width, bytes) => at_least(*width, bytes, block, u64::from(least)),
        }
    }

    /// How many numbers are at least `least`. For widths up to 8.
    pub(crate) fn count_at_least(&self, least: u32) -> usize {
        let (width, bytes) = match &self.form {
            Form::Same(number) => return if *number >= least { self.len } else { 0 },
            Form::Packed(..) if least == 0 => return self.len,
            Form::Packed(width, bytes) => (*width, bytes),
        };
        if u64::from(least) > low_bits(width) {
            return 0;
        }
        let whole = self.len / BLOCK;
        let counted = of_width!(width, count_at_least(bytes, whole, u64::from(least)));
        let rest = low_ones(self.len % BLOCK) & self.at_least(whole, least);
        counted + ones_in(rest)
    }

    /// Whether all numbers are below `limit`.
    pub(crate) fn all_below(&self, limit: usize) -> bool {
        match &self.form {
            _ if self.len == 0 => true,
            Form::Same(number) => usize::try_from(*number).is_ok_and(|number| number < limit),
            Form::Packed(width, bytes) => {
                let Ok(limit) = u32::try_from(limit) else { return true };
                if u64::from(limit) > low_bits(*width) {
                    return true;
                }
                self.none_at_least(*width, bytes, u64::from(limit))
            }
        }
    }

    /// Whether no number is at least `limit`, which has no more bits than they.
    fn none_at_least(&self, width: u8, bytes: &[u8], limit: u64) -> bool {
        match width {
            1..=8 => {
                let whole = self.len / BLOCK;
                let rest = low_ones(self.len % BLOCK) & self.at_least(whole, low32(limit));
                rest == 0 && of_width!(width, none_at_least(bytes, whole, limit))
            }
            9..=16 => {
                // Four numbers begin with a byte or in the middle of one.
                let (step, places) = (usize::from(width), (0..4).fold(0, |places, at| places | 1 << (at * width)));
                let highest = places << (width - 1);
                let rest_of_limit = (places * limit) & !highest;
                let mask = low_ones(4 * step);
                let high = limit >> (width - 1) & 1 == 1;
                let marks = (0..self.len / 4).fold(0, |marks, four| {
                    let bit = four * 4 * step;
                    let word = word_at(bytes, bit >> 3) >> (bit & 7) & mask;
                    let below = (word | highest) - rest_of_limit;
                    marks | if high { word & below } else { word | below }
                });
                let mut rest = true;
                self.each(self.len / 4 * 4..self.len, |number| rest &= u64::from(number) < limit);
                rest && marks & highest == 0
            }
            _ => {
                let mut highest = 0;
                self.each(0..self.len, |number| highest = highest.max(number));
                u64::from(highest) < limit
            }
        }
    }

    /// 64 numbers from `64 * block` on; what is past the end means nothing. For widths up to 8.
    pub(crate) fn unpack(&self, block: usize, out: &mut [u8; BLOCK]) {
        match &self.form {
            Form::Same(number) => out.fill(number.to_le_bytes()[0]),
            Form::Packed(width, bytes) => {
                let from = block * BLOCK / 8 * usize::from(*width);
                unpack_bytes(bytes.get(from..).unwrap_or_default(), *width, out);
            }
        }
    }
}

/// Equal when the numbers are, however they are kept.
impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (0..self.len).all(|index| self.get(index) == other.get(index))
    }
}

impl Eq for Bits {}

#[inline]
fn all_or_none(all: bool) -> u64 {
    if all { u64::MAX } else { 0 }
}

/// A word whose lowest `count` bits are set, at most 64.
#[inline]
pub(crate) fn low_ones(count: usize) -> u64 {
    if count >= BLOCK { u64::MAX } else { (1 << count) - 1 }
}

/// How many bits are set.
#[inline]
pub(crate) fn ones_in(word: u64) -> usize {
    word.count_ones() as usize
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the caller masked the number to at most 32 bits")]
fn low32(word: u64) -> u32 {
    word as u32
}

#[inline(never)]
fn at_least(width: u8, bytes: &[u8], block: usize, least: u64) -> u64 {
    if least > low_bits(width) { 0 } else { of_width!(width, at_least(bytes, block, least)) }
}

fn malformed(why: &'static str) -> Error {
    Error::malformed("run-length data", why)
}

/// The number of a run, when it has no more bits than numbers have.
fn fitting(number: u32, width: u8) -> Result<u32> {
    let fits = u64::from(number) <= low_bits(width);
    if fits { Ok(number) } else { Err(malformed("run of a value with more bits than values have")) }
}

/// Runs packed into one.
fn joined(first: Run<'_>, mut runs: Hybrid<'_>, width: u8, len: usize) -> Result<Form> {
    if width == 0 {
        while runs.next_run()?.is_some() {}
        return Ok(Form::Same(0));
    }
    let mut packer = Packer::new(width, len);
    let mut next = Some(first);
    while let Some(run) = next {
        match run {
            Run::Repeat { value, len } => packer.repeat(value, len)?,
            Run::Packed { bytes, len } => packer.append(bytes, len),
        }
        next = runs.next_run()?;
    }
    Ok(Form::Packed(width, packer.finish()))
}

/// Room that is taken at once for numbers whose count only a header says.
const TRUSTED: usize = 1 << 16;

/// Writes numbers one behind the other.
struct Packer {
    width: u8,
    out: Vec<u8>,
    /// Up to seven bits that do not fill a byte yet.
    held: u64,
    filled: usize,
}

impl Packer {
    fn new(width: u8, len: usize) -> Self {
        let room = (len.saturating_mul(usize::from(width)) / 8).saturating_add(16);
        Self { width, out: Vec::with_capacity(room.min(TRUSTED)), held: 0, filled: 0 }
    }

    /// Appends at most 56 bits, above which `word` has none.
    #[inline]
    fn put(&mut self, word: u64, bits: usize) {
        self.held |= word << self.filled;
        self.filled += bits;
        let bytes = self.filled / 8;
        self.out.extend_from_slice(&self.held.to_le_bytes());
        self.out.truncate(self.out.len() - 8 + bytes);
        self.held >>= 8 * bytes;
        self.filled %= 8;
    }

    fn repeat(&mut self, number: u32, len: usize) -> Result<()> {
        let (number, step) = (u64::from(fitting(number, self.width)?), usize::from(self.width));
        let at_once = 56 / step;
        let many = (0..at_once).fold(0, |many, at| many | number << (at * step));
        for _ in 0..len / at_once {
            self.put(many, at_once * step);
        }
        let bits = len % at_once * step;
        self.put(many & low_ones(bits), bits);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], len: usize) {
        let bits = len * usize::from(self.width);
        let mut at = 0;
        if self.filled == 0 {
            self.out.extend_from_slice(&bytes[..bits / 8]);
            at = bits / 8;
        }
        while at * 8 < bits {
            let now = (bits - at * 8).min(56);
            self.put(word_at(bytes, at) & low_ones(now), now);
            at += 7;
        }
    }

    fn finish(mut self) -> Bytes {
        if self.filled > 0 {
            self.out.push(self.held.to_le_bytes()[0]);
        }
        self.out.into()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put_varint(mut value: usize, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        out.push(value.to_le_bytes()[0]);
    }

    /// Runs as a file has them: numbers, and whether each stretch is a repetition of its first or packed. Packed ones but the last
    /// are filled up to eight.
    pub(crate) fn hybrid(width: u8, stretches: &[(Vec<u32>, bool)]) -> (Vec<u8>, Vec<u32>) {
        let (mut out, mut all) = (Vec::new(), Vec::new());
        for (numbers, repeats) in stretches.iter().filter(|(numbers, _)| !numbers.is_empty()) {
            if *repeats {
                put_varint(numbers.len() << 1, &mut out);
                out.extend_from_slice(&numbers[0].to_le_bytes()[..usize::from(width.div_ceil(8))]);
                all.extend(std::iter::repeat_n(numbers[0], numbers.len()));
                continue;
            }
            let mut numbers = numbers.clone();
            numbers.resize(numbers.len().next_multiple_of(8), 0);
            put_varint(((numbers.len() / 8) << 1) | 1, &mut out);
            let from = out.len();
            out.resize(from + numbers.len() / 8 * usize::from(width), 0);
            for (index, number) in numbers.iter().enumerate() {
                for bit in (0..width).filter(|bit| number >> bit & 1 == 1) {
                    let at = index * usize::from(width) + usize::from(bit);
                    out[from + at / 8] |= 1 << (at % 8);
                }
            }
            all.extend(numbers);
        }
        (out, all)
    }

    /// Stretches of numbers of a width.
    pub(crate) fn stretches(width: u8) -> impl Strategy<Value = Vec<(Vec<u32>, bool)>> {
        let number = any::<u32>().prop_map(move |number| number & u32::try_from(low_bits(width)).expect("32 bits"));
        prop::collection::vec((prop::collection::vec(number, 1..150), any::<bool>()), 1..4)
    }

    fn bits() -> impl Strategy<Value = (u8, Bits, Vec<u32>)> {
        let parts = (1u8..33).prop_flat_map(|width| (Just(width), stretches(width), any::<bool>(), 0usize..8));
        parts.prop_map(|(width, stretches, shares, cut)| {
            let (buf, mut all) = hybrid(width, &stretches);
            all.truncate(all.len() - cut.min(all.len() - 1));
            let bits = Bits::decode(&buf.into(), width, all.len(), shares).expect("the runs are sound");
            (width, bits, all)
        })
    }

    proptest! {
        #[test]
        fn packed_numbers_are_those_of_the_runs(
            (width, bits, all) in bits(), from in 0usize..200, len in 0usize..200, wanted in any::<prop::sample::Index>(),
        ) {
            prop_assert_eq!(bits.len(), all.len());
            prop_assert_eq!((0..all.len() + 1).map(|at| bits.get(at)).collect::<Vec<_>>(),
                all.iter().copied().map(Some).chain([None]).collect::<Vec<_>>());
            let range = from.min(all.len())..(from + len).min(all.len()).max(from.min(all.len()));
            let mut some = Vec::new();
            bits.each(from..from + len, |number| some.push(number));
            prop_assert_eq!(&some, &all[range.clone()]);
            let mut doubled = vec![5];
            bits.extend(from..from + len, &mut doubled, |number| u64::from(number) * 2);
            let due: Vec<u64> = std::iter::once(5).chain(all[range].iter().map(|number| u64::from(*number) * 2)).collect();
            prop_assert_eq!(doubled, due);
            let number = all[wanted.index(all.len())];
            for from in [from, from / 64 * 64] {
                let range = from.min(all.len())..(from + len).min(all.len()).max(from.min(all.len()));
                let same: Vec<usize> = range.clone().filter(|at| all[*at] == number).map(|at| at - range.start).collect();
                prop_assert_eq!(bits.equal(range.clone(), number).ones_iter().collect::<Vec<_>>(), same.clone());
                prop_assert_eq!(bits.test(range.clone(), |found| found == number).ones_iter().collect::<Vec<_>>(), same);
            }
            let highest = all.iter().copied().max().unwrap_or(0);
            let limit = usize::try_from(highest).expect("32 bits");
            prop_assert!(bits.all_below(limit + 1) && !bits.all_below(limit));
            prop_assert!(bits.all_below(limit * 2 + 1) && !bits.all_below(limit / 2));
            if width <= 8 {
                for least in [0, 1, number, highest, (1 << width) - 1] {
                    let due: Vec<usize> = (0..all.len()).filter(|at| all[*at] >= least).collect();
                    prop_assert_eq!(bits.count_at_least(least), due.len());
                    let found = (0..all.len()).filter(|at| bits.at_least(at / BLOCK, least) >> (at % BLOCK) & 1 == 1);
                    prop_assert_eq!(found.collect::<Vec<_>>(), due);
                }
                let mut bytes = [0; BLOCK];
                for (block, due) in all.chunks(BLOCK).enumerate() {
                    bits.unpack(block, &mut bytes);
                    prop_assert!(bytes.iter().zip(due).all(|(byte, due)| u32::from(*byte) == *due));
                }
            }
        }
    }

    #[test]
    fn runs_that_say_more_than_their_bits_can_are_refused() {
        let decode = |buf: &'static [u8], width, len| Bits::decode(&Bytes::from_static(buf), width, len, true);
        // One packed run of eight numbers of three bits, and a repetition behind it that needs four.
        assert!(decode(&[3, 1, 2, 3, 6, 9], 3, 11).is_err());
        assert_eq!(decode(&[3, 1, 2, 3, 6, 7], 3, 11).unwrap().get(10), Some(7));
        assert!(decode(&[3, 1, 2], 3, 8).is_err() && decode(&[], 3, 1).is_err() && decode(&[0, 1], 3, 1).is_err());
        assert_eq!(decode(&[], 3, 0).unwrap().len(), 0);
    }
}

//! Parquet's run-length / bit-packed hybrid, for levels and dictionary numbers.

use super::varint::put_varint;

/// A run shorter than this stays inside a bit-packed stretch: leaving and entering one costs more than it saves.
const WORTHY_RUN: usize = 16;

/// Bits needed for numbers up to `max`.
pub(super) fn bits_for(max: u32) -> u32 {
    u32::BITS - max.leading_zeros()
}

/// Appends `values`, each below `2^width`.
///
/// Where runs alone are about as short as bit-packing, only runs are written: they begin on byte boundaries, so that
/// the compressor after this finds the pattern that repeats from span to span. Numbers of whole bytes have that anyway.
pub(super) fn encode<T: Copy + PartialEq + Into<u32>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    debug_assert!(width > 0, "callers give at least one bit: not every reader takes none");
    if values.is_empty() {
        return;
    }
    let runs = 1 + values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let bytes_of_run = 1 + width.div_ceil(8) as usize;
    let packed = values.len() * width as usize;
    let about_as_short = if width.is_multiple_of(8) { packed } else { packed * 3 / 2 };
    if runs * bytes_of_run * 8 <= about_as_short {
        encode_runs(values, width, out);
    } else {
        encode_mixed(values, width, out);
    }
}

fn put_run<T: Into<u32>>(value: T, length: usize, width: u32, out: &mut Vec<u8>) {
    put_varint((length as u64) << 1, out);
    let bytes = value.into().to_le_bytes();
    out.extend_from_slice(&bytes[..width.div_ceil(8) as usize]);
}

fn run_at<T: Copy + PartialEq>(values: &[T]) -> usize {
    values.iter().take_while(|value| **value == values[0]).count()
}

fn encode_runs<T: Copy + PartialEq + Into<u32>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let mut rest = values;
    while let Some(first) = rest.first() {
        let run = run_at(rest);
        put_run(*first, run, width, out);
        rest = &rest[run..];
    }
}

fn encode_mixed<T: Copy + PartialEq + Into<u32>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let mut at = 0;
    while at < values.len() {
        let run = run_at(&values[at..]);
        if run >= WORTHY_RUN {
            put_run(values[at], run, width, out);
            at += run;
            continue;
        }
        let start = at;
        while at < values.len() && run_of_at_least(&values[at..], WORTHY_RUN).is_none() {
            at += 8;
        }
        let end = at.min(values.len());
        let groups = (end - start).div_ceil(8);
        put_varint((groups as u64) << 1 | 1, out);
        pack(&values[start..end], width, out);
        at = end;
    }
}

fn run_of_at_least<T: Copy + PartialEq>(values: &[T], length: usize) -> Option<()> {
    let window = values.get(..length)?;
    window.iter().all(|value| *value == window[0]).then_some(())
}

/// Packs values least significant bit first, the last group of eight filled with zeros.
fn pack<T: Copy + Into<u32>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let bytes = values.len().div_ceil(8) * width as usize;
    let end = out.len() + bytes;
    out.reserve(bytes + 8);
    let (mut bits, mut filled) = (0u64, 0u32);
    for value in values {
        bits |= u64::from((*value).into()) << filled;
        filled += width;
        if filled >= 32 {
            out.extend_from_slice(&low_half(bits).to_le_bytes());
            bits >>= 32;
            filled -= 32;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes());
    out.resize(end, 0);
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
fn low_half(bits: u64) -> u32 {
    bits as u32
}

/// Appends 64-bit values of `width` bits each, in whole bytes; the count is a multiple of eight.
pub(super) fn pack_wide(values: &[u64], width: u32, out: &mut Vec<u8>) {
    let (mut bits, mut filled) = (0u128, 0u32);
    for value in values {
        bits |= u128::from(*value) << filled;
        filled += width;
        while filled >= 32 {
            out.extend_from_slice(&low_quarter(bits).to_le_bytes());
            bits >>= 32;
            filled -= 32;
        }
    }
    let rest = filled.div_ceil(8) as usize;
    out.extend_from_slice(&bits.to_le_bytes()[..rest]);
}

#[expect(clippy::cast_possible_truncation, reason = "the low quarter is what is meant")]
fn low_quarter(bits: u128) -> u32 {
    bits as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(mut bytes: &[u8], width: u32, count: usize) -> Vec<u32> {
        let mut values = Vec::new();
        while values.len() < count {
            let (mut header, mut shift) = (0usize, 0);
            loop {
                let byte = bytes[0];
                bytes = &bytes[1..];
                header |= usize::from(byte & 0x7F) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            if header & 1 == 1 {
                for n in 0..(header >> 1) * 8 {
                    let bit = |b: usize| u32::from(bytes[b / 8] >> (b % 8) & 1);
                    values.push((0..width as usize).map(|b| bit(n * width as usize + b) << b).sum());
                }
                bytes = &bytes[(header >> 1) * width as usize..];
            } else {
                let length = width.div_ceil(8) as usize;
                let value: u32 = (0..length).map(|b| u32::from(bytes[b]) << (8 * b)).sum();
                values.extend(std::iter::repeat_n(value, header >> 1));
                bytes = &bytes[length..];
            }
        }
        assert!(bytes.is_empty());
        values.truncate(count);
        values
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            width in 1u32..=32,
            runs in proptest::collection::vec((any::<u32>(), prop_oneof![Just(1usize), 1..5usize, 5..40usize]), 1..200),
        ) {
            let mask = if width == 32 { u32::MAX } else { (1 << width) - 1 };
            let values: Vec<u32> = runs.iter().flat_map(|(v, n)| std::iter::repeat_n(v & mask, *n)).collect();
            let mut out = Vec::new();
            encode(&values, width, &mut out);
            prop_assert_eq!(decode(&out, width, values.len()), values);
        }
    }
}

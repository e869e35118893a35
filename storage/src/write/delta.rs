//! DELTA_BINARY_PACKED: differences, packed by the width that each 32 of them need.

use super::{
    hybrid::pack_wide,
    varint::{put_varint, put_zigzag},
};

const BLOCK: usize = 128;
const MINI_BLOCK: usize = 32;
const MINI_BLOCKS: usize = BLOCK / MINI_BLOCK;

/// Appends 64-bit values.
pub(super) fn encode_i64(values: &[i64], out: &mut Vec<u8>) {
    encode(values.len(), values.iter().copied(), i64::wrapping_sub, out);
}

/// Appends 32-bit values. Differences wrap at 32 bits, as readers of that type expect.
pub(super) fn encode_i32(values: &[i32], out: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "both come from 32-bit values; wrapping is meant")]
    let difference = |a: i64, b: i64| i64::from((a as i32).wrapping_sub(b as i32));
    encode(values.len(), values.iter().map(|value| i64::from(*value)), difference, out);
}

#[inline]
fn encode(count: usize, mut values: impl Iterator<Item = i64>, minus: impl Fn(i64, i64) -> i64, out: &mut Vec<u8>) {
    put_varint(BLOCK as u64, out);
    put_varint(MINI_BLOCKS as u64, out);
    put_varint(count as u64, out);
    let Some(mut previous) = values.next() else {
        put_zigzag(0, out);
        return;
    };
    put_zigzag(previous, out);
    let mut deltas = [0i64; BLOCK];
    loop {
        let mut filled = 0;
        for (slot, value) in deltas.iter_mut().zip(values.by_ref()) {
            *slot = minus(value, previous);
            previous = value;
            filled += 1;
        }
        if filled == 0 {
            return;
        }
        put_block(&deltas[..filled], out);
        if filled < BLOCK {
            return;
        }
    }
}

fn put_block(deltas: &[i64], out: &mut Vec<u8>) {
    let min = deltas.iter().copied().min().unwrap_or(0);
    put_zigzag(min, out);
    let widths_at = out.len();
    out.extend_from_slice(&[0; MINI_BLOCKS]);
    for (number, mini) in deltas.chunks(MINI_BLOCK).enumerate() {
        let mut above = [0u64; MINI_BLOCK];
        let mut all = 0;
        for (slot, delta) in above.iter_mut().zip(mini) {
            *slot = delta.wrapping_sub(min).cast_unsigned();
            all |= *slot;
        }
        let width = u64::BITS - all.leading_zeros();
        out[widths_at + number] = u8::try_from(width).expect("at most 64");
        pack_wide(&above, width, out);
    }
}

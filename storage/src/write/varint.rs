//! Variable-length integers as Parquet's encodings and Thrift's compact protocol write them.

/// Appends `value`, seven bits a byte, lowest first.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// Appends a signed value so that small magnitudes are short.
pub(super) fn put_zigzag(value: i64, out: &mut Vec<u8>) {
    put_varint((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned(), out);
}

#[expect(clippy::cast_possible_truncation, reason = "the low byte is what is meant")]
fn low_byte(value: u64) -> u8 {
    value as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_short() {
        let mut out = Vec::new();
        put_varint(300, &mut out);
        put_zigzag(-1, &mut out);
        put_zigzag(1, &mut out);
        assert_eq!(out, [0xAC, 0x02, 0x01, 0x02]);
        out.clear();
        put_zigzag(i64::MIN, &mut out);
        assert_eq!(out, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
    }
}

//! Thrift headers of data and dictionary pages, in the compact protocol.

use super::varint::put_zigzag;

/// Encodings as numbered by the Parquet format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PageEncoding {
    Plain = 0,
    Rle = 3,
    DeltaBinaryPacked = 5,
    DeltaLengthByteArray = 6,
    RleDictionary = 8,
}

const I32: u8 = 5;
const STRUCT: u8 = 12;

fn put_field(delta: u8, kind: u8, out: &mut Vec<u8>) {
    out.push(delta << 4 | kind);
}

fn put_i32(delta: u8, value: i64, out: &mut Vec<u8>) {
    put_field(delta, I32, out);
    put_zigzag(value, out);
}

fn put_sizes(page_type: i64, uncompressed: usize, body: &[u8], out: &mut Vec<u8>) {
    let mut crc = flate2::Crc::new();
    crc.update(body);
    put_i32(1, page_type, out);
    put_i32(1, uncompressed as i64, out);
    put_i32(1, body.len() as i64, out);
    put_i32(1, i64::from(crc.sum().cast_signed()), out);
}

/// Appends the header of a version-1 data page: its levels are compressed together with its values, which is what
/// keeps seven leaves of levels an attribute affordable. `values` counts levels.
pub(super) fn put_data(values: usize, encoding: PageEncoding, uncompressed: usize, body: &[u8], out: &mut Vec<u8>) {
    put_sizes(0, uncompressed, body, out);
    put_field(1, STRUCT, out);
    put_i32(1, values as i64, out);
    put_i32(1, encoding as i64, out);
    put_i32(1, PageEncoding::Rle as i64, out);
    put_i32(1, PageEncoding::Rle as i64, out);
    out.extend_from_slice(&[0, 0]);
}

/// Appends the header of a dictionary page.
pub(super) fn put_dictionary(values: usize, uncompressed: usize, body: &[u8], out: &mut Vec<u8>) {
    put_sizes(2, uncompressed, body, out);
    put_field(3, STRUCT, out);
    put_i32(1, values as i64, out);
    put_i32(1, PageEncoding::Plain as i64, out);
    out.extend_from_slice(&[0, 0]);
}

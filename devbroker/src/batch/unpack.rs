//! Opens the records of a compressed batch, for looking a time up in it. Nothing else opens batches: they are given as they came.

use std::io::Read;

/// A batch that unpacks to more than this is left closed.
const MAX_BYTES: u64 = 256 << 20;
/// Snappy makes at most 64 bytes of three.
const MOST_SNAPPY: usize = 32;
/// How Java's clients begin snappy: several blocks, each with its length in front.
const JAVA_SNAPPY: &[u8] = b"\x82SNAPPY\0";
/// That and two versions.
const JAVA_HEAD_BYTES: usize = 16;

/// The records as they were; `None` if they do not unpack.
pub(crate) fn unpack(codec: i16, records: &[u8]) -> Option<Vec<u8>> {
    match codec {
        0 => Some(records.to_vec()),
        1 => drain(flate2::read::MultiGzDecoder::new(records)),
        2 => unpack_snappy(records),
        3 => drain(lz4_flex::frame::FrameDecoder::new(records)),
        4 => drain(zstd::stream::read::Decoder::with_buffer(records).ok()?),
        _ => None,
    }
}

fn drain(decoder: impl Read) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    decoder.take(MAX_BYTES + 1).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() as u64 <= MAX_BYTES).then_some(unpacked)
}

fn unpack_snappy(records: &[u8]) -> Option<Vec<u8>> {
    if !records.starts_with(JAVA_SNAPPY) {
        let mut unpacked = Vec::new();
        unpack_block(records, &mut unpacked)?;
        return Some(unpacked);
    }
    let mut rest = records.get(JAVA_HEAD_BYTES..)?;
    let mut unpacked = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (block, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        unpack_block(block, &mut unpacked)?;
        rest = behind;
    }
    Some(unpacked)
}

fn unpack_block(block: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let length = snap::raw::decompress_len(block).ok()?;
    if (into.len() + length) as u64 > MAX_BYTES || length > block.len() * MOST_SNAPPY {
        return None;
    }
    into.extend(snap::raw::Decoder::new().decompress_vec(block).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_every_codec_has_packed_is_opened_and_nonsense_is_not() {
        let records: Vec<u8> = (0..5000_u32).flat_map(u32::to_be_bytes).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&records).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&records).unwrap();
        let snappy = snap::raw::Encoder::new().compress_vec(&records).unwrap();
        let mut java = [JAVA_SNAPPY, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for half in records.chunks(10_000) {
            let block = snap::raw::Encoder::new().compress_vec(half).unwrap();
            java.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
            java.extend(block);
        }
        let zstd = zstd::encode_all(&records[..], 1).unwrap();
        for (codec, packed) in [
            (0, records.clone()),
            (1, gzip.finish().unwrap()),
            (2, snappy),
            (2, java),
            (3, lz4.finish().unwrap()),
            (4, zstd),
        ] {
            assert!(unpack(codec, &packed).is_some_and(|unpacked| unpacked == records), "codec {codec}");
            if codec != 0 {
                assert_eq!(unpack(codec, &packed[..packed.len() / 2]).filter(|half| *half == records), None);
                assert_eq!(unpack(codec, b"nonsense"), None, "codec {codec}");
            }
        }
        assert_eq!(unpack(5, &records), None);
    }

    #[test]
    fn a_length_that_lies_reserves_nothing() {
        // Four thousand million bytes, says the head of a snappy block.
        assert_eq!(unpack(2, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), None);
    }
}

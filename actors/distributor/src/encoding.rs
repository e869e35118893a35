//! Compressed bodies: which encodings there are, and decompression that stays within a limit and a budget.
//!
//! Nothing that a body claims about its size is believed: memory is reserved before it is taken, in growing steps, and the first
//! byte above the limit ends it. Work is done in slices, so that a caller can move what is large to the compute pool.

use std::io::{self, Cursor, Read};

use bytes::Bytes;

use crate::reservation::Reservation;

/// The first step of the output.
const FIRST_STEP_BYTES: usize = 64 << 10;
/// zstd frames may ask for windows up to this size, which is what the strongest level of Go's encoder writes.
const MAX_ZSTD_WINDOW_LOG: u32 = 25;
/// A stream in snappy's framing format starts with this chunk.
const SNAPPY_STREAM_IDENTIFIER: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    /// With zlib's head, also under the name `deflate`.
    Zlib,
    Zstd,
    /// The framing format or one bare block; the first bytes tell.
    Snappy,
    SnappyFramed,
    Lz4,
}

impl Encoding {
    /// Reads a `Content-Encoding`.
    pub(crate) fn of_content(name: &str) -> Option<Self> {
        Some(match name {
            "" | "identity" => Self::Identity,
            "gzip" => Self::Gzip,
            "zlib" | "deflate" => Self::Zlib,
            "zstd" => Self::Zstd,
            "snappy" => Self::Snappy,
            "x-snappy-framed" => Self::SnappyFramed,
            "lz4" => Self::Lz4,
            _ => return None,
        })
    }

    /// Reads a `grpc-encoding`.
    pub(crate) fn of_grpc(name: &str) -> Option<Self> {
        match name {
            "" | "identity" => Some(Self::Identity),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "snappy" => Some(Self::Snappy),
            _ => None,
        }
    }
}

/// Why a body could not be decompressed. Nothing happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecompressError {
    /// What comes out is larger than the limit; how much larger is not known.
    #[error("body is larger than the limit when decompressed")]
    TooLarge,
    /// The process has no room for it now; try again.
    #[error("no room for the decompressed body")]
    Overloaded(#[source] vivace_log::Error),
    /// The compute pool is stopped or failed.
    #[error("decompression was interrupted")]
    Interrupted(#[source] vivace_protocol::Error),
    /// Not what the encoding says; it stays wrong.
    #[error("body cannot be decompressed: {0}")]
    Corrupt(io::Error),
}

/// One body being decompressed.
pub(crate) struct Decompression {
    source: Source,
    out: Vec<u8>,
    limit_bytes: usize,
}

enum Source {
    Stream(Box<dyn Read + Send>),
    /// A bare snappy block, which is decompressed in one step.
    Block(Bytes),
    /// Nothing to do.
    Plain(Bytes),
}

impl Decompression {
    /// Prepares; `limit_bytes` bounds what may come out. Windows that a format needs beside the output are taken from the
    /// reservation here.
    pub(crate) fn new(
        encoding: Encoding,
        body: Bytes,
        limit_bytes: usize,
        reservation: &mut Reservation,
    ) -> Result<Self, DecompressError> {
        // An empty body is an empty message in every encoding: there is no need for an empty frame.
        let source = match encoding {
            _ if body.is_empty() => Source::Plain(body),
            Encoding::Identity => Source::Plain(body),
            Encoding::Gzip => Source::Stream(Box::new(flate2::read::MultiGzDecoder::new(Cursor::new(body)))),
            Encoding::Zlib => Source::Stream(Box::new(flate2::read::ZlibDecoder::new(Cursor::new(body)))),
            Encoding::Zstd => Source::Stream(zstd_stream(body, reservation)?),
            Encoding::Snappy if !body.starts_with(SNAPPY_STREAM_IDENTIFIER) => Source::Block(body),
            Encoding::Snappy | Encoding::SnappyFramed => {
                Source::Stream(Box::new(snap::read::FrameDecoder::new(Cursor::new(body))))
            }
            Encoding::Lz4 => Source::Stream(Box::new(lz4_flex::frame::FrameDecoder::new(Cursor::new(body)))),
        };
        Ok(Self { source, out: Vec::new(), limit_bytes })
    }

    /// Goes on until everything is there (true) or at least `pause_at_bytes` are (false).
    pub(crate) fn run(
        &mut self,
        pause_at_bytes: usize,
        reservation: &mut Reservation,
    ) -> Result<bool, DecompressError> {
        let Self { source, out, limit_bytes } = self;
        match source {
            Source::Plain(body) if body.len() > *limit_bytes => Err(DecompressError::TooLarge),
            Source::Plain(_) => Ok(true),
            Source::Block(body) => {
                let corrupt = |error: snap::Error| DecompressError::Corrupt(error.into());
                let len = snap::raw::decompress_len(body).map_err(corrupt)?;
                if len > *limit_bytes {
                    return Err(DecompressError::TooLarge);
                }
                if len > pause_at_bytes {
                    return Ok(false);
                }
                reservation.add(len).map_err(DecompressError::Overloaded)?;
                *out = snap::raw::Decoder::new().decompress_vec(body).map_err(corrupt)?;
                Ok(true)
            }
            Source::Stream(reader) => read_stream(reader, out, *limit_bytes, pause_at_bytes, reservation),
        }
    }

    /// What came out.
    pub(crate) fn finish(self) -> Bytes {
        match self.source {
            Source::Plain(body) => body,
            Source::Block(_) | Source::Stream(_) => self.out.into(),
        }
    }
}

fn read_stream(
    reader: &mut dyn Read,
    out: &mut Vec<u8>,
    limit_bytes: usize,
    pause_at_bytes: usize,
    reservation: &mut Reservation,
) -> Result<bool, DecompressError> {
    loop {
        if out.len() > limit_bytes {
            return Err(DecompressError::TooLarge);
        }
        if out.len() >= pause_at_bytes {
            return Ok(false);
        }
        let filled = out.len();
        if filled == out.capacity() {
            // One byte above the limit is enough to know that there is more.
            let capacity = (filled * 2).max(FIRST_STEP_BYTES).min(limit_bytes.saturating_add(1));
            reservation.add(capacity - filled).map_err(DecompressError::Overloaded)?;
            out.reserve_exact(capacity - filled);
        }
        let end = out.capacity().min(pause_at_bytes.max(filled + 1)).min(filled + FIRST_STEP_BYTES);
        out.resize(end, 0);
        let read = loop {
            match reader.read(&mut out[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        out.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) => return Err(DecompressError::Corrupt(error)),
        }
    }
}

/// A decoder that may use no larger window than the first frame asks for, which the reservation then holds.
fn zstd_stream(body: Bytes, reservation: &mut Reservation) -> Result<Box<dyn Read + Send>, DecompressError> {
    let window_log = zstd_window_log(&body).min(MAX_ZSTD_WINDOW_LOG);
    reservation.add(1 << window_log).map_err(DecompressError::Overloaded)?;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(Cursor::new(body)).map_err(DecompressError::Corrupt)?;
    decoder.window_log_max(window_log).map_err(DecompressError::Corrupt)?;
    Ok(Box::new(decoder))
}

/// The smallest power of two that is no smaller than the window of the frame at the start, at least the least window of the
/// format's specification; see "Frame_Header" in RFC 8878. What is no frame gets the least one and is refused by the decoder.
fn zstd_window_log(frame: &[u8]) -> u32 {
    const LEAST: u32 = 10;
    let (Some(&descriptor), Some(&window)) = (frame.get(4), frame.get(5)) else { return LEAST };
    if descriptor & 0b10_0000 == 0 {
        let exponent = LEAST + u32::from(window >> 3);
        return if window & 7 == 0 { exponent } else { exponent + 1 };
    }
    // A single segment: the window is the content, whose size follows the dictionary's id.
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let Some(field) = frame.get(at..at + size_bytes) else { return LEAST };
    let mut size = field.iter().rev().fold(0u64, |size, byte| size << 8 | u64::from(*byte));
    if size_bytes == 2 {
        size += 256;
    }
    size.checked_next_power_of_two().map_or(64, u64::ilog2).max(LEAST)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use proptest::prelude::*;
    use vivace_log::Budget;

    use super::*;
    use crate::reservation::tests::reservation;

    pub(crate) const COMPRESSED: [(&str, Encoding); 7] = [
        ("gzip", Encoding::Gzip),
        ("zlib", Encoding::Zlib),
        ("deflate", Encoding::Zlib),
        ("zstd", Encoding::Zstd),
        ("snappy", Encoding::Snappy),
        ("x-snappy-framed", Encoding::SnappyFramed),
        ("lz4", Encoding::Lz4),
    ];

    pub(crate) fn compress(encoding: Encoding, body: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Identity => body.to_vec(),
            Encoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(body, 3).unwrap(),
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(body).unwrap(),
            Encoding::SnappyFramed => {
                let mut encoder = snap::write::FrameEncoder::new(Vec::new());
                encoder.write_all(body).unwrap();
                encoder.into_inner().unwrap()
            }
            Encoding::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn budget(bytes: usize) -> Budget {
        Budget::new(bytes, Duration::from_secs(1))
    }

    fn decompress(encoding: Encoding, body: Vec<u8>, limit: usize, pause: usize) -> Result<Bytes, DecompressError> {
        let mut reservation = reservation(&budget(256 << 20));
        let mut work = Decompression::new(encoding, body.into(), limit, &mut reservation)?;
        let mut pause_at = pause;
        while !work.run(pause_at, &mut reservation)? {
            pause_at += pause;
        }
        Ok(work.finish())
    }

    #[test]
    fn every_encoding_reads_back_in_one_go_and_with_pauses() {
        let body: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for (name, encoding) in COMPRESSED {
            let compressed = compress(encoding, &body);
            for pause in [usize::MAX, 100_000, 1 << 20] {
                let back =
                    decompress(Encoding::of_content(name).unwrap(), compressed.clone(), 20 << 20, pause).unwrap();
                assert!(back == body, "{name}");
            }
        }
        let framed = compress(Encoding::SnappyFramed, &body);
        assert!(decompress(Encoding::Snappy, framed, 20 << 20, usize::MAX).unwrap() == body);
    }

    #[test]
    fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        for (name, encoding) in COMPRESSED {
            let compressed = compress(encoding, &vec![7; 100_001]);
            assert!(decompress(encoding, compressed.clone(), 100_001, usize::MAX).is_ok(), "{name}");
            let refused = decompress(encoding, compressed, 100_000, usize::MAX);
            assert!(matches!(refused, Err(DecompressError::TooLarge)), "{name}");
        }
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_the_limit() {
        let bomb = vec![0; 16 << 20];
        for (name, encoding) in COMPRESSED {
            let budget = budget(64 << 20);
            let mut reservation = reservation(&budget);
            let body = compress(encoding, &bomb).into();
            let refused = Decompression::new(encoding, body, 1 << 20, &mut reservation)
                .and_then(|mut work| work.run(usize::MAX, &mut reservation));
            assert!(matches!(refused, Err(DecompressError::TooLarge)), "{name}: {refused:?}");
            assert!(budget.used_bytes() < 6 << 20, "{name}: {}", budget.used_bytes());
        }
    }

    #[test]
    fn a_full_budget_refuses_before_memory_is_taken() {
        for (name, encoding) in COMPRESSED {
            let compressed = compress(encoding, &vec![1; 10 << 20]);
            let budget = budget(5 << 20);
            // Somebody else holds a little, so that nothing passes as the only one.
            let _other = budget.acquire(1).unwrap();
            let mut reservation = reservation(&budget);
            let refused = Decompression::new(encoding, compressed.into(), 20 << 20, &mut reservation)
                .and_then(|mut work| work.run(usize::MAX, &mut reservation));
            assert!(matches!(refused, Err(DecompressError::Overloaded(_))), "{name}: {refused:?}");
        }
    }

    #[test]
    fn a_zstd_frame_that_asks_for_a_huge_window_is_refused() {
        // No single segment, a window of 2^41 bytes.
        let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00];
        assert!(matches!(decompress(Encoding::Zstd, frame, 1 << 20, usize::MAX), Err(DecompressError::Corrupt(_))));
    }

    #[test]
    fn windows_of_zstd_frames_are_read_from_their_heads() {
        assert_eq!(zstd_window_log(&zstd::bulk::compress(&[1; 100], 3).unwrap()), 10);
        assert_eq!(zstd_window_log(&zstd::bulk::compress(&vec![1; 100_000], 3).unwrap()), 17);
        // Written as a stream, the content's size is not known.
        assert_eq!(zstd_window_log(&compress(Encoding::Zstd, &vec![1; 100_000])), 21);
        assert_eq!(zstd_window_log(b""), 10);
    }

    #[test]
    fn unknown_names_are_unknown() {
        assert_eq!(Encoding::of_content("br"), None);
        assert_eq!(Encoding::of_grpc("deflate"), None);
    }

    proptest! {
        #[test]
        fn damaged_bodies_end_in_an_error_or_in_bytes_within_the_limit(
            which in 0usize..COMPRESSED.len(),
            body in prop::collection::vec(any::<u8>(), 0..2000),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let encoding = COMPRESSED[which].1;
            let mut compressed = compress(encoding, &body);
            for (at, byte) in changes {
                // Nothing can be nothing compressed.
                if !compressed.is_empty() {
                    let at = at.index(compressed.len());
                    compressed[at] = byte;
                }
            }
            compressed.truncate(cut.index(compressed.len() + 1));
            if let Ok(bytes) = decompress(encoding, compressed, 10_000, 999) {
                prop_assert!(bytes.len() <= 10_000);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_reason_to_panic(which in 0usize..COMPRESSED.len(), body in prop::collection::vec(any::<u8>(), 0..500)) {
            if let Ok(bytes) = decompress(COMPRESSED[which].1, body, 10_000, usize::MAX) {
                prop_assert!(bytes.len() <= 10_000);
            }
        }
    }
}

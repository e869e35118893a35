//! Decompression of one page, with the memory bounded by what the codec can really produce.

use std::{cell::RefCell, io::Read as _};

use bytes::Bytes;
use zstd::bulk::Decompressor;

use super::error::{Error, Result};

/// Above this a declared size is not believed until the bytes have come out.
const TRUSTED_SIZE: usize = 64 << 20;

/// Compression of a column chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Snappy,
    Gzip,
    Zstd,
    Lz4Raw,
}

impl Codec {
    /// From the number in the footer.
    pub(crate) fn from_thrift(number: i32) -> Result<Self> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Snappy,
            2 => Self::Gzip,
            6 => Self::Zstd,
            7 => Self::Lz4Raw,
            3 => return Err(Error::Unsupported("compression LZO".to_owned())),
            4 => return Err(Error::Unsupported("compression brotli".to_owned())),
            5 => return Err(Error::Unsupported("compression LZ4 with Hadoop framing".to_owned())),
            other => return Err(Error::Unsupported(format!("compression number {other}"))),
        })
    }

    /// The `size` bytes that `data` holds; any other number of bytes is an error. Those that are needed but `briefly` can be
    /// [given back](give_back) afterwards, so that the next ones lie in the same memory.
    pub(crate) fn decompress(self, data: &Bytes, size: usize, briefly: bool) -> Result<Bytes> {
        let out = match self {
            Self::None => data.clone(),
            _ if size == 0 => Bytes::new(),
            Self::Snappy => {
                // A copy of two bytes yields at most 64, so no honest page grows more than 32 times.
                if snap::raw::decompress_len(data).map_err(|_invalid| malformed("snappy header"))? != size
                    || size / 32 > data.len()
                {
                    return Err(malformed("snappy size"));
                }
                let mut out = vec![0; size];
                snap::raw::Decoder::new().decompress(data, &mut out).map_err(|_invalid| malformed("snappy data"))?;
                out.into()
            }
            Self::Lz4Raw => {
                if size / 256 > data.len() {
                    return Err(malformed("lz4 size"));
                }
                let mut out = vec![0; size];
                let len = lz4_flex::block::decompress_into(data, &mut out).map_err(|_invalid| malformed("lz4 data"))?;
                out.truncate(len);
                out.into()
            }
            Self::Zstd if size <= TRUSTED_SIZE => {
                let room = if briefly { ROOM.take() } else { Vec::new() };
                unzstd(data, size, room).ok_or_else(|| malformed("zstd data"))?.into()
            }
            Self::Zstd => {
                let decoder =
                    zstd::stream::Decoder::with_buffer(&data[..]).map_err(|_invalid| malformed("zstd data"))?;
                stream(decoder, size).ok_or_else(|| malformed("zstd data"))?
            }
            Self::Gzip => {
                stream(flate2::read::MultiGzDecoder::new(&data[..]), size).ok_or_else(|| malformed("gzip data"))?
            }
        };
        if out.len() == size { Ok(out) } else { Err(malformed("other size than its header says")) }
    }
}

/// Largest memory that is kept for the next page.
const MAX_ROOM: usize = 1 << 20;

thread_local! {
    /// Making a context costs as much as decompressing a small page.
    static ZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    /// Touching memory for the first time costs more than writing to it.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes back the memory of a page that nobody needs any more. Of one that somebody holds on to nothing is taken.
pub(crate) fn give_back(page: Bytes) {
    if let Ok(room) = page.try_into_mut()
        && room.capacity() <= MAX_ROOM
        && room.capacity() > ROOM.with_borrow(Vec::capacity)
    {
        ROOM.set(room.into());
    }
}

fn unzstd(data: &[u8], size: usize, mut room: Vec<u8>) -> Option<Vec<u8>> {
    room.clear();
    room.reserve(size);
    ZSTD.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Some(Decompressor::new().ok()?);
        }
        kept.as_mut()?.decompress_to_buffer(data, &mut room).ok()?;
        Some(room)
    })
}

fn stream(reader: impl std::io::Read, size: usize) -> Option<Bytes> {
    let mut out = Vec::with_capacity(size.min(TRUSTED_SIZE / 64));
    let limit = u64::try_from(size).ok()?.checked_add(1)?;
    reader.take(limit).read_to_end(&mut out).ok()?;
    Some(out.into())
}

fn malformed(why: &'static str) -> Error {
    Error::malformed("compressed page", why)
}

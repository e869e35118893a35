//! Compresses page bodies, with contexts kept between pages.

use super::Error;

/// Level 1: the pages are encoded already, higher levels cost several times as much for some percent.
const ZSTD_LEVEL: i32 = 1;

/// How a chunk's pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// For ids, which nothing makes shorter.
    None,
    /// For everything else.
    Zstd,
}

/// Buffers and contexts of one writer.
pub(super) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    pub(super) fn new() -> Result<Self, Error> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(Error::Compress)?;
        Ok(Self { zstd, compressed: Vec::new() })
    }

    /// The body as it is to be stored, valid until the next call.
    pub(super) fn compress<'a>(&'a mut self, codec: Codec, body: &'a [u8]) -> Result<&'a [u8], Error> {
        match codec {
            Codec::None => Ok(body),
            Codec::Zstd => {
                let room = zstd::zstd_safe::compress_bound(body.len());
                if self.compressed.len() < room {
                    self.compressed.resize(room, 0);
                }
                let length = self.zstd.compress_to_buffer(body, self.compressed.as_mut_slice());
                Ok(&self.compressed[..length.map_err(Error::Compress)?])
            }
        }
    }
}

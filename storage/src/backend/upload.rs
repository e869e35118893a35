//! One object being written in parts.

use bytes::Bytes;
use object_store::{MultipartUpload, WriteMultipart, path::Path};

use super::Error;

/// Parts under way at a time; with parts of 5 MiB this bounds the memory of an upload.
const PARTS_UNDER_WAY: usize = 2;

/// An object that appears when [`Self::finish`] returns. Dropped before, it leaves no object, but on remote stores parts
/// that the bucket's own rules have to expire; call [`Self::abort`] where possible.
#[derive(Debug)]
pub struct Upload {
    path: Path,
    parts: WriteMultipart,
    size: u64,
}

impl Upload {
    pub(super) fn new(path: Path, upload: Box<dyn MultipartUpload>) -> Self {
        Self { path, parts: WriteMultipart::new(upload), size: 0 }
    }

    /// Appends; waits while too many parts are under way.
    pub async fn write(&mut self, content: Bytes) -> Result<(), Error> {
        let room = self.parts.wait_for_capacity(PARTS_UNDER_WAY).await;
        room.map_err(|source| Error::store("write", &self.path, source))?;
        self.size += content.len() as u64;
        self.parts.put(content);
        Ok(())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Waits for all parts and makes the object appear. Returns its size.
    pub async fn finish(self) -> Result<u64, Error> {
        match self.parts.finish().await {
            Ok(_) => Ok(self.size),
            Err(source) => Err(Error::store("finish writing", &self.path, source)),
        }
    }

    /// Gives up and frees what the store holds.
    pub async fn abort(self) -> Result<(), Error> {
        self.parts.abort().await.map_err(|source| Error::store("abort writing", &self.path, source))
    }
}

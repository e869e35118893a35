//! One object being written in parts.

use bytes::Bytes;
use object_store::{MultipartUpload, WriteMultipart, path::Path};
use tokio::runtime::Handle;

use super::Error;

/// Parts under way at a time; with parts of 5 MiB this bounds the memory of an upload.
const PARTS_UNDER_WAY: usize = 2;

/// An object that appears when [`Self::finish`] returns. Dropped before, it leaves no object, and the store is asked in the background
/// to free what it holds; what a crash leaves, the bucket's own rules have to expire.
#[derive(Debug)]
pub struct Upload {
    path: Path,
    /// Taken at the end.
    parts: Option<WriteMultipart>,
    size: u64,
}

impl Upload {
    pub(super) fn new(path: Path, upload: Box<dyn MultipartUpload>, part_bytes: usize) -> Self {
        Self { path, parts: Some(WriteMultipart::new_with_chunk_size(upload, part_bytes)), size: 0 }
    }

    /// Appends; waits while too many parts are under way.
    pub async fn write(&mut self, content: Bytes) -> Result<(), Error> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let room = parts.wait_for_capacity(PARTS_UNDER_WAY).await;
        room.map_err(|source| Error::store("write", &self.path, source))?;
        self.size += content.len() as u64;
        parts.put(content);
        Ok(())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Waits for all parts and makes the object appear. Returns its size.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let Some(parts) = self.parts.take() else { return Ok(self.size) };
        match parts.finish().await {
            Ok(_) => Ok(self.size),
            Err(source) => Err(Error::store("finish writing", &self.path, source)),
        }
    }

    /// Gives up and frees what the store holds.
    pub async fn abort(mut self) -> Result<(), Error> {
        let Some(parts) = self.parts.take() else { return Ok(()) };
        parts.abort().await.map_err(|source| Error::store("abort writing", &self.path, source))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(parts), Ok(runtime)) = (self.parts.take(), Handle::try_current()) else { return };
        let path = self.path.clone();
        // Nobody waits: the object does not exist either way.
        drop(runtime.spawn(async move {
            if let Err(error) = parts.abort().await {
                tracing::debug!(%path, %error, "abort writing");
            }
        }));
    }
}

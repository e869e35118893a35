//! A small file that is replaced as a whole: a consumer's note of how far it has come.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use vivace_runtime::Disk;

use crate::error::Error;

/// Magic and version; then the payload's length and CRC32C, both little-endian u32; then the payload. Frozen.
const MAGIC: &[u8; 8] = b"VIVCKPT1";
const HEAD_BYTES: usize = 16;

/// One durable value, read and written whole. A crash at any instant leaves the old value or the new one.
///
/// Calls block on the disk. One writer at a time; the folder must exist. The file beside it named `<name>.tmp` is scratch.
#[derive(Clone)]
pub struct Checkpoint {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Checkpoint {
    /// Names the file; touches nothing.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, path: impl Into<PathBuf>) -> Self {
        Self { disk, path: path.into() }
    }

    /// The last value that was written, or `None` if there has never been one.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when the file is damaged: it never returns half a value. [`Error::Io`] when the disk fails.
    pub fn read(&self) -> Result<Option<Bytes>, Error> {
        let content = match self.disk.read(&self.path) {
            Ok(content) => Bytes::from(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read checkpoint", &self.path, error)),
        };
        match payload(&content) {
            Ok(payload) => Ok(Some(payload)),
            Err(reason) => Err(Error::Unreadable { path: self.path.clone(), reason }),
        }
    }

    /// Replaces the value; durable when it returns.
    ///
    /// # Errors
    /// The old value or the new one is in force, and a crash may decide which. Writing again is safe: it uses a new file.
    pub fn write(&self, value: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(value.len())
            .map_err(|_too_long| Error::RecordTooLarge { bytes: value.len(), limit_bytes: u32::MAX as usize })?;
        let mut content = Vec::with_capacity(HEAD_BYTES + value.len());
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&length.to_le_bytes());
        content.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
        content.extend_from_slice(value);
        self.disk.replace(&self.path, &content).map_err(|error| Error::io("replace checkpoint", &self.path, error))
    }
}

fn payload(content: &Bytes) -> Result<Bytes, &'static str> {
    let (magic, rest) = content.split_first_chunk::<8>().ok_or("it is cut off")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
    let (checksum, value) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
    if magic != MAGIC {
        return Err("it is not a checkpoint of version 1");
    }
    if u32::from_le_bytes(*length) as usize != value.len() {
        return Err("its length is wrong");
    }
    if crc32c::crc32c(value) != u32::from_le_bytes(*checksum) {
        return Err("its checksum does not match");
    }
    Ok(content.slice(HEAD_BYTES..))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use vivace_runtime::{Fault, Operation, SimDisk};

    use super::*;

    fn checkpoint(disk: &SimDisk) -> Checkpoint {
        Checkpoint::new(Arc::new(disk.clone()), "/cut")
    }

    #[test]
    fn a_crash_at_any_instant_leaves_the_old_value_or_the_new() {
        for seed in 0..200 {
            for at in 0.. {
                let disk = SimDisk::new(seed);
                checkpoint(&disk).write(b"old").unwrap();
                disk.crash_at(at);
                let written = checkpoint(&disk).write(b"new value");
                let whole_run = !disk.is_down();
                disk.crash();
                let found = checkpoint(&disk).read().unwrap().unwrap();
                match written {
                    Ok(()) => assert_eq!(found, "new value", "seed {seed}, crash at {at}"),
                    Err(_) => assert!(found == "old" || found == "new value", "seed {seed}, crash at {at}"),
                }
                if whole_run {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_failed_sync_leaves_the_old_value_and_the_next_write_succeeds() {
        let disk = SimDisk::new(1);
        let checkpoint = checkpoint(&disk);
        checkpoint.write(b"old").unwrap();
        disk.inject(Fault { on: Operation::SyncData, after: 0, error: io::ErrorKind::Other });
        checkpoint.write(b"new").unwrap_err();
        assert_eq!(checkpoint.read().unwrap().unwrap(), "old");
        checkpoint.write(b"new").unwrap();
        disk.crash();
        assert_eq!(checkpoint.read().unwrap().unwrap(), "new");
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let disk = SimDisk::new(1);
        let checkpoint = checkpoint(&disk);
        assert!(checkpoint.read().unwrap().is_none());
        checkpoint.write(b"value").unwrap();
        disk.corrupt(Path::new("/cut"), 18);
        assert_eq!(
            checkpoint.read().unwrap_err().to_string(),
            "/cut is damaged or of an unknown version: its checksum does not match"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(content in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(payload(&Bytes::from(content)).is_err());
        }
    }
}

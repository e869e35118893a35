//! Files as an injected value, with exactly the promises that a crash-safe program may rely on.
//!
//! Calls block; code on an arbiter or in a server runs them on [`Compute`](crate::Compute). The rules, which [`SimDisk`]
//! enforces and real file systems merely permit:
//!
//! * bytes written are durable only after [`File::sync_data`] of that file has returned `Ok`;
//! * a created, renamed or removed *name* is durable only after [`Disk::sync_dir`] of the folder that holds it;
//! * after a failed `sync_data` the unsynced bytes may be lost although a second call succeeds: never retry on the same file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::sim::{Fault, Operation, SimDisk};
pub use self::std_disk::StdDisk;

mod sim;
mod std_disk;

/// A tree of folders and files.
pub trait Disk: Send + Sync + 'static {
    /// Creates an empty file and opens it for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `NotFound` when the folder is missing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing a file that has it. Atomic within one folder.
    ///
    /// # Errors
    /// `NotFound` when there is no `from`, or no folder for `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Handles that are open keep working.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder and those above it; a folder that exists is fine. Durable after `sync_dir` of each folder above.
    ///
    /// # Errors
    /// Those of the operating system.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotFound`.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// What a folder holds, in order of names.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Makes every creation, renaming and removal in this folder durable.
    ///
    /// # Errors
    /// Those of the operating system; the changes are then in doubt.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether the name exists, as file or folder.
    ///
    /// # Errors
    /// Those of the operating system, except `NotFound`.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// Those of [`Disk::open`] and [`File::read_at`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let length =
            usize::try_from(file.len()?).map_err(|source| io::Error::new(io::ErrorKind::FileTooLarge, source))?;
        let mut content = vec![0; length];
        file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// Puts a whole file in place so that a crash leaves either the old content or the new: written beside it under
    /// `<name>.tmp`, synced, renamed, and the folder synced.
    ///
    /// # Errors
    /// Those of the steps. The old content stays, unless the last step failed: then either may come back after a crash.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(".tmp");
        let beside = path.with_file_name(name);
        match self.remove(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.create(&beside)?;
        file.append(&[content])?;
        file.sync_data()?;
        self.rename(&beside, path)?;
        self.sync_dir(parent(path))
    }
}

/// An open file. Shared by reference: reading at a place needs no cursor.
pub trait File: Send + Sync + 'static {
    /// Writes the parts, one after the other, at the end; returns where the first byte went. One appender at a time.
    ///
    /// # Errors
    /// `StorageFull` and others; some of the bytes may then be in the file.
    fn append(&self, parts: &[&[u8]]) -> io::Result<u64>;

    /// Writes at a place, growing the file with zeros if it lies beyond the end.
    ///
    /// # Errors
    /// As [`File::append`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads at a place; fewer bytes than asked for, down to none, only at the end of the file.
    ///
    /// # Errors
    /// Those of the operating system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written so far durable, and the length with it. The *name* is the folder's: [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Whatever was not durable before may be lost for good; do not retry on this file.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file to a length, or grows it with zeros.
    ///
    /// # Errors
    /// Those of the operating system.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// Those of the operating system.
    fn len(&self) -> io::Result<u64>;

    /// Whether nothing has been written.
    ///
    /// # Errors
    /// As [`File::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buffer, offset)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole path, as for [`Disk::open`].
    pub path: PathBuf,
    /// The last component.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// The length of a file; 0 for a folder.
    pub len: u64,
}

/// The folder that holds a path; `.` for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;

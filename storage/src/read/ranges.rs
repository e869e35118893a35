//! Where the bytes of a block come from: synchronous range reads, because decoding runs on compute threads, not in futures.

use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
#[cfg(target_os = "linux")]
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{
    error::{Error, Result},
    lent,
};

/// Random reads of one object of known length.
pub trait Ranges: Send + Sync {
    /// Length of the object in bytes.
    fn len(&self) -> u64;

    /// Whether the object has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exactly the bytes of `range`, which lies inside the object. Blocks until they are there.
    fn read(&self, range: Range<u64>) -> Result<Bytes>;

    /// Whether what is read lies in memory that is used again once nobody holds it: who keeps a part of it should copy that.
    fn lends(&self) -> bool {
        false
    }

    /// Several ranges, in the order asked. Sources with a latency per request fetch them at once and may merge close ones.
    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        ranges.iter().map(|range| self.read(range.clone())).collect()
    }

    /// These ranges will be read soon. A source that gains by it begins to fetch them; what is read does not depend on that.
    ///
    /// # Errors
    /// The source does not answer. To read would be to wait for it once more.
    fn will_need(&self, _ranges: &[Range<u64>]) -> Result<()> {
        Ok(())
    }

    /// How much a reader should ask for at once when it wants what lies side by side.
    fn read_ahead(&self) -> u64 {
        1 << 20
    }
}

/// The objects of one block.
pub trait BlockObjects: Send + Sync {
    /// `data.parquet`.
    fn data(&self) -> Arc<dyn Ranges>;

    /// A whole small object (`bloom-0`, `index`), none when the block does not have it.
    fn object(&self, name: &str) -> Result<Option<Bytes>>;

    /// Parts of a small object, none when the block does not have it. Sources with a latency per request read it whole.
    fn object_parts(&self, name: &str, ranges: &[Range<u64>]) -> Result<Option<Vec<Bytes>>> {
        self.object(name)?.map(|object| object.read_many(ranges)).transpose()
    }
}

/// Name of the data object.
pub(crate) const DATA: &str = "data.parquet";

/// An object in memory.
impl Ranges for Bytes {
    fn len(&self) -> u64 {
        u64::try_from(self.as_ref().len()).unwrap_or(u64::MAX)
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        bounds
            .filter(|(start, end)| start <= end && *end <= self.as_ref().len())
            .map(|(start, end)| self.slice(start..end))
            .ok_or_else(past_end)
    }
}

fn past_end() -> Error {
    Error::malformed("file", "a range lies past its end")
}

/// A local file, read by position so that many threads share it.
#[derive(Debug)]
pub struct FileRanges {
    file: File,
    len: u64,
    name: String,
    /// Whether readers say what they will read.
    announced: AtomicBool,
}

impl FileRanges {
    /// Opens `path`; its length must not change afterwards.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let opened = File::open(path).and_then(|file| {
            let len = file.metadata()?.len();
            Ok((file, len))
        });
        match opened {
            Ok((file, len)) => Ok(Self { file, len, name, announced: AtomicBool::new(false) }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(Error::Missing(name)),
            Err(source) => Err(Error::Io { name, source }),
        }
    }
}

impl Ranges for FileRanges {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.len {
            return Err(past_end());
        }
        let len = usize::try_from(range.end - range.start).map_err(|_too_big| past_end())?;
        lent::filled(len, |buf| std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, range.start))
            .map_err(|source| Error::Io { name: self.name.clone(), source })
    }

    fn lends(&self) -> bool {
        true
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if ranges.len() > 1 {
            self.begin(ranges);
        }
        ranges.iter().map(|range| self.read(range.clone())).collect()
    }

    fn will_need(&self, ranges: &[Range<u64>]) -> Result<()> {
        // Who says what will be read needs nothing around it, which the system would read on its own account.
        if !self.announced.swap(true, Ordering::Relaxed) {
            self.read_nothing_else();
        }
        self.begin(ranges);
        Ok(())
    }

    /// Little: the system reads on by itself, and small buffers are used again.
    fn read_ahead(&self) -> u64 {
        256 << 10
    }
}

/// Advice, which changes when bytes come from the disk and nothing else: where a file system does not know of it, they are read when
/// they are wanted.
#[cfg(target_os = "linux")]
impl FileRanges {
    /// Has the system fetch `ranges`, all at once.
    fn begin(&self, ranges: &[Range<u64>]) {
        let known = |range: &&Range<u64>| range.start < range.end && range.end <= self.len;
        let place =
            |range: &Range<u64>| Some((range.start.try_into().ok()?, (range.end - range.start).try_into().ok()?));
        let soon =
            |(start, len)| posix_fadvise(&self.file, start, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED).is_ok();
        ranges.iter().filter(known).map_while(place).all(soon);
    }

    fn read_nothing_else(&self) {
        if posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).is_err() {
            tracing::debug!(file = self.name, "the file system takes no advice on how files are read");
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl FileRanges {
    fn begin(&self, _ranges: &[Range<u64>]) {}

    fn read_nothing_else(&self) {}
}

/// A block in a local folder.
pub struct LocalBlock {
    folder: PathBuf,
    data: Arc<FileRanges>,
}

impl LocalBlock {
    /// Opens the data file of the block in `folder`.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let data = Arc::new(FileRanges::open(&folder.join(DATA))?);
        Ok(Self { folder, data })
    }
}

impl BlockObjects for LocalBlock {
    fn data(&self) -> Arc<dyn Ranges> {
        self.data.clone()
    }

    fn object(&self, name: &str) -> Result<Option<Bytes>> {
        match std::fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { name: name.to_owned(), source }),
        }
    }

    fn object_parts(&self, name: &str, ranges: &[Range<u64>]) -> Result<Option<Vec<Bytes>>> {
        match FileRanges::open(&self.folder.join(name)) {
            Ok(file) => file.read_many(ranges).map(Some),
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A block whose objects are all in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryBlock {
    data: Bytes,
    objects: Vec<(String, Bytes)>,
}

impl MemoryBlock {
    /// A block of the given data object and other objects by name.
    pub fn new(data: Bytes, objects: Vec<(String, Bytes)>) -> Self {
        Self { data, objects }
    }
}

impl BlockObjects for MemoryBlock {
    fn data(&self) -> Arc<dyn Ranges> {
        Arc::new(self.data.clone())
    }

    fn object(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.objects.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.clone()))
    }
}

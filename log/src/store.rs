//! The rules of one partition's segments, as plain blocking code over a [`Disk`]: commit a batch, roll, reclaim. Opening
//! is in `recovery`. One thread at a time uses it.
//!
//! The rules, each of which a simulated power loss checks:
//!
//! * A batch counts when one write and one `sync_data` have succeeded, and not before.
//! * A segment takes frames only when its header is synced and its name is synced in the folder.
//! * After a failed `sync_data` the file is never written or synced again: it is sealed at its last durable offset, which the
//!   next segment's header records, so that what may surface in the old file behind that offset is void.
//! * After a failed write the file is cut back to its durable length; if that fails too, it is sealed in the same way.
//! * Once a new segment is attempted, nothing is appended to the old one, whether or not the attempt succeeds.
//! * Offsets of a batch that failed are burnt. The next segment therefore never has the name of one that failed.
//! * Segments are removed oldest first, the folder synced after each, so a crash never leaves a hole.

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vivace_runtime::{Clock, Disk, File};

use crate::error::Error;
use crate::frame;
use crate::log_id::LogId;
use crate::record::{Offset, Partition, Record};
use crate::segment::{HEADER_BYTES, Segment, SegmentHeader, segment_path};

/// Batches above this give their buffer back, so that one burst does not stay in memory.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// One partition's segments.
pub(crate) struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    pub(crate) id: LogId,
    pub(crate) partition: Partition,
    pub(crate) segment_bytes: u64,
    /// In order of offsets; the last one is being written if `active` is there.
    pub(crate) segments: Vec<Segment>,
    pub(crate) active: Option<Arc<dyn File>>,
    /// The next offset to give.
    pub(crate) next: Offset,
    /// The offset after the last durable record.
    pub(crate) end: Offset,
    pub(crate) buffer: Vec<u8>,
}

/// A batch that is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    /// The first offset of the batch; its records take theirs from here on without gaps.
    pub(crate) first: Offset,
    pub(crate) bytes: u64,
    /// How long the sync took.
    pub(crate) sync: Duration,
}

impl Store {
    /// Makes the records durable under consecutive offsets. Beside each stands how many offsets it takes, at least one; its frame
    /// carries the last of them.
    ///
    /// # Errors
    /// Nothing of the batch will ever be read in this process's life; the next commit starts afresh.
    pub(crate) fn commit<'r>(
        &mut self,
        records: impl Iterator<Item = (&'r Record, NonZeroU32)> + Clone,
    ) -> Result<Commit, Error> {
        let batch_bytes: usize = records.clone().map(|(r, _)| frame::encoded_bytes(r).unwrap_or(0)).sum();
        let (file, position) = self.room_for(batch_bytes as u64)?;
        let first = self.next;
        let seed = self.last().seed(self.id);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(batch_bytes);
        let mut offset = first;
        for (record, offsets) in records {
            let distance = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let last = offset.plus(u64::from(offsets.get()) - 1);
            frame::encode(&mut buffer, seed, last, distance, record)?;
            offset = last.next();
        }
        // Burnt at once: whatever happens from here on, these offsets are not given to other records.
        self.next = offset;
        let written = self.write(&*file, position, &buffer);
        let written_bytes = buffer.len() as u64;
        if buffer.capacity() <= KEPT_BUFFER_BYTES {
            self.buffer = buffer;
        }
        let sync = written?;
        self.end = offset;
        let segment = self.last_mut();
        segment.note(first, position);
        segment.durable_bytes = position + written_bytes;
        segment.end = offset;
        Ok(Commit { first, bytes: written_bytes, sync })
    }

    /// Returns how long the sync took.
    fn write(&mut self, file: &dyn File, position: u64, bytes: &[u8]) -> Result<Duration, Error> {
        if let Err(error) = file.write_at(bytes, position) {
            // Without the cut, frames of this batch could stand behind a shorter next one and look valid.
            if let Err(uncut) = file.truncate(position) {
                tracing::warn!(error = &uncut as &dyn std::error::Error, path = %self.last().path.display(), "seal segment that could not be cut back");
                self.active = None;
            }
            return Err(Error::not_durable(error));
        }
        let started = self.clock.now();
        if let Err(error) = file.sync_data() {
            tracing::warn!(error = &error as &dyn std::error::Error, path = %self.last().path.display(), "seal segment whose fsync failed");
            self.active = None;
            return Err(Error::not_durable(error));
        }
        Ok(self.clock.now().saturating_duration_since(started))
    }

    /// The file to write to and where, with a new segment if the present one is full or sealed.
    fn room_for(&mut self, batch_bytes: u64) -> Result<(Arc<dyn File>, u64), Error> {
        if let (Some(file), Some(segment)) = (&self.active, self.segments.last()) {
            let used = segment.durable_bytes;
            if used == HEADER_BYTES || used + batch_bytes <= self.segment_bytes {
                return Ok((Arc::clone(file), used));
            }
        }
        self.roll()?;
        match &self.active {
            Some(file) => Ok((Arc::clone(file), HEADER_BYTES)),
            None => Err(Error::Closed),
        }
    }

    /// Starts a new segment: durable header, durable name, then the switch.
    pub(crate) fn roll(&mut self) -> Result<(), Error> {
        // The present segment is sealed even if this fails: the header that may stay behind declares void what would follow.
        self.active = None;
        let first = self.next;
        let path = segment_path(&self.dir, first);
        match self.create(&path, first) {
            Ok(file) => {
                let (start, end) = (self.end, self.end);
                let segment = Segment {
                    path,
                    first,
                    start,
                    end,
                    durable_bytes: HEADER_BYTES,
                    header_damaged: false,
                    index: Vec::new(),
                };
                self.segments.push(segment);
                self.active = Some(file);
                Ok(())
            }
            Err(error) => {
                // What may be left is an empty segment, harmless; its name is not used again.
                self.next = first.next();
                match self.disk.remove(&path) {
                    Ok(()) => {}
                    Err(left) if left.kind() == io::ErrorKind::NotFound => {}
                    Err(left) => {
                        tracing::warn!(error = &left as &dyn std::error::Error, path = %path.display(), "remove segment that could not be started");
                    }
                }
                Err(error)
            }
        }
    }

    fn create(&self, path: &Path, first: Offset) -> Result<Arc<dyn File>, Error> {
        let file = self.disk.create(path).map_err(|error| Error::io("create segment", path, error))?;
        let header = SegmentHeader { id: self.id, partition: self.partition, first, previous_end: self.end };
        file.write_at(&header.encode(), 0).map_err(|error| Error::io("write segment header", path, error))?;
        file.sync_data().map_err(|error| Error::io("sync segment header", path, error))?;
        self.disk.sync_dir(&self.dir).map_err(|error| Error::io("sync folder", &self.dir, error))?;
        Ok(file)
    }

    /// Removes the segments that hold nothing at or above `below`, except the last.
    pub(crate) fn reclaim(&mut self, below: Offset) -> Result<(), Error> {
        while self.segments.len() > 1 && self.segments[0].end <= below {
            let path = &self.segments[0].path;
            match self.disk.remove(path) {
                // Missing: removed by an earlier attempt whose folder sync failed.
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove segment", path, error)),
            }
            self.disk.sync_dir(&self.dir).map_err(|error| Error::io("sync folder", &self.dir, error))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Everything at or above this that exists can be read.
    pub(crate) fn earliest(&self) -> Offset {
        self.segments.first().map_or(self.end, |segment| segment.start)
    }

    /// The length of all segments, as far as it is durable.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.segments.iter().map(|segment| segment.durable_bytes).sum()
    }

    fn last(&self) -> &Segment {
        self.segments.last().expect("opening a store makes a segment, and reclaim keeps the last")
    }

    fn last_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("opening a store makes a segment, and reclaim keeps the last")
    }
}

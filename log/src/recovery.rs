//! Opening a partition: what is in the folder, where the log ends, and what is damaged.
//!
//! Only the last segment can have been torn by a crash, because every other one was synced before its successor began. Its
//! frames are walked; bad bytes at position `p` have one of two explanations, told apart by the frames behind them (see
//! `frame`): if one of these belongs to a batch that starts behind `p`, the bytes at `p` were durable once, so the disk has damaged
//! acknowledged records: the range is skipped and reported. Otherwise they are the torn end of a batch that
//! nobody was told about: the file is cut there.
//!
//! What is kept is made durable before anybody reads it, because a record that a reader has seen must not vanish in the next
//! power loss. A sync alone does not do that: if the process before this one met a failed fsync and ended, the kernel still
//! shows the bytes, believes them clean, and lets a second fsync succeed without writing them. So the last batch, the only one that no
//! later batch proves durable, is written again in place, the same bytes, and then synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vivace_runtime::{Clock, Disk, File};

use crate::error::Error;
use crate::frame_reader::{FrameReader, Step};
use crate::log::Skipped;
use crate::log_id::LogId;
use crate::record::{Offset, Partition};
use crate::segment::{BadHeader, HEADER_BYTES, HEADER_LEN, Segment, SegmentHeader, parse_segment_name};
use crate::store::Store;

/// What a partition is opened with.
pub(crate) struct Opening {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    pub(crate) id: LogId,
    pub(crate) partition: Partition,
    pub(crate) segment_bytes: u64,
}

/// A store that is ready, and the damage found on the way.
pub(crate) struct Recovered {
    pub(crate) store: Store,
    pub(crate) damage: Vec<Skipped>,
    /// Bytes of unacknowledged, torn frames that were cut off.
    pub(crate) torn_bytes: u64,
}

impl Opening {
    /// Opens the partition; the folder exists and its name is durable.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk fails, [`Error::ForeignSegment`], and [`Error::Unreadable`] for a version that this program does not
    /// know. Damage is not an error.
    pub(crate) fn recover(self) -> Result<Recovered, Error> {
        let mut damage = Vec::new();
        // A segment whose creation was cut short has no whole header and nothing behind it.
        let (unborn, mut segments): (Vec<_>, Vec<_>) =
            self.list()?.into_iter().partition(|s| s.header_damaged && s.durable_bytes <= HEADER_BYTES);
        let mut torn_bytes = 0;
        for segment in unborn {
            torn_bytes += segment.durable_bytes;
            self.disk.remove(&segment.path).map_err(|error| Error::io("remove torn segment", &segment.path, error))?;
        }
        for index in 1..segments.len() {
            segments[index - 1].end = segments[index].start;
        }
        let mut active = None;
        let (mut end, mut next) = (Offset(0), Offset(0));
        if let Some(last) = segments.last_mut() {
            let file = self.open_file(&last.path)?;
            if last.header_damaged {
                (end, next) = self.pass_over(last, file)?;
            } else {
                torn_bytes += self.scan_last(last, &file, &mut damage)?;
                (end, next) = (last.end, last.end.max(last.first));
                active = Some(file);
            }
        }
        // Names may have come and gone without having been synced.
        self.disk.sync_dir(&self.dir).map_err(|error| Error::io("sync folder", &self.dir, error))?;
        damage.extend(segments.iter().filter(|s| s.header_damaged).map(skipped_whole));
        let Self { disk, clock, dir, id, partition, segment_bytes } = self;
        let mut store =
            Store { disk, clock, dir, id, partition, segment_bytes, segments, active, next, end, buffer: Vec::new() };
        if store.segments.is_empty() {
            store.roll()?;
        }
        Ok(Recovered { store, damage, torn_bytes })
    }

    /// The segments by name, each with what its header says.
    fn list(&self) -> Result<Vec<Segment>, Error> {
        let entries = self.disk.list(&self.dir).map_err(|error| Error::io("list folder", &self.dir, error))?;
        let mut segments = Vec::new();
        for entry in entries {
            let Some(first) = parse_segment_name(&entry.name).filter(|_| !entry.is_dir) else { continue };
            let header = self.read_header(&entry.path, first)?;
            let start = header.map_or(first, |header| header.previous_end.min(first));
            segments.push(Segment {
                path: entry.path,
                first,
                start,
                end: start,
                durable_bytes: entry.len,
                header_damaged: header.is_none(),
                index: Vec::new(),
            });
        }
        segments.sort_by_key(|segment| segment.first);
        Ok(segments)
    }

    /// `None` when it is damaged or cut off.
    fn read_header(&self, path: &Path, first: Offset) -> Result<Option<SegmentHeader>, Error> {
        let file = self.open_file(path)?;
        let mut bytes = [0; HEADER_LEN];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::io("read segment header", path, error)),
        }
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.id != self.id => {
                Err(Error::ForeignSegment { path: path.to_owned(), found: header.id, expected: self.id })
            }
            Ok(header) if header.first != first || header.partition != self.partition => {
                Err(Error::Unreadable { path: path.to_owned(), reason: "its header names another place" })
            }
            Ok(header) => Ok(Some(header)),
            Err(BadHeader::Version) => {
                Err(Error::Unreadable { path: path.to_owned(), reason: "its format version is unknown" })
            }
            Err(BadHeader::Damaged) => Ok(None),
        }
    }

    /// Walks the last segment's frames, cuts a torn end and makes what is left durable. Returns how many bytes were cut.
    fn scan_last(&self, last: &mut Segment, file: &Arc<dyn File>, damage: &mut Vec<Skipped>) -> Result<u64, Error> {
        let found = scan(last, file, self.id).map_err(|error| Error::io("read segment", &last.path, error))?;
        let length = last.durable_bytes;
        last.durable_bytes = found.valid_bytes;
        last.end = found.end;
        last.index = found.index;
        damage.extend(found.damage);
        if found.valid_bytes < length {
            file.truncate(found.valid_bytes).map_err(|error| Error::io("cut torn segment", &last.path, error))?;
        }
        rewrite(&**file, found.doubtful_from, found.valid_bytes)
            .map_err(|error| Error::io("rewrite end of segment", &last.path, error))?;
        file.sync_data().map_err(|error| Error::io("sync segment", &last.path, error))?;
        Ok(length - found.valid_bytes)
    }

    /// A last segment with frames behind a damaged header: where may offsets go on without meeting one of its own?
    fn pass_over(&self, last: &mut Segment, file: Arc<dyn File>) -> Result<(Offset, Offset), Error> {
        let mut reader = FrameReader::new(file, last.seed(self.id), HEADER_BYTES, last.durable_bytes);
        let mut end = last.first;
        loop {
            match reader.step(end).map_err(|error| Error::io("read segment", &last.path, error))? {
                Step::Frame { frame, .. } => end = frame.entry.offset.next(),
                Step::End => break,
                Step::Bad { .. } => {
                    let later = end..Offset(u64::MAX);
                    reader.resync(later).map_err(|error| Error::io("read segment", &last.path, error))?;
                }
            }
        }
        // Every frame has more than one byte, so no offset of the file lies behind this unless many were burnt.
        last.end = end.max(last.first.plus(last.durable_bytes));
        Ok((last.end, last.end))
    }

    fn open_file(&self, path: &Path) -> Result<Arc<dyn File>, Error> {
        self.disk.open(path).map_err(|error| Error::io("open segment", path, error))
    }
}

/// Writes the bytes of a range again as they are, so that the next sync really writes them.
fn rewrite(file: &dyn File, from: u64, until: u64) -> io::Result<()> {
    let length = usize::try_from(until.saturating_sub(from))
        .map_err(|_too_long| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, from)?;
    file.write_at(&bytes, from)
}

/// What a walk over the last segment finds.
struct Scan {
    /// Where the last batch starts: nothing proves that it is durable. Without a batch, the header is in doubt.
    doubtful_from: u64,
    /// Where the next frame goes.
    valid_bytes: u64,
    end: Offset,
    index: Vec<(Offset, u64)>,
    damage: Vec<Skipped>,
}

fn scan(segment: &Segment, file: &Arc<dyn File>, id: LogId) -> io::Result<Scan> {
    let mut walked = segment.clone();
    let mut reader = FrameReader::new(Arc::clone(file), segment.seed(id), HEADER_BYTES, segment.durable_bytes);
    let (mut valid_bytes, mut end, mut least) = (HEADER_BYTES, segment.start, segment.first);
    let mut doubtful_from = 0;
    let mut damage = Vec::new();
    // Bad ranges that no later batch has proved durable yet; if none does, the log ends at the first of them.
    let mut doubtful: Vec<Skipped> = Vec::new();
    loop {
        match reader.step(least)? {
            Step::Frame { position, frame } => {
                least = frame.entry.offset.next();
                let batch_start = position.saturating_sub(u64::from(frame.batch_distance));
                if doubtful.first().is_some_and(|first| batch_start > first.position) {
                    damage.append(&mut doubtful);
                }
                if doubtful.is_empty() {
                    walked.note(frame.entry.offset, position);
                    valid_bytes = reader.position();
                    end = least;
                    doubtful_from = batch_start;
                }
            }
            Step::End => break,
            Step::Bad { position, reason } => {
                let first = least;
                let plausible = first..first.plus(MOST_BURNT);
                if !reader.resync(plausible)? {
                    break;
                }
                let next = reader.position();
                let until = match reader.step(first)? {
                    Step::Frame { frame, .. } => frame.entry.offset,
                    Step::End | Step::Bad { .. } => first,
                };
                reader.seek(next);
                doubtful.push(Skipped {
                    path: segment.path.clone(),
                    position,
                    bytes: next - position,
                    first,
                    end: until,
                    reason,
                });
            }
        }
    }
    Ok(Scan { doubtful_from, valid_bytes, end, index: walked.index, damage })
}

/// How far the search behind damage believes an offset to be away: more than a segment has frames, failed batches included.
const MOST_BURNT: u64 = 1 << 32;

pub(crate) fn skipped_whole(segment: &Segment) -> Skipped {
    Skipped {
        path: segment.path.clone(),
        position: 0,
        bytes: segment.durable_bytes,
        first: segment.start,
        end: segment.end,
        reason: "segment header is damaged",
    }
}

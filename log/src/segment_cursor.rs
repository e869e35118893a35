//! Reads records from segment files, from an offset on, across files and damage. Blocking.

use std::sync::Arc;

use vivace_runtime::Disk;

use crate::error::Error;
use crate::frame_reader::{FrameReader, Step};
use crate::log::{Batch, Skipped};
use crate::log_id::LogId;
use crate::partition_log::PartitionLog;
use crate::record::Offset;
use crate::recovery::skipped_whole;
use crate::segment::Segment;

/// A place in the segments of one partition.
pub(crate) struct SegmentCursor {
    disk: Arc<dyn Disk>,
    id: LogId,
    position: Offset,
    open: Option<OpenSegment>,
}

struct OpenSegment {
    first: Offset,
    reader: FrameReader,
    /// Frames below this were passed in this file already.
    least: Offset,
}

impl SegmentCursor {
    pub(crate) fn new(disk: Arc<dyn Disk>, id: LogId, position: Offset) -> Self {
        Self { disk, id, position, open: None }
    }

    /// Moves without reading; the next read finds its place anew.
    pub(crate) fn set_position(&mut self, position: Offset) {
        if self.position != position {
            self.position = position;
            self.open = None;
        }
    }

    /// Reads up to `max_bytes` of what stands between the position and what the partition holds now: at least one record or
    /// skipped range, unless there is nothing or the position has been reclaimed (both leave the batch empty).
    ///
    /// # Errors
    /// [`Error::Io`]; the position then stands behind what an earlier call returned, and nothing is lost.
    pub(crate) fn read(&mut self, partition: &PartitionLog, max_bytes: usize) -> Result<Batch, Error> {
        let before = self.position;
        let mut batch = Batch { end: before, ..Batch::default() };
        let result = self.read_into(&mut batch, partition, max_bytes);
        if let Err(error) = result {
            self.position = before;
            self.open = None;
            return Err(error);
        }
        batch.end = self.position;
        Ok(batch)
    }

    fn read_into(&mut self, batch: &mut Batch, partition: &PartitionLog, max_bytes: usize) -> Result<(), Error> {
        let mut bytes = 0;
        while bytes < max_bytes || batch.records.is_empty() {
            let segment = {
                let view = partition.view();
                if self.position < view.earliest || self.position >= view.end {
                    return Ok(());
                }
                match view.segment(self.position) {
                    Some(segment) => segment.clone(),
                    None => return Ok(()),
                }
            };
            if segment.header_damaged {
                batch.skipped.push(Skipped { first: self.position, ..skipped_whole(&segment) });
                self.move_behind(&segment);
            } else if self.read_segment(&segment, batch, &mut bytes, max_bytes)? {
                return Ok(());
            }
            if !batch.skipped.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads from one segment; true when the batch is full.
    fn read_segment(
        &mut self,
        segment: &Segment,
        batch: &mut Batch,
        bytes: &mut usize,
        max_bytes: usize,
    ) -> Result<bool, Error> {
        let read_error = |error| Error::io("read segment", &segment.path, error);
        let mut open = match self.open.take() {
            Some(open) if open.first == segment.first => open,
            _ => self.open(segment)?,
        };
        open.reader.set_limit(segment.durable_bytes);
        let mut full = false;
        while self.position < segment.end {
            match open.reader.step(open.least).map_err(read_error)? {
                // Behind the durable end of a sealed segment: never acknowledged.
                Step::Frame { frame, .. } if frame.entry.offset >= segment.end => {
                    batch.skipped.push(self.missing(segment, &open, "frames are missing"));
                    self.position = segment.end;
                }
                Step::Frame { frame, .. } if frame.entry.offset < self.position => {
                    open.least = frame.entry.offset.next();
                }
                Step::Frame { frame, .. } => {
                    let charged = frame.entry.record.charged_bytes();
                    if *bytes + charged > max_bytes && !batch.records.is_empty() {
                        open.reader.step_back();
                        full = true;
                        break;
                    }
                    *bytes += charged;
                    open.least = frame.entry.offset.next();
                    self.position = open.least;
                    batch.records.push(frame.entry);
                }
                Step::End => {
                    batch.skipped.push(self.missing(segment, &open, "frames are missing"));
                    self.position = segment.end;
                }
                Step::Bad { position, reason } => {
                    let first = self.position;
                    let found = open.reader.resync(open.least..segment.end).map_err(read_error)?;
                    let behind = open.reader.position();
                    let mut end = segment.end;
                    if found && let Step::Frame { frame, .. } = open.reader.step(open.least).map_err(read_error)? {
                        end = frame.entry.offset;
                        open.reader.step_back();
                    }
                    // Damage before the position is somebody else's to report.
                    if end > first {
                        let path = segment.path.clone();
                        batch.skipped.push(Skipped { path, position, bytes: behind - position, first, end, reason });
                        self.position = end;
                        break;
                    }
                }
            }
        }
        // Kept also at the end: the last segment may grow.
        self.open = Some(open);
        Ok(full)
    }

    fn missing(&self, segment: &Segment, open: &OpenSegment, reason: &'static str) -> Skipped {
        Skipped {
            path: segment.path.clone(),
            position: open.reader.position(),
            bytes: 0,
            first: self.position,
            end: segment.end,
            reason,
        }
    }

    fn open(&self, segment: &Segment) -> Result<OpenSegment, Error> {
        let file = self.disk.open(&segment.path).map_err(|error| Error::io("open segment", &segment.path, error))?;
        let position = segment.position_before(self.position);
        let reader = FrameReader::new(file, segment.seed(self.id), position, segment.durable_bytes);
        Ok(OpenSegment { first: segment.first, reader, least: segment.first })
    }

    fn move_behind(&mut self, segment: &Segment) {
        self.position = segment.end;
        self.open = None;
    }
}

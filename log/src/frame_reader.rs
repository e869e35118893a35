//! Reads the frames of one segment file one after the other, and finds the next whole frame behind damage.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use vivace_runtime::File;

use crate::frame::{self, Bad, Frame, HEAD_BYTES, Seed};
use crate::record::Offset;

/// How much one read takes from the disk, unless a frame is longer.
const CHUNK_BYTES: usize = 256 << 10;

/// A position in a segment file. Records it returns share a buffer of at most the chunk size or one frame.
pub(crate) struct FrameReader {
    file: Arc<dyn File>,
    seed: Seed,
    position: u64,
    /// Nothing at or behind this position is read.
    limit: u64,
    buffer: Bytes,
    /// Position and buffer before the last frame.
    before: (u64, Bytes),
}

/// What stands at the position.
pub(crate) enum Step {
    /// A frame; the reader stands behind it.
    Frame {
        /// Where it starts.
        position: u64,
        frame: Frame,
    },
    /// Exactly the limit.
    End,
    /// No frame. The reader has not moved.
    Bad { position: u64, reason: Bad },
}

impl FrameReader {
    pub(crate) fn new(file: Arc<dyn File>, seed: Seed, position: u64, limit: u64) -> Self {
        Self { file, seed, position, limit, buffer: Bytes::new(), before: (position, Bytes::new()) }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// More of the file has become durable.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position;
        self.buffer = Bytes::new();
    }

    /// Stands before the frame that the last `step` returned, without reading it from the disk again.
    pub(crate) fn step_back(&mut self) {
        (self.position, self.buffer) = self.before.clone();
    }

    /// Reads the frame at the position. Only frames with an offset of at least `least` count.
    pub(crate) fn step(&mut self, least: Offset) -> io::Result<Step> {
        let position = self.position;
        if position >= self.limit {
            return Ok(Step::End);
        }
        let bad = |reason| Ok(Step::Bad { position, reason });
        if !self.fill(HEAD_BYTES)? {
            return bad("head is cut off");
        }
        let claimed = match frame::claimed_bytes(&self.buffer) {
            Ok(claimed) => claimed,
            Err(reason) => return bad(reason),
        };
        if !self.fill(claimed)? {
            return bad("frame is cut off");
        }
        match frame::decode(&self.buffer, self.seed) {
            Ok(frame) if frame.entry.offset < least => bad("offset goes backwards"),
            Ok(frame) => {
                let rest = self.buffer.slice(frame.bytes..);
                self.before = (position, std::mem::replace(&mut self.buffer, rest));
                self.position += frame.bytes as u64;
                Ok(Step::Frame { position, frame })
            }
            Err(reason) => bad(reason),
        }
    }

    /// Finds the first position behind the current one where a whole frame with an offset in `offsets` starts, and moves
    /// there; without one, moves to the limit and returns false.
    ///
    /// A candidate's checksum is computed only when its offset and its lengths are plausible, so random damage costs one
    /// pass over the bytes. Memory: a chunk and one frame.
    pub(crate) fn resync(&mut self, offsets: std::ops::Range<Offset>) -> io::Result<bool> {
        let mut position = self.position + 1;
        while position < self.limit {
            self.seek(position);
            let whole = self.fill(CHUNK_BYTES.min(usize_or_max(self.limit - position)))?;
            let chunk = self.buffer.clone();
            let candidates = chunk.len().saturating_sub(HEAD_BYTES - 1);
            for at in 0..candidates {
                let head = &chunk[at..];
                let plausible = frame::claimed_offset(head).is_some_and(|offset| offsets.contains(&offset))
                    && frame::claimed_bytes(head).is_ok();
                if !plausible {
                    continue;
                }
                let candidate = position + at as u64;
                self.seek(candidate);
                if let Step::Frame { .. } = self.step(offsets.start)? {
                    self.seek(candidate);
                    return Ok(true);
                }
            }
            if candidates == 0 || !whole {
                break;
            }
            position += candidates as u64;
        }
        self.seek(self.limit);
        Ok(false)
    }

    /// Makes the buffer at least `wanted` bytes long, if that many stand before the limit and in the file.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.buffer.len() >= wanted {
            return Ok(true);
        }
        let available = usize_or_max(self.limit.saturating_sub(self.position));
        if available < wanted {
            return Ok(false);
        }
        let mut bytes = vec![0; wanted.max(CHUNK_BYTES).min(available)];
        let kept = self.buffer.len();
        bytes[..kept].copy_from_slice(&self.buffer);
        let read = self.file.read_at(&mut bytes[kept..], self.position + kept as u64)?;
        bytes.truncate(kept + read);
        self.buffer = Bytes::from(bytes);
        Ok(self.buffer.len() >= wanted)
    }
}

fn usize_or_max(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

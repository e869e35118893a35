//! One segment file: its name, its header, and what memory knows about it.

use std::path::{Path, PathBuf};

use crate::frame::Seed;
use crate::log_id::LogId;
use crate::record::{Offset, Partition};

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: u64 = 64;
/// [`HEADER_BYTES`] as the length of an array.
pub(crate) const HEADER_LEN: usize = 64;
const MAGIC: &[u8; 8] = b"VIVACLOG";
const VERSION: u32 = 1;
const SUFFIX: &str = ".log";

/// What a segment says about itself. Frozen as format 1; the picture is in the crate's README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: LogId,
    pub(crate) partition: Partition,
    /// No frame in the file has a lower offset; the file is named by it.
    pub(crate) first: Offset,
    /// The offset after the last durable record before this segment. Frames of the previous file at or above it were never
    /// acknowledged (their fsync failed) and are void.
    pub(crate) previous_end: Offset,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Cut off or damaged.
    Damaged,
    /// Whole, but of a version that this program does not know.
    Version,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.partition.0.to_le_bytes());
        bytes[16..32].copy_from_slice(self.id.as_bytes());
        bytes[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_end.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, BadHeader> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..8] != *MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(60) {
            return Err(BadHeader::Damaged);
        }
        if u32_at(8) != VERSION {
            return Err(BadHeader::Version);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        Ok(Self {
            id: LogId::from_bytes(id),
            partition: Partition(i32::from_le_bytes(u32_at(12).to_le_bytes())),
            first: Offset(u64_at(32)),
            previous_end: Offset(u64_at(40)),
        })
    }
}

/// The file of the segment that starts at `first`: zero-padded, so that names sort as offsets do.
pub(crate) fn segment_path(dir: &Path, first: Offset) -> PathBuf {
    dir.join(format!("{:020}{SUFFIX}", first.0))
}

/// The offset that a file name stands for; `None` for files that are not segments.
pub(crate) fn parse_segment_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Offset)
}

/// What memory knows about one segment. Readers get clones: a snapshot of what is durable.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first: Offset,
    /// Everything from here up to `end` that exists is in this file. At or below `first`: the offsets between were burnt.
    pub(crate) start: Offset,
    /// The offset after the last durable record in this file (or before it, if it holds none).
    pub(crate) end: Offset,
    /// How much of the file is durable, header included.
    pub(crate) durable_bytes: u64,
    /// The header is damaged although frames followed it: the whole range is passed over.
    pub(crate) header_damaged: bool,
    /// Some (offset, position) pairs in order, so that a reader need not start at the front.
    pub(crate) index: Vec<(Offset, u64)>,
}

/// How far apart the index entries are.
const INDEX_STEP_BYTES: u64 = 256 << 10;

impl Segment {
    pub(crate) fn seed(&self, id: LogId) -> Seed {
        Seed::new(id, self.first)
    }

    /// Remembers that a frame stands at a position, unless one nearby is known.
    pub(crate) fn note(&mut self, offset: Offset, position: u64) {
        let last = self.index.last().map_or(HEADER_BYTES, |&(_, position)| position);
        if position >= last + INDEX_STEP_BYTES {
            self.index.push((offset, position));
        }
    }

    /// Takes over what a later snapshot of the same segment has more.
    pub(crate) fn catch_up(&mut self, later: &Self) {
        self.end = later.end;
        self.durable_bytes = later.durable_bytes;
        self.index.extend_from_slice(later.index.get(self.index.len()..).unwrap_or_default());
    }

    /// A position at or before the first frame whose offset is `offset` or more.
    pub(crate) fn position_before(&self, offset: Offset) -> u64 {
        match self.index.partition_point(|&(known, _)| known <= offset) {
            0 => HEADER_BYTES,
            found => self.index[found - 1].1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_a_damaged_one_does_not() {
        let header = SegmentHeader {
            id: LogId::from_bytes([3; 16]),
            partition: Partition(-7),
            first: Offset(1 << 40),
            previous_end: Offset(77),
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for at in 0..bytes.len() {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Damaged), "byte {at}");
        }
    }

    #[test]
    fn names_sort_as_offsets_and_other_files_are_not_segments() {
        let path = segment_path(Path::new("d"), Offset(42));
        assert_eq!(path, Path::new("d/00000000000000000042.log"));
        assert_eq!(parse_segment_name("00000000000000000042.log"), Some(Offset(42)));
        for name in ["42.log", "00000000000000000042.log.tmp", "+0000000000000000042.log", "99999999999999999999.log"] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_index_leads_to_a_position_at_or_before_an_offset() {
        let mut segment = Segment {
            path: PathBuf::new(),
            first: Offset(0),
            start: Offset(0),
            end: Offset(100),
            durable_bytes: 0,
            header_damaged: false,
            index: Vec::new(),
        };
        for step in 0..10_u64 {
            segment.note(Offset(step * 10), HEADER_BYTES + step * (100 << 10));
        }
        assert_eq!(segment.position_before(Offset(5)), HEADER_BYTES);
        assert_eq!(segment.position_before(Offset(29)), HEADER_BYTES);
        assert_eq!(segment.position_before(Offset(30)), HEADER_BYTES + (300 << 10));
        assert_eq!(segment.position_before(Offset(99)), HEADER_BYTES + (900 << 10));
    }
}

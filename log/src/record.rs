//! What a log holds: records, their place and their partition.

use std::fmt;

use bytes::Bytes;

/// A partition of the log, numbered as in Kafka and in the partition ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's place in its partition. Offsets grow strictly in append order and are never given twice to acknowledged
/// records; they may have gaps (a refused batch can burn its offsets), so the next offset is only ever *at least* one more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset right after this one: what a consumer that has applied this record has reached.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// `count` offsets further.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A named value beside the record, as in Kafka; `vivace-seq` and trace context travel here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// At most 65,535 bytes.
    pub name: Bytes,
    /// Opaque.
    pub value: Bytes,
}

/// One record as handed to the log and as read from it. Cloning copies no payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The tenant id, UTF-8: the Kafka record's key.
    pub tenant: Bytes,
    /// The payload, opaque to the log (a `PushBytesRequest` in Vivace).
    pub value: Bytes,
    /// A short list, at most 65,535 entries; empty for most records.
    pub headers: Vec<Header>,
    /// When the record was produced, in milliseconds since the epoch. The log stores it and never reads a clock for it.
    pub timestamp_ms: i64,
}

impl Record {
    /// What the record is charged against byte budgets: its payload plus a constant for its bookkeeping.
    #[must_use]
    pub fn charged_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|h| h.name.len() + h.value.len() + 16).sum();
        self.tenant.len() + self.value.len() + headers + RECORD_OVERHEAD_BYTES
    }
}

/// Bookkeeping charged per record, so that a flood of empty records is bounded too.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub offset: Offset,
    /// What stands there.
    pub record: Record,
}

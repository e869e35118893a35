//! Traces that are too large for one row: which blocks hold their parts.
//!
//! What does not fit a row goes into another block, since a block has one row for a trace (other readers look a trace up by
//! bisection). All of these blocks say so in their metadata, whose times are then those of the whole trace, so that whoever takes one of
//! them for a window takes all. Queries evaluate the parts together where the first of them is.

use std::fmt::Display;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;
use vivace_protocol::{
    TraceId,
    trace_walk::{SpanHead, for_each_span},
    wire::WireError,
};

use crate::meta::{BlockMeta, Timestamp};

/// What a block has of a trace that is in several. Merging keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitTrace {
    /// The trace.
    #[serde(rename = "traceID", with = "hex")]
    pub trace: TraceId,
    /// The block that the first part was written to of those that were written together, whether it is still there or merged into
    /// another.
    #[serde(rename = "firstBlockID")]
    pub first: Uuid,
    /// 0 for the first part.
    pub part: u32,
    /// When the first record of these blocks was received, unix milliseconds: parts that are written later have no earlier one.
    #[serde(rename = "receivedUnixMs")]
    pub received_ms: i64,
}

impl SplitTrace {
    /// The order in which parts were written. It is that of the marks alone, whatever block they are in by now.
    #[must_use]
    pub fn order(&self) -> (i64, Uuid, u32) {
        (self.received_ms, self.first, self.part)
    }
}

mod hex {
    use super::{Deserialize, Deserializer, Display, Serializer, TraceId, de};

    pub(super) fn serialize<S: Serializer>(id: &TraceId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id as &dyn Display)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TraceId, D::Error> {
        TraceId::parse_hex(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What a block goes on with: the rest of traces that did not fit the rows of blocks before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continued {
    first: Uuid,
    part: u32,
    between: (Timestamp, Timestamp),
}

impl Continued {
    /// The block after `before`, which were written of the same traces; none where it is the first.
    #[must_use]
    pub fn after(before: &[BlockMeta]) -> Option<Self> {
        let first = before.first()?;
        let part = u32::try_from(before.len()).unwrap_or(u32::MAX);
        Some(Self { first: first.block_id, part, between: (first.start_time, first.end_time) })
    }
}

/// Notes in the metadata of a block what it has of traces that did not fit.
#[derive(Debug, Default)]
pub(crate) struct Split {
    continued: Option<Continued>,
    traces: Vec<(TraceId, u32)>,
    between: Option<(u64, u64)>,
}

impl Split {
    pub(crate) fn of(continued: Option<Continued>) -> Self {
        Self { continued, ..Self::default() }
    }

    /// Notes a trace of the block, of which this was left over.
    pub(crate) fn note(&mut self, trace: TraceId, leftover: &[Bytes]) {
        let part = self.continued.map_or(0, |continued| continued.part);
        if leftover.is_empty() && part == 0 {
            return;
        }
        self.traces.push((trace, part));
        for (start, end) in leftover.iter().filter_map(|part| between(part)) {
            let (first, last) = self.between.get_or_insert((start, end));
            (*first, *last) = ((*first).min(start), (*last).max(end));
        }
    }

    /// `received_ms`: of the first record of the block.
    pub(crate) fn finish(self, meta: &mut BlockMeta, received_ms: i64) {
        let first = self.continued.map_or(meta.block_id, |continued| continued.first);
        let split = self.traces.into_iter().map(|(trace, part)| SplitTrace { trace, first, part, received_ms });
        meta.split_traces.extend(split);
        let rest = self.between.map(|(start, end)| (Timestamp(start), Timestamp(end)));
        for (start, end) in rest.into_iter().chain(self.continued.map(|continued| continued.between)) {
            (meta.start_time, meta.end_time) = (meta.start_time.min(start), meta.end_time.max(end));
        }
    }
}

/// When the spans of a part are; none where it cannot be read, since nothing of it is written then.
fn between(part: &[u8]) -> Option<(u64, u64)> {
    let (mut start, mut end) = (u64::MAX, 0);
    for_each_span(part, |at| {
        let span = SpanHead::read(at.span)?;
        start = start.min(if span.start_unix_nano == 0 { u64::MAX } else { span.start_unix_nano });
        end = end.max(span.end_unix_nano);
        Ok::<_, WireError>(())
    })
    .ok()?;
    (start <= end).then_some((start, end))
}

#[cfg(test)]
pub(crate) mod tests;

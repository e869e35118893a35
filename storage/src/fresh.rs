//! Blocks of traces that come from the log: what a record can hold must not stop the block that it is in.
//!
//! A part of a trace that is no protobuf is left out and named; so is one that panics the encoder, for callers that ask for that
//! care after a panic. What is too large for one row comes back and goes into another block.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bytes::Bytes;
use vivace_protocol::TraceId;

use crate::{
    meta::{BlockMeta, Timestamp},
    split::Split,
    write::{BlockSpec, BlockWriter, Error, FinishedBlock},
};

/// When the records of a block were received, and how far behind the last a span may end.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Time of the first and the last record, unix milliseconds.
    pub between_ms: (i64, i64),
    /// Clocks of senders may be ahead by this.
    pub slack: Duration,
}

/// A part that is in no block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPart {
    /// Its trace.
    pub trace: TraceId,
    /// Which of the trace's parts.
    pub part: usize,
    /// Why, in words.
    pub reason: &'static str,
}

/// What became of some traces.
#[derive(Debug)]
pub struct EncodedBlock {
    /// None when nothing was left to write.
    pub block: Option<FinishedBlock>,
    /// Whole parts that did not fit their rows, by ascending id: for the next block.
    pub leftover: Vec<(TraceId, Vec<Bytes>)>,
    /// Parts left out for good.
    pub refused: Vec<RefusedPart>,
    /// Spans left out as an equal one was there.
    pub duplicates: u64,
    /// Attributes, events and links left out because their encoding is damaged.
    pub damaged: u64,
}

/// Encodes traces, by ascending id, as one block. `careful` tries every part alone first and survives panics; it costs a multiple
/// of the time.
///
/// # Errors
/// As [`BlockWriter`] without those of single parts.
pub fn encode_block<'a>(
    spec: BlockSpec,
    traces: impl IntoIterator<Item = (TraceId, &'a [Bytes])>,
    received: Received,
    careful: bool,
) -> Result<EncodedBlock, Error> {
    let mut encoded =
        EncodedBlock { block: None, leftover: Vec::new(), refused: Vec::new(), duplicates: 0, damaged: 0 };
    let mut split = Split::of(spec.continued);
    let mut writer = BlockWriter::new(spec.clone())?;
    for (id, parts) in traces {
        let added = if careful { Err(Error::Wire) } else { writer.add_trace(id.0, parts) };
        let added = match added {
            Ok(added) => added,
            Err(Error::Wire) => {
                let sound = sound_parts(&spec, id, parts, &mut encoded.refused)?;
                writer.add_trace(id.0, &sound)?
            }
            Err(error) => return Err(error),
        };
        encoded.duplicates += u64::try_from(added.duplicates).unwrap_or(u64::MAX);
        encoded.damaged += added.damaged;
        split.note(id, &added.leftover);
        if !added.leftover.is_empty() {
            encoded.leftover.push((id, added.leftover));
        }
    }
    encoded.block = match writer.finish() {
        Ok(mut block) => {
            split.finish(&mut block.meta, received.between_ms.0);
            clamp(&mut block.meta, received);
            Some(block)
        }
        Err(Error::Empty) => None,
        Err(error) => return Err(error),
    };
    Ok(encoded)
}

/// The parts that can be encoded, each tried in a block of its own.
fn sound_parts(
    spec: &BlockSpec,
    trace: TraceId,
    parts: &[Bytes],
    refused: &mut Vec<RefusedPart>,
) -> Result<Vec<Bytes>, Error> {
    let mut sound = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let tried = catch_unwind(AssertUnwindSafe(|| {
            BlockWriter::new(spec.clone())?.add_trace(trace.0, std::slice::from_ref(part)).map(drop)
        }));
        let reason = match tried {
            Ok(Ok(())) => {
                sound.push(part.clone());
                continue;
            }
            Ok(Err(Error::Wire)) => "it is not well-formed protobuf",
            Ok(Err(error)) => return Err(error),
            Err(_panic) => "it panics the encoder",
        };
        refused.push(RefusedPart { trace, part: number, reason });
    }
    Ok(sound)
}

/// Bounds of a block that neither hide spans nor fool retention: a span with an old time widens the block to the past, so
/// a search for that time reads it; the end lies within the time of receipt (plus the slack), so that retention counts
/// from receipt and a clock in the far future keeps nothing for ever.
fn clamp(meta: &mut BlockMeta, received: Received) {
    let ns = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
    let slack = u64::try_from(received.slack.as_nanos()).unwrap_or(u64::MAX);
    let (first, last) = received.between_ms;
    let end = meta.end_time.0.clamp(ns(first), ns(last.max(first)).saturating_add(slack));
    meta.end_time = Timestamp(end);
    meta.start_time = Timestamp(meta.start_time.0.min(end));
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::dedicated::DedicatedColumns;

    fn spec() -> BlockSpec {
        BlockSpec::new("t", Uuid::from_u128(1), DedicatedColumns::defaults())
    }

    fn received() -> Received {
        Received { between_ms: (5_000, 6_000), slack: Duration::from_secs(1) }
    }

    /// Field 1 of `Trace` with one empty span.
    const SOUND: &[u8] = &[0x0A, 4, 0x12, 2, 0x12, 0];

    #[test]
    fn a_part_that_cannot_be_read_is_named_and_the_others_are_written() {
        let sound = Bytes::from_static(SOUND);
        let broken = Bytes::from_static(&[0x0A, 200]);
        let id = |n: u128| TraceId(n.to_be_bytes());
        let first = [sound.clone(), broken.clone(), sound.clone()];
        let traces = [(id(1), &first[..]), (id(2), &first[1..2]), (id(3), &first[..1])];
        for careful in [false, true] {
            let encoded = encode_block(spec(), traces, received(), careful).unwrap();
            let refused: Vec<_> = encoded.refused.iter().map(|part| (part.trace, part.part)).collect();
            assert_eq!(refused, [(id(1), 1), (id(2), 0)]);
            assert_eq!(encoded.block.unwrap().meta.total_objects, 2, "careful: {careful}");
        }
        let none = encode_block(spec(), [(id(2), &first[1..2])], received(), false).unwrap();
        assert!(none.block.is_none() && none.refused.len() == 1);
    }

    #[test]
    fn a_block_ends_when_its_records_were_received() {
        let sound = [Bytes::from_static(SOUND)];
        let encoded = encode_block(spec(), [(TraceId([1; 16]), &sound[..])], received(), false).unwrap();
        let meta = encoded.block.unwrap().meta;
        assert_eq!(meta.end_time, Timestamp::from_secs(5));
        assert!(meta.start_time <= meta.end_time);
    }
}

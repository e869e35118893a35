//! Merges blocks column by column: entries are copied as they are, so that no trace is taken apart and put together again, and
//! memory holds a page of one column of each input at a time.
//!
//! Only traces that several inputs hold are read whole and joined; they are few where a block is cut once its traces are
//! complete. They become a small block of their own in memory, which is one more input.

use std::{cmp::Reverse, collections::BTreeMap, collections::BinaryHeap, hash::BuildHasher, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;
use vivace_protocol::TraceId;

use super::merge::{CompactSpec, Error};
use crate::{
    meta::Version,
    read::{self, ColumnRows, MemoryBlock, OpenBlock, RecordReader, RowSet, TraceIds},
    write::{BlockSpec, BlockWriter, FinishedBlock, LeafWriter, Numbers},
};

/// Traces held by several inputs beyond which merging row by row is the quicker way.
const MAX_SHARED: usize = 4096;
/// So are this many bytes of them, which are in memory at once.
const MAX_SHARED_BYTES: usize = 96 << 20;
/// Traces of each input that are measured: how large a row group becomes can only be estimated.
const SAMPLE: usize = 64;

/// Neighbouring rows of one input.
struct Run {
    input: usize,
    group: usize,
    first: u32,
    rows: u32,
}

/// Where a trace is: in the order of the ids, then of the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowAt {
    id: [u8; 16],
    input: usize,
    group: usize,
    row: u32,
}

/// Whether columns of the inputs can be copied into the output at all.
pub(super) fn fits(inputs: &[&OpenBlock], block: &BlockSpec) -> bool {
    inputs.iter().all(|input| input.meta().format == Version::V5 && input.meta().dedicated_columns == block.dedicated)
}

/// Merges inputs that [fit](fits); none when too much of them is held several times. Then nothing was handed to `spec.data`.
pub(super) fn merge(inputs: &[&OpenBlock], spec: &mut CompactSpec<'_>) -> Result<Option<FinishedBlock>, Error> {
    let Some(shared) = shared(inputs, spec)? else { return Ok(None) };
    let Some(joined) = join(inputs, &shared, &spec.block)? else { return Ok(None) };
    let own = inputs.len();
    let mut inputs = inputs.to_vec();
    inputs.extend(&joined);
    let per_row = inputs.iter().map(|input| bytes_per_row(input)).collect::<Result<Vec<_>, _>>()?;
    let mut writer = BlockWriter::new(spec.block.clone())?;
    let mut ids = MergedIds::new(&inputs)?;
    let (mut due, mut runs, mut bytes) = (Vec::new(), Vec::new(), 0);
    loop {
        let next = ids.next()?;
        if let Some(RowAt { id, input, group, row }) = next {
            let elsewhere = input < own && shared.contains_key(&id);
            if elsewhere || (spec.drop)(TraceId(id)) {
                continue;
            }
            due.push(id);
            bytes += per_row[input];
            push(&mut runs, input, group, row);
        }
        if bytes >= spec.block.row_group_bytes || (next.is_none() && !due.is_empty()) {
            let groups = std::mem::take(&mut runs);
            writer.add_columns(&due, |leaf, to| copy(&inputs, &groups, leaf, to, spec.go_on))?;
            writer.take_data().into_iter().for_each(&mut *spec.data);
            (bytes, due) = (0, Vec::new());
        }
        if next.is_none() {
            break;
        }
    }
    if writer.traces() == 0 {
        return Err(Error::Empty);
    }
    Ok(Some(writer.finish()?))
}

fn push(runs: &mut Vec<Run>, input: usize, group: usize, row: u32) {
    match runs.last_mut() {
        Some(last) if last.input == input && last.group == group && last.first + last.rows == row => last.rows += 1,
        _ => runs.push(Run { input, group, first: row, rows: 1 }),
    }
}

/// Copies one leaf of the rows.
fn copy(
    inputs: &[&OpenBlock],
    runs: &[Run],
    leaf: usize,
    to: &mut LeafWriter<'_>,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let mut columns = Vec::with_capacity(inputs.len());
    for input in inputs {
        columns.push(ColumnRows::new(input, leaf).map_err(|source| failed(input, source))?);
    }
    // Each row group has a dictionary of its own.
    let mut numbers: Vec<(usize, Numbers)> = vec![(usize::MAX, Vec::new()); inputs.len()];
    for (number, run) in runs.iter().enumerate() {
        if number % 1024 == 0 && !go_on() {
            return Err(Error::Cancelled);
        }
        let (group, numbers) = &mut numbers[run.input];
        if *group != run.group {
            *group = run.group;
            numbers.clear();
        }
        let end = run.first + run.rows;
        let mut row = run.first;
        while row < end {
            let stored = columns[run.input].at(run.group, row, end - row);
            let stored = stored.map_err(|source| failed(inputs[run.input], source))?;
            to.append(&stored, numbers)?;
            row += stored.rows;
        }
    }
    Ok(())
}

fn failed(input: &OpenBlock, source: read::Error) -> Error {
    Error::Read { block: input.meta().block_id, source }
}

/// About how many bytes the traces of the block have when they are encoded, by the first of them.
fn bytes_per_row(block: &OpenBlock) -> Result<u64, Error> {
    let (mut bytes, mut rows) = (0, 0);
    for row in read::rows(block).take(SAMPLE) {
        bytes += row.map_err(|source| failed(block, source))?.1.len() as u64;
        rows += 1;
    }
    Ok((bytes / rows.max(1)).max(1))
}

/// The ids that several inputs hold, with the places of each; none when they are too many.
type Shared = BTreeMap<[u8; 16], Vec<RowAt>>;

fn shared(inputs: &[&OpenBlock], spec: &CompactSpec<'_>) -> Result<Option<Shared>, Error> {
    let mut ids = MergedIds::new(inputs)?;
    let mut shared = Shared::new();
    let mut before: Option<RowAt> = None;
    while let Some(next) = ids.next()? {
        if let Some(first) = before.filter(|first| first.id == next.id && !(spec.drop)(TraceId(next.id))) {
            shared.entry(next.id).or_insert_with(|| vec![first]).push(next);
            if shared.len() > MAX_SHARED {
                return Ok(None);
            }
        }
        before = Some(next);
    }
    Ok(Some(shared))
}

/// A block of the shared traces, each joined from its parts; `Some(None)` when there are none, none when they are too large.
#[expect(clippy::option_option, reason = "nothing to join and too much to join are two things")]
fn join(inputs: &[&OpenBlock], shared: &Shared, block: &BlockSpec) -> Result<Option<Option<OpenBlock>>, Error> {
    if shared.is_empty() {
        return Ok(Some(None));
    }
    let mut wanted: BTreeMap<(usize, usize), RowSet> = BTreeMap::new();
    // Ids ascend, and with them the rows of each row group.
    for at in shared.values().flatten() {
        wanted.entry((at.input, at.group)).or_default().push(at.row);
    }
    let mut parts: BTreeMap<TraceId, Parts> = BTreeMap::new();
    let (mut bytes, prints) = (0, Prints::default());
    for ((input, group), rows) in wanted {
        let read = |source| failed(inputs[input], source);
        let mut records = RecordReader::new(inputs[input], group, Some(&rows)).map_err(read)?;
        for row in rows.iter() {
            records.seek(row).map_err(read)?;
            let Some((id, trace)) = records.next_row_in_pieces(PIECE).map_err(read)? else { continue };
            let known = parts.entry(id).or_default();
            let before = known.bytes;
            let part = if trace.iter().map(Bytes::len).sum::<usize>() > block.max_trace_bytes / LARGE {
                Part::There(prints.of(&trace), RowAt { id: id.0, input, group, row })
            } else {
                Part::Here(trace)
            };
            known.add(part);
            bytes += known.bytes - before;
            if known.bytes > block.max_trace_bytes {
                return Err(Error::TooLarge(id));
            }
            if bytes > MAX_SHARED_BYTES {
                return Ok(None);
            }
        }
    }
    let mut spec = BlockSpec::new(block.tenant.clone(), Uuid::nil(), block.dedicated.clone());
    spec.max_trace_bytes = usize::MAX;
    let mut writer = BlockWriter::new(spec)?;
    for (id, parts) in parts {
        let parts = parts.parts.into_iter().map(|part| part.read(inputs)).collect::<Result<Vec<_>, _>>()?.concat();
        if !writer.add_trace(id.0, &parts)?.leftover.is_empty() {
            return Err(Error::TooLarge(id));
        }
    }
    let finished = writer.finish()?;
    let data: Vec<u8> = finished.data.into_iter().flatten().collect();
    let nil = finished.meta.block_id;
    let opened = OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), Vec::new())));
    Ok(Some(Some(opened.map_err(|source| Error::Read { block: nil, source })?)))
}

/// A part of a trace that is larger than one of so many parts of the largest row is not kept in memory before it is known that the
/// trace fits one.
const LARGE: usize = 8;
/// Large rows are in memory in pieces of about this much.
pub(super) const PIECE: usize = 1 << 20;

/// The parts of a trace, copies left out: a row that came twice, as after a repeated flush, needs no look inside.
#[derive(Default)]
struct Parts {
    bytes: usize,
    parts: Vec<Part>,
}

enum Part {
    Here(Vec<Bytes>),
    There(Print, RowAt),
}

impl Parts {
    fn add(&mut self, part: Part) {
        if !self.parts.iter().any(|known| known.is_copy(&part)) {
            self.bytes += part.len();
            self.parts.push(part);
        }
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Here(pieces) => pieces.iter().map(Bytes::len).sum(),
            Self::There(print, _) => print.0,
        }
    }

    fn is_copy(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here(own), Self::Here(other)) => own == other,
            (Self::There(own, _), Self::There(other, _)) => own == other,
            _ => false,
        }
    }

    fn read(self, inputs: &[&OpenBlock]) -> Result<Vec<Bytes>, Error> {
        let at = match self {
            Self::Here(pieces) => return Ok(pieces),
            Self::There(_, at) => at,
        };
        let read = |source| failed(inputs[at.input], source);
        let rows = RowSet::one(at.row);
        let mut records = RecordReader::new(inputs[at.input], at.group, Some(&rows)).map_err(read)?;
        records.seek(at.row).map_err(read)?;
        Ok(records.next_row_in_pieces(PIECE).map_err(read)?.map(|(_, pieces)| pieces).unwrap_or_default())
    }
}

/// Length and hashes, which tell two texts apart.
type Print = (usize, u64, u64);

/// Makes prints. Nobody can foresee its hashes.
#[derive(Default)]
struct Prints(foldhash::quality::RandomState, foldhash::quality::RandomState);

impl Prints {
    /// Equal rows are cut into equal pieces.
    fn of(&self, pieces: &[Bytes]) -> Print {
        (pieces.iter().map(Bytes::len).sum(), self.0.hash_one(pieces), self.1.hash_one(pieces))
    }
}

/// The ids of several blocks in order, each with its input, row group and row; equal ids in the order of the inputs.
struct MergedIds<'a> {
    inputs: Vec<(Uuid, TraceIds<'a>)>,
    heads: BinaryHeap<Reverse<RowAt>>,
}

impl<'a> MergedIds<'a> {
    fn new(blocks: &[&'a OpenBlock]) -> Result<Self, Error> {
        let mut inputs = Vec::with_capacity(blocks.len());
        for block in blocks {
            inputs.push((block.meta().block_id, TraceIds::new(block).map_err(|source| failed(block, source))?));
        }
        let mut merged = Self { inputs, heads: BinaryHeap::with_capacity(blocks.len()) };
        (0..blocks.len()).try_for_each(|input| merged.pull(input))?;
        Ok(merged)
    }

    fn pull(&mut self, input: usize) -> Result<(), Error> {
        let (block, ids) = &mut self.inputs[input];
        let next = ids.next().map_err(|source| Error::Read { block: *block, source })?;
        self.heads.extend(next.map(|(id, group, row)| Reverse(RowAt { id, input, group, row })));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RowAt>, Error> {
        let Some(Reverse(next)) = self.heads.pop() else { return Ok(None) };
        self.pull(next.input)?;
        Ok(Some(next))
    }
}

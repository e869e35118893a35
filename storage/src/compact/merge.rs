//! One block out of several.
//!
//! Where the inputs have the same columns these are copied (see [`super::columns`]). Otherwise, and where many traces lie in several
//! inputs, rows come in the order of their ids from every input. Equal ids become one row: the writer joins the parts and drops the spans that
//! it has seen (same id, kind and start), so a trace that was stored twice, or in halves, is stored once and whole.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;
use uuid::Uuid;
use vivace_protocol::TraceId;

use super::columns::{self, PIECE};
use crate::{
    meta::Timestamp,
    read::{self, OpenBlock, Rows},
    split::SplitTrace,
    write::{self, BlockSpec, BlockWriter, FinishedBlock},
};

/// Why blocks were not merged. The inputs are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input can't be read. See [`read::Error::is_retryable`].
    #[error("read block {block}")]
    Read {
        /// The input.
        block: Uuid,
        /// The cause.
        #[source]
        source: read::Error,
    },
    /// The output can't be written.
    #[error("write compacted block")]
    Write(#[from] write::Error),
    /// Nothing to do: no input, or every trace was dropped.
    #[error("no trace is left")]
    Empty,
    /// A trace that several inputs hold in parts does not fit one row of [`BlockSpec::max_trace_bytes`], and dropping a part would
    /// lose spans: these inputs stay apart.
    #[error("trace {0} is too large for one row")]
    TooLarge(TraceId),
    /// The job was called off.
    #[error("cancelled")]
    Cancelled,
}

/// What the output is to be, beyond what follows from the inputs.
pub struct CompactSpec<'a> {
    /// Tenant, id, dedicated columns and sizes of the output. Level, times and replication factor are set from the inputs.
    pub block: BlockSpec,
    /// Traces for which this is true are left out (redaction).
    pub drop: &'a dyn Fn(TraceId) -> bool,
    /// Takes parts of the data object as they become final, for storing while merging.
    pub data: &'a mut dyn FnMut(Bytes),
    /// Asked between rows; false ends the work with [`Error::Cancelled`].
    pub go_on: &'a dyn Fn() -> bool,
}

/// Merges `inputs`. What [`CompactSpec::data`] has taken comes before [`FinishedBlock::data`].
///
/// # Errors
/// See [`Error`]; what was handed to `data` until then is to be thrown away.
pub fn compact(inputs: &[&OpenBlock], mut spec: CompactSpec<'_>) -> Result<FinishedBlock, Error> {
    let block = &mut spec.block;
    let metas = || inputs.iter().map(|input| input.meta());
    let start = metas().map(|meta| meta.start_time).min().ok_or(Error::Empty)?;
    let end = metas().map(|meta| meta.end_time).max().unwrap_or(start);
    block.compaction_level = metas().map(|meta| meta.compaction_level).max().unwrap_or(0).saturating_add(1);
    block.replication_factor = inputs.first().map_or(1, |input| input.meta().replication_factor);
    block.time_bounds = Some((Timestamp(0), Timestamp(u64::MAX)));
    let split = split_of(inputs, spec.drop)?;
    let copied = if columns::fits(inputs, block) { columns::merge(inputs, &mut spec)? } else { None };
    let mut finished = match copied {
        Some(finished) => finished,
        None => by_rows(inputs, spec)?,
    };
    // Spans with wild clocks were kept out of the inputs' times on purpose.
    (finished.meta.start_time, finished.meta.end_time) = (start, end);
    finished.meta.split_traces = split;
    Ok(finished)
}

/// The traces of which blocks that are no inputs hold further parts. Inputs that both hold parts of one stay apart: its parts were made
/// because they do not fit one row, and each has to stay in a block of its own.
fn split_of(inputs: &[&OpenBlock], drop: &dyn Fn(TraceId) -> bool) -> Result<Vec<SplitTrace>, Error> {
    let mut split: Vec<SplitTrace> = Vec::new();
    for input in inputs {
        let known = split.len();
        for part in &input.meta().split_traces {
            if split[..known].iter().any(|other| other.trace == part.trace) {
                return Err(Error::TooLarge(part.trace));
            }
            split.push(*part);
        }
    }
    split.retain(|part| !drop(part.trace));
    Ok(split)
}

/// Takes every trace apart and puts it together again.
fn by_rows(inputs: &[&OpenBlock], spec: CompactSpec<'_>) -> Result<FinishedBlock, Error> {
    let most = spec.block.max_trace_bytes;
    let mut block = spec.block;
    // A row is never cut here: what would be left over has no other block to go to.
    block.max_trace_bytes = usize::MAX;
    let mut writer = BlockWriter::new(block)?;
    let mut merge = Merge::new(inputs, most)?;
    while let Some((id, parts)) = merge.next()? {
        if !(spec.go_on)() {
            return Err(Error::Cancelled);
        }
        if (spec.drop)(id) {
            continue;
        }
        if !writer.add_trace(id.0, &parts)?.leftover.is_empty() {
            return Err(Error::TooLarge(id));
        }
        writer.take_data().into_iter().for_each(&mut *spec.data);
    }
    if writer.traces() == 0 {
        return Err(Error::Empty);
    }
    Ok(writer.finish()?)
}

/// Rows of several blocks in the order of their ids, equal ids together. A row is read when its turn has come: rows can be so large
/// that memory has no room for one of each input.
struct Merge<'a> {
    inputs: Vec<(Uuid, Rows<'a>)>,
    /// The id of the next row of each input: smallest first, then the order of the inputs.
    heads: BinaryHeap<Reverse<(TraceId, usize)>>,
    /// Most bytes of a trace in parts.
    most: usize,
}

impl<'a> Merge<'a> {
    fn new(blocks: &[&'a OpenBlock], most: usize) -> Result<Self, Error> {
        let inputs = blocks.iter().map(|block| (block.meta().block_id, read::rows(block))).collect();
        let mut merge = Self { inputs, heads: BinaryHeap::with_capacity(blocks.len()), most };
        (0..blocks.len()).try_for_each(|input| merge.pull(input))?;
        Ok(merge)
    }

    fn pull(&mut self, input: usize) -> Result<(), Error> {
        let (block, rows) = &mut self.inputs[input];
        let next = rows.next_id().map_err(|source| Error::Read { block: *block, source })?;
        self.heads.extend(next.map(|id| Reverse((id, input))));
        Ok(())
    }

    /// The next row of an input, in pieces.
    fn read(&mut self, input: usize) -> Result<Vec<Bytes>, Error> {
        let (block, rows) = &mut self.inputs[input];
        let row = rows.next_in_pieces(PIECE).map_err(|source| Error::Read { block: *block, source })?;
        Ok(row.map(|(_, pieces)| pieces).unwrap_or_default())
    }

    fn next(&mut self) -> Result<Option<(TraceId, Vec<Bytes>)>, Error> {
        let Some(Reverse((id, _))) = self.heads.peek().copied() else { return Ok(None) };
        let mut parts: Vec<Vec<Bytes>> = Vec::new();
        let mut bytes = 0;
        while let Some(Reverse((_, input))) = self.heads.peek().copied().filter(|Reverse((next, _))| *next == id) {
            self.heads.pop();
            let part = self.read(input)?;
            // A copy of the whole row, as after a repeated flush, needs no look inside.
            if !parts.contains(&part) {
                bytes += part.iter().map(Bytes::len).sum::<usize>();
                parts.push(part);
                if parts.len() > 1 && bytes > self.most {
                    return Err(Error::TooLarge(id));
                }
            }
            self.pull(input)?;
        }
        Ok(Some((id, parts.concat())))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use prost::Message;
    use vivace_protocol::otlp::trace::TracesData;

    use super::*;
    use crate::{
        dedicated::DedicatedColumns,
        read::{MemoryBlock, find_trace, rows, tests},
    };

    fn opened(finished: FinishedBlock, before: Vec<Bytes>) -> OpenBlock {
        let data: Vec<u8> = before.into_iter().chain(finished.data).flatten().collect();
        let blooms = finished.blooms.into_iter().enumerate();
        let objects = blooms.map(|(number, bloom)| (format!("bloom-{number}"), bloom)).collect();
        OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), objects))).unwrap()
    }

    fn merged(inputs: &[&OpenBlock], drop: &dyn Fn(TraceId) -> bool, row_group_bytes: u64) -> Result<OpenBlock, Error> {
        let mut block = BlockSpec::new("single-tenant", Uuid::from_u128(7), DedicatedColumns::defaults());
        block.row_group_bytes = row_group_bytes;
        let mut before = Vec::new();
        let mut data = |part| before.push(part);
        let finished = compact(inputs, CompactSpec { block, drop, data: &mut data, go_on: &|| true })?;
        Ok(opened(finished, before))
    }

    fn content(block: &OpenBlock) -> BTreeMap<TraceId, std::collections::BTreeSet<String>> {
        rows(block).flat_map(|row| tests::spans(&TracesData::decode(row.unwrap().1).unwrap().resource_spans)).collect()
    }

    #[test]
    fn equal_blocks_of_both_encodings_become_one_with_each_span_once() {
        let (new, old) = (tests::open_v5(), tests::open_v4());
        let out = merged(&[&new, &old], &|_| false, 20_000).unwrap();
        assert!(out.row_groups() > 3);
        assert_eq!(content(&out), content(&new));
        assert_eq!((out.meta().compaction_level, out.rows()), (1, new.rows()));
        assert_eq!((out.meta().start_time, out.meta().end_time), (new.meta().start_time, new.meta().end_time));
        for row in rows(&out) {
            let (id, trace) = row.unwrap();
            let spans = TracesData::decode(trace.clone()).unwrap();
            let count: usize =
                spans.resource_spans.iter().flat_map(|batch| &batch.scope_spans).map(|scope| scope.spans.len()).sum();
            assert_eq!(count, content(&new)[&id].len(), "no span is there twice");
            assert_eq!(find_trace(&out, id).unwrap(), Some(trace));
        }
    }

    #[test]
    fn halves_of_a_trace_are_joined() {
        let whole = tests::open_v5();
        let mut halves = Vec::new();
        for half in 0..2 {
            let block = BlockSpec::new("single-tenant", Uuid::from_u128(half), DedicatedColumns::defaults());
            let mut writer = BlockWriter::new(block).unwrap();
            for row in rows(&whole) {
                let (id, trace) = row.unwrap();
                let mut trace = TracesData::decode(trace).unwrap();
                for scope in trace.resource_spans.iter_mut().flat_map(|batch| &mut batch.scope_spans) {
                    let mut number = 0;
                    scope.spans.retain(|_| {
                        number += 1;
                        number % 2 == half
                    });
                }
                writer.add_trace(id.0, &[trace.encode_to_vec().into()]).unwrap();
            }
            halves.push(opened(writer.finish().unwrap(), Vec::new()));
        }
        let out = merged(&[&halves[0], &halves[1]], &|_| false, 1 << 30).unwrap();
        assert_eq!(content(&out), content(&whole));
    }

    /// Every entry of every leaf, row after row: levels and values, whatever the pages, dictionaries and row groups are.
    fn entries(block: &OpenBlock) -> Vec<Vec<String>> {
        let leaf = |leaf: usize| {
            let mut column = read::ColumnRows::new(block, leaf).unwrap();
            let mut entries = Vec::new();
            for group in 0..block.row_groups() {
                for row in 0..block.row_group(group).unwrap().rows {
                    let stored = column.at(group, row, 1).unwrap();
                    let span = stored.span.clone();
                    let levels = |levels: &read::Levels| levels.iter(span.entries.clone()).collect::<Vec<_>>();
                    let values: Vec<String> = span
                        .values
                        .clone()
                        .map(|at| match &stored.page.values {
                            read::StoredValues::Bytes(values) => format!("{:?}", values.get(at).unwrap()),
                            read::StoredValues::Ids(ids) => {
                                format!("{:?}", stored.dictionary.unwrap().get(ids.id(at).unwrap() as usize).unwrap())
                            }
                            read::StoredValues::Ints(ints) => ints.get(at).unwrap().to_string(),
                            read::StoredValues::Doubles(doubles) => format!("{:?}", doubles[at]),
                            read::StoredValues::Bools(bools) => bools[at].to_string(),
                        })
                        .collect();
                    entries.push(format!("{:?} {:?} {values:?}", levels(&stored.page.rep), levels(&stored.page.def)));
                }
            }
            entries
        };
        (0..block.schema().leaves().len()).map(leaf).collect()
    }

    /// Blocks with every third trace each, of which some are whole in several blocks and some in halves.
    fn overlapping() -> Vec<OpenBlock> {
        let whole = tests::open_v5();
        let mut inputs = Vec::new();
        for input in 0..3 {
            let mut block = BlockSpec::new("single-tenant", Uuid::from_u128(input), DedicatedColumns::defaults());
            (block.row_group_bytes, block.page_entries) = (30_000, 50);
            let mut writer = BlockWriter::new(block).unwrap();
            for (number, row) in (0u128..).zip(rows(&whole)) {
                let (id, trace) = row.unwrap();
                let mut trace = TracesData::decode(trace).unwrap();
                if number % 20 == 1 {
                    for scope in trace.resource_spans.iter_mut().flat_map(|batch| &mut batch.scope_spans) {
                        let mut span = 0;
                        scope.spans.retain(|_| {
                            span += 1;
                            span % 3 == input
                        });
                    }
                } else if number % 3 != input && number % 20 != 0 {
                    continue;
                }
                writer.add_trace(id.0, &[trace.encode_to_vec().into()]).unwrap();
            }
            inputs.push(opened(writer.finish().unwrap(), Vec::new()));
        }
        inputs
    }

    #[test]
    fn copying_columns_gives_what_merging_rows_gives() {
        let whole = tests::open_v5();
        let inputs = overlapping();
        let inputs: Vec<&OpenBlock> = inputs.iter().collect();
        assert!(inputs.iter().all(|input| input.row_groups() > 1));
        let gone = rows(&whole).nth(5).unwrap().unwrap().0;
        for row_group_bytes in [20_000, 1 << 30] {
            let mut block = BlockSpec::new("single-tenant", Uuid::from_u128(7), DedicatedColumns::defaults());
            (block.row_group_bytes, block.max_trace_bytes, block.page_entries) = (row_group_bytes, usize::MAX, 70);
            let merged = |by_columns: bool| {
                let mut before = Vec::new();
                let mut data = |part| before.push(part);
                let drop = |id| id == gone;
                let mut spec = CompactSpec { block: block.clone(), drop: &drop, data: &mut data, go_on: &|| true };
                let finished = if by_columns {
                    assert!(columns::fits(&inputs, &block));
                    columns::merge(&inputs, &mut spec).unwrap().unwrap()
                } else {
                    by_rows(&inputs, spec).unwrap()
                };
                opened(finished, before)
            };
            let (copied, rewritten) = (merged(true), merged(false));
            assert_eq!(copied.rows(), whole.rows() - 1);
            assert_eq!(copied.row_groups() > 1, row_group_bytes == 20_000);
            for ((copied, rewritten), leaf) in
                entries(&copied).iter().zip(entries(&rewritten)).zip(copied.schema().leaves())
            {
                assert_eq!(*copied, rewritten, "{}", leaf.path);
            }
            for row in rows(&copied) {
                let (id, trace) = row.unwrap();
                assert_eq!(find_trace(&copied, id).unwrap(), Some(trace));
            }
        }
    }

    fn spec<'a>(block: &BlockSpec, data: &'a mut dyn FnMut(Bytes)) -> CompactSpec<'a> {
        CompactSpec { block: block.clone(), drop: &|_| false, data, go_on: &|| true }
    }

    /// Whichever way it is merged, a trace never becomes a row that is too large for those who write and read it.
    #[test]
    fn a_trace_whose_parts_do_not_fit_one_row_keeps_its_blocks_apart() {
        let inputs = overlapping();
        let inputs: Vec<&OpenBlock> = inputs.iter().collect();
        let mut block = BlockSpec::new("single-tenant", Uuid::from_u128(7), DedicatedColumns::defaults());
        block.max_trace_bytes = 1500;
        let mut taken = 0;
        let mut data = |_| taken += 1;
        assert!(matches!(columns::merge(&inputs, &mut spec(&block, &mut data)), Err(Error::TooLarge(_))));
        assert!(matches!(by_rows(&inputs, spec(&block, &mut data)), Err(Error::TooLarge(_))));
        // A row that is large in one block alone is no obstacle.
        let one = compact(&inputs[..1], spec(&block, &mut data)).unwrap();
        assert_eq!(one.meta.total_objects, inputs[0].rows());
    }

    #[test]
    fn large_parts_of_a_trace_that_fits_one_row_are_joined() {
        let inputs = overlapping();
        let inputs: Vec<&OpenBlock> = inputs.iter().collect();
        let sizes = inputs.iter().flat_map(|input| rows(input)).map(|row| row.unwrap().1.len());
        let mut block = BlockSpec::new("single-tenant", Uuid::from_u128(7), DedicatedColumns::defaults());
        // Room for all, and less than eight times the larger ones.
        block.max_trace_bytes = sizes.max().unwrap() * 3;
        let mut before = Vec::new();
        let finished = columns::merge(&inputs, &mut spec(&block, &mut |part| before.push(part))).unwrap().unwrap();
        let plain = merged(&inputs, &|_| false, 1 << 30).unwrap();
        assert_eq!(content(&opened(finished, before)), content(&plain));
    }

    #[test]
    fn a_merge_that_is_called_off_stops() {
        let inputs = overlapping();
        let block = BlockSpec::new("single-tenant", Uuid::from_u128(7), DedicatedColumns::defaults());
        let spec = CompactSpec { block, drop: &|_| false, data: &mut |_| {}, go_on: &|| false };
        assert!(matches!(compact(&inputs.iter().collect::<Vec<_>>(), spec), Err(Error::Cancelled)));
    }

    #[test]
    fn dropped_traces_are_gone_and_dropping_all_is_an_error() {
        let whole = tests::open_v5();
        let (gone, _) = rows(&whole).next().unwrap().unwrap();
        let out = merged(&[&whole], &|id| id == gone, 1 << 30).unwrap();
        assert_eq!(out.rows(), whole.rows() - 1);
        assert!(!content(&out).contains_key(&gone));
        assert!(matches!(merged(&[&whole], &|_| true, 1 << 30), Err(Error::Empty)));
        assert!(matches!(merged(&[], &|_| false, 1 << 30), Err(Error::Empty)));
    }
}

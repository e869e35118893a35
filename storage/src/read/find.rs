//! A trace by its id: bloom filter, row group, row, and then only the pages of that row.

use std::ops::RangeInclusive;

use bytes::Bytes;
use vivace_protocol::TraceId;

use super::{
    block::OpenBlock,
    chunk::ChunkReader,
    error::{Error, Result},
    footer,
    record::{RecordReader, trace_id},
    rows::RowSet,
    starts::ANY_START,
    values::Values,
};
use crate::bloom::{self, shard_of};

/// The trace with this id as an encoded `tempopb.Trace`, none when the block does not have it.
///
/// # Errors
/// A missing bloom object is an error, not "no": answering "not found" without having looked would be a lie.
pub fn find_trace(block: &OpenBlock, id: TraceId) -> Result<Option<Bytes>> {
    locate_trace(block, id)?.map(|row| read_trace(block, row)).transpose()
}

/// Where a trace is in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceRow {
    id: TraceId,
    pub(super) group: usize,
    pub(super) row: u32,
}

/// Finds the row of a trace without reading it: a few pages of one column. For who wants to read large rows one by one.
pub fn locate_trace(block: &OpenBlock, id: TraceId) -> Result<Option<TraceRow>> {
    if !may_contain(block, id)? {
        return Ok(None);
    }
    for group in 0..block.row_groups() {
        if let Some(row) = find_row(block, group, id)? {
            return Ok(Some(TraceRow { id, group, row }));
        }
    }
    Ok(None)
}

/// The trace of a row of the same block.
pub fn read_trace(block: &OpenBlock, row: TraceRow) -> Result<Bytes> {
    // In one piece.
    Ok(read_trace_in_pieces(block, row, usize::MAX, ANY_START)?.pop().unwrap_or_default())
}

/// The spans of a row of the same block that start in `starts`, in pieces of about `most` bytes, cut between spans: each is a
/// `tempopb.Trace`, and together they are the trace, or what is wanted of it. A piece is memory of its own.
pub fn read_trace_in_pieces(
    block: &OpenBlock,
    TraceRow { id, group, row }: TraceRow,
    most: usize,
    starts: RangeInclusive<u64>,
) -> Result<Vec<Bytes>> {
    let mut records = RecordReader::new(block, group, Some(&RowSet::one(row)))?.starting_in(starts);
    records.seek(row)?;
    match records.next_row_in_pieces(most)? {
        Some((found, pieces)) if found == id => Ok(pieces),
        _ => Err(Error::malformed("row", "another trace than its id column says")),
    }
}

/// Asks the bloom filter only.
pub fn may_contain(block: &OpenBlock, id: TraceId) -> Result<bool> {
    let shard = shard_of(id.as_bytes(), block.meta().bloom_shard_count());
    let name = format!("bloom-{shard}");
    let missing = || Error::Missing(name.clone());
    let broken = || Error::malformed("bloom filter", "not readable");
    // Seven bits decide; a shard is a hundred kilobytes.
    let header = block.objects().object_parts(&name, &[bloom::HEADER])?.ok_or_else(missing)?;
    let header = header.first().ok_or_else(broken)?;
    let probes = bloom::probes(header, id.as_bytes()).map_err(|_invalid| broken())?;
    let ranges: Vec<_> = probes.iter().map(|(range, _)| range.clone()).collect();
    let bytes = block.objects().object_parts(&name, &ranges)?.ok_or_else(missing)?;
    Ok(probes.iter().zip(&bytes).all(|((_, mask), byte)| byte.first().is_some_and(|byte| byte & mask != 0)))
}

/// The row of `id` within a row group.
fn find_row(block: &OpenBlock, group: usize, id: TraceId) -> Result<Option<u32>> {
    let leaf = block.schema().columns().trace.trace_id;
    let row_group = block.row_group(group)?;
    let Some(chunk) = row_group.chunks.get(leaf) else { return Ok(None) };
    let wanted = id.as_bytes().as_slice();
    // Bounds may be truncated below, never above what they bound, when they have all sixteen bytes.
    if let Some((low, high)) = &chunk.bounds
        && (**low > *wanted || (high.len() == 16 && **high < *wanted))
    {
        return Ok(None);
    }
    let rows = candidate_pages(block, group, leaf, wanted)?;
    let mut reader = ChunkReader::new(block, group, leaf, rows.as_ref())?;
    while let Some(page) = reader.next_page()? {
        let dictionary = reader.byte_dictionary();
        let value = |index: usize| match &page.values {
            Values::Bytes(values) => values.get(index),
            Values::Ids(ids) => ids.id(index).and_then(|entry| dictionary?.get(super::values::to_usize(entry))),
            Values::Ints(_) | Values::Doubles(_) | Values::Bools(_) => None,
        };
        let len = page.values.len();
        // Ids ascend, so a page that ends below the wanted one is passed at once.
        if len == 0 || value(len - 1).is_none_or(|last| trace_id(last) < id) {
            continue;
        }
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low.midpoint(high);
            if value(middle).is_some_and(|found| trace_id(found) < id) { low = middle + 1 } else { high = middle }
        }
        if value(low).is_some_and(|found| trace_id(found) == id) {
            return Ok(u32::try_from(low).ok().and_then(|low| page.first_row.checked_add(low)));
        }
        return Ok(None);
    }
    Ok(None)
}

/// Rows of the pages whose bounds admit `wanted`, none when the file does not say.
fn candidate_pages(block: &OpenBlock, group: usize, leaf: usize, wanted: &[u8]) -> Result<Option<RowSet>> {
    let row_group = block.row_group(group)?;
    let Some(chunk) = row_group.chunks.get(leaf) else { return Ok(None) };
    let Some((offset, len)) = chunk.column_index.filter(|_| chunk.pages.len() > 1) else { return Ok(None) };
    let index = block.data().read(offset..offset + u64::from(len))?;
    let bounds = footer::page_bounds(&index)?;
    if bounds.len() != chunk.pages.len() {
        return Ok(None);
    }
    let mut rows = RowSet::default();
    for (page, bounds) in bounds.iter().enumerate() {
        let admits =
            bounds.as_ref().is_none_or(|(low, high)| **low <= *wanted && (high.len() < 16 || **high >= *wanted));
        if admits {
            let end = chunk.pages.get(page + 1).map_or(row_group.rows, |next| next.first_row);
            rows.push_range(chunk.pages[page].first_row..end);
        }
    }
    Ok(Some(rows))
}

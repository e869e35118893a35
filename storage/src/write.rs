//! Writes a block: encoded traces in, objects out, without building a span on the way.
//!
//! ```text
//! parts of a trace ──► trace: slices of spans ──► shredder ──► nodes: levels + values per leaf ──► pages ──► chunks
//!  (encoded slices)     (doubles dropped,         (nested sets,    (strings as dictionary numbers)   (zstd)   footer,
//!                        equal resources joined)   root, stats)                                               blooms
//! ```
//! Every page is encoded as soon as it is large enough, so what a row group holds in memory is its compressed pages, its
//! dictionaries and one page of raw values a leaf. Finished row groups can be taken away while writing goes on.
//!
//! What Tempo's reader demands and a Parquet library's defaults would break is kept by construction: exactly Tempo's
//! leaves, PLAIN booleans, one encoding for all pages of a chunk, no empty page, pages that begin with a row, no column
//! index where lists are, plain trace ids, ascending unique rows.

mod any_value;
mod attributes;
mod chunk;
mod columns;
mod compressor;
mod delta;
mod dictionary;
mod footer;
mod hybrid;
mod keys;
mod nested_set;
mod node;
mod page_header;
mod rare;
mod row_group;
mod shredder;
mod trace;
mod values;
mod varint;
mod wire;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    bloom::{self, Bloom},
    dedicated::DedicatedColumns,
    index::RowGroupIndex,
    meta::{BlockMeta, Timestamp, Version},
    schema::Schema,
    split::Continued,
};
pub(crate) use columns::{LeafWriter, Numbers};
use footer::Footer;
pub(crate) use nested_set::{NestedSet, Numbers as Position, Place};
use node::PageRoom;
use row_group::RowGroup;
use shredder::Shredder;
use trace::Trace;

/// Row groups end here whatever was configured: offsets into a dictionary have 32 bits.
const MAX_ROW_GROUP_BYTES: u64 = 512 * 1024 * 1024;
/// So do rows.
const MAX_TRACE_BYTES: usize = 512 * 1024 * 1024;

/// Why a trace was not added or a block not finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part is no encoded trace. The writer is as it was before, the trace is to be left out or quarantined.
    #[error("part of a trace is not well-formed protobuf")]
    Wire,
    /// Rows have to ascend by trace id, each id once. A bug of the caller; the writer is as it was before.
    #[error("trace {id:032x} does not come after {previous:032x}")]
    Order {
        /// What was to be added.
        id: u128,
        /// The row before.
        previous: u128,
    },
    /// Nothing was added: an empty block must not be stored. Expected when all traces were refused.
    #[error("block has no traces")]
    Empty,
    /// A page cannot be larger than 2 GiB; the block has to be given up. Bounded rows never get there.
    #[error("page of {0} bytes")]
    PageSize(usize),
    /// The compressor failed, for want of memory; the block has to be given up.
    #[error("compress page")]
    Compress(#[source] std::io::Error),
    /// The footer could not be made, a bug; the block has to be given up.
    #[error("write footer")]
    Footer(#[from] parquet::errors::ParquetError),
}

/// What a block is to be.
#[derive(Debug, Clone)]
pub struct BlockSpec {
    /// Tenant id.
    pub tenant: String,
    /// Block id, also the folder's name.
    pub block_id: Uuid,
    /// Columns of their own for these attributes; the order is data.
    pub dedicated: DedicatedColumns,
    /// A row group ends with the row that brings the encoded traces in it to this size. Row groups are the unit of
    /// search jobs; larger ones hold more in memory while they are written (about a quarter of this). At most 512 MiB.
    pub row_group_bytes: u64,
    /// A page ends with the row that brings the largest waiting page of its group to this size before compression.
    /// Smaller pages make looking up one trace cheaper and the block larger.
    pub page_bytes: usize,
    /// A page ends at the latest with the row that brings its group to this many entries: levels pack so well that columns
    /// with few values would have no other end, and looking up one trace decodes the levels of a page of each column.
    pub page_entries: usize,
    /// At most this much of a trace's parts goes into its row; the rest is handed back. At most 512 MiB.
    pub max_trace_bytes: usize,
    /// Bits of one bloom shard in bytes, and the share of absent ids it lets through.
    pub bloom: BloomSpec,
    /// Earliest and latest instant for the metadata's times: spans with wild clocks must not stretch a block over all
    /// of time. None takes them as they are.
    pub time_bounds: Option<(Timestamp, Timestamp)>,
    /// 0 for fresh blocks.
    pub compaction_level: u32,
    /// 1 for what Vivace writes.
    pub replication_factor: u32,
    /// What the block goes on with; none for a block that begins its traces.
    pub continued: Option<Continued>,
}

/// Size and sharpness of the bloom filters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BloomSpec {
    /// Size of a shard's bits in bytes.
    pub shard_bytes: usize,
    /// Share of absent ids that a shard does not exclude, in (0, 1).
    pub false_positives: f64,
}

impl BlockSpec {
    /// A fresh block with the usual sizes: row groups of 100 MB, pages of 256 KiB, rows of 32 MiB.
    pub fn new(tenant: impl Into<String>, block_id: Uuid, dedicated: DedicatedColumns) -> Self {
        Self {
            tenant: tenant.into(),
            block_id,
            dedicated,
            row_group_bytes: 100_000_000,
            page_bytes: 256 * 1024,
            page_entries: 16 * 1024,
            // Whoever writes, reads, searches or merges a row has several times this in memory.
            max_trace_bytes: 32 * 1024 * 1024,
            bloom: BloomSpec { shard_bytes: bloom::SHARD_BYTES, false_positives: bloom::FALSE_POSITIVES },
            time_bounds: None,
            compaction_level: 0,
            replication_factor: 1,
            continued: None,
        }
    }
}

/// Everything that makes up a block, ready to be stored: data, blooms and index first, `meta` last.
#[derive(Debug, Clone)]
pub struct FinishedBlock {
    /// Content of `meta.json`.
    pub meta: BlockMeta,
    /// What is left of `data.parquet` after the parts that [`BlockWriter::take_data`] gave away.
    pub data: Vec<Bytes>,
    /// `bloom-0`, `bloom-1`, …
    pub blooms: Vec<Bytes>,
    /// `index`.
    pub index: Bytes,
}

/// What became of a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddedTrace {
    /// Spans in the row.
    pub spans: usize,
    /// Spans left out as an equal one (id, kind, start) was there.
    pub duplicates: usize,
    /// Attributes, events and links left out because their encoding is damaged inside an otherwise sound span.
    pub damaged: u64,
    /// Whole parts that did not fit the row: not in this block, to be put into another.
    pub leftover: Vec<Bytes>,
}

/// Builds one block in memory; does no IO and never blocks, but computes: a trace takes some microseconds a span.
#[derive(Debug)]
pub struct BlockWriter {
    spec: BlockSpec,
    schema: Schema,
    trace: Trace<'static>,
    shredder: Shredder,
    group: RowGroup,
    room: PageRoom,
    footer: Footer,
    ids: Vec<[u8; 16]>,
    index: RowGroupIndex,
    group_bytes: u64,
    start: u64,
    end: u64,
}

impl BlockWriter {
    /// An empty block.
    ///
    /// # Errors
    /// Only if the compressor gets no memory.
    pub fn new(spec: BlockSpec) -> Result<Self, Error> {
        let schema = Schema::v5(&spec.dedicated);
        Ok(Self {
            shredder: Shredder::new(&spec.dedicated),
            group: RowGroup::new(&schema),
            room: PageRoom::new(spec.page_entries)?,
            footer: Footer::default(),
            trace: Trace::default(),
            ids: Vec::new(),
            index: RowGroupIndex::default(),
            group_bytes: 0,
            start: u64::MAX,
            end: 0,
            schema,
            spec,
        })
    }

    /// Adds the next row. `parts` are encoded messages whose field 1 repeats OTLP `ResourceSpans` (`tempopb.Trace`, also
    /// `TracesData`), all of the trace `id`; ids ascend from call to call. Parts beyond the row's limit come back; the
    /// first is taken whatever its size, so that every call makes progress. Parts without a span make no row.
    pub fn add_trace(&mut self, id: [u8; 16], parts: &[Bytes]) -> Result<AddedTrace, Error> {
        if let Some(previous) = self.ids.last().filter(|previous| **previous >= id) {
            let previous = u128::from_be_bytes(*previous);
            return Err(Error::Order { id: u128::from_be_bytes(id), previous });
        }
        let (taken, leftover) = parts.split_at(self.parts_that_fit(parts));
        let mut trace = std::mem::take(&mut self.trace).recycle();
        for part in taken {
            trace.read(part)?;
        }
        if trace.spans.is_empty() {
            self.trace = trace.recycle();
            return Ok(AddedTrace { leftover: leftover.to_vec(), ..AddedTrace::default() });
        }
        trace.settle();
        let summary = self.shredder.put(&id, &trace, &mut self.group);
        let added = AddedTrace {
            spans: trace.spans.len(),
            duplicates: trace.duplicates,
            damaged: summary.damaged_attributes,
            leftover: leftover.to_vec(),
        };
        self.trace = trace.recycle();

        self.ids.push(id);
        self.start = self.start.min(if summary.start == 0 { u64::MAX } else { summary.start });
        self.end = self.end.max(summary.end);
        self.group_bytes += taken.iter().map(|part| part.len() as u64).sum::<u64>();
        self.group.end_row(&self.spec, &mut self.room)?;
        if self.group_bytes >= self.spec.row_group_bytes.min(MAX_ROW_GROUP_BYTES) {
            self.cut_row_group()?;
        }
        Ok(added)
    }

    fn parts_that_fit(&self, parts: &[Bytes]) -> usize {
        let mut total = 0;
        let fitting = parts.iter().take_while(|part| {
            total += part.len();
            total <= self.spec.max_trace_bytes.min(MAX_TRACE_BYTES)
        });
        fitting.count().max(1).min(parts.len())
    }

    fn cut_row_group(&mut self) -> Result<(), Error> {
        let Some(last) = self.ids.last() else { return Ok(()) };
        self.index.last_ids.push(*last);
        let rows = self.group.rows;
        let chunks = self.group.close(&self.schema, self.footer.position(), &mut self.room)?;
        self.footer.add_row_group(&self.schema, rows, chunks)?;
        self.shredder.reset();
        self.group_bytes = 0;
        Ok(())
    }

    /// Rows so far.
    pub fn traces(&self) -> usize {
        self.ids.len()
    }

    /// Bytes of `data.parquet` so far, without what waits for the end of its page.
    pub fn stored_bytes(&mut self) -> u64 {
        self.footer.position() + self.group.finished_bytes() as u64
    }

    /// Takes what is final of `data.parquet`: the row groups finished since the last call, in order. For streaming a
    /// block of many row groups to the store while it is written.
    pub fn take_data(&mut self) -> Vec<Bytes> {
        self.footer.take_data()
    }

    /// Ends the block.
    ///
    /// # Errors
    /// [`Error::Empty`] if no trace was added.
    pub fn finish(mut self) -> Result<FinishedBlock, Error> {
        if self.ids.is_empty() {
            return Err(Error::Empty);
        }
        if self.group.rows > 0 {
            self.cut_row_group()?;
        }
        let mut bloom =
            Bloom::with_shards_of(self.ids.len() as u64, self.spec.bloom.shard_bytes, self.spec.bloom.false_positives);
        self.ids.iter().for_each(|id| bloom.add(id));
        let (low, high) = self.spec.time_bounds.unwrap_or((Timestamp(0), Timestamp(u64::MAX)));
        let within = |nanos: u64| Timestamp(nanos).max(low).min(high);
        let start_time = within(if self.start == u64::MAX { self.end } else { self.start });
        let total_records = u32::try_from(self.index.last_ids.len()).unwrap_or(u32::MAX);
        let footer_size = self.footer.finish(&self.schema)?;
        let meta = BlockMeta {
            format: Version::V5,
            block_id: self.spec.block_id,
            tenant_id: self.spec.tenant,
            start_time,
            end_time: within(self.end).max(start_time),
            total_objects: self.ids.len() as u64,
            size: self.footer.position(),
            compaction_level: self.spec.compaction_level,
            index_page_size: 0,
            total_records,
            bloom_shards: bloom.shard_count(),
            footer_size,
            dedicated_columns: self.spec.dedicated,
            replication_factor: self.spec.replication_factor,
            split_traces: Vec::new(),
        };
        let data = self.footer.take_data();
        Ok(FinishedBlock { meta, data, blooms: bloom.to_objects(), index: Bytes::from(self.index.to_json()) })
    }
}

#[cfg(test)]
mod tests;

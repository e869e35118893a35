//! The file around the chunks: magic bytes, row groups, page indexes, footer.

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use parquet::file::{
    metadata::{
        ColumnIndexBuilder, FileMetaData, KeyValue, OffsetIndexBuilder, ParquetMetaDataBuilder, ParquetMetaDataWriter,
        RowGroupMetaData, page_index::PageIndexBuilder,
    },
    writer::TrackedWrite,
};

use super::{Error, chunk::ClosedChunk};
use crate::{read::rare, schema::Schema};

const MAGIC: &[u8; 4] = b"PAR1";
/// Length of the footer's own length and the magic bytes.
const TAIL_BYTES: u64 = 8;
/// Format version that Tempo's files carry too.
const FORMAT_VERSION: i32 = 2;

type Indexes = Vec<(OffsetIndexBuilder, Option<ColumnIndexBuilder>)>;

/// See the module.
#[derive(Default)]
pub(super) struct Footer {
    data: Vec<Bytes>,
    position: u64,
    row_groups: Vec<RowGroupMetaData>,
    indexes: Vec<Indexes>,
    /// Where it is noted which rows rare values are in, a line for each chunk.
    rare: Vec<String>,
    rows: u64,
}

impl std::fmt::Debug for Footer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Footer").field("position", &self.position).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Footer {
    /// Where the next row group begins.
    pub(super) fn position(&self) -> u64 {
        self.position.max(MAGIC.len() as u64)
    }

    pub(super) fn take_data(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.data)
    }

    fn append(&mut self, bytes: Vec<u8>) {
        self.position += bytes.len() as u64;
        if !bytes.is_empty() {
            self.data.push(Bytes::from(bytes));
        }
    }

    /// Appends a closed row group, whose offsets were counted from [`Self::position`].
    pub(super) fn add_row_group(&mut self, schema: &Schema, rows: u64, chunks: Vec<ClosedChunk>) -> Result<(), Error> {
        if self.position == 0 {
            self.append(MAGIC.to_vec());
        }
        let start = self.position;
        let mut columns = Vec::with_capacity(chunks.len());
        let mut indexes = Indexes::with_capacity(chunks.len());
        for (leaf, chunk) in chunks.into_iter().enumerate() {
            self.append(chunk.dictionary_page);
            self.append(chunk.pages);
            if !chunk.rare.is_empty() {
                let (group, at) = (self.row_groups.len(), self.position);
                self.rare.push(format!("{group} {leaf} {at} {}", chunk.rare.len()));
                self.append(chunk.rare);
            }
            columns.push(chunk.metadata);
            indexes.push((chunk.offset_index, chunk.column_index));
        }
        let bytes = columns.iter().map(|column| column.uncompressed_size()).sum();
        let group = RowGroupMetaData::builder(schema.descriptor().clone())
            .set_num_rows(signed(rows))
            .set_total_byte_size(bytes)
            .set_column_metadata(columns)
            .set_ordinal(i32::try_from(self.row_groups.len()).unwrap_or(i32::MAX))
            .set_file_offset(signed(start))
            .build()?;
        self.row_groups.push(group);
        self.indexes.push(indexes);
        self.rows += rows;
        Ok(())
    }

    /// Appends page indexes and footer. Returns the footer's length as `meta.json` wants it.
    pub(super) fn finish(&mut self, schema: &Schema) -> Result<u32, Error> {
        let (groups, columns) = (self.row_groups.len(), schema.leaves().len());
        let mut page_index = PageIndexBuilder::new(groups, columns);
        for (group, indexes) in std::mem::take(&mut self.indexes).into_iter().enumerate() {
            for (column, (offset_index, column_index)) in indexes.into_iter().enumerate() {
                page_index.put_offset_index(offset_index.build(), group, column);
                if let Some(column_index) = column_index {
                    page_index.put_column_index(column_index.build()?, group, column);
                }
            }
        }
        let created_by = format!("vivace version {}", env!("CARGO_PKG_VERSION"));
        let descriptor = schema.descriptor().clone();
        let rare = std::mem::take(&mut self.rare);
        let own = (!rare.is_empty()).then(|| vec![KeyValue::new(rare::KEY.to_owned(), rare.join("\n"))]);
        let file = FileMetaData::new(FORMAT_VERSION, signed(self.rows), Some(created_by), own, descriptor, None);
        let metadata = ParquetMetaDataBuilder::new(file)
            .set_row_groups(std::mem::take(&mut self.row_groups))
            .set_page_index(Some(Arc::new(page_index.build())))
            .build();
        let mut tail = Vec::new();
        let mut tracked = TrackedWrite::new(After { skip: self.position, out: &mut tail });
        skip_to(self.position, &mut tracked)?;
        ParquetMetaDataWriter::new_with_tracked(tracked, &metadata).finish()?;
        let length = tail.len().checked_sub(8).and_then(|at| tail[at..].first_chunk::<4>().copied());
        let footer = u32::from_le_bytes(length.expect("the writer ends with a length and the magic bytes"));
        debug_assert!(u64::from(footer) + TAIL_BYTES <= tail.len() as u64);
        self.append(tail);
        Ok(footer)
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).expect("no file reaches 8 EiB")
}

/// A sink that drops what stands before the footer: the offsets inside the page indexes' metadata count from the
/// beginning of the file, and the metadata writer knows only how much was written through it.
struct After<'a> {
    skip: u64,
    out: &'a mut Vec<u8>,
}

impl Write for After<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let dropped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= dropped as u64;
        self.out.extend_from_slice(&bytes[dropped..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn skip_to(position: u64, tracked: &mut TrackedWrite<After<'_>>) -> Result<(), Error> {
    static STEP: [u8; 1 << 16] = [0; 1 << 16];
    let mut left = position;
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(STEP.len());
        tracked.write_all(&STEP[..step]).map_err(parquet::errors::ParquetError::from)?;
        left -= step as u64;
    }
    Ok(())
}

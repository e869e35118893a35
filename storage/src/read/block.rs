//! A block that is open for reading: its metadata, its schema and the reduced footer. Cheap to keep, safe to share.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    error::{Error, Result},
    footer::{self, FileLeaf, Footer, RowGroup},
    page::LeafShape,
    ranges::{BlockObjects, Ranges},
    source::{BlockParts, Decoded},
    values::Physical,
};
use crate::{
    meta::BlockMeta,
    schema::{LeafType, Schema},
};

/// Footer and indexes above this are refused: a block of 100 row groups has some 2 MB.
const MAX_FOOTER: u64 = 256 << 20;
/// Bytes read at the end of a file whose footer length is not known.
const FOOTER_GUESS: u64 = 64 << 10;
const MAGIC: &[u8; 4] = b"PAR1";

/// A block opened once and read many times, from many threads.
pub struct OpenBlock {
    meta: BlockMeta,
    schema: Schema,
    objects: Arc<dyn BlockObjects>,
    data: Arc<dyn Ranges>,
    footer: Footer,
    verify: bool,
    decoded: Option<BlockParts>,
}

impl std::fmt::Debug for OpenBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenBlock").field("block", &self.meta.block_id).finish_non_exhaustive()
    }
}

impl OpenBlock {
    /// Reads the footer and the offset indexes, in two requests, and checks that the file has exactly the columns that
    /// `meta` promises.
    ///
    /// # Errors
    /// [`Error::Schema`] when the columns differ: reading by position would mislabel values. [`Error::Malformed`] when
    /// the size or the footer are not what `meta` says.
    pub fn open(meta: BlockMeta, objects: Arc<dyn BlockObjects>) -> Result<Self> {
        let schema = Schema::new(&meta.format, &meta.dedicated_columns)
            .map_err(|error| Error::Unsupported(error.to_string()))?;
        let data = objects.data();
        let size = data.len();
        if meta.size != 0 && meta.size != size {
            return Err(malformed("the file has another size than its meta says"));
        }
        let buf = read_footer(&*data, u64::from(meta.footer_size))?;
        let mut footer = Footer::parse(&buf, size)?;
        if let Some(why) = difference(&schema, &footer.leaves) {
            return Err(Error::Schema(why));
        }
        read_offset_indexes(&*data, &mut footer)?;
        Ok(Self { meta, schema, objects, data, footer, verify: true, decoded: None })
    }

    /// The metadata that the block was opened with.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Its columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The unit of sharding: requests name ranges of row groups.
    pub fn row_groups(&self) -> usize {
        self.footer.row_groups.len()
    }

    /// Traces in the block.
    pub fn rows(&self) -> u64 {
        self.footer.row_groups.iter().map(|group| u64::from(group.rows)).sum()
    }

    /// About how much memory the open block holds, for caches.
    pub fn memory(&self) -> usize {
        let chunks = self.footer.row_groups.iter().flat_map(|group| &group.chunks);
        let chunks: usize = chunks.map(|chunk| size_of_val(chunk) + size_of_val(&*chunk.pages)).sum();
        size_of::<Self>() + chunks + self.footer.leaves.len() * 64
    }

    /// Skips the checksums of pages, for sources that verify what they deliver.
    #[must_use]
    pub fn without_checksums(mut self) -> Self {
        self.verify = false;
        self
    }

    /// Keeps what queries take apart in `decoded` for later ones.
    #[must_use]
    pub fn keeping(mut self, decoded: &Decoded) -> Self {
        self.decoded = Some(decoded.of_block());
        self
    }

    pub(crate) fn decoded(&self) -> Option<&BlockParts> {
        self.decoded.as_ref()
    }

    pub(crate) fn verifies(&self) -> bool {
        self.verify
    }

    pub(crate) fn objects(&self) -> &dyn BlockObjects {
        &*self.objects
    }

    pub(crate) fn data(&self) -> &dyn Ranges {
        &*self.data
    }

    pub(crate) fn row_group(&self, group: usize) -> Result<&RowGroup> {
        self.footer.row_groups.get(group).ok_or_else(|| malformed("no such row group"))
    }

    pub(crate) fn shape(&self, leaf: usize) -> Result<LeafShape> {
        let leaf = self.footer.leaves.get(leaf).ok_or_else(|| malformed("no such column"))?;
        Ok(LeafShape { physical: leaf.physical, max_rep: leaf.max_rep, max_def: leaf.max_def })
    }
}

fn malformed(why: &'static str) -> Error {
    Error::malformed("footer", why)
}

/// The footer structure without the length and magic behind it.
fn read_footer(data: &dyn Ranges, known: u64) -> Result<Bytes> {
    let size = data.len();
    if size < 12 {
        return Err(malformed("the file is too short"));
    }
    let guess = if known > 0 { known.saturating_add(8) } else { FOOTER_GUESS };
    if guess > size && known > 0 {
        return Err(malformed("longer than the file"));
    }
    let tail = data.read(size - guess.min(size)..size)?;
    let (rest, magic) = tail.split_last_chunk::<4>().ok_or_else(|| malformed("the file is too short"))?;
    if magic != MAGIC {
        return Err(malformed("no magic at the end"));
    }
    let (_, len) = rest.split_last_chunk::<4>().ok_or_else(|| malformed("the file is too short"))?;
    let len = u64::from(u32::from_le_bytes(*len));
    if known > 0 && known != len {
        return Err(malformed("another length than its meta says"));
    }
    if len > size - 8 || len > MAX_FOOTER {
        return Err(malformed("longer than the file"));
    }
    let in_tail = usize::try_from(len).ok().and_then(|len| tail.len().checked_sub(8)?.checked_sub(len));
    match in_tail {
        Some(start) => Ok(tail.slice(start..tail.len() - 8)),
        None => data.read(size - 8 - len..size - 8),
    }
}

/// The first difference between the columns due and those found, in words.
fn difference(schema: &Schema, found: &[FileLeaf]) -> Option<String> {
    let due = schema.leaves();
    if due.len() != found.len() {
        return Some(format!("{} columns instead of {}", found.len(), due.len()));
    }
    due.iter().zip(found).find_map(|(due, found)| {
        let physical = match due.leaf_type {
            LeafType::Bytes | LeafType::Text => Physical::ByteArray,
            LeafType::U64 | LeafType::I64 => Physical::Int64,
            LeafType::U32 | LeafType::I32 => Physical::Int32,
            LeafType::Double => Physical::Double,
            LeafType::Bool => Physical::Boolean,
        };
        let levels = i16::from(found.max_def) == due.max_def && i16::from(found.max_rep) == due.max_rep;
        (due.path != found.path || physical != found.physical || !levels).then(|| {
            format!(
                "{} ({:?}, levels {}/{}) where {} is due",
                found.path, found.physical, found.max_def, found.max_rep, due.path
            )
        })
    })
}

fn read_offset_indexes(data: &dyn Ranges, footer: &mut Footer) -> Result<()> {
    let spots = footer.row_groups.iter().flat_map(|group| group.chunks.iter().filter_map(|chunk| chunk.offset_index));
    let covered = spots.fold(None, |covered: Option<Range<u64>>, (offset, len)| {
        let end = offset + u64::from(len);
        Some(covered.map_or(offset..end, |all| all.start.min(offset)..all.end.max(end)))
    });
    let Some(covered) = covered else { return Ok(()) };
    if covered.end - covered.start > MAX_FOOTER {
        // They lie apart, which no known writer does. Reading goes on without them.
        return Ok(());
    }
    let bytes = data.read(covered.clone())?;
    for group in &mut footer.row_groups {
        for chunk in &mut group.chunks {
            let Some((offset, len)) = chunk.offset_index else { continue };
            let start = usize::try_from(offset - covered.start).map_err(|_too_big| malformed("index does not fit"))?;
            let index = bytes.get(start..).and_then(|tail| tail.get(..super::values::to_usize(len)));
            let index = index.ok_or_else(|| malformed("index past the end"))?;
            chunk.pages = footer::offset_index(index, group.rows, chunk)?;
        }
    }
    Ok(())
}

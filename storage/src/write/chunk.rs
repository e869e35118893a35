//! One leaf in one row group: its finished pages and the values that wait for the next.

use std::ops::Range;

use parquet::{
    basic::{Compression, Encoding, Type as PhysicalType, ZstdLevel},
    file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder},
    schema::types::ColumnDescPtr,
};

use super::{
    Error,
    compressor::{Codec, Compressor},
    dictionary::Dictionary,
    node::Presence,
    page_header::{self, PageEncoding},
    rare::Sightings,
    values::Values,
};
use crate::schema::{Leaf, LeafType};

/// A finished page within the chunk's pages.
#[derive(Debug, Clone)]
struct Page {
    bytes: Range<usize>,
    /// Where its body begins, after the header.
    body: usize,
    first_row: u64,
    bounds: Option<(Vec<u8>, Vec<u8>)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Position in the file's order of leaves.
    pub(super) leaf: usize,
    pub(super) max_def: u8,
    pub(super) max_rep: u8,
    pub(super) presence: Presence,
    pub(super) values: Values,
    /// Entries of the waiting page with several values: entry, how many beyond the first.
    pub(super) more: Vec<(usize, usize)>,
    codec: Codec,
    /// Into how many pages what would be one of its group is cut: of what searches only show few rows are read.
    pub(super) parts: usize,
    /// Where rare values are, for the column that is searched for them.
    rare: Option<Sightings>,
    pages: Vec<u8>,
    finished: Vec<Page>,
    levels: u64,
    nulls: u64,
    uncompressed: u64,
}

/// How a leaf is stored here. Encodings differ from Tempo's own where both its reader and ours take it and the file gets
/// smaller; what its reader demands is kept: PLAIN booleans, no chunk that leaves its dictionary, plain trace ids.
fn plan(leaf: &Leaf) -> (Values, Codec) {
    let unsigned = matches!(leaf.leaf_type, LeafType::U64 | LeafType::U32);
    let name = leaf.path.rsplit('.').next().unwrap_or(&leaf.path);
    match leaf.leaf_type {
        LeafType::U64 | LeafType::I64 => {
            // Plain ones compress worse, and unpacked they are several times as large.
            let packed = leaf.encoding == Encoding::DELTA_BINARY_PACKED || name == "ValueInt";
            (Values::Int64 { values: Vec::new(), unsigned, packed, bounds: None }, Codec::Zstd)
        }
        LeafType::U32 | LeafType::I32 => (Values::Int32 { values: Vec::new(), unsigned, bounds: None }, Codec::Zstd),
        LeafType::Double => (Values::Double { values: Vec::new(), bounds: None }, Codec::Zstd),
        LeafType::Bool => (Values::Bool { values: Vec::new(), bounds: None }, Codec::Zstd),
        LeafType::Bytes => {
            let values = Values::Bytes { lengths: Vec::new(), data: Vec::new(), bounds: None, bounded: true };
            // Siblings share their parent's id, and links are rare: most of that column is levels. The rest is random.
            let random = matches!(leaf.path.as_str(), "TraceID" | "rs.ss.Spans.SpanID");
            (values, if random { Codec::None } else { Codec::Zstd })
        }
        // Mostly empty or a few sentences again and again, though Tempo stores them as text that does not repeat.
        LeafType::Text
            if leaf.encoding == Encoding::RLE_DICTIONARY || matches!(name, "TraceState" | "StatusMessage") =>
        {
            (Values::Dictionary { ids: Vec::new(), dictionary: Dictionary::default() }, Codec::Zstd)
        }
        LeafType::Text => {
            let values = Values::Bytes { lengths: Vec::new(), data: Vec::new(), bounds: None, bounded: false };
            (values, Codec::Zstd)
        }
    }
}

/// See [`Chunk::parts`]. Columns that are read in full for most queries gain nothing by it.
fn parts(leaf: &Leaf) -> usize {
    match leaf.path.as_str() {
        "TraceID" | "DurationNano" => 16,
        "rs.ss.Spans.SpanID" => 8,
        "rs.ss.Spans.StartTimeUnixNano" | "rs.ss.Spans.DurationNano" => 4,
        "ServiceStats.ServiceName" | "ServiceStats.SpanCount" | "ServiceStats.ErrorCount" => 2,
        _ => 1,
    }
}

/// Fewer pages are read as quickly as a list of where to look.
const LISTED_PAGES: usize = 4;

fn level(max: i16) -> u8 {
    u8::try_from(max).expect("levels of the schema are at most six")
}

impl Chunk {
    pub(super) fn new(leaf: usize, of: &Leaf, presence: Presence) -> Self {
        let (values, codec) = plan(of);
        Self {
            leaf,
            max_def: level(of.max_def),
            max_rep: level(of.max_rep),
            presence,
            values,
            more: Vec::new(),
            codec,
            parts: parts(of),
            rare: (of.path == "rs.ss.Spans.Attrs.Value").then(Sightings::default),
            pages: Vec::new(),
            finished: Vec::new(),
            levels: 0,
            nulls: 0,
            uncompressed: 0,
        }
    }

    /// Notes that `entry` of the waiting page has `count` values beyond its first.
    pub(super) fn add_more(&mut self, entry: usize, count: usize) {
        if count > 0 {
            self.more.push((entry, count));
        }
    }

    /// Whether [`Self::note_rows`] is to be called.
    pub(super) fn lists_rows(&self) -> bool {
        self.rare.is_some()
    }

    /// Notes in which rows the waiting values are: of each entry of the page whether it begins a row, and how many values it has.
    pub(super) fn note_rows(&mut self, first_row: u64, entries: impl Iterator<Item = (bool, usize)>) {
        let (Some(rare), Values::Dictionary { ids, .. }) = (&mut self.rare, &self.values) else { return };
        let mut ids = ids.iter();
        let mut next = u32::try_from(first_row).expect("a row group has fewer rows than bytes");
        let mut row = next;
        for (begins, count) in entries {
            if begins {
                row = next;
                next += 1;
            }
            ids.by_ref().take(count).for_each(|id| rare.add(*id, row));
        }
    }

    /// Completes a page whose levels are in the given body with as many of the waiting values as it has.
    pub(super) fn finish_page(
        &mut self,
        levels: usize,
        nulls: usize,
        first_row: u64,
        (body, compressor): (&mut Vec<u8>, &mut Compressor),
    ) -> Result<(), Error> {
        let values = levels - nulls;
        let bounds = (self.max_rep == 0).then(|| self.values.page_bounds(values)).flatten();
        self.values.encode(values, body);
        let compressed = compressor.compress(self.codec, body)?;
        self.add_page(levels, nulls, first_row, compressed, body.len());
        if let Some(page) = self.finished.last_mut() {
            page.bounds = bounds;
        }
        Ok(())
    }

    /// Adds a page whose body is encoded and compressed already.
    pub(super) fn add_page(&mut self, levels: usize, nulls: usize, first_row: u64, body: &[u8], uncompressed: usize) {
        let start = self.pages.len();
        page_header::put_data(levels, self.values.encoding(), uncompressed, body, &mut self.pages);
        let body_at = self.pages.len();
        self.pages.extend_from_slice(body);
        self.uncompressed += (body_at - start + uncompressed) as u64;
        self.levels += levels as u64;
        self.nulls += nulls as u64;
        self.finished.push(Page { bytes: start..self.pages.len(), body: body_at, first_row, bounds: None });
    }

    /// A copy of the last page's compressed body, with its size before compression.
    pub(super) fn last_body(&self, uncompressed: usize) -> (Vec<u8>, usize) {
        let body = self.finished.last().map_or(&[][..], |page| &self.pages[page.body..page.bytes.end]);
        (body.to_vec(), uncompressed)
    }

    /// Bytes of finished pages.
    pub(super) fn finished_bytes(&self) -> usize {
        self.pages.len() + self.values.dictionary().map_or(0, |dictionary| dictionary.page().len())
    }

    /// Ends the chunk, which begins at `offset` in the file: its bytes and its metadata.
    pub(super) fn close(
        &mut self,
        offset: u64,
        rows: u64,
        descriptor: ColumnDescPtr,
        compressor: &mut Compressor,
    ) -> Result<ClosedChunk, Error> {
        let mut dictionary_page = Vec::new();
        if let Some(dictionary) = self.values.dictionary() {
            let body = compressor.compress(self.codec, dictionary.page())?;
            page_header::put_dictionary(dictionary.len(), dictionary.page().len(), body, &mut dictionary_page);
            self.uncompressed += (dictionary_page.len() + dictionary.page().len()) as u64;
            dictionary_page.extend_from_slice(body);
        }
        let pages = std::mem::take(&mut self.pages);
        let data_offset = offset + dictionary_page.len() as u64;
        let mut encodings = vec![format_encoding(self.values.encoding()), Encoding::RLE];
        if !dictionary_page.is_empty() {
            encodings.push(Encoding::PLAIN);
        }
        let codec = match self.codec {
            Codec::None => Compression::UNCOMPRESSED,
            Codec::Zstd => Compression::ZSTD(ZstdLevel::default()),
        };
        let physical = descriptor.physical_type();
        let metadata = ColumnChunkMetaData::builder(descriptor)
            .set_encodings(encodings)
            .set_compression(codec)
            .set_num_values(signed(self.levels))
            .set_total_compressed_size(signed((dictionary_page.len() + pages.len()) as u64))
            .set_total_uncompressed_size(signed(self.uncompressed))
            .set_dictionary_page_offset((!dictionary_page.is_empty()).then_some(signed(offset)))
            .set_data_page_offset(signed(data_offset))
            .set_statistics(self.values.statistics(self.nulls))
            .build()?;
        let finished = std::mem::take(&mut self.finished);
        let listed = self.rare.as_mut().map(|rare| rare.take(rows));
        let closed = ClosedChunk {
            offset_index: offset_index(&finished, data_offset, rows)?,
            column_index: column_index(&finished, physical),
            metadata,
            dictionary_page,
            pages,
            rare: listed.filter(|_| finished.len() >= LISTED_PAGES).unwrap_or_default(),
        };
        self.values.reset();
        (self.levels, self.nulls, self.uncompressed) = (0, 0, 0);
        Ok(closed)
    }
}

/// A chunk that is ready to be written.
pub(super) struct ClosedChunk {
    pub(super) metadata: ColumnChunkMetaData,
    pub(super) offset_index: OffsetIndexBuilder,
    pub(super) column_index: Option<ColumnIndexBuilder>,
    pub(super) dictionary_page: Vec<u8>,
    pub(super) pages: Vec<u8>,
    /// Which rows rare values are in; empty where that is not noted.
    pub(super) rare: Vec<u8>,
}

impl ClosedChunk {
    /// Bytes in the file, up to where the next chunk begins.
    pub(super) fn size(&self) -> u64 {
        (self.dictionary_page.len() + self.pages.len() + self.rare.len()) as u64
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).expect("no file reaches 8 EiB")
}

fn format_encoding(encoding: PageEncoding) -> Encoding {
    match encoding {
        PageEncoding::Plain => Encoding::PLAIN,
        PageEncoding::Rle => Encoding::RLE,
        PageEncoding::DeltaBinaryPacked => Encoding::DELTA_BINARY_PACKED,
        PageEncoding::DeltaLengthByteArray => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        PageEncoding::RleDictionary => Encoding::RLE_DICTIONARY,
    }
}

fn offset_index(pages: &[Page], data_offset: u64, rows: u64) -> Result<OffsetIndexBuilder, Error> {
    let mut index = OffsetIndexBuilder::new();
    let ends = pages.iter().skip(1).map(|page| page.first_row).chain([rows]);
    for (page, end) in pages.iter().zip(ends) {
        let size = i32::try_from(page.bytes.len()).map_err(|_too_large| Error::PageSize(page.bytes.len()))?;
        index.append_offset_and_size(signed(data_offset + page.bytes.start as u64), size);
        index.append_row_count(signed(end - page.first_row));
    }
    Ok(index)
}

/// Only leaves without repetition have one: elsewhere Tempo's reader and ours read bounds from dictionaries, and a wrong
/// "null page" would hide rows.
fn column_index(pages: &[Page], physical: PhysicalType) -> Option<ColumnIndexBuilder> {
    let mut index = ColumnIndexBuilder::new(physical);
    for page in pages {
        let (min, max) = page.bounds.clone()?;
        index.append(false, min, max, 0, None);
    }
    (!pages.is_empty()).then_some(index)
}

//! Page headers and page bodies.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    codec::Codec,
    error::{Error, Result},
    rle,
    thrift::{Compact, ty},
    values::{self, Physical, Values},
};

/// Levels a page may have; above this the header is not believed. A row group of 100 MB has at most some tens of millions.
const MAX_LEVELS: usize = 1 << 26;

fn malformed(why: &'static str) -> Error {
    Error::malformed("page header", why)
}

/// What a leaf needs for decoding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeafShape {
    pub(crate) physical: Physical,
    pub(crate) max_rep: u8,
    pub(crate) max_def: u8,
}

/// Header of one page.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageHeader {
    /// Bytes of the header itself.
    pub(crate) len: usize,
    pub(crate) compressed_size: usize,
    uncompressed_size: usize,
    crc: Option<u32>,
    kind: Kind,
}

#[derive(Debug, Clone, Default)]
enum Kind {
    /// An index page or something newer; skipped.
    #[default]
    Other,
    Dictionary {
        values: usize,
        encoding: i32,
    },
    V1 {
        values: usize,
        encoding: i32,
        levels_rle: bool,
    },
    V2 {
        values: usize,
        encoding: i32,
        def_size: usize,
        rep_size: usize,
        compressed: bool,
    },
}

impl PageHeader {
    /// Reads the header at the start of `buf`.
    pub(crate) fn parse(buf: &[u8]) -> Result<Self> {
        let mut reader = Compact::new(buf, "page header");
        let mut header = Self::default();
        let mut declared = None;
        reader.structure(|r, id, kind| {
            match (id, kind) {
                (1, ty::I32) => declared = Some(r.i32()?),
                (2, ty::I32) => header.uncompressed_size = r.size()?,
                (3, ty::I32) => header.compressed_size = r.size()?,
                (4, ty::I32) => header.crc = Some(r.i32()?.cast_unsigned()),
                (5, ty::STRUCT) => header.kind = Self::v1(r)?,
                (7, ty::STRUCT) => header.kind = Self::dictionary(r)?,
                (8, ty::STRUCT) => header.kind = Self::v2(r)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let fits = matches!(
            (&header.kind, declared),
            (Kind::V1 { .. }, Some(0))
                | (Kind::Dictionary { .. }, Some(2))
                | (Kind::V2 { .. }, Some(3))
                | (Kind::Other, Some(_))
        );
        if !fits {
            return Err(malformed("page type"));
        }
        header.len = reader.position();
        Ok(header)
    }

    fn v1(r: &mut Compact<'_>) -> Result<Kind> {
        let (mut values, mut encoding, mut levels_rle) = (0, 0, true);
        r.structure(|r, id, kind| {
            match (id, kind) {
                (1, ty::I32) => values = r.size()?,
                (2, ty::I32) => encoding = r.i32()?,
                (3 | 4, ty::I32) => levels_rle &= r.i32()? == 3,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Kind::V1 { values, encoding, levels_rle })
    }

    fn v2(r: &mut Compact<'_>) -> Result<Kind> {
        let (mut values, mut encoding, mut def_size, mut rep_size, mut compressed) = (0, 0, 0, 0, true);
        r.structure(|r, id, kind| {
            match (id, kind) {
                (1, ty::I32) => values = r.size()?,
                (4, ty::I32) => encoding = r.i32()?,
                (5, ty::I32) => def_size = r.size()?,
                (6, ty::I32) => rep_size = r.size()?,
                (7, ty::TRUE) => compressed = true,
                (7, ty::FALSE) => compressed = false,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Kind::V2 { values, encoding, def_size, rep_size, compressed })
    }

    fn dictionary(r: &mut Compact<'_>) -> Result<Kind> {
        let (mut values, mut encoding) = (0, 0);
        r.structure(|r, id, kind| {
            match (id, kind) {
                (1, ty::I32) => values = r.size()?,
                (2, ty::I32) => encoding = r.i32()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Kind::Dictionary { values, encoding })
    }

    pub(crate) fn is_dictionary(&self) -> bool {
        matches!(self.kind, Kind::Dictionary { .. })
    }

    pub(crate) fn is_data(&self) -> bool {
        matches!(self.kind, Kind::V1 { .. } | Kind::V2 { .. })
    }

    /// Checks the body against the checksum of the header, when there is one.
    pub(crate) fn verify(&self, body: &[u8]) -> Result<()> {
        let Some(crc) = self.crc.filter(|crc| *crc != 0) else { return Ok(()) };
        let mut sum = flate2::Crc::new();
        sum.update(body);
        if sum.sum() == crc { Ok(()) } else { Err(Error::malformed("page", "checksum differs")) }
    }

    /// Decodes the body of a dictionary page.
    pub(crate) fn decode_dictionary(&self, physical: Physical, codec: Codec, body: &Bytes) -> Result<Values> {
        let Kind::Dictionary { values, encoding } = self.kind else { return Err(malformed("not a dictionary page")) };
        if !matches!(encoding, 0 | 2) {
            return Err(Error::Unsupported(format!("dictionary encoding {encoding}")));
        }
        if values > MAX_LEVELS {
            return Err(malformed("too many values"));
        }
        let data = codec.decompress(body, self.uncompressed_size)?;
        values::decode(physical, 0, &data, values, || Ok(None))
    }

    /// Decodes the body of a data page.
    pub(crate) fn decode_data(
        &self,
        leaf: LeafShape,
        codec: Codec,
        body: &Bytes,
        dictionary: impl FnOnce() -> Result<Option<Arc<Values>>>,
    ) -> Result<Page> {
        let (len, encoding) = match self.kind {
            Kind::V1 { values, encoding, .. } | Kind::V2 { values, encoding, .. } => (values, encoding),
            Kind::Other | Kind::Dictionary { .. } => return Err(malformed("not a data page")),
        };
        if len > MAX_LEVELS {
            return Err(malformed("too many values"));
        }
        let (rep, def, data) = match self.kind {
            Kind::V2 { def_size, rep_size, compressed, .. } => {
                let levels = rep_size.checked_add(def_size).filter(|levels| *levels <= body.len());
                let levels = levels.ok_or_else(|| malformed("levels past the end"))?;
                let (rep, rest) = body.split_at(rep_size);
                let rep = optional_levels(rep, leaf.max_rep, len)?;
                let def = optional_levels(&rest[..def_size], leaf.max_def, len)?;
                let data = body.slice(levels..);
                let data = if compressed {
                    let size =
                        self.uncompressed_size.checked_sub(levels).ok_or_else(|| malformed("levels past the end"))?;
                    codec.decompress(&data, size)?
                } else {
                    data
                };
                (rep, def, data)
            }
            Kind::V1 { levels_rle, .. } => {
                if !levels_rle && (leaf.max_def > 0 || leaf.max_rep > 0) {
                    return Err(Error::Unsupported("bit-packed levels".to_owned()));
                }
                let mut data = codec.decompress(body, self.uncompressed_size)?;
                let rep = prefixed_levels(&mut data, leaf.max_rep, len)?;
                let def = prefixed_levels(&mut data, leaf.max_def, len)?;
                (rep, def, data)
            }
            Kind::Other | Kind::Dictionary { .. } => return Err(malformed("not a data page")),
        };
        let present = if leaf.max_def == 0 { len } else { count(&def, leaf.max_def) };
        let values = values::decode(leaf.physical, encoding, &data, present, dictionary)?;
        let rows = if rep.is_empty() { len } else { count(&rep, 0) };
        Ok(Page { first_row: 0, len, rows, rep, def, values, index: OnceLock::new(), counts: OnceLock::new() })
    }
}

/// How often `wanted` stands in `levels`.
pub(crate) fn count(levels: &[u8], wanted: u8) -> usize {
    // Sums of at most 255 fit a byte, so that 32 levels are compared at once.
    levels.chunks(255).map(|some| usize::from(some.iter().map(|level| u8::from(*level == wanted)).sum::<u8>())).sum()
}

/// Where `wanted` stands for the time `nth` (from 0 on).
pub(crate) fn position_of_nth(levels: &[u8], wanted: u8, mut nth: usize) -> Option<usize> {
    let mut passed = 0;
    for some in levels.chunks(255) {
        let here = count(some, wanted);
        if nth < here {
            let places = some.iter().enumerate().filter(|(_, level)| **level == wanted);
            return places.map(|(place, _)| passed + place).nth(nth);
        }
        nth -= here;
        passed += some.len();
    }
    None
}

fn optional_levels(buf: &[u8], max: u8, len: usize) -> Result<Vec<u8>> {
    if max == 0 { Ok(Vec::new()) } else { rle::levels(buf, max, len) }
}

fn prefixed_levels(data: &mut Bytes, max: u8, len: usize) -> Result<Vec<u8>> {
    if max == 0 {
        return Ok(Vec::new());
    }
    let size = data.first_chunk::<4>().ok_or_else(|| malformed("levels past the end"))?;
    let size = values::to_usize(u32::from_le_bytes(*size));
    let end = size.checked_add(4).filter(|end| *end <= data.len()).ok_or_else(|| malformed("levels past the end"))?;
    let levels = rle::levels(&data[4..end], max, len)?;
    *data = data.slice(end..);
    Ok(levels)
}

/// One decoded data page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Row of the row group that the page begins with (set by the chunk reader).
    pub(crate) first_row: u32,
    /// Entries: values and nulls.
    pub(crate) len: usize,
    rows: usize,
    /// Repetition level of each entry; empty when the column has none.
    pub(crate) rep: Vec<u8>,
    /// Definition level of each entry; empty when the column has none.
    pub(crate) def: Vec<u8>,
    /// The values of the entries whose definition level is the column's maximum.
    pub(crate) values: Values,
    index: OnceLock<RowIndex>,
    /// The first counts that were asked for, and which they are.
    counts: OnceLock<(Units, Arc<[u32]>)>,
}

/// Two kinds of things in a page, each by its levels.
type Units = ((u8, u8), (u8, u8));

/// Where each row begins, and at the end where the page ends.
#[derive(Debug, Default)]
struct RowIndex {
    entries: Vec<u32>,
    values: Vec<u32>,
}

/// Where some rows of a page are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowSpan {
    /// Levels.
    pub(crate) entries: Range<usize>,
    /// Values among them.
    pub(crate) values: Range<usize>,
}

impl Page {
    /// Rows that begin in this page.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Entries and values of `rows`, counted from the first of the page; `max_def` is the level of a value. Looking up costs a walk
    /// over the page for the first time, and nothing later.
    pub(crate) fn span_of(&self, rows: Range<usize>, max_def: u8) -> RowSpan {
        let index = self.index.get_or_init(|| self.index_rows(max_def));
        let of = |starts: &[u32]| {
            let at = |row: usize| starts.get(row).or_else(|| starts.last()).map_or(0, |start| values::to_usize(*start));
            at(rows.start)..at(rows.end)
        };
        RowSpan { entries: of(&index.entries), values: of(&index.values) }
    }

    /// What `count` gives for these units, kept where they are the first of the page: callers ask for one kind of a column.
    pub(crate) fn counts(&self, units: Units, count: impl Fn() -> Arc<[u32]>) -> Arc<[u32]> {
        let (known, counts) = self.counts.get_or_init(|| (units, count()));
        if *known == units { Arc::clone(counts) } else { count() }
    }

    /// In less memory, for keeping: without levels if they are not needed and say nothing but where rows begin.
    pub(crate) fn pack(&mut self, without_levels: bool) {
        let empty = Values::Bools(Vec::new());
        self.values = std::mem::replace(&mut self.values, empty).pack();
        if without_levels && self.values.len() == self.len {
            (self.rep, self.def) = (Vec::new(), Vec::new());
        }
    }

    fn index_rows(&self, max_def: u8) -> RowIndex {
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let mut index = RowIndex::default();
        let mut values = 0;
        let mut passed = 0;
        let mut row_at = |entry: usize| {
            values += if self.def.is_empty() { entry - passed } else { count(&self.def[passed..entry], max_def) };
            passed = entry;
            index.entries.push(number(entry));
            index.values.push(number(values));
        };
        if self.rep.is_empty() {
            (0..self.len).for_each(&mut row_at);
        } else {
            memchr::memchr_iter(0, &self.rep).for_each(&mut row_at);
        }
        row_at(self.len);
        index
    }

    /// Memory held, with what looking up rows and counts may add.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.rep.len()
            + self.def.len()
            + self.values.memory()
            + (self.rows + 1) * 8
            + self.rep.len() * 2
    }
}

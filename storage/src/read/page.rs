//! Page headers and page bodies.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    bits::{BLOCK, ones_in},
    codec::{self, Codec},
    error::{Error, Result},
    levels::{Levels, LevelsIter, below, blocks, ones},
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

    /// Whether values can be slices of the body as it is stored.
    pub(crate) fn is_stored_plainly(&self, codec: Codec) -> bool {
        codec == Codec::None || matches!(self.kind, Kind::V2 { compressed: false, .. })
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
        let data = codec.decompress(body, self.uncompressed_size, false)?;
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
        // What is not kept as it stands here is unpacked into memory that is used again and again.
        let shares = values::shares(leaf.physical, encoding);
        let unpack = |data: &Bytes, size| codec.decompress(data, size, !shares);
        let (rep, def, data) = match self.kind {
            Kind::V2 { def_size, rep_size, compressed, .. } => {
                let levels = rep_size.checked_add(def_size).filter(|levels| *levels <= body.len());
                let levels = levels.ok_or_else(|| malformed("levels past the end"))?;
                // The body is a part of what was read at once.
                let rep = optional_levels(&body.slice(..rep_size), leaf.max_rep, len)?;
                let def = optional_levels(&body.slice(rep_size..levels), leaf.max_def, len)?;
                let data = body.slice(levels..);
                let data = if compressed {
                    let size =
                        self.uncompressed_size.checked_sub(levels).ok_or_else(|| malformed("levels past the end"))?;
                    unpack(&data, size)?
                } else {
                    data
                };
                (rep, def, data)
            }
            Kind::V1 { levels_rle, .. } => {
                if !levels_rle && (leaf.max_def > 0 || leaf.max_rep > 0) {
                    return Err(Error::Unsupported("bit-packed levels".to_owned()));
                }
                let mut data = unpack(body, self.uncompressed_size)?;
                let rep = prefixed_levels(&mut data, leaf.max_rep, len, shares)?;
                let def = prefixed_levels(&mut data, leaf.max_def, len, shares)?;
                (rep, def, data)
            }
            Kind::Other | Kind::Dictionary { .. } => return Err(malformed("not a data page")),
        };
        let present = if leaf.max_def == 0 { len } else { def.count_at_least(leaf.max_def) };
        let values = values::decode(leaf.physical, encoding, &data, present, dictionary)?;
        if !shares {
            codec::give_back(data);
        }
        let rows = if rep.is_empty() { len } else { len - rep.count_at_least(1) };
        Ok(Page { first_row: 0, len, rows, rep, def, values, index: OnceLock::new(), counts: OnceLock::new() })
    }
}

fn optional_levels(buf: &Bytes, max: u8, len: usize) -> Result<Levels> {
    if max == 0 { Ok(Levels::none()) } else { Levels::decode(buf, max, len, false) }
}

fn prefixed_levels(data: &mut Bytes, max: u8, len: usize, shares: bool) -> Result<Levels> {
    if max == 0 {
        return Ok(Levels::none());
    }
    let size = data.first_chunk::<4>().ok_or_else(|| malformed("levels past the end"))?;
    let size = values::to_usize(u32::from_le_bytes(*size));
    let end = size.checked_add(4).filter(|end| *end <= data.len()).ok_or_else(|| malformed("levels past the end"))?;
    let levels = Levels::decode(&data.slice(4..end), max, len, shares)?;
    bytes::Buf::advance(data, end);
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
    pub(crate) rep: Levels,
    /// Definition level of each entry; empty when the column has none.
    pub(crate) def: Levels,
    /// The values of the entries whose definition level is the column's maximum.
    pub(crate) values: Values,
    index: OnceLock<RowIndex>,
    /// The first counts that were asked for, and which they are.
    counts: OnceLock<(Units, Arc<[u32]>)>,
}

/// A thing that is counted: it begins where the repetition level is at most `.0` and the definition level at least `.1`.
pub(crate) type Unit = (u8, u8);

/// Two kinds of things in a page.
type Units = (Unit, Unit);

/// Where each row begins, and at the end where the page ends.
#[derive(Debug, Default)]
struct RowIndex {
    entries: Vec<u32>,
    /// None where every entry has a value.
    values: Option<Vec<u32>>,
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
        RowSpan { entries: of(&index.entries), values: of(index.values.as_ref().unwrap_or(&index.entries)) }
    }

    /// What `count` gives for these units, kept where they are the first of the page: callers ask for one kind of a column.
    pub(crate) fn counts(&self, units: Units, count: impl Fn() -> Arc<[u32]>) -> Arc<[u32]> {
        let (known, counts) = self.counts.get_or_init(|| (units, count()));
        if *known == units { Arc::clone(counts) } else { count() }
    }

    /// In less memory, for keeping: without levels if they are not needed and say nothing but where rows begin.
    pub(crate) fn pack(&mut self, without_levels: bool) {
        if without_levels && self.values.len() == self.len {
            (self.rep, self.def) = (Levels::none(), Levels::none());
        }
    }

    /// Which of the 64 entries from `64 * block` on begin such a unit, a bit each. Bits past the end mean nothing.
    #[inline]
    pub(crate) fn beginning(&self, block: usize, (rep, def): Unit) -> u64 {
        self.rep.at_most(block, rep) & self.def.at_least(block, def)
    }

    /// Repetition and definition level of each of these entries, none for a column that lacks one of them.
    pub(crate) fn levels(&self, entries: Range<usize>) -> std::iter::Zip<LevelsIter<'_>, LevelsIter<'_>> {
        self.rep.iter(entries.clone()).zip(self.def.iter(entries))
    }

    fn index_rows(&self, max_def: u8) -> RowIndex {
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let every = self.def.is_empty() || self.def.surely_at_least(max_def);
        let rows = if self.rep.is_empty() { self.len } else { self.rows } + 1;
        let mut entries = Vec::with_capacity(rows);
        if every {
            for (block, within) in blocks(0..self.len) {
                let begins = self.rep.at_most(block, 0) & within;
                entries.extend(ones(begins).map(|bit| number(block * BLOCK + bit)));
            }
            entries.push(number(self.len));
            return RowIndex { entries, values: None };
        }
        let (mut values, mut passed) = (Vec::with_capacity(rows), 0);
        for (block, within) in blocks(0..self.len) {
            let begins = self.rep.at_most(block, 0) & within;
            let present = self.def.at_least(block, max_def) & within;
            for bit in ones(begins) {
                entries.push(number(block * BLOCK + bit));
                values.push(number(passed + ones_in(present & below(bit))));
            }
            passed += ones_in(present);
        }
        entries.push(number(self.len));
        values.push(number(passed));
        RowIndex { entries, values: Some(values) }
    }

    /// Memory held, with what looking up rows and counts may add.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.rep.memory()
            + self.def.memory()
            + self.values.memory()
            + (self.rows + 1) * 8
            + self.rep.len() * 2
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read::levels::tests::levels_of;

    impl Page {
        /// Of these levels of entries that begin with a row; the values are their numbers.
        pub(crate) fn of_levels(rep: &[u8], def: &[u8], max: (u8, u8)) -> Self {
            let values: Vec<i64> = (0i64..).take(def.iter().filter(|def| **def == max.1).count()).collect();
            Self {
                first_row: 0,
                len: rep.len(),
                rows: rep.iter().filter(|rep| **rep == 0).count(),
                rep: levels_of(rep, max.0),
                def: levels_of(def, max.1),
                values: Values::Ints(values.into()),
                index: OnceLock::new(),
                counts: OnceLock::new(),
            }
        }
    }

    /// Levels of a page whose first entry begins a row, and the highest of each kind.
    pub(crate) fn levels() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, (u8, u8))> {
        let max = (1u8..6, 1u8..6);
        max.prop_flat_map(|(max_rep, max_def)| {
            // Long stretches of one level as well as changing ones.
            let level = |max: u8| prop_oneof![3 => Just(max), 1 => 0..=max];
            let stretch = (level(max_rep), level(max_def), prop_oneof![4 => Just(1usize), 1 => 1usize..90]);
            prop::collection::vec(stretch, 1..150).prop_map(move |stretches| {
                let (mut rep, mut def) = (Vec::new(), Vec::new());
                for (rep_level, def_level, len) in stretches {
                    rep.resize(rep.len() + len, rep_level);
                    def.resize(def.len() + len, def_level);
                }
                rep[0] = 0;
                (rep, def, (max_rep, max_def))
            })
        })
    }

    proptest! {
        #[test]
        fn rows_are_found_where_they_begin((rep, def, max) in levels(), from in 0usize..40, len in 0usize..40) {
            let page = Page::of_levels(&rep, &def, max);
            let mut starts: Vec<usize> = (0..rep.len()).filter(|entry| rep[*entry] == 0).collect();
            prop_assert_eq!(page.rows(), starts.len());
            starts.push(rep.len());
            let values = |entry: usize| def[..entry].iter().filter(|def| **def == max.1).count();
            let (from, end) = (from.min(page.rows()), (from + len).min(page.rows()));
            let span = page.span_of(from..end, max.1);
            prop_assert_eq!(&span.entries, &(starts[from]..starts[end]));
            prop_assert_eq!(&span.values, &(values(starts[from])..values(starts[end])));
            let due: Vec<(u8, u8)> = rep.iter().copied().zip(def.iter().copied()).collect();
            prop_assert_eq!(page.levels(span.entries.clone()).collect::<Vec<_>>(), due[span.entries].to_vec());
        }
    }
}

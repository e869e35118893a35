//! The footer and the page indexes, reduced to what reading needs: some 60 bytes for each column chunk and 12 for each page.

use super::{
    codec::Codec,
    error::{Error, Result},
    rare,
    thrift::{Compact, ty},
    values::Physical,
};

fn malformed(why: &'static str) -> Error {
    Error::malformed("footer", why)
}

/// A leaf of the schema as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileLeaf {
    /// Names from below the root to the leaf, joined with dots.
    pub(crate) path: String,
    pub(crate) physical: Physical,
    pub(crate) max_rep: u8,
    pub(crate) max_def: u8,
}

/// What is kept of the footer.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) leaves: Vec<FileLeaf>,
    pub(crate) row_groups: Vec<RowGroup>,
}

/// A row group: one chunk for each leaf, in leaf order.
#[derive(Debug)]
pub(crate) struct RowGroup {
    pub(crate) rows: u32,
    pub(crate) chunks: Vec<Chunk>,
}

/// Smallest and largest value in PLAIN form.
pub(crate) type Bounds = (Box<[u8]>, Box<[u8]>);

/// One column chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) codec: Codec,
    /// First byte: the dictionary page when there is one, else the first data page.
    pub(crate) start: u64,
    /// Bytes of all pages.
    pub(crate) size: u64,
    /// Entries, nulls included.
    pub(crate) values: u64,
    /// Entries without a value, when the file says.
    pub(crate) nulls: Option<u64>,
    /// Smallest and largest value in PLAIN form, when the file says and both are short.
    pub(crate) bounds: Option<Bounds>,
    pub(crate) offset_index: Option<(u64, u32)>,
    pub(crate) column_index: Option<(u64, u32)>,
    /// Where it is noted which rows rare values are in, if it is.
    pub(crate) rare: Option<(u64, u32)>,
    /// Filled from the offset index; empty when the file has none.
    pub(crate) pages: Vec<PageSpot>,
}

/// Where a page lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSpot {
    pub(crate) offset: u64,
    /// With its header.
    pub(crate) size: u32,
    pub(crate) first_row: u32,
}

/// Bounds longer than this are not kept in memory.
const MAX_BOUND: usize = 64;
/// Leaves a file may have. A trace has 78 and some dedicated ones.
const MAX_LEAVES: usize = 1024;

impl Footer {
    /// Parses the footer structure. `file_size` bounds every offset in it.
    pub(crate) fn parse(buf: &[u8], file_size: u64) -> Result<Self> {
        let mut r = Compact::new(buf, "footer");
        let mut leaves = Vec::new();
        let mut row_groups = Vec::new();
        let mut rare = None;
        r.structure(|r, id, kind| {
            match (id, kind) {
                (2, ty::LIST) => leaves = schema(r)?,
                (4, ty::LIST) => {
                    let (_, len) = r.list()?;
                    for _ in 0..len {
                        row_groups.push(row_group(r, &leaves, file_size)?);
                    }
                }
                (5, ty::LIST) => {
                    let (_, len) = r.list()?;
                    for _ in 0..len {
                        rare = rare.or(named(r, rare::KEY)?);
                    }
                }
                (8, ty::STRUCT) => return Err(Error::Unsupported("encrypted file".to_owned())),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if leaves.is_empty() {
            return Err(malformed("no columns"));
        }
        if let Some(places) = rare {
            places_of_rare(places, &mut row_groups, file_size)
                .ok_or_else(|| malformed("a list of rare values lies nowhere"))?;
        }
        Ok(Self { leaves, row_groups })
    }
}

/// The value of an entry of the metadata, if it has this name.
fn named<'a>(r: &mut Compact<'a>, name: &str) -> Result<Option<&'a [u8]>> {
    let (mut key, mut value) = (None, None);
    r.structure(|r, id, kind| {
        match (id, kind) {
            (1, ty::BINARY) => key = Some(r.bytes()?),
            (2, ty::BINARY) => value = Some(r.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(value.filter(|_| key == Some(name.as_bytes())))
}

/// Notes in the chunks what `lines` say of them; none when they say nothing that can be.
fn places_of_rare(lines: &[u8], row_groups: &mut [RowGroup], file_size: u64) -> Option<()> {
    for line in std::str::from_utf8(lines).ok()?.lines() {
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (group, leaf) = (usize::try_from(next()?).ok()?, usize::try_from(next()?).ok()?);
        let place = spot(next(), next(), file_size)?;
        row_groups.get_mut(group)?.chunks.get_mut(leaf)?.rare = Some(place);
    }
    Some(())
}

/// One element of the flattened schema tree.
struct Element {
    physical: Option<i32>,
    repetition: i32,
    name: String,
    children: usize,
}

fn element(r: &mut Compact<'_>) -> Result<Element> {
    let mut element = Element { physical: None, repetition: 0, name: String::new(), children: 0 };
    r.structure(|r, id, kind| {
        match (id, kind) {
            (1, ty::I32) => element.physical = Some(r.i32()?),
            (3, ty::I32) => element.repetition = r.i32()?,
            (4, ty::BINARY) => element.name = String::from_utf8_lossy(r.bytes()?).into_owned(),
            (5, ty::I32) => element.children = r.size()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}

fn schema(r: &mut Compact<'_>) -> Result<Vec<FileLeaf>> {
    /// A group that still expects children.
    struct Open {
        left: usize,
        path_len: usize,
        rep: u8,
        def: u8,
    }
    let (_, len) = r.list()?;
    if len > 4 * MAX_LEAVES {
        return Err(malformed("too many columns"));
    }
    let root = element(r)?;
    let mut open = vec![Open { left: root.children, path_len: 0, rep: 0, def: 0 }];
    let mut path = String::new();
    let mut leaves = Vec::new();
    for _ in 1..len {
        while open.last().is_some_and(|group| group.left == 0) {
            open.pop();
        }
        let depth = open.len();
        let group = open.last_mut().ok_or_else(|| malformed("schema element without parent"))?;
        if depth > 24 {
            return Err(malformed("schema is too deep"));
        }
        group.left -= 1;
        path.truncate(group.path_len);
        let (mut rep, mut def) = (group.rep, group.def);
        let element = element(r)?;
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&element.name);
        if path.len() > 4096 {
            return Err(malformed("column path is too long"));
        }
        match element.repetition {
            0 => {}
            1 => def += 1,
            2 => (rep, def) = (rep + 1, def + 1),
            _ => return Err(malformed("repetition of a schema element")),
        }
        match element.physical {
            _ if element.children > 0 => {
                open.push(Open { left: element.children, path_len: path.len(), rep, def });
            }
            Some(number) => {
                let physical = match number {
                    0 => Physical::Boolean,
                    1 => Physical::Int32,
                    2 => Physical::Int64,
                    5 => Physical::Double,
                    6 => Physical::ByteArray,
                    other => return Err(Error::Unsupported(format!("physical type {other} of column {path}"))),
                };
                leaves.push(FileLeaf { path: path.clone(), physical, max_rep: rep, max_def: def });
            }
            // A group without children has no column.
            None => {}
        }
    }
    if leaves.len() > MAX_LEAVES {
        return Err(malformed("too many columns"));
    }
    Ok(leaves)
}

fn row_group(r: &mut Compact<'_>, leaves: &[FileLeaf], file_size: u64) -> Result<RowGroup> {
    let mut group = RowGroup { rows: 0, chunks: Vec::with_capacity(leaves.len()) };
    r.structure(|r, id, kind| {
        match (id, kind) {
            (1, ty::LIST) => {
                let (_, len) = r.list()?;
                if len != leaves.len() {
                    return Err(malformed("row group has another number of columns than the schema"));
                }
                for leaf in leaves {
                    group.chunks.push(chunk(r, leaf, file_size)?);
                }
            }
            (3, ty::I64) => {
                group.rows = u32::try_from(r.unsigned()?).map_err(|_too_big| malformed("too many rows"))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if group.chunks.len() != leaves.len() {
        return Err(malformed("row group without columns"));
    }
    Ok(group)
}

fn spot(offset: Option<u64>, size: Option<u64>, file_size: u64) -> Option<(u64, u32)> {
    let (offset, size) = (offset?, u32::try_from(size?).ok()?);
    (offset.checked_add(u64::from(size))? <= file_size).then_some((offset, size))
}

fn chunk(r: &mut Compact<'_>, leaf: &FileLeaf, file_size: u64) -> Result<Chunk> {
    let mut chunk = None;
    let (mut offset_at, mut offset_len, mut column_at, mut column_len) = (None, None, None, None);
    r.structure(|r, id, kind| {
        match (id, kind) {
            (1, ty::BINARY) => return Err(Error::Unsupported("column chunk in another file".to_owned())),
            (3, ty::STRUCT) => chunk = Some(chunk_meta(r, leaf, file_size)?),
            (4, ty::I64) => offset_at = Some(r.unsigned()?),
            (5, ty::I32) => offset_len = Some(r.unsigned()?),
            (6, ty::I64) => column_at = Some(r.unsigned()?),
            (7, ty::I32) => column_len = Some(r.unsigned()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut chunk = chunk.ok_or_else(|| malformed("column chunk without metadata"))?;
    chunk.offset_index = spot(offset_at, offset_len, file_size);
    chunk.column_index = spot(column_at, column_len, file_size);
    Ok(chunk)
}

fn chunk_meta(r: &mut Compact<'_>, leaf: &FileLeaf, file_size: u64) -> Result<Chunk> {
    let (mut physical, mut codec, mut values, mut size, mut data, mut dictionary) = (-1, 0, 0, 0, 0, None);
    let (mut nulls, mut bounds) = (None, None);
    r.structure(|r, id, kind| {
        match (id, kind) {
            (1, ty::I32) => physical = r.i32()?,
            (4, ty::I32) => codec = r.i32()?,
            (5, ty::I64) => values = r.unsigned()?,
            (7, ty::I64) => size = r.unsigned()?,
            (9, ty::I64) => data = r.unsigned()?,
            (11, ty::I64) => dictionary = Some(r.unsigned()?).filter(|offset| *offset > 0),
            (12, ty::STRUCT) => (nulls, bounds) = statistics(r)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let expected = match leaf.physical {
        Physical::Boolean => 0,
        Physical::Int32 => 1,
        Physical::Int64 => 2,
        Physical::Double => 5,
        Physical::ByteArray => 6,
    };
    if physical != expected {
        return Err(malformed("type of a column chunk differs from the schema"));
    }
    let start = dictionary.map_or(data, |dictionary| dictionary.min(data));
    if start.checked_add(size).is_none_or(|end| end > file_size) {
        return Err(malformed("column chunk past the end of the file"));
    }
    Ok(Chunk {
        codec: Codec::from_thrift(codec)?,
        start,
        size,
        values,
        nulls,
        bounds,
        offset_index: None,
        column_index: None,
        rare: None,
        pages: Vec::new(),
    })
}

type Statistics = (Option<u64>, Option<Bounds>);

/// Only the newer fields: the order of the older `min` and `max` is not defined for byte strings.
fn statistics(r: &mut Compact<'_>) -> Result<Statistics> {
    let (mut nulls, mut low, mut high) = (None, None, None);
    let keep = |bytes: &[u8]| (bytes.len() <= MAX_BOUND).then(|| Box::from(bytes));
    r.structure(|r, id, kind| {
        match (id, kind) {
            (3, ty::I64) => nulls = u64::try_from(r.i64()?).ok(),
            (5, ty::BINARY) => high = keep(r.bytes()?),
            (6, ty::BINARY) => low = keep(r.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((nulls, low.zip(high)))
}

/// Reads one offset index; the pages come in row order and lie inside the chunk.
pub(crate) fn offset_index(buf: &[u8], rows: u32, chunk: &Chunk) -> Result<Vec<PageSpot>> {
    let wrong = |why| Error::malformed("offset index", why);
    let mut r = Compact::new(buf, "offset index");
    let mut pages: Vec<PageSpot> = Vec::new();
    r.structure(|r, id, kind| {
        if (id, kind) != (1, ty::LIST) {
            return Ok(false);
        }
        let (_, len) = r.list()?;
        pages.reserve(len);
        for _ in 0..len {
            let (mut offset, mut size, mut first_row) = (0, 0, 0);
            r.structure(|r, id, kind| {
                match (id, kind) {
                    (1, ty::I64) => offset = r.unsigned()?,
                    (2, ty::I32) => size = r.unsigned()?,
                    (3, ty::I64) => first_row = r.unsigned()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            let inside =
                offset >= chunk.start && offset.checked_add(size).is_some_and(|end| end <= chunk.start + chunk.size);
            let first_row = u32::try_from(first_row).ok().filter(|row| *row < rows);
            let (Some(first_row), Ok(size), true) = (first_row, u32::try_from(size), inside) else {
                return Err(wrong("page outside of its chunk"));
            };
            let ordered = pages.last().map_or(first_row == 0, |last| last.first_row < first_row);
            if !ordered {
                return Err(wrong("rows are not ascending"));
            }
            pages.push(PageSpot { offset, size, first_row });
        }
        Ok(true)
    })?;
    Ok(pages)
}

/// Smallest and largest value of each page, or none where the index does not say or says that there are only nulls.
pub(crate) fn page_bounds(buf: &[u8]) -> Result<Vec<Option<Bounds>>> {
    let mut r = Compact::new(buf, "column index");
    let (mut null_pages, mut lows, mut highs) = (Vec::new(), Vec::new(), Vec::new());
    r.structure(|r, id, kind| {
        if kind != ty::LIST || !(1..=3).contains(&id) {
            return Ok(false);
        }
        let (_, len) = r.list()?;
        for _ in 0..len {
            match id {
                1 => null_pages.push(r.list_bool()?),
                2 => lows.push(Box::<[u8]>::from(r.bytes()?)),
                _ => highs.push(Box::<[u8]>::from(r.bytes()?)),
            }
        }
        Ok(true)
    })?;
    if null_pages.len() != lows.len() || lows.len() != highs.len() {
        return Err(Error::malformed("column index", "lists of different length"));
    }
    Ok(null_pages
        .into_iter()
        .zip(lows.into_iter().zip(highs))
        .map(|(null, bounds)| (!null).then_some(bounds))
        .collect())
}

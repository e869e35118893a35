//! One column of a block row by row, levels and values as they are stored: for merging blocks without taking traces apart.

use std::sync::Arc;

use super::{
    block::OpenBlock,
    chunk::ChunkReader,
    error::{Error, Result},
    page::{Page, RowSpan},
    rows::RowSet,
    values::{ByteValues, Values, to_usize},
};

/// See the module. Row groups and rows are asked for in ascending order.
pub(crate) struct ColumnRows<'a> {
    block: &'a OpenBlock,
    leaf: usize,
    max_def: u8,
    group: Option<(usize, ChunkReader<'a>)>,
    dictionary: Option<Arc<Values>>,
    page: Option<Page>,
}

/// Some rows of one page.
pub(crate) struct StoredRows<'p> {
    pub(crate) page: &'p Page,
    pub(crate) span: RowSpan,
    /// How many rows there are, at least one.
    pub(crate) rows: u32,
    pub(crate) dictionary: Option<&'p ByteValues>,
}

impl<'a> ColumnRows<'a> {
    pub(crate) fn new(block: &'a OpenBlock, leaf: usize) -> Result<Self> {
        let max_def = block.shape(leaf)?.max_def;
        Ok(Self { block, leaf, max_def, group: None, dictionary: None, page: None })
    }

    /// Rows from `row` of row group `group` on: up to `most`, as many as lie in one page.
    pub(crate) fn at(&mut self, group: usize, row: u32, most: u32) -> Result<StoredRows<'_>> {
        if self.group.as_ref().is_none_or(|(open, _)| *open != group) {
            let mut rest = RowSet::default();
            rest.push_range(row..self.block.row_group(group)?.rows);
            let mut reader = ChunkReader::new(self.block, group, self.leaf, Some(&rest))?;
            self.dictionary = reader.dictionary()?;
            self.page = None;
            self.group = Some((group, reader));
        }
        let Some((_, reader)) = &mut self.group else { return Err(missing()) };
        let holds = |page: &Page| page.first_row <= row && to_usize(row - page.first_row) < page.rows();
        while !self.page.as_ref().is_some_and(holds) {
            self.page = Some(reader.next_page()?.ok_or_else(missing)?);
        }
        let Some(page) = &self.page else { return Err(missing()) };
        let first = to_usize(row - page.first_row);
        let end = (first + to_usize(most)).min(page.rows());
        let dictionary = match self.dictionary.as_deref() {
            Some(Values::Bytes(entries)) => Some(entries),
            _ => None,
        };
        let span = page.span_of(first..end, self.max_def);
        Ok(StoredRows { page, span, rows: u32::try_from(end - first).map_err(|_too_many| missing())?, dictionary })
    }
}

fn missing() -> Error {
    Error::malformed("column chunk", "ends early")
}

/// The ids of all traces of a block, ascending, with the row group and the row of each.
pub(crate) struct TraceIds<'a> {
    block: &'a OpenBlock,
    column: ColumnRows<'a>,
    group: usize,
    row: u32,
}

impl<'a> TraceIds<'a> {
    pub(crate) fn new(block: &'a OpenBlock) -> Result<Self> {
        let column = ColumnRows::new(block, block.schema().columns().trace.trace_id)?;
        Ok(Self { block, column, group: 0, row: 0 })
    }

    /// The next id and where it is, none after the last.
    pub(crate) fn next(&mut self) -> Result<Option<([u8; 16], usize, u32)>> {
        while self.group < self.block.row_groups() && self.row >= self.block.row_group(self.group)?.rows {
            (self.group, self.row) = (self.group + 1, 0);
        }
        if self.group >= self.block.row_groups() {
            return Ok(None);
        }
        let rows = self.column.at(self.group, self.row, 1)?;
        let text = match &rows.page.values {
            Values::Bytes(values) => values.get(rows.span.values.start),
            Values::Ids(ids) => ids.id(rows.span.values.start).and_then(|id| rows.dictionary?.get(to_usize(id))),
            Values::Ints(_) | Values::Doubles(_) | Values::Bools(_) => None,
        };
        let id = text.ok_or_else(missing)?;
        let id = super::record::trace_id(id).0;
        self.row += 1;
        Ok(Some((id, self.group, self.row - 1)))
    }
}

//! All traces of a block in the order of their ids, with the memory of one page for each column.

use bytes::Bytes;
use vivace_protocol::TraceId;

use super::{block::OpenBlock, error::Result, record::RecordReader, rows::RowSet};

/// What is decoded of a row from this size on is not kept while others are read.
const LARGE: usize = 8 << 20;

/// Iterates over all traces as encoded `tempopb.Trace` messages. After an error it ends.
pub struct Rows<'a> {
    block: &'a OpenBlock,
    group: usize,
    end: usize,
    /// The next row of the group.
    row: u32,
    records: Option<RecordReader<'a>>,
    /// See [`LARGE`].
    large: usize,
}

/// All traces of `block`, ascending by id.
pub fn rows(block: &OpenBlock) -> Rows<'_> {
    Rows { block, group: 0, end: block.row_groups(), row: 0, records: None, large: LARGE }
}

impl<'a> Rows<'a> {
    /// The id of the next row, none after the last. Of the row no more than that is read.
    pub(crate) fn next_id(&mut self) -> Result<Option<TraceId>> {
        loop {
            if self.group >= self.end {
                return Ok(None);
            }
            if self.records.is_none() {
                self.records = self.reader()?;
            }
            if let Some(records) = &mut self.records
                && let Some(id) = records.next_id()?
            {
                return Ok(Some(id));
            }
            self.records = None;
            (self.group, self.row) = (self.group + 1, 0);
        }
    }

    /// A reader before the next row of the group, none if there is no such row.
    fn reader(&self) -> Result<Option<RecordReader<'a>>> {
        if self.row == 0 {
            return RecordReader::new(self.block, self.group, None).map(Some);
        }
        let mut left = RowSet::default();
        left.push_range(self.row..self.block.row_group(self.group)?.rows);
        if left.is_empty() {
            return Ok(None);
        }
        let mut records = RecordReader::new(self.block, self.group, Some(&left))?;
        records.seek(self.row)?;
        Ok(Some(records))
    }

    /// The next row in pieces of about `most` bytes, none after the last.
    pub(crate) fn next_in_pieces(&mut self, most: usize) -> Result<Option<(TraceId, Vec<Bytes>)>> {
        if self.next_id()?.is_none() {
            return Ok(None);
        }
        let Some(records) = &mut self.records else { return Ok(None) };
        let row = records.next_row_in_pieces(most)?;
        self.row += 1;
        if row.as_ref().is_some_and(|(_, pieces)| pieces.iter().map(Bytes::len).sum::<usize>() >= self.large) {
            self.records = None;
        }
        Ok(row)
    }

    fn advance(&mut self) -> Result<Option<(TraceId, Bytes)>> {
        let row = self.next_in_pieces(usize::MAX)?;
        Ok(row.map(|(id, mut pieces)| (id, pieces.pop().unwrap_or_default())))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<(TraceId, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.group = self.end;
            self.records = None;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{open_v4, open_v5},
        *,
    };

    #[test]
    fn rows_are_the_same_if_nothing_is_kept_between_them() {
        for block in [open_v5(), open_v4()] {
            let all: Vec<_> = rows(&block).map(Result::unwrap).collect();
            let forgetful = Rows { large: 0, ..rows(&block) };
            assert_eq!(forgetful.map(Result::unwrap).collect::<Vec<_>>(), all);
        }
    }

    #[test]
    fn the_id_of_a_row_can_be_asked_for_before_the_row_and_again() {
        let block = open_v5();
        let mut early = rows(&block);
        for row in rows(&block) {
            let (id, trace) = row.unwrap();
            assert_eq!((early.next_id().unwrap(), early.next_id().unwrap()), (Some(id), Some(id)));
            assert_eq!(early.next_in_pieces(usize::MAX).unwrap(), Some((id, vec![trace])));
        }
        assert_eq!((early.next_id().unwrap(), early.next_in_pieces(1).unwrap()), (None, None));
    }
}

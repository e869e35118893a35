//! All traces of a block in the order of their ids, with the memory of one page for each column.

use bytes::Bytes;
use vivace_protocol::TraceId;

use super::{block::OpenBlock, error::Result, record::RecordReader};

/// Iterates over all traces as encoded `tempopb.Trace` messages. After an error it ends.
pub struct Rows<'a> {
    block: &'a OpenBlock,
    group: usize,
    end: usize,
    records: Option<RecordReader<'a>>,
}

/// All traces of `block`, ascending by id.
pub fn rows(block: &OpenBlock) -> Rows<'_> {
    Rows { block, group: 0, end: block.row_groups(), records: None }
}

impl Rows<'_> {
    fn advance(&mut self) -> Result<Option<(TraceId, Bytes)>> {
        loop {
            if let Some(records) = &mut self.records {
                if let Some(row) = records.next_row()? {
                    return Ok(Some(row));
                }
                self.records = None;
                self.group += 1;
            }
            if self.group >= self.end {
                return Ok(None);
            }
            self.records = Some(RecordReader::new(self.block, self.group, None)?);
        }
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

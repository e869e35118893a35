//! A row group out of columns that are levels and values already: what merging blocks writes.

use super::{
    BlockWriter, Error,
    chunk::Chunk,
    node::{Presence, cut_parts, put_levels},
    values::Values,
};
use crate::read::{StoredRows, StoredValues as Stored};

/// Takes the entries of one leaf, row after row.
pub(crate) struct LeafWriter<'w> {
    chunk: Chunk,
    rep: Vec<u8>,
    def: Vec<u8>,
    rows: u64,
    first_row: u64,
    body: Vec<u8>,
    room: &'w mut super::node::PageRoom,
    page_bytes: usize,
    page_entries: usize,
}

/// Numbers of the entries of a source's dictionary in the one that is written, as far as they were met.
pub(crate) type Numbers = Vec<u32>;

const UNKNOWN: u32 = u32::MAX;

impl LeafWriter<'_> {
    /// Appends rows; `numbers` belongs to their dictionary.
    pub(crate) fn append(&mut self, stored: &StoredRows<'_>, numbers: &mut Numbers) -> Result<(), Error> {
        let entries = stored.span.entries.clone();
        if self.chunk.max_rep > 0 {
            self.rep.extend(stored.page.rep.iter(entries.clone()));
        }
        if self.chunk.max_def > 0 {
            self.def.extend(stored.page.def.iter(entries));
        } else {
            // Counted all the same: levels of a page without any are its values.
            self.def.resize(self.def.len() + entries.len(), 0);
        }
        append_values(&mut self.chunk.values, stored, numbers);
        self.rows += u64::from(stored.rows);
        if self.def.len() >= self.page_entries || self.chunk.values.pending_bytes() >= self.page_bytes {
            self.cut_page()?;
        }
        Ok(())
    }

    fn cut_page(&mut self) -> Result<(), Error> {
        if self.def.is_empty() {
            return Ok(());
        }
        let (max_rep, max_def) = (self.chunk.max_rep, self.chunk.max_def);
        if self.chunk.lists_rows() {
            let entries = self.rep.iter().zip(&self.def);
            let entries = entries.map(|(rep, def)| (*rep == 0, usize::from(*def == max_def)));
            self.chunk.note_rows(self.first_row, entries);
        }
        if self.chunk.parts > 1 {
            cut_parts(&mut self.chunk, (&self.rep, &self.def), self.first_row, self.room)?;
            self.rep.clear();
            self.def.clear();
            self.first_row = self.rows;
            return Ok(());
        }
        self.body.clear();
        if max_rep > 0 {
            put_levels(&self.rep, max_rep, &mut self.body);
        }
        if max_def > 0 {
            put_levels(&self.def, max_def, &mut self.body);
        }
        let nulls = self.def.iter().filter(|def| **def < max_def).count();
        let room = (&mut self.body, &mut self.room.compressor);
        self.chunk.finish_page(self.def.len(), nulls, self.first_row, room)?;
        self.rep.clear();
        self.def.clear();
        self.first_row = self.rows;
        Ok(())
    }
}

fn append_values(to: &mut Values, stored: &StoredRows<'_>, numbers: &mut Numbers) {
    let range = stored.span.values.clone();
    match (&stored.page.values, to) {
        (Stored::Ids(ids), Values::Dictionary { ids: out, dictionary }) => {
            let Some(entries) = stored.dictionary else { return };
            numbers.resize(entries.len(), UNKNOWN);
            for id in range.filter_map(|at| ids.id(at)) {
                let at = id as usize;
                if numbers[at] == UNKNOWN {
                    numbers[at] = dictionary.intern(entries.get(at).unwrap_or_default());
                }
                out.push(numbers[at]);
            }
        }
        (Stored::Ids(ids), to) => {
            let texts = range.filter_map(|at| stored.dictionary?.get(ids.id(at)? as usize));
            texts.for_each(|text| to.push_text(text));
        }
        (Stored::Bytes(values), to) => range.filter_map(|at| values.get(at)).for_each(|text| to.push_text(text)),
        (Stored::Ints(ints), Values::Int64 { values, .. }) => ints.extend(range, values),
        (Stored::Ints(ints), to) => {
            range.filter_map(|at| ints.get(at)).for_each(|int| to.push_i32(low_word(int)));
        }
        (Stored::Doubles(doubles), to) => doubles[range].iter().for_each(|double| to.push_double(*double)),
        (Stored::Bools(bools), to) => bools[range].iter().for_each(|value| to.push_bool(*value)),
    }
}

/// The low half of an integer, as a column of 32 bits has it.
fn low_word(int: i64) -> i32 {
    let [a, b, c, d, ..] = int.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

impl BlockWriter {
    /// Adds a row group: the rows with these ids, whose entries `fill` appends for one leaf after the other.
    ///
    /// # Errors
    /// As for adding a trace, and those of `fill`.
    pub(crate) fn add_columns<E: From<Error>>(
        &mut self,
        ids: &[[u8; 16]],
        mut fill: impl FnMut(usize, &mut LeafWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(last) = ids.last() else { return Ok(()) };
        let mut offset = self.footer.position();
        let mut closed = Vec::with_capacity(self.schema.leaves().len());
        for (leaf, of) in self.schema.leaves().iter().enumerate() {
            let mut writer = LeafWriter {
                chunk: Chunk::new(leaf, of, Presence::Always),
                rep: Vec::new(),
                def: Vec::new(),
                rows: 0,
                first_row: 0,
                body: Vec::new(),
                room: &mut self.room,
                page_bytes: self.spec.page_bytes,
                page_entries: self.spec.page_entries,
            };
            fill(leaf, &mut writer)?;
            writer.cut_page()?;
            let LeafWriter { mut chunk, rows, .. } = writer;
            assert_eq!(rows, ids.len() as u64, "every leaf gets every row");
            let descriptor = self.schema.descriptor().column(leaf);
            let chunk = chunk.close(offset, rows, descriptor, &mut self.room.compressor)?;
            offset += chunk.size();
            closed.push(chunk);
        }
        self.footer.add_row_group(&self.schema, ids.len() as u64, closed)?;
        self.index.last_ids.push(*last);
        self.ids.extend_from_slice(ids);
        Ok(())
    }
}

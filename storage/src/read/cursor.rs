//! Walks the entries of one column chunk in order: levels and values side by side.

use super::{
    bits::{BLOCK, ones_in},
    block::OpenBlock,
    chunk::ChunkReader,
    error::{Error, Result},
    levels::blocks,
    page::Page,
    rows::RowSet,
    values::{Values, to_usize},
};

/// A position between entries of a column chunk.
pub(crate) struct Cursor<'a> {
    reader: ChunkReader<'a>,
    page: Option<Page>,
    entry: usize,
    value: usize,
    max_def: u8,
    done: bool,
    /// Levels of the entries around `entry`, and of which these are.
    rep: [u8; BLOCK],
    def: [u8; BLOCK],
    unpacked: Option<usize>,
}

impl<'a> Cursor<'a> {
    /// Before the first entry of the pages that hold `rows`.
    pub(crate) fn new(block: &'a OpenBlock, group: usize, leaf: usize, rows: Option<&RowSet>) -> Result<Self> {
        let reader = ChunkReader::new(block, group, leaf, rows)?;
        let max_def = reader.shape().max_def;
        let (rep, def) = ([0; BLOCK], [0; BLOCK]);
        Ok(Self { reader, page: None, entry: 0, value: 0, max_def, done: false, rep, def, unpacked: None })
    }

    pub(crate) fn reader(&mut self) -> &mut ChunkReader<'a> {
        &mut self.reader
    }

    /// Repetition and definition level of the next entry, none at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<(u8, u8)>> {
        loop {
            if let Some(page) = &self.page
                && self.entry < page.len
            {
                let block = self.entry / BLOCK;
                if self.unpacked != Some(block) {
                    page.rep.unpack(block, &mut self.rep);
                    page.def.unpack(block, &mut self.def);
                    self.unpacked = Some(block);
                }
                return Ok(Some((self.rep[self.entry % BLOCK], self.def[self.entry % BLOCK])));
            }
            if self.done || !self.load()? {
                return Ok(None);
            }
        }
    }

    fn load(&mut self) -> Result<bool> {
        self.page = self.reader.next_page()?;
        self.entry = 0;
        self.value = 0;
        self.unpacked = None;
        self.done = self.page.is_none();
        Ok(!self.done)
    }

    /// Steps over the next entry, which [`Self::peek`] has shown.
    #[inline]
    pub(crate) fn advance(&mut self) {
        if self.page.is_some() {
            self.value += usize::from(self.def[self.entry % BLOCK] == self.max_def);
            self.entry += 1;
        }
    }

    /// Steps over so many elements of the list at `level`, of which [`Self::peek`] has shown the first entry of the first. At the end
    /// of the chunk it stops.
    pub(crate) fn skip(&mut self, elements: usize, level: u8) -> Result<()> {
        // The element that the cursor stands at begins here, the others where the level says so.
        let (mut left, mut behind) = (elements, 1);
        while left > 0 {
            if self.peek()?.is_none() {
                return Ok(());
            }
            let Some(page) = &self.page else { return Err(inconsistent()) };
            match page.rep.nth_at_most(level, self.entry + behind, left - 1) {
                Ok(entry) => {
                    let present = |(block, within)| ones_in(page.def.at_least(block, self.max_def) & within);
                    let passed = self.entry..entry;
                    self.value += if page.def.is_empty() { passed.len() } else { blocks(passed).map(present).sum() };
                    self.entry = entry;
                    return Ok(());
                }
                Err(begun) => {
                    left -= begun;
                    // The element goes on, or the next one begins, with the next page.
                    (self.entry, behind) = (page.len, 0);
                }
            }
        }
        Ok(())
    }

    /// Moves to the first entry of `row`, which is not behind the cursor.
    pub(crate) fn seek(&mut self, row: u32) -> Result<()> {
        loop {
            let Some(page) = &self.page else {
                if !self.load()? {
                    return Err(inconsistent());
                }
                continue;
            };
            let wanted = row.checked_sub(page.first_row).map(to_usize).ok_or_else(inconsistent)?;
            // Entries before the first that begins a row belong to a row of the page before.
            let entry = if page.rep.is_empty() {
                Some(wanted).filter(|entry| *entry < page.len)
            } else {
                page.rep.nth_zero(wanted)
            };
            if let Some(entry) = entry {
                self.entry = entry;
                let present = |(block, within)| ones_in(page.def.at_least(block, self.max_def) & within);
                self.value = if page.def.is_empty() { entry } else { blocks(0..entry).map(present).sum() };
                return Ok(());
            }
            if !self.load()? {
                return Err(inconsistent());
            }
        }
    }

    /// The byte string of the next entry, which has a value.
    pub(crate) fn bytes(&self) -> Result<&[u8]> {
        let bytes = match self.page.as_ref().map(|page| &page.values) {
            Some(Values::Bytes(values)) => values.get(self.value),
            Some(Values::Ids(ids)) => {
                let id = ids.id(self.value).map(to_usize);
                id.and_then(|id| self.reader.byte_dictionary()?.get(id))
            }
            _ => None,
        };
        bytes.ok_or_else(inconsistent)
    }

    /// The integer of the next entry, which has a value.
    pub(crate) fn int(&self) -> Result<i64> {
        match self.page.as_ref().map(|page| &page.values) {
            Some(Values::Ints(values)) => values.get(self.value).ok_or_else(inconsistent),
            _ => Err(inconsistent()),
        }
    }

    /// The double of the next entry, which has a value.
    pub(crate) fn double(&self) -> Result<f64> {
        match self.page.as_ref().map(|page| &page.values) {
            Some(Values::Doubles(values)) => values.get(self.value).copied().ok_or_else(inconsistent),
            _ => Err(inconsistent()),
        }
    }

    /// The boolean of the next entry, which has a value.
    pub(crate) fn boolean(&self) -> Result<bool> {
        match self.page.as_ref().map(|page| &page.values) {
            Some(Values::Bools(values)) => values.get(self.value).copied().ok_or_else(inconsistent),
            _ => Err(inconsistent()),
        }
    }
}

/// The columns of a row do not agree on its shape.
pub(crate) fn inconsistent() -> Error {
    Error::malformed("row", "columns disagree about its shape")
}

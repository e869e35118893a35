//! Reads the pages of one column chunk: by the offset index where the file has one, else one after the other.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    block::OpenBlock,
    error::{Error, Result},
    footer::{Chunk, PageSpot},
    page::{LeafShape, Page, PageHeader},
    rows::RowSet,
    values::{ByteValues, Values},
};

/// Bytes read at once when several wanted pages lie side by side.
const READ_AHEAD: u64 = 1 << 20;
/// Unwanted bytes that are read rather than asking twice.
pub(crate) const READ_THROUGH: u64 = 64 << 10;
/// First guess for a page header whose length nobody says.
const HEADER_GUESS: u64 = 64 << 10;

/// The pages of one column chunk in row order.
pub(crate) struct ChunkReader<'a> {
    block: &'a OpenBlock,
    chunk: &'a Chunk,
    shape: LeafShape,
    rows: u32,
    dictionary: Option<Arc<Values>>,
    dictionary_read: bool,
    /// Pages to read when there is an offset index.
    queue: VecDeque<usize>,
    /// Where the next header lies when there is none, the row it begins with and the entries seen.
    at: u64,
    row: u32,
    seen: u64,
    windows: SmallVec<[(u64, Bytes); 2]>,
    /// Bytes fetched so far.
    pub(crate) bytes_read: u64,
    /// Pages decoded so far.
    pub(crate) pages_read: u32,
    /// Reads of the file so far, those for several columns at once left out.
    pub(crate) requests: u32,
}

impl<'a> ChunkReader<'a> {
    /// A reader of the pages that hold any of `rows`; all pages for `None`.
    pub(crate) fn new(block: &'a OpenBlock, group: usize, leaf: usize, rows: Option<&RowSet>) -> Result<Self> {
        let row_group = block.row_group(group)?;
        let chunk = row_group.chunks.get(leaf).ok_or_else(|| malformed("no such column"))?;
        let spots = &chunk.pages;
        let queue = match rows {
            None => (0..spots.len()).collect(),
            Some(rows) => {
                (0..spots.len()).filter(|page| rows.overlaps(page_rows(spots, *page, row_group.rows))).collect()
            }
        };
        Ok(Self {
            block,
            chunk,
            shape: block.shape(leaf)?,
            rows: row_group.rows,
            dictionary: None,
            dictionary_read: false,
            queue,
            at: chunk.start,
            row: 0,
            seen: 0,
            windows: SmallVec::new(),
            bytes_read: 0,
            pages_read: 0,
            requests: 0,
        })
    }

    pub(crate) fn shape(&self) -> LeafShape {
        self.shape
    }

    /// Data pages of the chunk, when that is known.
    pub(crate) fn page_count(&self) -> usize {
        self.chunk.pages.len()
    }

    /// Whether single pages can be read.
    pub(crate) fn has_index(&self) -> bool {
        !self.chunk.pages.is_empty()
    }

    /// The pages that hold any of `rows`, none when the file has no offset index.
    pub(crate) fn page_numbers(&self, rows: &RowSet) -> Option<Vec<usize>> {
        let spots = &self.chunk.pages;
        let holds = |page: &usize| rows.overlaps(page_rows(spots, *page, self.rows));
        (!spots.is_empty()).then(|| (0..spots.len()).filter(holds).collect())
    }

    /// Where the dictionary lies that is still to be read.
    pub(crate) fn dictionary_place(&self) -> Option<Range<u64>> {
        let first = self.chunk.pages.first().filter(|_| !self.dictionary_read)?;
        (self.chunk.start < first.offset).then_some(self.chunk.start..first.offset)
    }

    /// Where a page lies.
    pub(crate) fn page_place(&self, number: usize) -> Option<Range<u64>> {
        self.chunk.pages.get(number).map(|spot| spot.offset..spot.offset + u64::from(spot.size))
    }

    /// What was read ahead and nobody has looked at.
    pub(crate) fn ahead_read(&mut self) -> SmallVec<[(u64, Bytes); 2]> {
        std::mem::take(&mut self.windows)
    }

    /// Hands over what another reader of the same chunk has read ahead.
    pub(crate) fn set_ahead_read(&mut self, windows: SmallVec<[(u64, Bytes); 2]>) {
        self.windows = windows;
    }

    /// The pages to read next.
    pub(crate) fn set_queue(&mut self, pages: impl Iterator<Item = usize>) {
        self.queue = pages.collect();
    }

    /// The byte ranges that reading will ask for first, for fetching those of many columns at once.
    pub(crate) fn wanted(&self) -> SmallVec<[Range<u64>; 2]> {
        let end = self.chunk.start + self.chunk.size;
        let mut wanted = SmallVec::new();
        let Some(&first) = self.queue.front() else {
            if self.chunk.pages.is_empty() && self.chunk.size <= READ_AHEAD {
                wanted.push(self.chunk.start..end);
            }
            return wanted;
        };
        let spots = &self.chunk.pages;
        if spots[0].offset > self.chunk.start {
            wanted.push(self.chunk.start..spots[0].offset);
        }
        wanted.push(spots[first].offset..spots[first].offset + u64::from(spots[first].size));
        wanted
    }

    /// Hands over bytes that were fetched because of [`Self::wanted`].
    pub(crate) fn give(&mut self, start: u64, bytes: Bytes) {
        self.bytes_read += len(&bytes);
        self.windows.push((start, bytes));
    }

    /// The dictionary of the chunk, none when its values are written out.
    pub(crate) fn dictionary(&mut self) -> Result<Option<Arc<Values>>> {
        if self.dictionary_read {
            return Ok(self.dictionary.clone());
        }
        self.dictionary_read = true;
        let first = self.chunk.pages.first().map(|spot| spot.offset);
        if first == Some(self.chunk.start) || self.chunk.size == 0 {
            return Ok(None);
        }
        let (header, body) = match first {
            Some(end) => {
                let whole = self.bytes(self.chunk.start..end)?;
                self.split(&whole)?
            }
            None => {
                let header = self.header(self.chunk.start, self.chunk.start + self.chunk.size)?;
                if !header.is_dictionary() {
                    return Ok(None);
                }
                let body = self.body(self.chunk.start, &header)?;
                (header, body)
            }
        };
        if header.is_dictionary() {
            let body = self.owned(&header, &body);
            self.dictionary = Some(Arc::new(header.decode_dictionary(self.shape.physical, self.chunk.codec, &body)?));
        }
        Ok(self.dictionary.clone())
    }

    /// Hands over the chunk's dictionary, or that it has none.
    pub(crate) fn set_dictionary(&mut self, dictionary: Option<Arc<Values>>) {
        self.dictionary = dictionary;
        self.dictionary_read = true;
    }

    pub(crate) fn dictionary_is_read(&self) -> bool {
        self.dictionary_read
    }

    /// Stored size of a data page.
    pub(crate) fn page_bytes(&self, number: usize) -> u64 {
        self.chunk.pages.get(number).map_or(0, |spot| u64::from(spot.size))
    }

    /// The dictionary when it holds byte strings and has been read.
    #[inline]
    pub(crate) fn byte_dictionary(&self) -> Option<&ByteValues> {
        match self.dictionary.as_deref() {
            Some(Values::Bytes(entries)) => Some(entries),
            _ => None,
        }
    }

    /// The next wanted page, none after the last.
    pub(crate) fn next_page(&mut self) -> Result<Option<Page>> {
        if self.chunk.pages.is_empty() { self.next_sequential() } else { self.next_indexed() }
    }

    fn next_indexed(&mut self) -> Result<Option<Page>> {
        let Some(number) = self.queue.pop_front() else { return Ok(None) };
        let spot = self.chunk.pages[number];
        let whole = self.bytes(spot.offset..spot.offset + u64::from(spot.size))?;
        let (header, body) = self.split(&whole)?;
        if !header.is_data() {
            return Err(malformed("the offset index points at no data page"));
        }
        let mut page = self.decode(&header, &body)?;
        if self.queue.is_empty() {
            // Small ones may hold pages that are asked for later.
            self.windows.retain(|(_, bytes)| len(bytes) <= READ_THROUGH);
        }
        page.first_row = spot.first_row;
        let expected = page_rows(&self.chunk.pages, number, self.rows);
        let starts_row = page.rep.get(0).is_none_or(|rep| rep == 0);
        if !starts_row || page.rows() != expected.len() {
            return Err(malformed("a page has other rows than the offset index says"));
        }
        Ok(Some(page))
    }

    fn next_sequential(&mut self) -> Result<Option<Page>> {
        let end = self.chunk.start + self.chunk.size;
        // The dictionary comes first, wherever the footer says the data begins.
        self.dictionary()?;
        while self.at < end && self.seen < self.chunk.values {
            let at = self.at;
            let header = self.header(at, end)?;
            self.at = at + len_u64(header.len) + len_u64(header.compressed_size);
            if self.at > end {
                return Err(malformed("page past the end of its chunk"));
            }
            if !header.is_data() {
                self.forget_before(self.at);
                continue;
            }
            let body = self.body(at, &header)?;
            let mut page = self.decode(&header, &body)?;
            self.forget_before(self.at);
            page.first_row = self.row;
            self.seen += len_u64(page.len);
            let begun = u32::try_from(page.rows()).map_err(|_too_many| malformed("too many rows"))?;
            self.row = self
                .row
                .checked_add(begun)
                .filter(|row| *row <= self.rows)
                .ok_or_else(|| malformed("too many rows"))?;
            return Ok(Some(page));
        }
        Ok(None)
    }

    fn decode(&mut self, header: &PageHeader, body: &Bytes) -> Result<Page> {
        self.pages_read += 1;
        let (shape, codec) = (self.shape, self.chunk.codec);
        let body = self.owned(header, body);
        header.decode_data(shape, codec, &body, || self.dictionary())
    }

    /// The body of a page, which what is decoded may hold on to.
    fn owned(&self, header: &PageHeader, body: &Bytes) -> Bytes {
        let copies = header.is_stored_plainly(self.chunk.codec) && self.block.data().lends();
        if copies { Bytes::copy_from_slice(body) } else { body.clone() }
    }

    /// Header and body of a page whose bytes are all at hand.
    fn split(&self, whole: &Bytes) -> Result<(PageHeader, Bytes)> {
        let header = PageHeader::parse(whole)?;
        let end = header.len.checked_add(header.compressed_size).filter(|end| *end <= whole.len());
        let body = whole.slice(header.len..end.ok_or_else(|| malformed("page past the end of its place"))?);
        if self.block.verifies() {
            header.verify(&body)?;
        }
        Ok((header, body))
    }

    fn header(&mut self, at: u64, end: u64) -> Result<PageHeader> {
        let mut guess = HEADER_GUESS;
        loop {
            let bytes = self.bytes(at..end.min(at.saturating_add(guess)))?;
            match PageHeader::parse(&bytes) {
                Ok(header) => return Ok(header),
                // Statistics in a header may be longer than the guess.
                Err(_) if at.saturating_add(guess) < end => guess = guess.saturating_mul(8),
                Err(error) => return Err(error),
            }
        }
    }

    fn body(&mut self, at: u64, header: &PageHeader) -> Result<Bytes> {
        let start = at + len_u64(header.len);
        let end = start + len_u64(header.compressed_size);
        if end > self.chunk.start + self.chunk.size {
            return Err(malformed("page past the end of its chunk"));
        }
        let body = self.bytes(start..end)?;
        if self.block.verifies() {
            header.verify(&body)?;
        }
        Ok(body)
    }

    /// The bytes of `range`, read with those behind them that will be wanted too.
    fn bytes(&mut self, range: Range<u64>) -> Result<Bytes> {
        for (start, bytes) in &self.windows {
            let offset = range.start.checked_sub(*start).and_then(|offset| usize::try_from(offset).ok());
            let size = usize::try_from(range.end - range.start).ok();
            if let Some((offset, end)) = offset.and_then(|offset| Some((offset, offset.checked_add(size?)?)))
                && end <= bytes.len()
            {
                return Ok(bytes.slice(offset..end));
            }
        }
        let until = self.ahead(&range);
        let bytes = self.block.data().read(range.start..until)?;
        self.requests += 1;
        self.bytes_read += len(&bytes);
        self.windows.clear();
        self.windows.push((range.start, bytes.clone()));
        let size =
            usize::try_from(range.end - range.start).map_err(|_too_big| malformed("page does not fit memory"))?;
        Ok(bytes.slice(..size))
    }

    /// Where a read that begins with `range` should end.
    fn ahead(&self, range: &Range<u64>) -> u64 {
        let chunk_end = self.chunk.start + self.chunk.size;
        let limit = range.start.saturating_add(READ_AHEAD.min(self.block.data().read_ahead()));
        let mut until = range.end;
        if chunk_end.saturating_sub(range.start) <= READ_THROUGH {
            return chunk_end.max(until);
        }
        if self.chunk.pages.is_empty() {
            return until.max(limit.min(chunk_end));
        }
        for page in &self.queue {
            let spot: PageSpot = self.chunk.pages[*page];
            let end = spot.offset + u64::from(spot.size);
            if end <= until {
                continue;
            }
            if spot.offset > until.saturating_add(READ_THROUGH) || end > limit {
                break;
            }
            until = end;
        }
        until
    }

    fn forget_before(&mut self, at: u64) {
        self.windows.retain(|(start, bytes)| *start + len(bytes) > at);
    }
}

fn len(bytes: &Bytes) -> u64 {
    len_u64(bytes.len())
}

/// A length in memory as a length in a file.
pub(crate) fn len_u64(len: usize) -> u64 {
    len as u64
}

/// Rows of page `number`.
fn page_rows(spots: &[PageSpot], number: usize, rows: u32) -> Range<u32> {
    let end = spots.get(number + 1).map_or(rows, |next| next.first_row);
    spots[number].first_row..end
}

fn malformed(why: &'static str) -> Error {
    Error::malformed("column chunk", why)
}

//! Which rows the rare entries of a dictionary are in, as the writer notes it beside a column: a search for few values reads the pages
//! of these rows, where it would have to read all.
//!
//! ```text
//! entries u32 · rows u32 · where every 32nd entry begins, in bits, u32 each · the entries, packed · CRC-32 of all that, u32
//! entry: in how many rows it is, 6 bits, 0 if these are not listed · for each row how many lie between it and the one before
//! ```
//!
//! How many lie between is a Rice code: the quotient in ones, a zero, the rest in [`rest_bits`]. Bits are filled from the lowest on.

use bytes::Bytes;

use super::{
    error::{Error, Result},
    rows::RowSet,
    values::to_usize,
};

/// Under this name the metadata of a file say where its lists are: a line for each, with row group, leaf, offset and length.
pub(crate) const KEY: &str = "vivace.rare-rows.1";
/// Bytes before the places of entries.
pub(crate) const HEAD: usize = 8;
/// So many entries share a place that is noted.
pub(crate) const STRIDE: usize = 32;
/// Bits of the number of rows.
pub(crate) const COUNT_BITS: u32 = 6;
/// An entry in more rows than this is not rare.
pub(crate) const MOST_ROWS: u32 = (1 << COUNT_BITS) - 1;
/// Longest run of ones that is looked at together.
const RUN: u32 = 56;

/// Bits of the rest of a distance, for an entry that is in so many of the rows.
pub(crate) fn rest_bits(rows: u32, listed: u32) -> u32 {
    (rows / (listed + 1)).max(1).ilog2()
}

/// The list of one chunk.
#[derive(Debug)]
pub(crate) struct RareRows {
    /// Without the checksum.
    body: Bytes,
    entries: usize,
    rows: u32,
}

impl RareRows {
    /// The list in `bytes`, for a dictionary of `entries` and a row group of `rows`.
    pub(crate) fn new(bytes: &Bytes, entries: usize, rows: u32) -> Result<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| malformed("ends early"))?;
        let mut found = flate2::Crc::new();
        found.update(body);
        if found.sum() != u32::from_le_bytes(*sum) {
            return Err(malformed("checksum differs"));
        }
        let list = Self { body: bytes.slice(..body.len()), entries, rows };
        let fits = list.number(0).map(to_usize) == Some(entries) && list.number(4) == Some(rows);
        if !fits || list.packed().is_none() {
            return Err(malformed("of another dictionary or row group"));
        }
        Ok(list)
    }

    fn number(&self, at: usize) -> Option<u32> {
        self.body.get(at..)?.first_chunk::<4>().map(|word| u32::from_le_bytes(*word))
    }

    fn packed(&self) -> Option<&[u8]> {
        self.body.get(HEAD + self.entries.div_ceil(STRIDE) * 4..)
    }

    /// The rows that hold any of these entries, which ascend; none when one of them is not listed.
    pub(crate) fn rows_of(&self, wanted: impl Iterator<Item = usize>) -> Result<Option<RowSet>> {
        let mut bits = Bits { data: self.packed().unwrap_or_default(), at: 0 };
        let mut found = Vec::new();
        // The entry that the walk stands before.
        let mut next = None;
        for entry in wanted {
            if entry >= self.entries {
                return Err(malformed("an entry is missing"));
            }
            let mut at = match next {
                Some(next) if next <= entry && next / STRIDE == entry / STRIDE => next,
                _ => {
                    let place = self.number(HEAD + entry / STRIDE * 4).ok_or_else(|| malformed("ends early"))?;
                    bits.at = to_usize(place);
                    entry / STRIDE * STRIDE
                }
            };
            while at < entry {
                self.entry(&mut bits, |_| {})?;
                at += 1;
            }
            if self.entry(&mut bits, |row| found.push(row))? == 0 {
                return Ok(None);
            }
            next = Some(at + 1);
        }
        found.sort_unstable();
        let mut rows = RowSet::default();
        found.into_iter().for_each(|row| rows.push(row));
        Ok(Some(rows))
    }

    /// Reads an entry; answers how many rows it lists.
    fn entry(&self, bits: &mut Bits<'_>, mut each: impl FnMut(u32)) -> Result<u32> {
        let count = bits.take(COUNT_BITS)?;
        let rest = rest_bits(self.rows, count);
        let mut from = 0u64;
        for _ in 0..count {
            let quotient = bits.ones()?;
            let row = from + (u64::from(quotient) << rest) + u64::from(bits.take(rest)?);
            let row = u32::try_from(row).ok().filter(|row| *row < self.rows);
            let row = row.ok_or_else(|| malformed("a row past the last"))?;
            each(row);
            from = u64::from(row) + 1;
        }
        Ok(count)
    }
}

/// Reads bit by bit.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// At least 57 bits from here on, as far as there are so many.
    fn word(&self) -> u64 {
        let rest = self.data.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        word >> (self.at % 8)
    }

    fn pass(&mut self, bits: u32) -> Result<()> {
        self.at += to_usize(bits);
        if self.at <= self.data.len() * 8 { Ok(()) } else { Err(malformed("ends early")) }
    }

    /// A number of at most 32 bits.
    fn take(&mut self, bits: u32) -> Result<u32> {
        let number = self.word() & ((1 << bits) - 1);
        self.pass(bits)?;
        u32::try_from(number).map_err(|_too_big| malformed("a number is too large"))
    }

    /// How many ones there are before the next zero, which is passed too.
    fn ones(&mut self) -> Result<u32> {
        let mut count = 0;
        loop {
            let run = self.word().trailing_ones().min(RUN);
            count += run;
            if run < RUN {
                self.pass(run + 1)?;
                return Ok(count);
            }
            self.pass(run)?;
        }
    }
}

fn malformed(why: &'static str) -> Error {
    Error::malformed("list of rows of rare values", why)
}

#[cfg(test)]
mod tests;

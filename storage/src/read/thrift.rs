//! The part of Thrift's compact protocol that Parquet footers, indexes and page headers use, read from a slice without allocating.

use super::error::{Error, Result};

/// Nested structures deeper than this are refused; Parquet needs about six.
const MAX_DEPTH: u8 = 16;

/// Wire type of a field or list element.
pub(crate) mod ty {
    pub(crate) const TRUE: u8 = 1;
    pub(crate) const FALSE: u8 = 2;
    pub(crate) const BYTE: u8 = 3;
    pub(crate) const I16: u8 = 4;
    pub(crate) const I32: u8 = 5;
    pub(crate) const I64: u8 = 6;
    pub(crate) const DOUBLE: u8 = 7;
    pub(crate) const BINARY: u8 = 8;
    pub(crate) const LIST: u8 = 9;
    pub(crate) const SET: u8 = 10;
    pub(crate) const MAP: u8 = 11;
    pub(crate) const STRUCT: u8 = 12;
    pub(crate) const UUID: u8 = 13;
}

/// A cursor over compact-protocol bytes.
pub(crate) struct Compact<'a> {
    buf: &'a [u8],
    pos: usize,
    what: &'static str,
}

impl<'a> Compact<'a> {
    /// `what` names the part of the file in errors.
    pub(crate) fn new(buf: &'a [u8], what: &'static str) -> Self {
        Self { buf, pos: 0, what }
    }

    pub(crate) fn position(&self) -> usize {
        self.pos
    }

    pub(crate) fn error(&self, why: &'static str) -> Error {
        Error::malformed(self.what, why)
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.buf.get(self.pos).ok_or_else(|| self.error("ends early"))?;
        self.pos += 1;
        Ok(byte)
    }

    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error("varint is too long"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        let raw = self.varint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        i32::try_from(self.i64()?).map_err(|_out_of_range| self.error("number does not fit 32 bits"))
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64> {
        u64::try_from(self.i64()?).map_err(|_negative| self.error("negative size or offset"))
    }

    pub(crate) fn size(&mut self) -> Result<usize> {
        usize::try_from(self.unsigned()?).map_err(|_too_big| self.error("size does not fit"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = usize::try_from(self.varint()?).map_err(|_too_big| self.error("length does not fit"))?;
        let end = self.pos.checked_add(len).ok_or_else(|| self.error("length overflows"))?;
        let slice = self.buf.get(self.pos..end).ok_or_else(|| self.error("ends early"))?;
        self.pos = end;
        Ok(slice)
    }

    /// Header of a list: element type and length. The length never exceeds the bytes left, so it is safe to reserve for.
    pub(crate) fn list(&mut self) -> Result<(u8, usize)> {
        let head = self.byte()?;
        let len = match head >> 4 {
            15 => usize::try_from(self.varint()?).map_err(|_too_big| self.error("length does not fit"))?,
            short => usize::from(short),
        };
        if len > self.buf.len() - self.pos {
            return Err(self.error("list is longer than its bytes"));
        }
        Ok((head & 0x0f, len))
    }

    /// One element of a list of booleans.
    pub(crate) fn list_bool(&mut self) -> Result<bool> {
        Ok(self.byte()? == ty::TRUE)
    }

    /// Calls `field(reader, id, type)` for every field of the structure at the cursor. It answers true when it consumed the value (for
    /// booleans there is nothing to consume), false to have it skipped.
    pub(crate) fn structure(&mut self, mut field: impl FnMut(&mut Self, i16, u8) -> Result<bool>) -> Result<()> {
        let mut last = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            let id = match head >> 4 {
                0 => i16::try_from(self.i64()?).map_err(|_too_big| self.error("field id does not fit"))?,
                delta => last.checked_add(i16::from(delta)).ok_or_else(|| self.error("field id overflows"))?,
            };
            last = id;
            let kind = head & 0x0f;
            if !field(self, id, kind)? {
                self.skip(kind, 0)?;
            }
        }
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        match kind {
            ty::TRUE | ty::FALSE => {}
            ty::BYTE => {
                self.byte()?;
            }
            ty::I16 | ty::I32 | ty::I64 => {
                self.varint()?;
            }
            ty::DOUBLE => self.advance(8)?,
            ty::UUID => self.advance(16)?,
            ty::BINARY => {
                self.bytes()?;
            }
            ty::LIST | ty::SET => {
                let (element, len) = self.list()?;
                for _ in 0..len {
                    self.skip_element(element, depth)?;
                }
            }
            ty::MAP => {
                let len = self.varint()?;
                if len > 0 {
                    let kinds = self.byte()?;
                    for _ in 0..len {
                        self.skip_element(kinds >> 4, depth)?;
                        self.skip_element(kinds & 0x0f, depth)?;
                    }
                }
            }
            ty::STRUCT => loop {
                let head = self.byte()?;
                if head == 0 {
                    return Ok(());
                }
                if head >> 4 == 0 {
                    self.varint()?;
                }
                self.skip(head & 0x0f, depth + 1)?;
            },
            _ => return Err(self.error("unknown type")),
        }
        Ok(())
    }

    /// Takes at least one byte, so that no length, however large, is walked further than the bytes go.
    fn skip_element(&mut self, kind: u8, depth: u8) -> Result<()> {
        match kind {
            ty::TRUE | ty::FALSE => self.advance(1),
            other => self.skip(other, depth + 1),
        }
    }

    fn advance(&mut self, len: usize) -> Result<()> {
        if len > self.buf.len() - self.pos {
            return Err(self.error("ends early"));
        }
        self.pos += len;
        Ok(())
    }
}

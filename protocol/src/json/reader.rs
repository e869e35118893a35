//! A pull parser for JSON text: no tree, positions and paths in errors.

use std::borrow::Cow;
use std::fmt;

/// What is wrong with a JSON text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    path: String,
    offset: usize,
    what: String,
    /// The text is known to clients as it is: nothing is added to it.
    whole: bool,
}

impl JsonError {
    /// Byte offset of the value or character at fault.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Path of the value at fault, as in `resourceSpans[0].scopeSpans[1]`; empty for the text as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn within(mut self, outer: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{outer}{dot}{}", self.path);
        self
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.whole {
            return f.write_str(&self.what);
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for JsonError {}

impl From<JsonError> for crate::Error {
    fn from(error: JsonError) -> Self {
        Self::fix_request(error.to_string()).with_source(error)
    }
}

/// Nesting of objects and arrays; messages are nested half as deep at most.
const MAX_DEPTH: u32 = 2 * crate::slicer::MAX_DEPTH;

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, JsonError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(error) => Err(JsonError {
                path: String::new(),
                offset: error.valid_up_to(),
                what: "text is not UTF-8".to_owned(),
                whole: false,
            }),
        }
    }

    pub(super) fn fault(&self, offset: usize, what: impl Into<String>) -> JsonError {
        JsonError { path: String::new(), offset, what: what.into(), whole: false }
    }

    /// A fault in the words of the OpenTelemetry Collector's reader, for what clients match on: who read what, what is
    /// wrong, and the bytes around the reader's place, which is behind the value at fault.
    pub(super) fn collector_fault(&self, offset: usize, reading: &str, what: &str) -> JsonError {
        const NEAR: usize = 10;
        const CONTEXT: usize = 50;
        let bytes = self.text.as_bytes();
        let around = |distance: usize| {
            let from = self.at.saturating_sub(distance);
            String::from_utf8_lossy(&bytes[from..bytes.len().min(self.at + distance)])
        };
        let place = self.at.min(NEAR);
        let what = format!(
            "{reading}: {what}, error found in #{place} byte of ...|{}|..., bigger context ...|{}|...",
            around(NEAR),
            around(CONTEXT)
        );
        JsonError { path: String::new(), offset, what, whole: true }
    }

    /// Where the next value begins.
    pub(super) fn offset(&mut self) -> usize {
        self.space();
        self.at
    }

    /// That nothing but white space follows.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault(self.at, "text goes on after the end")),
        }
    }

    fn space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn expected(&mut self, what: &str) -> JsonError {
        self.space();
        let found = match self.text[self.at..].chars().next() {
            None => "the end".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        self.fault(self.at, format!("expected {what}, found {found}"))
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Calls `f` for every member that is not null, with the reader at its value; `f` must read it.
    pub(super) fn object(
        &mut self,
        mut f: impl FnMut(&mut Self, &str) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if !self.eat(b'{') {
            return Err(self.expected("an object"));
        }
        self.enter()?;
        if !self.eat(b'}') {
            loop {
                let key = self.string()?;
                if !self.eat(b':') {
                    return Err(self.expected("':'"));
                }
                if !self.null() {
                    f(self, &key).map_err(|error| error.within(&key))?;
                }
                if self.eat(b'}') {
                    break;
                }
                if !self.eat(b',') {
                    return Err(self.expected("',' or '}'"));
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Calls `f` for every element, with the reader at its value; `f` must read it.
    pub(super) fn array(&mut self, mut f: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        if !self.eat(b'[') {
            return Err(self.expected("an array"));
        }
        self.enter()?;
        if !self.eat(b']') {
            let mut index = 0;
            loop {
                f(self).map_err(|error| error.within(&format!("[{index}]")))?;
                index += 1;
                if self.eat(b']') {
                    break;
                }
                if !self.eat(b',') {
                    return Err(self.expected("',' or ']'"));
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.fault(self.at, "values are nested too deeply")) } else { Ok(()) }
    }

    fn word(&mut self, word: &str) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    pub(super) fn null(&mut self) -> bool {
        self.word("null")
    }

    pub(super) fn boolean(&mut self) -> Result<bool, JsonError> {
        if self.word("true") {
            Ok(true)
        } else if self.word("false") {
            Ok(false)
        } else {
            Err(self.expected("true or false"))
        }
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if !self.eat(b'"') {
            return Err(self.expected("a string"));
        }
        let start = self.at;
        let bytes = self.text.as_bytes();
        let stop = |b: &u8| *b == b'"' || *b == b'\\' || *b < 0x20;
        let Some(len) = bytes[start..].iter().position(stop) else {
            return Err(self.fault(start, "string is not closed"));
        };
        let plain = &self.text[start..start + len];
        self.at = start + len;
        if self.text.as_bytes()[self.at] == b'"' {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        self.escaped(plain).map(Cow::Owned)
    }

    /// The rest of a string from its first escape on.
    fn escaped(&mut self, plain: &str) -> Result<String, JsonError> {
        let mut text = plain.to_owned();
        loop {
            let Some(next) = self.text[self.at..].chars().next() else {
                return Err(self.fault(self.at, "string is not closed"));
            };
            match next {
                '"' => {
                    self.at += 1;
                    return Ok(text);
                }
                '\\' => self.escape(&mut text)?,
                '\0'..='\x1f' => return Err(self.fault(self.at, "control character in a string")),
                _ => {
                    text.push(next);
                    self.at += next.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), JsonError> {
        let start = self.at;
        let code = self.text.as_bytes().get(start + 1).copied();
        self.at += 2;
        text.push(match code {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.code_unit(start)?;
                self.character(unit)
            }
            _ => return Err(self.fault(start, "escape is not valid")),
        });
        Ok(())
    }

    /// Half a surrogate pair that stands alone becomes U+FFFD.
    fn character(&mut self, unit: u32) -> char {
        if let 0xd800..=0xdbff = unit
            && self.text[self.at..].starts_with("\\u")
        {
            let start = self.at;
            self.at += 2;
            if let Ok(low @ 0xdc00..=0xdfff) = self.code_unit(start) {
                let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
            self.at = start;
        }
        char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn code_unit(&mut self, start: usize) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        unit.ok_or_else(|| self.fault(start, "escape is not valid"))
    }

    /// A number, or the content of a string: numbers may be written as strings.
    pub(super) fn number(&mut self, what: &str) -> Result<Cow<'a, str>, JsonError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(self.bare_number())),
            _ => Err(self.expected(what)),
        }
    }

    fn bare_number(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|b| !matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
        let number = &rest[..end.unwrap_or(rest.len())];
        self.at += number.len();
        number
    }

    /// Steps over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => self.object(|reader, _| reader.skip()),
            Some(b'[') => self.array(Self::skip),
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') if self.null() => Ok(()),
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                let number = self.bare_number();
                if number.parse::<f64>().is_ok() { Ok(()) } else { Err(self.fault(start, "number is not valid")) }
            }
            _ => Err(self.expected("a value")),
        }
    }
}

/// A text from outside, short enough for an error message.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

//! Pieces of protobuf's JSON mapping.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An object being written. Fields at their default are left out by the `..._field` methods.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    pub(super) fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    /// Writes a name of ours, which needs no escaping; the caller writes the value.
    pub(super) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Begins a member whose name is not ours: the name is written by [`text`], then comes [`Object::value`].
    pub(super) fn key(&mut self) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out
    }

    /// What comes after a [`Object::key`].
    pub(super) fn value(&mut self) -> &mut Vec<u8> {
        self.out.push(b':');
        self.out
    }

    /// 64 bits as a number, where no mapping of protobuf is due.
    pub(super) fn number_field(&mut self, name: &str, value: u64) {
        if value != 0 {
            integer(self.name(name), false, value);
        }
    }

    pub(super) fn text_field(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            text(self.name(name), value);
        }
    }

    pub(super) fn bytes_field(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            bytes(self.name(name), value);
        }
    }

    pub(super) fn u32_field(&mut self, name: &str, value: u32) {
        if value != 0 {
            integer(self.name(name), false, u64::from(value));
        }
    }

    /// 64 bits: as a string.
    pub(super) fn u64_field(&mut self, name: &str, value: u64) {
        if value != 0 {
            quoted_integer(self.name(name), false, value);
        }
    }

    /// 64 bits: as a string.
    pub(super) fn i64_field(&mut self, name: &str, value: i64) {
        if value != 0 {
            quoted_integer(self.name(name), value < 0, value.unsigned_abs());
        }
    }

    pub(super) fn double_field(&mut self, name: &str, value: f64) {
        // Minus zero is not the default.
        if value.to_bits() != 0 {
            double(self.name(name), value);
        }
    }

    /// An enum: by name, by number if it has none.
    pub(super) fn enum_field(&mut self, name: &str, value: i32, known: Option<&str>) {
        if value != 0 {
            let out = self.name(name);
            match known {
                Some(known) => text(out, known),
                None => integer(out, value < 0, u64::from(value.unsigned_abs())),
            }
        }
    }

    /// A list; an empty one counts as absent.
    pub(super) fn list_field<T>(&mut self, name: &str, items: &[T], f: impl FnMut(&mut Vec<u8>, &T)) {
        if !items.is_empty() {
            list(self.name(name), items, f);
        }
    }

    /// A map with text keys; an empty one counts as absent.
    pub(super) fn map_field<V>(
        &mut self,
        name: &str,
        map: &std::collections::BTreeMap<String, V>,
        mut f: impl FnMut(&mut Vec<u8>, &V),
    ) {
        if map.is_empty() {
            return;
        }
        let out = self.name(name);
        out.push(b'{');
        for (at, (key, value)) in map.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            text(out, key);
            out.push(b':');
            f(out, value);
        }
        out.push(b'}');
    }
}

pub(super) fn list<T>(out: &mut Vec<u8>, items: &[T], mut f: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        f(out, item);
    }
    out.push(b']');
}

pub(super) const HEX: &[u8; 16] = b"0123456789abcdef";

/// A string, with what HTML takes for markup escaped as Go does.
pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let bytes = value.as_bytes();
    // Everything before is written.
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let code = match byte {
            b'"' | b'\\' => &[b'\\', *byte][..],
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0..0x20 | b'<' | b'>' | b'&' => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                &[b'\\', b'u', b'0', b'0', high, low]
            }
            // U+2028 and U+2029 end a line in JavaScript.
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa8") => b"\\u2028",
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa9") => b"\\u2029",
            _ => continue,
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(code);
        done = at + if *byte == 0xe2 { 3 } else { 1 };
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// Standard base64.
pub(super) fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + value.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(value, &mut out[start..]);
    // The room is exactly what base64 needs.
    debug_assert_eq!(written, Ok(out.len() - start));
    out.push(b'"');
}

pub(super) fn integer(out: &mut Vec<u8>, negative: bool, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = HEX[usize::try_from(value % 10).unwrap_or_default()];
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// A signed number.
pub(super) fn signed(out: &mut Vec<u8>, value: &i64) {
    integer(out, *value < 0, value.unsigned_abs());
}

pub(super) fn quoted_integer(out: &mut Vec<u8>, negative: bool, value: u64) {
    out.push(b'"');
    integer(out, negative, value);
    out.push(b'"');
}

/// A number in the form that Go chooses: plain between 1e-6 and 1e21, else with an exponent. What is no number is a string.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    let written = if value.is_nan() {
        "\"NaN\"".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "\"Infinity\"".to_owned() } else { "\"-Infinity\"".to_owned() }
    } else if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        let exponent = format!("{value:e}");
        if exponent.contains("e-") { exponent } else { exponent.replace('e', "e+") }
    } else {
        format!("{value}")
    };
    out.extend_from_slice(written.as_bytes());
}

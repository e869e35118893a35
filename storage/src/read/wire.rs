//! Writes protobuf messages front to back.

/// Appends a varint.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn tag(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    // Field 16 is the highest that OTLP uses, so the tag fits two bytes.
    varint(out, u64::from(field) << 3 | u64::from(wire_type));
}

/// A varint field, left out when 0.
pub(crate) fn uint(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        present_uint(out, field, value);
    }
}

/// A varint field that is written even when 0, as members of a oneof are.
pub(crate) fn present_uint(out: &mut Vec<u8>, field: u8, value: u64) {
    tag(out, field, 0);
    varint(out, value);
}

/// A fixed64 field, left out when 0.
pub(crate) fn fixed(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        present_fixed(out, field, value);
    }
}

/// A fixed64 field that is written even when 0.
pub(crate) fn present_fixed(out: &mut Vec<u8>, field: u8, value: u64) {
    tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A string or bytes field, left out when empty.
pub(crate) fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        present_bytes(out, field, value);
    }
}

/// A string or bytes field that is written even when empty.
pub(crate) fn present_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    tag(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Where the content of an open message begins.
#[must_use]
pub(crate) struct Mark(usize);

impl Mark {
    pub(crate) fn start(&self) -> usize {
        self.0
    }
}

/// Opens a message field; [`end`] closes it.
pub(crate) fn begin(out: &mut Vec<u8>, field: u8) -> Mark {
    tag(out, field, 2);
    out.push(0);
    Mark(out.len())
}

/// Closes the message: puts its length before its content, which moves when that takes more than one byte.
#[allow(clippy::needless_pass_by_value, reason = "a mark is used once")]
pub(crate) fn end(out: &mut Vec<u8>, mark: Mark) {
    let Mark(start) = mark;
    let len = out.len() - start;
    if len < 0x80 {
        out[start - 1] = len.to_le_bytes()[0];
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    varint(&mut prefix, len as u64);
    let shift = prefix.len() - 1;
    out.resize(out.len() + shift, 0);
    out.copy_within(start..start + len, start + shift);
    out[start - 1..start + shift].copy_from_slice(&prefix);
}

//! OTLP/JSON to OTLP protobuf.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::reader::{JsonError, Reader, quoted};
use crate::wire;

type Result<T = ()> = std::result::Result<T, JsonError>;

/// Rewrites an OTLP/JSON `ExportTraceServiceRequest` as protobuf.
///
/// Per the OTLP specification: ids are hex, enums numbers (their names are taken, too), 64-bit integers strings or numbers, bytes
/// base64, unknown fields and nulls ignored. Field names may be lowerCamelCase or as in the `.proto` files. Ids are checked to have
/// the right length or none at all; whether an id may be missing is for the slicer to say.
///
/// # Errors
/// The first fault, with path and byte offset.
pub fn otlp_to_protobuf(json: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(json)?;
    let mut out = Vec::with_capacity(json.len() / 2);
    reader.object(|r, name| match name {
        "resourceSpans" | "resource_spans" => messages(r, &mut out, 1, resource_spans),
        _ => r.skip(),
    })?;
    reader.end()?;
    Ok(out)
}

fn resource_spans(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "resource" => message(r, out, 1, resource),
        "scopeSpans" | "scope_spans" => messages(r, out, 2, scope_spans),
        "schemaUrl" | "schema_url" => text(r, out, 3),
        _ => r.skip(),
    })
}

fn resource(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "attributes" => messages(r, out, 1, key_value),
        "droppedAttributesCount" | "dropped_attributes_count" => uint32(r, out, 2),
        "entityRefs" | "entity_refs" => messages(r, out, 3, entity_ref),
        _ => r.skip(),
    })
}

fn entity_ref(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "schemaUrl" | "schema_url" => text(r, out, 1),
        "type" => text(r, out, 2),
        "idKeys" | "id_keys" => r.array(|r| r.string().map(|s| put_bytes(out, 3, s.as_bytes()))),
        "descriptionKeys" | "description_keys" => r.array(|r| r.string().map(|s| put_bytes(out, 4, s.as_bytes()))),
        _ => r.skip(),
    })
}

fn scope_spans(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "scope" => message(r, out, 1, scope),
        "spans" => messages(r, out, 2, span),
        "schemaUrl" | "schema_url" => text(r, out, 3),
        _ => r.skip(),
    })
}

fn scope(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "name" => text(r, out, 1),
        "version" => text(r, out, 2),
        "attributes" => messages(r, out, 3, key_value),
        "droppedAttributesCount" | "dropped_attributes_count" => uint32(r, out, 4),
        _ => r.skip(),
    })
}

const KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

fn span(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "traceId" | "trace_id" => id(r, out, 1, 16),
        "spanId" | "span_id" => id(r, out, 2, 8),
        "traceState" | "trace_state" => text(r, out, 3),
        "parentSpanId" | "parent_span_id" => id(r, out, 4, 8),
        "name" => text(r, out, 5),
        "kind" => enumeration(r, out, 6, KINDS),
        "startTimeUnixNano" | "start_time_unix_nano" => fixed64(r, out, 7),
        "endTimeUnixNano" | "end_time_unix_nano" => fixed64(r, out, 8),
        "attributes" => messages(r, out, 9, key_value),
        "droppedAttributesCount" | "dropped_attributes_count" => uint32(r, out, 10),
        "events" => messages(r, out, 11, event),
        "droppedEventsCount" | "dropped_events_count" => uint32(r, out, 12),
        "links" => messages(r, out, 13, link),
        "droppedLinksCount" | "dropped_links_count" => uint32(r, out, 14),
        "status" => message(r, out, 15, status),
        "flags" => fixed32(r, out, 16),
        _ => r.skip(),
    })
}

fn event(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "timeUnixNano" | "time_unix_nano" => fixed64(r, out, 1),
        "name" => text(r, out, 2),
        "attributes" => messages(r, out, 3, key_value),
        "droppedAttributesCount" | "dropped_attributes_count" => uint32(r, out, 4),
        _ => r.skip(),
    })
}

fn link(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "traceId" | "trace_id" => id(r, out, 1, 16),
        "spanId" | "span_id" => id(r, out, 2, 8),
        "traceState" | "trace_state" => text(r, out, 3),
        "attributes" => messages(r, out, 4, key_value),
        "droppedAttributesCount" | "dropped_attributes_count" => uint32(r, out, 5),
        "flags" => fixed32(r, out, 6),
        _ => r.skip(),
    })
}

fn status(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "message" => text(r, out, 2),
        "code" => enumeration(r, out, 3, STATUS_CODES),
        _ => r.skip(),
    })
}

fn key_value(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "key" => text(r, out, 1),
        "value" => message(r, out, 2, any_value),
        _ => r.skip(),
    })
}

/// Unlike other fields, the alternatives of a value are written also when they are zero or empty.
fn any_value(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result {
    reader.object(|r, name| match name {
        "stringValue" | "string_value" => r.string().map(|s| put_bytes(out, 1, s.as_bytes())),
        "boolValue" | "bool_value" => r.boolean().map(|b| put_varint(out, 2, u64::from(b))),
        "intValue" | "int_value" => {
            let value = integer(r, i64::from_str_radix, |f| in_range(f, -TWO_63, TWO_63).then_some(saturating(f)))?;
            put_varint(out, 3, u64::from_ne_bytes(value.to_ne_bytes()));
            Ok(())
        }
        "doubleValue" | "double_value" => {
            let value = double(r)?;
            put_key(out, 4, wire::FIXED64);
            out.extend_from_slice(&value.to_le_bytes());
            Ok(())
        }
        "arrayValue" | "array_value" => message(r, out, 5, |r, out| {
            r.object(|r, name| if name == "values" { messages(r, out, 1, any_value) } else { r.skip() })
        }),
        "kvlistValue" | "kvlist_value" => message(r, out, 6, |r, out| {
            r.object(|r, name| if name == "values" { messages(r, out, 1, key_value) } else { r.skip() })
        }),
        "bytesValue" | "bytes_value" => base64_bytes(r).map(|bytes| put_bytes(out, 7, &bytes)),
        _ => r.skip(),
    })
}

fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    wire::put_varint(out, u64::from(wire::key(number, wire_type)));
}

fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, wire::VARINT);
    wire::put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(out, number, wire::LEN);
    wire::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a message in place and its length in front of it afterwards; one byte is enough for most.
fn message<'a>(
    reader: &mut Reader<'a>,
    out: &mut Vec<u8>,
    number: u32,
    f: impl FnOnce(&mut Reader<'a>, &mut Vec<u8>) -> Result,
) -> Result {
    put_key(out, number, wire::LEN);
    let start = out.len();
    out.push(0);
    f(reader, out)?;
    let len = out.len() - start - 1;
    match u8::try_from(len) {
        Ok(short @ ..0x80) => out[start] = short,
        _ => {
            let mut prefix = Vec::with_capacity(10);
            wire::put_varint(&mut prefix, len as u64);
            out.splice(start..=start, prefix);
        }
    }
    Ok(())
}

fn messages<'a>(
    reader: &mut Reader<'a>,
    out: &mut Vec<u8>,
    number: u32,
    f: impl Fn(&mut Reader<'a>, &mut Vec<u8>) -> Result,
) -> Result {
    reader.array(|r| message(r, out, number, &f))
}

fn text(reader: &mut Reader<'_>, out: &mut Vec<u8>, number: u32) -> Result {
    let text = reader.string()?;
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
    Ok(())
}

/// Who reads ids, in the collector's error texts.
const ID_READER: &str = "ID.UnmarshalJSONIter";

fn id(reader: &mut Reader<'_>, out: &mut Vec<u8>, number: u32, len: usize) -> Result {
    let at = reader.offset();
    let hex = reader.string()?;
    if hex.is_empty() {
        return Ok(());
    }
    if hex.len() / 2 != len {
        return Err(reader.collector_fault(at, ID_READER, "length mismatch"));
    }
    let digit = |byte: u8| {
        let value = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        value.ok_or_else(|| reader.collector_fault(at, ID_READER, &format!("encoding/hex: invalid byte: {}", go(byte))))
    };
    let mut bytes = [0; 16];
    let pairs = hex.as_bytes().chunks_exact(2);
    let odd = pairs.remainder().first().copied();
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? * 16 + digit(pair[1])?;
    }
    if let Some(odd) = odd {
        digit(odd)?;
        return Err(reader.collector_fault(at, ID_READER, "encoding/hex: odd length hex string"));
    }
    put_bytes(out, number, &bytes[..len]);
    Ok(())
}

/// A byte as Go prints it as a character: `U+007A 'z'`, and without the character where it cannot be seen.
fn go(byte: u8) -> String {
    match byte {
        0x20..=0x7e | 0xa1..=0xac | 0xae.. => format!("U+{byte:04X} '{}'", char::from(byte)),
        _ => format!("U+{byte:04X}"),
    }
}

fn enumeration(reader: &mut Reader<'_>, out: &mut Vec<u8>, number: u32, names: &[&str]) -> Result {
    let at = reader.offset();
    let value = reader.number("a number or a name")?;
    let by_name = names.iter().position(|name| *name == value).and_then(|at| i32::try_from(at).ok());
    let value = by_name
        .or_else(|| value.parse::<i32>().ok())
        .ok_or_else(|| reader.fault(at, format!("unknown enum value {}", quoted(&value))))?;
    if value != 0 {
        // Negative numbers are written with their sign extended.
        put_varint(out, number, u64::from_ne_bytes(i64::from(value).to_ne_bytes()));
    }
    Ok(())
}

fn uint32(reader: &mut Reader<'_>, out: &mut Vec<u8>, number: u32) -> Result {
    let value = uint(reader, u32::MAX)?;
    if value != 0 {
        put_varint(out, number, u64::from(value));
    }
    Ok(())
}

fn fixed32(reader: &mut Reader<'_>, out: &mut Vec<u8>, number: u32) -> Result {
    let value = uint(reader, u32::MAX)?;
    if value != 0 {
        put_key(out, number, wire::FIXED32);
        out.extend_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

fn fixed64(reader: &mut Reader<'_>, out: &mut Vec<u8>, number: u32) -> Result {
    let value = integer(reader, u64::from_str_radix, unsigned)?;
    if value != 0 {
        put_key(out, number, wire::FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

fn uint(reader: &mut Reader<'_>, max: u32) -> Result<u32> {
    let at = reader.offset();
    let value = integer(reader, u64::from_str_radix, unsigned)?;
    u32::try_from(value).map_err(|_too_large| reader.fault(at, format!("number is above {max}")))
}

const TWO_63: f64 = 9_223_372_036_854_775_808.0;

fn in_range(f: f64, min: f64, below: f64) -> bool {
    f.fract() == 0.0 && f >= min && f < below
}

#[allow(clippy::cast_possible_truncation, reason = "the caller has checked range and fraction")]
fn saturating(f: f64) -> i64 {
    f as i64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "range and fraction are checked in this line"
)]
fn unsigned(f: f64) -> Option<u64> {
    in_range(f, 0.0, 2.0 * TWO_63).then_some(f as u64)
}

/// An integer, also one that is written like `1.7e18` as JavaScript does.
fn integer<T, E>(
    reader: &mut Reader<'_>,
    parse: impl Fn(&str, u32) -> std::result::Result<T, E>,
    from_float: impl Fn(f64) -> Option<T>,
) -> Result<T> {
    let at = reader.offset();
    let text = reader.number("a number")?;
    let value = parse(&text, 10).ok().or_else(|| text.parse().ok().and_then(from_float));
    value.ok_or_else(|| reader.fault(at, format!("not an integer in range: {}", quoted(&text))))
}

fn double(reader: &mut Reader<'_>) -> Result<f64> {
    let at = reader.offset();
    let text = reader.number("a number")?;
    match &*text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust would also take words such as "inf".
        _ if text.bytes().any(|b| b.is_ascii_alphabetic() && b != b'e' && b != b'E') => None,
        _ => text.parse().ok(),
    }
    .ok_or_else(|| reader.fault(at, format!("not a number: {}", quoted(&text))))
}

/// Standard or URL-safe, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn base64_bytes(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    let at = reader.offset();
    let text = reader.string()?.replace('-', "+").replace('_', "/");
    BASE64.decode(text).map_err(|error| reader.fault(at, format!("not base64: {error}")))
}

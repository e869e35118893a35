//! Attribute values in protobuf form, and from the JSON form in which kinds without a column are stored.

use base64::Engine as _;
use serde_json::Value;

use super::wire;

/// Fields of `AnyValue`.
pub(crate) const STRING: u8 = 1;
pub(crate) const BOOL: u8 = 2;
pub(crate) const INT: u8 = 3;
pub(crate) const DOUBLE: u8 = 4;
pub(crate) const ARRAY: u8 = 5;
const KVLIST: u8 = 6;
const BYTES: u8 = 7;

/// Appends the content of the `AnyValue` that `json` stands for; nothing when it is not such JSON, which leaves the value unset.
pub(crate) fn from_json(out: &mut Vec<u8>, json: &[u8]) {
    let undo = out.len();
    let parsed = serde_json::from_slice::<Value>(json).ok();
    if parsed.and_then(|value| write(out, &value)).is_none() {
        out.truncate(undo);
    }
}

/// Recursion is bounded by that of the JSON parser.
fn write(out: &mut Vec<u8>, value: &Value) -> Option<()> {
    let Some((kind, value)) = value.as_object()?.iter().next() else { return Some(()) };
    match kind.as_str() {
        "stringValue" | "string_value" => wire::present_bytes(out, STRING, value.as_str()?.as_bytes()),
        "boolValue" | "bool_value" => wire::present_uint(out, BOOL, u64::from(value.as_bool()?)),
        "intValue" | "int_value" => {
            let int = match value {
                Value::String(text) => text.parse::<i64>().ok()?,
                other => other.as_i64()?,
            };
            wire::present_uint(out, INT, int.cast_unsigned());
        }
        "doubleValue" | "double_value" => {
            let double = match value {
                // The proto3 mapping writes what JSON lacks as words.
                Value::String(text) => match text.as_str() {
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    "NaN" => f64::NAN,
                    number => number.parse().ok()?,
                },
                other => other.as_f64()?,
            };
            wire::present_fixed(out, DOUBLE, double.to_bits());
        }
        "bytesValue" | "bytes_value" => {
            let text = value.as_str()?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            wire::present_bytes(out, BYTES, &bytes);
        }
        "arrayValue" | "array_value" => {
            let list = wire::begin(out, ARRAY);
            for element in value.get("values").and_then(Value::as_array).into_iter().flatten() {
                let any = wire::begin(out, 1);
                write(out, element)?;
                wire::end(out, any);
            }
            wire::end(out, list);
        }
        "kvlistValue" | "kvlist_value" => {
            let list = wire::begin(out, KVLIST);
            for pair in value.get("values").and_then(Value::as_array).into_iter().flatten() {
                let attribute = wire::begin(out, 1);
                wire::bytes(out, 1, pair.get("key").and_then(Value::as_str).unwrap_or_default().as_bytes());
                if let Some(value) = pair.get("value") {
                    let any = wire::begin(out, 2);
                    write(out, value)?;
                    wire::end(out, any);
                }
                wire::end(out, attribute);
            }
            wire::end(out, list);
        }
        _ => return None,
    }
    Some(())
}

//! One condition over one column.

use super::Verdicts;
use crate::{
    bitmap::Bitmap,
    column::{Column, NIL_ID, Str, Validity, hex},
    condition::{Condition, Test},
    field::{Field, Intrinsic},
    value::{CompareOp, Kind, Status, Type, Value},
};

/// Rows of `column` that satisfy the condition.
pub(super) fn column(
    column: &Column,
    rows: usize,
    field: &Field,
    condition: &Condition,
    id: usize,
    verdicts: &mut Verdicts,
) -> Bitmap {
    match &condition.test {
        Test::Exists => return column.presence(rows),
        Test::Missing => {
            let mut map = column.presence(rows);
            map.negate();
            return map;
        }
        Test::Compare(..) | Test::Match(_) | Test::NotMatch(_) => {}
    }
    match column {
        Column::Nil => Bitmap::zeros(rows),
        Column::Str(texts) => strings(texts, condition, id, verdicts),
        Column::Int { values, valid } => {
            let duration = field.static_type() == Type::Duration;
            let Test::Compare(op, literal) = &condition.test else { return Bitmap::zeros(rows) };
            let map = match literal {
                Value::Int(literal) => ints(values, *op, *literal),
                Value::Duration(literal) if duration || !condition.is_strict() => ints(values, *op, *literal),
                Value::Float(literal) if !condition.is_strict() =>
                {
                    #[allow(clippy::cast_precision_loss, reason = "mixed numbers are compared as floats by definition")]
                    Bitmap::from_slice(values, |value| op.accepts_f64(*value as f64, *literal))
                }
                _ => return Bitmap::zeros(rows),
            };
            masked(map, valid)
        }
        Column::Float { values, valid } => {
            let Test::Compare(op, literal) = &condition.test else { return Bitmap::zeros(rows) };
            let literal = match literal {
                Value::Float(literal) => *literal,
                Value::Int(_) | Value::Duration(_) if !condition.is_strict() => literal.as_f64().unwrap_or(f64::NAN),
                _ => return Bitmap::zeros(rows),
            };
            masked(floats(values, *op, literal), valid)
        }
        Column::Bool { values, valid } => {
            let (op, literal) = match &condition.test {
                Test::Compare(op @ (CompareOp::Eq | CompareOp::NotEq), Value::Bool(literal)) => (*op, *literal),
                _ => return Bitmap::zeros(rows),
            };
            let mut map = values.clone();
            if (op == CompareOp::Eq) != literal {
                map.negate();
            }
            masked(map, valid)
        }
        Column::Code(codes) => {
            let kind = *field == Field::Intrinsic(Intrinsic::Kind);
            match &condition.test {
                Test::Compare(op @ (CompareOp::Eq | CompareOp::NotEq), literal) => {
                    let equal = match literal {
                        Value::Status(status) if !kind => {
                            Bitmap::from_slice(codes, |code| Status::from_code(*code) == *status)
                        }
                        Value::Kind(wanted) if kind => {
                            Bitmap::from_slice(codes, |code| Kind::from_code(*code) == *wanted)
                        }
                        _ => return Bitmap::zeros(rows),
                    };
                    if *op == CompareOp::Eq {
                        return equal;
                    }
                    let mut other = equal;
                    other.negate();
                    other
                }
                _ => Bitmap::zeros(rows),
            }
        }
        Column::SpanId(ids) => match &condition.test {
            Test::Compare(op @ (CompareOp::Eq | CompareOp::NotEq), Value::Str(literal)) => {
                let equal = match raw_id(literal) {
                    Some(raw) => Bitmap::from_slice(ids, |id| *id == raw),
                    None => Bitmap::zeros(rows),
                };
                if *op == CompareOp::Eq {
                    return equal;
                }
                let mut other = equal;
                other.negate();
                other
            }
            _ => Bitmap::from_slice(ids, |id| condition.matches_str(&hex(id))),
        },
        Column::Union(members) => {
            let mut any = Bitmap::zeros(rows);
            for member in members {
                any.or(&self::column(member, rows, field, condition, id, verdicts));
            }
            any
        }
        Column::List { .. } => Bitmap::from_fn(rows, |row| condition.matches(&column.value(row, field))),
        Column::Values(values) => Bitmap::from_slice(values, |value| condition.matches(value)),
    }
}

fn masked(mut map: Bitmap, valid: &Validity) -> Bitmap {
    if let Some(valid) = valid {
        map.and(valid);
    }
    map
}

/// One closure per operator, so that the loop inside has a single comparison.
fn ints(values: &[i64], op: CompareOp, literal: i64) -> Bitmap {
    match op {
        CompareOp::Eq => Bitmap::from_slice(values, |value| *value == literal),
        CompareOp::NotEq => Bitmap::from_slice(values, |value| *value != literal),
        CompareOp::Less => Bitmap::from_slice(values, |value| *value < literal),
        CompareOp::LessEq => Bitmap::from_slice(values, |value| *value <= literal),
        CompareOp::Greater => Bitmap::from_slice(values, |value| *value > literal),
        CompareOp::GreaterEq => Bitmap::from_slice(values, |value| *value >= literal),
    }
}

fn floats(values: &[f64], op: CompareOp, literal: f64) -> Bitmap {
    match op {
        CompareOp::Eq => Bitmap::from_slice(values, |value| *value == literal),
        CompareOp::NotEq => Bitmap::from_slice(values, |value| *value != literal),
        CompareOp::Less => Bitmap::from_slice(values, |value| *value < literal),
        CompareOp::LessEq => Bitmap::from_slice(values, |value| *value <= literal),
        CompareOp::Greater => Bitmap::from_slice(values, |value| *value > literal),
        CompareOp::GreaterEq => Bitmap::from_slice(values, |value| *value >= literal),
    }
}

fn strings(texts: &Str, condition: &Condition, id: usize, verdicts: &mut Verdicts) -> Bitmap {
    let Str { dict, ids } = texts;
    // A dictionary much larger than the batch (shared by a row group) is not worth walking as a whole.
    if dict.len() / 4 > ids.len() {
        return Bitmap::from_slice(ids, |id| dict.get(*id).is_some_and(|text| condition.matches_str(text)));
    }
    if matches!(condition.test, Test::Match(_) | Test::NotMatch(_)) {
        let verdict = verdicts.of(id, dict, condition);
        return Bitmap::from_slice(ids, |id| verdict.get(*id as usize));
    }
    let matching = dict.matching(condition);
    match matching.count() {
        0 => Bitmap::zeros(ids.len()),
        1 => {
            let only = matching.ones_iter().next();
            Bitmap::from_slice(ids, |id| Some(*id as usize) == only)
        }
        all if all == dict.len() => Bitmap::from_slice(ids, |id| *id != NIL_ID),
        _ => Bitmap::from_slice(ids, |id| matching.get(*id as usize)),
    }
}

/// Sixteen lower-case hex digits as bytes; any other text equals no id.
fn raw_id(text: &str) -> Option<[u8; 8]> {
    if text.len() != 16 || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(u64::to_be_bytes)
}

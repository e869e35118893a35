//! Which values of a page pass a condition: once for each dictionary entry, by range for integers, one by one for the rest.

use std::{ops::Range, sync::Arc};

use vivace_traceql::{Bitmap, CompareOp, Condition, Field, Intrinsic, Kind, Status, Test, Type, Value};

use crate::{
    live::{id8, short_hex},
    read::{cells::lossy, page::Page, values::Values},
};

/// Remembers the verdict on each dictionary entry.
pub(super) struct Verdicts<'c> {
    condition: &'c Condition,
    /// The entries that pass, where all were judged at once.
    passing: Option<Arc<Bitmap>>,
    /// By entry otherwise: 0 not looked at, 1 fails, 2 passes.
    entries: Vec<u8>,
    ints: Ints,
}

/// How integers are told apart.
enum Ints {
    /// Those within pass, or with `true` those outside.
    Range(i64, i64, bool),
    /// Codes of statuses and kinds: one bit each for those below 64.
    Codes(u64),
    One,
}

impl Ints {
    fn of(condition: &Condition) -> Self {
        let field = &condition.field;
        if matches!(field, Field::Intrinsic(Intrinsic::Status | Intrinsic::Kind)) {
            return Self::Codes((0..64).map(|code| u64::from(passes_int(condition, code)) << code).sum());
        }
        let Test::Compare(op, literal) = &condition.test else { return Self::One };
        let is_duration = field.static_type() == Type::Duration;
        let literal = match literal {
            Value::Int(literal) if !is_duration => *literal,
            Value::Duration(literal) if is_duration => *literal,
            _ => return Self::One,
        };
        let (below, above) = (literal.checked_sub(1), literal.checked_add(1));
        match op {
            CompareOp::Eq => Self::Range(literal, literal, false),
            CompareOp::NotEq => Self::Range(literal, literal, true),
            CompareOp::LessEq => Self::Range(i64::MIN, literal, false),
            CompareOp::GreaterEq => Self::Range(literal, i64::MAX, false),
            CompareOp::Less => below.map_or(Self::One, |last| Self::Range(i64::MIN, last, false)),
            CompareOp::Greater => above.map_or(Self::One, |first| Self::Range(first, i64::MAX, false)),
        }
    }
}

impl<'c> Verdicts<'c> {
    /// `passing` are the entries of the column's dictionary that pass, if all were judged.
    pub(super) fn new(condition: &'c Condition, passing: Option<Arc<Bitmap>>) -> Self {
        Self { condition, passing, entries: Vec::new(), ints: Ints::of(condition) }
    }

    /// Whether each value of the page passes.
    pub(super) fn page(&mut self, page: &Page, dictionary: Option<&Values>) -> Bitmap {
        self.some(&page.values, 0..page.values.len(), dictionary)
    }

    /// Whether each value of `range` passes; what lies past the last value is left out.
    pub(super) fn some(&mut self, values: &Values, range: Range<usize>, dictionary: Option<&Values>) -> Bitmap {
        let condition = self.condition;
        let end = range.end.min(values.len());
        let range = range.start.min(end)..end;
        match values {
            Values::Bytes(values) => {
                let all = range.len() == values.len() && !is_coded(condition);
                all.then(|| values.matching(condition)).flatten().unwrap_or_else(|| {
                    Bitmap::from_fn(range.len(), |at| {
                        values.get(range.start + at).is_some_and(|value| passes_text(condition, value))
                    })
                })
            }
            Values::Ids(ids) => {
                if let Some(passing) = &self.passing {
                    return ids.test(range, |id| usize::try_from(id).is_ok_and(|id| passing.get(id)));
                }
                let Some(Values::Bytes(entries)) = dictionary else { return Bitmap::ones(range.len()) };
                self.entries.resize(entries.len(), 0);
                let known = &mut self.entries;
                ids.test(range, |id| {
                    let id = usize::try_from(id).unwrap_or(usize::MAX);
                    let Some(known) = known.get_mut(id) else { return true };
                    if *known == 0 {
                        let passes = entries.get(id).is_none_or(|text| passes_text(condition, text));
                        *known = 1 + u8::from(passes);
                    }
                    *known == 2
                })
            }
            Values::Ints(ints) => match self.ints {
                Ints::Range(low, high, outside) => ints.test(range, |int| (low <= int && int <= high) != outside),
                Ints::Codes(passing) => ints.test(range, |int| (0..64).contains(&int) && passing >> int & 1 == 1),
                Ints::One => ints.test(range, |int| passes_int(condition, int)),
            },
            Values::Doubles(doubles) => {
                Bitmap::from_slice(&doubles[range], |double| condition.matches(&Value::Float(*double)))
            }
            Values::Bools(bools) => Bitmap::from_slice(&bools[range], |value| condition.matches(&Value::Bool(*value))),
        }
    }
}

/// Whether stored bytes and numbers are not what the condition compares, but something that is made of them.
pub(super) fn is_coded(condition: &Condition) -> bool {
    matches!(
        condition.field,
        Field::Intrinsic(
            Intrinsic::Status
                | Intrinsic::Kind
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::TraceId
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
        )
    )
}

fn passes_text(condition: &Condition, text: &[u8]) -> bool {
    match condition.field {
        Field::Intrinsic(Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId) => {
            condition.matches(&Value::str(&format!("{:016x}", u64::from_be_bytes(id8(text)))))
        }
        Field::Intrinsic(Intrinsic::TraceId | Intrinsic::LinkTraceId) => {
            condition.matches(&Value::str(&short_hex(text)))
        }
        _ => condition.matches_str(&lossy(text)),
    }
}

fn passes_int(condition: &Condition, int: i64) -> bool {
    let code = || u8::try_from(int).unwrap_or(0);
    condition.matches(&match &condition.field {
        Field::Intrinsic(Intrinsic::Status) => Value::Status(Status::from_code(code())),
        Field::Intrinsic(Intrinsic::Kind) => Value::Kind(Kind::from_code(code())),
        field if field.static_type() == Type::Duration => Value::Duration(int),
        _ => Value::Int(int),
    })
}

//! Conditions that a source may use to skip data. They are hints: a source may return more, never less.

use std::{ops::Range, sync::Arc};

use crate::{
    bitmap::Bitmap,
    field::{Field, Intrinsic},
    needle::Needle,
    pattern::Pattern,
    value::{CompareOp, Type, Value},
};

/// What one condition asks of one field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The field has a value (arrays count).
    Exists,
    /// The field has no value. For event and link fields: some event (link) lacks it.
    Missing,
    /// Comparison with a literal.
    Compare(CompareOp, Value),
    /// The text matches.
    Match(Arc<Pattern>),
    /// There is text and it does not match.
    NotMatch(Arc<Pattern>),
}

/// A field and what is asked of it.
///
/// `Scope::Any` fields mean: the span's value satisfies the test, or the span lacks the key and the resource's value
/// does. Event and link fields mean: one of the span's events (links) satisfies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Any field of a query, trace-level and structure intrinsics included.
    pub field: Field,
    /// The test.
    pub test: Test,
}

impl Condition {
    /// Whether a value satisfies the condition. An *attribute* is compared strictly: a value of another type than
    /// the literal's never matches (an int attribute does not match a float literal). Intrinsics compare numbers
    /// of any type.
    #[must_use]
    pub fn matches(&self, value: &Value) -> bool {
        match &self.test {
            Test::Exists => !value.is_nil(),
            Test::Missing => value.is_nil(),
            Test::Compare(op, literal) => {
                (!self.is_strict() || same_type(value, literal)) && value.compare(*op, literal)
            }
            Test::Match(pattern) => match value {
                Value::Str(text) => pattern.is_match(text),
                Value::List(items) => {
                    items.iter().any(|item| matches!(item, Value::Str(text) if pattern.is_match(text)))
                }
                _ => false,
            },
            Test::NotMatch(pattern) => match value {
                Value::Str(text) => !pattern.is_match(text),
                Value::List(items) => {
                    value.type_of() == Type::StringArray
                        && items.iter().all(|item| matches!(item, Value::Str(text) if !pattern.is_match(text)))
                }
                _ => false,
            },
        }
    }

    /// [`matches`](Self::matches) for a single string, without building a value.
    #[must_use]
    #[inline]
    pub fn matches_str(&self, text: &str) -> bool {
        match &self.test {
            Test::Exists => true,
            Test::Missing => false,
            Test::Compare(op, Value::Str(literal)) => op.accepts(text.as_bytes().cmp(literal.as_bytes())),
            Test::Compare(..) => false,
            Test::Match(pattern) => pattern.is_match(text),
            Test::NotMatch(pattern) => !pattern.is_match(text),
        }
    }

    /// [`matches_str`](Self::matches_str) for many texts that lie side by side: text `n` below `count` is `buffer[bounds(n)]`, with
    /// what is no UTF-8 replaced; texts ascend and do not overlap. None when they have to be looked at one by one: the buffer is
    /// searched for what every text that satisfies the condition (or that fails it) contains, if there is such a thing.
    #[must_use]
    pub fn matches_texts(&self, buffer: &[u8], count: usize, bounds: impl Fn(usize) -> Range<usize>) -> Option<Bitmap> {
        let equal;
        let (needle, negated) = match &self.test {
            Test::Match(pattern) => (pattern.needle()?, false),
            Test::NotMatch(pattern) => (pattern.needle()?, true),
            Test::Compare(op @ (CompareOp::Eq | CompareOp::NotEq), Value::Str(literal)) => {
                equal = Needle::new(literal)?;
                (&equal, *op == CompareOp::NotEq)
            }
            Test::Compare(..) | Test::Exists | Test::Missing => return None,
        };
        let mut map = Bitmap::zeros(count);
        for number in needle.in_texts(buffer, count, &bounds) {
            let number = number as usize;
            if self.matches_str(&String::from_utf8_lossy(&buffer[bounds(number)])) != negated {
                map.set(number, true);
            }
        }
        if negated {
            map.negate();
        }
        Some(map)
    }

    /// A text that every text contains which satisfies the condition, where only texts (or arrays of some) can satisfy it. None when
    /// there is no such text, or none that can be looked for in bytes.
    #[must_use]
    pub fn needle(&self) -> Option<Needle> {
        match &self.test {
            Test::Match(pattern) => pattern.needle().cloned(),
            Test::Compare(CompareOp::Eq, Value::Str(literal)) => Needle::new(literal),
            Test::Compare(..) | Test::NotMatch(_) | Test::Exists | Test::Missing => None,
        }
    }

    /// The only type of scalar or array element that can satisfy the condition on an attribute; `None` if several
    /// can. A source that stores one column per type reads no other.
    #[must_use]
    pub fn value_type(&self) -> Option<Type> {
        match &self.test {
            Test::Exists | Test::Missing => None,
            Test::Compare(_, literal) => self.is_strict().then(|| literal.type_of()),
            Test::Match(_) | Test::NotMatch(_) => Some(Type::String),
        }
    }

    /// Whether some integer (or duration, time) within `min..=max` can satisfy the condition. True when unsure.
    #[must_use]
    pub fn may_match_ints(&self, min: i64, max: i64) -> bool {
        match &self.test {
            Test::Compare(op, Value::Int(literal) | Value::Duration(literal)) => match op {
                CompareOp::Eq => min <= *literal && *literal <= max,
                CompareOp::NotEq => min != max || min != *literal,
                CompareOp::Less => min < *literal,
                CompareOp::LessEq => min <= *literal,
                CompareOp::Greater => max > *literal,
                CompareOp::GreaterEq => max >= *literal,
            },
            #[allow(
                clippy::cast_precision_loss,
                reason = "the evaluator compares the same way, and rounding is monotonic"
            )]
            Test::Compare(op, Value::Float(literal)) if !self.is_strict() => {
                may_match_floats(*op, *literal, min as f64, max as f64)
            }
            Test::Compare(..) | Test::Missing | Test::Match(_) | Test::NotMatch(_) => false,
            Test::Exists => true,
        }
    }

    /// Whether some float within `min..=max` can satisfy the condition. NaN values are outside any bound: a source
    /// must not skip a page that may hold NaN when the operator is `!=`.
    #[must_use]
    pub fn may_match_floats(&self, min: f64, max: f64) -> bool {
        match &self.test {
            Test::Compare(op, Value::Float(literal)) => may_match_floats(*op, *literal, min, max),
            #[allow(
                clippy::cast_precision_loss,
                reason = "the evaluator compares the same way, and rounding is monotonic"
            )]
            Test::Compare(op, Value::Int(literal) | Value::Duration(literal)) if !self.is_strict() => {
                may_match_floats(*op, *literal as f64, min, max)
            }
            Test::Compare(..) | Test::Missing | Test::Match(_) | Test::NotMatch(_) => false,
            Test::Exists => true,
        }
    }

    /// Whether some string within `min..=max` (bytes, both inclusive; the bounds may be cut short or rounded up as
    /// in Parquet statistics) can satisfy the condition.
    #[must_use]
    pub fn may_match_strs(&self, min: &[u8], max: &[u8]) -> bool {
        match &self.test {
            Test::Compare(op, Value::Str(literal)) => {
                let literal = literal.as_bytes();
                match op {
                    CompareOp::Eq => min <= literal && literal <= max,
                    CompareOp::NotEq => min != max || min != literal,
                    CompareOp::Less => min < literal,
                    CompareOp::LessEq => min <= literal,
                    CompareOp::Greater => max > literal,
                    CompareOp::GreaterEq => max >= literal,
                }
            }
            Test::Match(pattern) => {
                let prefix = pattern.literal_prefix().as_bytes();
                prefix <= max && (min <= prefix || min.starts_with(prefix))
            }
            Test::Compare(..) | Test::Missing => false,
            Test::Exists | Test::NotMatch(_) => true,
        }
    }

    /// Attributes (and the instrumentation intrinsics, which are stored like strings) only match literals of their
    /// own type.
    pub(crate) fn is_strict(&self) -> bool {
        match &self.field {
            Field::Attribute { .. } => true,
            Field::Intrinsic(intrinsic) => {
                matches!(intrinsic, Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion)
            }
        }
    }
}

fn same_type(value: &Value, literal: &Value) -> bool {
    let own = value.type_of();
    let wanted = literal.type_of();
    own.element().unwrap_or(own) == wanted || matches!(value, Value::List(items) if items.is_empty())
}

fn may_match_floats(op: CompareOp, literal: f64, min: f64, max: f64) -> bool {
    match op {
        CompareOp::Eq => min <= literal && literal <= max,
        CompareOp::NotEq => !(min == max && min == literal),
        CompareOp::Less => min < literal,
        CompareOp::LessEq => min <= literal,
        CompareOp::Greater => max > literal,
        CompareOp::GreaterEq => max >= literal,
    }
}

/// A tree of conditions over the fields of one span. It is a *necessary* condition: where it is false for a span,
/// the query cannot use the span. (It is not sufficient: sub-expressions that cannot be decided by a single value
/// stand as [`Predicate::Always`].)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// Nothing is known: any span may be of use.
    Always,
    /// No span is of use; the answer is empty without reading anything.
    Never,
    /// One condition.
    Is(Condition),
    /// All of them; at least two, none of them `Always`, `Never` or `All`.
    All(Vec<Predicate>),
    /// One of them; at least two, none of them `Always`, `Never` or `AnyOf`.
    AnyOf(Vec<Predicate>),
}

impl Predicate {
    /// Conjunction, flattened and simplified.
    #[must_use]
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut kept: Vec<Self> = Vec::new();
        for part in parts {
            match part {
                Self::Never => return Self::Never,
                Self::Always => {}
                Self::All(inner) => inner.into_iter().for_each(|part| push_new(&mut kept, part)),
                part => push_new(&mut kept, part),
            }
        }
        match kept.len() {
            0 => Self::Always,
            1 => kept.remove(0),
            _ => Self::All(kept),
        }
    }

    /// Disjunction, flattened and simplified.
    #[must_use]
    pub fn any_of(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut kept: Vec<Self> = Vec::new();
        for part in parts {
            match part {
                Self::Always => return Self::Always,
                Self::Never => {}
                Self::AnyOf(inner) => inner.into_iter().for_each(|part| push_new(&mut kept, part)),
                part => push_new(&mut kept, part),
            }
        }
        match kept.len() {
            0 => Self::Never,
            1 => kept.remove(0),
            _ => Self::AnyOf(kept),
        }
    }

    /// Folds the tree with an answer per condition ("can this chunk, page or value satisfy it?"). The closure must
    /// answer true when unsure.
    pub fn may_match(&self, may: &mut impl FnMut(&Condition) -> bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Is(condition) => may(condition),
            Self::All(parts) => parts.iter().all(|part| part.may_match(may)),
            Self::AnyOf(parts) => parts.iter().any(|part| part.may_match(may)),
        }
    }

    /// The conditions that every span of use satisfies: a source may treat their columns as required and read
    /// the others only where these hold.
    #[must_use]
    pub fn required(&self) -> Vec<&Condition> {
        match self {
            Self::Is(condition) => vec![condition],
            Self::All(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Self::Is(condition) => Some(condition),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Every condition of the tree.
    #[must_use]
    pub fn conditions(&self) -> Vec<&Condition> {
        match self {
            Self::Always | Self::Never => Vec::new(),
            Self::Is(condition) => vec![condition],
            Self::All(parts) | Self::AnyOf(parts) => parts.iter().flat_map(Self::conditions).collect(),
        }
    }
}

fn push_new(kept: &mut Vec<Predicate>, part: Predicate) {
    if !kept.contains(&part) {
        kept.push(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::field::Scope;

    fn op() -> impl Strategy<Value = CompareOp> {
        prop_oneof![
            Just(CompareOp::Eq),
            Just(CompareOp::NotEq),
            Just(CompareOp::Less),
            Just(CompareOp::LessEq),
            Just(CompareOp::Greater),
            Just(CompareOp::GreaterEq),
        ]
    }

    /// Patterns out of pieces, most of which have a literal that is looked for first.
    fn pattern() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => "[ab\u{e9}-]{1,3}".boxed(),
            3 => Just(".*".to_owned()).boxed(),
            1 => prop::sample::select(vec!["[ab]", "b?", "(a-)+", "(ab){2}", "(a|b-)", "(?i:AB)", "-{1,2}", "\\x{fffd}", "a|b"])
                .prop_map(str::to_owned)
                .boxed(),
        ];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn texts_in_one_buffer_are_judged_as_one_by_one(
            pattern in pattern(),
            literal in "[ab\u{e9}-]{0,3}",
            texts in prop::collection::vec(prop::collection::vec(prop::sample::select(b"aab--\xc3\xa9\xff".to_vec()), 0..6), 0..12),
            gap in 0_usize..3,
        ) {
            let (mut buffer, mut bounds) = (Vec::new(), Vec::new());
            for text in &texts {
                buffer.extend(std::iter::repeat_n(b'a', gap));
                bounds.push(buffer.len()..buffer.len() + text.len());
                buffer.extend_from_slice(text);
            }
            let plain = regex::Regex::new(&format!("^(?s:{pattern})$")).unwrap();
            let compiled = Arc::new(Pattern::new(&pattern).unwrap());
            let equal = super::Value::str(&literal);
            type Plain<'a> = &'a dyn Fn(&str) -> bool;
            let tests: [(Test, Plain<'_>); 4] = [
                (Test::Match(compiled.clone()), &|text| plain.is_match(text)),
                (Test::NotMatch(compiled), &|text| !plain.is_match(text)),
                (Test::Compare(CompareOp::Eq, equal.clone()), &|text| text == literal),
                (Test::Compare(CompareOp::NotEq, equal), &|text| text != literal),
            ];
            for (test, due) in tests {
                let condition = Condition { field: Field::attribute(Scope::Span, "a"), test };
                let texts = texts.iter().map(|text| String::from_utf8_lossy(text));
                let due: Bitmap = texts.map(|text| {
                    let due = due(&text);
                    assert_eq!(condition.matches_str(&text), due, "{pattern} {text:?}");
                    due
                }).collect();
                if let Some(found) = condition.matches_texts(&buffer, bounds.len(), |n| bounds[n].clone()) {
                    prop_assert_eq!(found, due, "{} {:?}", pattern, condition);
                }
            }
        }

        #[test]
        fn bounds_never_rule_out_a_match(op in op(), literal in -3_i64..3, values in prop::collection::vec(-3_i64..3, 1..4), field in 0_usize..2) {
            let field: Field = [Field::attribute(Scope::Span, "a"), Field::from(Intrinsic::Duration)][field].clone();
            let (min, max) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
            for literal in [super::Value::Int(literal), super::Value::Float(literal as f64 + 0.5)] {
                let condition = Condition { field: field.clone(), test: Test::Compare(op, literal) };
                if values.iter().any(|value| condition.matches(&super::Value::Int(*value))) {
                    prop_assert!(condition.may_match_ints(min, max));
                }
                if values.iter().any(|value| condition.matches(&super::Value::Float(*value as f64))) {
                    prop_assert!(condition.may_match_floats(min as f64, max as f64));
                }
            }
        }

        #[test]
        fn string_bounds_never_rule_out_a_match(op in op(), values in prop::collection::vec("[ab]{0,3}", 1..4), literal in "[ab]{0,3}") {
            let (min, max) = (values.iter().min().unwrap().as_bytes(), values.iter().max().unwrap().as_bytes());
            let pattern = Arc::new(Pattern::new(&format!("{literal}.*")).unwrap());
            for test in [Test::Compare(op, super::Value::str(&literal)), Test::Match(pattern.clone()), Test::NotMatch(pattern)] {
                let condition = Condition { field: Intrinsic::Name.into(), test };
                if values.iter().any(|value| condition.matches_str(value)) {
                    prop_assert!(condition.may_match_strs(min, max), "{condition:?}");
                }
            }
        }
    }

    #[test]
    fn predicates_simplify() {
        let is =
            |name: &str| Predicate::Is(Condition { field: Field::attribute(Scope::Any, name), test: Test::Exists });
        assert_eq!(Predicate::all([Predicate::Always, is("a"), is("a")]), is("a"));
        assert_eq!(Predicate::all([is("a"), Predicate::Never]), Predicate::Never);
        assert_eq!(Predicate::any_of([is("a"), Predicate::Always]), Predicate::Always);
        assert_eq!(Predicate::any_of([Predicate::Never, is("a")]), is("a"));
        let nested = Predicate::all([is("a"), Predicate::all([is("b"), Predicate::any_of([is("c"), is("d")])])]);
        assert_eq!(nested.required().len(), 2);
        assert_eq!(nested.conditions().len(), 4);
        assert!(!nested.may_match(&mut |condition| condition.field != Field::attribute(Scope::Any, "b")));
    }
}

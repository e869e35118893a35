//! What a trace has to hold to be of use, as far as it can be told without walking its spans.
//!
//! A span of use meets conditions, and some of these say which attribute must be there, or which text must stand somewhere in the
//! bytes. So a group whose [`Digest`] knows nothing of the kind is passed over as a whole, and a trace whose bytes do not hold the
//! text is not walked: searching bytes takes a quarter of the time.

use std::sync::atomic::{AtomicU64, Ordering};

use vivace_protocol::TraceId;
use vivace_traceql::{CompareOp, Condition, FetchSpec, Field, Intrinsic, Needle, Predicate, Scope, Test, Value};

use super::{LiveGroup, LiveTrace, digest::Mark};

/// Traces looked at before it is judged whether looking is worth it.
const TRIED: u64 = 128;

/// What the traces that a fetch is about have to hold.
#[derive(Debug)]
pub(super) struct Sieve {
    need: Need,
    /// Whether bytes of a trace can tell that it is of no use.
    searches: bool,
    /// Whether a digest can tell that a group is of no use.
    digests: bool,
    /// Whether it tells so of every group without a certain value.
    values: bool,
    /// Traces whose bytes were searched, and those of them that may be of use.
    tried: AtomicU64,
    passed: AtomicU64,
}

#[derive(Debug)]
enum Need {
    Unknown,
    /// Something of this mark, and this in its bytes.
    Value(Option<Mark>, Option<Needle>),
    /// An attribute of which only the name is known, and this in its bytes.
    Name(Mark, Option<Needle>),
    Trace(TraceId),
    All(Vec<Need>),
    AnyOf(Vec<Need>),
}

impl Sieve {
    /// One that nothing is held back by.
    pub(super) fn open() -> Self {
        Self::new(Need::Unknown)
    }

    /// That of a fetch. With `by_resource`, spans of resources that do not meet the conditions are passed over in walks, which is as
    /// quick as searching bytes for what stands in the resource.
    pub(super) fn of(spec: &FetchSpec, by_resource: bool) -> Self {
        let demands = std::iter::once(&spec.spans).chain(&spec.traces);
        Self::new(Need::All(demands.map(|predicate| Need::of(predicate, by_resource)).collect()))
    }

    fn new(need: Need) -> Self {
        let (searches, digests, values) = (need.searches(), need.is_in_digests(), need.is_of_values());
        Self { need, searches, digests, values, tried: AtomicU64::new(0), passed: AtomicU64::new(0) }
    }

    /// Whether a group may hold traces of use.
    pub(super) fn may_be_in(&self, group: &LiveGroup) -> bool {
        self.need.may_be_in(group)
    }

    /// Whether digests of groups are of use.
    pub(super) fn asks_digests(&self) -> bool {
        self.digests
    }

    /// Whether a group is of no use unless a certain value stands in it.
    pub(super) fn asks_for_values(&self) -> bool {
        self.values
    }

    /// Whether it is worth asking about single traces: not where most pass.
    pub(super) fn is_worth_it(&self) -> bool {
        let (tried, passed) = (self.tried.load(Ordering::Relaxed), self.passed.load(Ordering::Relaxed));
        self.searches && (tried < TRIED || passed < tried / 4 * 3)
    }

    /// So many traces were asked about and passed.
    pub(super) fn was_tried(&self, tried: u64, passed: u64) {
        self.tried.fetch_add(tried, Ordering::Relaxed);
        self.passed.fetch_add(passed, Ordering::Relaxed);
    }

    /// Whether a trace may be of use.
    pub(super) fn passes(&self, trace: &LiveTrace) -> bool {
        self.need.is_met_by(trace)
    }
}

impl Need {
    fn of(predicate: &Predicate, by_resource: bool) -> Self {
        let each = |parts: &[Predicate]| parts.iter().map(|part| Self::of(part, by_resource)).collect();
        match predicate {
            Predicate::Always => Self::Unknown,
            Predicate::Never => Self::AnyOf(Vec::new()),
            Predicate::Is(condition) => Self::of_condition(condition, by_resource),
            Predicate::All(parts) => Self::All(each(parts)),
            Predicate::AnyOf(parts) => Self::AnyOf(each(parts)),
        }
    }

    fn of_condition(condition: &Condition, by_resource: bool) -> Self {
        let literal = match &condition.test {
            Test::Missing => return Self::Unknown,
            Test::Compare(CompareOp::Eq, literal) => Some(literal),
            Test::Exists | Test::Compare(..) | Test::Match(_) | Test::NotMatch(_) => None,
        };
        // Without a needle the text is empty, or stands for bytes that are no UTF-8: then only the name tells something.
        let needle = condition.needle();
        let literal = literal.filter(|literal| needle.is_some() || !matches!(literal, Value::Str(_)));
        match &condition.field {
            Field::Attribute { parent: false, scope, name } if Needle::new(name).is_some() => {
                let name = name.as_bytes();
                let mark = literal.and_then(|literal| Mark::of_attribute(name, literal));
                let needle = needle.filter(|_| !by_resource || *scope != Scope::Resource);
                match mark {
                    Some(mark) => Self::Value(Some(mark), needle),
                    None => Self::Name(Mark::of_name(name), needle),
                }
            }
            Field::Attribute { .. } => Self::Unknown,
            Field::Intrinsic(Intrinsic::TraceId) => literal.and_then(trace_id).map_or(Self::Unknown, Self::Trace),
            Field::Intrinsic(Intrinsic::RootServiceName) => {
                Self::Value(literal.and_then(|literal| Mark::of_attribute(b"service.name", literal)), needle)
            }
            Field::Intrinsic(Intrinsic::RootName) => {
                Self::Value(literal.and_then(|text| mark(Intrinsic::Name, text)), needle)
            }
            Field::Intrinsic(
                field @ (Intrinsic::Name
                | Intrinsic::StatusMessage
                | Intrinsic::EventName
                | Intrinsic::InstrumentationName
                | Intrinsic::InstrumentationVersion),
            ) => Self::Value(literal.and_then(|text| mark(*field, text)), needle),
            Field::Intrinsic(_) => Self::Unknown,
        }
    }

    fn searches(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Value(_, needle) | Self::Name(_, needle) => needle.is_some(),
            Self::Trace(_) => true,
            Self::All(parts) => parts.iter().any(Self::searches),
            Self::AnyOf(parts) => parts.iter().all(Self::searches),
        }
    }

    fn is_in_digests(&self) -> bool {
        match self {
            Self::Value(mark, _) => mark.is_some(),
            Self::Name(..) => true,
            Self::Unknown | Self::Trace(_) => false,
            Self::All(parts) => parts.iter().any(Self::is_in_digests),
            Self::AnyOf(parts) => !parts.is_empty() && parts.iter().all(Self::is_in_digests),
        }
    }

    fn is_of_values(&self) -> bool {
        match self {
            Self::Value(mark, _) => mark.is_some(),
            Self::Unknown | Self::Name(..) | Self::Trace(_) => false,
            Self::All(parts) => parts.iter().any(Self::is_of_values),
            Self::AnyOf(parts) => !parts.is_empty() && parts.iter().all(Self::is_of_values),
        }
    }

    fn may_be_in(&self, group: &LiveGroup) -> bool {
        match self {
            Self::Unknown | Self::Value(None, _) => true,
            Self::Value(Some(mark), _) | Self::Name(mark, _) => {
                group.digest().is_none_or(|digest| digest.may_hold(*mark))
            }
            Self::Trace(id) => group.position(id).is_some(),
            Self::All(parts) => parts.iter().all(|part| part.may_be_in(group)),
            Self::AnyOf(parts) => parts.iter().any(|part| part.may_be_in(group)),
        }
    }

    fn is_met_by(&self, trace: &LiveTrace) -> bool {
        match self {
            Self::Unknown | Self::Value(_, None) | Self::Name(_, None) => true,
            Self::Value(_, Some(needle)) | Self::Name(_, Some(needle)) => {
                trace.parts().iter().any(|part| needle.is_in(part))
            }
            Self::Trace(id) => trace.id() == *id,
            Self::All(parts) => parts.iter().all(|part| part.is_met_by(trace)),
            Self::AnyOf(parts) => parts.iter().any(|part| part.is_met_by(trace)),
        }
    }
}

fn mark(field: Intrinsic, literal: &Value) -> Option<Mark> {
    match literal {
        Value::Str(text) => Some(Mark::of_text(field, text.as_bytes())),
        _ => None,
    }
}

/// The trace whose id a query writes so; none where no id is written so.
fn trace_id(literal: &Value) -> Option<TraceId> {
    let Value::Str(text) = literal else { return None };
    let id = u128::from_str_radix(text, 16).ok().filter(|id| format!("{id:x}") == **text)?;
    Some(TraceId(id.to_be_bytes()))
}

//! Values of the language, their types, and how two of them compare.

use std::{cmp::Ordering, fmt, sync::Arc};

/// Span status. The codes of the enum are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// Not set by the instrumentation.
    Unset = 0,
    /// Explicitly fine.
    Ok = 1,
    /// Failed.
    Error = 2,
}

impl Status {
    /// From the OTLP number; unknown numbers are `Unset`.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }

    /// The literal word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// Span kind. The codes of the enum are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Not given.
    Unspecified = 0,
    /// Within one process.
    Internal = 1,
    /// Serves a remote request.
    Server = 2,
    /// Makes a remote request.
    Client = 3,
    /// Sends a message.
    Producer = 4,
    /// Receives a message.
    Consumer = 5,
}

impl Kind {
    /// From the OTLP number; unknown numbers are `Unspecified`.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }

    /// The literal word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// Type of a value or of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Absent.
    Nil,
    /// 64-bit signed integer.
    Int,
    /// 64-bit float.
    Float,
    /// Nanoseconds, 64-bit signed.
    Duration,
    /// Text.
    String,
    /// Truth value.
    Bool,
    /// Span status.
    Status,
    /// Span kind.
    Kind,
    /// Array of integers.
    IntArray,
    /// Array of floats.
    FloatArray,
    /// Array of strings.
    StringArray,
    /// Array of booleans.
    BoolArray,
    /// Known only when a span is read: any attribute.
    Dynamic,
}

impl Type {
    /// Int, float and duration mix freely.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration)
    }

    /// The type of an array's elements.
    #[must_use]
    pub fn element(self) -> Option<Self> {
        match self {
            Self::IntArray => Some(Self::Int),
            Self::FloatArray => Some(Self::Float),
            Self::StringArray => Some(Self::String),
            Self::BoolArray => Some(Self::Bool),
            _ => None,
        }
    }

    /// Whether the two may stand on the sides of one operator.
    #[must_use]
    pub fn compatible(self, other: Self) -> bool {
        if self == other
            || self == Self::Dynamic
            || other == Self::Dynamic
            || self == Self::Nil
            || other == Self::Nil
            || (self.is_numeric() && other.is_numeric())
        {
            return true;
        }
        match (self.element(), other.element()) {
            (Some(element), None) => element.compatible(other),
            (None, Some(element)) => self.compatible(element),
            (Some(a), Some(b)) => a.compatible(b),
            (None, None) => false,
        }
    }
}

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// `=`
    Eq,
    /// `!=`
    NotEq,
    /// `<`
    Less,
    /// `<=`
    LessEq,
    /// `>`
    Greater,
    /// `>=`
    GreaterEq,
}

impl CompareOp {
    /// The operator with its sides exchanged: `a < b` is `b > a`.
    #[must_use]
    pub fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEq => Self::GreaterEq,
            Self::Greater => Self::Less,
            Self::GreaterEq => Self::LessEq,
            Self::Eq | Self::NotEq => self,
        }
    }

    /// Whether the order of two comparable values satisfies the operator.
    #[must_use]
    #[inline]
    pub fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order == Ordering::Equal,
            Self::NotEq => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessEq => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterEq => order != Ordering::Less,
        }
    }

    /// IEEE comparison: with NaN only `!=` is true.
    #[must_use]
    #[inline]
    pub fn accepts_f64(self, a: f64, b: f64) -> bool {
        match self {
            Self::Eq => a == b,
            Self::NotEq => a != b,
            Self::Less => a < b,
            Self::LessEq => a <= b,
            Self::Greater => a > b,
            Self::GreaterEq => a >= b,
        }
    }

    /// True for the four order operators.
    #[must_use]
    pub fn is_order(self) -> bool {
        !matches!(self, Self::Eq | Self::NotEq)
    }

    /// The spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::NotEq => "!=",
            Self::Less => "<",
            Self::LessEq => "<=",
            Self::Greater => ">",
            Self::GreaterEq => ">=",
        }
    }
}

/// One value. Cheap to clone: text and arrays are shared.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Absent.
    #[default]
    Nil,
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Text.
    Str(Arc<str>),
    /// Truth value.
    Bool(bool),
    /// Span status.
    Status(Status),
    /// Span kind.
    Kind(Kind),
    /// Elements of one type out of int, float, text, bool. Arrays of one element are normalised to the element
    /// by [`Value::list`].
    List(Arc<[Value]>),
}

impl Value {
    /// About how much memory it takes; of shared text as if it were its own.
    #[must_use]
    pub fn memory(&self) -> usize {
        let more = match self {
            Self::Str(text) => text.len(),
            Self::List(items) => items.iter().map(Self::memory).sum(),
            _ => 0,
        };
        size_of::<Self>() + more
    }

    /// Text.
    #[must_use]
    pub fn str(text: &str) -> Self {
        Self::Str(text.into())
    }

    /// An array; one element stands for itself.
    #[must_use]
    pub fn list(mut items: Vec<Self>) -> Self {
        if items.len() == 1 { items.remove(0) } else { Self::List(items.into()) }
    }

    /// Run-time type. An empty array counts as an array of strings.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::Nil => Type::Nil,
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
            Self::Duration(_) => Type::Duration,
            Self::Str(_) => Type::String,
            Self::Bool(_) => Type::Bool,
            Self::Status(_) => Type::Status,
            Self::Kind(_) => Type::Kind,
            Self::List(items) => match items.first() {
                Some(Self::Int(_)) => Type::IntArray,
                Some(Self::Float(_)) => Type::FloatArray,
                Some(Self::Bool(_)) => Type::BoolArray,
                _ => Type::StringArray,
            },
        }
    }

    /// True for [`Value::Nil`].
    #[must_use]
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The number, durations in nanoseconds; `None` for anything not numeric.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "mixed numbers are compared as floats by definition")]
            Self::Int(value) | Self::Duration(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// `self op other` by the rules of the language: false when either side is nil, when the types do not fit or
    /// when the operator is not defined for them. An array against a scalar: any element for everything but `!=`,
    /// all elements for `!=`. Two arrays: false.
    #[must_use]
    pub fn compare(&self, op: CompareOp, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, _) | (_, Self::Nil) | (Self::List(_), Self::List(_)) => false,
            // No element equals anything, whatever the type would have been.
            (Self::List(items), _) if items.is_empty() => op == CompareOp::NotEq,
            (Self::List(items), _) => {
                if !self.type_of().compatible(other.type_of()) || !order_defined(op, other) {
                    false
                } else if op == CompareOp::NotEq {
                    items.iter().all(|item| item.compare(op, other))
                } else {
                    items.iter().any(|item| item.compare(op, other))
                }
            }
            (_, Self::List(_)) => other.compare(op.mirrored(), self),
            (Self::Int(a) | Self::Duration(a), Self::Int(b)) | (Self::Duration(a), Self::Duration(b)) => {
                op.accepts(a.cmp(b))
            }
            (Self::Int(a), Self::Duration(b)) => op.accepts(a.cmp(b)),
            (Self::Str(a), Self::Str(b)) => op.accepts(a.as_bytes().cmp(b.as_bytes())),
            (Self::Bool(a), Self::Bool(b)) => !op.is_order() && op.accepts(a.cmp(b)),
            (Self::Status(a), Self::Status(b)) => !op.is_order() && op.accepts(a.cmp(b)),
            (Self::Kind(a), Self::Kind(b)) => !op.is_order() && op.accepts(a.cmp(b)),
            _ => match (self.as_f64(), other.as_f64()) {
                (Some(a), Some(b)) => op.accepts_f64(a, b),
                _ => false,
            },
        }
    }

    /// A total order over type and value, used where output has to be deterministic. Not the order of the language.
    #[must_use]
    pub fn total_cmp(&self, other: &Self) -> Ordering {
        fn rank(value: &Value) -> u8 {
            match value {
                Value::Nil => 0,
                Value::Bool(_) => 1,
                Value::Int(_) => 2,
                Value::Float(_) => 3,
                Value::Duration(_) => 4,
                Value::Status(_) => 5,
                Value::Kind(_) => 6,
                Value::Str(_) => 7,
                Value::List(_) => 8,
            }
        }
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Duration(a), Self::Duration(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Status(a), Self::Status(b)) => a.cmp(b),
            (Self::Kind(a), Self::Kind(b)) => a.cmp(b),
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a
                .iter()
                .zip(b.iter())
                .map(|(a, b)| a.total_cmp(b))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len())),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

/// Order operators exist for numbers and text only.
fn order_defined(op: CompareOp, scalar: &Value) -> bool {
    !op.is_order() || matches!(scalar, Value::Str(_)) || scalar.type_of().is_numeric()
}

/// Identity: same type and same value (an int never equals a float); floats by bits, so NaN equals itself.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.total_cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Nil => {}
            Self::Int(value) | Self::Duration(value) => value.hash(state),
            Self::Float(value) => value.to_bits().hash(state),
            Self::Str(value) => value.hash(state),
            Self::Bool(value) => value.hash(state),
            Self::Status(value) => value.hash(state),
            Self::Kind(value) => value.hash(state),
            Self::List(items) => items.hash(state),
        }
    }
}

/// Canonical literal text: strings in back quotes where they can stand there, durations as `1m30s`, floats in
/// shortest form.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&format_float(*value)),
            Self::Duration(value) => f.write_str(&format_duration(*value)),
            Self::Str(text) => write_string(f, text),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Status(value) => f.write_str(value.as_str()),
            Self::Kind(value) => f.write_str(value.as_str()),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Back quotes cannot hold a back quote and lose carriage returns, so such text is written with escapes instead.
fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if !text.contains(['`', '\r']) {
        return write!(f, "`{text}`");
    }
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if u32::from(c) < 0x20 => write!(f, "\\x{:02x}", u32::from(c))?,
            c => fmt::Write::write_char(f, c)?,
        }
    }
    f.write_str("\"")
}

/// Shortest text that reads back as the same float: exponent form below 1e-4 and from 1e6 on, `.0` where the
/// text would read as an integer.
#[must_use]
pub(crate) fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:e}");
        let Some((mantissa, exponent)) = text.split_once('e') else { return text };
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    let text = format!("{value}");
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// `1h30m0s`, `1.5s`, `250ms`, `100µs`, `750ns`, `0s`: the largest unit below a minute takes the fraction, from a
/// minute on all smaller units are written.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| -> String {
        let rest = value % unit;
        if rest == 0 {
            return (value / unit).to_string();
        }
        let width = unit.ilog10() as usize;
        format!("{}.{}", value / unit, format!("{rest:0width$}").trim_end_matches('0'))
    };
    if total < 1_000 {
        return format!("{sign}{total}ns");
    }
    if total < 1_000_000 {
        return format!("{sign}{}µs", fraction(total, 1_000));
    }
    if total < 1_000_000_000 {
        return format!("{sign}{}ms", fraction(total, 1_000_000));
    }
    let seconds = fraction(total % 60_000_000_000, 1_000_000_000);
    let minutes = total / 60_000_000_000;
    if minutes == 0 {
        format!("{sign}{seconds}s")
    } else if minutes < 60 {
        format!("{sign}{minutes}m{seconds}s")
    } else {
        format!("{sign}{}h{}m{seconds}s", minutes / 60, minutes % 60)
    }
}

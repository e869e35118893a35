//! The tree of a parsed query. `Display` of every node is its normal form.

use crate::{
    field::Field,
    value::{CompareOp, Value},
};

/// What a query does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Selects spans.
    Search(Pipeline),
    /// A comparison over whole wrapped pipelines: parses and is refused by the checks.
    ScalarComparison(ScalarComparison),
    /// Computes series.
    Metrics {
        /// First stage, possibly several combined by arithmetic.
        expr: MetricExpr,
        /// What is done with the series of the whole expression.
        second: Vec<SecondStage>,
    },
}

/// A hint of `with(…)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Name as written.
    pub name: String,
    /// Unsigned literal.
    pub value: Value,
}

/// Stages from left to right; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// The stages.
    pub stages: Vec<Stage>,
}

/// One stage of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A filter or filters combined.
    Spans(SpansetExpr),
    /// Keeps spansets by an aggregate.
    Scalar(ScalarComparison),
    /// Splits spansets by a value.
    By(Expr),
    /// Joins all spansets of a trace.
    Coalesce,
    /// Asks for fields in the output.
    Select(Vec<Field>),
}

/// Spans of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpansetExpr {
    /// `{ … }`
    Filter(Expr),
    /// Two operands combined.
    Binary {
        /// How.
        op: SpansetOp,
        /// Left operand.
        left: Box<SpansetExpr>,
        /// Right operand.
        right: Box<SpansetExpr>,
    },
    /// A whole pipeline in parentheses, as operand.
    Pipeline(Pipeline),
}

/// How two spansets combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpansetOp {
    /// `&&`
    And,
    /// `||`
    Or,
    /// Structural.
    Structural {
        /// Which relation.
        relation: Relation,
        /// Plain, negated (`!`) or union (`&`).
        form: Form,
    },
}

/// Relation of a right-hand span to a left-hand span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `>`: the right one is a child of the left one.
    Child,
    /// `<`: the right one is the parent.
    Parent,
    /// `>>`: the right one is a descendant.
    Descendant,
    /// `<<`: the right one is an ancestor.
    Ancestor,
    /// `~`: they have the same parent.
    Sibling,
}

/// Which spans a structural operator returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Right-hand spans that relate to a left-hand one.
    Plain,
    /// Right-hand spans that relate to none.
    Negated,
    /// Spans of both sides that relate.
    Union,
}

/// Expression over one span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Constant.
    Literal(Value),
    /// Field of the span.
    Field(Field),
    /// `-x`
    Negate(Box<Expr>),
    /// `!x`
    Not(Box<Expr>),
    /// `x != nil`
    Exists(Box<Expr>),
    /// `x = nil`
    Missing(Box<Expr>),
    /// Two operands.
    Binary {
        /// Operator.
        op: BinaryOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
}

/// Operators between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// Comparison.
    Compare(CompareOp),
    /// `=~`
    Match,
    /// `!~`
    NotMatch,
    /// `&&`
    And,
    /// `||`
    Or,
    /// Arithmetic.
    Arithmetic(ArithmeticOp),
}

/// Arithmetic operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithmeticOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `^`
    Power,
}

/// `aggregate op constant`, or what else parses as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalarComparison {
    /// Operator.
    pub op: CompareOp,
    /// Left side.
    pub left: ScalarExpr,
    /// Right side.
    pub right: ScalarExpr,
}

/// One number per spanset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScalarExpr {
    /// Constant.
    Literal(Value),
    /// Aggregate over the spans.
    Aggregate(Aggregate),
    /// Arithmetic; parses, but the checks refuse it.
    Binary {
        /// Operator.
        op: ArithmeticOp,
        /// Left operand.
        left: Box<ScalarExpr>,
        /// Right operand.
        right: Box<ScalarExpr>,
    },
    /// `({ … } | count())`; parses, but the checks refuse it.
    Pipeline {
        /// Everything before the aggregate.
        pipeline: Pipeline,
        /// The aggregate.
        aggregate: Aggregate,
    },
}

/// An aggregate function with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// `count()`
    Count,
    /// `min(e)`
    Min(Expr),
    /// `max(e)`
    Max(Expr),
    /// `avg(e)`
    Avg(Expr),
    /// `sum(e)`
    Sum(Expr),
}

impl Aggregate {
    /// The argument.
    #[must_use]
    pub fn argument(&self) -> Option<&Expr> {
        match self {
            Self::Count => None,
            Self::Min(expr) | Self::Max(expr) | Self::Avg(expr) | Self::Sum(expr) => Some(expr),
        }
    }
}

/// Series, or a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricExpr {
    /// One sub-query.
    Leaf(MetricLeaf),
    /// A float.
    Literal(Value),
    /// Arithmetic; at least one side holds a leaf, the operator is one of `+ - * /`.
    Binary {
        /// Operator.
        op: ArithmeticOp,
        /// Left operand.
        left: Box<MetricExpr>,
        /// Right operand.
        right: Box<MetricExpr>,
    },
}

/// Pipeline, metric function and, inside parentheses, a second stage of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricLeaf {
    /// Which spans.
    pub pipeline: Pipeline,
    /// What is computed.
    pub function: MetricFunction,
    /// What is done with the leaf's series before arithmetic.
    pub second: Vec<SecondStage>,
}

/// First-stage metric functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricFunction {
    /// `rate()`, `sum_over_time(f)`, …
    OverTime {
        /// Which.
        op: OverTimeOp,
        /// Argument, for all but `rate` and `count_over_time`.
        field: Option<Field>,
        /// Quantiles of `quantile_over_time`, in order.
        quantiles: Vec<Quantile>,
        /// Grouping fields.
        by: Vec<Field>,
    },
    /// `compare({ … }, n, start, end)`
    Compare {
        /// Selects the *selection*; the rest is the *baseline*.
        filter: Expr,
        /// Values kept per field and side.
        top: i64,
        /// Window of the selection in nanoseconds, exclusive start and inclusive end; zeros: none.
        window: (i64, i64),
    },
}

/// A quantile; compared by its bits.
#[derive(Clone, Copy, Debug)]
pub struct Quantile(pub f64);

impl PartialEq for Quantile {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Quantile {}

/// The functions over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverTimeOp {
    /// Spans per second.
    Rate,
    /// Spans.
    Count,
    /// Least value.
    Min,
    /// Greatest value.
    Max,
    /// Mean value.
    Avg,
    /// Sum of values.
    Sum,
    /// Counts per power of two.
    Histogram,
    /// Quantiles from such counts.
    Quantile,
}

/// What is done with finished series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecondStage {
    /// The k largest at each instant.
    TopK(i64),
    /// The k smallest at each instant.
    BottomK(i64),
    /// Keeps the points for which the comparison holds. The constant is a float, durations in seconds.
    Compare(CompareOp, Value),
}

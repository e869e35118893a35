//! The normal form: what is printed parses back to the same tree.

use std::fmt::{self, Display, Formatter};

use crate::{
    ast::{
        Aggregate, ArithmeticOp, BinaryOp, Body, Expr, Form, Hint, MetricExpr, MetricFunction, MetricLeaf, OverTimeOp,
        Pipeline, Relation, ScalarComparison, ScalarExpr, SecondStage, SpansetExpr, SpansetOp, Stage,
    },
    value::{Value, format_float},
};

impl ArithmeticOp {
    /// The spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
        }
    }
}

impl BinaryOp {
    /// The spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compare(op) => op.as_str(),
            Self::Match => "=~",
            Self::NotMatch => "!~",
            Self::And => "&&",
            Self::Or => "||",
            Self::Arithmetic(op) => op.as_str(),
        }
    }
}

impl SpansetOp {
    /// The spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let Self::Structural { relation, form } = self else {
            return if self == Self::And { "&&" } else { "||" };
        };
        match (form, relation) {
            (Form::Plain, Relation::Child) => ">",
            (Form::Plain, Relation::Parent) => "<",
            (Form::Plain, Relation::Descendant) => ">>",
            (Form::Plain, Relation::Ancestor) => "<<",
            (Form::Plain, Relation::Sibling) => "~",
            (Form::Negated, Relation::Child) => "!>",
            (Form::Negated, Relation::Parent) => "!<",
            (Form::Negated, Relation::Descendant) => "!>>",
            (Form::Negated, Relation::Ancestor) => "!<<",
            (Form::Negated, Relation::Sibling) => "!~",
            (Form::Union, Relation::Child) => "&>",
            (Form::Union, Relation::Parent) => "&<",
            (Form::Union, Relation::Descendant) => "&>>",
            (Form::Union, Relation::Ancestor) => "&<<",
            (Form::Union, Relation::Sibling) => "&~",
        }
    }
}

impl OverTimeOp {
    /// The spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Count => "count_over_time",
            Self::Min => "min_over_time",
            Self::Max => "max_over_time",
            Self::Avg => "avg_over_time",
            Self::Sum => "sum_over_time",
            Self::Histogram => "histogram_over_time",
            Self::Quantile => "quantile_over_time",
        }
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, items: &[T], separator: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// An operand in parentheses unless it is a literal or a field.
struct Operand<'a>(&'a Expr);

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Literal(_) | Expr::Field(_) => self.0.fmt(f),
            expr => write!(f, "({expr})"),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => value.fmt(f),
            Self::Field(field) => field.fmt(f),
            Self::Negate(inner) => write!(f, "-{}", Operand(inner)),
            Self::Not(inner) => write!(f, "!{}", Operand(inner)),
            Self::Exists(inner) => write!(f, "{} != nil", Operand(inner)),
            Self::Missing(inner) => write!(f, "{} = nil", Operand(inner)),
            Self::Binary { op, left, right } => {
                // `-5 ^ .x` would read as `-(5 ^ .x)`.
                if is_negative(left)
                    && matches!(op, BinaryOp::Arithmetic(op) if !matches!(op, ArithmeticOp::Add | ArithmeticOp::Subtract))
                {
                    write!(f, "({left})")?;
                } else {
                    Operand(left).fmt(f)?;
                }
                write!(f, " {} {}", op.as_str(), Operand(right))
            }
        }
    }
}

fn is_negative(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(Value::Int(value) | Value::Duration(value)) => *value < 0,
        Expr::Literal(Value::Float(value)) => value.is_sign_negative(),
        _ => false,
    }
}

impl Display for SpansetExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(expr) => write!(f, "{{ {expr} }}"),
            Self::Binary { op, left, right } => write!(f, "({left}) {} ({right})", op.as_str()),
            Self::Pipeline(pipeline) => pipeline.fmt(f),
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count()"),
            Self::Min(expr) => write!(f, "min({expr})"),
            Self::Max(expr) => write!(f, "max({expr})"),
            Self::Avg(expr) => write!(f, "avg({expr})"),
            Self::Sum(expr) => write!(f, "sum({expr})"),
        }
    }
}

impl Display for ScalarExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operand = |f: &mut Formatter<'_>, expr: &Self| match expr {
            Self::Literal(value) => value.fmt(f),
            expr => write!(f, "({expr})"),
        };
        match self {
            Self::Literal(value) => value.fmt(f),
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Binary { op, left, right } => {
                operand(f, left)?;
                write!(f, " {} ", op.as_str())?;
                operand(f, right)
            }
            Self::Pipeline { pipeline, aggregate } => write!(f, "{pipeline}|{aggregate}"),
        }
    }
}

impl Display for ScalarComparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operand = |f: &mut Formatter<'_>, expr: &ScalarExpr| match expr {
            ScalarExpr::Literal(value) => value.fmt(f),
            expr => write!(f, "({expr})"),
        };
        operand(f, &self.left)?;
        write!(f, " {} ", self.op.as_str())?;
        operand(f, &self.right)
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spans(expr) => expr.fmt(f),
            Self::Scalar(comparison) => comparison.fmt(f),
            Self::By(expr) => write!(f, "by({expr})"),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Select(fields) => {
                f.write_str("select(")?;
                list(f, fields, ", ")?;
                f.write_str(")")
            }
        }
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        list(f, &self.stages, "|")
    }
}

impl Display for MetricFunction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverTime { op, field, quantiles, by } => {
                write!(f, "{}(", op.as_str())?;
                if let Some(field) = field {
                    field.fmt(f)?;
                }
                for quantile in quantiles {
                    // Five decimals, more only where five would make two different quantiles one text.
                    let short = format!("{:.5}", quantile.0);
                    if short.parse() == Ok(quantile.0) {
                        write!(f, ",{short}")?;
                    } else {
                        write!(f, ",{}", format_float(quantile.0))?;
                    }
                }
                f.write_str(")")?;
                if !by.is_empty() {
                    f.write_str("by(")?;
                    list(f, by, ",")?;
                    f.write_str(")")?;
                }
                Ok(())
            }
            Self::Compare { filter, top, window } => {
                write!(f, "compare({{ {filter} }}, {top}")?;
                if *window != (0, 0) {
                    write!(f, ", {}, {}", window.0, window.1)?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Display for SecondStage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopK(k) => write!(f, " | topk({k})"),
            Self::BottomK(k) => write!(f, " | bottomk({k})"),
            Self::Compare(op, constant) => write!(f, " {} {}", op.as_str(), Constant(constant)),
        }
    }
}

/// Constants of metrics: integral ones without a fraction.
struct Constant<'a>(&'a Value);

impl Display for Constant<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => write!(f, "{number:.0}"),
            other => other.fmt(f),
        }
    }
}

impl Display for MetricLeaf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.pipeline, self.function)?;
        list(f, &self.second, "")
    }
}

impl Display for MetricExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operand = |f: &mut Formatter<'_>, expr: &Self| match expr {
            Self::Literal(value) => Constant(value).fmt(f),
            expr => write!(f, "({expr})"),
        };
        match self {
            Self::Leaf(leaf) => leaf.fmt(f),
            Self::Literal(value) => Constant(value).fmt(f),
            Self::Binary { op, left, right } => {
                operand(f, left)?;
                write!(f, " {} ", op.as_str())?;
                operand(f, right)
            }
        }
    }
}

impl Display for Body {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Search(pipeline) => pipeline.fmt(f),
            Self::ScalarComparison(comparison) => comparison.fmt(f),
            Self::Metrics { expr, second } => {
                expr.fmt(f)?;
                list(f, second, "")
            }
        }
    }
}

impl Display for Hint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

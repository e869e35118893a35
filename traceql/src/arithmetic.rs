//! Arithmetic between values, and folding of constant expressions.

use crate::{
    ast::{ArithmeticOp, BinaryOp, Expr},
    check,
    pattern::Pattern,
    value::Value,
};

impl ArithmeticOp {
    /// `a op b`: two ints stay int (wrapping, `/` truncates toward zero), every other pair of numbers gives a
    /// float. `None` for anything not numeric and for integer division by zero.
    #[must_use]
    pub fn apply(self, a: &Value, b: &Value) -> Option<Value> {
        if let (Value::Int(a), Value::Int(b)) = (a, b) {
            return self.apply_ints(*a, *b).map(Value::Int);
        }
        Some(Value::Float(self.apply_floats(a.as_f64()?, b.as_f64()?)))
    }

    pub(crate) fn apply_ints(self, a: i64, b: i64) -> Option<i64> {
        Some(match self {
            Self::Add => a.wrapping_add(b),
            Self::Subtract => a.wrapping_sub(b),
            Self::Multiply => a.wrapping_mul(b),
            Self::Divide if b == 0 => return None,
            Self::Divide => a.wrapping_div(b),
            Self::Modulo if b == 0 => return None,
            Self::Modulo => a.wrapping_rem(b),
            Self::Power => match u32::try_from(b) {
                Ok(exponent) => a.wrapping_pow(exponent),
                // A negative exponent leaves a fraction, which integers cut off: only 1 and -1 keep something.
                Err(_) if b < 0 => match a {
                    0 => return None,
                    1 => 1,
                    -1 if b % 2 == 0 => 1,
                    -1 => -1,
                    _ => 0,
                },
                // Powers repeat with a period that divides 2^32 once they wrap, so the low bits decide.
                Err(_) => wrapping_power(a, b.cast_unsigned()),
            },
        })
    }

    pub(crate) fn apply_floats(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Modulo => a % b,
            Self::Power => a.powf(b),
        }
    }
}

fn wrapping_power(base: i64, mut exponent: u64) -> i64 {
    let (mut square, mut result) = (base, 1_i64);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        exponent >>= 1;
    }
    result
}

/// `-x` of a number.
pub(crate) fn negate(value: &Value) -> Option<Value> {
    match value {
        Value::Int(value) => Some(Value::Int(value.wrapping_neg())),
        Value::Duration(value) => Some(Value::Duration(value.wrapping_neg())),
        Value::Float(value) => Some(Value::Float(-value)),
        _ => None,
    }
}

/// Replaces a node over constants by its value, if it is well typed and has one.
pub(crate) fn fold(expr: Expr) -> Expr {
    let value = match &expr {
        Expr::Negate(inner) => literal(inner).and_then(negate),
        Expr::Not(inner) => match literal(inner) {
            Some(Value::Bool(value)) => Some(Value::Bool(!value)),
            _ => None,
        },
        Expr::Exists(inner) => literal(inner).map(|_| Value::Bool(true)),
        Expr::Missing(inner) => literal(inner).map(|_| Value::Bool(false)),
        Expr::Binary { op, left, right } => match (literal(left), literal(right)) {
            (Some(left), Some(right)) if check::operands_fit(*op, left.type_of(), right.type_of()) => {
                apply(*op, left, right)
            }
            _ => None,
        },
        Expr::Literal(_) | Expr::Field(_) => None,
    };
    match value {
        // What has no literal cannot be printed and read again.
        Some(Value::Float(value)) if !value.is_finite() => expr,
        Some(value) => Expr::Literal(value),
        None => expr,
    }
}

fn literal(expr: &Expr) -> Option<&Value> {
    match expr {
        Expr::Literal(value) => Some(value),
        _ => None,
    }
}

fn apply(op: BinaryOp, left: &Value, right: &Value) -> Option<Value> {
    match (op, left, right) {
        (BinaryOp::Compare(op), _, _) => Some(Value::Bool(left.compare(op, right))),
        (BinaryOp::And, Value::Bool(left), Value::Bool(right)) => Some(Value::Bool(*left && *right)),
        (BinaryOp::Or, Value::Bool(left), Value::Bool(right)) => Some(Value::Bool(*left || *right)),
        (BinaryOp::Match, Value::Str(text), Value::Str(pattern)) => {
            Pattern::new(pattern).ok().map(|pattern| Value::Bool(pattern.is_match(text)))
        }
        (BinaryOp::NotMatch, Value::Str(text), Value::Str(pattern)) => {
            Pattern::new(pattern).ok().map(|pattern| Value::Bool(!pattern.is_match(text)))
        }
        (BinaryOp::Arithmetic(op), _, _) => op.apply(left, right),
        _ => None,
    }
}

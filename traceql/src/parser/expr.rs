//! Field expressions: what stands inside braces and as argument of `by` and aggregates.

use std::sync::Arc;

use super::{MAX_DEPTH, Parser, arithmetic_op, compare_op, literal_word};
use crate::{
    arithmetic::fold,
    ast::{BinaryOp, Expr},
    error::Error,
    field::{Field, Intrinsic},
    lexer::Token,
    value::{CompareOp, Value},
};

/// Binds looser than every operator.
const LOOSEST: u8 = 0;
const COMPARISON: u8 = 3;
const UNARY_MINUS: u8 = 5;
const UNARY_NOT: u8 = 6;

/// Most operands of `&&` or `||` in a row.
const MAX_OPERANDS: usize = 4096;

/// So many of them are joined from left to right, as the language says. Well below `MAX_NESTING`, because the normal form has
/// a pair of parentheses per operator.
const LEFT_DEEP: usize = 128;

/// An expression with the length of its longest path.
type Measured = (Expr, u32);

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Result<Expr, Error> {
        self.nested(|parser| parser.climb(LOOSEST)).map(|(expr, _)| expr)
    }

    fn climb(&mut self, min_level: u8) -> Result<Measured, Error> {
        let (mut left, mut depth) = self.unary()?;
        // What stands before `left` and is joined with it by one of `&&` and `||`, behind which nothing binds as loosely.
        let (mut joint, mut operands): (Option<BinaryOp>, Vec<Measured>) = (None, Vec::new());
        while let Token::Punct(text) = self.token {
            let Some((op, level, right_associative)) = binary_op(text) else { break };
            if level < min_level {
                break;
            }
            self.advance()?;
            // Between `&&` or `||` and a `nil` begins another test, `nil = x`.
            if self.token == Token::Word("nil") && !matches!(op, BinaryOp::And | BinaryOp::Or) {
                let start = self.start;
                self.advance()?;
                left = match op {
                    BinaryOp::Compare(CompareOp::Eq) => fold(Expr::Missing(Box::new(left))),
                    BinaryOp::Compare(CompareOp::NotEq) => fold(Expr::Exists(Box::new(left))),
                    _ => return self.unexpected_at(start, "nil"),
                };
                depth += 1;
                continue;
            }
            let (right, right_depth) =
                self.nested(|parser| parser.climb(if right_associative { level } else { level + 1 }))?;
            if matches!(op, BinaryOp::And | BinaryOp::Or) {
                operands.push((left, depth));
                if let Some(before) = joint.filter(|before| *before != op) {
                    let whole = self.joined(before, std::mem::take(&mut operands))?;
                    operands.push(whole);
                }
                if operands.len() >= MAX_OPERANDS {
                    return self
                        .fail(self.start, format!("more than {MAX_OPERANDS} conditions joined in one expression"));
                }
                (left, depth, joint) = (right, right_depth, Some(op));
                continue;
            }
            (left, depth) = self.within_bounds((binary(op, left, right), depth.max(right_depth) + 1))?;
        }
        match joint {
            None => Ok((left, depth)),
            Some(op) => {
                operands.push((left, depth));
                self.joined(op, operands)
            }
        }
    }

    /// One expression of operands. Many of them become a tree that means the same and is less deep than it is long.
    fn joined(&self, op: BinaryOp, mut operands: Vec<Measured>) -> Result<Measured, Error> {
        let pair = |(left, a): Measured, (right, b): Measured| (binary(op, left, right), a.max(b) + 1);
        while operands.len() > LEFT_DEEP {
            let mut rest = operands.into_iter();
            let mut pairs = Vec::with_capacity(rest.len().div_ceil(2));
            while let Some(left) = rest.next() {
                pairs.push(match rest.next() {
                    Some(right) => pair(left, right),
                    None => left,
                });
            }
            operands = pairs;
        }
        let whole = operands.into_iter().reduce(pair).expect("an operator has operands");
        self.within_bounds(whole)
    }

    fn within_bounds(&self, (expr, depth): Measured) -> Result<Measured, Error> {
        if depth > MAX_DEPTH {
            return self.fail(self.start, format!("more than {MAX_DEPTH} operators in one expression"));
        }
        Ok((expr, depth))
    }

    fn unary(&mut self) -> Result<Measured, Error> {
        if self.eat("-")? {
            let (inner, depth) = self.nested(|parser| parser.climb(UNARY_MINUS))?;
            return Ok((fold(Expr::Negate(Box::new(inner))), depth + 1));
        }
        if self.eat("!")? {
            let (inner, depth) = self.nested(|parser| parser.climb(UNARY_NOT))?;
            return Ok((fold(Expr::Not(Box::new(inner))), depth + 1));
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Measured, Error> {
        let expr = match &self.token {
            Token::Punct("(") => {
                self.advance()?;
                let inner = self.nested(|parser| parser.climb(LOOSEST))?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Literal(value) => Expr::Literal(value.clone()),
            Token::Word("nil") => return self.leading_nil(),
            Token::Word(word) => match literal_word(word) {
                Some(value) => Expr::Literal(value),
                None => Expr::Field(self.field()?),
            },
            Token::Field(_) => return Ok((Expr::Field(self.field()?), 1)),
            Token::Ident("minInt") => Expr::Literal(Value::Int(i64::MIN)),
            Token::Ident("maxInt") => Expr::Literal(Value::Int(i64::MAX)),
            Token::Ident(word) => return self.fail(self.start, format!("unknown identifier: {word}")),
            Token::End | Token::Punct(_) => return self.unexpected(),
        };
        if matches!(expr, Expr::Literal(_)) {
            self.advance()?;
        }
        Ok((expr, 1))
    }

    /// `nil = x`, `nil != x`, and `nil = nil`, which is false with either operator.
    fn leading_nil(&mut self) -> Result<Measured, Error> {
        self.advance()?;
        let exists = self.at("!=");
        if !exists && !self.at("=") {
            return self.unexpected();
        }
        self.advance()?;
        if self.token == Token::Word("nil") {
            self.advance()?;
            return Ok((Expr::Literal(Value::Bool(false)), 1));
        }
        let (inner, depth) = self.nested(|parser| parser.climb(COMPARISON + 1))?;
        let inner = Box::new(inner);
        Ok((fold(if exists { Expr::Exists(inner) } else { Expr::Missing(inner) }), depth + 1))
    }

    /// An attribute or an intrinsic in either spelling.
    pub(super) fn field(&mut self) -> Result<Field, Error> {
        let field = match &self.token {
            Token::Field(field) => field.clone(),
            Token::Word(word) => match unscoped_intrinsic(word) {
                Some(intrinsic) => Field::Intrinsic(intrinsic),
                None => return self.unexpected(),
            },
            Token::Ident(word) => return self.fail(self.start, format!("unknown identifier: {word}")),
            Token::End | Token::Punct(_) | Token::Literal(_) => return self.unexpected(),
        };
        self.advance()?;
        Ok(field)
    }

    /// Fields up to and with the closing parenthesis, at least one.
    pub(super) fn fields(&mut self) -> Result<Vec<Field>, Error> {
        let mut fields = vec![self.field()?];
        while self.eat(",")? {
            fields.push(self.field()?);
        }
        self.expect(")")?;
        Ok(fields)
    }
}

fn binary_op(text: &str) -> Option<(BinaryOp, u8, bool)> {
    Some(match text {
        "&&" => (BinaryOp::And, 2, false),
        "||" => (BinaryOp::Or, 2, false),
        "=~" => (BinaryOp::Match, COMPARISON, false),
        "!~" => (BinaryOp::NotMatch, COMPARISON, false),
        "^" => (BinaryOp::Arithmetic(arithmetic_op(text)?), 7, true),
        "*" | "/" | "%" => (BinaryOp::Arithmetic(arithmetic_op(text)?), 6, false),
        "+" | "-" => (BinaryOp::Arithmetic(arithmetic_op(text)?), 4, false),
        _ => (BinaryOp::Compare(compare_op(text)?), COMPARISON, false),
    })
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    let (left, right) = (Box::new(left), Box::new(right));
    let trace_id = Expr::Field(Field::Intrinsic(Intrinsic::TraceId));
    let (left, right) = if matches!(op, BinaryOp::Compare(_)) {
        if *left == trace_id {
            (left, strip_zeros(right))
        } else if *right == trace_id {
            (strip_zeros(left), right)
        } else {
            (left, right)
        }
    } else {
        (left, right)
    };
    fold(Expr::Binary { op, left, right })
}

/// Trace ids are text without leading zeros, whatever the user pasted.
fn strip_zeros(mut expr: Box<Expr>) -> Box<Expr> {
    if let Expr::Literal(Value::Str(text)) = &mut *expr
        && text.starts_with('0')
    {
        *text = Arc::from(text.trim_start_matches('0'));
    }
    expr
}

fn unscoped_intrinsic(word: &str) -> Option<Intrinsic> {
    Some(match word {
        "duration" => Intrinsic::Duration,
        "name" => Intrinsic::Name,
        "status" => Intrinsic::Status,
        "statusMessage" => Intrinsic::StatusMessage,
        "kind" => Intrinsic::Kind,
        "parent" => Intrinsic::Parent,
        "rootName" => Intrinsic::RootName,
        "rootServiceName" => Intrinsic::RootServiceName,
        "traceDuration" => Intrinsic::TraceDuration,
        "nestedSetLeft" => Intrinsic::NestedSetLeft,
        "nestedSetRight" => Intrinsic::NestedSetRight,
        "nestedSetParent" => Intrinsic::NestedSetParent,
        _ => return None,
    })
}

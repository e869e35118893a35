//! Expressions compiled against numbered columns, and the conditions that can be read off them.

use std::sync::Arc;

use crate::{
    ast::{ArithmeticOp, BinaryOp, Expr},
    condition::{Condition, Predicate, Test},
    field::{Field, Level, Scope},
    pattern::Pattern,
    query::Query,
    value::{CompareOp, Value},
};

/// Where a field's values are: one column, or the span's with the resource's behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Index of the column.
    One(usize),
    /// `.x`: the span's column where it has a value, else the resource's.
    Either { span: usize, resource: usize },
}

/// The columns that a query computes with, each field once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) fields: Vec<Field>,
}

impl Columns {
    pub(crate) fn slot(&mut self, field: &Field) -> Slot {
        if let Field::Attribute { scope: Scope::Any, name, .. } = field {
            let span = self.index(&Field::Attribute { scope: Scope::Span, name: name.clone(), parent: false });
            let resource = self.index(&Field::Attribute { scope: Scope::Resource, name: name.clone(), parent: false });
            return Slot::Either { span, resource };
        }
        Slot::One(self.index(field))
    }

    fn index(&mut self, field: &Field) -> usize {
        self.fields.iter().position(|known| known == field).unwrap_or_else(|| {
            self.fields.push(field.clone());
            self.fields.len() - 1
        })
    }
}

/// A truth value per row, computed a column at a time.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Constant(bool),
    /// A field against a literal; `id` numbers the tests of a plan.
    Test {
        slot: Slot,
        condition: Condition,
        id: usize,
    },
    All(Vec<Program>),
    AnyOf(Vec<Program>),
    /// Negation of something that is always true or false.
    Not(Box<Program>),
    /// Row by row: true where the value is `true`. `exists`: attributes without which it cannot be.
    Rows {
        scalar: Scalar,
        exists: Vec<Field>,
    },
}

/// A value per row, computed row by row.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    Literal(Value),
    Field(Slot),
    Negate(Box<Scalar>),
    Not(Box<Scalar>),
    Exists(Box<Scalar>),
    Missing(Box<Scalar>),
    Compare(CompareOp, Box<Scalar>, Box<Scalar>),
    Match {
        text: Box<Scalar>,
        pattern: Arc<Pattern>,
        negated: bool,
    },
    Arithmetic(ArithmeticOp, Box<Scalar>, Box<Scalar>),
    And(Box<Scalar>, Box<Scalar>),
    Or(Box<Scalar>, Box<Scalar>),
    /// A test with its own rules (strict types), inside a larger computation.
    Test(Slot, Condition),
}

/// Turns expressions into programs; patterns come compiled from the query.
pub(crate) struct Compiler<'a> {
    pub(crate) query: &'a Query,
    pub(crate) columns: Columns,
    pub(crate) tests: usize,
}

impl Compiler<'_> {
    pub(crate) fn program(&mut self, expr: &Expr) -> Program {
        match expr {
            Expr::Literal(value) => Program::Constant(*value == Value::Bool(true)),
            Expr::Not(inner) if is_boolean(inner) => Program::Not(Box::new(self.program(inner))),
            Expr::Binary { op: BinaryOp::And, left, right } => {
                let mut parts = Vec::new();
                for side in [left, right] {
                    match self.program(side) {
                        Program::All(inner) => parts.extend(inner),
                        program => parts.push(program),
                    }
                }
                Program::All(parts)
            }
            Expr::Binary { op: BinaryOp::Or, left, right } => {
                let mut parts = Vec::new();
                for side in [left, right] {
                    match self.program(side) {
                        Program::AnyOf(inner) => parts.extend(inner),
                        program => parts.push(program),
                    }
                }
                Program::AnyOf(parts)
            }
            expr => match self.condition(expr) {
                Some(condition) => {
                    self.tests += 1;
                    Program::Test { slot: self.columns.slot(&condition.field), condition, id: self.tests }
                }
                None => {
                    let mut exists = Vec::new();
                    if let Expr::Binary {
                        op: BinaryOp::Compare(_) | BinaryOp::Match | BinaryOp::NotMatch,
                        left,
                        right,
                    } = expr
                    {
                        operand_attributes(left, &mut exists);
                        operand_attributes(right, &mut exists);
                    }
                    Program::Rows { scalar: self.scalar(expr), exists }
                }
            },
        }
    }

    /// The node as a test of one field, where it is one.
    fn condition(&self, expr: &Expr) -> Option<Condition> {
        let (field, test) = match expr {
            // A bare field selects the spans where it is `true`.
            Expr::Field(field) => (field, Test::Compare(CompareOp::Eq, Value::Bool(true))),
            Expr::Exists(inner) => match &**inner {
                Expr::Field(field) => (field, Test::Exists),
                _ => return None,
            },
            Expr::Missing(inner) => match &**inner {
                Expr::Field(field) => (field, Test::Missing),
                _ => return None,
            },
            Expr::Binary { op, left, right } => match (op, &**left, &**right) {
                (BinaryOp::Compare(op), Expr::Field(field), Expr::Literal(value)) => {
                    (field, Test::Compare(*op, value.clone()))
                }
                (BinaryOp::Compare(op), Expr::Literal(value), Expr::Field(field)) => {
                    (field, Test::Compare(op.mirrored(), value.clone()))
                }
                (BinaryOp::Match, Expr::Field(field), Expr::Literal(Value::Str(source))) => {
                    (field, Test::Match(self.query.pattern(source)?))
                }
                (BinaryOp::NotMatch, Expr::Field(field), Expr::Literal(Value::Str(source))) => {
                    (field, Test::NotMatch(self.query.pattern(source)?))
                }
                _ => return None,
            },
            Expr::Literal(_) | Expr::Negate(_) | Expr::Not(_) => return None,
        };
        Some(Condition { field: field.clone(), test })
    }

    pub(crate) fn scalar(&mut self, expr: &Expr) -> Scalar {
        match expr {
            Expr::Literal(value) => Scalar::Literal(value.clone()),
            Expr::Field(field) => Scalar::Field(self.columns.slot(field)),
            Expr::Negate(inner) => Scalar::Negate(Box::new(self.scalar(inner))),
            Expr::Not(inner) => Scalar::Not(Box::new(self.scalar(inner))),
            Expr::Exists(inner) => match self.condition(expr) {
                Some(condition) => Scalar::Test(self.columns.slot(&condition.field), condition),
                None => Scalar::Exists(Box::new(self.scalar(inner))),
            },
            Expr::Missing(inner) => match self.condition(expr) {
                Some(condition) => Scalar::Test(self.columns.slot(&condition.field), condition),
                None => Scalar::Missing(Box::new(self.scalar(inner))),
            },
            Expr::Binary { op, left, right } => {
                if let Some(condition) = self.condition(expr) {
                    return Scalar::Test(self.columns.slot(&condition.field), condition);
                }
                match op {
                    BinaryOp::Match | BinaryOp::NotMatch => {
                        let pattern = match &**right {
                            Expr::Literal(Value::Str(source)) => self.query.pattern(source),
                            _ => None,
                        };
                        match pattern {
                            Some(pattern) => Scalar::Match {
                                text: Box::new(self.scalar(left)),
                                pattern,
                                negated: *op == BinaryOp::NotMatch,
                            },
                            // The checks leave no other right side.
                            None => Scalar::Literal(Value::Nil),
                        }
                    }
                    BinaryOp::Compare(op) => {
                        Scalar::Compare(*op, Box::new(self.scalar(left)), Box::new(self.scalar(right)))
                    }
                    BinaryOp::And => Scalar::And(Box::new(self.scalar(left)), Box::new(self.scalar(right))),
                    BinaryOp::Or => Scalar::Or(Box::new(self.scalar(left)), Box::new(self.scalar(right))),
                    BinaryOp::Arithmetic(op) => {
                        Scalar::Arithmetic(*op, Box::new(self.scalar(left)), Box::new(self.scalar(right)))
                    }
                }
            }
        }
    }
}

/// True for expressions whose value is never anything but a truth value.
fn is_boolean(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value) => matches!(value, Value::Bool(_)),
        Expr::Exists(_) | Expr::Missing(_) => true,
        Expr::Not(inner) => is_boolean(inner),
        Expr::Binary { op, .. } => !matches!(op, BinaryOp::Arithmetic(_)),
        Expr::Field(_) | Expr::Negate(_) => false,
    }
}

/// Attributes whose absence makes an operand nil.
fn operand_attributes(expr: &Expr, found: &mut Vec<Field>) {
    match expr {
        Expr::Field(field @ Field::Attribute { .. }) => found.push(field.clone()),
        Expr::Negate(inner) => operand_attributes(inner, found),
        Expr::Binary { op: BinaryOp::Arithmetic(_), left, right } => {
            operand_attributes(left, found);
            operand_attributes(right, found);
        }
        _ => {}
    }
}

impl Program {
    /// What a span must satisfy for the program to be able to be true.
    pub(crate) fn predicate(&self) -> Predicate {
        match self {
            Self::Constant(true) | Self::Not(_) => Predicate::Always,
            Self::Constant(false) => Predicate::Never,
            Self::Test { condition, .. } => Predicate::Is(condition.clone()),
            Self::All(parts) => Predicate::all(parts.iter().map(Self::predicate)),
            Self::AnyOf(parts) => Predicate::any_of(parts.iter().map(Self::predicate)),
            Self::Rows { exists, .. } => Predicate::all(
                exists.iter().map(|field| Predicate::Is(Condition { field: field.clone(), test: Test::Exists })),
            ),
        }
    }

    /// Whether a column of `level` takes part.
    pub(crate) fn reads(&self, level: Level, fields: &[Field]) -> bool {
        match self {
            Self::Constant(_) => false,
            Self::Test { slot, .. } => slot.reads(level, fields),
            Self::All(parts) | Self::AnyOf(parts) => parts.iter().any(|part| part.reads(level, fields)),
            Self::Not(inner) => inner.reads(level, fields),
            Self::Rows { scalar, .. } => scalar.reads(level, fields),
        }
    }
}

impl Slot {
    fn reads(self, level: Level, fields: &[Field]) -> bool {
        matches!(self, Self::One(index) if fields[index].level() == level)
    }
}

impl Scalar {
    fn reads(&self, level: Level, fields: &[Field]) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Field(slot) | Self::Test(slot, _) => slot.reads(level, fields),
            Self::Negate(inner) | Self::Not(inner) | Self::Exists(inner) | Self::Missing(inner) => {
                inner.reads(level, fields)
            }
            Self::Match { text, .. } => text.reads(level, fields),
            Self::Compare(_, left, right)
            | Self::Arithmetic(_, left, right)
            | Self::And(left, right)
            | Self::Or(left, right) => left.reads(level, fields) || right.reads(level, fields),
        }
    }
}

//! Static checks of a parsed query: types, literals, arguments, and what is reserved for later.

use std::{collections::HashMap, sync::Arc};

use crate::{
    ast::{
        Aggregate, BinaryOp, Body, Expr, MetricExpr, MetricFunction, MetricLeaf, OverTimeOp, Pipeline,
        ScalarComparison, ScalarExpr, SecondStage, SpansetExpr, Stage,
    },
    error::ErrorKind,
    field::{Field, Intrinsic},
    pattern::Pattern,
    value::{Type, Value},
};

/// Compiled regular expressions by their text.
pub(crate) type Patterns = HashMap<Arc<str>, Arc<Pattern>>;

/// Most regular expressions of a query: each takes memory of its own while it runs.
const MAX_PATTERNS: usize = 512;

type Refusal = (ErrorKind, String);

fn wrong<T>(message: String) -> Result<T, Refusal> {
    Err((ErrorKind::Type, message))
}

fn unsupported<T>(what: impl std::fmt::Display) -> Result<T, Refusal> {
    Err((ErrorKind::Unsupported, format!("{what} not yet supported")))
}

/// Whether the operator is defined for both types and they fit each other.
pub(crate) fn operands_fit(op: BinaryOp, left: Type, right: Type) -> bool {
    left.compatible(right) && defined(op, left) && defined(op, right)
}

fn defined(op: BinaryOp, operand: Type) -> bool {
    let element = operand.element().unwrap_or(operand);
    match element {
        Type::Dynamic => true,
        Type::Bool => match op {
            BinaryOp::And | BinaryOp::Or => true,
            BinaryOp::Compare(op) => !op.is_order(),
            _ => false,
        },
        Type::Int | Type::Float | Type::Duration => matches!(op, BinaryOp::Arithmetic(_) | BinaryOp::Compare(_)),
        Type::String => matches!(op, BinaryOp::Compare(_) | BinaryOp::Match | BinaryOp::NotMatch),
        _ => matches!(op, BinaryOp::Compare(op) if !op.is_order()),
    }
}

/// Whether the expression reads anything of a span.
pub(crate) fn reads_span(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(_) => false,
        Expr::Field(_) => true,
        Expr::Negate(inner) | Expr::Not(inner) | Expr::Exists(inner) | Expr::Missing(inner) => reads_span(inner),
        Expr::Binary { left, right, .. } => reads_span(left) || reads_span(right),
    }
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) patterns: Patterns,
}

impl Checker {
    pub(crate) fn body(&mut self, body: &Body) -> Result<(), Refusal> {
        match body {
            Body::Search(pipeline) => self.pipeline(pipeline),
            Body::ScalarComparison(comparison) => self.scalar_comparison(comparison),
            Body::Metrics { expr, second } => {
                let mut leaves = Vec::new();
                collect_leaves(expr, &mut leaves);
                for leaf in &leaves {
                    self.pipeline(&leaf.pipeline)?;
                }
                for leaf in &leaves {
                    self.metric_function(&leaf.function)?;
                }
                for stage in leaves.iter().flat_map(|leaf| &leaf.second).chain(second) {
                    if let SecondStage::TopK(k) | SecondStage::BottomK(k) = stage
                        && *k <= 0
                    {
                        return wrong(format!("the limit of topk and bottomk must be greater than 0, got {k}"));
                    }
                }
                let compares = |leaf: &&MetricLeaf| matches!(leaf.function, MetricFunction::Compare { .. });
                if let Some(leaf) = leaves.iter().copied().find(compares) {
                    if leaves.len() > 1 || !matches!(expr, MetricExpr::Leaf(_)) {
                        return wrong("compare() cannot take part in arithmetic".into());
                    }
                    if !second.is_empty() || !leaf.second.is_empty() {
                        return wrong("compare() cannot have a second stage".into());
                    }
                }
                Ok(())
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<(), Refusal> {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spans(expr) => self.spanset(expr)?,
                Stage::Scalar(comparison) => self.scalar_comparison(comparison)?,
                Stage::By(expr) => {
                    self.expr(expr)?;
                    if !reads_span(expr) {
                        return wrong(format!("grouping field expressions must reference the span: {stage}"));
                    }
                }
                Stage::Coalesce => {}
                Stage::Select(fields) => {
                    for field in fields {
                        self.field(field)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn spanset(&mut self, expr: &SpansetExpr) -> Result<(), Refusal> {
        match expr {
            SpansetExpr::Filter(filter) => self.filter(filter),
            SpansetExpr::Binary { left, right, .. } => {
                self.spanset(left)?;
                self.spanset(right)
            }
            SpansetExpr::Pipeline(pipeline) => self.pipeline(pipeline),
        }
    }

    fn filter(&mut self, filter: &Expr) -> Result<(), Refusal> {
        match self.expr(filter)? {
            Type::Bool | Type::Dynamic => Ok(()),
            _ => wrong(format!("span filter field expressions must resolve to a boolean: {{ {filter} }}")),
        }
    }

    fn field(&mut self, field: &Field) -> Result<Type, Refusal> {
        match field {
            Field::Attribute { parent: true, .. } | Field::Intrinsic(Intrinsic::Parent) => unsupported(field),
            field => Ok(field.static_type()),
        }
    }

    fn expr(&mut self, expr: &Expr) -> Result<Type, Refusal> {
        match expr {
            Expr::Literal(value) => Ok(value.type_of()),
            Expr::Field(field) => self.field(field),
            Expr::Negate(inner) => match self.expr(inner)? {
                operand if operand.is_numeric() || operand == Type::Dynamic => Ok(operand),
                _ => wrong(format!("illegal operation for the given type: {expr}")),
            },
            Expr::Not(inner) => match self.expr(inner)? {
                operand @ (Type::Bool | Type::Dynamic) => Ok(operand),
                _ => wrong(format!("illegal operation for the given type: {expr}")),
            },
            Expr::Exists(inner) => self.expr(inner).map(|_| Type::Bool),
            Expr::Missing(inner) => {
                self.expr(inner)?;
                if let Expr::Field(field) = &**inner
                    && (matches!(field, Field::Intrinsic(_)) || field.is_resource_service_name())
                {
                    return wrong(format!("{field} is always present and cannot be compared with nil: {expr}"));
                }
                Ok(Type::Bool)
            }
            Expr::Binary { op, left, right } => {
                let left_type = self.expr(left)?;
                let right_type = self.expr(right)?;
                if !left_type.compatible(right_type) {
                    return wrong(format!("binary operations must operate on the same type: {expr}"));
                }
                if !defined(*op, left_type) || !defined(*op, right_type) {
                    return wrong(format!("illegal operation for the given types: {expr}"));
                }
                match op {
                    BinaryOp::Match | BinaryOp::NotMatch => {
                        let Expr::Literal(Value::Str(source)) = &**right else {
                            return wrong(format!("the right side of {} must be a string: {expr}", op.as_str()));
                        };
                        self.pattern(source)?;
                        Ok(Type::Bool)
                    }
                    BinaryOp::Arithmetic(_) if left_type == Type::Dynamic => Ok(right_type),
                    BinaryOp::Arithmetic(_) => Ok(left_type),
                    BinaryOp::Compare(_) | BinaryOp::And | BinaryOp::Or => Ok(Type::Bool),
                }
            }
        }
    }

    fn pattern(&mut self, source: &Arc<str>) -> Result<(), Refusal> {
        if !self.patterns.contains_key(source) {
            if self.patterns.len() >= MAX_PATTERNS {
                return wrong(format!(
                    "more than {MAX_PATTERNS} regular expressions in one query: join those of one field by |"
                ));
            }
            match Pattern::new(source) {
                Ok(pattern) => self.patterns.insert(source.clone(), Arc::new(pattern)),
                Err(error) => return wrong(error.to_string()),
            };
        }
        Ok(())
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Type, Refusal> {
        let Some(argument) = aggregate.argument() else { return Ok(Type::Int) };
        let argument_type = self.expr(argument)?;
        if !argument_type.is_numeric() && argument_type != Type::Dynamic {
            return wrong(format!("aggregate field expressions must resolve to a number type: {aggregate}"));
        }
        if !reads_span(argument) {
            return wrong(format!("aggregate field expressions must reference the span: {aggregate}"));
        }
        Ok(argument_type)
    }

    fn scalar(&mut self, expr: &ScalarExpr) -> Result<Type, Refusal> {
        match expr {
            ScalarExpr::Literal(value) => Ok(value.type_of()),
            ScalarExpr::Aggregate(aggregate) => self.aggregate(aggregate),
            ScalarExpr::Binary { op, left, right } => {
                let left_type = self.scalar(left)?;
                let right_type = self.scalar(right)?;
                if !operands_fit(BinaryOp::Arithmetic(*op), left_type, right_type) {
                    return wrong(format!("binary operations must operate on the same type: {expr}"));
                }
                Ok(if left_type == Type::Dynamic { right_type } else { left_type })
            }
            ScalarExpr::Pipeline { pipeline, aggregate } => {
                self.pipeline(pipeline)?;
                self.aggregate(aggregate)
            }
        }
    }

    fn scalar_comparison(&mut self, comparison: &ScalarComparison) -> Result<(), Refusal> {
        let left = self.scalar(&comparison.left)?;
        let right = self.scalar(&comparison.right)?;
        if !operands_fit(BinaryOp::Compare(comparison.op), left, right) {
            return wrong(format!("binary operations must operate on the same type: {comparison}"));
        }
        match (&comparison.left, &comparison.right) {
            (ScalarExpr::Aggregate(_), ScalarExpr::Literal(_)) => Ok(()),
            _ => unsupported(format_args!("scalar comparison other than aggregate with constant: {comparison}")),
        }
    }

    fn metric_function(&mut self, function: &MetricFunction) -> Result<(), Refusal> {
        match function {
            MetricFunction::OverTime { op, field, quantiles, by } => {
                if let Some(field) = field {
                    self.field(field)?;
                }
                if let Some(bad) = quantiles.iter().find(|quantile| !(0.0..=1.0).contains(&quantile.0)) {
                    return wrong(format!("quantile must be between 0 and 1: {}", bad.0));
                }
                let helper = matches!(op, OverTimeOp::Avg | OverTimeOp::Histogram | OverTimeOp::Quantile);
                let most = if helper { 4 } else { 5 };
                if by.len() > most {
                    return unsupported(format_args!("{} with more than {most} group by fields", op.as_str()));
                }
                Ok(())
            }
            MetricFunction::Compare { filter, top, window: (start, end) } => {
                self.filter(filter)?;
                if !(1..=1000).contains(top) {
                    return wrong(format!("compare() top number of values must be between 1 and 1000, got {top}"));
                }
                if (*start, *end) != (0, 0) && (*start <= 0 || *end <= 0) {
                    return wrong("compare() needs both timestamps, or none".into());
                }
                if *end < *start || (*end == *start && *end != 0) {
                    return wrong("compare() end timestamp must be greater than start timestamp".into());
                }
                Ok(())
            }
        }
    }
}

pub(crate) fn collect_leaves<'a>(expr: &'a MetricExpr, leaves: &mut Vec<&'a MetricLeaf>) {
    match expr {
        MetricExpr::Leaf(leaf) => leaves.push(leaf),
        MetricExpr::Literal(_) => {}
        MetricExpr::Binary { left, right, .. } => {
            collect_leaves(left, leaves);
            collect_leaves(right, leaves);
        }
    }
}

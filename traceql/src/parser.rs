//! Tokens to tree: recursive descent with precedence climbing, one token of look-ahead.
//!
//! Field expressions have a climber of their own. Everything above them (spansets, aggregates, constants, metrics)
//! shares one climber over [`Node`], because a parenthesis may open any of them and only what follows tells which.

mod expr;

use crate::{
    ast::{
        Aggregate, ArithmeticOp, Body, Expr, Form, Hint, MetricExpr, MetricFunction, MetricLeaf, OverTimeOp, Pipeline,
        Quantile, Relation, ScalarComparison, ScalarExpr, SecondStage, SpansetExpr, SpansetOp, Stage,
    },
    error::Error,
    field::Field,
    lexer::{Lexer, Token},
    value::{CompareOp, Kind, Status, Value},
};

/// Deepest nesting of parentheses and prefix operators within field expressions: above [`MAX_DEPTH`], because the
/// normal form of a chain has a pair of parentheses per operator. Sized for the stack of a worker thread.
const MAX_NESTING: u32 = 300;

/// Terms above field expressions have larger frames; each counts as so many levels.
const NODE_WEIGHT: u32 = 5;

/// Most operators on a path from the root of an expression: the tree is walked recursively later on.
const MAX_DEPTH: u32 = 280;

/// What a term above field expressions turned out to be.
enum Node {
    /// Spans; `piped` when a whole pipeline is among the operands, `wrapped` when every operand has parentheses.
    Set { expr: SpansetExpr, piped: bool, wrapped: bool },
    /// A pipeline in parentheses that is more than one set of spans.
    Stages(Pipeline),
    /// A number.
    Constant(Value),
    /// Something with an aggregate in it.
    Scalar(ScalarExpr),
    /// A finished comparison.
    Comparison(ScalarComparison),
    /// Something with a metric function in it.
    Metric(MetricExpr),
}

pub(crate) struct Parser<'a> {
    query: &'a str,
    lexer: Lexer<'a>,
    token: Token<'a>,
    start: usize,
    nesting: u32,
}

impl<'a> Parser<'a> {
    /// Parses a whole query.
    pub(crate) fn query(query: &'a str) -> Result<(Body, Vec<Hint>), Error> {
        let mut parser = Self::new(query)?;
        let body = parser.body()?;
        let mut hints = Vec::new();
        while parser.token == Token::Word("with") {
            hints = parser.hints()?;
        }
        if parser.token != Token::End {
            return parser.unexpected();
        }
        Ok((body, hints))
    }

    /// Parses a text that is one field and nothing else.
    pub(crate) fn field_only(text: &'a str) -> Result<Field, Error> {
        let mut parser = Self::new(text)?;
        let field = parser.field()?;
        if parser.token == Token::End { Ok(field) } else { parser.unexpected() }
    }

    fn new(query: &'a str) -> Result<Self, Error> {
        let mut parser = Self { query, lexer: Lexer::new(query), token: Token::End, start: 0, nesting: 0 };
        parser.advance()?;
        Ok(parser)
    }

    fn advance(&mut self) -> Result<Token<'a>, Error> {
        let (start, token) =
            self.lexer.next().map_err(|(offset, message)| Error::parse(self.query, offset, message))?;
        self.start = start;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn fail<T>(&self, offset: usize, message: String) -> Result<T, Error> {
        Err(Error::parse(self.query, offset, message))
    }

    fn unexpected<T>(&self) -> Result<T, Error> {
        self.fail(self.start, format!("syntax error: unexpected {}", self.token.name()))
    }

    fn unexpected_at<T>(&self, offset: usize, what: &str) -> Result<T, Error> {
        self.fail(offset, format!("syntax error: unexpected {what}"))
    }

    fn at(&self, punct: &str) -> bool {
        matches!(self.token, Token::Punct(text) if text == punct)
    }

    fn eat(&mut self, punct: &str) -> Result<bool, Error> {
        let found = self.at(punct);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Used where the grammar allows exactly this token, which the message then names.
    fn expect_only(&mut self, punct: &str) -> Result<(), Error> {
        if self.eat(punct)? {
            return Ok(());
        }
        self.fail(self.start, format!("syntax error: unexpected {}, expecting {punct}", self.token.name()))
    }

    /// Used where other tokens would have been fine too.
    fn expect(&mut self, punct: &str) -> Result<(), Error> {
        if self.eat(punct)? { Ok(()) } else { self.unexpected() }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.nested_by(1, parse)
    }

    fn nested_by<T>(&mut self, weight: u32, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.nesting + weight > MAX_NESTING {
            return Err(Error::too_deep(self.query, self.start));
        }
        self.nesting += weight;
        let result = parse(self);
        self.nesting -= weight;
        result
    }

    // ---- whole query ----------------------------------------------------------------------------------------

    fn body(&mut self) -> Result<Body, Error> {
        let node = self.piped(false)?;
        match node {
            // A single pipeline in parentheses is that pipeline.
            Node::Set { expr: SpansetExpr::Pipeline(pipeline), .. } => Ok(Body::Search(pipeline)),
            Node::Set { expr, .. } => Ok(Body::Search(Pipeline { stages: vec![Stage::Spans(expr)] })),
            Node::Stages(pipeline) => Ok(Body::Search(pipeline)),
            Node::Comparison(comparison) => Ok(Body::ScalarComparison(comparison)),
            Node::Metric(expr) => {
                let second = self.second_stage()?;
                Ok(match expr {
                    // The leaf's own second stage and that of the query are one and the same.
                    MetricExpr::Leaf(mut leaf) => {
                        let mut all = std::mem::take(&mut leaf.second);
                        all.extend(second);
                        Body::Metrics { expr: MetricExpr::Leaf(leaf), second: all }
                    }
                    expr => Body::Metrics { expr, second },
                })
            }
            Node::Constant(_) | Node::Scalar(_) => self.unexpected(),
        }
    }

    /// Stages joined by pipes, up to and with a metric function or (in parentheses) a final aggregate.
    fn piped(&mut self, in_parentheses: bool) -> Result<Node, Error> {
        let mut stages = Vec::new();
        loop {
            let first = stages.is_empty();
            match self.token {
                Token::Word("by") => {
                    self.advance()?;
                    self.expect_only("(")?;
                    let expr = self.expr()?;
                    self.expect(")")?;
                    stages.push(Stage::By(expr));
                }
                Token::Word("select") => {
                    self.advance()?;
                    self.expect_only("(")?;
                    let fields = self.fields()?;
                    stages.push(Stage::Select(fields));
                }
                Token::Word("coalesce") if !first => {
                    self.advance()?;
                    self.expect_only("(")?;
                    self.expect_only(")")?;
                    stages.push(Stage::Coalesce);
                }
                Token::Word(word) if !first && is_metric_function(word) => {
                    let function = self.metric_function(word)?;
                    let second = if in_parentheses { self.second_stage()? } else { Vec::new() };
                    return Ok(Node::Metric(MetricExpr::Leaf(MetricLeaf {
                        pipeline: Pipeline { stages },
                        function,
                        second,
                    })));
                }
                _ => {
                    let at_paren = self.at("(");
                    let start = self.start;
                    match self.node(0)? {
                        Node::Set { expr, piped: false, wrapped } => {
                            if first && !self.at("|") {
                                return Ok(Node::Set { expr, piped: false, wrapped });
                            }
                            stages.push(Stage::Spans(expr));
                        }
                        Node::Comparison(comparison) if !has_pipeline(&comparison) => {
                            stages.push(Stage::Scalar(comparison));
                        }
                        // A bare aggregate ends a pipeline in parentheses only.
                        Node::Scalar(ScalarExpr::Aggregate(aggregate)) if in_parentheses && !first && self.at(")") => {
                            let pipeline = Pipeline { stages };
                            return Ok(Node::Scalar(ScalarExpr::Pipeline { pipeline, aggregate }));
                        }
                        // Whole pipelines as operands, metrics, and terms in parentheses are the entire text.
                        node @ (Node::Set { .. } | Node::Stages(_) | Node::Metric(_) | Node::Comparison(_))
                            if first =>
                        {
                            return if self.at("|") && !matches!(node, Node::Metric(_)) {
                                self.unexpected()
                            } else {
                                Ok(node)
                            };
                        }
                        node @ (Node::Constant(_) | Node::Scalar(_)) if first && in_parentheses && self.at(")") => {
                            return Ok(node);
                        }
                        Node::Constant(_) | Node::Scalar(_) => return self.unexpected(),
                        Node::Set { .. } | Node::Stages(_) | Node::Metric(_) | Node::Comparison(_) => {
                            return self.unexpected_at(start, if at_paren { "(" } else { "operand" });
                        }
                    }
                }
            }
            if !self.eat("|")? {
                return Ok(Node::Stages(Pipeline { stages }));
            }
        }
    }

    // ---- terms above field expressions ----------------------------------------------------------------------

    fn node(&mut self, min_level: u8) -> Result<Node, Error> {
        let mut left = self.nested_by(NODE_WEIGHT, Self::node_term)?;
        let mut chain = 0;
        while let Token::Punct(text) = self.token {
            let Some((level, right_associative)) = node_level(text) else { break };
            if level < min_level || (matches!(left, Node::Metric(_)) && level <= 3) {
                break;
            }
            chain += 1;
            if chain > MAX_DEPTH {
                return self.fail(self.start, format!("more than {MAX_DEPTH} operators in one expression"));
            }
            let start = self.start;
            self.advance()?;
            let right =
                self.nested_by(NODE_WEIGHT, |parser| parser.node(if right_associative { level } else { level + 1 }))?;
            left = self.combine(text, start, left, right)?;
        }
        Ok(left)
    }

    fn node_term(&mut self) -> Result<Node, Error> {
        match &self.token {
            Token::Punct("{") => {
                let filter = self.filter()?;
                Ok(Node::Set { expr: SpansetExpr::Filter(filter), piped: false, wrapped: false })
            }
            Token::Punct("(") => {
                self.advance()?;
                let inner = self.piped(true)?;
                self.expect(")")?;
                Ok(match inner {
                    Node::Set { expr, piped, .. } => Node::Set { expr, piped, wrapped: true },
                    Node::Stages(pipeline) => {
                        Node::Set { expr: SpansetExpr::Pipeline(pipeline), piped: true, wrapped: true }
                    }
                    Node::Comparison(comparison) if !has_pipeline(&comparison) => Node::Set {
                        expr: SpansetExpr::Pipeline(Pipeline { stages: vec![Stage::Scalar(comparison)] }),
                        piped: true,
                        wrapped: true,
                    },
                    node => node,
                })
            }
            Token::Punct("-") => {
                self.advance()?;
                match self.nested_by(NODE_WEIGHT, Self::node_term)? {
                    Node::Constant(value) => crate::arithmetic::negate(&value)
                        .map_or_else(|| self.unexpected(), |value| Ok(Node::Constant(value))),
                    _ => self.unexpected_at(self.start, "operand after -"),
                }
            }
            Token::Literal(value @ (Value::Int(_) | Value::Float(_) | Value::Duration(_))) => {
                let value = value.clone();
                self.advance()?;
                Ok(Node::Constant(value))
            }
            Token::Word(word @ ("count" | "min" | "max" | "avg" | "sum")) => {
                let word = *word;
                self.advance()?;
                self.expect_only("(")?;
                if word == "count" {
                    self.expect_only(")")?;
                    return Ok(Node::Scalar(ScalarExpr::Aggregate(Aggregate::Count)));
                }
                let argument = self.expr()?;
                self.expect(")")?;
                Ok(Node::Scalar(ScalarExpr::Aggregate(match word {
                    "min" => Aggregate::Min(argument),
                    "max" => Aggregate::Max(argument),
                    "avg" => Aggregate::Avg(argument),
                    _ => Aggregate::Sum(argument),
                })))
            }
            _ => self.unexpected(),
        }
    }

    fn combine(&self, text: &'static str, start: usize, left: Node, right: Node) -> Result<Node, Error> {
        if let Some(op) = arithmetic_op(text) {
            return match (left, right) {
                (Node::Constant(left), Node::Constant(right)) => self.fold_constants(op, start, &left, &right),
                (Node::Metric(left), Node::Metric(right)) => self.metric_math(op, start, left, right),
                (Node::Metric(left), Node::Constant(right)) => {
                    self.metric_math(op, start, left, MetricExpr::Literal(right))
                }
                (Node::Constant(left), Node::Metric(right)) => {
                    self.metric_math(op, start, MetricExpr::Literal(left), right)
                }
                (left, right) => match (scalar(left), scalar(right)) {
                    (Some(left), Some(right)) => {
                        Ok(Node::Scalar(ScalarExpr::Binary { op, left: Box::new(left), right: Box::new(right) }))
                    }
                    _ => self.unexpected_at(start, text),
                },
            };
        }
        match (left, right) {
            (
                Node::Set { expr: left, piped: left_piped, wrapped: left_wrapped },
                Node::Set { expr: right, piped: right_piped, wrapped: right_wrapped },
            ) => {
                let piped = left_piped || right_piped;
                let wrapped = left_wrapped && right_wrapped;
                match spanset_op(text) {
                    Some(op) if !piped || wrapped => Ok(Node::Set {
                        expr: SpansetExpr::Binary { op, left: Box::new(left), right: Box::new(right) },
                        piped,
                        wrapped,
                    }),
                    _ => self.unexpected_at(start, text),
                }
            }
            (Node::Constant(_), Node::Constant(_)) => self.unexpected_at(start, text),
            (left, right) => match (compare_op(text), scalar(left), scalar(right)) {
                (Some(op), Some(left), Some(right)) => Ok(Node::Comparison(ScalarComparison { op, left, right })),
                _ => self.unexpected_at(start, text),
            },
        }
    }

    fn fold_constants(&self, op: ArithmeticOp, start: usize, left: &Value, right: &Value) -> Result<Node, Error> {
        if matches!(op, ArithmeticOp::Modulo | ArithmeticOp::Power) {
            return self.unexpected_at(start, op.as_str());
        }
        if matches!(left, Value::Duration(_)) || matches!(right, Value::Duration(_)) {
            return self.fail(start, "durations are not allowed in scalar arithmetic".into());
        }
        match op.apply(left, right) {
            Some(value) => Ok(Node::Constant(value)),
            None => self.fail(start, "integer division by zero".into()),
        }
    }

    fn metric_math(&self, op: ArithmeticOp, start: usize, left: MetricExpr, right: MetricExpr) -> Result<Node, Error> {
        if matches!(op, ArithmeticOp::Modulo | ArithmeticOp::Power) {
            return self.unexpected_at(start, op.as_str());
        }
        for side in [&left, &right] {
            if matches!(side, MetricExpr::Literal(Value::Duration(_))) {
                return self.fail(start, "durations are not allowed in metrics arithmetic".into());
            }
        }
        let side = |expr| match expr {
            MetricExpr::Literal(value) => Box::new(MetricExpr::Literal(seconds(&value))),
            expr => Box::new(expr),
        };
        Ok(Node::Metric(MetricExpr::Binary { op, left: side(left), right: side(right) }))
    }

    fn filter(&mut self) -> Result<Expr, Error> {
        self.expect("{")?;
        if self.eat("}")? {
            return Ok(Expr::Literal(Value::Bool(true)));
        }
        let expr = self.expr()?;
        self.expect("}")?;
        Ok(expr)
    }

    // ---- metrics and hints ----------------------------------------------------------------------------------

    fn metric_function(&mut self, word: &str) -> Result<MetricFunction, Error> {
        self.advance()?;
        self.expect_only("(")?;
        if word == "compare" {
            return self.compare();
        }
        let op = match word {
            "rate" => OverTimeOp::Rate,
            "count_over_time" => OverTimeOp::Count,
            "min_over_time" => OverTimeOp::Min,
            "max_over_time" => OverTimeOp::Max,
            "avg_over_time" => OverTimeOp::Avg,
            "sum_over_time" => OverTimeOp::Sum,
            "histogram_over_time" => OverTimeOp::Histogram,
            _ => OverTimeOp::Quantile,
        };
        let field = if matches!(op, OverTimeOp::Rate | OverTimeOp::Count) { None } else { Some(self.field()?) };
        let mut quantiles = Vec::new();
        if op == OverTimeOp::Quantile {
            self.expect_only(",")?;
            loop {
                let value = match self.token {
                    #[allow(clippy::cast_precision_loss, reason = "only 0 and 1 are valid anyway")]
                    Token::Literal(Value::Int(value)) => value as f64,
                    Token::Literal(Value::Float(value)) => value,
                    _ => return self.unexpected(),
                };
                quantiles.push(Quantile(value));
                self.advance()?;
                if !self.eat(",")? {
                    break;
                }
            }
        }
        if quantiles.is_empty() {
            self.expect_only(")")?;
        } else {
            self.expect(")")?;
        }
        let mut by = Vec::new();
        if self.token == Token::Word("by") {
            self.advance()?;
            self.expect_only("(")?;
            by = self.fields()?;
        }
        Ok(MetricFunction::OverTime { op, field, quantiles, by })
    }

    fn compare(&mut self) -> Result<MetricFunction, Error> {
        if !self.at("{") {
            return self.fail(self.start, format!("syntax error: unexpected {}, expecting {{", self.token.name()));
        }
        let filter = self.filter()?;
        let mut numbers = Vec::new();
        while numbers.len() < 3 && self.eat(",")? {
            match self.token {
                Token::Literal(Value::Int(number)) => numbers.push(number),
                _ => return self.unexpected(),
            }
            self.advance()?;
        }
        if numbers.len() == 2 {
            return self.unexpected();
        }
        self.expect(")")?;
        let at = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
        Ok(MetricFunction::Compare { filter, top: at(0, 10), window: (at(1, 0), at(2, 0)) })
    }

    fn second_stage(&mut self) -> Result<Vec<SecondStage>, Error> {
        let mut stages = Vec::new();
        loop {
            if self.eat("|")? {
                let Token::Word(word @ ("topk" | "bottomk")) = self.token else { return self.unexpected() };
                self.advance()?;
                self.expect_only("(")?;
                let Token::Literal(Value::Int(limit)) = self.token else { return self.unexpected() };
                self.advance()?;
                self.expect_only(")")?;
                stages.push(if word == "topk" { SecondStage::TopK(limit) } else { SecondStage::BottomK(limit) });
            } else if let Token::Punct(text) = self.token
                && let Some(op) = compare_op(text)
            {
                self.advance()?;
                let start = self.start;
                match self.node(4)? {
                    Node::Constant(value) => stages.push(SecondStage::Compare(op, seconds(&value))),
                    _ => return self.unexpected_at(start, "operand"),
                }
            } else {
                return Ok(stages);
            }
        }
    }

    fn hints(&mut self) -> Result<Vec<Hint>, Error> {
        self.advance()?;
        self.expect_only("(")?;
        let mut hints = Vec::new();
        loop {
            let Token::Ident(name) = self.token else { return self.unexpected() };
            self.advance()?;
            self.expect_only("=")?;
            let value = match &self.token {
                Token::Literal(value) => value.clone(),
                Token::Word(word) => match literal_word(word) {
                    Some(value) => value,
                    None => return self.unexpected(),
                },
                _ => return self.unexpected(),
            };
            self.advance()?;
            hints.push(Hint { name: name.to_owned(), value });
            if !self.eat(",")? {
                break;
            }
        }
        self.expect(")")?;
        Ok(hints)
    }
}

/// Constants meet series as floats, durations in seconds.
fn seconds(value: &Value) -> Value {
    let scale = if matches!(value, Value::Duration(_)) { 1e9 } else { 1.0 };
    Value::Float(value.as_f64().unwrap_or(f64::NAN) / scale)
}

fn scalar(node: Node) -> Option<ScalarExpr> {
    match node {
        Node::Scalar(expr) => Some(expr),
        Node::Constant(value) => Some(ScalarExpr::Literal(value)),
        Node::Set { .. } | Node::Stages(_) | Node::Comparison(_) | Node::Metric(_) => None,
    }
}

/// Comparisons over wrapped pipelines are the entire query.
fn has_pipeline(comparison: &ScalarComparison) -> bool {
    fn within(expr: &ScalarExpr) -> bool {
        match expr {
            ScalarExpr::Pipeline { .. } => true,
            ScalarExpr::Binary { left, right, .. } => within(left) || within(right),
            ScalarExpr::Literal(_) | ScalarExpr::Aggregate(_) => false,
        }
    }
    within(&comparison.left) || within(&comparison.right)
}

fn is_metric_function(word: &str) -> bool {
    matches!(
        word,
        "rate"
            | "count_over_time"
            | "min_over_time"
            | "max_over_time"
            | "avg_over_time"
            | "sum_over_time"
            | "histogram_over_time"
            | "quantile_over_time"
            | "compare"
    )
}

/// Level (a higher one binds tighter) and whether the operator groups to the right.
fn node_level(text: &str) -> Option<(u8, bool)> {
    Some(match text {
        "&&" | "||" => (2, false),
        "+" | "-" => (4, false),
        "*" | "/" | "%" => (6, false),
        "^" => (7, true),
        _ if compare_op(text).is_some() || spanset_op(text).is_some() => (3, false),
        _ => return None,
    })
}

fn arithmetic_op(text: &str) -> Option<ArithmeticOp> {
    Some(match text {
        "+" => ArithmeticOp::Add,
        "-" => ArithmeticOp::Subtract,
        "*" => ArithmeticOp::Multiply,
        "/" => ArithmeticOp::Divide,
        "%" => ArithmeticOp::Modulo,
        "^" => ArithmeticOp::Power,
        _ => return None,
    })
}

fn compare_op(text: &str) -> Option<CompareOp> {
    Some(match text {
        "=" => CompareOp::Eq,
        "!=" => CompareOp::NotEq,
        "<" => CompareOp::Less,
        "<=" => CompareOp::LessEq,
        ">" => CompareOp::Greater,
        ">=" => CompareOp::GreaterEq,
        _ => return None,
    })
}

fn spanset_op(text: &str) -> Option<SpansetOp> {
    let (form, rest) = match text {
        "&&" => return Some(SpansetOp::And),
        "||" => return Some(SpansetOp::Or),
        _ if text.starts_with('!') => (Form::Negated, &text[1..]),
        _ if text.starts_with('&') => (Form::Union, &text[1..]),
        _ => (Form::Plain, text),
    };
    let relation = match rest {
        ">" => Relation::Child,
        "<" => Relation::Parent,
        ">>" => Relation::Descendant,
        "<<" => Relation::Ancestor,
        "~" => Relation::Sibling,
        _ => return None,
    };
    Some(SpansetOp::Structural { relation, form })
}

fn literal_word(word: &str) -> Option<Value> {
    Some(match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "ok" => Value::Status(Status::Ok),
        "error" => Value::Status(Status::Error),
        "unset" => Value::Status(Status::Unset),
        "unspecified" => Value::Kind(Kind::Unspecified),
        "internal" => Value::Kind(Kind::Internal),
        "server" => Value::Kind(Kind::Server),
        "client" => Value::Kind(Kind::Client),
        "producer" => Value::Kind(Kind::Producer),
        "consumer" => Value::Kind(Kind::Consumer),
        _ => return None,
    })
}

//! A parsed and checked query.

use std::{fmt, sync::Arc};

use crate::{
    ast::{Body, Hint},
    check::{Checker, Patterns},
    error::Error,
    field::Field,
    parser::Parser,
    pattern::Pattern,
    value::Value,
};

/// A text of so few bytes has a normal form that nests less deeply than the parser allows.
const SHORT_TEXT: usize = 90;

/// A query that parsed and passed all checks. `Display` is its normal form, which parses back to an equal query.
#[derive(Clone, Debug)]
pub struct Query {
    body: Body,
    hints: Vec<Hint>,
    patterns: Patterns,
}

impl Query {
    /// Parses and checks a text.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (body, hints) = Parser::query(text)?;
        let mut checker = Checker::default();
        checker.body(&body).map_err(|(kind, message)| Error::check(text, kind, message))?;
        let query = Self { body, hints, patterns: checker.patterns };
        // The normal form, which names the query everywhere else, has more parentheses than the text: what only it nests too
        // deeply is refused here and not by whoever reads it. Short texts cannot.
        if text.len() > SHORT_TEXT
            && let Err(error) = Parser::query(&query.to_string())
            && error.is_about_depth()
        {
            return Err(Error::parse(text, 0, error.message));
        }
        Ok(query)
    }

    /// What the query does.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The hints of the last `with(…)`, as written.
    #[must_use]
    pub fn hints(&self) -> &[Hint] {
        &self.hints
    }

    /// True when the query computes series.
    #[must_use]
    pub fn is_metrics(&self) -> bool {
        matches!(self.body, Body::Metrics { .. })
    }

    /// A boolean hint. One of another type is ignored.
    #[must_use]
    pub fn hint_bool(&self, name: &str) -> Option<bool> {
        self.hint(name, |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// An integer hint. One of another type is ignored.
    #[must_use]
    pub fn hint_int(&self, name: &str) -> Option<i64> {
        self.hint(name, |value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        })
    }

    /// A float hint; an integer counts as one. One of another type is ignored.
    #[must_use]
    pub fn hint_float(&self, name: &str) -> Option<f64> {
        self.hint(name, |value| match value {
            Value::Int(_) | Value::Float(_) => value.as_f64(),
            _ => None,
        })
    }

    fn hint<T>(&self, name: &str, pick: impl Fn(&Value) -> Option<T>) -> Option<T> {
        self.hints.iter().filter(|hint| hint.name == name).find_map(|hint| pick(&hint.value))
    }

    pub(crate) fn pattern(&self, source: &str) -> Option<Arc<Pattern>> {
        self.patterns.get(source).cloned()
    }
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body && self.hints == other.hints
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)?;
        for (index, hint) in self.hints.iter().enumerate() {
            f.write_str(if index == 0 { " with(" } else { "," })?;
            hint.fmt(f)?;
        }
        f.write_str(if self.hints.is_empty() { "" } else { ")" })
    }
}

impl std::str::FromStr for Field {
    type Err = Error;

    /// Reads a field as it stands in queries: `.x`, `span."a b"`, `name`, `span:status`.
    fn from_str(text: &str) -> Result<Self, Error> {
        Parser::field_only(text)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

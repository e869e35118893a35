//! Why a query was refused.

use std::{fmt, sync::Arc};

const TOO_DEEP: &str = "query is nested too deeply";

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is not of the language.
    Parse,
    /// Well formed, but types, literals or arguments do not fit.
    Type,
    /// Well formed and reserved; the text ends in "not yet supported".
    Unsupported,
}

/// A place in the query text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Byte offset.
    pub offset: usize,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A refused query. [`Display`](fmt::Display) is the one line that clients expect (`parse error at line 1, col 2: …`);
/// the HTTP layer puts `invalid TraceQL query: ` before it. [`render`](Self::render) is the long form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Category.
    pub kind: ErrorKind,
    /// Reason, without position.
    pub message: String,
    /// Where, for parse errors.
    pub position: Option<Position>,
    query: Arc<str>,
}

impl Error {
    pub(crate) fn parse(query: &str, offset: usize, message: String) -> Self {
        let before = query.get(..offset).unwrap_or(query);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let position = Position {
            offset,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        };
        Self { kind: ErrorKind::Parse, message, position: Some(position), query: query.into() }
    }

    /// A text that nests more deeply than the stack of a thread allows to walk.
    pub(crate) fn too_deep(query: &str, offset: usize) -> Self {
        Self::parse(query, offset, TOO_DEEP.into())
    }

    /// Whether it is [`too_deep`](Self::too_deep).
    pub(crate) fn is_about_depth(&self) -> bool {
        self.message == TOO_DEEP
    }

    pub(crate) fn check(query: &str, kind: ErrorKind, message: String) -> Self {
        Self { kind, message, position: None, query: query.into() }
    }

    /// The message, the line of the query and a caret under the place:
    ///
    /// ```text
    /// parse error at line 1, col 3: unknown identifier: foo
    ///   { foo = 1 }
    ///     ^
    /// ```
    #[must_use]
    pub fn render(&self) -> String {
        let Some(position) = self.position else { return format!("{self}\n  {}", self.query) };
        let line = self.query.split('\n').nth(position.line - 1).unwrap_or("");
        // Tabs are kept so that the caret stays under its character whatever a tab is worth.
        let indent: String =
            line.chars().take(position.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("{self}\n  {line}\n  {indent}^")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            // An empty text has no place to point at; clients know this exact line.
            Some(_) if self.query.is_empty() => write!(f, "parse error : {}", self.message),
            Some(position) => {
                write!(f, "parse error at line {}, col {}: {}", position.line, position.column, self.message)
            }
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

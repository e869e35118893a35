//! A YAML text as a tree that remembers where everything stands.
//!
//! The tree keeps the text of scalars, because what they mean depends on the key: `1` may be a number, a string or a
//! nanosecond.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess},
};
use serde_saphyr::Spanned;

/// A place in a text, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar with its text.
    Scalar {
        /// The text, without quotes.
        text: String,
        /// It stood without quotes.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the text.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Its key.
    pub key: String,
    /// Where the key stands.
    pub at: Position,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// A scalar that stands in no text.
    pub(super) fn scalar(text: &str, plain: bool) -> Self {
        Self { at: Position::default(), value: Value::Scalar { text: text.to_owned(), plain } }
    }

    /// The value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            Value::Null | Value::Scalar { .. } | Value::List(_) => None,
        }
    }
}

/// The text is not YAML, or has a key twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Error {
    /// Where, if known.
    pub at: Option<Position>,
    /// What is wrong.
    pub message: String,
}

/// Reads the first document of a text. An empty text is [`Value::Null`].
///
/// # Errors
///
/// The text is not YAML, or a mapping has a key twice.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(raw, text)),
        Err(serde_saphyr::Error::Eof { .. }) => Ok(Node { at: Position::default(), value: Value::Null }),
        Err(serde_saphyr::Error::MultipleDocuments { .. }) => parse(
            first_document(text).ok_or_else(|| Error { at: None, message: "several documents in one text".into() })?,
        ),
        Err(error) => {
            let at = error.location().map(|place| Position { line: place.line(), column: place.column() });
            let message = error.without_snippet().to_string();
            // The place is printed by whoever reports the problem.
            let message = message.split(" at line ").next().unwrap_or(&message).trim().to_owned();
            Err(Error { at, message })
        }
    }
}

/// What stands before the second `---`. Nothing if that is all of it, so that reading it again ends.
fn first_document(text: &str) -> Option<&str> {
    let mut content = false;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let marker = line.trim_end() == "---" || line.starts_with("--- ");
        if content && (marker || line.trim_end() == "...") {
            return Some(&text[..end]);
        }
        content |= !marker && !line.trim().is_empty() && !line.trim_start().starts_with('#');
        content |= line.starts_with("--- ");
        end += line.len();
    }
    None
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let at = Position { line: raw.referenced.line(), column: raw.referenced.column() };
    let source = || {
        let span = raw.defined.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let len = usize::try_from(span.byte_len()?).ok()?;
        text.get(start..start + len)
    };
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Plain(printed) => {
            let text = source().map_or(printed, |source| source.trim().to_owned());
            Value::Scalar { text, plain: true }
        }
        Raw::Text(text) => {
            let quoted = source().is_some_and(|source| source.starts_with(['"', '\'', '|', '>']));
            Value::Scalar { text, plain: !quoted }
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    at: Position { line: key.referenced.line(), column: key.referenced.column() },
                    key: key.value,
                    node: node(value, text),
                })
                .collect(),
        ),
    };
    Node { at, value }
}

enum Raw {
    Null,
    /// A number or a truth value, as printed; its text is taken from the source.
    Plain(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Raw;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("any YAML")
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
                Ok(Raw::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Raw, E> {
                Ok(Raw::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> (String, bool) {
        match parse(&format!("a: {text}\n")).unwrap().get("a").unwrap().value.clone() {
            Value::Scalar { text, plain } => (text, plain),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_keep_their_text_and_whether_they_were_quoted() {
        for (text, expected, plain) in [
            ("1", "1", true),
            ("1.10", "1.10", true),
            ("\"1\"", "1", false),
            ("'yes'", "yes", false),
            ("yes", "yes", true),
            ("200e5", "200e5", true),
            ("0x10", "0x10", true),
            ("abc def # comment", "abc def", true),
            ("2024-01-01", "2024-01-01", true),
        ] {
            assert_eq!(scalar(text), (expected.to_owned(), plain), "{text}");
        }
    }

    #[test]
    fn positions_are_those_of_keys_and_values() {
        let node = parse("a:\n  b: 1\n  c:\n    - x\n").unwrap();
        let Value::Map(entries) = &node.get("a").unwrap().value else { panic!("a mapping") };
        assert_eq!(entries[0].at, Position { line: 2, column: 3 });
        assert_eq!(entries[0].node.at, Position { line: 2, column: 6 });
        assert_eq!(entries[1].at, Position { line: 3, column: 3 });
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved() {
        let node = parse("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: *x\n").unwrap();
        let value = |path: [&str; 2]| node.get(path[0]).unwrap().get(path[1]).unwrap().value.clone();
        assert_eq!(value(["y", "a"]), Value::Scalar { text: "1".into(), plain: true });
        assert_eq!(value(["y", "b"]), Value::Scalar { text: "3".into(), plain: true });
        assert_eq!(value(["z", "b"]), Value::Scalar { text: "2".into(), plain: true });
    }

    #[test]
    fn empty_texts_are_null_and_further_documents_are_not_read() {
        for text in ["", "\n", "# only a comment\n", "---\n", "null\n", "~"] {
            assert_eq!(parse(text).unwrap().value, Value::Null, "{text:?}");
        }
        assert!(parse("---\na: 1\n---\nb: 2\n").unwrap().get("a").is_some());
        assert!(parse("a: 1\n---\nb: 2\n").unwrap().get("b").is_none());
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error_with_its_place() {
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.at, Some(Position { line: 3, column: 1 }));
        assert!(error.message.contains("duplicate"), "{}", error.message);
    }
}

//! The description of keys: what a section holds, of which type, and what it means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The type of a value in the configuration, as a file is checked against it.
#[derive(Debug, Clone)]
pub enum Shape {
    /// `true`/`false`, also `yes`, `no`, `on`, `off`.
    Bool,
    /// A whole number within bounds. Floats are accepted and lose their fraction.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: u64,
    },
    /// A number.
    Float,
    /// A string; any scalar keeps its text.
    Text,
    /// A string that is never printed.
    Secret,
    /// See [`GoDuration`](super::GoDuration).
    Duration,
    /// See [`PromDuration`](super::PromDuration).
    PromDuration,
    /// See [`ByteSize`](super::ByteSize).
    Size,
    /// See [`Csv`](super::Csv).
    Csv,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A list of strings, or one comma-separated string.
    TextOrList,
    /// A sequence. A given list replaces the default.
    List(Box<Shape>),
    /// A mapping with free keys. Given keys are added to those of the default.
    Map(Box<Shape>),
    /// A mapping whose keys are `type` or `type/name`, with a section per type.
    Components(Vec<Key>),
    /// A section with fixed keys.
    Section(Section),
    /// A section which is switched on by its key alone, see [`Presence`](super::Presence).
    Presence(Box<Shape>),
    /// A value that may be absent.
    Optional(Box<Shape>),
    /// Anything, not looked at.
    Any,
}

impl Shape {
    /// The short name of the type in messages and in the reference.
    pub fn label(&self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int { .. } => "int".into(),
            Self::Float => "float".into(),
            Self::Text => "string".into(),
            Self::Secret => "secret".into(),
            Self::Duration => "duration".into(),
            Self::PromDuration => "duration (with days)".into(),
            Self::Size => "size".into(),
            Self::Csv => "comma-separated string".into(),
            Self::TextOrList => "list of string, or comma-separated string".into(),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::List(item) => format!("list of {}", item.label()),
            Self::Map(item) => format!("map of {}", item.label()),
            Self::Components(_) => "map of components".into(),
            Self::Section(_) => "section".into(),
            Self::Presence(inner) | Self::Optional(inner) => inner.label(),
            Self::Any => "anything".into(),
        }
    }
}

/// A section: its keys in the order of the reference.
#[derive(Debug, Clone)]
pub struct Section {
    /// The Rust type, for messages of developers.
    pub name: &'static str,
    /// The keys.
    pub keys: Vec<Key>,
}

/// One key of a section.
#[derive(Debug, Clone)]
pub struct Key {
    /// Name in YAML.
    pub name: &'static str,
    /// Documentation, one line per line of the doc comment.
    pub doc: &'static str,
    shape: fn() -> Shape,
}

impl Key {
    /// A key; a raw identifier (`r#type`) loses its prefix.
    pub fn new(name: &'static str, doc: &'static str, shape: fn() -> Shape) -> Self {
        Self { name: name.strip_prefix("r#").unwrap_or(name), doc, shape }
    }

    /// What the key holds. Made when asked for, so that a description costs nothing for parts that a file does not use.
    pub fn shape(&self) -> Shape {
        (self.shape)()
    }
}

/// A type that can stand in the configuration.
pub trait Described {
    /// Its description.
    fn shape() -> Shape;
}

/// A value that is accepted and never looked at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Any(pub serde_json::Value);

impl Described for Any {
    fn shape() -> Shape {
        Shape::Any
    }
}

impl Described for bool {
    fn shape() -> Shape {
        Shape::Bool
    }
}

impl Described for f64 {
    fn shape() -> Shape {
        Shape::Float
    }
}

impl Described for String {
    fn shape() -> Shape {
        Shape::Text
    }
}

macro_rules! described_ints {
    ($($ty:ty: $min:expr, $max:expr;)*) => {$(
        impl Described for $ty {
            fn shape() -> Shape {
                Shape::Int { min: $min, max: $max }
            }
        }
    )*};
}

described_ints! {
    u16: 0, u16::MAX as u64;
    u32: 0, u32::MAX as u64;
    u64: 0, i64::MAX.unsigned_abs();
    usize: 0, i64::MAX.unsigned_abs();
    i64: i64::MIN, i64::MAX.unsigned_abs();
}

impl<T: Described> Described for Vec<T> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

impl<T: Described> Described for Option<T> {
    fn shape() -> Shape {
        Shape::Optional(Box::new(T::shape()))
    }
}

impl<T: Described> Described for BTreeMap<String, T> {
    fn shape() -> Shape {
        Shape::Map(Box::new(T::shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::config_struct! {
        /// A section of the test.
        pub struct Inner {
            /// First line.
            ///
            /// Second paragraph.
            pub r#type: String = "x".into(),
            pub count: u16 = 7,
        }
    }

    crate::config_choice! {
        /// A choice of the test.
        pub enum Colour { Red = "red", DeepBlue = "deep-blue" }
    }

    #[test]
    fn a_declared_section_has_defaults_documentation_and_shape() {
        assert_eq!(Inner::default(), Inner { r#type: "x".into(), count: 7 });
        let Shape::Section(section) = Inner::shape() else { panic!("a section") };
        assert_eq!(section.keys[0].name, "type");
        assert_eq!(section.keys[0].doc, " First line.\n\n Second paragraph.\n");
        assert!(matches!(section.keys[1].shape(), Shape::Int { min: 0, max: 65535 }));
    }

    #[test]
    fn a_declared_choice_reads_and_prints_its_spelling() {
        assert_eq!(serde_json::from_str::<Colour>("\"deep-blue\"").unwrap(), Colour::DeepBlue);
        assert_eq!(Colour::default().as_str(), "red");
        assert!(serde_json::from_str::<Colour>("\"green\"").is_err());
    }

    #[test]
    fn unknown_keys_are_refused_by_the_type_itself() {
        assert!(serde_json::from_str::<Inner>(r#"{"cuont": 1}"#).is_err());
    }
}

//! Dedicated columns: attributes that have a Parquet column of their own instead of a row among the generic ones.
//!
//! The order of the list is data: it alone says which spare column (`String01`, `Int03`, …) holds which attribute.
//! Nothing in the Parquet file repeats it, so a block's list lives in its `meta.json` and travels with every reader.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};

/// Spare string columns a vParquet5 scope has.
pub(crate) const STRINGS_V5: usize = 20;
/// Spare integer columns a vParquet5 scope has.
pub(crate) const INTS_V5: usize = 5;
/// Spare string columns a vParquet4 scope has (there are no integer ones).
pub(crate) const STRINGS_V4: usize = 10;

/// Names that vParquet4 stores in fixed columns; they never take a spare there.
const STATIC_V4: [&str; 12] = [
    "service.name",
    "cluster",
    "namespace",
    "pod",
    "container",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "http.method",
    "http.url",
    "http.status_code",
];

/// Why a list of dedicated columns was refused. All are mistakes in a configuration or a foreign `meta.json`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A column without an attribute name.
    #[error("dedicated column {0} has no name")]
    NoName(usize),
    /// The same attribute twice in one scope.
    #[error("dedicated column {name:?} is listed twice for scope {scope}")]
    Duplicate {
        /// The scope that has it twice.
        scope: &'static str,
        /// The attribute.
        name: String,
    },
    /// An option other than `array` and `blob`.
    #[error("dedicated column {name:?} has the unknown option {option:?}")]
    UnknownOption {
        /// The attribute.
        name: String,
        /// What was given.
        option: String,
    },
}

/// The level of the data model that an attribute belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The resource of a batch.
    Resource,
    /// The span itself.
    #[default]
    Span,
    /// An event of a span.
    Event,
}

impl Scope {
    /// The word used in `meta.json`, configuration and the hash.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Span => "span",
            Self::Event => "event",
        }
    }
}

/// The only two value types that spares exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// Text.
    #[default]
    String,
    /// Signed 64-bit integers.
    Int,
}

impl ValueType {
    /// The word used in `meta.json`, configuration and the hash.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One attribute that has a column of its own. Serialises in the short form of `meta.json` (`s`, `n`, `t`, `o`); the
/// long names of the configuration are read too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DedicatedColumn {
    /// Where the attribute lives; absent means span.
    #[serde(rename = "s", alias = "scope", default, skip_serializing_if = "is_default")]
    pub scope: Scope,
    /// The attribute's key, compared exactly.
    #[serde(rename = "n", alias = "name")]
    pub name: String,
    /// Values of another type stay generic attributes; absent means string.
    #[serde(rename = "t", alias = "type", default, skip_serializing_if = "is_default")]
    pub value_type: ValueType,
    /// `blob` (no dictionary, no bounds, for values that hardly repeat) and `array` (says nothing for storage).
    #[serde(rename = "o", alias = "options", default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl DedicatedColumn {
    /// A column without options.
    pub fn new(scope: Scope, name: impl Into<String>, value_type: ValueType) -> Self {
        Self { scope, name: name.into(), value_type, options: Vec::new() }
    }

    /// Whether the column is stored without a dictionary, compressed as one text.
    pub fn is_blob(&self) -> bool {
        self.options.iter().any(|option| option == "blob")
    }
}

/// A spare column of a scope: its number counts from 1 within scope and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spare {
    /// String and integer spares are numbered apart.
    pub value_type: ValueType,
    /// 1 for `String01` or `Int01`.
    pub number: usize,
    /// See [`DedicatedColumn::is_blob`].
    pub blob: bool,
}

impl Spare {
    /// The leaf's name in the file, as `String07`.
    pub fn leaf_name(self) -> String {
        match self.value_type {
            ValueType::String => format!("String{:02}", self.number),
            ValueType::Int => format!("Int{:02}", self.number),
        }
    }
}

/// A configured column together with the spare that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Position in the configured list.
    pub position: usize,
    /// The spare that holds it.
    pub spare: Spare,
}

/// The ordered list of a block or a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DedicatedColumns(pub Vec<DedicatedColumn>);

impl DedicatedColumns {
    /// Tempo's default list for vParquet5.
    pub fn defaults() -> Self {
        use Scope::{Resource, Span};
        use ValueType::{Int, String};
        let list = [
            (Resource, "k8s.cluster.name", String),
            (Resource, "k8s.namespace.name", String),
            (Resource, "k8s.pod.name", String),
            (Resource, "k8s.container.name", String),
            (Span, "http.request.method", String),
            (Span, "http.response.status_code", Int),
            (Span, "url.path", String),
            (Span, "url.route", String),
            (Span, "server.address", String),
            (Span, "server.port", Int),
            (Span, "http.method", String),
            (Span, "http.url", String),
            (Span, "http.route", String),
            (Span, "http.status_code", Int),
        ];
        Self(list.into_iter().map(|(scope, name, kind)| DedicatedColumn::new(scope, name, kind)).collect())
    }

    /// Whether no attribute has a column.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The columns in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, DedicatedColumn> {
        self.0.iter()
    }

    /// Refuses what Tempo refuses. Too many columns is no error: those past the limit stay generic.
    pub fn validate(&self) -> Result<(), Error> {
        for (position, column) in self.0.iter().enumerate() {
            if column.name.is_empty() {
                return Err(Error::NoName(position));
            }
            if self.0.iter().take(position).any(|other| other.scope == column.scope && other.name == column.name) {
                return Err(Error::Duplicate { scope: column.scope.as_str(), name: column.name.clone() });
            }
            if let Some(option) = column.options.iter().find(|option| !matches!(option.as_str(), "array" | "blob")) {
                return Err(Error::UnknownOption { name: column.name.clone(), option: option.clone() });
            }
        }
        Ok(())
    }

    /// Which spare of `scope` holds which column in vParquet5, in the order of the list. Columns past the limit of their
    /// type are skipped and stay generic.
    pub fn assign_v5(&self, scope: Scope) -> Vec<Assignment> {
        let (mut strings, mut ints) = (0, 0);
        let mut assigned = Vec::new();
        for (position, column) in self.0.iter().enumerate().filter(|(_, column)| column.scope == scope) {
            let (used, limit) = match column.value_type {
                ValueType::String => (&mut strings, STRINGS_V5),
                ValueType::Int => (&mut ints, INTS_V5),
            };
            if *used < limit {
                *used += 1;
                let spare = Spare { value_type: column.value_type, number: *used, blob: column.is_blob() };
                assigned.push(Assignment { position, spare });
            }
        }
        assigned
    }

    /// As [`Self::assign_v5`] for vParquet4, where only plain strings of resource and span that have no fixed column
    /// take a spare.
    pub fn assign_v4(&self, scope: Scope) -> Vec<Assignment> {
        let mut assigned = Vec::new();
        for (position, column) in self.0.iter().enumerate().filter(|(_, column)| column.scope == scope) {
            let plain = column.value_type == ValueType::String && column.options.is_empty();
            let fixed = STATIC_V4.contains(&column.name.as_str());
            if plain && !fixed && scope != Scope::Event && assigned.len() < STRINGS_V4 {
                let spare = Spare { value_type: ValueType::String, number: assigned.len() + 1, blob: false };
                assigned.push(Assignment { position, spare });
            }
        }
        assigned
    }

    /// Equal for lists with equal content and order; only blocks with equal hashes are compacted together. 0 for none.
    pub fn hash64(&self) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let mut hash = twox_hash::XxHash64::with_seed(0);
        for column in &self.0 {
            hash.write(column.scope.as_str().as_bytes());
            hash.write(&[0xFF]);
            hash.write(column.name.as_bytes());
            hash.write(&[0xFF]);
            hash.write(column.value_type.as_str().as_bytes());
            for option in &column.options {
                hash.write(&[0xFF]);
                hash.write(option.as_bytes());
            }
        }
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form_leaves_out_what_is_default() {
        let list = DedicatedColumns(vec![
            DedicatedColumn::new(Scope::Resource, "res.int", ValueType::Int),
            DedicatedColumn {
                options: vec!["blob".into()],
                ..DedicatedColumn::new(Scope::Span, "db", ValueType::String)
            },
        ]);
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(text, r#"[{"s":"resource","n":"res.int","t":"int"},{"n":"db","o":["blob"]}]"#);
        assert_eq!(serde_json::from_str::<DedicatedColumns>(&text).unwrap(), list);
    }

    #[test]
    fn spares_are_numbered_by_scope_and_type() {
        let spans = DedicatedColumns::defaults().assign_v5(Scope::Span);
        let names: Vec<String> = spans.iter().map(|assignment| assignment.spare.leaf_name()).collect();
        let expected = [
            "String01", "Int01", "String02", "String03", "String04", "Int02", "String05", "String06", "String07",
            "Int03",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn columns_past_the_limit_stay_generic() {
        let list = (0..30).map(|n| DedicatedColumn::new(Scope::Event, format!("a{n}"), ValueType::Int)).collect();
        assert_eq!(DedicatedColumns(list).assign_v5(Scope::Event).len(), INTS_V5);
    }

    #[test]
    fn fixed_columns_of_vparquet4_take_no_spare() {
        let columns = DedicatedColumns::defaults();
        assert!(columns.assign_v4(Scope::Resource).is_empty());
        let names: Vec<&str> =
            columns.assign_v4(Scope::Span).iter().map(|a| columns.0[a.position].name.as_str()).collect();
        assert_eq!(names, ["http.request.method", "url.path", "url.route", "server.address", "http.route"]);
    }

    #[test]
    fn hash_depends_on_order_and_is_zero_for_none() {
        let mut columns = DedicatedColumns::defaults();
        assert_eq!(DedicatedColumns::default().hash64(), 0);
        let before = columns.hash64();
        columns.0.swap(0, 1);
        assert_ne!(before, columns.hash64());
    }

    #[test]
    fn mistakes_are_named() {
        let twice = DedicatedColumns(vec![DedicatedColumn::new(Scope::Span, "a", ValueType::Int); 2]);
        assert_eq!(twice.validate(), Err(Error::Duplicate { scope: "span", name: "a".into() }));
        let unnamed = DedicatedColumns(vec![DedicatedColumn::new(Scope::Span, "", ValueType::Int)]);
        assert_eq!(unnamed.validate(), Err(Error::NoName(0)));
    }
}

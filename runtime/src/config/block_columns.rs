//! Attributes with a column of their own.

use std::collections::BTreeSet;

crate::config_choice! {
    /// Where an attribute stands.
    pub enum ColumnScope {
        /// On the span.
        Span = "span",
        /// On the resource.
        Resource = "resource",
        /// On an event of the span.
        Event = "event",
    }
}

crate::config_choice! {
    /// Type of the values in a column.
    pub enum ColumnType {
        /// Strings.
        String = "string",
        /// Whole numbers.
        Int = "int",
    }
}

crate::config_choice! {
    /// A property of a column.
    pub enum ColumnOption {
        /// Values may be arrays.
        Array = "array",
        /// Values are long and rarely equal: no dictionary.
        Blob = "blob",
    }
}

crate::config_struct! {
    /// An attribute that gets a column of its own in every block: queries on it read much less.
    pub struct DedicatedColumn {
        /// `span`, `resource` or `event`.
        pub scope: ColumnScope = ColumnScope::Span,
        /// Name of the attribute.
        pub name: String = String::new(),
        /// `string` or `int`.
        pub r#type: ColumnType = ColumnType::String,
        /// `array`: values may be arrays. `blob`: values are long and rarely equal.
        pub options: Vec<ColumnOption> = Vec::new(),
    }
}

/// Why a list of dedicated columns cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A column without a name.
    #[error("dedicated column without a name in scope {0}")]
    NoName(&'static str),
    /// One attribute twice.
    #[error("dedicated column {scope}.{name} is listed twice")]
    Duplicate {
        /// Its scope.
        scope: &'static str,
        /// Its name.
        name: String,
    },
    /// A block has room for 20 strings and 5 numbers a scope.
    #[error("{count} dedicated columns of type {kind} in scope {scope}, a block has room for {room}")]
    TooMany {
        /// The scope.
        scope: &'static str,
        /// The type.
        kind: &'static str,
        /// How many are listed.
        count: usize,
        /// How many there can be.
        room: usize,
    },
}

impl DedicatedColumn {
    /// A column without options.
    pub fn new(scope: ColumnScope, name: &str, kind: ColumnType) -> Self {
        Self { scope, name: name.into(), r#type: kind, options: Vec::new() }
    }

    /// Columns of every block unless configured otherwise.
    pub fn defaults() -> Vec<Self> {
        use ColumnScope::{Resource, Span};
        use ColumnType::{Int, String};
        [
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
        ]
        .map(|(scope, name, kind)| Self::new(scope, name, kind))
        .into()
    }

    /// Checks a whole list.
    ///
    /// # Errors
    ///
    /// A column without a name or listed twice, or more columns than a block has room for.
    pub fn validate(columns: &[Self]) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for column in columns {
            let scope = column.scope.as_str();
            if column.name.is_empty() {
                return Err(Error::NoName(scope));
            }
            if !seen.insert((scope, &column.name)) {
                return Err(Error::Duplicate { scope, name: column.name.clone() });
            }
        }
        for scope in [ColumnScope::Span, ColumnScope::Resource, ColumnScope::Event] {
            for (kind, room) in [(ColumnType::String, 20), (ColumnType::Int, 5)] {
                let count = columns.iter().filter(|column| column.scope == scope && column.r#type == kind).count();
                if count > room {
                    return Err(Error::TooMany { scope: scope.as_str(), kind: kind.as_str(), count, room });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_list_is_valid() {
        assert_eq!(DedicatedColumn::defaults().len(), 14);
        assert_eq!(DedicatedColumn::validate(&DedicatedColumn::defaults()), Ok(()));
    }

    #[test]
    fn a_block_has_room_for_twenty_strings_and_five_numbers_a_scope() {
        let column = |n: usize, kind| DedicatedColumn::new(ColumnScope::Span, &format!("a{n}"), kind);
        let strings: Vec<_> = (0..20).map(|n| column(n, ColumnType::String)).collect();
        assert_eq!(DedicatedColumn::validate(&strings), Ok(()));
        let ints: Vec<_> = (0..6).map(|n| column(n, ColumnType::Int)).collect();
        assert!(matches!(DedicatedColumn::validate(&ints), Err(Error::TooMany { count: 6, room: 5, .. })));
    }

    #[test]
    fn a_column_listed_twice_is_refused() {
        let twice = vec![DedicatedColumn::new(ColumnScope::Span, "a", ColumnType::Int); 2];
        assert!(matches!(DedicatedColumn::validate(&twice), Err(Error::Duplicate { .. })));
    }
}

//! What a query can read of a span: attributes with their scope, and intrinsics.

use std::{fmt, sync::Arc};

use crate::value::Type;

/// Where an attribute lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `.x`: the span's attribute if the span carries the key, otherwise the resource's.
    Any,
    /// `span.x`
    Span,
    /// `resource.x`
    Resource,
    /// `event.x`, an attribute of one of the span's events.
    Event,
    /// `link.x`, an attribute of one of the span's links.
    Link,
    /// `instrumentation.x`, an attribute of the instrumentation scope.
    Instrumentation,
}

/// What one value of a field belongs to; decides the length of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// One value per trace; carried by [`TraceInfo`](crate::TraceInfo), never by a column.
    Trace,
    /// One value per span (resource and instrumentation values are repeated for their spans).
    Span,
    /// One value per event.
    Event,
    /// One value per link.
    Link,
}

/// Fields with a fixed meaning. The text form ([`Display`](fmt::Display)) is the canonical spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Intrinsic {
    /// Span duration in nanoseconds.
    Duration,
    /// Span name.
    Name,
    /// Span status.
    Status,
    /// Span status message.
    StatusMessage,
    /// Span kind.
    Kind,
    /// 16 hex digits.
    SpanId,
    /// 16 hex digits, zeros for a root.
    ParentId,
    /// Direct children found when the trace was stored.
    ChildCount,
    /// Latest end minus earliest start of the stored trace.
    TraceDuration,
    /// Name of the root span, empty if unknown.
    RootName,
    /// Service of the root span, empty if unknown.
    RootServiceName,
    /// Hex without leading zeros.
    TraceId,
    /// Event name.
    EventName,
    /// Event time minus span start, nanoseconds, may be negative.
    EventTimeSinceStart,
    /// Hex without leading zeros.
    LinkTraceId,
    /// 16 hex digits.
    LinkSpanId,
    /// Instrumentation scope name.
    InstrumentationName,
    /// Instrumentation scope version.
    InstrumentationVersion,
    /// Entry number of the nested-set walk; 0 = position unknown.
    NestedSetLeft,
    /// Exit number of the nested-set walk; 0 = position unknown.
    NestedSetRight,
    /// Entry number of the parent; -1 for a root, 0 = position unknown.
    NestedSetParent,
    /// Reserved word without an implementation; refused by the checks.
    Parent,
    /// Span start, nanoseconds since the epoch. No query syntax; used for results and metrics.
    StartTime,
}

impl Intrinsic {
    /// Every intrinsic that a query can name, in canonical order.
    pub const ALL: [Self; 22] = [
        Self::Duration,
        Self::Name,
        Self::Status,
        Self::StatusMessage,
        Self::Kind,
        Self::SpanId,
        Self::ParentId,
        Self::ChildCount,
        Self::TraceDuration,
        Self::RootName,
        Self::RootServiceName,
        Self::TraceId,
        Self::EventName,
        Self::EventTimeSinceStart,
        Self::LinkTraceId,
        Self::LinkSpanId,
        Self::InstrumentationName,
        Self::InstrumentationVersion,
        Self::NestedSetLeft,
        Self::NestedSetRight,
        Self::NestedSetParent,
        Self::Parent,
    ];

    /// Canonical spelling: used in normal forms, label names and attribute keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Name => "name",
            Self::Status => "status",
            Self::StatusMessage => "statusMessage",
            Self::Kind => "kind",
            Self::SpanId => "span:id",
            Self::ParentId => "span:parentID",
            Self::ChildCount => "span:childCount",
            Self::TraceDuration => "traceDuration",
            Self::RootName => "rootName",
            Self::RootServiceName => "rootServiceName",
            Self::TraceId => "trace:id",
            Self::EventName => "event:name",
            Self::EventTimeSinceStart => "event:timeSinceStart",
            Self::LinkTraceId => "link:traceID",
            Self::LinkSpanId => "link:spanID",
            Self::InstrumentationName => "instrumentation:name",
            Self::InstrumentationVersion => "instrumentation:version",
            Self::NestedSetLeft => "nestedSetLeft",
            Self::NestedSetRight => "nestedSetRight",
            Self::NestedSetParent => "nestedSetParent",
            Self::Parent => "parent",
            Self::StartTime => "span:startTime",
        }
    }

    /// Static type for the checks. The instrumentation intrinsics are dynamic, as upstream has them.
    #[must_use]
    pub fn static_type(self) -> Type {
        match self {
            Self::Duration | Self::TraceDuration | Self::EventTimeSinceStart => Type::Duration,
            Self::Name
            | Self::StatusMessage
            | Self::SpanId
            | Self::ParentId
            | Self::RootName
            | Self::RootServiceName
            | Self::TraceId
            | Self::EventName
            | Self::LinkTraceId
            | Self::LinkSpanId => Type::String,
            Self::Status => Type::Status,
            Self::Kind => Type::Kind,
            Self::ChildCount | Self::NestedSetLeft | Self::NestedSetRight | Self::NestedSetParent | Self::StartTime => {
                Type::Int
            }
            Self::InstrumentationName | Self::InstrumentationVersion => Type::Dynamic,
            Self::Parent => Type::Nil,
        }
    }

    /// What one value belongs to.
    #[must_use]
    pub fn level(self) -> Level {
        match self {
            Self::TraceDuration | Self::RootName | Self::RootServiceName | Self::TraceId => Level::Trace,
            Self::EventName | Self::EventTimeSinceStart => Level::Event,
            Self::LinkTraceId | Self::LinkSpanId => Level::Link,
            _ => Level::Span,
        }
    }

    /// True for the three numbers that [`Structure`](crate::Structure) carries instead of a column.
    #[must_use]
    pub fn is_structure(self) -> bool {
        matches!(self, Self::NestedSetLeft | Self::NestedSetRight | Self::NestedSetParent)
    }
}

impl fmt::Display for Intrinsic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing to read of a span. Displays in canonical form (`resource.service.name`, `span."a b"`, `duration`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// An attribute. Names are case-sensitive and have no inner structure.
    Attribute {
        /// Where to look.
        scope: Scope,
        /// The bare name, without scope and quotes.
        name: Arc<str>,
        /// `parent.x`: parses, but the checks refuse it, so no plan ever contains it.
        parent: bool,
    },
    /// An intrinsic.
    Intrinsic(Intrinsic),
}

impl Field {
    /// An attribute of `scope`.
    #[must_use]
    pub fn attribute(scope: Scope, name: &str) -> Self {
        Self::Attribute { scope, name: name.into(), parent: false }
    }

    /// What one value belongs to.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Attribute { scope: Scope::Event, .. } => Level::Event,
            Self::Attribute { scope: Scope::Link, .. } => Level::Link,
            Self::Attribute { .. } => Level::Span,
            Self::Intrinsic(intrinsic) => intrinsic.level(),
        }
    }

    /// Static type: dynamic for attributes.
    #[must_use]
    pub fn static_type(&self) -> Type {
        match self {
            Self::Attribute { .. } => Type::Dynamic,
            Self::Intrinsic(intrinsic) => intrinsic.static_type(),
        }
    }

    /// True for exactly `resource.service.name`, which is never absent in a well-formed resource.
    #[must_use]
    pub fn is_resource_service_name(&self) -> bool {
        matches!(self, Self::Attribute { scope: Scope::Resource, name, parent: false } if &**name == "service.name")
    }

    /// Key used for the value in search results: the bare attribute name, or the canonical intrinsic.
    #[must_use]
    pub fn result_key(&self) -> Arc<str> {
        match self {
            Self::Attribute { name, .. } => name.clone(),
            Self::Intrinsic(intrinsic) => intrinsic.as_str().into(),
        }
    }
}

impl From<Intrinsic> for Field {
    fn from(intrinsic: Intrinsic) -> Self {
        Self::Intrinsic(intrinsic)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intrinsic(intrinsic) => f.write_str(intrinsic.as_str()),
            Self::Attribute { scope, name, parent } => {
                if *parent {
                    f.write_str(if *scope == Scope::Any { "parent" } else { "parent." })?;
                }
                f.write_str(match scope {
                    Scope::Any => ".",
                    Scope::Span => "span.",
                    Scope::Resource => "resource.",
                    Scope::Event => "event.",
                    Scope::Link => "link.",
                    Scope::Instrumentation => "instrumentation.",
                })?;
                // `.5` would read as a number; after `parent.` a leading scope word would read as a scope.
                let ambiguous = *scope == Scope::Any
                    && (name.starts_with(|c: char| c.is_ascii_digit())
                        || (*parent && (name.starts_with("span.") || name.starts_with("resource."))));
                if name.is_empty() || ambiguous || name.chars().any(|c| c == '"' || !is_name_char(c)) {
                    f.write_str("\"")?;
                    for c in name.chars() {
                        if c == '"' || c == '\\' {
                            f.write_str("\\")?;
                        }
                        fmt::Write::write_char(f, c)?;
                    }
                    return f.write_str("\"");
                }
                f.write_str(name)
            }
        }
    }
}

/// Characters that may stand in an unquoted attribute name. A quote opens a quoted part, so it is not one of them here.
pub(crate) fn is_name_char(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(c, '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ',' | '"')
}

//! Names and values of attributes for completion, from blocks and from live traces.
//!
//! Names come from the dictionaries of a block's key columns, values of columns with a dictionary from that alone, without
//! reading a page of values. Everything else is a fetch of one column.

use std::collections::{BTreeMap, BTreeSet};

use vivace_traceql::{
    Column, Condition, Cursor, FetchError, FetchSpec, Field, Intrinsic, Level, Loaded, Predicate, Scope, Source, Test,
    TimeRange, TraceFields, TraceInfo, Value,
};

/// When to stop collecting; 0 switches a limit off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TagLimits {
    /// Entries (for names: in each scope).
    pub max_entries: usize,
    /// Bytes of all entries together, with what an entry takes beside its own.
    pub max_bytes: usize,
    /// Known entries in a row, without a new one between them.
    pub max_stale: usize,
}

/// A distinct set under construction, which says when it is full.
#[derive(Debug, Clone)]
pub struct TagSet<T: Ord> {
    limits: TagLimits,
    entries: BTreeSet<T>,
    bytes: usize,
    stale: usize,
    full: bool,
    over: bool,
}

/// What an entry takes beside its own bytes.
const ENTRY_BYTES: usize = 64;

impl<T: Ord> TagSet<T> {
    /// An empty set.
    pub fn new(limits: TagLimits) -> Self {
        Self { limits, entries: BTreeSet::new(), bytes: 0, stale: 0, full: false, over: false }
    }

    /// Adds an entry of `bytes` bytes. An entry that passes the byte limit is left out and fills the set.
    pub fn insert(&mut self, entry: T, bytes: usize) {
        let limits = self.limits;
        if self.full {
            return;
        }
        if self.entries.contains(&entry) {
            self.stale += 1;
            self.full = limits.max_stale > 0 && self.stale >= limits.max_stale;
            return;
        }
        self.stale = 0;
        let bytes = bytes + ENTRY_BYTES;
        if limits.max_bytes > 0 && self.bytes + bytes > limits.max_bytes {
            (self.full, self.over) = (true, true);
            return;
        }
        self.bytes += bytes;
        self.entries.insert(entry);
        self.full = limits.max_entries > 0 && self.entries.len() >= limits.max_entries;
    }

    /// Whether a limit was reached.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether entries were left out because they would have taken too many bytes.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The entries in order.
    pub fn into_entries(self) -> BTreeSet<T> {
        self.entries
    }
}

/// Attribute names by scope.
#[derive(Debug, Clone)]
pub struct TagNames {
    limits: TagLimits,
    scopes: BTreeMap<Scope, TagSet<String>>,
}

impl TagNames {
    /// No names yet.
    pub fn new(limits: TagLimits) -> Self {
        Self { limits, scopes: BTreeMap::new() }
    }

    /// Adds a name; [`Scope::Any`] is no scope of its own and is not given.
    pub fn insert(&mut self, scope: Scope, name: &str) {
        let limits = self.limits;
        let set = self.scopes.entry(scope).or_insert_with(|| TagSet::new(limits));
        set.insert(name.to_owned(), name.len());
    }

    /// Whether some scope reached a limit, which ends the whole request.
    pub fn is_full(&self) -> bool {
        self.scopes.values().any(TagSet::is_full)
    }

    /// Whether names were left out because they would have taken too many bytes: of a scope, or of all together.
    pub fn is_over(&self) -> bool {
        let bytes: usize = self.scopes.values().map(|names| names.bytes).sum();
        self.scopes.values().any(TagSet::is_over) || (self.limits.max_bytes > 0 && bytes > self.limits.max_bytes)
    }

    /// The names of each scope that has some, in order.
    pub fn into_scopes(self) -> BTreeMap<Scope, BTreeSet<String>> {
        self.scopes.into_iter().map(|(scope, names)| (scope, names.into_entries())).collect()
    }
}

/// How a client is to show a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagKind {
    /// Text.
    String,
    /// Integer.
    Int,
    /// Float.
    Float,
    /// Truth value.
    Bool,
    /// A word of the language: statuses and kinds.
    Keyword,
    /// A duration.
    Duration,
}

impl TagKind {
    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Keyword => "keyword",
            Self::Duration => "duration",
        }
    }
}

/// A value with its kind; numbers and truth values as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagValue {
    /// Its kind.
    pub kind: TagKind,
    /// Its text.
    pub value: String,
}

impl TagValue {
    fn new(kind: TagKind, value: impl Into<String>) -> Self {
        Self { kind, value: value.into() }
    }

    /// Of a scalar; arrays and nil have none.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Str(text) => Self::new(TagKind::String, &**text),
            Value::Int(value) => Self::new(TagKind::Int, value.to_string()),
            // As in a query: with a fraction or an exponent, so that it is not read as an integer.
            Value::Float(_) => Self::new(TagKind::Float, value.to_string()),
            Value::Bool(value) => Self::new(TagKind::Bool, value.to_string()),
            Value::Duration(_) | Value::Status(_) | Value::Kind(_) | Value::List(_) | Value::Nil => return None,
        })
    }
}

/// A source that knows names and values cheaper than by looking at spans.
pub trait TagSource: Source {
    /// Adds the names of all attributes, of one scope or of all, until a limit is reached.
    ///
    /// # Errors
    /// When reading fails.
    fn tag_names(&self, scope: Option<Scope>, names: &mut TagNames) -> Result<(), FetchError>;

    /// Adds all text values of a field and answers true, or answers false when only the spans know.
    ///
    /// # Errors
    /// When reading fails.
    fn known_values(&self, field: &Field, values: &mut TagSet<TagValue>) -> Result<bool, FetchError>;
}

/// Adds the values that `field` has on spans that meet `filter` in traces that overlap `window`. An unscoped attribute stands for the span's and
/// the resource's. Statuses and kinds give all their words, durations and ids nothing, without reading.
///
/// # Errors
/// When reading fails.
pub fn tag_values(
    source: &impl TagSource,
    field: &Field,
    filter: &Predicate,
    window: Option<TimeRange>,
    values: &mut TagSet<TagValue>,
) -> Result<(), FetchError> {
    if let Field::Attribute { scope: Scope::Any, name, parent: false } = field {
        for scope in [Scope::Span, Scope::Resource] {
            tag_values(source, &Field::attribute(scope, name), filter, window, values)?;
        }
        return Ok(());
    }
    if let Field::Intrinsic(intrinsic) = field {
        match intrinsic {
            Intrinsic::Status => {
                keywords(values, &["ok", "error", "unset"]);
                return Ok(());
            }
            Intrinsic::Kind => {
                let words = ["client", "server", "producer", "consumer", "internal", "unspecified"];
                keywords(values, &words);
                return Ok(());
            }
            _ if has_values(field) => {}
            _ => return Ok(()),
        }
    }
    if *filter == Predicate::Always && window.is_none() && source.known_values(field, values)? {
        return Ok(());
    }
    fetch_values(source, field, filter, window, values)
}

/// Whether values of the field are told as they stand on spans: of attributes and texts.
pub(crate) fn has_values(field: &Field) -> bool {
    match field {
        Field::Attribute { .. } => true,
        Field::Intrinsic(intrinsic) => matches!(
            intrinsic,
            Intrinsic::Name
                | Intrinsic::StatusMessage
                | Intrinsic::RootName
                | Intrinsic::RootServiceName
                | Intrinsic::EventName
                | Intrinsic::InstrumentationName
                | Intrinsic::InstrumentationVersion
        ),
    }
}

fn keywords(values: &mut TagSet<TagValue>, words: &[&str]) {
    words.iter().for_each(|word| values.insert(TagValue::new(TagKind::Keyword, *word), word.len()));
}

fn fetch_values(
    source: &impl TagSource,
    field: &Field,
    filter: &Predicate,
    window: Option<TimeRange>,
    values: &mut TagSet<TagValue>,
) -> Result<(), FetchError> {
    let spec = FetchSpec { window, ..values_spec(field, filter) };
    gather_values(&mut source.fetch(&spec)?, field, values)
}

/// A fetch of what [`gather_values`] takes.
pub(crate) fn values_spec(field: &Field, filter: &Predicate) -> FetchSpec {
    let of_trace = field.level() == Level::Trace;
    let mut spec = FetchSpec::of(if of_trace { Vec::new() } else { vec![field.clone()] });
    spec.trace_fields = TraceFields { root: of_trace, ..TraceFields::default() };
    let exists = Predicate::Is(Condition { field: field.clone(), test: Test::Exists });
    spec.spans = if of_trace { filter.clone() } else { Predicate::all([exists, filter.clone()]) };
    spec
}

/// Adds the values of all that a fetch delivers, until a limit is reached.
pub(crate) fn gather_values(
    cursor: &mut impl Cursor,
    field: &Field,
    values: &mut TagSet<TagValue>,
) -> Result<(), FetchError> {
    while !values.is_full()
        && let Some(batch) = cursor.next()?
    {
        add(&batch.traces, &batch.columns, field, values);
    }
    Ok(())
}

/// Adds the values of what a second pass has loaded: of a field of traces their roots, of another a column.
pub(crate) fn add_loaded(loaded: &Loaded, field: &Field, values: &mut TagSet<TagValue>) {
    add(&loaded.traces, &loaded.columns, field, values);
}

fn add(traces: &[TraceInfo], columns: &[Column], field: &Field, values: &mut TagSet<TagValue>) {
    if field.level() == Level::Trace {
        for trace in traces {
            let service = *field == Field::Intrinsic(Intrinsic::RootServiceName);
            insert_text(values, if service { &trace.root_service } else { &trace.root_name });
        }
    }
    columns.iter().for_each(|column| insert_column(values, column, field));
}

impl TagSet<TagValue> {
    /// Adds a value, of an array each item. Empty texts and what is no value of a tag are passed over.
    pub(crate) fn insert_value(&mut self, value: &Value) {
        let items = if let Value::List(items) = value { &items[..] } else { std::slice::from_ref(value) };
        for value in items.iter().filter_map(TagValue::of).filter(|value| !value.value.is_empty()) {
            let bytes = value.value.len();
            self.insert(value, bytes);
        }
    }
}

fn insert_text(values: &mut TagSet<TagValue>, text: &str) {
    if !text.is_empty() {
        values.insert(TagValue::new(TagKind::String, text), text.len());
    }
}

fn insert_column(values: &mut TagSet<TagValue>, column: &Column, field: &Field) {
    match column {
        Column::Nil => {}
        Column::Str(column) => {
            let mut used = vec![false; column.dict.len()];
            for id in &column.ids {
                if let Some(used) = used.get_mut(*id as usize) {
                    *used = true;
                }
            }
            for (text, _) in column.dict.iter().zip(used).filter(|(_, used)| *used) {
                insert_text(values, text);
            }
        }
        Column::List { items, .. } => insert_column(values, items, field),
        Column::Union(members) => members.iter().for_each(|member| insert_column(values, member, field)),
        other => {
            for row in 0..other.rows().unwrap_or(0) {
                values.insert_value(&other.value(row, field));
                if values.is_full() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        BlockSource, LiveSource,
        live::tests::{all_fields, stored},
        read,
    };

    fn names(source: &impl TagSource) -> BTreeMap<Scope, BTreeSet<String>> {
        let mut names = TagNames::new(TagLimits::default());
        source.tag_names(None, &mut names).unwrap();
        names.into_scopes()
    }

    fn sources() -> (BlockSource, BlockSource, LiveSource) {
        let live = LiveSource::new(stored().into_iter().map(|(id, trace)| (id, vec![trace])));
        let block = |block| BlockSource::new(Arc::new(block));
        (block(read::tests::open_v5()), block(read::tests::open_v4()), live)
    }

    fn values(source: &impl TagSource, field: &Field, filter: &Predicate) -> BTreeSet<TagValue> {
        let mut values = TagSet::new(TagLimits::default());
        tag_values(source, field, filter, None, &mut values).unwrap();
        values.into_entries()
    }

    #[test]
    fn blocks_and_live_traces_know_the_same_names() {
        let (v5, v4, live) = sources();
        let due = names(&live);
        assert_eq!(names(&v5), due);
        assert_eq!(names(&v4), due);
        assert!(due[&Scope::Span].len() > 10 && due[&Scope::Resource].contains("service.name"));
        let mut only = TagNames::new(TagLimits::default());
        v5.tag_names(Some(Scope::Resource), &mut only).unwrap();
        assert_eq!(only.into_scopes().into_keys().collect::<Vec<_>>(), [Scope::Resource]);
    }

    #[test]
    fn blocks_and_live_traces_know_the_same_values() {
        let (v5, v4, live) = sources();
        let mut fields = all_fields(&stored());
        fields.extend([
            Intrinsic::RootName.into(),
            Intrinsic::RootServiceName.into(),
            Field::attribute(Scope::Any, "x"),
        ]);
        let server = Predicate::Is(Condition {
            field: Intrinsic::Kind.into(),
            test: Test::Compare(vivace_traceql::CompareOp::Eq, Value::Kind(vivace_traceql::Kind::Server)),
        });
        for field in fields {
            for filter in [Predicate::Always, server.clone()] {
                let due = values(&live, &field, &filter);
                assert_eq!(values(&v5, &field, &filter), due, "{field}");
                assert_eq!(values(&v4, &field, &filter), due, "{field}");
            }
        }
    }

    #[test]
    fn names_and_values_are_those_that_tempo_told() {
        let (block, _, _) = sources();
        let path = read::tests::fixture("answers.json");
        let answers: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let told = names(&block);
        for scope in answers["tags"]["/api/v2/search/tags"]["scopes"].as_array().unwrap() {
            let scope_named = match scope["name"].as_str().unwrap() {
                "span" => Scope::Span,
                "resource" => Scope::Resource,
                "event" => Scope::Event,
                "link" => Scope::Link,
                "instrumentation" => Scope::Instrumentation,
                _ => continue,
            };
            let due: BTreeSet<String> =
                scope["tags"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            assert!(told[&scope_named].is_superset(&due), "{scope_named:?}");
        }
        let fields = [
            ("resource.service.name", Field::attribute(Scope::Resource, "service.name")),
            (".http.route", Field::attribute(Scope::Any, "http.route")),
            ("span.http.response.status_code", Field::attribute(Scope::Span, "http.response.status_code")),
            ("status", Intrinsic::Status.into()),
        ];
        for (name, field) in fields {
            let answer = &answers["tags"][format!("/api/v2/search/tag/{name}/values")]["tagValues"];
            let due: BTreeSet<(String, String)> = answer
                .as_array()
                .unwrap()
                .iter()
                .map(|value| (value["type"].as_str().unwrap().into(), value["value"].as_str().unwrap().into()))
                .collect();
            let found = values(&block, &field, &Predicate::Always);
            assert_eq!(found.into_iter().map(|v| (v.kind.as_str().to_owned(), v.value)).collect::<BTreeSet<_>>(), due);
        }
    }

    #[test]
    fn a_limit_ends_the_collection() {
        let (v5, _, live) = sources();
        let limits = TagLimits { max_entries: 2, ..TagLimits::default() };
        let small = TagLimits { max_bytes: 200, ..TagLimits::default() };
        for (bounded, over) in [(limits, false), (small, true)] {
            let mut few = TagSet::new(bounded);
            tag_values(&v5, &Intrinsic::Name.into(), &Predicate::Always, None, &mut few).unwrap();
            assert_eq!((few.is_full(), few.is_over()), (true, over));
            assert!(few.into_entries().len() <= 2);
        }
        let mut few = TagNames::new(limits);
        live.tag_names(None, &mut few).unwrap();
        assert!(few.is_full() && few.into_scopes().values().all(|names| names.len() <= 2));
        let mut stale = TagSet::new(TagLimits { max_stale: 2, ..TagLimits::default() });
        (0..4).for_each(|_| stale.insert(1, 1));
        assert!(stale.is_full());
    }

    #[test]
    fn a_filter_that_every_span_meets_leaves_all_values_those_in_arrays_too() {
        use prost::Message;
        use vivace_protocol::{
            otlp::{
                common::{AnyValue, ArrayValue, KeyValue, any_value::Value as Any},
                trace::{ResourceSpans, ScopeSpans, Span, TracesData},
            },
            vivace::TagValuesJob,
        };
        let any = |value| AnyValue { value: Some(value) };
        let list =
            Any::ArrayValue(ArrayValue { values: ["b", "a"].map(|text| any(Any::StringValue(text.into()))).into() });
        let values = [
            ("list", list),
            ("ratio", Any::DoubleValue(2.0)),
            ("large", Any::DoubleValue(1e12)),
            ("small", Any::DoubleValue(-1e-9)),
            ("endless", Any::DoubleValue(f64::INFINITY)),
            ("none", Any::StringValue(String::new())),
        ];
        let attributes =
            values.map(|(key, value)| KeyValue { key: key.into(), value: Some(any(value)), ..KeyValue::default() });
        let span =
            Span { trace_id: vec![1; 16], span_id: vec![1; 8], attributes: attributes.into(), ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let trace = TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
        let live = LiveSource::new([(vivace_protocol::TraceId([1; 16]), vec![trace.encode_to_vec().into()])]);
        let told = |tag: &str, query: &str| {
            let job = TagValuesJob { tag: tag.into(), query: query.into(), ..TagValuesJob::default() };
            let reply = crate::query::tag_values_of(&live, &job).unwrap();
            reply.values.into_iter().map(|value| (value.r#type, value.value)).collect::<Vec<_>>()
        };
        let text = |kind: &str, value: &str| (kind.to_owned(), value.to_owned());
        for query in ["", "{ }"] {
            assert_eq!(told("span.list", query), [text("string", "a"), text("string", "b")], "{query}");
            assert_eq!(told("span.ratio", query), [text("float", "2.0")], "{query}");
            assert_eq!(told("span.large", query), [text("float", "1e+12")], "{query}");
            assert_eq!(told("span.small", query), [text("float", "-1e-09")], "{query}");
            assert_eq!(told("span.endless", query), [text("float", "+Inf")], "{query}");
            assert_eq!(told("span.none", query), [], "{query}");
            assert_eq!(told("statusMessage", query), [], "{query}");
        }
    }
}

//! Spans held in memory: the reference implementation of the fetch contract, for tests and small users.

use std::{collections::HashMap, sync::Arc};

use crate::{
    bitmap::Bitmap,
    column::{Column, Str, hex},
    condition::Predicate,
    fetch::{
        Cursor, FetchError, FetchSpec, FetchStats, LoadSpec, Loaded, Offsets, ServiceStat, Source, SpanBatch,
        SpanHandle, Structure, TraceFields, TraceInfo,
    },
    field::{Field, Intrinsic, Level, Scope},
    value::{Kind, Status, Type, Value},
};

/// Attributes in order; of equal keys the first counts.
pub type Attributes = Vec<(Arc<str>, Value)>;

/// An event of a span.
#[derive(Clone, Debug, Default)]
pub struct MemoryEvent {
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// Event name.
    pub name: Arc<str>,
    /// Event attributes.
    pub attributes: Attributes,
}

/// A link of a span.
#[derive(Clone, Debug, Default)]
pub struct MemoryLink {
    /// Linked trace.
    pub trace_id: [u8; 16],
    /// Linked span.
    pub span_id: [u8; 8],
    /// Link attributes.
    pub attributes: Attributes,
}

/// A span.
#[derive(Clone, Debug)]
pub struct MemorySpan {
    /// Span id.
    pub id: [u8; 8],
    /// Parent id, zeros for a root.
    pub parent_id: [u8; 8],
    /// Span name.
    pub name: Arc<str>,
    /// Span kind.
    pub kind: Kind,
    /// Span status.
    pub status: Status,
    /// Span status message.
    pub status_message: Arc<str>,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
    /// Span attributes.
    pub attributes: Attributes,
    /// Resource attributes, shared by the resource's spans.
    pub resource: Arc<Attributes>,
    /// Instrumentation scope name.
    pub scope_name: Arc<str>,
    /// Instrumentation scope version.
    pub scope_version: Arc<str>,
    /// Instrumentation scope attributes.
    pub scope_attributes: Attributes,
    /// Events in order.
    pub events: Vec<MemoryEvent>,
    /// Links in order.
    pub links: Vec<MemoryLink>,
}

impl Default for MemorySpan {
    fn default() -> Self {
        Self {
            id: [0; 8],
            parent_id: [0; 8],
            name: "".into(),
            kind: Kind::Unspecified,
            status: Status::Unset,
            status_message: "".into(),
            start_ns: 0,
            duration_ns: 0,
            attributes: Vec::new(),
            resource: Arc::default(),
            scope_name: "".into(),
            scope_version: "".into(),
            scope_attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
        }
    }
}

/// A trace: its spans in storage order.
#[derive(Clone, Debug, Default)]
pub struct MemoryTrace {
    /// Trace id.
    pub id: [u8; 16],
    /// All spans.
    pub spans: Vec<MemorySpan>,
}

/// A number for every span of a trace: nested-set left, right, parent and child count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Entry number, 0 when unknown.
    pub left: i32,
    /// Exit number, 0 when unknown.
    pub right: i32,
    /// Entry number of the parent, -1 for a root, 0 when unknown.
    pub parent: i32,
    /// Direct children; `None` when the trace has no root.
    pub children: Option<i32>,
}

impl MemoryTrace {
    /// Earliest start and latest end, zeros without spans.
    #[must_use]
    pub fn bounds(&self) -> (u64, u64) {
        let start = self.spans.iter().map(|span| span.start_ns).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.start_ns.saturating_add(span.duration_ns)).max().unwrap_or(0);
        (start, end)
    }

    /// The span that names the trace: no parent, not linked to its own trace as a child; the last such one.
    #[must_use]
    pub fn root(&self) -> Option<&MemorySpan> {
        self.spans.iter().rev().find(|span| {
            span.parent_id == [0; 8]
                && !span.links.iter().any(|link| {
                    link.trace_id == self.id
                        && lookup(&link.attributes, "opentracing.ref_type") == Value::str("child_of")
                })
        })
    }

    /// Nested-set numbering: depth first over roots and children in storage order, one counter for all roots.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        let unknown = vec![Position::default(); self.spans.len()];
        if !self.spans.iter().any(|span| span.parent_id == [0; 8]) {
            return unknown;
        }
        let mut by_id: HashMap<[u8; 8], Vec<usize>> = HashMap::new();
        for (row, span) in self.spans.iter().enumerate() {
            by_id.entry(span.id).or_default().push(row);
        }
        if by_id.values().any(|rows| rows.len() > 2) {
            return unknown;
        }
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.spans.len()];
        for (row, span) in self.spans.iter().enumerate() {
            if span.parent_id == [0; 8] {
                continue;
            }
            let parent = match by_id.get(&span.parent_id).map(Vec::as_slice) {
                Some([only]) => Some(*only),
                // A client and a server span share the id: the child belongs to the one of the opposite role.
                Some(shared) => {
                    let wanted = if span.kind == Kind::Server { Kind::Client } else { Kind::Server };
                    shared.iter().copied().find(|parent| self.spans[*parent].kind == wanted)
                }
                None => None,
            };
            if let Some(parent) = parent {
                children[parent].push(row);
            }
        }
        let mut positions = unknown;
        for (position, children) in positions.iter_mut().zip(&children) {
            position.children = i32::try_from(children.len()).ok();
        }
        let mut counter = 1;
        for root in (0..self.spans.len()).filter(|row| self.spans[*row].parent_id == [0; 8]) {
            // Explicit stack: (row, next child).
            positions[root].parent = -1;
            positions[root].left = counter;
            counter += 1;
            let mut stack = vec![(root, 0)];
            while let Some((row, next)) = stack.last_mut() {
                let row = *row;
                if let Some(child) = children[row].get(*next) {
                    *next += 1;
                    positions[*child].left = counter;
                    positions[*child].parent = positions[row].left;
                    counter += 1;
                    stack.push((*child, 0));
                } else {
                    positions[row].right = counter;
                    counter += 1;
                    stack.pop();
                }
            }
        }
        positions
    }

    fn info(&self, wanted: TraceFields) -> TraceInfo {
        let (start_ns, end_ns) = self.bounds();
        let root = if wanted.root { self.root() } else { None };
        let mut stats: Vec<ServiceStat> = Vec::new();
        if wanted.service_stats {
            for span in &self.spans {
                let Value::Str(service) = lookup(&span.resource, "service.name") else { continue };
                let index = stats.iter().position(|stat| stat.service == service).unwrap_or_else(|| {
                    stats.push(ServiceStat { service, spans: 0, errors: 0 });
                    stats.len() - 1
                });
                stats[index].spans += 1;
                stats[index].errors += u32::from(span.status == Status::Error);
            }
        }
        TraceInfo {
            id: self.id,
            spans: 0..0,
            start_ns: if wanted.times { start_ns } else { 0 },
            duration_ns: if wanted.times { end_ns - start_ns } else { 0 },
            root_name: root.map_or_else(|| "".into(), |span| span.name.clone()),
            root_service: root
                .and_then(|span| match lookup(&span.resource, "service.name") {
                    Value::Str(service) => Some(service),
                    _ => None,
                })
                .unwrap_or_else(|| "".into()),
            service_stats: stats.into(),
        }
    }

    /// The values of a field, one per span (trace-level values repeated), one per event, or one per link.
    /// `position` is this span's entry of [`positions`](Self::positions).
    #[must_use]
    pub fn values(&self, row: usize, position: Position, field: &Field) -> Vec<Value> {
        let span = &self.spans[row];
        match field {
            Field::Attribute { scope, name, .. } => match scope {
                Scope::Any => {
                    let own = lookup(&span.attributes, name);
                    vec![if own.is_nil() { lookup(&span.resource, name) } else { own }]
                }
                Scope::Span => vec![lookup(&span.attributes, name)],
                Scope::Resource => vec![lookup(&span.resource, name)],
                Scope::Instrumentation => vec![lookup(&span.scope_attributes, name)],
                Scope::Event => span.events.iter().map(|event| lookup(&event.attributes, name)).collect(),
                Scope::Link => span.links.iter().map(|link| lookup(&link.attributes, name)).collect(),
            },
            Field::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Duration => vec![Value::Duration(span.duration_ns.cast_signed())],
                Intrinsic::Name => vec![Value::Str(span.name.clone())],
                Intrinsic::Status => vec![Value::Status(span.status)],
                Intrinsic::StatusMessage => vec![Value::Str(span.status_message.clone())],
                Intrinsic::Kind => vec![Value::Kind(span.kind)],
                Intrinsic::SpanId => vec![Value::Str(hex(&span.id).into())],
                Intrinsic::ParentId => vec![Value::Str(hex(&span.parent_id).into())],
                Intrinsic::ChildCount => vec![position.children.map_or(Value::Nil, |count| Value::Int(count.into()))],
                Intrinsic::StartTime => vec![Value::Int(span.start_ns.cast_signed())],
                Intrinsic::InstrumentationName => vec![Value::Str(span.scope_name.clone())],
                Intrinsic::InstrumentationVersion => vec![Value::Str(span.scope_version.clone())],
                Intrinsic::NestedSetLeft => vec![Value::Int(position.left.into())],
                Intrinsic::NestedSetRight => vec![Value::Int(position.right.into())],
                Intrinsic::NestedSetParent => vec![Value::Int(position.parent.into())],
                Intrinsic::Parent => vec![Value::Nil],
                Intrinsic::TraceDuration => {
                    let (start, end) = self.bounds();
                    vec![Value::Duration((end - start).cast_signed())]
                }
                Intrinsic::RootName => vec![Value::Str(self.info(TraceFields::ALL).root_name)],
                Intrinsic::RootServiceName => vec![Value::Str(self.info(TraceFields::ALL).root_service)],
                Intrinsic::TraceId => vec![Value::str(hex(&self.id).trim_start_matches('0'))],
                Intrinsic::EventName => span.events.iter().map(|event| Value::Str(event.name.clone())).collect(),
                Intrinsic::EventTimeSinceStart => span
                    .events
                    .iter()
                    .map(|event| Value::Duration(event.time_ns.wrapping_sub(span.start_ns).cast_signed()))
                    .collect(),
                Intrinsic::LinkTraceId => {
                    span.links.iter().map(|link| Value::str(hex(&link.trace_id).trim_start_matches('0'))).collect()
                }
                Intrinsic::LinkSpanId => span.links.iter().map(|link| Value::Str(hex(&link.span_id).into())).collect(),
            },
        }
    }
}

fn lookup(attributes: &Attributes, name: &str) -> Value {
    attributes.iter().find(|(key, _)| &**key == name).map_or(Value::Nil, |(_, value)| value.clone())
}

/// Traces in memory, delivered a few at a time.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    traces: Vec<MemoryTrace>,
    positions: Vec<Vec<Position>>,
    traces_per_batch: usize,
}

impl MemorySource {
    /// Holds `traces`; every batch has `traces_per_batch` of them (at least one).
    #[must_use]
    pub fn new(traces: Vec<MemoryTrace>, traces_per_batch: usize) -> Self {
        let positions = traces.iter().map(MemoryTrace::positions).collect();
        Self { traces, positions, traces_per_batch: traces_per_batch.max(1) }
    }

    /// The traces held.
    #[must_use]
    pub fn traces(&self) -> &[MemoryTrace] {
        &self.traces
    }

    /// Columns and offsets for the spans `rows`, each given as trace index and row.
    fn columns(&self, rows: &[(usize, usize)], fields: &[Field]) -> (Vec<Column>, Option<Offsets>, Option<Offsets>) {
        let columns = fields
            .iter()
            .map(|field| {
                let values: Vec<Value> = rows
                    .iter()
                    .flat_map(|(trace, row)| self.traces[*trace].values(*row, self.positions[*trace][*row], field))
                    .collect();
                pack(values, field)
            })
            .collect();
        let offsets = |level: Level, count: fn(&MemorySpan) -> usize| {
            fields.iter().any(|field| field.level() == level).then(|| {
                let mut total = 0;
                let mut offsets = vec![0];
                for (trace, row) in rows {
                    total += count(&self.traces[*trace].spans[*row]);
                    offsets.push(u32::try_from(total).unwrap_or(u32::MAX));
                }
                offsets
            })
        };
        (columns, offsets(Level::Event, |span| span.events.len()), offsets(Level::Link, |span| span.links.len()))
    }
}

/// The narrowest column for the values of one field.
fn pack(values: Vec<Value>, field: &Field) -> Column {
    let mut types = values.iter().map(Value::type_of).filter(|value_type| *value_type != Type::Nil);
    let Some(first) = types.next() else { return Column::Nil };
    if types.any(|other| other != first) {
        return Column::Values(values);
    }
    let valid: Bitmap = values.iter().map(|value| !value.is_nil()).collect();
    let valid = (valid.count() < values.len()).then_some(valid);
    match first {
        Type::String => Column::Str(Str::from_texts(values.iter().map(|value| match value {
            Value::Str(text) => Some(&**text),
            _ => None,
        }))),
        Type::Int | Type::Duration if (first == Type::Duration) == (field.static_type() == Type::Duration) => {
            let values = values
                .iter()
                .map(|value| match value {
                    Value::Int(value) | Value::Duration(value) => *value,
                    _ => 0,
                })
                .collect();
            Column::Int { values, valid }
        }
        Type::Float => {
            Column::Float { values: values.iter().map(|value| value.as_f64().unwrap_or(0.0)).collect(), valid }
        }
        Type::Bool => Column::Bool { values: values.iter().map(|value| *value == Value::Bool(true)).collect(), valid },
        Type::Status | Type::Kind if valid.is_none() => Column::Code(
            values
                .iter()
                .map(|value| match value {
                    Value::Status(status) => *status as u8,
                    Value::Kind(kind) => *kind as u8,
                    _ => 0,
                })
                .collect(),
        ),
        _ => Column::Values(values),
    }
}

impl Source for MemorySource {
    type Cursor<'a> = MemoryCursor<'a>;

    fn fetch(&self, spec: &FetchSpec) -> Result<MemoryCursor<'_>, FetchError> {
        Ok(MemoryCursor { source: self, spec: spec.clone(), next: 0, latest: Vec::new(), stats: FetchStats::default() })
    }
}

/// A fetch over a [`MemorySource`]. It prunes by window and by both predicates, as tightly as the contract
/// allows, so that tests notice an engine that relies on more.
#[derive(Debug)]
pub struct MemoryCursor<'a> {
    source: &'a MemorySource,
    spec: FetchSpec,
    next: usize,
    latest: Vec<usize>,
    stats: FetchStats,
}

impl MemoryCursor<'_> {
    fn matches(&self, predicate: &Predicate, trace: usize, row: usize) -> bool {
        let source = self.source;
        let position = source.positions[trace][row];
        predicate.may_match(&mut |condition| {
            let values = source.traces[trace].values(row, position, &condition.field);
            values.iter().any(|value| condition.matches(value))
        })
    }
}

impl Cursor for MemoryCursor<'_> {
    fn next(&mut self) -> Result<Option<SpanBatch>, FetchError> {
        let source = self.source;
        if self.next >= source.traces.len() {
            return Ok(None);
        }
        let end = (self.next + source.traces_per_batch).min(source.traces.len());
        let mut batch = SpanBatch::default();
        let mut rows = Vec::new();
        self.latest.clear();
        for trace in self.next..end {
            let stored = &source.traces[trace];
            let (start_ns, end_ns) = stored.bounds();
            self.stats.traces += 1;
            self.stats.spans += stored.spans.len() as u64;
            if self.spec.window.is_some_and(|window| !window.overlaps(start_ns, end_ns)) {
                continue;
            }
            let demanded =
                |predicate: &Predicate| (0..stored.spans.len()).any(|row| self.matches(predicate, trace, row));
            if !self.spec.traces.iter().all(demanded) {
                continue;
            }
            let first = rows.len();
            for row in 0..stored.spans.len() {
                if self.matches(&self.spec.spans, trace, row) {
                    batch.handles.push(SpanHandle(((trace as u64) << 32) | row as u64));
                    rows.push((trace, row));
                }
            }
            if rows.len() > first {
                let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                let mut info = stored.info(self.spec.trace_fields);
                info.spans = number(first)..number(rows.len());
                batch.traces.push(info);
                self.latest.push(trace);
            }
        }
        self.next = end;
        (batch.columns, batch.events, batch.links) = source.columns(&rows, &self.spec.fields);
        if self.spec.structure {
            let of = |pick: fn(Position) -> i32| {
                rows.iter().map(|(trace, row)| pick(source.positions[*trace][*row])).collect()
            };
            batch.structure =
                Some(Structure { left: of(|p| p.left), right: of(|p| p.right), parent: of(|p| p.parent) });
        }
        if self.spec.select_all {
            let mut fields: Vec<Field> = Intrinsic::ALL
                .into_iter()
                .filter(|intrinsic| intrinsic.level() == Level::Span && *intrinsic != Intrinsic::Parent)
                .map(Field::from)
                .collect();
            for (trace, row) in &rows {
                let span = &source.traces[*trace].spans[*row];
                let scopes = [
                    (Scope::Span, &span.attributes),
                    (Scope::Resource, &*span.resource),
                    (Scope::Instrumentation, &span.scope_attributes),
                ];
                for (scope, attributes) in scopes {
                    for (key, _) in attributes {
                        let field = Field::attribute(scope, key);
                        if !fields.contains(&field) {
                            fields.push(field);
                        }
                    }
                }
            }
            let (columns, ..) = source.columns(&rows, &fields);
            batch.everything = fields.into_iter().zip(columns).collect();
        }
        Ok(Some(batch))
    }

    fn load(&mut self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded, FetchError> {
        let infos = traces
            .iter()
            .filter_map(|index| self.latest.get(*index as usize))
            .map(|trace| self.source.traces[*trace].info(spec.trace_fields))
            .collect();
        let rows: Vec<(usize, usize)> = spans
            .iter()
            .map(|handle| {
                let part = |bits: u64| usize::try_from(bits & u64::from(u32::MAX)).unwrap_or(usize::MAX);
                (part(handle.0 >> 32), part(handle.0))
            })
            .collect();
        let (columns, events, links) = self.source.columns(&rows, &spec.fields);
        Ok(Loaded { traces: infos, columns, events, links })
    }

    fn stats(&self) -> FetchStats {
        self.stats
    }
}

//! A fetch over live traces: walk, test, and column by column the values of the spans that are kept.

use std::collections::HashMap;
use std::sync::Arc;

use vivace_protocol::wire::{Reader, WireError};
use vivace_traceql::{
    Column, Condition, Cursor, FetchError, FetchSpec, FetchStats, Field, Intrinsic, Kind, Level, LoadSpec, Loaded,
    Offsets, Scope, ServiceStat, SpanBatch, SpanHandle, Status, Structure, TimeRange, TraceFields, TraceInfo, Value,
};

use super::{
    LiveTrace,
    any::{self, GROUP_DEPTH},
    positions::Position,
    walk::{ResourceView, SpanView, TraceView, id8},
    wants::{Getter, Plan, Tree},
};
use crate::read::cells::{Cell, Cells, lossy};

/// A batch ends with the trace that brings it to this many spans.
pub(super) const BATCH_SPANS: usize = 8192;

/// A fetch over live traces.
pub struct LiveCursor<'a> {
    traces: Vec<&'a LiveTrace>,
    next: usize,
    plan: Arc<Plan>,
    /// When each trace is was found out before, which saves walking some.
    measured: bool,
    window: Option<TimeRange>,
    fields: TraceFields,
    structure: bool,
    select_all: bool,
    /// Traces of the latest batch.
    latest: Vec<usize>,
    stats: FetchStats,
    batch_spans: usize,
    /// Traces that start before are of no use.
    floor: u64,
}

/// A walked trace with what was derived from it.
struct Walked<'a> {
    view: TraceView<'a>,
    positions: Vec<Position>,
    info: TraceInfo,
    /// Facts for conditions, whether or not the answer shows them.
    duration: u64,
}

impl<'a> LiveCursor<'a> {
    pub(super) fn new(traces: Vec<&'a LiveTrace>, spec: &FetchSpec, batch_spans: usize) -> Self {
        Self {
            traces,
            next: 0,
            plan: Arc::new(Plan::of_fetch(spec)),
            measured: false,
            window: spec.window,
            fields: spec.trace_fields,
            structure: spec.structure,
            select_all: spec.select_all,
            latest: Vec::new(),
            stats: FetchStats::default(),
            batch_spans,
            floor: 0,
        }
    }

    /// As [`Self::new`], for traces that were looked at before. `plan` is that of `spec`.
    pub(super) fn of_measured(
        traces: Vec<&'a LiveTrace>,
        plan: &Arc<Plan>,
        spec: &FetchSpec,
        batch_spans: usize,
    ) -> Self {
        Self { plan: Arc::clone(plan), measured: true, ..Self::new(traces, spec, batch_spans) }
    }

    fn walk(&self, index: usize, plan: &Plan) -> Result<Walked<'a>, WireError> {
        let trace = self.traces[index];
        let parts = trace.parts().iter().map(|part| &part[..]);
        // Where a span comes twice, the second must not stand in for one that was passed over.
        let known = Some(trace).filter(|_| self.measured).map(LiveTrace::bounds).filter(|known| !known.repeats);
        let view = match known {
            Some(_) if !plan.resources.is_empty() => {
                TraceView::walk(parts, &plan.wants, |resource| Ok(!all_hold(&plan.resources, resource)?))?
            }
            _ => TraceView::walk(parts, &plan.wants, |_| Ok(false))?,
        };
        let positions = if plan.wants.positions { view.positions() } else { Vec::new() };
        let bounds = known.map_or_else(|| view.bounds(), |known| (known.start, known.end));
        let (info, duration) = info(&view, bounds, trace.id().as_bytes(), plan.wants.trace)?;
        Ok(Walked { view, positions, info, duration })
    }

    fn batch(&mut self) -> Result<Option<SpanBatch>, WireError> {
        if self.next >= self.traces.len() {
            return Ok(None);
        }
        self.latest.clear();
        let mut batch = SpanBatch::default();
        let plan = Arc::clone(&self.plan);
        let mut columns = Columns::new(&plan.fields);
        let mut structure = self.structure.then(Structure::default);
        let mut everything = self.select_all.then(Everything::default);
        while self.next < self.traces.len() && batch.handles.len() < self.batch_spans {
            let index = self.next;
            self.next += 1;
            if self.measured {
                let bounds = self.traces[index].bounds();
                if bounds.start < self.floor || !bounds.overlaps(self.window) {
                    continue;
                }
            }
            let mut walked = self.walk(index, &plan)?;
            self.stats.traces += 1;
            self.stats.spans += walked.view.spans.len() as u64;
            let (start, end) = (walked.info.start_ns, walked.info.start_ns.wrapping_add(walked.duration));
            let late = start >= self.floor;
            if !late || self.window.is_some_and(|window| !window.overlaps(start, end)) || !self.useful(&walked)? {
                continue;
            }
            let first = number(batch.handles.len());
            for row in 0..walked.view.spans.len() {
                if !test(&plan.spans, &walked, row)? {
                    continue;
                }
                let number = u64::from(walked.view.spans[row].row);
                batch.handles.push(SpanHandle((index as u64) << 32 | number));
                columns.push(&walked, row)?;
                if let Some(structure) = &mut structure {
                    let position = walked.positions[row];
                    structure.left.push(position.left);
                    structure.right.push(position.right);
                    structure.parent.push(position.parent);
                }
                if let Some(everything) = &mut everything {
                    everything.push(&walked, row)?;
                }
            }
            let last = number(batch.handles.len());
            if last > first {
                walked.info.spans = first..last;
                trim(&mut walked.info, self.fields);
                batch.traces.push(walked.info);
                self.latest.push(index);
            }
        }
        (batch.columns, batch.events, batch.links) = columns.finish();
        batch.structure = structure;
        if let Some(everything) = everything {
            batch.everything = everything.finish();
        }
        Ok(Some(batch))
    }

    /// Whether each demand on the trace is met by some span.
    fn useful(&self, walked: &Walked<'_>) -> Result<bool, WireError> {
        for tree in &self.plan.traces {
            let mut met = false;
            for row in 0..walked.view.spans.len() {
                if test(tree, walked, row)? {
                    met = true;
                    break;
                }
            }
            if !met {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn loaded(&self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded, WireError> {
        let plan = Plan::of_load(spec);
        let mut loaded = Loaded::default();
        for trace in traces {
            let Some(index) = self.latest.get(*trace as usize) else { continue };
            let mut walked = self.walk(*index, &plan)?;
            trim(&mut walked.info, spec.trace_fields);
            loaded.traces.push(walked.info);
        }
        let mut columns = Columns::new(&plan.fields);
        let mut current: Option<(u64, Walked<'a>)> = None;
        for handle in spans {
            let (index, number) = (handle.0 >> 32, (handle.0 & u64::from(u32::MAX)));
            if current.as_ref().is_none_or(|(walked, _)| *walked != index) {
                let at = usize::try_from(index).ok().filter(|at| *at < self.traces.len());
                let Some(at) = at else { continue };
                current = Some((index, self.walk(at, &plan)?));
            }
            if let Some((_, walked)) = &current
                && let Ok(row) = walked.view.spans.binary_search_by_key(&number, |span| u64::from(span.row))
            {
                columns.push(walked, row)?;
            }
        }
        (loaded.columns, loaded.events, loaded.links) = columns.finish();
        Ok(loaded)
    }
}

fn fetch_error(error: WireError) -> FetchError {
    FetchError(Box::new(error))
}

impl Cursor for LiveCursor<'_> {
    fn next(&mut self) -> Result<Option<SpanBatch>, FetchError> {
        self.batch().map_err(fetch_error)
    }

    fn load(&mut self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded, FetchError> {
        self.loaded(traces, spans, spec).map_err(fetch_error)
    }

    fn ignore_before(&mut self, start_ns: u64) {
        self.floor = start_ns;
    }

    fn stats(&self) -> FetchStats {
        self.stats
    }
}

/// Clears what was derived for conditions only.
fn trim(info: &mut TraceInfo, fields: TraceFields) {
    if !fields.times {
        (info.start_ns, info.duration_ns) = (0, 0);
    }
    if !fields.root {
        (info.root_name, info.root_service) = ("".into(), "".into());
    }
}

fn info(
    view: &TraceView<'_>,
    (start, end): (u64, u64),
    id: &[u8; 16],
    wanted: TraceFields,
) -> Result<(TraceInfo, u64), WireError> {
    let duration = end.wrapping_sub(start);
    let mut info = TraceInfo { id: *id, start_ns: start, duration_ns: duration, ..TraceInfo::default() };
    if wanted.root
        && let Some(root) = view.root(id)?
    {
        info.root_name = lossy(root.name).into();
        info.root_service = lossy(view.resource(root).service).into();
    }
    if wanted.service_stats {
        let mut stats: Vec<(&[u8], u32, u32)> = Vec::new();
        for span in &view.spans {
            let service = view.resource(span).service;
            let at = stats.iter().position(|(known, ..)| *known == service).unwrap_or_else(|| {
                stats.push((service, 0, 0));
                stats.len() - 1
            });
            stats[at].1 += 1;
            stats[at].2 += u32::from(span.status == 2);
        }
        info.service_stats = stats
            .into_iter()
            .map(|(service, spans, errors)| ServiceStat { service: lossy(service).into(), spans, errors })
            .collect();
    }
    Ok((info, duration))
}

/// Whether the spans of a resource may be of use.
fn all_hold(trees: &[Tree], resource: &ResourceView<'_>) -> Result<bool, WireError> {
    for tree in trees {
        if !resource_holds(tree, resource)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn resource_holds(tree: &Tree, resource: &ResourceView<'_>) -> Result<bool, WireError> {
    Ok(match tree {
        Tree::Is(getter @ Getter::ResourceAttr(slot), _, condition) => {
            accepts(condition, getter, &attribute(resource.values.get(*slot).copied().flatten())?)
        }
        Tree::Always | Tree::Is(..) => true,
        Tree::Never => false,
        Tree::All(parts) => all_hold(parts, resource)?,
        Tree::AnyOf(parts) => {
            for part in parts {
                if resource_holds(part, resource)? {
                    return Ok(true);
                }
            }
            false
        }
    })
}

/// Whether the span can satisfy the tree.
fn test(tree: &Tree, walked: &Walked<'_>, row: usize) -> Result<bool, WireError> {
    Ok(match tree {
        Tree::Always => true,
        Tree::Never => false,
        Tree::Is(getter, level, condition) => holds(getter, *level, condition, walked, row)?,
        Tree::All(parts) => {
            for part in parts {
                if !test(part, walked, row)? {
                    return Ok(false);
                }
            }
            true
        }
        Tree::AnyOf(parts) => {
            for part in parts {
                if test(part, walked, row)? {
                    return Ok(true);
                }
            }
            false
        }
    })
}

fn holds(
    getter: &Getter,
    level: Level,
    condition: &Condition,
    walked: &Walked<'_>,
    row: usize,
) -> Result<bool, WireError> {
    let span = &walked.view.spans[row];
    match level {
        Level::Event => Ok(per_event(span, getter)?.iter().any(|cell| accepts(condition, getter, cell))),
        Level::Link => Ok(per_link(span, getter)?.iter().any(|cell| accepts(condition, getter, cell))),
        Level::Span | Level::Trace => match getter {
            Getter::Status => Ok(condition.matches(&Value::Status(Status::from_code(span.status)))),
            Getter::Kind => Ok(condition.matches(&Value::Kind(Kind::from_code(span.kind)))),
            Getter::SpanId => Ok(condition.matches(&hex(&id8(span.id)))),
            Getter::ParentId => Ok(condition.matches(&hex(&id8(span.parent)))),
            Getter::TraceId => {
                let text = format!("{:x}", u128::from_be_bytes(walked.info.id));
                Ok(condition.matches(&Value::str(if text == "0" { "" } else { &text })))
            }
            _ => Ok(accepts(condition, getter, &get(getter, walked, row)?)),
        },
    }
}

fn accepts(condition: &Condition, getter: &Getter, cell: &Cell<'_>) -> bool {
    match cell {
        Cell::Str(text) => condition.matches_str(&lossy(text)),
        Cell::Int(value) if is_duration(getter) => condition.matches(&Value::Duration(*value)),
        other => condition.matches(&other.value()),
    }
}

fn is_duration(getter: &Getter) -> bool {
    matches!(getter, Getter::Duration | Getter::TraceDuration | Getter::EventSince)
}

fn hex(id: &[u8; 8]) -> Value {
    Value::str(&format!("{:016x}", u64::from_be_bytes(*id)))
}

fn attribute(encoded: Option<&[u8]>) -> Result<Cell<'_>, WireError> {
    encoded.map_or(Ok(Cell::Nil), any::cell)
}

/// The value of one span, for getters that have one for each.
fn get<'v>(getter: &Getter, walked: &'v Walked<'_>, row: usize) -> Result<Cell<'v>, WireError> {
    let view = &walked.view;
    let span = &view.spans[row];
    let position = |pick: fn(&Position) -> i32| {
        walked.positions.get(row).map_or(Cell::Nil, |position| Cell::Int(pick(position).into()))
    };
    Ok(match getter {
        Getter::Name => Cell::Str(span.name),
        Getter::StatusMessage => Cell::Str(span.status_message),
        Getter::Duration => Cell::Int(span.end.wrapping_sub(span.start).cast_signed()),
        Getter::Start => Cell::Int(span.start.cast_signed()),
        Getter::ChildCount => position(|position| position.children),
        Getter::Left => position(|position| position.left),
        Getter::Right => position(|position| position.right),
        Getter::Parent => position(|position| position.parent),
        Getter::ScopeName => Cell::Str(view.scope(span).name),
        Getter::ScopeVersion => Cell::Str(view.scope(span).version),
        Getter::SpanAttr(slot) => attribute(view.span_value(span, *slot))?,
        Getter::ResourceAttr(slot) => attribute(view.resource(span).values.get(*slot).copied().flatten())?,
        Getter::ScopeAttr(slot) => attribute(view.scope(span).values.get(*slot).copied().flatten())?,
        Getter::AnyAttr(own, inherited) => match view.span_value(span, *own) {
            Some(value) => any::cell(value)?,
            None => attribute(view.resource(span).values.get(*inherited).copied().flatten())?,
        },
        Getter::TraceDuration => Cell::Int(walked.duration.cast_signed()),
        Getter::RootName => Cell::Str(walked.info.root_name.as_bytes()),
        Getter::RootService => Cell::Str(walked.info.root_service.as_bytes()),
        _ => Cell::Nil,
    })
}

/// One value for each event of the span.
fn per_event<'a>(span: &SpanView<'a>, getter: &Getter) -> Result<Vec<Cell<'a>>, WireError> {
    let mut cells = Vec::new();
    let mut reader = Reader::new(span.message);
    while let Some(key) = reader.key()? {
        if key != 0x5a {
            reader.skip(key, GROUP_DEPTH)?;
            continue;
        }
        let mut event = Reader::new(reader.bytes()?);
        let (mut time, mut name, mut found) = (0, &[][..], None);
        while let Some(key) = event.key()? {
            match key {
                0x09 => time = event.fixed64()?,
                0x12 => name = event.bytes()?,
                0x1a => look(getter, event.bytes()?, &mut found)?,
                _ => event.skip(key, GROUP_DEPTH)?,
            }
        }
        cells.push(match getter {
            Getter::EventName => Cell::Str(name),
            Getter::EventSince => Cell::Int(time.wrapping_sub(span.start).cast_signed()),
            _ => attribute(found)?,
        });
    }
    Ok(cells)
}

/// One value for each link of the span; ids as text.
fn per_link<'a>(span: &SpanView<'a>, getter: &Getter) -> Result<Vec<Cell<'a>>, WireError> {
    let mut cells = Vec::new();
    let mut reader = Reader::new(span.message);
    while let Some(key) = reader.key()? {
        if key != 0x6a {
            reader.skip(key, GROUP_DEPTH)?;
            continue;
        }
        let mut link = Reader::new(reader.bytes()?);
        let (mut trace, mut id, mut found) = (&[][..], &[][..], None);
        while let Some(key) = link.key()? {
            match key {
                0x0a => trace = link.bytes()?,
                0x12 => id = link.bytes()?,
                0x22 => look(getter, link.bytes()?, &mut found)?,
                _ => link.skip(key, GROUP_DEPTH)?,
            }
        }
        cells.push(match getter {
            // A list of one stands for its item, which lets an owned text pass.
            Getter::LinkTrace => Cell::List(vec![Value::str(&short_hex(trace))]),
            Getter::LinkSpan => Cell::List(vec![hex(&id8(id))]),
            _ => attribute(found)?,
        });
    }
    Ok(cells)
}

/// Lower-case hex without leading zeros.
pub(crate) fn short_hex(id: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(id.len() * 2);
    for byte in id {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string succeeds");
    }
    let zeros = text.len() - text.trim_start_matches('0').len();
    text.split_off(zeros)
}

fn look<'a>(getter: &Getter, message: &'a [u8], found: &mut Option<&'a [u8]>) -> Result<(), WireError> {
    let (Getter::EventAttr(wanted) | Getter::LinkAttr(wanted)) = getter else { return Ok(()) };
    let (name, value) = any::key_value(message)?;
    if *name == **wanted {
        found.get_or_insert(value);
    }
    Ok(())
}

/// Columns of a batch under construction.
struct Columns<'p> {
    columns: Vec<(&'p Getter, Level, Builder)>,
    events: Option<Offsets>,
    links: Option<Offsets>,
}

enum Builder {
    Cells(Cells),
    Code(Vec<u8>),
    Id(Vec<[u8; 8]>),
}

impl Builder {
    fn new(getter: &Getter) -> Self {
        match getter {
            Getter::Status | Getter::Kind => Self::Code(Vec::new()),
            Getter::SpanId | Getter::ParentId => Self::Id(Vec::new()),
            _ => Self::Cells(Cells::new()),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) {
        match self {
            // Only link ids come as lists of one text, and then all rows do.
            Self::Cells(cells) => match cell {
                Cell::List(items) if items.len() == 1 => match &items[0] {
                    Value::Str(text) => cells.push(&Cell::Str(text.as_bytes())),
                    Value::Int(value) => cells.push(&Cell::Int(*value)),
                    Value::Float(value) => cells.push(&Cell::Float(*value)),
                    Value::Bool(value) => cells.push(&Cell::Bool(*value)),
                    _ => cells.push(cell),
                },
                _ => cells.push(cell),
            },
            Self::Code(codes) => codes.push(0),
            Self::Id(ids) => ids.push([0; 8]),
        }
    }

    fn finish(self) -> Column {
        match self {
            Self::Cells(cells) => cells.finish(),
            Self::Code(codes) => Column::Code(codes),
            Self::Id(ids) => Column::SpanId(ids),
        }
    }
}

impl<'p> Columns<'p> {
    fn new(fields: &'p [(Getter, Level)]) -> Self {
        let has = |wanted: Level| fields.iter().any(|(_, level)| *level == wanted).then(|| vec![0]);
        let columns = fields.iter().map(|(getter, level)| (getter, *level, Builder::new(getter))).collect();
        Self { columns, events: has(Level::Event), links: has(Level::Link) }
    }

    fn push(&mut self, walked: &Walked<'_>, row: usize) -> Result<(), WireError> {
        let span = &walked.view.spans[row];
        let (mut events, mut links) = (0, 0);
        for (getter, level, builder) in &mut self.columns {
            match (level, builder) {
                (Level::Event, builder) => {
                    let cells = per_event(span, getter)?;
                    events = cells.len();
                    cells.iter().for_each(|cell| builder.push(cell));
                }
                (Level::Link, builder) => {
                    let cells = per_link(span, getter)?;
                    links = cells.len();
                    cells.iter().for_each(|cell| builder.push(cell));
                }
                (_, Builder::Code(codes)) => {
                    codes.push(if **getter == Getter::Kind { span.kind } else { span.status });
                }
                (_, Builder::Id(ids)) => {
                    ids.push(id8(if **getter == Getter::SpanId { span.id } else { span.parent }));
                }
                (_, builder) => builder.push(&get(getter, walked, row)?),
            }
        }
        for (offsets, count) in [(&mut self.events, events), (&mut self.links, links)] {
            if let Some(offsets) = offsets {
                let last = offsets.last().copied().unwrap_or(0);
                offsets.push(last + number(count));
            }
        }
        Ok(())
    }

    fn finish(self) -> (Vec<Column>, Option<Offsets>, Option<Offsets>) {
        (self.columns.into_iter().map(|(.., builder)| builder.finish()).collect(), self.events, self.links)
    }
}

/// Every attribute and intrinsic of the spans of a batch.
#[derive(Default)]
struct Everything {
    rows: usize,
    attributes: HashMap<(Scope, Box<[u8]>), Cells>,
    intrinsics: Vec<(Intrinsic, Getter, Cells)>,
    codes: [Vec<u8>; 2],
    ids: [Vec<[u8; 8]>; 2],
}

impl Everything {
    fn push(&mut self, walked: &Walked<'_>, row: usize) -> Result<(), WireError> {
        if self.intrinsics.is_empty() {
            self.intrinsics = [
                (Intrinsic::Duration, Getter::Duration),
                (Intrinsic::Name, Getter::Name),
                (Intrinsic::StatusMessage, Getter::StatusMessage),
                (Intrinsic::ChildCount, Getter::ChildCount),
                (Intrinsic::InstrumentationName, Getter::ScopeName),
                (Intrinsic::InstrumentationVersion, Getter::ScopeVersion),
                (Intrinsic::NestedSetLeft, Getter::Left),
                (Intrinsic::NestedSetRight, Getter::Right),
                (Intrinsic::NestedSetParent, Getter::Parent),
            ]
            .into_iter()
            .map(|(intrinsic, getter)| (intrinsic, getter, Cells::new()))
            .collect();
        }
        let span = &walked.view.spans[row];
        for (_, getter, cells) in &mut self.intrinsics {
            cells.push(&get(getter, walked, row)?);
        }
        self.codes[0].push(span.status);
        self.codes[1].push(span.kind);
        self.ids[0].push(id8(span.id));
        self.ids[1].push(id8(span.parent));
        self.attributes(Scope::Span, span.message, 0x4a)?;
        for piece in &walked.view.resource(span).pieces {
            self.attributes(Scope::Resource, piece, 0x0a)?;
        }
        for piece in &walked.view.scope(span).pieces {
            self.attributes(Scope::Instrumentation, piece, 0x1a)?;
        }
        self.rows += 1;
        Ok(())
    }

    fn attributes(&mut self, scope: Scope, message: &[u8], wanted: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            if key != wanted {
                reader.skip(key, GROUP_DEPTH)?;
                continue;
            }
            let (name, value) = any::key_value(reader.bytes()?)?;
            let cells = self.attributes.entry((scope, name.into())).or_insert_with(Cells::new);
            cells.pad(self.rows);
            // The first value of a key counts.
            if cells.rows() == self.rows {
                cells.push(&any::cell(value)?);
            }
        }
        Ok(())
    }

    fn finish(self) -> Vec<(Field, Column)> {
        let rows = self.rows;
        let [status, kind] = self.codes;
        let [id, parent] = self.ids;
        let mut all: Vec<(Field, Column)> = vec![
            (Intrinsic::Status.into(), Column::Code(status)),
            (Intrinsic::Kind.into(), Column::Code(kind)),
            (Intrinsic::SpanId.into(), Column::SpanId(id)),
            (Intrinsic::ParentId.into(), Column::SpanId(parent)),
        ];
        all.extend(self.intrinsics.into_iter().map(|(intrinsic, _, cells)| (intrinsic.into(), cells.finish())));
        all.extend(self.attributes.into_iter().map(|((scope, name), mut cells)| {
            cells.pad(rows);
            (Field::attribute(scope, &lossy(&name)), cells.finish())
        }));
        all
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

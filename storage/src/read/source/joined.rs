//! A trace whose parts are rows of several blocks, as a source that holds this one trace.
//!
//! ```text
//! row of block 1 ─┐  ids and parents of all ─▶ numbers of the whole tree ─┐
//! row of block 2 ─┼─▶ spans of use, columns ──────────────────────────────┼─▶ one trace in one batch
//! row of block 3 ─┘  times, roots, services ─▶ facts of the whole trace ──┘
//! ```
//! Only rows of traces that did not fit one come this way. Blocks are read one after the other; what stays in memory is the batch and 16
//! bytes for each span.

mod chain;
mod tree;

use std::{ops::Range, sync::Arc};

use vivace_traceql::{
    Column, Cursor, FetchError, FetchSpec, FetchStats, Field, Intrinsic, Level, LoadSpec, Loaded, Offsets, Predicate,
    ServiceStat, Source, SpanBatch, SpanHandle, Structure, TraceInfo,
};

use super::{columns::Chosen, fetch_error, group::Group, load_fields, nesting::Owner, select::select, trace_infos};
use crate::read::{
    block::OpenBlock,
    error::{Error, Result},
    find::TraceRow,
    rows::RowSet,
    values::to_usize,
};
use chain::Chain;
use tree::Tree;

/// Spans and parts that are evaluated together at most: what goes beyond is a further part that is evaluated on its own.
const MOST_SPANS: u64 = 2 << 20;
const MOST_PARTS: usize = 64;
/// Columns of a batch take no more. A query that reads too many attributes of too many spans is told so.
const MOST_BYTES: usize = 128 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub struct JoinedTrace {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    block: Arc<OpenBlock>,
    row: TraceRow,
}

impl Part {
    fn open(&self) -> Result<Group<'_>> {
        Group::open(&self.block, self.row.group)
    }

    fn rows(&self) -> RowSet {
        RowSet::one(self.row.row)
    }
}

impl JoinedTrace {
    /// The trace with these rows, in the order in which they were written.
    pub fn new(parts: impl IntoIterator<Item = (Arc<OpenBlock>, TraceRow)>) -> Self {
        Self { parts: parts.into_iter().map(|(block, row)| Part { block, row }).collect() }
    }

    /// Whether it has no part at all.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Source for JoinedTrace {
    type Cursor<'a> = JoinedCursor<'a>;

    fn fetch(&self, spec: &FetchSpec) -> std::result::Result<JoinedCursor<'_>, FetchError> {
        if spec.select_all {
            return Err(fetch_error(Error::Unsupported("everything of a trace in several blocks at once".to_owned())));
        }
        Ok(JoinedCursor {
            rest: &self.parts,
            most_spans: MOST_SPANS,
            most_bytes: MOST_BYTES,
            parts: &[],
            spec: FetchSpec { spans: of_spans(&spec.spans), ..spec.clone() },
            tree: None,
            stats: FetchStats::default(),
        })
    }
}

/// What of a predicate can be decided for each span by what is stored beside it: a row knows neither the whole trace nor all children.
fn of_spans(predicate: &Predicate) -> Predicate {
    match predicate {
        Predicate::Is(condition) if !is_of_span(&condition.field) => Predicate::Always,
        Predicate::All(parts) => Predicate::all(parts.iter().map(of_spans)),
        Predicate::AnyOf(parts) => Predicate::any_of(parts.iter().map(of_spans)),
        Predicate::Always | Predicate::Never | Predicate::Is(_) => predicate.clone(),
    }
}

fn is_of_span(field: &Field) -> bool {
    match field {
        Field::Attribute { parent, .. } => !parent,
        Field::Intrinsic(intrinsic) => {
            field.level() != Level::Trace && !intrinsic.is_structure() && *intrinsic != Intrinsic::ChildCount
        }
    }
}

fn has_child_count(fields: &[Field]) -> bool {
    fields.contains(&Intrinsic::ChildCount.into())
}

/// A fetch of it: one batch, or several where the trace is larger than may be joined.
pub struct JoinedCursor<'a> {
    /// Parts that no batch had yet.
    rest: &'a [Part],
    most_spans: u64,
    most_bytes: usize,
    /// Those of the latest batch.
    parts: &'a [Part],
    spec: FetchSpec,
    /// Of these, once it was needed.
    tree: Option<Tree>,
    stats: FetchStats,
}

/// The columns of several parts, and which events and links are whose.
struct Chained {
    columns: Vec<Chain>,
    events: Option<Offsets>,
    links: Option<Offsets>,
}

impl Chained {
    fn of(fields: &[Field]) -> Self {
        Self { columns: fields.iter().map(|_| Chain::default()).collect(), events: None, links: None }
    }

    fn add(
        &mut self,
        part: (usize, &Range<u32>),
        group: &mut Group<'_>,
        spans: Vec<u32>,
        load: Load<'_>,
    ) -> Result<()> {
        let mut chosen = Chosen::new(group, spans)?;
        let mut columns = load_fields(group, &mut chosen, load.fields)?;
        if let Some(tree) = load.tree {
            for (field, column) in load.fields.iter().zip(&mut columns) {
                if *field == Intrinsic::ChildCount.into() {
                    let children = tree.of_spans(part.0, part.1.start, &chosen.spans);
                    *column = Column::Int { values: children.map(|at| at.children.into()).collect(), valid: None };
                }
            }
        }
        let count =
            |offsets: &Option<Offsets>| offsets.as_ref().and_then(|all| all.last()).map_or(0, |all| to_usize(*all));
        let (events, links) = (count(&chosen.events), count(&chosen.links));
        for ((chain, column), field) in self.columns.iter_mut().zip(columns).zip(load.fields) {
            chain.add(
                column,
                match field.level() {
                    Level::Event => events,
                    Level::Link => links,
                    Level::Trace | Level::Span => chosen.spans.len(),
                },
            );
        }
        append(&mut self.events, chosen.events);
        append(&mut self.links, chosen.links);
        Ok(())
    }

    fn memory(&self) -> usize {
        self.columns.iter().map(Chain::memory).sum()
    }

    fn finish(self) -> (Vec<Column>, Option<Offsets>, Option<Offsets>) {
        (self.columns.into_iter().map(Chain::finish).collect(), self.events, self.links)
    }
}

/// What is loaded of each part.
#[derive(Clone, Copy)]
struct Load<'l> {
    fields: &'l [Field],
    /// Where the number of children is among the fields.
    tree: Option<&'l Tree>,
}

fn append(all: &mut Option<Offsets>, more: Option<Offsets>) {
    let Some(more) = more else { return };
    let all = all.get_or_insert_with(|| vec![0]);
    let before = all.last().copied().unwrap_or(0);
    all.extend(more.iter().skip(1).map(|end| before + end));
}

impl<'a> JoinedCursor<'a> {
    /// Takes the next parts, as many as may be evaluated together.
    fn take_parts(&mut self) -> Result<()> {
        let mut spans = 0;
        let mut count = 0;
        for part in self.rest.iter().take(MOST_PARTS) {
            let own = part.open()?.nesting()?.spans_of(Owner::Row, part.row.row).len() as u64;
            spans += own;
            if count > 0 && spans > self.most_spans {
                break;
            }
            self.stats.spans += own;
            count += 1;
        }
        (self.parts, self.rest) = self.rest.split_at(count);
        self.stats.traces += u64::from(count > 0);
        self.tree = None;
        Ok(())
    }

    fn batch(&mut self) -> Result<Option<SpanBatch>> {
        self.take_parts()?;
        if self.parts.is_empty() {
            return Ok(None);
        }
        if self.spec.structure || has_child_count(&self.spec.fields) {
            self.tree = Some(Tree::of(self.parts)?);
        }
        let (spec, tree, rows) = (&self.spec, self.tree.as_ref(), |part: &Part| part.rows());
        let load = Load { fields: &spec.fields, tree };
        let (mut batch, mut infos, mut chained) = (SpanBatch::default(), Vec::new(), Chained::of(&spec.fields));
        let mut structure = spec.structure.then(Structure::default);
        let mut bytes = 0;
        for (number, part) in self.parts.iter().enumerate() {
            let mut group = part.open()?;
            infos.extend(trace_infos(&mut group, &rows(part), (spec.ids, spec.trace_fields))?);
            let own = group.nesting()?.spans_of(Owner::Row, part.row.row);
            let spans: Vec<u32> = if spec.spans == Predicate::Always {
                own.clone().collect()
            } else {
                let found = select(&mut group, &spec.spans, &rows(part))?;
                own.clone().filter(|span| found.get(to_usize(*span))).collect()
            };
            batch.handles.extend(spans.iter().map(|span| handle(number, *span)));
            if let (Some(structure), Some(tree)) = (&mut structure, tree) {
                for position in tree.of_spans(number, own.start, &spans) {
                    structure.left.push(position.left);
                    structure.right.push(position.right);
                    structure.parent.push(position.parent);
                }
            }
            chained.add((number, &own), &mut group, spans, load)?;
            bytes += cost(&group);
            if chained.memory() > self.most_bytes {
                return Err(too_large(self.most_bytes, batch.handles.len()));
            }
        }
        (batch.columns, batch.events, batch.links) = chained.finish();
        batch.structure = structure;
        let count = u32::try_from(batch.handles.len()).unwrap_or(u32::MAX);
        batch.traces.extend((count > 0).then(|| TraceInfo { spans: 0..count, ..whole(infos) }));
        self.stats.bytes += bytes;
        Ok(Some(batch))
    }

    fn loaded(&mut self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded> {
        if has_child_count(&spec.fields) && self.tree.is_none() {
            self.tree = Some(Tree::of(self.parts)?);
        }
        let load = Load { fields: &spec.fields, tree: self.tree.as_ref() };
        let (mut infos, mut chained, mut bytes) = (Vec::new(), Chained::of(&spec.fields), 0);
        for (number, part) in self.parts.iter().enumerate() {
            let mut group = part.open()?;
            if !traces.is_empty() {
                infos.extend(trace_infos(&mut group, &part.rows(), (true, spec.trace_fields))?);
            }
            let own = group.nesting()?.spans_of(Owner::Row, part.row.row);
            let from = spans.partition_point(|span| *span < handle(number, 0));
            let to = spans.partition_point(|span| *span < handle(number + 1, 0));
            let spans =
                spans[from..to].iter().map(|span| u32::try_from(span.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX));
            chained.add((number, &own), &mut group, spans.collect(), load)?;
            bytes += cost(&group);
        }
        self.stats.bytes += bytes;
        let (columns, events, links) = chained.finish();
        let traces = if traces.is_empty() { Vec::new() } else { vec![whole(infos)] };
        Ok(Loaded { traces, columns, events, links })
    }
}

fn too_large(most_bytes: usize, spans: usize) -> Error {
    Error::Unsupported(format!(
        "query: what it reads of the first {spans} spans of a trace in several blocks takes more than {} MiB; ask for fewer attributes",
        most_bytes >> 20
    ))
}

/// The part in the upper half.
fn handle(part: usize, span: u32) -> SpanHandle {
    SpanHandle((part as u64) << 32 | u64::from(span))
}

fn cost(group: &Group<'_>) -> u64 {
    group.costs().map(|(_, cost)| cost.bytes + cost.at_hand).sum()
}

/// The facts of a trace by those of its parts. As in a row, spans that say no start do not count, and of several roots the last one does.
fn whole(parts: Vec<TraceInfo>) -> TraceInfo {
    let start = parts.iter().map(|part| part.start_ns).filter(|start| *start != 0).min().unwrap_or(0);
    let end = parts.iter().map(|part| part.start_ns.saturating_add(part.duration_ns)).max().unwrap_or(0);
    let mut stats: Vec<ServiceStat> = Vec::new();
    for stat in parts.iter().flat_map(|part| part.service_stats.iter()) {
        match stats.iter_mut().find(|known| known.service == stat.service) {
            Some(known) => {
                known.spans = known.spans.saturating_add(stat.spans);
                known.errors = known.errors.saturating_add(stat.errors);
            }
            None => stats.push(stat.clone()),
        }
    }
    let rooted = parts.iter().rposition(|part| !part.root_name.is_empty() || !part.root_service.is_empty());
    let mut parts = parts;
    let mut info = if parts.is_empty() { TraceInfo::default() } else { parts.swap_remove(rooted.unwrap_or(0)) };
    (info.start_ns, info.duration_ns, info.service_stats) = (start, end.saturating_sub(start), stats.into());
    info
}

impl Cursor for JoinedCursor<'_> {
    fn next(&mut self) -> std::result::Result<Option<SpanBatch>, FetchError> {
        self.batch().map_err(fetch_error)
    }

    fn load(
        &mut self,
        traces: &[u32],
        spans: &[SpanHandle],
        spec: &LoadSpec,
    ) -> std::result::Result<Loaded, FetchError> {
        self.loaded(traces, spans, spec).map_err(fetch_error)
    }

    fn stats(&self) -> FetchStats {
        self.stats
    }
}

#[cfg(test)]
mod tests;

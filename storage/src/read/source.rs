//! A block as a source of spans for queries.
//!
//! ```text
//! row group ─▶ time bounds, dictionaries, statistics ─▶ rows in the window ─▶ conditions, cheapest first, each reading only
//!              (whole group out?)                                             pages of rows that are left ─▶ spans ─▶ columns
//! ```

mod attribute;
mod children;
mod columns;
mod decoded;
mod group;
mod hits;
mod joined;
mod nesting;
mod places;
mod queue;
mod select;
mod tags;
mod turns;
mod verdict;
mod walk;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use vivace_traceql::{
    Bitmap, Cursor, FetchError, FetchSpec, FetchStats, Field, Level, LoadSpec, Loaded, Predicate, ServiceStat, Source,
    SpanBatch, SpanHandle, Structure, TraceFields, TraceInfo,
};

use super::{
    block::OpenBlock, cells::lossy, error::Result, find::TraceRow, record::RecordReader, rows::RowSet, values::to_usize,
};
use crate::live::{LiveCursor, LiveSource};
use columns::{Chosen, load, row_ints, row_texts};
pub(crate) use decoded::BlockParts;
pub use decoded::Decoded;
pub use group::LeafCost;
use group::{Group, bounds};
pub use joined::{JoinedCursor, JoinedTrace};
use nesting::Owner;
use queue::{Pool, Queue};
pub(crate) use turns::{Left, newest_start};

/// Rows put together again at once when everything about their spans is wanted.
const WHOLE_ROWS: usize = 256;

/// The row groups of a block, or some of them, as a source for queries.
#[derive(Debug, Clone)]
pub struct BlockSource {
    block: Arc<OpenBlock>,
    groups: Range<usize>,
    /// Rows of the first row group that fetches pass over, ascending.
    without: Arc<[u32]>,
    /// Rows of any row group that they pass over.
    apart: Arc<[TraceRow]>,
}

impl BlockSource {
    /// All of the block.
    pub fn new(block: Arc<OpenBlock>) -> Self {
        let groups = 0..block.row_groups();
        Self { block, groups, without: Arc::default(), apart: Arc::default() }
    }

    /// Some row groups, as a job names them by first and count. What lies past the end is left out.
    pub fn of_row_groups(block: Arc<OpenBlock>, first: usize, count: usize) -> Self {
        let end = first.saturating_add(count).min(block.row_groups());
        Self { groups: first.min(end)..end, ..Self::new(block) }
    }

    /// A block of one row group, of which fetches pass over these rows (ascending): what it says of names and values without
    /// reading spans still has them.
    pub(crate) fn without(block: Arc<OpenBlock>, rows: &Arc<[u32]>) -> Self {
        Self { groups: 0..1, without: Arc::clone(rows), ..Self::new(block) }
    }

    /// Without these traces, which somebody else asks for.
    pub(crate) fn passing_over(self, apart: Arc<[TraceRow]>) -> Self {
        Self { apart, ..self }
    }

    /// The block.
    pub fn block(&self) -> &OpenBlock {
        &self.block
    }

    pub(crate) fn groups(&self) -> Range<usize> {
        self.groups.clone()
    }
}

impl Source for BlockSource {
    type Cursor<'a> = BlockCursor<'a>;

    fn fetch(&self, spec: &FetchSpec) -> std::result::Result<BlockCursor<'_>, FetchError> {
        let cursor = BlockCursor::new(&self.block, self.groups.clone(), &self.without, spec.clone());
        Ok(cursor.passing_over(&self.apart))
    }
}

/// A fetch over a block.
pub struct BlockCursor<'a> {
    block: &'a OpenBlock,
    groups: Range<usize>,
    without: &'a [u32],
    apart: &'a [TraceRow],
    spec: FetchSpec,
    group: Option<Group<'a>>,
    /// Rows of the current row group still to be looked at, newest first.
    pool: Pool,
    /// Rows of the current row group still to be delivered.
    queue: Queue,
    /// Whether rows of the current row group were.
    delivered: bool,
    latest_rows: Vec<u32>,
    /// Traces put together again, when everything is wanted.
    whole: Option<Whole>,
    finished: FetchStats,
    costs: BTreeMap<usize, LeafCost>,
    counts: GroupCounts,
    /// Traces that start before are of no use.
    floor: u64,
    /// Whether the end of the row group is the end: somebody else says which is next.
    stays: bool,
}

/// Row groups, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GroupCounts {
    /// Spans of them were delivered.
    pub(crate) read: u64,
    /// Dictionaries or statistics say that no span can be of use.
    pub(crate) by_predicate: u64,
    /// No trace lies in the window.
    pub(crate) by_time: u64,
    /// Every span was ruled out by its values.
    pub(crate) by_selection: u64,
}

/// Rows of the latest batch as live traces.
struct Whole {
    source: LiveSource,
}

impl<'a> BlockCursor<'a> {
    fn new(block: &'a OpenBlock, groups: Range<usize>, without: &'a [u32], spec: FetchSpec) -> Self {
        Self {
            block,
            groups,
            without,
            apart: &[],
            spec,
            group: None,
            pool: Pool::empty(),
            queue: Queue::empty(),
            delivered: false,
            latest_rows: Vec::new(),
            whole: None,
            finished: FetchStats::default(),
            costs: BTreeMap::new(),
            counts: GroupCounts::default(),
            floor: 0,
            stays: false,
        }
    }

    /// Delivers nothing of these rows.
    pub(crate) fn passing_over(self, apart: &'a [TraceRow]) -> Self {
        Self { apart, ..self }
    }

    /// What reading has cost so far, by path of the column.
    pub fn costs(&self) -> Vec<(String, LeafCost)> {
        let mut costs = self.costs.clone();
        if let Some(group) = &self.group {
            add_costs(&mut costs, group);
        }
        let leaves = self.block.schema().leaves();
        costs.into_iter().map(|(leaf, cost)| (leaves[leaf].path.clone(), cost)).collect()
    }

    pub(crate) fn group_counts(&self) -> GroupCounts {
        self.counts
    }

    /// Opens the next row group that may hold something, none after the last.
    fn open_group(&mut self) -> Result<bool> {
        self.close_group();
        while let Some(number) = self.groups.next() {
            let mut group = Group::open(self.block, number)?;
            if turns::newest_in(&group)? < self.floor {
                self.counts.by_time += 1;
                continue;
            }
            group.announce_dictionaries(std::iter::once(&self.spec.spans).chain(&self.spec.traces))?;
            let mut counts = self.counts;
            let admitted = self.admit(&mut group, &mut counts)?;
            self.counts = counts;
            let Some((rows, narrowed)) = admitted else {
                add_costs(&mut self.costs, &group);
                continue;
            };
            if self.spec.newest_first && !self.spec.select_all {
                let all = self.spec.spans == Predicate::Always && self.spec.traces.is_empty();
                self.pool = Pool::new(&mut group, &rows, all, narrowed)?;
                self.queue = Queue::empty();
            } else {
                self.pool = Pool::empty();
                group.announce_choice(&self.spec, &rows)?;
                let (rows, spans) = self.choose(&mut group, &rows)?;
                if spans.is_some() && !rows.is_empty() {
                    group.announce_batch(&self.spec, &rows)?;
                }
                self.queue = Queue::as_stored(&rows, spans);
            }
            self.group = Some(group);
            return Ok(true);
        }
        Ok(false)
    }

    /// Counts what became of the current row group and what it has cost.
    fn close_group(&mut self) {
        let Some(group) = self.group.take() else { return };
        if !self.delivered {
            *(if self.pool.dropped { &mut self.counts.by_time } else { &mut self.counts.by_selection }) += 1;
        }
        self.delivered = false;
        add_costs(&mut self.costs, &group);
    }

    /// The rows in the window that can be of use, and whether these are fewer because lists of rows say so; none when the group can be
    /// passed.
    fn admit(&self, group: &mut Group<'a>, counts: &mut GroupCounts) -> Result<Option<(RowSet, bool)>> {
        let spec = &self.spec;
        for predicate in std::iter::once(&spec.spans).chain(&spec.traces) {
            if !select::may_hold(group, predicate)? {
                counts.by_predicate += 1;
                return Ok(None);
            }
        }
        let mut rows = self.rows_in_window(group)?;
        if !self.without.is_empty() {
            rows = rows.without(self.without);
        }
        for at in self.apart.iter().filter(|at| at.group == group.number) {
            rows = rows.without(&[at.row]);
        }
        if rows.is_empty() {
            counts.by_time += 1;
            return Ok(None);
        }
        let narrowed = select::narrowed(group, &spec.spans, &rows)?;
        let few = narrowed.is_some();
        let rows = narrowed.unwrap_or(rows);
        counts.by_predicate += u64::from(rows.is_empty());
        Ok((!rows.is_empty()).then_some((rows, few)))
    }

    /// Those of `rows` that are of use, and their spans of use (all when none are named).
    fn choose(&mut self, group: &mut Group<'a>, rows: &RowSet) -> Result<(RowSet, Option<Bitmap>)> {
        let nesting = group.nesting()?;
        self.finished.traces += u64::from(rows.len());
        self.finished.spans += rows.ranges().iter().map(|range| nesting.spans_between(range)).sum::<u64>();
        let spec = &self.spec;
        let mut left = rows.clone();
        for predicate in &spec.traces {
            let found = select::select(group, predicate, &left)?;
            left = select::rows_of(&nesting, &found);
            if left.is_empty() {
                return Ok((left, None));
            }
        }
        if spec.spans == Predicate::Always {
            return Ok((left, None));
        }
        let spans = select::select(group, &spec.spans, &left)?;
        Ok((select::rows_of(&nesting, &spans), Some(spans)))
    }

    /// Looks at the next rows of the pool; false when there are none.
    fn look_further(&mut self) -> Result<bool> {
        let rows = self.pool.take(self.floor);
        if rows.is_empty() {
            return Ok(false);
        }
        let Some(mut group) = self.group.take() else { return Ok(false) };
        let mut set = RowSet::default();
        rows.iter().for_each(|(_, row)| set.push(*row));
        let chosen = self.choose(&mut group, &set);
        self.group = Some(group);
        let (left, spans) = chosen?;
        let rows = if left == set { rows } else { rows.into_iter().filter(|(_, row)| left.contains(*row)).collect() };
        self.queue = Queue::newest_first(rows, spans);
        Ok(true)
    }

    fn rows_in_window(&self, group: &mut Group<'a>) -> Result<RowSet> {
        let all = RowSet::all(group.rows);
        let Some(window) = self.spec.window else { return Ok(all) };
        let columns = &group.columns.trace;
        let (start, end) = (columns.start, columns.end);
        let starts = group.int_bounds(start)?;
        let ends = group.int_bounds(end)?;
        if let (Some((first, last_start)), Some((first_end, last))) = (starts, ends) {
            if first.cast_unsigned() > window.end_ns || last.cast_unsigned() < window.start_ns {
                return Ok(RowSet::default());
            }
            if last_start.cast_unsigned() <= window.end_ns && first_end.cast_unsigned() >= window.start_ns {
                return Ok(all);
            }
        }
        let starts = row_ints(group, start, &all)?;
        let ends = row_ints(group, end, &all)?;
        let mut rows = RowSet::default();
        for (row, (start, end)) in (0..group.rows).zip(starts.into_iter().zip(ends)) {
            if window.overlaps(start.cast_unsigned(), end.cast_unsigned()) {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// The next rows with chosen spans, at most `most`, and these spans; none after the last.
    fn next_rows(&mut self, most: usize) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
        loop {
            if let Some(group) = &mut self.group {
                let nesting = group.nesting()?;
                let rows = self.queue.next(&nesting, self.floor, most);
                if !rows.is_empty() {
                    let spans = self.queue.spans(&nesting, &rows);
                    self.counts.read += u64::from(!std::mem::replace(&mut self.delivered, true));
                    return Ok(Some((rows, spans)));
                }
                if self.look_further()? {
                    continue;
                }
            }
            if self.stays || !self.open_group()? {
                return Ok(None);
            }
        }
    }

    fn batch(&mut self) -> Result<Option<SpanBatch>> {
        let Some((_, spans)) = self.next_rows(usize::MAX)? else { return Ok(None) };
        let Some(group) = &mut self.group else { return Ok(None) };
        let mut chosen = Chosen::new(group, spans)?;
        let spec = &self.spec;
        let mut batch = SpanBatch {
            traces: traces(group, &chosen, (spec.ids, spec.trace_fields))?,
            handles: chosen.spans.iter().map(|span| SpanHandle(u64::from(*span))).collect(),
            ..SpanBatch::default()
        };
        batch.columns = load_fields(group, &mut chosen, &spec.fields)?;
        (batch.events, batch.links) = (chosen.events.take(), chosen.links.take());
        if spec.structure {
            let span = &group.columns.span;
            let (left, right, parent) = (span.left, span.right, span.parent);
            let mut numbers = |leaf| span_ints(group, &chosen, leaf);
            batch.structure =
                Some(Structure { left: numbers(left)?, right: numbers(right)?, parent: numbers(parent)? });
        }
        self.latest_rows = chosen.rows.iter().collect();
        Ok(Some(batch))
    }

    /// With `select_all` the traces are put together again and searched like live ones, which see every attribute.
    fn whole_batch(&mut self) -> std::result::Result<Option<SpanBatch>, FetchError> {
        if !self.next_whole().map_err(fetch_error)? {
            return Ok(None);
        }
        let Some(whole) = &self.whole else { return Ok(None) };
        let mut all = SpanBatch::default();
        // One batch for all, so that the handles of the latest batch stay valid.
        let mut cursor: LiveCursor<'_> = whole.source.cursor_of_one_batch(&self.spec);
        if let Some(batch) = cursor.next()? {
            all = batch;
        }
        Ok(Some(all))
    }

    fn next_whole(&mut self) -> Result<bool> {
        let Some((rows, _)) = self.next_rows(WHOLE_ROWS)? else { return Ok(false) };
        let Some(group) = &mut self.group else { return Ok(false) };
        let mut wanted = RowSet::default();
        rows.iter().for_each(|row| wanted.push(*row));
        let mut records = RecordReader::new(self.block, group.number, Some(&wanted))?;
        let mut traces = Vec::with_capacity(rows.len());
        for row in &rows {
            records.seek(*row)?;
            if let Some((id, trace)) = records.next_row()? {
                traces.push((id, vec![trace]));
            }
        }
        self.finished.bytes += records.bytes_read();
        self.whole = Some(Whole { source: LiveSource::new(traces) });
        Ok(true)
    }

    fn loaded(&mut self, traces_wanted: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded> {
        let Some(group) = &mut self.group else { return Ok(Loaded::default()) };
        let mut rows = RowSet::default();
        traces_wanted.iter().filter_map(|trace| self.latest_rows.get(to_usize(*trace))).for_each(|row| rows.push(*row));
        load_from(group, &rows, spans, spec)
    }
}

/// Second pass over rows and spans of a row group.
fn load_from(group: &mut Group<'_>, rows: &RowSet, spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded> {
    group.announce_load(spec, rows)?;
    let mut loaded = Loaded { traces: trace_infos(group, rows, (true, spec.trace_fields))?, ..Loaded::default() };
    let spans = spans.iter().map(|handle| u32::try_from(handle.0).unwrap_or(u32::MAX)).collect();
    let mut chosen = Chosen::new(group, spans)?;
    loaded.columns = load_fields(group, &mut chosen, &spec.fields)?;
    (loaded.events, loaded.links) = (chosen.events, chosen.links);
    Ok(loaded)
}

fn load_fields(group: &mut Group<'_>, chosen: &mut Chosen, fields: &[Field]) -> Result<Vec<vivace_traceql::Column>> {
    for (level, owner) in [(Level::Event, Owner::Event), (Level::Link, Owner::Link)] {
        if fields.iter().any(|field| field.level() == level) {
            chosen.count_children(group, owner)?;
        }
    }
    fields.iter().map(|field| load(group, chosen, field)).collect()
}

fn fetch_error(error: super::error::Error) -> FetchError {
    FetchError(Box::new(error))
}

fn add_costs(costs: &mut BTreeMap<usize, LeafCost>, group: &Group<'_>) {
    for (leaf, cost) in group.costs() {
        let sum = costs.entry(leaf).or_default();
        sum.bytes += cost.bytes;
        sum.pages += cost.pages;
        sum.skipped += cost.skipped;
        sum.requests += cost.requests;
        sum.at_hand += cost.at_hand;
    }
}

impl Cursor for BlockCursor<'_> {
    fn next(&mut self) -> std::result::Result<Option<SpanBatch>, FetchError> {
        if self.spec.select_all { self.whole_batch() } else { self.batch().map_err(fetch_error) }
    }

    fn load(
        &mut self,
        traces: &[u32],
        spans: &[SpanHandle],
        spec: &LoadSpec,
    ) -> std::result::Result<Loaded, FetchError> {
        if let Some(whole) = &self.whole {
            let mut cursor = whole.source.cursor_of_one_batch(&self.spec);
            cursor.next()?;
            return cursor.load(traces, spans, spec);
        }
        self.loaded(traces, spans, spec).map_err(fetch_error)
    }

    fn ignore_before(&mut self, start_ns: u64) {
        self.floor = start_ns;
    }

    fn stats(&self) -> FetchStats {
        let mut stats = self.finished;
        stats.bytes += self.costs.values().map(|cost| cost.bytes + cost.at_hand).sum::<u64>();
        if let Some(group) = &self.group {
            stats.bytes += group.costs().map(|(_, cost)| cost.bytes + cost.at_hand).sum::<u64>();
        }
        stats
    }
}

/// The facts of the traces of a batch, with their ranges of spans.
fn traces(group: &mut Group<'_>, chosen: &Chosen, fields: (bool, TraceFields)) -> Result<Vec<TraceInfo>> {
    let mut infos = trace_infos(group, &chosen.rows, fields)?;
    let (_, places) = chosen.nesting.owners(Owner::Row, &chosen.spans);
    for (span, place) in (0u32..).zip(places) {
        let info = &mut infos[to_usize(place)];
        if info.spans.end == 0 {
            info.spans = span..span + 1;
        } else {
            info.spans.end = span + 1;
        }
    }
    Ok(infos)
}

/// The facts of the traces of some rows; their ids only if the first is true.
fn trace_infos(group: &mut Group<'_>, rows: &RowSet, (ids, fields): (bool, TraceFields)) -> Result<Vec<TraceInfo>> {
    let columns = group.columns.trace;
    // Empty texts of its own: those of a default are shared by all threads, which would count them in each other's way.
    let empty =
        TraceInfo { root_name: "".into(), root_service: "".into(), service_stats: [].into(), ..TraceInfo::default() };
    let mut infos = vec![empty; to_usize(rows.len())];
    if ids {
        let dictionary = group.dictionary(columns.trace_id)?;
        let mut due = infos.iter_mut();
        group.pages(columns.trace_id, rows, |page| {
            for index in rows.within(page.first_row, page.len).flatten() {
                let id = group::text(page, dictionary.as_deref(), index).ok_or_else(super::cursor::inconsistent)?;
                due.next().ok_or_else(super::cursor::inconsistent)?.id = super::record::trace_id(id).0;
            }
            Ok(())
        })?;
        if due.next().is_some() {
            return Err(super::cursor::inconsistent());
        }
    }
    if fields.times {
        for (info, start) in infos.iter_mut().zip(row_ints(group, columns.start, rows)?) {
            info.start_ns = start.cast_unsigned();
        }
        for (info, duration) in infos.iter_mut().zip(row_ints(group, columns.duration, rows)?) {
            info.duration_ns = duration.cast_unsigned();
        }
    }
    if fields.root {
        for (info, name) in infos.iter_mut().zip(row_texts(group, columns.root_name, rows)?) {
            info.root_name = lossy(&name).into();
        }
        for (info, service) in infos.iter_mut().zip(row_texts(group, columns.root_service, rows)?) {
            info.root_service = lossy(&service).into();
        }
    }
    if fields.service_stats {
        let stats = service_stats(group, rows)?;
        for (info, stats) in infos.iter_mut().zip(stats) {
            info.service_stats = stats.into();
        }
    }
    Ok(infos)
}

fn service_stats(group: &mut Group<'_>, rows: &RowSet) -> Result<Vec<Vec<ServiceStat>>> {
    let columns = group.columns.stats;
    let dictionary = group.dictionary(columns.service)?;
    let mut all: Vec<Vec<ServiceStat>> = Vec::new();
    // Levels of the values in the list of services.
    let max_def = 1;
    group.pages(columns.service, rows, |page| {
        for row in rows.within(page.first_row, page.rows()).flatten() {
            let services = page.span_of(row..row + 1, max_def).values.map(|index| {
                let service = group::text(page, dictionary.as_deref(), index).unwrap_or_default();
                ServiceStat { service: lossy(service).into(), spans: 0, errors: 0 }
            });
            all.push(services.collect());
        }
        Ok(())
    })?;
    for (leaf, errors) in [(columns.spans, false), (columns.errors, true)] {
        let mut next = all.iter_mut();
        group.pages(leaf, rows, |page| {
            let super::values::Values::Ints(values) = &page.values else { return Err(super::cursor::inconsistent()) };
            for row in rows.within(page.first_row, page.rows()).flatten() {
                let Some(stats) = next.next() else { return Err(super::cursor::inconsistent()) };
                let counts = page.span_of(row..row + 1, max_def).values.filter_map(|at| values.get(at));
                for (stat, count) in stats.iter_mut().zip(counts) {
                    let count = u32::try_from(count).unwrap_or(0);
                    *(if errors { &mut stat.errors } else { &mut stat.spans }) = count;
                }
            }
            Ok(())
        })?;
    }
    Ok(all)
}

fn span_ints(group: &mut Group<'_>, chosen: &Chosen, leaf: usize) -> Result<Vec<i32>> {
    let mut numbers = Vec::with_capacity(chosen.spans.len());
    let mut spans = chosen.spans.iter().copied().peekable();
    group.pages(leaf, &chosen.rows, |page| {
        let super::values::Values::Ints(values) = &page.values else { return Err(super::cursor::inconsistent()) };
        let (first, end) = bounds(page, &chosen.nesting, Owner::Span);
        while let Some(span) = spans.next_if(|span| *span < end) {
            let at = span.checked_sub(first).map(to_usize);
            let number = at.and_then(|at| values.get(at)).ok_or_else(super::cursor::inconsistent)?;
            numbers.push(i32::try_from(number).unwrap_or(0));
        }
        Ok(())
    })?;
    Ok(numbers)
}

#[cfg(test)]
mod tests;

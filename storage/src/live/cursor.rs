//! A fetch over live traces: walk, test, and column by column the values of the spans that are kept.

use std::sync::Arc;

use vivace_protocol::wire::WireError;
use vivace_traceql::{
    Cursor, FetchError, FetchSpec, FetchStats, LoadSpec, Loaded, SpanBatch, SpanHandle, Structure, TimeRange,
    TraceFields,
};

use super::{
    LiveTrace,
    columns::Columns,
    conditions::test,
    everything::Everything,
    walk::{TraceView, number},
    walked::Walked,
    wants::Plan,
};

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
    /// What walks work with.
    view: TraceView<'a>,
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
            view: TraceView::default(),
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

    fn walk(&mut self, index: usize, plan: &Plan) -> Result<Walked<'a>, WireError> {
        let trace = self.traces[index];
        let known = self.measured.then(|| trace.bounds());
        Walked::walk(std::mem::take(&mut self.view), trace, known, plan)
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
            if self.is_seen(&walked)? {
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
                    walked.trim(self.fields);
                    walked.info.spans = first..last;
                    batch.traces.push(walked.info);
                    self.latest.push(index);
                }
            }
            self.view = walked.view;
        }
        (batch.columns, batch.events, batch.links) = columns.finish();
        batch.structure = structure;
        if let Some(everything) = everything {
            batch.everything = everything.finish();
        }
        Ok(Some(batch))
    }

    /// Whether the trace is in the window, and each demand on it is met by some span.
    fn is_seen(&self, walked: &Walked<'_>) -> Result<bool, WireError> {
        let (start, end) = (walked.info.start_ns, walked.info.start_ns.wrapping_add(walked.duration));
        if start < self.floor || self.window.is_some_and(|window| !window.overlaps(start, end)) {
            return Ok(false);
        }
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

    fn loaded(&mut self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded, WireError> {
        let plan = Plan::of_load(spec);
        let mut loaded = Loaded::default();
        for trace in traces {
            let Some(index) = self.latest.get(*trace as usize).copied() else { continue };
            let mut walked = self.walk(index, &plan)?;
            walked.trim(spec.trace_fields);
            loaded.traces.push(walked.info);
            self.view = walked.view;
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

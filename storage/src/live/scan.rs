//! One scan of live traces by several workers.
//!
//! Work is handed out in units: some traces that are walked, or a group that is read from its columns. When the newest are wanted,
//! the newest traces come first, a few and then more, and what is older than enough of those found is never looked at. Groups and
//! traces that cannot hold what the query asks for are passed over ([`Sieve`](super::sieve::Sieve)). Which worker takes which unit
//! changes no answer, because no trace is in two units.

mod ruling;

use std::cell::Cell;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use vivace_traceql::{
    Cursor, FetchError, FetchSpec, FetchStats, LoadSpec, Loaded, Source, SpanBatch, SpanHandle, TimeRange,
};

use self::ruling::Ruling;
use super::{LiveCursor, LiveTrace, LiveView, cursor::BATCH_SPANS, wants::Plan};
use crate::BlockSource;

/// When the newest are wanted a unit has a quarter of what was handed out before, within bounds: who is content with the first has
/// paid for little more, whoever needs all takes few units.
const LEAST_TRACES: usize = 64;
const MOST_TRACES: usize = 2048;
/// So many are put in order at first, and later: ordering all of them would cost more than most searches.
const ORDERED_FIRST: usize = 1024;
const ORDERED: usize = 8192;
/// Traces in a unit when all are wanted.
const TRACES: usize = 512;
/// To walk spans and to take columns out of all of them is as much work as so many walks.
const WALKS_FOR_COLUMNS: u64 = 3;

/// A scan.
pub struct LiveScan {
    view: LiveView,
    /// Of each group that had its columns when the scan began.
    blocks: Vec<Option<BlockSource>>,
    ended: Arc<AtomicBool>,
    /// The fetches that workers make, each with the same ones in the same order.
    fetches: Mutex<Vec<Arc<Fetch>>>,
}

/// One fetch, which all workers share.
struct Fetch {
    plan: Arc<Plan>,
    /// Traces that start before are of no use.
    floor: AtomicU64,
    units: Mutex<Units>,
    ruling: Ruling,
}

impl LiveScan {
    /// Workers end early once `ended` is set: nobody waits for what they find any more.
    #[must_use]
    pub fn new(view: LiveView, ended: &Arc<AtomicBool>) -> Arc<Self> {
        let blocks = view.parts.iter().map(|part| {
            let block = part.group.block()?;
            Some(BlockSource::without(Arc::clone(block), &part.without))
        });
        let blocks = blocks.collect();
        Arc::new(Self { view, blocks, ended: Arc::clone(ended), fetches: Mutex::default() })
    }

    /// A worker that goes on as long as there is something to do.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> LiveShare {
        LiveShare { scan: Arc::clone(self), begun: Cell::new(0), most: None }
    }

    /// A worker that takes at most `most` units of each fetch, of which only the last is a group with columns: such a one is work
    /// for a while.
    #[must_use]
    pub fn beginning(self: &Arc<Self>, most: usize) -> LiveShare {
        LiveShare { most: Some(most), ..self.share() }
    }

    /// Bytes of groups of which nobody knows yet when their traces are. The first fetch finds it out; several workers are quicker.
    #[must_use]
    pub fn unmeasured(&self) -> u64 {
        let groups = self.view.parts.iter().map(|part| &part.group);
        groups.filter(|group| !group.is_measured()).map(|group| group.bytes()).sum()
    }

    /// Finds it out for the share of one of `workers`.
    pub fn measure(&self, worker: usize, workers: usize) {
        for part in self.view.parts.iter().skip(worker).step_by(workers.max(1)) {
            part.group.bounds();
        }
    }

    /// How many workers there is work for, at most `most`: below a megabyte one is as quick as two.
    #[must_use]
    pub fn workers(&self, most: usize) -> usize {
        let bytes: u64 = self.view.parts.iter().map(|part| part.group.bytes()).sum();
        usize::try_from(bytes >> 20).unwrap_or(usize::MAX).clamp(1, most.max(1))
    }

    /// Whether no unit is left of any fetch that was begun.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let fetches = self.fetches.lock();
        fetches.iter().all(|fetch| fetch.units.lock().is_empty(fetch.floor.load(Ordering::Relaxed)))
    }

    /// The traces that are scanned.
    #[must_use]
    pub fn view(&self) -> &LiveView {
        &self.view
    }

    pub(super) fn block(&self, part: usize) -> Option<&BlockSource> {
        self.blocks[part].as_ref()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn fetch(&self, number: usize, spec: &FetchSpec) -> Arc<Fetch> {
        let mut fetches = self.fetches.lock();
        while fetches.len() <= number {
            let plan = Plan::of_fetch(spec);
            if plan.sieve.asks_digests() {
                self.view.parts.iter().for_each(|part| part.group.asked());
            }
            let units = Mutex::new(Units::new(self, spec, &plan));
            let (floor, ruling) = (AtomicU64::new(0), Ruling::default());
            fetches.push(Arc::new(Fetch { plan: Arc::new(plan), floor, units, ruling }));
        }
        Arc::clone(&fetches[number])
    }

    /// Those at some places that have to be walked.
    fn traces(&self, fetch: &Fetch, places: &[Place]) -> Vec<&LiveTrace> {
        let (sieve, floor) = (&fetch.plan.sieve, fetch.floor.load(Ordering::Relaxed));
        let searching = sieve.is_worth_it();
        let weight = if fetch.plan.keeps_all() { WALKS_FOR_COLUMNS } else { 1 };
        let mut tried = 0;
        let mut traces = Vec::with_capacity(if searching { 0 } else { places.len() });
        for place in places.iter().filter(|place| place.start >= floor) {
            let group = &self.view.parts[place.part as usize].group;
            let trace = &*group.traces()[place.at as usize];
            tried += 1;
            if searching && !sieve.passes(trace) {
                group.searched(trace.bytes());
                continue;
            }
            group.walked(trace.bytes() * weight);
            traces.push(trace);
        }
        if searching {
            sieve.was_tried(tried, traces.len() as u64);
        }
        traces
    }
}

/// Where a trace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    start: u64,
    part: u32,
    at: u32,
}

/// What nobody has taken yet.
struct Units {
    newest_first: bool,
    /// Groups with columns and the start of their newest trace; the newest is the last.
    blocks: Vec<(u64, usize)>,
    /// The newest traces; the newest is the last.
    ordered: Vec<Place>,
    /// All others, and the newest start among them.
    others: Vec<Place>,
    newest_other: u64,
    /// How many are ordered next.
    order: usize,
    /// Traces that were handed out.
    given: usize,
}

enum Unit {
    Block(usize),
    Traces(Vec<Place>),
}

impl Units {
    fn new(scan: &LiveScan, spec: &FetchSpec, plan: &Plan) -> Self {
        let (mut blocks, mut traces) = (Vec::new(), Vec::new());
        for (number, part) in scan.view.parts.iter().enumerate() {
            if !plan.sieve.may_be_in(&part.group) {
                continue;
            }
            if scan.blocks[number].is_some() {
                let newest = part.group.bounds().iter().map(|bounds| bounds.start).max();
                blocks.push((newest.unwrap_or(0), number));
            } else {
                add(&mut traces, part, number, spec.window);
            }
        }
        blocks.sort_unstable();
        let mut units = Self {
            newest_first: spec.newest_first,
            blocks,
            ordered: Vec::new(),
            others: traces,
            newest_other: 0,
            order: ORDERED_FIRST,
            given: 0,
        };
        if units.newest_first {
            units.put_in_order(0);
        }
        units
    }

    /// Moves the newest of the others to the ordered ones, of which none is left.
    fn put_in_order(&mut self, floor: u64) {
        self.others.retain(|place| place.start >= floor);
        let rest = if self.others.len() > self.order {
            self.others.select_nth_unstable_by(self.order, |a, b| b.cmp(a));
            self.others.split_off(self.order)
        } else {
            Vec::new()
        };
        self.ordered = std::mem::replace(&mut self.others, rest);
        self.ordered.sort_unstable();
        self.newest_other = self.others.iter().map(|place| place.start).max().unwrap_or(0);
        self.order = ORDERED;
    }

    /// How many traces of each of `parts` parts are left.
    fn left(&self, parts: usize) -> Vec<usize> {
        let mut left = vec![0; parts];
        self.ordered.iter().chain(&self.others).for_each(|place| left[place.part as usize] += 1);
        left
    }

    /// Drops what is of parts that are of no use.
    fn keep(&mut self, useful: &[bool]) {
        self.blocks.retain(|(_, part)| useful[*part]);
        self.ordered.retain(|place| useful[place.part as usize]);
        self.others.retain(|place| useful[place.part as usize]);
        self.newest_other = self.others.iter().map(|place| place.start).max().unwrap_or(0);
    }

    /// The newest start of a trace that is not in columns; none when there is no such trace left.
    fn newest(&self) -> Option<u64> {
        match self.ordered.last() {
            Some(place) => Some(place.start),
            None => (!self.others.is_empty()).then_some(self.newest_other),
        }
    }

    fn is_empty(&self, floor: u64) -> bool {
        self.blocks.last().is_none_or(|(newest, _)| *newest < floor)
            && self.newest().is_none_or(|newest| newest < floor)
    }

    fn next(&mut self, floor: u64) -> Option<Unit> {
        if self.is_empty(floor) {
            return None;
        }
        let block_first = match (self.blocks.last(), self.newest()) {
            (Some((newest, _)), Some(other)) => !self.newest_first || *newest >= other,
            (block, _) => block.is_some(),
        };
        if block_first {
            return self.blocks.pop().map(|(_, part)| Unit::Block(part));
        }
        if !self.newest_first {
            let rest = self.others.len().saturating_sub(TRACES);
            return Some(Unit::Traces(self.others.split_off(rest)));
        }
        if self.ordered.is_empty() {
            self.put_in_order(floor);
        }
        let wanted = (self.given / 4).clamp(LEAST_TRACES, MOST_TRACES);
        let rest = self.ordered.len().saturating_sub(wanted);
        let mut taken = self.ordered.split_off(rest);
        taken.reverse();
        self.given += taken.len();
        Some(Unit::Traces(taken))
    }
}

fn add(traces: &mut Vec<Place>, part: &super::LivePart, number: usize, window: Option<TimeRange>) {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let mut without = part.without.iter().copied().peekable();
    for (at, bounds) in (0u32..).zip(part.group.bounds()) {
        if without.next_if_eq(&at).is_none() && bounds.overlaps(window) {
            traces.push(Place { start: bounds.start, part: number, at });
        }
    }
}

/// One worker.
pub struct LiveShare {
    scan: Arc<LiveScan>,
    /// Fetches that it has begun.
    begun: Cell<usize>,
    most: Option<usize>,
}

impl LiveShare {
    pub(super) fn scan(&self) -> &LiveScan {
        &self.scan
    }

    /// Whether a trace of it overlaps the window, to which both ends belong. An end of 0 is no window: then all do.
    #[must_use]
    pub fn overlaps(&self, start_ns: u64, end_ns: u64) -> bool {
        let window = (end_ns > 0).then_some(TimeRange { start_ns, end_ns });
        window.is_none()
            || self.scan.view.parts.iter().any(|part| part.group.bounds().iter().any(|bounds| bounds.overlaps(window)))
    }
}

impl Source for LiveShare {
    type Cursor<'a> = ShareCursor<'a>;

    fn fetch(&self, spec: &FetchSpec) -> Result<ShareCursor<'_>, FetchError> {
        let number = self.begun.replace(self.begun.get() + 1);
        Ok(ShareCursor {
            scan: &self.scan,
            fetch: self.scan.fetch(number, spec),
            spec: spec.clone(),
            left: self.most,
            ruled: self.most.is_some(),
            unit: Open::None,
            done: FetchStats::default(),
        })
    }
}

/// A worker's part of a fetch.
pub struct ShareCursor<'a> {
    scan: &'a LiveScan,
    fetch: Arc<Fetch>,
    spec: FetchSpec,
    /// Units that it may still take, if they are counted.
    left: Option<usize>,
    /// Whether groups that hold nothing of use have been ruled out, or need not be: whoever takes a few units only does not.
    ruled: bool,
    unit: Open<'a>,
    done: FetchStats,
}

enum Open<'a> {
    None,
    Traces(Box<LiveCursor<'a>>),
    Block(Box<<BlockSource as Source>::Cursor<'a>>),
}

impl ShareCursor<'_> {
    /// Takes the next unit; false when there is none.
    fn take(&mut self) -> Result<bool, FetchError> {
        self.done = self.stats();
        self.unit = Open::None;
        match &mut self.left {
            Some(0) => return Ok(false),
            Some(left) => *left -= 1,
            None => {}
        }
        if !std::mem::replace(&mut self.ruled, true) {
            self.fetch.rule_out(self.scan);
        }
        let unit = self.fetch.units.lock().next(self.fetch.floor.load(Ordering::Relaxed));
        self.unit = match unit {
            None => return Ok(false),
            Some(Unit::Block(part)) => {
                self.left = self.left.map(|_last| 0);
                match self.scan.block(part) {
                    Some(source) => Open::Block(Box::new(source.fetch(&self.spec)?)),
                    None => return Ok(false),
                }
            }
            Some(Unit::Traces(places)) => {
                let traces = self.scan.traces(&self.fetch, &places);
                Open::Traces(Box::new(LiveCursor::of_measured(traces, &self.fetch.plan, &self.spec, BATCH_SPANS)))
            }
        };
        Ok(true)
    }
}

impl Cursor for ShareCursor<'_> {
    fn next(&mut self) -> Result<Option<SpanBatch>, FetchError> {
        loop {
            if self.scan.has_ended() {
                return Ok(None);
            }
            let floor = self.fetch.floor.load(Ordering::Relaxed);
            let batch = match &mut self.unit {
                Open::None => None,
                Open::Traces(cursor) => {
                    cursor.ignore_before(floor);
                    cursor.next()?
                }
                Open::Block(cursor) => {
                    cursor.ignore_before(floor);
                    cursor.next()?
                }
            };
            if batch.is_some() {
                return Ok(batch);
            }
            if !self.take()? {
                return Ok(None);
            }
        }
    }

    fn load(&mut self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded, FetchError> {
        match &mut self.unit {
            Open::None => Ok(Loaded::default()),
            Open::Traces(cursor) => cursor.load(traces, spans, spec),
            Open::Block(cursor) => cursor.load(traces, spans, spec),
        }
    }

    fn ignore_before(&mut self, start_ns: u64) {
        self.fetch.floor.fetch_max(start_ns, Ordering::Relaxed);
    }

    fn stats(&self) -> FetchStats {
        let own = match &self.unit {
            Open::None => FetchStats::default(),
            Open::Traces(cursor) => cursor.stats(),
            Open::Block(cursor) => cursor.stats(),
        };
        FetchStats {
            bytes: self.done.bytes + own.bytes,
            traces: self.done.traces + own.traces,
            spans: self.done.spans + own.spans,
        }
    }
}

#[cfg(test)]
mod tests;

//! A search of one block, in two passes, by as many workers as there are.
//!
//! ```text
//! look: the newest rows of the newest row groups ─▶ enough? ─yes──────────────────────▶ finish: what is shown, of the newest alone
//!                                                     └─no─▶ work: row group by row group, several workers ─▶┘
//! ```
//! The first pass knows of a trace its place and when it starts, and reads what the query computes with. Everything else is
//! loaded once it is certain which traces are shown: no column is read for a trace that a newer one replaces.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Status;
use vivace_protocol::vivace::{Profile, SearchBatch, SearchJob};
use vivace_traceql::{Cursor, Draft, Evaluator, FetchError, FetchSpec, FetchStats, Merger, SearchError, SearchPlan};

use super::newest::Newest;
use super::{Found, Share, found_of_parts, search_error, search_plan, size, window};
use crate::read::{BlockCursor, Left, newest_start};
use crate::{OpenBlock, TraceRow, profile};

/// Rows that are looked at first. Looking at fewer would cost as many pages.
const LOOK_ROWS: usize = 256;
/// Row groups that are opened for the first look, which one worker does alone.
const LOOK_GROUPS: usize = 2;

/// See the module. A trace is in one row, so nothing that is found in one row group belongs to a trace of another, and what
/// starts before the oldest of enough traces is not looked at: the answer does not depend on who was faster.
pub struct BlockSearch {
    block: Arc<OpenBlock>,
    share: Share,
    /// Rows of traces that are searched with other blocks.
    apart: Arc<[TraceRow]>,
    plan: SearchPlan,
    spec: FetchSpec,
    limit: usize,
    spans_per_set: usize,
    /// Since when notes are taken, if they are.
    notes: Option<Instant>,
    state: Mutex<State>,
}

struct State {
    newest: Newest,
    /// Row groups that something of use may be in, those with the newest traces first.
    waiting: VecDeque<Turn>,
    /// Row groups that there is nothing more to look at in.
    done: BTreeMap<usize, Left>,
    stats: FetchStats,
    profile: Profile,
}

enum Turn {
    /// Nobody has opened it; its newest trace starts at the first.
    Fresh(u64, usize),
    Begun(Left),
}

/// What reading has taken.
#[derive(Default)]
struct Took {
    read: Duration,
    load: Duration,
}

impl BlockSearch {
    /// Takes the first look: at the newest traces of the share, in the order of row groups that the statistics suggest.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when the query is none or is not defined for the data, UNAVAILABLE when the block cannot be read,
    /// OUT_OF_RANGE when what is found takes more memory than the job allows.
    pub fn begin(block: &Arc<OpenBlock>, share: &Share, job: &SearchJob) -> Result<Self, Status> {
        let notes = job.explain.then(Instant::now);
        let plan = search_plan(job)?;
        let spec = FetchSpec { newest_first: true, ..plan.spec(window(job.start_unix_nano, job.end_unix_nano)) };
        let limit = size(job.limit);
        let state = State {
            newest: Newest::new(limit, share.budget()),
            waiting: VecDeque::new(),
            done: BTreeMap::new(),
            stats: FetchStats::default(),
            profile: Profile::default(),
        };
        let search = Self {
            block: Arc::clone(block),
            share: share.clone(),
            apart: share.rows_apart(block)?,
            plan,
            spec,
            limit,
            spans_per_set: size(job.spans_per_span_set),
            notes,
            state: Mutex::new(state),
        };
        search.look().map_err(search_error)?;
        Ok(search)
    }

    /// How many row groups are left to look at; workers beyond that find nothing to do.
    #[must_use]
    pub fn left(&self) -> usize {
        let mut state = self.state.lock();
        let waiting = std::mem::take(&mut state.waiting);
        for turn in waiting {
            self.put(turn, &mut state);
        }
        state.waiting.len()
    }

    /// Looks at row groups until none is left. Others may do the same at once.
    ///
    /// # Errors
    /// As [`Self::begin`]; the search is of no further use then.
    pub fn work(&self) -> Result<(), Status> {
        let worked = self.work_on();
        if worked.is_err() {
            self.state.lock().waiting.clear();
        }
        worked.map_err(search_error)
    }

    /// Loads what is shown of the newest traces. To be called when all work is done.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn finish(&self) -> Result<SearchBatch, Status> {
        let merger = self.second_pass().map_err(search_error)?;
        let mut state = self.state.lock();
        let batch = found_of_parts(vec![Found { merger, stats: state.stats }]);
        let profile = self.notes.map(|began| {
            let profile = std::mem::take(&mut state.profile);
            profile::completed(profile, &self.block, began.elapsed())
        });
        Ok(SearchBatch { profile, ..batch })
    }

    fn look(&self) -> Result<(), SearchError> {
        if self.plan.is_empty() || self.limit == 0 || self.share.is_ended() {
            return Ok(());
        }
        let groups = self.share.groups_of(&self.block);
        let newest = groups.map(|number| Ok((newest_start(&self.block, number)?, number)));
        let mut order = newest.collect::<Result<Vec<_>, FetchError>>()?;
        order.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let (mut cursor, mut took) = (self.cursor(), Took::default());
        let (mut opened, mut starts, mut fresh) = (Vec::new(), Vec::new(), VecDeque::new());
        for (newest, number) in order {
            let enough = nth_newest(&mut starts, self.first_rows(&opened)).is_some_and(|nth| nth > newest);
            if enough || opened.len() == LOOK_GROUPS || newest < self.share.floor() {
                fresh.push_back(Turn::Fresh(newest, number));
                continue;
            }
            let left = took.reading(|| cursor.open(number))?;
            starts.extend(left.iter().flat_map(Left::starts));
            opened.push(left);
        }
        let from = nth_newest(&mut starts, self.first_rows(&opened)).unwrap_or(0);
        let mut evaluator = self.plan.evaluator();
        for mut left in opened.into_iter().flatten() {
            let aside = left.only_from(from);
            if let Some(mut left) = self.look_at(left, &mut cursor, &mut evaluator, &mut took)? {
                left.put_back(aside);
                self.put(Turn::Begun(left), &mut self.state.lock());
            }
        }
        let mut state = self.state.lock();
        for turn in fresh {
            self.put(turn, &mut state);
        }
        self.note(&cursor, &took, &mut state);
        Ok(())
    }

    /// How many rows the first look takes: no more than are shown, where nearly each of them will be.
    fn first_rows(&self, opened: &[Option<Left>]) -> usize {
        let narrowed = opened.iter().flatten().all(Left::is_narrowed);
        if narrowed { self.limit.clamp(1, LOOK_ROWS) } else { LOOK_ROWS }
    }

    fn work_on(&self) -> Result<(), SearchError> {
        if self.left() == 0 {
            return Ok(());
        }
        let (mut cursor, mut took, mut evaluator) = (self.cursor(), Took::default(), self.plan.evaluator());
        while let Some(turn) = self.claim() {
            let left = match turn {
                Turn::Begun(left) => Some(left),
                Turn::Fresh(_, number) => took.reading(|| cursor.open(number))?,
            };
            let Some(left) = left else { continue };
            if let Some(left) = self.look_at(left, &mut cursor, &mut evaluator, &mut took)? {
                self.end(left, &mut self.state.lock());
            }
        }
        self.note(&cursor, &took, &mut self.state.lock());
        Ok(())
    }

    /// The next row group, if it is still of use.
    fn claim(&self) -> Option<Turn> {
        if self.share.is_ended() || self.left() == 0 {
            return None;
        }
        self.state.lock().waiting.pop_front()
    }

    /// Puts a row group at the end of those that wait, if it is of use.
    fn put(&self, turn: Turn, state: &mut State) {
        let floor = self.share.floor();
        match turn {
            Turn::Fresh(newest, _) if newest < floor => state.profile.row_groups_by_time += 1,
            Turn::Fresh(..) => state.waiting.push_back(turn),
            Turn::Begun(mut left) => {
                if left.is_of_use(floor) {
                    state.waiting.push_back(Turn::Begun(left));
                } else {
                    self.end(left, state);
                }
            }
        }
    }

    fn end(&self, mut left: Left, state: &mut State) {
        left.slim(state.newest.has_of(left.number()));
        state.done.insert(left.number(), left);
    }

    /// First pass over the rows of a row group that nobody has looked at.
    fn look_at<'a>(
        &'a self,
        left: Left,
        cursor: &mut BlockCursor<'a>,
        evaluator: &mut Evaluator<'a>,
        took: &mut Took,
    ) -> Result<Option<Left>, SearchError> {
        let group = left.number();
        cursor.take_up(left)?;
        while !self.share.is_ended() {
            cursor.ignore_before(self.share.floor());
            let Some(batch) = took.reading(|| cursor.next())? else { break };
            let survivors = evaluator.evaluate(&batch)?;
            if survivors.is_empty() {
                continue;
            }
            let (rows, starts) = took.reading(|| cursor.latest())?;
            let mut state = self.state.lock();
            for survivor in survivors {
                let trace = size(survivor.trace);
                let Some((row, start)) = rows.get(trace).zip(starts.get(trace)) else { continue };
                if state.newest.takes(*start, (group, *row)) {
                    let draft = self.plan.draft(&batch, &survivor, self.spans_per_set);
                    state.newest.add(*start, (group, *row), draft);
                }
            }
            state.newest.check()?;
            if let Some(floor) = state.newest.floor() {
                self.share.raise_floor(floor);
            }
        }
        Ok(cursor.leave()?)
    }

    fn second_pass(&self) -> Result<Merger, SearchError> {
        let (newest, done) = {
            let mut state = self.state.lock();
            let none = Newest::new(0, self.share.budget());
            let waiting = std::mem::take(&mut state.waiting);
            for turn in waiting {
                // Nobody looks at it any more: the search was ended.
                if let Turn::Begun(left) = turn {
                    self.end(left, &mut state);
                }
            }
            (std::mem::replace(&mut state.newest, none), std::mem::take(&mut state.done))
        };
        let mut merger = Merger::new(self.limit, true).within(self.share.budget());
        if done.is_empty() {
            return Ok(merger);
        }
        let mut found = newest.into_groups();
        let (mut cursor, mut took) = (self.cursor(), Took::default());
        for (number, left) in done {
            cursor.take_up(left)?;
            if let Some(traces) = found.remove(&number) {
                let (rows, drafts): (Vec<u32>, Vec<Draft>) = traces.into_iter().unzip();
                let spans = Draft::spans(&drafts);
                let loaded = took.loading(|| cursor.load_rows(&rows, &spans, self.plan.output()))?;
                for hit in self.plan.show(drafts, &spans, &loaded) {
                    merger.add(hit);
                }
                merger.check()?;
            }
            cursor.close();
        }
        self.note(&cursor, &took, &mut self.state.lock());
        Ok(merger)
    }

    fn cursor(&self) -> BlockCursor<'_> {
        BlockCursor::of_turns(&self.block, self.spec.clone()).passing_over(&self.apart)
    }

    /// Adds what a cursor has cost.
    fn note(&self, cursor: &BlockCursor<'_>, took: &Took, state: &mut State) {
        let stats = cursor.stats();
        state.stats.bytes += stats.bytes;
        state.stats.traces += stats.traces;
        state.stats.spans += stats.spans;
        if self.notes.is_some() {
            profile::add(&mut state.profile, profile::of_cursor(&self.block, cursor, took.read, took.load));
        }
    }
}

impl Took {
    fn reading<T>(&mut self, read: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = read();
        self.read += began.elapsed();
        done
    }

    fn loading<T>(&mut self, load: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = load();
        self.load += began.elapsed();
        done
    }
}

/// The start of the trace that ends the first look at so many, if there are so many.
fn nth_newest(starts: &mut [u64], rows: usize) -> Option<u64> {
    let nth = starts.len().checked_sub(rows)?;
    Some(*starts.select_nth_unstable(nth).1)
}

#[cfg(test)]
mod tests;

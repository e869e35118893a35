//! Row groups one at a time, as who searches for the newest traces of a block takes them: opened, looked at in part, left, and
//! taken up again, also by another thread.

use vivace_traceql::{FetchError, FetchSpec, LoadSpec, Loaded, Predicate, SpanHandle};

use super::{
    BlockCursor,
    columns::row_ints,
    fetch_error,
    group::{Group, Parked},
    load_from,
    queue::{Pool, Queue},
};
use crate::read::{block::OpenBlock, error::Result, rows::RowSet};

/// When the newest trace of a row group starts, or may start.
pub(super) fn newest_in(group: &Group<'_>) -> Result<u64> {
    let bounds = group.int_bounds(group.columns.trace.start)?;
    Ok(bounds.map_or(u64::MAX, |(_, last)| last.cast_unsigned()))
}

/// As the statistics of the file say it.
pub(crate) fn newest_start(block: &OpenBlock, number: usize) -> std::result::Result<u64, FetchError> {
    Group::open(block, number).and_then(|group| newest_in(&group)).map_err(fetch_error)
}

/// A row group that was left, with the rows that nobody has looked at yet.
pub(crate) struct Left {
    parked: Parked,
    pool: Pool,
    delivered: bool,
}

/// Rows that were put aside.
pub(crate) struct Rest(Pool);

impl Left {
    /// Number of the row group.
    pub(crate) fn number(&self) -> usize {
        self.parked.number()
    }

    /// Whether the rows were narrowed down to those that can hold what is asked for.
    pub(crate) fn is_narrowed(&self) -> bool {
        self.pool.narrowed
    }

    /// When the traces start that nobody has looked at yet.
    pub(crate) fn starts(&self) -> impl Iterator<Item = u64> + '_ {
        self.pool.rows().iter().map(|(start, _)| *start)
    }

    /// Whether something in it that nobody has looked at starts at `floor` or later.
    pub(crate) fn is_of_use(&mut self, floor: u64) -> bool {
        !self.pool.ends_at(floor)
    }

    /// Leaves for the next look only what starts at `from` or later; the rest is to be put back after it.
    pub(crate) fn only_from(&mut self, from: u64) -> Rest {
        Rest(self.pool.split(from))
    }

    /// Puts back what was put aside.
    pub(crate) fn put_back(&mut self, Rest(mut rest): Rest) {
        rest.dropped |= self.pool.dropped;
        self.pool = rest;
    }

    /// Lets go of what is of no use once all of it was looked at; of what only a second pass needs, if there will be none.
    pub(crate) fn slim(&mut self, second_pass: bool) {
        self.parked.slim(second_pass);
    }
}

impl<'a> BlockCursor<'a> {
    /// A cursor that delivers nothing but of row groups that it is given, the newest traces first, without their ids.
    pub(crate) fn of_turns(block: &'a OpenBlock, spec: FetchSpec) -> Self {
        Self { stays: true, ..Self::new(block, 0..0, &[], spec) }
    }

    /// Opens a row group; none when nothing in it can be of use.
    pub(crate) fn open(&mut self, number: usize) -> std::result::Result<Option<Left>, FetchError> {
        self.opened(number).map_err(fetch_error)
    }

    fn opened(&mut self, number: usize) -> Result<Option<Left>> {
        let mut group = Group::open(self.block, number)?;
        group.announce_dictionaries(std::iter::once(&self.spec.spans).chain(&self.spec.traces))?;
        let mut counts = self.counts;
        let admitted = self.admit(&mut group, &mut counts)?;
        self.counts = counts;
        let Some((rows, narrowed)) = admitted else {
            super::add_costs(&mut self.costs, &group);
            return Ok(None);
        };
        let first = [group.columns.trace.start, group.nesting_leaf()];
        group.announce(&first, &RowSet::all(group.rows))?;
        let all = self.spec.spans == Predicate::Always && self.spec.traces.is_empty();
        let pool = Pool::new(&mut group, &rows, all, narrowed)?;
        Ok(Some(Left { parked: group.park()?, pool, delivered: false }))
    }

    /// Goes on with a row group.
    pub(crate) fn take_up(&mut self, left: Left) -> std::result::Result<(), FetchError> {
        let Left { parked, pool, delivered } = left;
        self.group = Some(Group::resume(self.block, parked).map_err(fetch_error)?);
        (self.pool, self.queue, self.delivered) = (pool, Queue::empty(), delivered);
        Ok(())
    }

    /// Leaves the row group; rows that are selected and not delivered are too old by now.
    pub(crate) fn leave(&mut self) -> std::result::Result<Option<Left>, FetchError> {
        let Some(group) = self.group.take() else { return Ok(None) };
        let pool = std::mem::replace(&mut self.pool, Pool::empty());
        let delivered = std::mem::take(&mut self.delivered);
        let parked = group.park().map_err(fetch_error)?;
        Ok(Some(Left { parked, pool, delivered }))
    }

    /// Counts what became of the row group and what it has cost, for good.
    pub(crate) fn close(&mut self) {
        self.close_group();
    }

    /// The rows of the traces of the latest batch, and when these start.
    pub(crate) fn latest(&mut self) -> std::result::Result<(Vec<u32>, Vec<u64>), FetchError> {
        let Some(group) = &mut self.group else { return Ok(Default::default()) };
        let mut rows = RowSet::default();
        self.latest_rows.iter().for_each(|row| rows.push(*row));
        let starts = row_ints(group, group.columns.trace.start, &rows).map_err(fetch_error)?;
        Ok((self.latest_rows.clone(), starts.into_iter().map(i64::cast_unsigned).collect()))
    }

    /// Second pass over rows and spans of the row group, both ascending, whatever batch they were in.
    pub(crate) fn load_rows(
        &mut self,
        rows: &[u32],
        spans: &[SpanHandle],
        spec: &LoadSpec,
    ) -> std::result::Result<Loaded, FetchError> {
        let Some(group) = &mut self.group else { return Ok(Loaded::default()) };
        let mut set = RowSet::default();
        rows.iter().for_each(|row| set.push(*row));
        load_from(group, &set, spans, spec).map_err(fetch_error)
    }
}

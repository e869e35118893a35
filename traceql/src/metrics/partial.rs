//! First-stage series of any part of the spans: what crosses processes and is added up.
//!
//! A part holds [`Group`]s of spans, each with runs of [`Cells`], one cell for an interval. Adding is commutative and
//! associative (floating-point sums up to rounding, which is compensated), so it does not matter how the spans were divided.

use std::collections::HashMap;

use super::{exemplar::Exemplar, measure::Measure};
use crate::value::Value;

/// Cells that one query may hold, and values that its series may have: a few hundred MiB.
const MOST_CELLS: usize = 8 << 20;

/// How much a leaf may hold. What is a single cell in a part is as many values as there are intervals in the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) groups: usize,
    pub(crate) runs: usize,
}

impl Room {
    /// For `series` series of each group in the end; `None`: only some of the groups become series.
    pub(crate) fn of(intervals: usize, series: Option<usize>) -> Self {
        match series {
            Some(series) => Self {
                groups: MOST_CELLS / intervals.saturating_mul(series.max(1)).max(1),
                runs: MOST_CELLS / intervals.max(1),
            },
            None => Self { groups: MOST_CELLS, runs: MOST_CELLS },
        }
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::of(1, None)
    }
}

/// Why a metrics query failed.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Data could not be read.
    #[error("read spans")]
    Fetch(#[from] crate::fetch::FetchError),
    /// The query is not defined for the data.
    #[error(transparent)]
    Eval(#[from] crate::plan::EvalError),
    /// The series would need too much memory. Other bounds would help, a second attempt would not.
    #[error(
        "the series of the query have more than {limit} values: group by less, use a larger step or a shorter range"
    )]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// Whoever asked has gone.
    #[error("the query was cancelled")]
    Cancelled,
    /// A part does not belong to the query.
    #[error("partial result: {0}")]
    Foreign(&'static str),
}

/// A run of intervals. The lists that a function does not need are empty, the others have one entry for each interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cells {
    /// Histograms: values up to `2^exponent` and above half of that. 0 otherwise.
    pub exponent: u32,
    /// The interval of the first entry.
    pub first: u32,
    /// Spans.
    pub counts: Vec<u64>,
    /// Extremes (NaN: no value yet) or sums.
    pub values: Vec<f64>,
    /// What the sums have lost to rounding.
    pub errors: Vec<f64>,
}

impl Cells {
    /// Number of intervals.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len().max(self.values.len())
    }

    /// True without intervals.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the entry of `interval` is; makes room for it.
    #[inline]
    pub(crate) fn slot(&mut self, interval: u32, measure: Measure, used: &mut usize) -> usize {
        let len = self.len();
        if interval >= self.first && ((interval - self.first) as usize) < len {
            return (interval - self.first) as usize;
        }
        self.grow(interval, len, measure, used)
    }

    fn grow(&mut self, interval: u32, len: usize, measure: Measure, used: &mut usize) -> usize {
        if len == 0 {
            self.first = interval;
        }
        // Towards the past more than is needed, so that spans in falling order do not move everything each time.
        let before = if interval < self.first {
            let wanted = self.first - interval;
            wanted.max(u32::try_from(len).unwrap_or(u32::MAX).min(self.first)) as usize
        } else {
            0
        };
        let first = self.first as usize - before;
        let total = (len + before).max(interval as usize - first + 1);
        if measure.counts() {
            widen(&mut self.counts, before, total, 0);
        }
        if let Some(empty) = measure.empty() {
            widen(&mut self.values, before, total, empty);
        }
        if measure.sums() {
            widen(&mut self.errors, before, total, 0.0);
        }
        self.first -= u32::try_from(before).unwrap_or(0);
        *used += total - len;
        interval as usize - first
    }

    /// Adds another run of the same series.
    fn add(&mut self, other: &Self, measure: Measure, used: &mut usize) {
        for (offset, interval) in (0..other.len()).zip(other.first..) {
            let at = self.slot(interval, measure, used);
            if let (Some(own), Some(count)) = (self.counts.get_mut(at), other.counts.get(offset)) {
                *own = own.saturating_add(*count);
            }
            let (Some(own), Some(value)) = (self.values.get_mut(at), other.values.get(offset)) else { continue };
            if let (Some(error), Some(lost)) = (self.errors.get_mut(at), other.errors.get(offset)) {
                add_exactly(own, error, *value);
                *error += lost;
            } else {
                measure.extreme(own, *value);
            }
        }
    }

    fn fits(&self, measure: Measure, intervals: usize) -> bool {
        let len = self.len();
        let one_of = |len_of: usize, wanted: bool| len_of == if wanted { len } else { 0 };
        one_of(self.counts.len(), measure.counts())
            && one_of(self.values.len(), measure.empty().is_some())
            && one_of(self.errors.len(), measure.sums())
            && (self.first as usize).saturating_add(len) <= intervals
            && self.exponent < 64
            && (measure == Measure::Histogram || self.exponent == 0)
    }
}

/// `before` entries in front, then as many behind as make `total`.
fn widen<T: Clone>(list: &mut Vec<T>, before: usize, total: usize, empty: T) {
    if before > 0 {
        list.splice(0..0, std::iter::repeat_n(empty.clone(), before));
    }
    list.resize(total, empty);
}

/// Adds with the error of the addition kept apart (Neumaier), so that the order of the values hardly matters.
#[inline]
pub(crate) fn add_exactly(sum: &mut f64, error: &mut f64, value: f64) {
    let total = *sum + value;
    if total.is_finite() {
        *error += if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
    }
    *sum = total;
}

/// Spans with the same values of the grouping fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// One value for each grouping field. Of `compare`: whether it is the selection, the field's text, and its value,
    /// nil for the total.
    pub key: Box<[Value]>,
    /// One run; for histograms one for each power of two that occurred, in any order.
    pub cells: Vec<Cells>,
}

/// The part of one sub-query.
#[derive(Clone, Debug, Default)]
pub struct PartialLeaf {
    pub(crate) groups: Vec<Group>,
    pub(crate) exemplars: Vec<Exemplar>,
    index: HashMap<Box<[Value]>, u32>,
    /// Cells held.
    pub(crate) used: usize,
    /// Runs of cells held.
    pub(crate) runs: usize,
    pub(crate) room: Room,
}

impl PartialLeaf {
    /// The groups, in any order, each key once.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The exemplars kept.
    #[must_use]
    pub fn exemplars(&self) -> &[Exemplar] {
        &self.exemplars
    }

    /// The group with `key`, made if there is none and there is room for one.
    pub(crate) fn group(&mut self, key: Box<[Value]>, room: bool) -> Option<u32> {
        if let Some(found) = self.index.get(&key) {
            return Some(*found);
        }
        if !room {
            return None;
        }
        let number = u32::try_from(self.groups.len()).ok()?;
        self.index.insert(key.clone(), number);
        self.groups.push(Group { key, cells: Vec::new() });
        Some(number)
    }

    /// Keeps only the groups that `keep` accepts.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Group) -> bool) {
        self.groups.retain(keep);
        self.index = (0..).zip(&self.groups).map(|(number, group)| (group.key.clone(), number)).collect();
        self.used = self.groups.iter().flat_map(|group| &group.cells).map(Cells::len).sum();
        self.runs = self.groups.iter().map(|group| group.cells.len()).sum();
    }

    #[inline]
    pub(crate) fn check_size(&self) -> Result<(), MetricsError> {
        if self.used > MOST_CELLS || self.groups.len() > self.room.groups || self.runs > self.room.runs {
            return Err(MetricsError::TooLarge { limit: MOST_CELLS });
        }
        Ok(())
    }

    pub(crate) fn add(
        &mut self,
        other: Self,
        measure: Measure,
        max_groups: usize,
        truncated: &mut bool,
    ) -> Result<(), MetricsError> {
        for group in other.groups {
            let room = max_groups == 0 || self.groups.len() < max_groups;
            let Some(number) = self.group(group.key, room) else {
                *truncated = true;
                continue;
            };
            for cells in group.cells {
                let own = run(&mut self.groups[number as usize].cells, cells.exponent, &mut self.runs);
                if own.is_empty() {
                    self.used += cells.len();
                    *own = cells;
                } else {
                    own.add(&cells, measure, &mut self.used);
                }
            }
            self.check_size()?;
        }
        Ok(())
    }
}

/// The run of an exponent, made (and counted) if there is none.
#[inline]
pub(crate) fn run<'c>(cells: &'c mut Vec<Cells>, exponent: u32, runs: &mut usize) -> &'c mut Cells {
    let at = cells.iter().position(|cells| cells.exponent == exponent).unwrap_or_else(|| {
        *runs += 1;
        cells.push(Cells { exponent, ..Cells::default() });
        cells.len() - 1
    });
    &mut cells[at]
}

/// What a part of the spans contributes to a metrics query; belongs to the plan that made it.
#[derive(Clone, Debug, Default)]
pub struct MetricsPartial {
    pub(crate) leaves: Vec<PartialLeaf>,
    /// Series were left out because of the request's `max_series`.
    pub truncated: bool,
}

impl MetricsPartial {
    /// One for each distinct sub-query.
    #[must_use]
    pub fn leaves(&self) -> &[PartialLeaf] {
        &self.leaves
    }

    /// Groups and exemplars of each leaf, to be carried elsewhere.
    #[must_use]
    pub fn into_parts(self) -> Vec<(Vec<Group>, Vec<Exemplar>)> {
        self.leaves.into_iter().map(|leaf| (leaf.groups, leaf.exemplars)).collect()
    }

    /// Puts a part together from what [`into_parts`](Self::into_parts) gave in another process. It is checked when it
    /// is [merged](super::MetricsPlan::merge).
    #[must_use]
    pub fn from_parts(leaves: Vec<(Vec<Group>, Vec<Exemplar>)>, truncated: bool) -> Self {
        let leaves = leaves
            .into_iter()
            .map(|(groups, exemplars)| {
                let mut leaf = PartialLeaf { exemplars, ..PartialLeaf::default() };
                leaf.groups = groups;
                leaf.retain(|_| true);
                leaf
            })
            .collect();
        Self { leaves, truncated }
    }
}

/// Whether a leaf that came from outside can be added up.
pub(crate) fn check(leaf: &PartialLeaf, measure: Measure, keys: usize, intervals: usize) -> Result<(), MetricsError> {
    if leaf.index.len() != leaf.groups.len() {
        return Err(MetricsError::Foreign("a group occurs twice"));
    }
    for group in &leaf.groups {
        if group.key.len() != keys {
            return Err(MetricsError::Foreign("a group has another number of values than the query has fields"));
        }
        if !group.cells.iter().all(|cells| cells.fits(measure, intervals)) {
            return Err(MetricsError::Foreign("cells do not fit the query's function or range"));
        }
    }
    Ok(())
}

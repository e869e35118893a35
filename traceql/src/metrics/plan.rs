//! From a metrics query to what is fetched, counted and put together.

use std::sync::Arc;

use super::{
    exemplar::Slots,
    finish,
    measure::Measure,
    observe::Observer,
    partial::{MetricsError, MetricsPartial, PartialLeaf, Room, check},
    request::{MetricsRequest, Window},
    series::{MetricsResult, Series},
};
use crate::{
    ast::{ArithmeticOp, Body, Expr, MetricExpr, MetricFunction, MetricLeaf, SecondStage},
    fetch::{FetchSpec, FetchStats, Source},
    field::{Field, Intrinsic},
    plan::{PlanError, SearchPlan},
    program::Slot,
    query::Query,
};

/// A metrics query ready to run on any parts of the spans, in any processes.
///
/// ```
/// use vivace_traceql::{MemorySource, MetricsPlan, MetricsRequest, Query, Window};
/// use vivace_traceql::memory::{MemorySpan, MemoryTrace};
///
/// let span = MemorySpan { start_ns: 15, ..MemorySpan::default() };
/// let source = MemorySource::new(vec![MemoryTrace { id: [7; 16], spans: vec![span] }], 100);
///
/// let query = Query::parse("{ } | count_over_time()")?;
/// let request =
///     MetricsRequest { start_ns: 0, end_ns: 30, step_ns: 10, instant: false, exemplars: 0, max_series: 0 };
/// let plan = MetricsPlan::new(&query, &request)?;
/// let mut sum = plan.partial();
/// plan.observe(&source, Window::ALL, &mut sum, &|| false)?;
/// let result = plan.finish(sum);
/// let values: Vec<f64> = result.series[0].samples.iter().map(|(_, value)| *value).collect();
/// assert_eq!(values, [0.0, 1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MetricsPlan {
    pub(crate) request: MetricsRequest,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) tree: Tree,
    pub(crate) second: Vec<SecondStage>,
}

/// A sub-query: one pipeline, one function.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) search: SearchPlan,
    pub(crate) function: MetricFunction,
    pub(crate) measure: Measure,
    /// Index of the column of start times.
    pub(crate) start: usize,
    pub(crate) argument: Option<Slot>,
    pub(crate) by: Vec<Slot>,
    /// Names of the labels of the grouping fields.
    pub(crate) names: Vec<Arc<str>>,
    /// Names of the labels of exemplars, one for each column; none where a column is not shown.
    pub(crate) shown: Vec<Option<Arc<str>>>,
    pub(crate) slots: Slots,
}

/// How the series of the sub-queries become those of the query.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Leaf { leaf: usize, second: Vec<SecondStage> },
    Number(f64),
    Binary { op: ArithmeticOp, left: Box<Tree>, right: Box<Tree> },
}

impl MetricsPlan {
    /// Plans a query over a range.
    ///
    /// # Errors
    /// When the query computes no series or the range is none.
    pub fn new(query: &Query, request: &MetricsRequest) -> Result<Self, PlanError> {
        let Body::Metrics { expr, second } = query.body() else { return Err(PlanError::NotMetrics) };
        request.check()?;
        let mut distinct: Vec<(String, &MetricLeaf)> = Vec::new();
        let tree = tree(expr, &mut distinct);
        let budget = if request.instant { 0 } else { request.exemplars };
        let share = u32::try_from(distinct.len()).unwrap_or(u32::MAX).max(1);
        let budget = if budget == 0 { 0 } else { (budget / share).max(1) };
        let leaves: Result<Vec<Leaf>, PlanError> =
            distinct.iter().map(|(_, leaf)| Leaf::new(query, leaf, request, budget)).collect();
        Ok(Self { request: *request, leaves: leaves?, tree, second: second.clone() })
    }

    /// What was asked.
    #[must_use]
    pub fn request(&self) -> &MetricsRequest {
        &self.request
    }

    /// What is fetched for each sub-query.
    #[must_use]
    pub fn fetches(&self) -> Vec<FetchSpec> {
        self.leaves.iter().map(|leaf| leaf.search.spec(None)).collect()
    }

    /// Whether it matters that spans of one trace are seen together. `compare`, which shows all that spans have, does without.
    #[must_use]
    pub fn asks_for_traces(&self) -> bool {
        let compares = self.leaves.iter().any(Leaf::is_compare);
        !compares && self.leaves.iter().any(|leaf| !leaf.search.is_local())
    }

    /// True when no span can match any sub-query: the result is known to have no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.iter().all(|leaf| leaf.search.is_empty())
    }

    /// The contribution of no spans.
    #[must_use]
    pub fn partial(&self) -> MetricsPartial {
        MetricsPartial { leaves: vec![PartialLeaf::default(); self.leaves.len()], truncated: false }
    }

    /// Adds the spans of a source that start within `window` to `partial`. `stop` is asked before every batch.
    ///
    /// # Errors
    /// When reading or evaluating fails, when the series get too large, or when `stop` says so; `partial` is then of no use.
    pub fn observe<S: Source>(
        &self,
        source: &S,
        window: Window,
        partial: &mut MetricsPartial,
        stop: &dyn Fn() -> bool,
    ) -> Result<FetchStats, MetricsError> {
        let mut stats = FetchStats::default();
        let Some(window) = self.request.narrowed(window) else { return Ok(stats) };
        if partial.leaves.len() != self.leaves.len() {
            return Err(MetricsError::Foreign("it has another number of sub-queries than the query"));
        }
        for (leaf, own) in self.leaves.iter().zip(&mut partial.leaves) {
            if leaf.search.is_empty() {
                continue;
            }
            let mut observer =
                Observer { leaf, request: &self.request, window, own, truncated: &mut partial.truncated };
            let read = observer.run(source, stop)?;
            stats.bytes += read.bytes;
            stats.traces += read.traces;
            stats.spans += read.spans;
        }
        Ok(stats)
    }

    /// Adds a part to another. The order of parts does not matter.
    ///
    /// # Errors
    /// When the part does not belong to this plan or the series get too large.
    pub fn merge(&self, into: &mut MetricsPartial, part: MetricsPartial) -> Result<(), MetricsError> {
        if into.leaves.len() != self.leaves.len() || part.leaves.len() != self.leaves.len() {
            return Err(MetricsError::Foreign("it has another number of sub-queries than the query"));
        }
        into.truncated |= part.truncated;
        for ((leaf, own), other) in self.leaves.iter().zip(&mut into.leaves).zip(part.leaves) {
            check(&other, leaf.measure, leaf.keys(), self.request.intervals())?;
            let mut other = other;
            leaf.slots.add(&mut own.exemplars, std::mem::take(&mut other.exemplars));
            own.room = leaf.room(&self.request);
            own.add(other, leaf.measure, leaf.max_groups(&self.request), &mut into.truncated)?;
            leaf.prune(own);
        }
        Ok(())
    }

    /// The series of the query: histograms become quantiles, second stages and arithmetic are applied.
    #[must_use]
    pub fn finish(&self, partial: MetricsPartial) -> MetricsResult {
        let truncated = partial.truncated;
        let firsts: Vec<Vec<Series>> = self
            .leaves
            .iter()
            .zip(partial.leaves)
            .map(|(leaf, part)| finish::first_stage(leaf, &self.request, part))
            .collect();
        finish::result(self, firsts, truncated)
    }
}

fn tree<'q>(expr: &'q MetricExpr, distinct: &mut Vec<(String, &'q MetricLeaf)>) -> Tree {
    match expr {
        MetricExpr::Literal(value) => Tree::Number(value.as_f64().unwrap_or(f64::NAN)),
        MetricExpr::Binary { op, left, right } => {
            Tree::Binary { op: *op, left: Box::new(tree(left, distinct)), right: Box::new(tree(right, distinct)) }
        }
        MetricExpr::Leaf(leaf) => {
            let text = format!("{} | {}", leaf.pipeline, leaf.function);
            let at = distinct.iter().position(|(known, _)| *known == text).unwrap_or_else(|| {
                distinct.push((text, leaf));
                distinct.len() - 1
            });
            Tree::Leaf { leaf: at, second: leaf.second.clone() }
        }
    }
}

impl Leaf {
    fn new(query: &Query, leaf: &MetricLeaf, request: &MetricsRequest, budget: u32) -> Result<Self, PlanError> {
        let mut fields: Vec<Field> = vec![Intrinsic::StartTime.into()];
        let mut filters: Vec<&Expr> = Vec::new();
        let mut names = Vec::new();
        let mut has_argument = false;
        match &leaf.function {
            MetricFunction::OverTime { field, by, .. } => {
                has_argument = field.is_some();
                fields.extend(field.iter().chain(by).cloned());
                names = by.iter().map(|field| field.to_string().into()).collect();
            }
            MetricFunction::Compare { filter, .. } => {
                fields.extend([Intrinsic::RootName.into(), Intrinsic::RootServiceName.into()]);
                filters.push(filter);
            }
        }
        let (search, slots) = SearchPlan::with_fields(query, &leaf.pipeline, &fields, &filters)?;
        let mut slots = slots.into_iter();
        let start = match slots.next() {
            Some(Slot::One(index)) => index,
            _ => return Err(PlanError::NotMetrics),
        };
        let argument = if has_argument { slots.next() } else { None };
        let is_compare = matches!(leaf.function, MetricFunction::Compare { .. });
        let by = if is_compare { Vec::new() } else { slots.collect() };
        let shown = search.fields().iter().map(|field| match field {
            Field::Intrinsic(Intrinsic::StartTime | Intrinsic::TraceId) => None,
            field => Some(field.to_string().into()),
        });
        Ok(Self {
            shown: shown.collect(),
            function: leaf.function.clone(),
            measure: Measure::of(&leaf.function),
            start,
            argument,
            by,
            names,
            // The series of `compare` are counts of values: no span stands for one of them.
            slots: Slots::new(request, if is_compare { 0 } else { budget }),
            search,
        })
    }

    /// Values in the key of a group.
    pub(crate) fn keys(&self) -> usize {
        if self.is_compare() { 3 } else { self.by.len() }
    }

    pub(crate) fn is_compare(&self) -> bool {
        matches!(self.function, MetricFunction::Compare { .. })
    }

    /// `compare` chooses its series at the very end.
    pub(crate) fn max_groups(&self, request: &MetricsRequest) -> usize {
        if self.is_compare() { 0 } else { request.max_series }
    }

    /// What a part of it may hold.
    pub(crate) fn room(&self, request: &MetricsRequest) -> Room {
        let series = match &self.function {
            MetricFunction::OverTime { quantiles, .. } => Some(quantiles.len()),
            MetricFunction::Compare { .. } => None,
        };
        Room::of(request.intervals(), series)
    }

    /// The argument's field.
    pub(crate) fn field(&self) -> Option<&Field> {
        match &self.function {
            MetricFunction::OverTime { field, .. } => field.as_ref(),
            MetricFunction::Compare { .. } => None,
        }
    }
}

//! From a checked query to what has to be fetched and how spans are evaluated.

mod structural;

use std::{collections::HashMap, sync::Arc};

use crate::{
    ast::{Aggregate, Body, Expr, Form, Pipeline, ScalarExpr, SpansetExpr, SpansetOp, Stage},
    bitmap::Bitmap,
    condition::Predicate,
    eval::{Chosen, Verdicts, View},
    fetch::{FetchSpec, LoadSpec, SpanBatch, TimeRange, TraceFields},
    field::{Field, Intrinsic, Level, Scope},
    program::{Compiler, Program, Scalar, Slot},
    query::Query,
    value::{CompareOp, Value},
};

/// Why a checked query cannot run as a search.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Arithmetic between metrics has several pipelines; there is no one search behind it.
    #[error("math expressions not supported")]
    Math,
    /// Refused by the checks already; only reachable with a tree that was not checked.
    #[error("not a search query")]
    NotASearch,
    /// A query that selects spans and computes nothing of them was asked for series.
    #[error("not a metrics query")]
    NotMetrics,
    /// The time axis of a metrics query is none.
    #[error("{0}")]
    Range(&'static str),
}

/// Why evaluation of a batch stopped. The query fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A structural operator met several spansets on one side.
    #[error("structural operator {op} over several spansets is not defined, use coalesce() before it")]
    SeveralSpansets {
        /// The operator as written.
        op: &'static str,
    },
    /// The source did not deliver what the plan asked for.
    #[error("batch has {got} columns where the plan asked for {wanted}")]
    Columns {
        /// Columns in the batch.
        got: usize,
        /// Fields of the plan.
        wanted: usize,
    },
    /// Nested-set numbers were asked for and are missing.
    #[error("batch has no nested-set numbers")]
    NoStructure,
    /// A trace has spans with too many different values: each group takes memory, however few of them are shown.
    #[error("{name} makes more than {most} groups of the spans of one trace, group by what has fewer values")]
    Groups {
        /// The stage as written.
        name: Arc<str>,
        /// What it may make.
        most: usize,
    },
}

/// Groups of the spans of one trace, about 500 bytes each.
const MOST_GROUPS: usize = 1 << 18;

/// A search ready to run: which columns to fetch, which spans can matter, and the compiled stages.
///
/// ```
/// use vivace_traceql::{Query, SearchPlan};
///
/// let query = Query::parse(r#"{ resource.service.name = "shop" && duration > 1s } | select(span.sku)"#)?;
/// let plan = SearchPlan::new(&query)?;
/// let spec = plan.spec(None);
/// assert_eq!(spec.fields.len(), 2);
/// assert_eq!(spec.spans.required().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SearchPlan {
    stages: Vec<Step>,
    filters: Vec<Program>,
    /// Everything the stages compute with: fetched columns, trace and structure intrinsics.
    fields: Vec<Field>,
    /// Nested-set numbers that are shown.
    positions: Vec<Field>,
    /// Whether stages group or compute, and not only select.
    computes: bool,
    /// See [`with_none_lacking`](Self::with_none_lacking).
    none_lacks: bool,
    spec: FetchSpec,
    output: LoadSpec,
    most_recent: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Spans(Set),
    Scalar { kind: Kind, argument: Option<Scalar>, op: CompareOp, constant: Value, name: Arc<str> },
    By { scalar: Scalar, name: Arc<str> },
    Coalesce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    Min,
    Max,
    Avg,
    Sum,
}

#[derive(Clone, Debug)]
enum Set {
    /// Index into the plan's filters.
    Filter(usize),
    Binary {
        op: SpansetOp,
        left: Box<Set>,
        right: Box<Set>,
    },
    Pipeline(Vec<Step>),
}

/// Spans of one trace that survived all stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanset {
    /// Rows of the batch, ascending.
    pub rows: Vec<u32>,
    /// Group and aggregate values in pipeline order.
    pub attributes: Vec<(Arc<str>, Value)>,
}

/// A trace with at least one surviving spanset.
#[derive(Clone, Debug, PartialEq)]
pub struct Survivor {
    /// Index into the batch's traces.
    pub trace: u32,
    /// In deterministic order.
    pub sets: Vec<Spanset>,
    /// Which events and links of the batch's spans the filters held for.
    pub(crate) chosen: Arc<Chosen>,
}

/// Evaluates batches of one fetch; keeps what it has learnt about shared dictionaries.
#[derive(Debug)]
pub struct Evaluator<'p> {
    plan: &'p SearchPlan,
    verdicts: Verdicts,
}

impl SearchPlan {
    /// Plans the span selection of a query: all of a search, the pipeline of a metrics query.
    ///
    /// # Errors
    /// For arithmetic between metrics.
    pub fn new(query: &Query) -> Result<Self, PlanError> {
        let pipeline = match query.body() {
            Body::Search(pipeline) => pipeline,
            Body::Metrics { expr: crate::ast::MetricExpr::Leaf(leaf), .. } => &leaf.pipeline,
            Body::Metrics { .. } => return Err(PlanError::Math),
            Body::ScalarComparison(_) => return Err(PlanError::NotASearch),
        };
        let mut planner = Planner::new(query);
        let stages = planner.steps(pipeline)?;
        Ok(Self::assemble(planner, stages, query.hint_bool("most_recent") == Some(true)))
    }

    /// Plans a pipeline together with fields that are read of its spans, and filters that are tested beside it.
    ///
    /// # Errors
    /// For stages that the checks refuse.
    pub(crate) fn with_fields(
        query: &Query,
        pipeline: &Pipeline,
        fields: &[Field],
        filters: &[&Expr],
    ) -> Result<(Self, Vec<Slot>), PlanError> {
        let mut planner = Planner::new(query);
        let stages = planner.steps(pipeline)?;
        let slots = fields.iter().map(|field| planner.compiler.columns.slot(field)).collect();
        for filter in filters {
            let program = planner.compiler.program(filter);
            planner.filters.push(program);
        }
        Ok((Self::assemble(planner, stages, false), slots))
    }

    fn assemble(planner: Planner<'_>, stages: Vec<Step>, most_recent: bool) -> Self {
        let Planner { compiler, filters, selected } = planner;
        let fields = compiler.columns.fields;
        let is_structure = |field: &Field| matches!(field, Field::Intrinsic(name) if name.is_structure());
        let mut positions: Vec<Field> = Vec::new();
        for field in fields.iter().chain(&selected).filter(|field| is_structure(field)) {
            if !positions.contains(field) {
                positions.push(field.clone());
            }
        }
        let trace_fields = TraceFields {
            times: fields.contains(&Intrinsic::TraceDuration.into()),
            root: fields
                .iter()
                .any(|field| matches!(field, Field::Intrinsic(Intrinsic::RootName | Intrinsic::RootServiceName))),
            service_stats: false,
        };
        let spans = span_predicate(&stages, &filters);
        let mut traces = Vec::new();
        if let Some(Step::Spans(set)) = stages.first() {
            trace_demands(set, &filters, &mut traces);
        }
        traces.retain(|predicate| *predicate != Predicate::Always && *predicate != spans);
        let spec = FetchSpec {
            fields: fields
                .iter()
                .filter(|field| field.level() != Level::Trace && !is_structure(field))
                .cloned()
                .collect(),
            spans,
            traces,
            window: None,
            ids: fields.contains(&Intrinsic::TraceId.into()),
            trace_fields,
            structure: !positions.is_empty() || has_structural(&stages),
            select_all: false,
            newest_first: false,
        };
        let mut shown: Vec<Field> =
            vec![Intrinsic::SpanId.into(), Intrinsic::StartTime.into(), Intrinsic::Duration.into()];
        for field in fields.iter().chain(&selected) {
            if field.level() != Level::Trace && !is_structure(field) && !shown.contains(field) {
                shown.push(field.clone());
            }
        }
        Self {
            computes: computes(&stages),
            none_lacks: false,
            stages,
            filters,
            fields,
            positions,
            spec,
            output: LoadSpec { fields: shown, trace_fields: TraceFields::ALL },
            most_recent,
        }
    }

    /// Whether a span's fate hangs on its own values alone, so that a source may leave out spans for any reason.
    pub(crate) fn is_span_wise(&self) -> bool {
        self.stages.iter().all(|step| matches!(step, Step::Spans(Set::Filter(_)) | Step::By { .. } | Step::Coalesce))
    }

    /// Whether that is so, and its own values are all that is computed with: no facts of the trace, no place in the tree.
    pub(crate) fn is_local(&self) -> bool {
        let counts_children = self.spec.fields.contains(&Intrinsic::ChildCount.into());
        let asks_for_trace = self.spec.trace_fields != TraceFields::default() || self.spec.structure;
        self.is_span_wise() && !counts_children && !asks_for_trace
    }

    /// The same plan, for which `event.x = nil` also holds of spans without events, and `link.x = nil` of those without links: what
    /// a filter of a trace means, and a search does not. Nothing is pushed down any more.
    #[must_use]
    pub fn with_none_lacking(self) -> Self {
        let spec = FetchSpec { spans: Predicate::Always, traces: Vec::new(), ..self.spec };
        Self { none_lacks: true, spec, ..self }
    }

    /// Everything that is computed with or shown, in the order of the view's columns.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// What to fetch for traces that overlap `window` (all traces without one).
    #[must_use]
    pub fn spec(&self, window: Option<TimeRange>) -> FetchSpec {
        FetchSpec { window, ..self.spec.clone() }
    }

    /// What to load in the second pass for the spans that are shown: id, start and duration first.
    #[must_use]
    pub fn output(&self) -> &LoadSpec {
        &self.output
    }

    /// True when no span can match, so nothing need be fetched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spec.spans == Predicate::Never
    }

    /// The `most_recent=true` hint.
    #[must_use]
    pub fn most_recent(&self) -> bool {
        self.most_recent
    }

    /// An evaluator for the batches of one fetch.
    #[must_use]
    pub fn evaluator(&self) -> Evaluator<'_> {
        Evaluator { plan: self, verdicts: Verdicts::default() }
    }

    /// Nested-set numbers that the query reads or selects, by canonical name, for one row.
    pub(crate) fn structure_attributes(&self, batch: &SpanBatch, row: usize) -> Vec<(Arc<str>, Value)> {
        let Some(structure) = &batch.structure else { return Vec::new() };
        self.positions
            .iter()
            .filter_map(|field| {
                let numbers = match field {
                    Field::Intrinsic(Intrinsic::NestedSetLeft) => &structure.left,
                    Field::Intrinsic(Intrinsic::NestedSetRight) => &structure.right,
                    Field::Intrinsic(Intrinsic::NestedSetParent) => &structure.parent,
                    _ => return None,
                };
                numbers.get(row).map(|number| (field.result_key(), Value::Int(i64::from(*number))))
            })
            .collect()
    }
}

struct Planner<'q> {
    compiler: Compiler<'q>,
    filters: Vec<Program>,
    selected: Vec<Field>,
}

impl<'q> Planner<'q> {
    fn new(query: &'q Query) -> Self {
        Self {
            compiler: Compiler { query, columns: crate::program::Columns::default(), tests: 0 },
            filters: Vec::new(),
            selected: Vec::new(),
        }
    }

    fn steps(&mut self, pipeline: &Pipeline) -> Result<Vec<Step>, PlanError> {
        let mut steps = Vec::with_capacity(pipeline.stages.len());
        for stage in &pipeline.stages {
            match stage {
                Stage::Spans(expr) => {
                    let set = self.set(expr)?;
                    steps.push(Step::Spans(set));
                }
                Stage::Scalar(comparison) => {
                    let (ScalarExpr::Aggregate(aggregate), ScalarExpr::Literal(constant)) =
                        (&comparison.left, &comparison.right)
                    else {
                        return Err(PlanError::NotASearch);
                    };
                    steps.push(Step::Scalar {
                        kind: match aggregate {
                            Aggregate::Count => Kind::Count,
                            Aggregate::Min(_) => Kind::Min,
                            Aggregate::Max(_) => Kind::Max,
                            Aggregate::Avg(_) => Kind::Avg,
                            Aggregate::Sum(_) => Kind::Sum,
                        },
                        argument: aggregate.argument().map(|expr| self.compiler.scalar(expr)),
                        op: comparison.op,
                        constant: constant.clone(),
                        name: aggregate.to_string().into(),
                    });
                }
                Stage::By(expr) => {
                    steps.push(Step::By { scalar: self.compiler.scalar(expr), name: format!("by({expr})").into() })
                }
                Stage::Coalesce => steps.push(Step::Coalesce),
                Stage::Select(fields) => {
                    for field in fields {
                        match field {
                            Field::Attribute { scope: Scope::Any, name, .. } => {
                                self.selected.push(Field::attribute(Scope::Span, name));
                                self.selected.push(Field::attribute(Scope::Resource, name));
                            }
                            field => self.selected.push(field.clone()),
                        }
                    }
                }
            }
        }
        Ok(steps)
    }

    fn set(&mut self, expr: &SpansetExpr) -> Result<Set, PlanError> {
        Ok(match expr {
            SpansetExpr::Filter(filter) => {
                let program = self.compiler.program(filter);
                self.filters.push(program);
                Set::Filter(self.filters.len() - 1)
            }
            SpansetExpr::Binary { op, left, right } => {
                Set::Binary { op: *op, left: Box::new(self.set(left)?), right: Box::new(self.set(right)?) }
            }
            SpansetExpr::Pipeline(pipeline) => Set::Pipeline(self.steps(pipeline)?),
        })
    }
}

/// What a span must satisfy to take part in the result or in what decides it.
fn span_predicate(steps: &[Step], filters: &[Program]) -> Predicate {
    let mut parts = Vec::new();
    for step in steps {
        match step {
            Step::Spans(set @ Set::Filter(_)) => parts.push(set_predicate(set, filters)),
            // Operators decide by spans that a later filter may drop: nothing after them narrows the fetch.
            Step::Spans(set) => {
                parts.push(set_predicate(set, filters));
                break;
            }
            Step::Scalar { .. } => break,
            Step::By { .. } | Step::Coalesce => {}
        }
    }
    Predicate::all(parts)
}

fn set_predicate(set: &Set, filters: &[Program]) -> Predicate {
    match set {
        Set::Filter(index) => filters[*index].predicate(),
        Set::Binary { left, right, .. } => {
            Predicate::any_of([set_predicate(left, filters), set_predicate(right, filters)])
        }
        Set::Pipeline(steps) => span_predicate(steps, filters),
    }
}

/// What a trace must have a span for.
fn trace_demands(set: &Set, filters: &[Program], demands: &mut Vec<Predicate>) {
    match set {
        Set::Binary {
            op: SpansetOp::And | SpansetOp::Structural { form: Form::Plain | Form::Union, .. },
            left,
            right,
        } => {
            trace_demands(left, filters, demands);
            trace_demands(right, filters, demands);
        }
        Set::Binary { op: SpansetOp::Structural { form: Form::Negated, .. }, right, .. } => {
            trace_demands(right, filters, demands);
        }
        set => demands.push(set_predicate(set, filters)),
    }
}

fn computes(steps: &[Step]) -> bool {
    fn within(set: &Set) -> bool {
        match set {
            Set::Filter(_) => false,
            Set::Binary { left, right, .. } => within(left) || within(right),
            Set::Pipeline(steps) => computes(steps),
        }
    }
    steps.iter().any(|step| match step {
        Step::Spans(set) => within(set),
        Step::Scalar { argument, .. } => argument.is_some(),
        Step::By { .. } => true,
        Step::Coalesce => false,
    })
}

fn has_structural(steps: &[Step]) -> bool {
    fn within(set: &Set) -> bool {
        match set {
            Set::Filter(_) => false,
            Set::Binary { op: SpansetOp::Structural { .. }, .. } => true,
            Set::Binary { left, right, .. } => within(left) || within(right),
            Set::Pipeline(steps) => has_structural(steps),
        }
    }
    steps.iter().any(|step| matches!(step, Step::Spans(set) if within(set)))
}

/// What the stages of one batch look at.
struct Run<'a> {
    batch: &'a SpanBatch,
    view: &'a View<'a>,
    filters: &'a [Bitmap],
}

/// A batch with the spans that a plan selects from it.
pub(crate) struct Selection<'a> {
    /// The columns of the plan's fields; of events and links those that the filters held for, else the first with a value.
    pub(crate) view: View<'a>,
    /// The spans that pass all stages.
    pub(crate) spans: Bitmap,
    /// The verdicts of the filters, those of the stages first.
    pub(crate) filters: Vec<Bitmap>,
}

impl<'p> Evaluator<'p> {
    /// The spans that pass all stages, whatever set they end up in.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub(crate) fn select<'a>(&mut self, batch: &'a SpanBatch) -> Result<Selection<'a>, EvalError>
    where
        'p: 'a,
    {
        let (mut view, filters, chosen) = self.test(batch)?;
        view.show_values(batch, &chosen);
        let spans = if self.plan.is_span_wise() {
            let mut spans = Bitmap::ones(batch.len());
            for step in &self.plan.stages {
                if let Step::Spans(Set::Filter(index)) = step {
                    spans.and(&filters[*index]);
                }
            }
            spans
        } else {
            let mut spans = Bitmap::zeros(batch.len());
            for survivor in self.survivors(batch, &view, &filters, chosen)? {
                survivor.sets.iter().flat_map(|set| &set.rows).for_each(|row| spans.set(*row as usize, true));
            }
            spans
        };
        Ok(Selection { view, spans, filters })
    }

    fn test<'a>(&mut self, batch: &'a SpanBatch) -> Result<(View<'a>, Vec<Bitmap>, Chosen), EvalError>
    where
        'p: 'a,
    {
        let plan = self.plan;
        if batch.columns.len() != plan.spec.fields.len() {
            return Err(EvalError::Columns { got: batch.columns.len(), wanted: plan.spec.fields.len() });
        }
        if plan.spec.structure && batch.structure.is_none() {
            return Err(EvalError::NoStructure);
        }
        let view = View::spans(batch, &plan.fields).with_none_lacking(plan.none_lacks);
        let mut chosen = Chosen::default();
        let select = |program| view.select(batch, program, &mut self.verdicts, &mut chosen);
        let filters = plan.filters.iter().map(select).collect();
        Ok((view, filters, chosen))
    }

    /// Runs all stages over the traces of a batch. Survivors are in batch order.
    ///
    /// # Errors
    /// When the query meets data it is not defined for, or the batch is not what the plan asked for.
    pub fn evaluate(&mut self, batch: &SpanBatch) -> Result<Vec<Survivor>, EvalError> {
        let (mut view, filters, chosen) = self.test(batch)?;
        if self.plan.computes {
            view.show_values(batch, &chosen);
        }
        self.survivors(batch, &view, &filters, chosen)
    }

    fn survivors(
        &self,
        batch: &SpanBatch,
        view: &View<'_>,
        filters: &[Bitmap],
        chosen: Chosen,
    ) -> Result<Vec<Survivor>, EvalError> {
        let (plan, chosen) = (self.plan, Arc::new(chosen));
        let run = Run { batch, view, filters };
        let mut survivors = Vec::new();
        for (trace, info) in (0_u32..).zip(&batch.traces) {
            // The usual first stage costs only the words of its bitmap.
            let (first, rest) = match plan.stages.split_first() {
                Some((Step::Spans(Set::Filter(index)), rest)) => {
                    (rows_in(&filters[*index], info.spans.start, info.spans.end), rest)
                }
                _ => (info.spans.clone().collect(), &plan.stages[..]),
            };
            if first.is_empty() {
                continue;
            }
            let sets = run.steps(rest, vec![Spanset { rows: first, attributes: Vec::new() }])?;
            if !sets.is_empty() {
                survivors.push(Survivor { trace, sets, chosen: chosen.clone() });
            }
        }
        Ok(survivors)
    }

    /// The spans of a batch that pass a plan of a single filter, without the later stages.
    #[must_use]
    pub fn first_filter(&mut self, batch: &SpanBatch) -> Bitmap {
        let view = View::spans(batch, &self.plan.fields).with_none_lacking(self.plan.none_lacks);
        match self.plan.filters.first() {
            Some(program) => view.select(batch, program, &mut self.verdicts, &mut Chosen::default()),
            None => Bitmap::ones(batch.len()),
        }
    }
}

fn rows_in(map: &Bitmap, start: u32, end: u32) -> Vec<u32> {
    map.ones_in(start as usize, end as usize).filter_map(|row| u32::try_from(row).ok()).collect()
}

impl Run<'_> {
    fn steps(&self, steps: &[Step], mut sets: Vec<Spanset>) -> Result<Vec<Spanset>, EvalError> {
        for step in steps {
            sets = match step {
                Step::Spans(set) => {
                    let mut kept = Vec::with_capacity(sets.len());
                    for incoming in sets {
                        let rows = self.set(set, &incoming)?;
                        if !rows.is_empty() {
                            kept.push(Spanset { rows, attributes: incoming.attributes });
                        }
                    }
                    kept
                }
                Step::Scalar { kind, argument, op, constant, name } => sets
                    .into_iter()
                    .filter_map(|mut set| {
                        let value = self.aggregate(*kind, argument.as_ref(), &set.rows)?;
                        if !value.compare(*op, constant) {
                            return None;
                        }
                        set.attributes.push((name.clone(), value));
                        Some(set)
                    })
                    .collect(),
                Step::By { scalar, name } => {
                    let mut groups = Vec::new();
                    for set in sets {
                        self.group(scalar, name, set, &mut groups)?;
                    }
                    groups
                }
                Step::Coalesce => {
                    let mut rows: Vec<u32> = sets.into_iter().flat_map(|set| set.rows).collect();
                    rows.sort_unstable();
                    rows.dedup();
                    if rows.is_empty() { Vec::new() } else { vec![Spanset { rows, attributes: Vec::new() }] }
                }
            };
            if sets.is_empty() {
                break;
            }
        }
        Ok(sets)
    }

    fn set(&self, set: &Set, incoming: &Spanset) -> Result<Vec<u32>, EvalError> {
        match set {
            Set::Filter(index) => {
                let filter = &self.filters[*index];
                Ok(incoming.rows.iter().copied().filter(|row| filter.get(*row as usize)).collect())
            }
            Set::Pipeline(_) => Ok(union(self.operand(set, incoming)?.into_iter().map(|set| set.rows))),
            Set::Binary { op, left, right } => {
                let left = self.operand(left, incoming)?;
                let right = self.operand(right, incoming)?;
                if let SpansetOp::Structural { relation, form } = op {
                    if left.len() > 1 || right.len() > 1 {
                        return Err(EvalError::SeveralSpansets { op: op.as_str() });
                    }
                    let structure = self.batch.structure.as_ref().ok_or(EvalError::NoStructure)?;
                    let rows = |sets: &[Spanset]| sets.first().map(|set| set.rows.clone()).unwrap_or_default();
                    return Ok(structural::relate(*relation, *form, &rows(&left), &rows(&right), structure));
                }
                if *op == SpansetOp::And && (left.is_empty() || right.is_empty()) {
                    return Ok(Vec::new());
                }
                Ok(union(left.into_iter().chain(right).map(|set| set.rows)))
            }
        }
    }

    /// The spansets of an operand; only pipelines can have more than one.
    fn operand(&self, set: &Set, incoming: &Spanset) -> Result<Vec<Spanset>, EvalError> {
        if let Set::Pipeline(steps) = set {
            return self.steps(steps, vec![Spanset { rows: incoming.rows.clone(), attributes: Vec::new() }]);
        }
        let rows = self.set(set, incoming)?;
        Ok(if rows.is_empty() { Vec::new() } else { vec![Spanset { rows, attributes: Vec::new() }] })
    }

    /// Groups in the order in which their values first occur.
    fn group(
        &self,
        scalar: &Scalar,
        name: &Arc<str>,
        set: Spanset,
        grouped: &mut Vec<Spanset>,
    ) -> Result<(), EvalError> {
        let mut groups: Vec<(Value, Vec<u32>)> = Vec::new();
        let mut index: HashMap<Value, usize> = HashMap::new();
        for row in set.rows {
            let value = self.view.value(scalar, row as usize);
            let group = *index.entry(value).or_insert_with_key(|value| {
                groups.push((value.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(row);
            if grouped.len() + groups.len() > MOST_GROUPS {
                return Err(EvalError::Groups { name: name.clone(), most: MOST_GROUPS });
            }
        }
        grouped.extend(groups.into_iter().map(|(value, rows)| {
            let mut attributes = set.attributes.clone();
            attributes.push((name.clone(), value));
            Spanset { rows, attributes }
        }));
        Ok(())
    }

    /// `None` when no span has a value.
    fn aggregate(&self, kind: Kind, argument: Option<&Scalar>, rows: &[u32]) -> Option<Value> {
        let Some(argument) = argument else {
            return i64::try_from(rows.len()).ok().map(Value::Int);
        };
        let mut values = rows
            .iter()
            .map(|row| self.view.value(argument, *row as usize))
            .filter(|value| value.type_of().is_numeric());
        match kind {
            Kind::Count => None,
            Kind::Min => values.reduce(|best, value| if value.compare(CompareOp::Less, &best) { value } else { best }),
            Kind::Max => {
                values.reduce(|best, value| if value.compare(CompareOp::Greater, &best) { value } else { best })
            }
            Kind::Sum | Kind::Avg => {
                let first = values.next()?;
                let (mut sum, mut floats, mut count) = (0_i128, 0.0, 0_i128);
                // Values of another type than the first are left out.
                for value in std::iter::once(first.clone()).chain(values) {
                    match (&first, value) {
                        (Value::Int(_), Value::Int(value)) | (Value::Duration(_), Value::Duration(value)) => {
                            sum += i128::from(value);
                        }
                        (Value::Float(_), Value::Float(value)) => floats += value,
                        _ => continue,
                    }
                    count += 1;
                }
                #[allow(clippy::cast_precision_loss, reason = "a mean of integers is a float by definition")]
                Some(match (first, kind) {
                    (Value::Float(_), Kind::Avg) => Value::Float(floats / count as f64),
                    (Value::Float(_), _) => Value::Float(floats),
                    (Value::Int(_), Kind::Avg) => Value::Float(sum as f64 / count as f64),
                    (Value::Int(_), _) => Value::Int(saturated(sum)),
                    (_, Kind::Avg) => Value::Duration(saturated(sum / count)),
                    _ => Value::Duration(saturated(sum)),
                })
            }
        }
    }
}

fn saturated(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

fn union(sets: impl Iterator<Item = Vec<u32>>) -> Vec<u32> {
    let mut all: Vec<u32> = sets.flatten().collect();
    all.sort_unstable();
    all.dedup();
    all
}

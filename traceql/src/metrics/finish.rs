//! From cells to series: functions are computed, labels are made, second stages applied.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use super::{
    compare::{counted, most_frequent},
    exemplar::Exemplar,
    measure::Measure,
    numbers::bound,
    partial::{Cells, Group, PartialLeaf},
    plan::{Leaf, MetricsPlan, Tree},
    quantile::quantile,
    request::MetricsRequest,
    second,
    series::{Example, Label, MetricsExemplar, MetricsResult, MetricsSeries, NAME, Series, output_order},
};
use crate::{
    ast::{MetricFunction, OverTimeOp},
    column::hex,
    value::Value,
};

/// The series of one sub-query.
pub(crate) fn first_stage(leaf: &Leaf, request: &MetricsRequest, part: PartialLeaf) -> Vec<Series> {
    let MetricFunction::OverTime { op, quantiles, by, .. } = &leaf.function else {
        return compared(leaf, request, &part);
    };
    let mut examples: HashMap<&[Value], Vec<&Exemplar>> = HashMap::new();
    for exemplar in &part.exemplars {
        examples.entry(&exemplar.key).or_default().push(exemplar);
    }
    let mut series = Vec::new();
    let nothing = Group { key: Box::new([]), cells: Vec::new() };
    // Without grouping there is a series even if there is no span.
    let alone = by.is_empty() && leaf.measure == Measure::Count && part.groups.is_empty() && !leaf.search.is_empty();
    for group in part.groups.iter().chain(alone.then_some(&nothing)) {
        let own = examples.remove(&*group.key).unwrap_or_default();
        let labels = |helper: Option<(&str, f64)>| labels(leaf, op.as_str(), &group.key, helper);
        match op {
            OverTimeOp::Histogram => {
                for cells in sorted(group) {
                    let mine = own.iter().filter(|exemplar| exemplar.exponent == cells.exponent);
                    series.push(Series {
                        labels: labels(Some(("__bucket", bound(cells.exponent, leaf.field())))),
                        values: spread(request, cells, |at| count(cells, at), 0.0),
                        exemplars: mine.map(|exemplar| example(exemplar, f64::NAN)).collect(),
                    });
                }
            }
            OverTimeOp::Quantile => {
                let first = series.len();
                let mut overall = Vec::new();
                for q in quantiles {
                    let (values, whole) = quantile_values(leaf, request, group, q.0);
                    overall.push(whole);
                    series.push(Series { labels: labels(Some(("p", q.0))), values, exemplars: Vec::new() });
                }
                for exemplar in own {
                    // It stands for the quantile that it is closest to.
                    let distance = |at: &usize| (overall[*at] - exemplar.value).abs();
                    let closest = (0..overall.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
                    if let Some(closest) = closest {
                        series[first + closest].exemplars.push(example(exemplar, exemplar.value));
                    }
                }
            }
            _ => {
                let cells = group.cells.first().cloned().unwrap_or_default();
                let empty = if leaf.measure == Measure::Count { 0.0 } else { f64::NAN };
                let placeholder = leaf.measure == Measure::Count;
                series.push(Series {
                    labels: labels(None),
                    values: spread(request, &cells, |at| value_of(*op, request, &cells, at), empty),
                    exemplars: own
                        .into_iter()
                        .map(|exemplar| example(exemplar, if placeholder { f64::NAN } else { exemplar.value }))
                        .collect(),
                });
            }
        }
    }
    series.retain(Series::has_values);
    series
}

/// A group's runs by exponent.
fn sorted(group: &Group) -> Vec<&Cells> {
    let mut runs: Vec<&Cells> = group.cells.iter().collect();
    runs.sort_by_key(|cells| cells.exponent);
    runs
}

#[allow(clippy::cast_precision_loss, reason = "series are floats by definition")]
fn count(cells: &Cells, at: usize) -> f64 {
    cells.counts.get(at).map_or(0.0, |count| *count as f64)
}

fn all(cells: &Cells) -> u64 {
    cells.counts.iter().fold(0_u64, |total, count| total.saturating_add(*count))
}

fn sum(cells: &Cells, at: usize) -> f64 {
    let (sum, error) = (cells.values.get(at).copied().unwrap_or(0.0), cells.errors.get(at).copied().unwrap_or(0.0));
    // What was lost means nothing once the sum is infinite.
    if sum.is_finite() { sum + error } else { sum }
}

/// The value of a function whose series are the groups.
fn value_of(op: OverTimeOp, request: &MetricsRequest, cells: &Cells, at: usize) -> f64 {
    match op {
        OverTimeOp::Rate => count(cells, at) / seconds(request),
        OverTimeOp::Count | OverTimeOp::Histogram | OverTimeOp::Quantile => count(cells, at),
        OverTimeOp::Min | OverTimeOp::Max => cells.values.get(at).copied().unwrap_or(f64::NAN),
        OverTimeOp::Sum | OverTimeOp::Avg if count(cells, at) == 0.0 => f64::NAN,
        OverTimeOp::Sum => sum(cells, at),
        OverTimeOp::Avg => sum(cells, at) / count(cells, at),
    }
}

#[allow(clippy::cast_precision_loss, reason = "series are floats by definition")]
fn seconds(request: &MetricsRequest) -> f64 {
    request.interval_ns() as f64 / 1e9
}

/// One value per interval of the request.
fn spread(request: &MetricsRequest, cells: &Cells, value: impl Fn(usize) -> f64, empty: f64) -> Vec<f64> {
    let mut values = vec![empty; request.intervals()];
    for (at, target) in (0..cells.len()).zip(values.iter_mut().skip(cells.first as usize)) {
        *target = value(at);
    }
    values
}

/// A quantile per interval, and over the whole range.
fn quantile_values(leaf: &Leaf, request: &MetricsRequest, group: &Group, q: f64) -> (Vec<f64>, f64) {
    let runs = sorted(group);
    let bounds: Vec<f64> = runs.iter().map(|cells| bound(cells.exponent, leaf.field())).collect();
    let at_interval = |interval: usize| -> Vec<(f64, u64)> {
        let counts = runs.iter().map(|cells| {
            interval.checked_sub(cells.first as usize).and_then(|at| cells.counts.get(at)).copied().unwrap_or(0)
        });
        bounds.iter().copied().zip(counts).collect()
    };
    let totals: Vec<(f64, u64)> = bounds.iter().copied().zip(runs.iter().map(|cells| all(cells))).collect();
    ((0..request.intervals()).map(|interval| quantile(q, &at_interval(interval))).collect(), quantile(q, &totals))
}

/// The labels of a group's series: nil values have none, unless all are nil and nothing else tells what it is.
fn labels(leaf: &Leaf, function: &str, key: &[Value], helper: Option<(&str, f64)>) -> Vec<Label> {
    let mut labels: Vec<Label> = leaf
        .names
        .iter()
        .zip(key)
        .filter(|(_, value)| !value.is_nil())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    match helper {
        Some((name, value)) => labels.push((name.into(), Value::Float(value))),
        None if !labels.is_empty() => {}
        None => labels.push(match leaf.names.first() {
            Some(name) => (name.clone(), Value::Nil),
            None => (NAME.into(), Value::str(function)),
        }),
    }
    labels
}

fn example(exemplar: &Exemplar, value: f64) -> Example {
    let trace = hex(&exemplar.trace_id).trim_start_matches('0').to_owned();
    let mut labels: Vec<Label> = vec![("trace:id".into(), Value::Str(trace.into()))];
    labels.extend(exemplar.labels.iter().cloned());
    Example { labels, start_ns: exemplar.start_ns, value }
}

/// The series of `compare`.
fn compared(leaf: &Leaf, request: &MetricsRequest, part: &PartialLeaf) -> Vec<Series> {
    let MetricFunction::Compare { top, .. } = &leaf.function else { return Vec::new() };
    let top = usize::try_from(*top).unwrap_or(0);
    let mut fields: BTreeMap<(bool, &str), Vec<&Group>> = BTreeMap::new();
    let mut series = Vec::new();
    let mut push = |kind: (&str, &str), field: &str, value: Value, cells: Cow<'_, Cells>| {
        series.push(Series {
            labels: vec![(kind.0.into(), Value::str(kind.1)), (field.into(), value)],
            values: spread(request, &cells, |at| count(&cells, at), 0.0),
            exemplars: Vec::new(),
        });
    };
    for group in &part.groups {
        let [Value::Bool(side), Value::Str(field), value] = &*group.key else { continue };
        if !value.is_nil() {
            fields.entry((*side, &**field)).or_default().push(group);
        } else if let Some(cells) = counted(group) {
            let kind = if *side { "selection_total" } else { "baseline_total" };
            push(("__meta_type", kind), field, Value::Nil, Cow::Borrowed(cells));
        }
    }
    let mut overflown: Vec<&str> = Vec::new();
    for ((side, field), groups) in fields {
        if groups.len() > top {
            overflown.push(field);
        }
        for group in most_frequent(groups, top) {
            let (Some(cells), Some(value)) = (counted(group), group.key.last()) else { continue };
            let kind = if side { "selection" } else { "baseline" };
            push(("__meta_type", kind), field, value.clone(), Cow::Borrowed(cells));
        }
    }
    overflown.sort_unstable();
    overflown.dedup();
    for field in overflown {
        push(("__meta_error", "__too_many_values__"), field, Value::Nil, Cow::Owned(Cells::default()));
    }
    series
}

/// The result of the whole query.
pub(crate) fn result(plan: &MetricsPlan, mut firsts: Vec<Vec<Series>>, truncated: bool) -> MetricsResult {
    let request = &plan.request;
    let first = match &plan.tree {
        // The usual query has one leaf, whose series need not be copied.
        Tree::Leaf { leaf: 0, second } if firsts.len() == 1 => second::stages(firsts.swap_remove(0), second),
        tree => match evaluate(tree, &firsts) {
            Operand::Series(series) => series,
            Operand::Number(_) => Vec::new(),
        },
    };
    let mut series = second::stages(first, &plan.second);
    series.sort_by(|a, b| output_order(&a.labels, &b.labels));
    let most = if request.max_series == 0 { usize::MAX } else { request.max_series };
    let truncated = truncated || series.len() > most;
    series.truncate(most);
    let message = truncated.then(|| {
        format!(
            "Response exceeds maximum series limit of {most}, a partial response is returned. Warning: the accuracy of each \
             individual value is not guaranteed."
        )
    });
    MetricsResult { series: series.into_iter().map(|series| shown(request, series)).collect(), truncated: message }
}

enum Operand {
    Series(Vec<Series>),
    Number(f64),
}

fn evaluate(tree: &Tree, firsts: &[Vec<Series>]) -> Operand {
    match tree {
        Tree::Number(number) => Operand::Number(*number),
        Tree::Leaf { leaf, second } => {
            Operand::Series(second::stages(firsts.get(*leaf).cloned().unwrap_or_default(), second))
        }
        Tree::Binary { op, left, right } => match (evaluate(left, firsts), evaluate(right, firsts)) {
            (Operand::Series(left), Operand::Series(right)) => Operand::Series(second::combine(*op, left, right)),
            (Operand::Series(series), Operand::Number(number)) => {
                Operand::Series(second::with_constant(series, *op, number, false))
            }
            (Operand::Number(number), Operand::Series(series)) => {
                Operand::Series(second::with_constant(series, *op, number, true))
            }
            // The parser folds constants.
            (Operand::Number(_), Operand::Number(_)) => Operand::Number(f64::NAN),
        },
    }
}

fn shown(request: &MetricsRequest, series: Series) -> MetricsSeries {
    let values = &series.values;
    let mut exemplars: Vec<MetricsExemplar> = series
        .exemplars
        .into_iter()
        .filter_map(|exemplar| {
            // The value of the series stands in for what has none; without a point there is nothing to point at.
            let at_its_time = values.get(request.interval_of(exemplar.start_ns)? as usize).copied()?;
            if at_its_time.is_nan() {
                return None;
            }
            Some(MetricsExemplar {
                value: if exemplar.value.is_nan() { at_its_time } else { exemplar.value },
                timestamp_ms: i64::try_from(exemplar.start_ns / 1_000_000).ok()?,
                labels: exemplar.labels,
            })
        })
        .collect();
    exemplars.sort_by_key(|exemplar| exemplar.timestamp_ms);
    let samples = values.iter().enumerate().filter(|(_, value)| !value.is_nan());
    MetricsSeries {
        samples: samples.map(|(interval, value)| (request.timestamp_ms(interval), *value)).collect(),
        labels: series.labels,
        exemplars,
    }
}

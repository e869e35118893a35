//! What is done with finished series: `topk`, `bottomk`, comparisons, arithmetic.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use super::series::{Label, NAME, Series, plain, preference};
use crate::{
    ast::{ArithmeticOp, SecondStage},
    value::{CompareOp, Value},
};

/// Applies the stages from left to right.
pub(crate) fn stages(mut series: Vec<Series>, stages: &[SecondStage]) -> Vec<Series> {
    for stage in stages {
        match stage {
            SecondStage::TopK(k) => keep_extremes(&mut series, *k, true),
            SecondStage::BottomK(k) => keep_extremes(&mut series, *k, false),
            SecondStage::Compare(op, constant) => compare(&mut series, *op, constant.as_f64().unwrap_or(f64::NAN)),
        }
        series.retain(Series::has_values);
    }
    series
}

/// At every instant the `k` largest (smallest) values. Of equal ones `topk` prefers the alphabetically earlier series,
/// `bottomk` the later one.
fn keep_extremes(series: &mut [Series], k: i64, largest: bool) {
    let k = usize::try_from(k).unwrap_or(0);
    if series.len() <= k {
        return;
    }
    let mut by_preference: Vec<usize> = (0..series.len()).collect();
    by_preference.sort_by(|a, b| preference(&series[*a].labels, &series[*b].labels));
    let mut rank = vec![0; series.len()];
    by_preference.iter().enumerate().for_each(|(position, index)| rank[*index] = position);
    let intervals = series.iter().map(|one| one.values.len()).max().unwrap_or(0);
    for interval in 0..intervals {
        let mut present: Vec<usize> =
            (0..series.len()).filter(|index| !series[*index].values[interval].is_nan()).collect();
        if present.len() <= k {
            continue;
        }
        present.sort_by(|a, b| {
            let (left, right) = (series[*a].values[interval], series[*b].values[interval]);
            if largest {
                right.total_cmp(&left).then(rank[*a].cmp(&rank[*b]))
            } else {
                left.total_cmp(&right).then(rank[*b].cmp(&rank[*a]))
            }
        });
        for index in &present[k..] {
            series[*index].values[interval] = f64::NAN;
        }
    }
}

/// Drops points that fail. An exemplar without a value of its own fails as well.
fn compare(series: &mut [Series], op: CompareOp, constant: f64) {
    let holds = |value: f64| !value.is_nan() && op.accepts_f64(value, constant);
    for one in series {
        one.values.iter_mut().filter(|value| !holds(**value)).for_each(|value| *value = f64::NAN);
        one.exemplars.retain(|exemplar| holds(exemplar.value));
    }
}

fn apply(op: ArithmeticOp, left: f64, right: f64) -> f64 {
    match op {
        ArithmeticOp::Add => left + right,
        ArithmeticOp::Subtract => left - right,
        ArithmeticOp::Multiply => left * right,
        ArithmeticOp::Divide if right == 0.0 => f64::NAN,
        ArithmeticOp::Divide => left / right,
        // The grammar has no others between metrics.
        ArithmeticOp::Modulo | ArithmeticOp::Power => f64::NAN,
    }
}

/// Every point and exemplar combined with a constant, which stands on the right unless `constant_left`.
pub(crate) fn with_constant(
    mut series: Vec<Series>,
    op: ArithmeticOp,
    constant: f64,
    constant_left: bool,
) -> Vec<Series> {
    let combined = |value: f64| if constant_left { apply(op, constant, value) } else { apply(op, value, constant) };
    for one in &mut series {
        one.values.iter_mut().for_each(|value| *value = combined(*value));
        one.exemplars.iter_mut().for_each(|exemplar| exemplar.value = combined(exemplar.value));
    }
    series.retain(Series::has_values);
    series
}

/// Pairs series of equal labels. A side whose only series has no labels is paired with every series of the other.
pub(crate) fn combine(op: ArithmeticOp, left: Vec<Series>, right: Vec<Series>) -> Vec<Series> {
    let unlabelled = |side: &[Series]| match side {
        [only] => only.own_labels().next().is_none(),
        _ => false,
    };
    let mut pairs: Vec<Series> = match (unlabelled(&left), unlabelled(&right)) {
        (true, false) => right.into_iter().map(|series| pair(op, &left[0], &series, Keep::Right)).collect(),
        (false, true) => left.into_iter().map(|series| pair(op, &series, &right[0], Keep::Left)).collect(),
        _ => {
            let known: HashMap<Vec<Label>, Series> =
                right.into_iter().map(|series| (identity(&series), series)).collect();
            left.into_iter()
                .filter_map(|series| Some(pair(op, &series, known.get(&identity(&series))?, Keep::Both)))
                .collect()
        }
    };
    pairs.retain(Series::has_values);
    pairs
}

/// Labels in an order of their own, without the name.
fn identity(series: &Series) -> Vec<Label> {
    let mut labels: Vec<Label> = series.own_labels().cloned().collect();
    labels.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1)));
    labels
}

#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Left,
    Right,
    Both,
}

fn pair(op: ArithmeticOp, left: &Series, right: &Series, keep: Keep) -> Series {
    let mut labels: Vec<Label> = Vec::new();
    if let (Some(left), Some(right)) = (left.name(), right.name()) {
        let name = format!("({} {} {})", plain(left), op.as_str(), plain(right));
        labels.push((Arc::from(NAME), Value::Str(name.into())));
    }
    for label in left.own_labels().chain(right.own_labels()) {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    let mut exemplars = if keep == Keep::Right { Vec::new() } else { left.exemplars.clone() };
    if keep != Keep::Left {
        exemplars.extend(right.exemplars.iter().cloned());
    }
    exemplars
        .sort_by(|a, b| a.start_ns.cmp(&b.start_ns).then_with(|| a.value.total_cmp(&b.value)).then(Ordering::Equal));
    Series {
        labels,
        values: left.values.iter().zip(&right.values).map(|(a, b)| apply(op, *a, *b)).collect(),
        exemplars,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(label: Option<&str>, values: &[f64]) -> Series {
        let label = match label {
            Some(text) => ("x".into(), Value::str(text)),
            None => (NAME.into(), Value::str("rate")),
        };
        Series { labels: vec![label], values: values.to_vec(), exemplars: Vec::new() }
    }

    fn shown(series: &[Series]) -> Vec<(String, String)> {
        let values = |one: &Series| {
            one.values.iter().map(|v| if v.is_nan() { "-".into() } else { v.to_string() }).collect::<Vec<_>>()
        };
        series
            .iter()
            .map(|one| (one.labels.iter().map(|l| plain(&l.1)).collect::<Vec<_>>().join(","), values(one).join(" ")))
            .collect()
    }

    fn expect(series: &[Series], wanted: &[(&str, &str)]) {
        let wanted: Vec<(String, String)> = wanted.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        assert_eq!(shown(series), wanted);
    }

    fn three() -> Vec<Series> {
        vec![
            series(Some("a"), &[1.0, 0.0, f64::NAN]),
            series(Some("b"), &[2.0, 0.0, 5.0]),
            series(Some("c"), &[3.0, 0.0, f64::NAN]),
        ]
    }

    #[test]
    fn topk_works_at_every_instant_and_prefers_the_earlier_name() {
        expect(&stages(three(), &[SecondStage::TopK(1)]), &[("a", "- 0 -"), ("b", "- - 5"), ("c", "3 - -")]);
        expect(&stages(three(), &[SecondStage::TopK(2)]), &[("a", "- 0 -"), ("b", "2 0 5"), ("c", "3 - -")]);
        // With no more series than asked for nothing changes.
        assert_eq!(shown(&stages(three(), &[SecondStage::TopK(3)])), shown(&three()));
    }

    #[test]
    fn bottomk_prefers_the_later_name() {
        expect(&stages(three(), &[SecondStage::BottomK(1)]), &[("a", "1 - -"), ("b", "- - 5"), ("c", "- 0 -")]);
    }

    #[test]
    fn comparisons_drop_points_then_series_and_chain() {
        let above = |limit| SecondStage::Compare(CompareOp::Greater, Value::Float(limit));
        expect(&stages(three(), &[above(1.5)]), &[("b", "2 - 5"), ("c", "3 - -")]);
        let below = SecondStage::Compare(CompareOp::Less, Value::Float(4.0));
        expect(&stages(three(), &[above(1.5), below, SecondStage::TopK(1)]), &[("c", "3 - -")]);
        expect(
            &stages(three(), &[SecondStage::Compare(CompareOp::NotEq, Value::Float(0.0))]),
            &[("a", "1 - -"), ("b", "2 - 5"), ("c", "3 - -")],
        );
    }

    #[test]
    fn arithmetic_pairs_equal_labels_and_spreads_what_has_none() {
        let right = vec![series(Some("b"), &[4.0, 0.0, 2.0]), series(Some("d"), &[1.0, 1.0, 1.0])];
        expect(&combine(ArithmeticOp::Divide, three(), right), &[("b", "0.5 - 2.5")]);
        let total = vec![series(None, &[10.0, 1.0, 10.0])];
        expect(
            &combine(ArithmeticOp::Divide, three(), total.clone()),
            &[("a", "0.1 0 -"), ("b", "0.2 0 0.5"), ("c", "0.3 0 -")],
        );
        expect(
            &combine(ArithmeticOp::Subtract, total.clone(), three()),
            &[("a", "9 1 -"), ("b", "8 1 5"), ("c", "7 1 -")],
        );
        expect(&combine(ArithmeticOp::Add, total.clone(), total), &[("(rate + rate)", "20 2 20")]);
    }

    #[test]
    fn constants_apply_to_every_point_and_division_by_zero_has_no_value() {
        let one = || vec![series(None, &[2.0, 0.0, f64::NAN])];
        expect(&with_constant(one(), ArithmeticOp::Multiply, 100.0, false), &[("rate", "200 0 -")]);
        expect(&with_constant(one(), ArithmeticOp::Divide, 1.0, true), &[("rate", "0.5 - -")]);
        assert!(with_constant(one(), ArithmeticOp::Divide, 0.0, false).is_empty());
    }
}

//! The argument of a function over time, as numbers per row.

use crate::{
    column::Column,
    eval::View,
    field::{Field, Intrinsic},
    program::Slot,
    value::{Type, Value},
};

/// The argument in chosen rows; NaN where there is none or it is not a number. `duration` counts in seconds, every
/// other duration in nanoseconds, as clients are used to.
#[allow(clippy::cast_precision_loss, reason = "series are floats by definition")]
pub(crate) fn floats(view: &View<'_>, slot: Slot, rows: &[u32]) -> Vec<f64> {
    let seconds = |field: &Field| *field == Field::Intrinsic(Intrinsic::Duration);
    if let Slot::One(index) = slot {
        let (column, field) = view.column(index);
        let scale = if seconds(field) { 1e9 } else { 1.0 };
        match column {
            Column::Int { values, valid: None } => {
                return rows.iter().map(|row| values[*row as usize] as f64 / scale).collect();
            }
            Column::Float { values, valid: None } => return rows.iter().map(|row| values[*row as usize]).collect(),
            Column::Nil | Column::Str(_) | Column::Bool { .. } | Column::Code(_) | Column::SpanId(_) => {
                return vec![f64::NAN; rows.len()];
            }
            Column::Int { .. } | Column::Float { .. } | Column::List { .. } | Column::Union(_) | Column::Values(_) => {}
        }
    }
    let scale = match slot {
        Slot::One(index) if seconds(view.column(index).1) => 1e9,
        _ => 1.0,
    };
    rows.iter()
        .map(|row| view.slot_value(slot, *row as usize).as_f64().map_or(f64::NAN, |value| value / scale))
        .collect()
}

/// The power of two of the argument in chosen rows; 0 where there is none: it is not an integer or a duration, or it is
/// less than 2.
pub(crate) fn exponents(view: &View<'_>, slot: Slot, rows: &[u32]) -> Vec<u8> {
    if let Slot::One(index) = slot
        && let (Column::Int { values, valid: None }, _) = view.column(index)
    {
        return rows.iter().map(|row| exponent(values[*row as usize])).collect();
    }
    let of = |row: &u32| match view.slot_value(slot, *row as usize) {
        Value::Int(value) | Value::Duration(value) => exponent(value),
        _ => 0,
    };
    rows.iter().map(of).collect()
}

/// The least `e` with `value <= 2^e`; 0 for what is less than 2.
#[inline]
pub(crate) fn exponent(value: i64) -> u8 {
    if value < 2 {
        return 0;
    }
    u8::try_from(64 - (value - 1).leading_zeros()).unwrap_or(0)
}

/// The upper bound that an exponent stands for: durations in seconds.
pub(crate) fn bound(exponent: u32, field: Option<&Field>) -> f64 {
    let bound = (f64::from(exponent)).exp2();
    if field.is_some_and(|field| field.static_type() == Type::Duration) { bound / 1e9 } else { bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_falls_into_the_next_power_of_two() {
        let powers: Vec<u8> = [-5, 0, 1, 2, 3, 4, 5, 1024, 1025, i64::MAX].into_iter().map(exponent).collect();
        assert_eq!(powers, [0, 0, 0, 1, 2, 2, 3, 10, 11, 63]);
    }

    #[test]
    fn bounds_of_durations_are_seconds() {
        assert_eq!(bound(17, Some(&Intrinsic::Duration.into())), 0.000131072);
        assert_eq!(bound(11, Some(&"span.x".parse().unwrap())), 2048.0);
    }
}

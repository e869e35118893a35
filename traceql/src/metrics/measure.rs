//! What is kept of the spans of a series and an interval.

use crate::ast::{MetricFunction, OverTimeOp};

/// How cells are filled and added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Number of spans: `rate`, `count_over_time`, `compare`.
    Count,
    /// Least value.
    Least,
    /// Greatest value.
    Greatest,
    /// Sum and number of values: `sum_over_time`, `avg_over_time`.
    Sum,
    /// Number of values per power of two: `histogram_over_time`, `quantile_over_time`.
    Histogram,
}

impl Measure {
    pub(crate) fn of(function: &MetricFunction) -> Self {
        match function {
            MetricFunction::Compare { .. } => Self::Count,
            MetricFunction::OverTime { op, .. } => match op {
                OverTimeOp::Rate | OverTimeOp::Count => Self::Count,
                OverTimeOp::Min => Self::Least,
                OverTimeOp::Max => Self::Greatest,
                OverTimeOp::Avg | OverTimeOp::Sum => Self::Sum,
                OverTimeOp::Histogram | OverTimeOp::Quantile => Self::Histogram,
            },
        }
    }

    /// Whether cells count.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::Count | Self::Sum | Self::Histogram)
    }

    /// Whether cells carry what a sum has lost.
    pub(crate) fn sums(self) -> bool {
        self == Self::Sum
    }

    /// The value of a cell without spans, where cells have values.
    pub(crate) fn empty(self) -> Option<f64> {
        match self {
            Self::Count | Self::Histogram => None,
            Self::Sum => Some(0.0),
            Self::Least | Self::Greatest => Some(f64::NAN),
        }
    }

    /// Takes a value into an extreme; NaN is no value.
    #[inline]
    pub(crate) fn extreme(self, own: &mut f64, value: f64) {
        // `min` and `max` prefer a number over NaN.
        *own = if self == Self::Least { own.min(value) } else { own.max(value) };
    }
}

//! Quantiles from counts per power of two.

/// The quantile `q` of values that are only known by their power of two: `(upper bound, count)`, ascending. Within a
/// bucket values are taken to be spread exponentially. 0 without values and for a `q` outside of `0..=1`.
#[allow(clippy::cast_precision_loss, reason = "counts beyond 2^53 do not occur")]
pub(crate) fn quantile(q: f64, buckets: &[(f64, u64)]) -> f64 {
    let total = buckets.iter().fold(0_u64, |total, (_, count)| total.saturating_add(*count));
    if total == 0 || !(0.0..=1.0).contains(&q) {
        return 0.0;
    }
    let wanted = (q * total as f64).ceil().max(1.0);
    let (mut seen, mut below) = (0.0, None);
    for (bound, count) in buckets.iter().filter(|(_, count)| *count > 0) {
        let count = *count as f64;
        if seen + count < wanted {
            seen += count;
            below = Some(*bound);
            continue;
        }
        if seen + count == wanted {
            return *bound;
        }
        let low = below.unwrap_or(bound / 2.0);
        let share = (wanted - seen) / count;
        return (low.log2() + (bound.log2() - low.log2()) * share).exp2();
    }
    below.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantile_is_a_bound_or_lies_between_two() {
        let buckets = [(2.0, 2), (4.0, 0), (8.0, 4), (16.0, 2)];
        // The 4th of 8 is the second of four between 2 (the last bound with values) and 8.
        assert!((quantile(0.5, &buckets) - 4.0).abs() < 1e-12);
        assert_eq!(quantile(0.25, &buckets), 2.0);
        assert_eq!(quantile(0.75, &buckets), 8.0);
        assert_eq!(quantile(1.0, &buckets), 16.0);
        // The first of two between 1 and 2.
        assert!((quantile(0.0, &buckets) - 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(quantile(0.5, &[]), 0.0);
        assert_eq!(quantile(1.5, &buckets), 0.0);
    }

    proptest! {
        #[test]
        fn a_larger_quantile_is_never_less(counts in prop::collection::vec(0_u64..9, 1..8), a in 0.0..=1.0_f64, b in 0.0..=1.0_f64) {
            let buckets: Vec<(f64, u64)> = (1_u8..).zip(counts).map(|(power, count)| (f64::from(power).exp2(), count)).collect();
            let (low, high) = (quantile(a.min(b), &buckets), quantile(a.max(b), &buckets));
            prop_assert!(low <= high * (1.0 + 1e-12), "{low} {high}");
        }
    }
}

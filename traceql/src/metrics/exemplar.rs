//! Examples of spans behind a series, spread over time.
//!
//! The range is divided into half as many slots as exemplars are wanted, and every slot keeps two. Which traces they come
//! from is decided by a hash of the trace id, and of a trace the earliest span is taken: so any division of the spans
//! gives the same exemplars, without a source of randomness.

use std::{cmp::Ordering, sync::Arc};

use super::request::MetricsRequest;
use crate::value::Value;

/// One span as an example.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Which part of the range it stands for.
    pub slot: u32,
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// The value that the function read; NaN stands for the value of the series at that time.
    pub value: f64,
    /// Of histograms and quantiles: the power of two that the value fell into, else 0.
    pub exponent: u32,
    /// Its group.
    pub key: Box<[Value]>,
    /// What the query read of the span, by canonical name; never nil.
    pub labels: Vec<(Arc<str>, Value)>,
}

impl Exemplar {
    fn rank(&self) -> (u32, u64, [u8; 16]) {
        (self.slot, mixed(&self.trace_id), self.trace_id)
    }

    /// Slot, then trace in hash order, then what a trace shows first.
    fn order(&self, other: &Self) -> Ordering {
        let values = |a: &[Value], b: &[Value]| {
            let mut each = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
            each.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        };
        self.rank()
            .cmp(&other.rank())
            .then_with(|| self.start_ns.cmp(&other.start_ns))
            .then_with(|| self.value.total_cmp(&other.value))
            .then_with(|| values(&self.key, &other.key))
            .then_with(|| {
                let mut each =
                    self.labels.iter().zip(&other.labels).map(|(a, b)| a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1)));
                each.find(|order| order.is_ne()).unwrap_or_else(|| self.labels.len().cmp(&other.labels.len()))
            })
    }
}

/// Spreads ids that differ in few bits.
fn mixed(id: &[u8; 16]) -> u64 {
    let number = u128::from_be_bytes(*id);
    let low = u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0);
    let high = u64::try_from(number >> 64).unwrap_or(0);
    let mut hash = low ^ high.rotate_left(32);
    // The finaliser of SplitMix64.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// How exemplars are spread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    budget: u32,
    start_ns: u64,
    width_ns: u64,
}

impl Slots {
    pub(crate) fn new(request: &MetricsRequest, budget: u32) -> Self {
        let range_ns = request.end_ns - request.start_ns;
        Self { budget, start_ns: request.start_ns, width_ns: range_ns.div_ceil(u64::from((budget / 2).max(1))) }
    }

    pub(crate) fn wanted(&self) -> bool {
        self.budget > 0
    }

    fn count(&self) -> u32 {
        (self.budget / 2).max(1)
    }

    fn each(&self) -> usize {
        if self.budget == 1 { 1 } else { 2 }
    }

    /// The slot of a span that starts within the range.
    pub(crate) fn of(&self, start_ns: u64) -> u32 {
        u32::try_from(start_ns.saturating_sub(self.start_ns + 1) / self.width_ns).unwrap_or(0).min(self.count() - 1)
    }

    /// Whether a trace could still be shown in a slot; `kept` comes from [`add`](Self::add).
    pub(crate) fn may_take(&self, kept: &[Exemplar], slot: u32, trace_id: &[u8; 16]) -> bool {
        let from = kept.partition_point(|exemplar| exemplar.slot < slot);
        let within = &kept[from..][..kept[from..].partition_point(|exemplar| exemplar.slot == slot)];
        let rank = (slot, mixed(trace_id), *trace_id);
        within.len() < self.each() || within.iter().any(|exemplar| exemplar.rank() >= rank)
    }

    /// Takes exemplars in and drops what goes beyond the slots' share.
    pub(crate) fn add(&self, kept: &mut Vec<Exemplar>, more: impl IntoIterator<Item = Exemplar>) {
        kept.extend(more);
        kept.sort_by(Exemplar::order);
        kept.dedup_by(|exemplar, first| exemplar.rank() == first.rank());
        let (mut slot, mut taken) = (None, 0);
        kept.retain(|exemplar| {
            taken = if slot == Some(exemplar.slot) { taken + 1 } else { 1 };
            slot = Some(exemplar.slot);
            taken <= self.each() && exemplar.slot < self.count()
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> MetricsRequest {
        MetricsRequest { start_ns: 0, end_ns: 1000, step_ns: 100, instant: false, exemplars: 0, max_series: 0 }
    }

    fn exemplar(slots: &Slots, trace: u8, start_ns: u64, value: i8) -> Exemplar {
        Exemplar {
            slot: slots.of(start_ns),
            trace_id: [trace; 16],
            start_ns,
            value: f64::from(value),
            exponent: 0,
            key: Box::new([]),
            labels: Vec::new(),
        }
    }

    #[test]
    fn slots_cover_the_range_evenly() {
        let slots = Slots::new(&request(), 20);
        assert_eq!([slots.of(1), slots.of(100), slots.of(101), slots.of(1000)], [0, 0, 1, 9]);
        let few = Slots::new(&request(), 1);
        let mut kept = Vec::new();
        few.add(&mut kept, (1..9).map(|trace| exemplar(&few, trace, u64::from(trace) * 100, 0)));
        assert_eq!(kept.len(), 1);
    }

    proptest! {
        #[test]
        fn any_division_gives_the_same_exemplars(
            spans in prop::collection::vec((0_u8..6, 1_u64..1001, 0_i8..3), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            budget in 1_u32..9,
        ) {
            let slots = Slots::new(&request(), budget);
            let all: Vec<Exemplar> = spans.iter().map(|(trace, start, value)| exemplar(&slots, *trace, *start, *value)).collect();
            let mut whole = Vec::new();
            slots.add(&mut whole, all.clone());
            prop_assert!(whole.len() <= budget.max(1) as usize);

            let mut parts: Vec<Vec<Exemplar>> = vec![Vec::new(); cuts.len() + 1];
            for (number, exemplar) in all.into_iter().enumerate() {
                let part = cuts.get(number % (cuts.len() + 1)).map_or(0, |cut| cut.index(parts.len()));
                slots.add(&mut parts[part], [exemplar]);
            }
            let mut merged = Vec::new();
            for part in parts.into_iter().rev() {
                slots.add(&mut merged, part);
            }
            prop_assert_eq!(merged, whole);
        }
    }
}

//! The values that are counted up, set, and observed. All are shared by cloning and changed without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::text::Text;

/// A kind of value that a family can hold.
pub trait Metric: Clone + Send + Sync + 'static {
    /// The word after `# TYPE`.
    const KIND: &'static str;

    /// Writes the samples of one series.
    fn render(&self, name: &str, labels: &[(&str, &str)], text: &mut Text);
}

/// A number that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<Sum>);

#[derive(Debug, Default)]
struct Sum {
    /// Whole increments, the fast path.
    whole: AtomicU64,
    /// The bits of a double: increments by fractions.
    fraction: AtomicU64,
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds a whole number.
    pub fn add(&self, n: u64) {
        self.0.whole.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds a fraction, such as seconds; negative numbers and NaN are ignored.
    pub fn add_f64(&self, n: f64) {
        if n > 0.0 {
            change(&self.0.fraction, |value| value + n);
        }
    }

    /// The value.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub fn value(&self) -> f64 {
        self.0.whole.load(Ordering::Relaxed) as f64 + f64::from_bits(self.0.fraction.load(Ordering::Relaxed))
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Sets it to a count.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub fn set_count(&self, value: usize) {
        self.set(value as f64);
    }

    /// Adds, or with a negative number takes away.
    pub fn add(&self, n: f64) {
        change(&self.0, |value| value + n);
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Upper bounds of histogram buckets, in order; the last, infinity, is implied.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets(Arc<[f64]>);

impl Buckets {
    /// These bounds, sorted.
    #[must_use]
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let mut bounds: Vec<f64> = bounds.into_iter().filter(|bound| bound.is_finite()).collect();
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        Self(bounds.into())
    }

    /// `count` bounds, the first at `start`, each `factor` times the one before.
    #[must_use]
    pub fn exponential(start: f64, factor: f64, count: usize) -> Self {
        Self::new(std::iter::successors(Some(start), |bound| Some(bound * factor)).take(count))
    }

    /// The usual bounds for seconds, 5 ms to 10 s, as client libraries have them.
    #[must_use]
    pub fn seconds() -> Self {
        Self::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
    }
}

/// Counts observations by size.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Observations>);

#[derive(Debug)]
struct Observations {
    bounds: Buckets,
    /// One per bound and one for infinity; not cumulative.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(buckets: &Buckets) -> Self {
        let counts = (0..=buckets.0.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Observations { bounds: buckets.clone(), counts, sum: AtomicU64::new(0) }))
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.0.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        change(&self.0.sum, |sum| sum + value);
    }

    /// Counts a duration, in seconds.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }

    /// How many observations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Ordering::Relaxed))
    }
}

fn change(bits: &AtomicU64, with: impl Fn(f64) -> f64) {
    // The closure always gives a value, so this cannot fail.
    bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some(with(f64::from_bits(bits)).to_bits())).ok();
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn render(&self, name: &str, labels: &[(&str, &str)], text: &mut Text) {
        text.sample(name, "", labels, None, self.value());
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn render(&self, name: &str, labels: &[(&str, &str)], text: &mut Text) {
        text.sample(name, "", labels, None, self.value());
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";

    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    fn render(&self, name: &str, labels: &[(&str, &str)], text: &mut Text) {
        let mut below = 0;
        let bounds = self.0.bounds.0.iter().copied().chain([f64::INFINITY]);
        for (bound, count) in bounds.zip(&self.0.counts) {
            below += count.load(Ordering::Relaxed);
            text.sample(name, "_bucket", labels, Some(("le", bound)), below as f64);
        }
        text.sample(name, "_sum", labels, None, self.sum());
        text.sample(name, "_count", labels, None, below as f64);
    }
}

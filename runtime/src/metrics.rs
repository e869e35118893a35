//! Our own small metrics registry. It exists because names must be exact: dashboards know `tempo_receiver_accepted_spans`
//! without `_total`, which OpenMetrics encoders append. Rendered as Prometheus text 0.0.4.
//!
//! The registry is a value that is handed in; there are no statics, so two processes' worth of parts live in one test.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use self::cells::Metric;
pub use self::cells::{Buckets, Counter, Gauge, Histogram};
pub use self::text::Text;

mod cells;
mod text;

/// The content type of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a process. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    families: BTreeMap<String, Arc<dyn Rendered>>,
    collectors: Vec<Collector>,
}

type Collector = Box<dyn Fn(&mut Text) + Send + Sync>;

/// One name with its series, one per combination of label values.
pub struct Family<T, const N: usize>(Arc<Series<T, N>>);

struct Series<T, const N: usize> {
    name: String,
    help: String,
    labels: [&'static str; N],
    make: Box<dyn Fn() -> T + Send + Sync>,
    cells: RwLock<BTreeMap<[Cow<'static, str>; N], T>>,
}

trait Rendered: Send + Sync {
    fn render(&self, text: &mut Text);
    fn as_any(self: Arc<Self>) -> Arc<dyn std::any::Any + Send + Sync>;
}

impl Registry {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter without labels. The name is emitted exactly as given, here and everywhere.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.counters(name, help, []).with([])
    }

    /// Counters by labels.
    #[must_use]
    pub fn counters<const N: usize>(&self, name: &str, help: &str, labels: [&'static str; N]) -> Family<Counter, N> {
        self.family(name, help, labels, Counter::default)
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauges(name, help, []).with([])
    }

    /// Gauges by labels.
    #[must_use]
    pub fn gauges<const N: usize>(&self, name: &str, help: &str, labels: [&'static str; N]) -> Family<Gauge, N> {
        self.family(name, help, labels, Gauge::default)
    }

    /// A histogram without labels.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, buckets: &Buckets) -> Histogram {
        self.histograms(name, help, [], buckets).with([])
    }

    /// Histograms by labels.
    #[must_use]
    pub fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        buckets: &Buckets,
    ) -> Family<Histogram, N> {
        let buckets = buckets.clone();
        self.family(name, help, labels, move || Histogram::new(&buckets))
    }

    /// A function that writes further metrics at every scrape: for values that are kept elsewhere, and for summaries.
    pub fn collector(&self, collect: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.0.lock().collectors.push(Box::new(collect));
    }

    /// The text for `/metrics`, families in order of their names.
    #[must_use]
    pub fn render(&self) -> String {
        let inner = self.0.lock();
        let mut text = Text::default();
        for family in inner.families.values() {
            family.render(&mut text);
        }
        for collect in &inner.collectors {
            collect(&mut text);
        }
        text.finish()
    }

    /// The names and types of all families, for the snapshot test of the list. Collectors are asked, so a family that a
    /// collector writes is there if it writes it now.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.render().lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect()
    }

    /// The family of this name: several components of one process share it. A second registration with other labels or of
    /// another type is a bug; it gets a family that is not rendered, and an error in the log.
    fn family<T: Metric, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> Family<T, N> {
        debug_assert!(valid_name(name), "{name} is no metric name");
        let mut inner = self.0.lock();
        if let Some(known) = inner.families.get(name) {
            match Arc::clone(known).as_any().downcast::<Series<T, N>>() {
                Ok(series) if series.labels == labels => return Family(series),
                _ => tracing::error!(metric = name, "metric is registered twice with different types or labels"),
            }
        }
        let series = Arc::new(Series {
            name: name.to_owned(),
            help: help.to_owned(),
            labels,
            make: Box::new(make),
            cells: RwLock::default(),
        });
        inner.families.entry(name.to_owned()).or_insert_with(|| Arc::clone(&series) as Arc<dyn Rendered>);
        Family(series)
    }
}

fn valid_name(name: &str) -> bool {
    name.bytes().enumerate().all(|(at, byte)| {
        byte.is_ascii_alphabetic() || byte == b'_' || byte == b':' || (at > 0 && byte.is_ascii_digit())
    }) && !name.is_empty()
}

impl<T: Metric, const N: usize> Family<T, N> {
    /// The series with these label values, made at its first use; keep it where it is used often.
    #[must_use]
    pub fn with(&self, values: [&str; N]) -> T {
        // Looked up without allocating: labels compare as text whatever they own.
        let key: [Cow<'_, str>; N] = values.map(Cow::Borrowed);
        if let Some(cell) = find(&self.0.cells.read(), &key) {
            return cell.clone();
        }
        let owned = values.map(|value| Cow::Owned(value.to_owned()));
        self.0.cells.write().entry(owned).or_insert_with(|| (self.0.make)()).clone()
    }

    /// Forgets a series, for instance of a tenant that is gone. Those who hold it go on counting unseen.
    pub fn remove(&self, values: [&str; N]) {
        self.0.cells.write().remove(&values.map(|value| Cow::Owned(value.to_owned())));
    }

    /// Forgets all series.
    pub fn clear(&self) {
        self.0.cells.write().clear();
    }
}

/// A map with `'static` keys may be read as one with shorter-lived keys: `Cow` is covariant.
fn find<'a, T, const N: usize>(cells: &'a BTreeMap<[Cow<'a, str>; N], T>, key: &'a [Cow<'a, str>; N]) -> Option<&'a T> {
    cells.get(key)
}

impl<T, const N: usize> Clone for Family<T, N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Metric, const N: usize> Rendered for Series<T, N> {
    fn render(&self, text: &mut Text) {
        let cells = self.cells.read();
        if cells.is_empty() {
            return;
        }
        text.family(&self.name, T::KIND, &self.help);
        let mut pairs = Vec::with_capacity(N);
        for (values, cell) in cells.iter() {
            pairs.clear();
            pairs.extend(self.labels.iter().zip(values).map(|(label, value)| (*label, value.as_ref())));
            cell.render(&self.name, &pairs, text);
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn std::any::Any + Send + Sync> {
        self
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl<T, const N: usize> fmt::Debug for Family<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", self.0.name)
    }
}

#[cfg(test)]
mod tests;

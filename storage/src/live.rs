//! Live traces as a source of spans for queries.
//!
//! A live trace is the encoded slices that arrived. Nothing is decoded when they come: a fetch walks the bytes of each trace once and
//! copies out only what the query names. [`LiveSource`] does just that. A [`LiveScan`] does it for several workers, knows when traces
//! are, passes over what cannot hold a text that the query asks for, and reads groups that were asked often from columns.

mod any;
mod columns;
mod conditions;
mod cursor;
mod digest;
mod everything;
mod group;
mod known;
mod listing;
mod positions;
mod scan;
mod shape;
mod sieve;
mod tags;
mod trace;
mod values;
mod walk;
mod walked;
mod wants;

use bytes::Bytes;
use vivace_protocol::TraceId;
use vivace_traceql::{FetchError, FetchSpec, Source};

pub use cursor::LiveCursor;
pub use group::{LiveGroup, LivePart, LiveView, Preparation};
pub use scan::{LiveScan, LiveShare, ShareCursor};
pub use trace::LiveTrace;
pub(crate) use values::short_hex;
pub(crate) use walk::id8;

/// Traces held as encoded slices.
#[derive(Debug, Clone, Default)]
pub struct LiveSource {
    traces: Vec<LiveTrace>,
}

impl LiveSource {
    /// Each part is an encoded `tempopb.Trace`. Parts are shared, not copied. A span that comes more than once in a trace (same
    /// id, kind and start) is seen once. A trace id given twice is two traces to a query, so parts of one trace come together.
    pub fn new(traces: impl IntoIterator<Item = (TraceId, Vec<Bytes>)>) -> Self {
        Self { traces: traces.into_iter().map(|(id, parts)| LiveTrace::new(id, parts)).collect() }
    }

    /// A fetch whose first batch holds all.
    pub(crate) fn cursor_of_one_batch(&self, spec: &FetchSpec) -> LiveCursor<'_> {
        LiveCursor::new(self.traces.iter().collect(), spec, usize::MAX)
    }

    /// Number of traces.
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Whether there are no traces.
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }
}

impl Source for LiveSource {
    type Cursor<'a> = LiveCursor<'a>;

    fn fetch(&self, spec: &FetchSpec) -> Result<LiveCursor<'_>, FetchError> {
        Ok(LiveCursor::new(self.traces.iter().collect(), spec, cursor::BATCH_SPANS))
    }
}

#[cfg(test)]
pub(crate) mod tests;

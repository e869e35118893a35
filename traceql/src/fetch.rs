//! The fetch contract: what the engine asks of storage, and the batches that storage answers with.
//!
//! ```text
//! FetchSpec ──▶ Source::fetch ──▶ Cursor ──next()──▶ SpanBatch   (first pass: columns the query computes with)
//!                                   ▲                   │ evaluate
//!                                   └──load(survivors)──┘         (second pass: columns only shown in results)
//! ```
//!
//! * A batch holds whole traces as stored: every span of the trace that can be of use, next to each other, in
//!   storage order. A trace never continues in a later batch of the same cursor. (The same trace id may come again as
//!   another stored part; parts are evaluated on their own and results are merged by trace id.)
//! * A batch may leave out spans for which [`FetchSpec::spans`] is false and traces for which one of
//!   [`FetchSpec::traces`] is true for none of its spans. It may always contain more.
//! * Everything is synchronous: a source that waits for IO does so inside `next` and `load`, on a thread meant for it.

use std::{ops::Range, sync::Arc};

use crate::{column::Column, condition::Predicate, field::Field};

/// Names a span for a second pass. Opaque to the engine, meaningful only to the cursor that issued it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanHandle(pub u64);

/// Nanoseconds since the epoch, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant.
    pub start_ns: u64,
    /// Last instant.
    pub end_ns: u64,
}

impl TimeRange {
    /// Whether `start_ns..=end_ns` has an instant in common with the range.
    #[must_use]
    pub fn overlaps(&self, start_ns: u64, end_ns: u64) -> bool {
        start_ns <= self.end_ns && end_ns >= self.start_ns
    }
}

/// Which parts of [`TraceInfo`] beyond id and span range have to be filled; the others may be left at their default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFields {
    /// `start_ns`, `duration_ns`.
    pub times: bool,
    /// `root_name`, `root_service`.
    pub root: bool,
    /// `service_stats`.
    pub service_stats: bool,
}

impl TraceFields {
    /// All of them.
    pub const ALL: Self = Self { times: true, root: true, service_stats: true };

    /// What either asks for.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            times: self.times || other.times,
            root: self.root || other.root,
            service_stats: self.service_stats || other.service_stats,
        }
    }
}

/// What the first pass has to deliver.
#[derive(Clone, Debug)]
pub struct FetchSpec {
    /// Columns wanted; `SpanBatch::columns` has the same order. Only span-, event- and link-level fields with a
    /// concrete scope: an unscoped `.x` appears as `span.x` and `resource.x`, trace-level intrinsics are asked by
    /// `trace_fields`, nested-set numbers by `structure`, `parent` never appears.
    pub fields: Vec<Field>,
    /// A span for which this is false is of no use.
    pub spans: Predicate,
    /// A trace is of no use unless for *each* entry some span of it may satisfy the entry. Empty: no such demand.
    pub traces: Vec<Predicate>,
    /// Only traces whose stored time range overlaps; `None`: all.
    pub window: Option<TimeRange>,
    /// Whether [`TraceInfo::id`] is wanted; a source that has it anyway fills it all the same.
    pub ids: bool,
    /// What else to fill in [`TraceInfo`].
    pub trace_fields: TraceFields,
    /// Whether [`SpanBatch::structure`] is wanted.
    pub structure: bool,
    /// Deliver everything stored for the spans in [`SpanBatch::everything`] (used by `compare`).
    pub select_all: bool,
    /// Only the newest results are shown: a source that can delivers newer traces in earlier batches, and leaves out those
    /// named by [`Cursor::ignore_before`].
    pub newest_first: bool,
}

impl FetchSpec {
    /// A spec that asks for `fields` of every span.
    #[must_use]
    pub fn of(fields: Vec<Field>) -> Self {
        Self {
            fields,
            spans: Predicate::Always,
            traces: Vec::new(),
            window: None,
            ids: true,
            trace_fields: TraceFields::default(),
            structure: false,
            select_all: false,
            newest_first: false,
        }
    }
}

/// Spans and errors of one service in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStat {
    /// `service.name`.
    pub service: Arc<str>,
    /// Spans of the stored trace.
    pub spans: u32,
    /// Those of them with status error.
    pub errors: u32,
}

/// One trace of a batch. Its facts are those of the *whole stored trace*, also when the batch holds only some of its
/// spans.
#[derive(Clone, Debug, Default)]
pub struct TraceInfo {
    /// Trace id, big-endian, left-padded with zeros.
    pub id: [u8; 16],
    /// Rows of this trace in the batch; empty in the answer of [`Cursor::load`].
    pub spans: Range<u32>,
    /// Earliest span start, nanoseconds since the epoch.
    pub start_ns: u64,
    /// Latest span end minus earliest span start.
    pub duration_ns: u64,
    /// Name of the root span; empty if there is none.
    pub root_name: Arc<str>,
    /// Service of the root span; empty if there is none.
    pub root_service: Arc<str>,
    /// In any order, each service once.
    pub service_stats: Arc<[ServiceStat]>,
}

/// Nested-set numbers, one each per span of the batch. All three are 0 when the position is unknown.
#[derive(Clone, Debug, Default)]
pub struct Structure {
    /// Entry number.
    pub left: Vec<i32>,
    /// Exit number.
    pub right: Vec<i32>,
    /// Entry number of the parent, -1 for a root.
    pub parent: Vec<i32>,
}

/// Which events (or links) belong to which span: those of span `i` are the rows `self[i]..self[i + 1]` of every
/// event-level (link-level) column. Span count plus one entries, ascending, the first is 0.
pub type Offsets = Vec<u32>;

/// Spans of whole traces in columns.
#[derive(Clone, Debug, Default)]
pub struct SpanBatch {
    /// In storage order; their `spans` ranges follow each other without gaps and cover all rows.
    pub traces: Vec<TraceInfo>,
    /// One per span; names the span in a second pass.
    pub handles: Vec<SpanHandle>,
    /// Parallel to [`FetchSpec::fields`].
    pub columns: Vec<Column>,
    /// Present when asked for.
    pub structure: Option<Structure>,
    /// Present when an event-level field was asked for.
    pub events: Option<Offsets>,
    /// Present when a link-level field was asked for.
    pub links: Option<Offsets>,
    /// With [`FetchSpec::select_all`]: span-level fields with their columns, each field once, every attribute and
    /// intrinsic that some span of the batch has.
    pub everything: Vec<(Field, Column)>,
}

impl SpanBatch {
    /// Number of spans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// True without spans.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }
}

/// What the second pass has to deliver for chosen traces and spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadSpec {
    /// As in [`FetchSpec::fields`].
    pub fields: Vec<Field>,
    /// As in [`FetchSpec::trace_fields`].
    pub trace_fields: TraceFields,
}

/// Answer of a second pass.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// One per requested trace, in the order of the request, with an empty `spans` range.
    pub traces: Vec<TraceInfo>,
    /// Parallel to [`LoadSpec::fields`]; span-level columns have one row per requested span, in that order.
    pub columns: Vec<Column>,
    /// Offsets per requested span, present when an event-level field was asked for.
    pub events: Option<Offsets>,
    /// Offsets per requested span, present when a link-level field was asked for.
    pub links: Option<Offsets>,
}

/// What reading cost; all counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Bytes read from the store.
    pub bytes: u64,
    /// Traces looked at.
    pub traces: u64,
    /// Spans looked at.
    pub spans: u64,
}

/// Why data could not be read. The engine passes it on unchanged.
#[derive(Debug, thiserror::Error)]
#[error("fetch spans")]
pub struct FetchError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Something that holds spans.
pub trait Source {
    /// The cursor over one fetch.
    type Cursor<'a>: Cursor
    where
        Self: 'a;

    /// Begins a fetch. Reading may start at once or with the first `next`.
    ///
    /// # Errors
    /// When the data cannot be opened.
    fn fetch(&self, spec: &FetchSpec) -> Result<Self::Cursor<'_>, FetchError>;
}

/// One running fetch. Dropping it ends the fetch.
pub trait Cursor {
    /// The next batch, `None` at the end. Batches may be empty.
    ///
    /// # Errors
    /// When reading fails; the cursor is then of no further use.
    fn next(&mut self) -> Result<Option<SpanBatch>, FetchError>;

    /// Second pass over traces (by index into the latest batch's `traces`) and spans (by handle) of the **latest**
    /// batch. Both lists are ascending and without repeats. The engine asks for few spans of few traces.
    ///
    /// # Errors
    /// When reading fails.
    fn load(&mut self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded, FetchError>;

    /// Traces that start before this instant are of no use from now on. Sources that cannot tell go on delivering them.
    fn ignore_before(&mut self, _start_ns: u64) {}

    /// What the fetch has cost so far.
    fn stats(&self) -> FetchStats;
}

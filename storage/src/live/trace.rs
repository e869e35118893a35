//! One live trace, as it was at one moment.

use std::sync::OnceLock;

use bytes::Bytes;
use vivace_protocol::TraceId;
use vivace_traceql::TimeRange;

use super::{
    walk::{ResourceView, TraceView, Way},
    wants::Wants,
};

/// Its id and its slices in order of arrival. Never changed: with another slice it is another one.
#[derive(Debug, Clone)]
pub struct LiveTrace {
    id: TraceId,
    parts: Vec<Bytes>,
    bytes: u64,
    bounds: OnceLock<Bounds>,
}

/// When a trace is, and what saves walking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) start: u64,
    pub(super) end: u64,
    /// A span comes more than once.
    pub(super) repeats: bool,
    /// False when its bytes are damaged: then nothing is known of it, and whoever reads it meets the error.
    pub(super) readable: bool,
}

impl Bounds {
    pub(super) fn overlaps(&self, window: Option<TimeRange>) -> bool {
        !self.readable || window.is_none_or(|window| window.overlaps(self.start, self.end))
    }
}

impl LiveTrace {
    /// Each part is an encoded `tempopb.Trace`. Parts are shared, not copied. A span that comes more than once (same id, kind and
    /// start) is seen once.
    #[must_use]
    pub fn new(id: TraceId, parts: Vec<Bytes>) -> Self {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        Self { id, parts, bytes, bounds: OnceLock::new() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// Its slices.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Bytes of its slices.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Walks the trace the first time.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds_by(&mut TraceView::default())
    }

    /// As [`Self::bounds`], for several traces in a row: `view` is what the walk works with.
    pub(super) fn bounds_by<'a>(&'a self, view: &mut TraceView<'a>) -> Bounds {
        *self.bounds.get_or_init(|| {
            let parts = self.parts.iter().map(|part| &part[..]);
            let way = Way { wants: &Wants::default(), unique: false, pass_over: |_: &ResourceView<'_>| Ok(false) };
            match view.walk(parts, &way) {
                Ok(()) => {
                    let (start, end) = view.bounds();
                    Bounds { start, end, repeats: view.repeats > 0, readable: true }
                }
                Err(_damaged) => Bounds { start: u64::MAX, end: u64::MAX, repeats: true, readable: false },
            }
        })
    }
}

//! One tenant's traces that are still collecting.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use smallvec::SmallVec;
use vivace_protocol::TraceId;
use vivace_storage::{LivePart, LiveTrace};

use super::groups::{GroupRules, Groups, Number};
use super::noted::{Noted, Pieces};
use super::partition::Rules;

/// Looking for traces that have stopped growing costs a pass over the head: at most so often.
const SETTLE_EVERY_MS: i64 = 1_000;

#[derive(Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

/// A trace.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pieces: SmallVec<[Piece; 2]>,
    pub(super) bytes: usize,
    pub(super) born_ms: i64,
    pub(super) touched_ms: i64,
    /// Since when it counts as live; one that stopped growing does not, although it is still held.
    pub(super) live_since_ms: Option<i64>,
    /// Where queries see it; none before its first piece.
    pub(super) group: Option<Number>,
    /// As queries see it, once one has and until it grows.
    shared: Option<Arc<LiveTrace>>,
    /// For who reads it page by page.
    noted: OnceLock<Arc<Noted>>,
}

impl Held {
    pub(super) fn new(time_ms: i64) -> Self {
        Self {
            pieces: SmallVec::new(),
            bytes: 0,
            born_ms: time_ms,
            touched_ms: time_ms,
            live_since_ms: None,
            group: None,
            shared: None,
            noted: OnceLock::new(),
        }
    }

    /// A piece was filed.
    #[inline]
    pub(super) fn push(&mut self, piece: Piece) {
        self.bytes += piece.bytes.len();
        self.pieces.push(piece);
        self.shared = None;
    }

    pub(super) fn pieces(&self) -> Pieces {
        let noted = Arc::clone(self.noted.get_or_init(Arc::default));
        Pieces { bytes: self.pieces.iter().map(|piece| piece.bytes.clone()).collect(), noted }
    }

    pub(super) fn shared(&mut self, id: &TraceId) -> Arc<LiveTrace> {
        let shared = self.shared.get_or_insert_with(|| {
            Arc::new(LiveTrace::new(*id, self.pieces.iter().map(|piece| piece.bytes.clone()).collect()))
        });
        Arc::clone(shared)
    }
}

#[derive(Debug)]
pub(super) struct Head {
    pub(super) traces: HashMap<TraceId, Held>,
    pub(super) bytes: usize,
    pub(super) received_ms: Option<(i64, i64)>,
    /// Traces that count as live, at most so many: those that stopped growing are found when it matters.
    pub(super) live: usize,
    settled_ms: Option<i64>,
    pub(super) groups: Groups,
}

impl Head {
    pub(super) fn new(groups: GroupRules) -> Self {
        Self {
            traces: HashMap::new(),
            bytes: 0,
            received_ms: None,
            live: 0,
            settled_ms: None,
            groups: Groups::new(groups),
        }
    }

    /// Whether a piece of this trace makes no live trace too many.
    pub(super) fn admits(&mut self, id: &TraceId, max_live: usize, now_ms: i64, rules: &Rules) -> bool {
        if max_live == 0 || self.live < max_live {
            return true;
        }
        if self.settled_ms.is_none_or(|last| now_ms - last >= SETTLE_EVERY_MS) {
            self.settled_ms = Some(now_ms);
            self.settle(now_ms, rules);
        }
        self.live < max_live || self.traces.get(id).is_some_and(|trace| trace.live_since_ms.is_some())
    }

    /// Traces that have stopped growing are not live any more.
    fn settle(&mut self, now_ms: i64, rules: &Rules) {
        for trace in self.traces.values_mut() {
            let growing = |since| rules.growing(trace.touched_ms, since, now_ms);
            if trace.live_since_ms.is_some_and(|since| !growing(since)) {
                trace.live_since_ms = None;
                self.live -= 1;
            }
        }
    }

    /// Groups what is left after a cut.
    pub(super) fn regroup(&mut self) {
        self.groups = Groups::new(self.groups.rules());
        for (id, trace) in &mut self.traces {
            trace.group = None;
            if !trace.pieces.is_empty() {
                self.groups.grow(id, &mut trace.group, trace.bytes);
            }
        }
    }

    /// What queries see of it.
    pub(super) fn parts(&mut self) -> Vec<LivePart> {
        self.groups.parts(&mut self.traces)
    }
}

//! What one partition delivered and no block covers yet.
//!
//! `Partition` consumes records in the order of their offsets, answers look-ups and decides cuts. A span is in
//! exactly one place: the head (still collecting) or one of the closing cuts. Times are the records' own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vivace_protocol::wire::WireError;
use vivace_protocol::{TenantId, TraceId};

use super::groups::GroupRules;
use super::head::{Head, Held, Piece};
use super::{Cut, CutId, Ledger, PendingCut, Pieces, Snapshot, TenantCut, TraceParts};

/// When to cut. See the configuration keys of the same names.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) max_block_bytes: usize,
    /// Of one tenant, in the head; 0 is no limit.
    pub(crate) max_live_bytes: usize,
    pub(crate) max_block_duration: Duration,
    /// A head this old leaves whatever its size; a younger one only when it makes a block worth having.
    pub(crate) patience: Duration,
    pub(crate) max_trace_idle: Duration,
    pub(crate) max_trace_live: Duration,
    pub(crate) groups: GroupRules,
}

impl Rules {
    /// A block worth having.
    fn useful_bytes(&self) -> usize {
        self.max_block_bytes / 8
    }

    /// A full head keeps at most so much of what still grows, or one block a second would leave under load, each of what
    /// became idle in that second.
    fn kept_bytes(&self) -> usize {
        self.max_block_bytes / 4
    }

    /// Whether one tenant's head is as large as it may be.
    fn is_full(&self, bytes: usize) -> bool {
        self.max_live_bytes > 0 && bytes >= self.max_live_bytes
    }

    /// Whether a trace that was last touched and has begun at these times may still grow.
    pub(super) fn growing(&self, touched_ms: i64, since_ms: i64, now_ms: i64) -> bool {
        let within =
            |since: i64, limit: Duration| now_ms - since < i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        within(touched_ms, self.max_trace_idle) && within(since_ms, self.max_trace_live)
    }
}

/// Why a piece was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Discard {
    /// The trace would exceed the tenant's `max_bytes_per_trace`.
    TraceTooLarge,
    /// The tenant has as many live traces as `max_traces_per_user` allows.
    LiveTracesExceeded,
}

impl Discard {
    /// The label of `tempo_discarded_spans_total`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TraceTooLarge => "trace_too_large",
            Self::LiveTracesExceeded => "live_traces_exceeded",
        }
    }
}

/// What a tenant's traces may be; 0 is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TraceLimits {
    /// Bytes of one trace.
    pub(crate) max_bytes: usize,
    /// Traces that still grow: touched within `max_trace_idle` and not older than `max_trace_live`.
    pub(crate) max_live: usize,
}

/// What became of one record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) traces_created: usize,
    pub(crate) bytes: usize,
    /// Pieces that were not taken, with their spans.
    pub(crate) discarded: Vec<(TraceId, Discard, u64)>,
}

/// State of one partition. Offsets below `next` were applied.
#[derive(Debug)]
pub(crate) struct Partition {
    rules: Rules,
    next: u64,
    first: u64,
    next_number: u64,
    heads: HashMap<TenantId, Head>,
    head_bytes: usize,
    head_born_ms: Option<i64>,
    /// A tenant's head is as large as it may be.
    full: bool,
    closing: Vec<Arc<Cut>>,
    /// Traces that have come again while a closing cut held some of them. Cleared when no cut is closing.
    split: Vec<(TenantId, TraceId)>,
    /// While replaying: below this offset only the carried traces are wanted, each from its own offset on.
    covered: u64,
    carried: BTreeMap<(TenantId, TraceId), u64>,
    /// Cuts that an earlier run decided; they are made again at the same offsets.
    pending: Vec<PendingCut>,
    newest_ms: i64,
}

impl Partition {
    /// Starts from what the ledger remembers; the caller feeds records from `ledger.replay_from` on.
    ///
    /// # Errors
    /// Names the entry of the ledger that is not ours.
    pub(crate) fn recover(rules: Rules, ledger: &Ledger) -> Result<Self, String> {
        Ok(Self {
            rules,
            next: ledger.replay_from,
            first: ledger.covered,
            next_number: ledger.next_number,
            heads: HashMap::new(),
            head_bytes: 0,
            head_born_ms: None,
            full: false,
            closing: Vec::new(),
            split: Vec::new(),
            covered: ledger.covered,
            carried: Ledger::carried(&ledger.carried)?,
            pending: ledger.pending.clone(),
            newest_ms: 0,
        })
    }

    /// The next offset to apply.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Time of the newest record, unix milliseconds; 0 if there was none.
    pub(crate) fn newest_ms(&self) -> i64 {
        self.newest_ms
    }

    pub(crate) fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    pub(crate) fn closing(&self) -> &[Arc<Cut>] {
        &self.closing
    }

    /// (tenant, traces in the head), for gauges.
    pub(crate) fn live_traces(&self) -> impl Iterator<Item = (&TenantId, usize)> {
        self.heads.iter().map(|(tenant, head)| (tenant, head.traces.len()))
    }

    /// Takes one record. Offsets may have gaps, but never go back. What was carried over a cut is taken again whatever the
    /// limits on live traces are: it was admitted once.
    pub(crate) fn apply(
        &mut self,
        offset: u64,
        time_ms: i64,
        tenant: &TenantId,
        traces: impl Iterator<Item = (TraceId, Bytes)>,
        limits: TraceLimits,
    ) -> Applied {
        assert!(offset >= self.next, "record {offset} after {} had been applied", self.next);
        self.next = offset + 1;
        self.newest_ms = self.newest_ms.max(time_ms);
        let replaying = offset < self.covered;
        let mut applied = Applied::default();
        if !self.heads.contains_key(tenant) {
            self.heads.insert(tenant.clone(), Head::new(self.rules.groups));
        }
        let Some(head) = self.heads.get_mut(tenant) else { return applied };
        for (id, bytes) in traces {
            if replaying && self.carried.get(&(tenant.clone(), id)).is_none_or(|from| offset < *from) {
                continue;
            }
            if !replaying && !head.admits(&id, limits.max_live, time_ms, &self.rules) {
                applied.discarded.push((id, Discard::LiveTracesExceeded, count_spans(&bytes)));
                continue;
            }
            let trace = head.traces.entry(id).or_insert_with(|| {
                applied.traces_created += 1;
                if self.closing.iter().any(|cut| cut.has(tenant, &id)) {
                    self.split.push((tenant.clone(), id));
                }
                Held::new(time_ms)
            });
            if trace.live_since_ms.is_none() {
                trace.live_since_ms = Some(time_ms);
                head.live += 1;
            }
            if limits.max_bytes > 0 && trace.bytes + bytes.len() > limits.max_bytes {
                applied.discarded.push((id, Discard::TraceTooLarge, count_spans(&bytes)));
                continue;
            }
            trace.touched_ms = trace.touched_ms.max(time_ms);
            applied.bytes += bytes.len();
            head.groups.grow(&id, &mut trace.group, bytes.len());
            trace.push(Piece { offset, bytes });
        }
        if applied.bytes > 0 {
            self.head_bytes += applied.bytes;
            head.bytes += applied.bytes;
            self.full |= self.rules.is_full(head.bytes);
            self.head_born_ms.get_or_insert(time_ms);
            let (from, to) = head.received_ms.unwrap_or((time_ms, time_ms));
            head.received_ms = Some((from.min(time_ms), to.max(time_ms)));
        }
        applied
    }

    /// A record that is passed over (set aside, or not a trace record).
    pub(crate) fn skip(&mut self, offset: u64) {
        self.next = self.next.max(offset + 1);
    }

    /// The log has lost its end and gives the offsets from `end` on again.
    pub(crate) fn went_back(&mut self, end: u64) {
        self.next = self.next.min(end);
        self.first = self.first.min(end);
        self.covered = self.covered.min(end);
    }

    /// The cut that an earlier run decided at exactly this point of the log, if there is one.
    pub(crate) fn repeat_cut(&mut self) -> Result<Option<Arc<Cut>>, String> {
        if self.pending.first().is_none_or(|p| self.next < p.id.end) {
            return Ok(None);
        }
        let pending = self.pending.remove(0);
        let carried = Ledger::carried(&pending.carried)?;
        Ok(Some(self.close(pending.id, |tenant, id, _| carried.contains_key(&(tenant.clone(), *id)))))
    }

    /// The offset at which [`Partition::repeat_cut`] must be asked again; records beyond must wait.
    pub(crate) fn next_repeat(&self) -> Option<u64> {
        self.pending.first().map(|p| p.id.end)
    }

    /// Whether what comes was there before, and only the pieces of carried traces are taken.
    pub(crate) fn is_replaying(&self) -> bool {
        self.next < self.covered
    }

    /// The log is gone: what is not read again of it never will be.
    pub(crate) fn end_replay(&mut self) {
        self.next = self.next.max(self.covered);
    }

    /// Whether the head is as large as it may be: in all, or of one tenant.
    pub(crate) fn is_full(&self) -> bool {
        self.full || self.head_bytes >= self.rules.max_block_bytes
    }

    /// Why a cut is due now, in the words of `tempo_live_store_blocks_cut_total`; none if it is not.
    pub(crate) fn cut_due(&self, now_ms: i64) -> Option<&'static str> {
        let born = self.head_born_ms.filter(|_| !self.is_replaying())?;
        let age = Duration::from_millis(u64::try_from(now_ms - born).unwrap_or(0));
        if self.is_full() {
            return Some("max_block_bytes");
        }
        let useful = self.head_bytes >= self.rules.useful_bytes();
        let old = (age >= self.rules.max_block_duration && useful) || age >= self.rules.patience;
        old.then_some("max_block_duration")
    }

    /// Closes the head. Traces that are still growing are carried into the next cut, unless `everything` is set (the
    /// process ends) or they have lived for too long. Of a full head only the latest touched are carried.
    ///
    /// `None` when there is nothing to cut, or when the pieces of carried traces are not all there again: a cut among them would
    /// cover less than is covered.
    pub(crate) fn cut(&mut self, now_ms: i64, everything: bool) -> Option<Arc<Cut>> {
        self.head_born_ms.filter(|_| !self.is_replaying())?;
        let rules = self.rules.clone();
        let id = CutId { number: self.next_number, first: self.first, end: self.next };
        self.next_number += 1;
        let growing = |trace: &Held| !everything && rules.growing(trace.touched_ms, trace.born_ms, now_ms);
        let touched_until = if self.is_full() { self.least_recent(&growing) } else { i64::MIN };
        let stays = |trace: &Held| trace.touched_ms > touched_until && growing(trace);
        let any_leaves = self.heads.values().flat_map(|h| h.traces.values()).any(|t| !stays(t));
        // A head in which everything still grows but which is full leaves as a whole: memory is bounded, traces are not.
        Some(self.close(id, |_, _, trace| any_leaves && stays(trace)))
    }

    /// The time up to which growing traces have to leave, so that no more stay than a full head may keep.
    fn least_recent(&self, growing: &impl Fn(&Held) -> bool) -> i64 {
        let all = self.heads.values().flat_map(|head| head.traces.values());
        let mut touched: Vec<(i64, usize)> =
            all.filter(|trace| growing(trace)).map(|trace| (trace.touched_ms, trace.bytes)).collect();
        touched.sort_unstable_by(|a, b| b.cmp(a));
        let mut kept = 0;
        let first_out = touched.into_iter().find(|(_, bytes)| {
            kept += bytes;
            kept > self.rules.kept_bytes()
        });
        first_out.map_or(i64::MIN, |(touched_ms, _)| touched_ms)
    }

    fn close(&mut self, id: CutId, keep: impl Fn(&TenantId, &TraceId, &Held) -> bool) -> Arc<Cut> {
        let mut cut = Cut { id, carried: BTreeMap::new(), replay_from: id.end, tenants: Vec::new(), bytes: 0 };
        let (mut kept_bytes, mut full) = (0, false);
        let mut kept_born: Option<i64> = None;
        for (tenant, head) in &mut self.heads {
            let leaving = head.traces.extract_if(|trace_id, trace| !keep(tenant, trace_id, trace));
            let mut traces: Vec<TraceParts> = leaving
                .filter(|(_, trace)| !trace.pieces.is_empty())
                .map(|(trace_id, trace)| {
                    cut.bytes += trace.bytes;
                    (trace_id, trace.pieces.into_iter().map(|piece| piece.bytes).collect())
                })
                .collect();
            head.bytes = head.traces.values().map(|trace| trace.bytes).sum();
            full |= self.rules.is_full(head.bytes);
            head.live = head.traces.values().filter(|trace| trace.live_since_ms.is_some()).count();
            for (trace_id, trace) in &head.traces {
                // The pieces that are held are the last ones: when a trace leaves, it leaves with all that it has.
                let from = trace.pieces.first().map_or(id.end, |piece| piece.offset);
                cut.carried.insert((tenant.clone(), *trace_id), from);
                cut.replay_from = cut.replay_from.min(from);
                kept_bytes += trace.bytes;
                kept_born = Some(kept_born.map_or(trace.born_ms, |born| born.min(trace.born_ms)));
            }
            let received_ms = head.received_ms.unwrap_or_default();
            if head.traces.is_empty() {
                head.received_ms = None;
            }
            if !traces.is_empty() {
                traces.sort_unstable_by_key(|(trace_id, _)| *trace_id);
                cut.tenants.push(TenantCut::new(tenant.clone(), traces, received_ms));
            }
            head.regroup();
        }
        self.heads.retain(|_, head| !head.traces.is_empty());
        self.head_bytes = kept_bytes;
        self.full = full;
        self.head_born_ms = kept_born;
        self.first = id.end;
        self.covered = id.end;
        self.carried.clone_from(&cut.carried);
        cut.tenants.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let cut = Arc::new(cut);
        self.closing.push(Arc::clone(&cut));
        cut
    }

    /// The blocks of this cut can be read elsewhere now.
    pub(crate) fn published(&mut self, id: CutId) {
        self.closing.retain(|cut| cut.id != id);
        if self.closing.is_empty() {
            self.split.clear();
        }
    }

    /// All pieces of one trace, in the order of the log.
    pub(crate) fn find(&self, tenant: &TenantId, id: &TraceId) -> Vec<Pieces> {
        let closing = self.closing.iter().filter_map(|cut| cut.find(tenant, id));
        let head = self.heads.get(tenant).and_then(|head| head.traces.get(id)).filter(|held| !held.pieces.is_empty());
        closing.chain(head.map(Held::pieces)).collect()
    }

    /// Everything of one tenant: the closing cuts as they are, and the head in groups, of which those that have not changed are the
    /// ones of the snapshot before.
    pub(crate) fn snapshot(&mut self, tenant: &TenantId) -> Snapshot {
        let head = self.heads.get_mut(tenant).map_or_else(Vec::new, Head::parts);
        let mut split: Vec<TraceId> =
            self.split.iter().filter(|(of, _)| of == tenant).map(|(_, trace_id)| *trace_id).collect();
        split.sort_unstable();
        split.dedup();
        Snapshot { closing: self.closing.clone(), head, split }
    }
}

/// Spans in an encoded trace; what does not decode counts as none.
fn count_spans(trace: &Bytes) -> u64 {
    let mut spans = 0;
    vivace_protocol::trace_walk::for_each_span::<WireError>(trace, |_| {
        spans += 1;
        Ok(())
    })
    .ok();
    spans
}

//! The records of [first, end) of one partition, by tenant and trace, as encoded bytes.
//!
//! Bounded by bytes: what a section holds is what the process holds of records. Where it ends is decided while it grows, so two
//! builders may cut differently; which of the cuts counts is decided by the commit object.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use vivace_protocol::{TenantId, TraceId};
use vivace_storage::{Lost, Quarantined};

use super::chunks::Chunks;

/// When a section ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Bytes of records; one record alone may be larger.
    pub(crate) max_bytes: usize,
    /// Time between the first and the last record.
    pub(crate) window: Duration,
}

/// Bookkeeping charged for each piece of a trace.
const PIECE_BYTES: usize = 96;

/// The pieces of one trace, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct TraceParts {
    /// Each an encoded `tempopb.Trace`.
    pub(crate) parts: Vec<Bytes>,
    /// The offsets of the records that they are from.
    pub(crate) offsets: Vec<u64>,
    bytes: usize,
}

/// One tenant's traces.
#[derive(Debug, Default)]
pub(crate) struct TenantSection {
    pub(crate) traces: HashMap<TraceId, TraceParts>,
    /// Time of the first and the last record, unix milliseconds.
    pub(crate) received_ms: (i64, i64),
}

impl TenantSection {
    /// The traces by ascending id.
    pub(crate) fn sorted(&self) -> Vec<(TraceId, &[Bytes])> {
        let mut traces: Vec<_> = self.traces.iter().map(|(id, trace)| (*id, trace.parts.as_slice())).collect();
        traces.sort_unstable_by_key(|(id, _)| *id);
        traces
    }
}

/// What became of a record's traces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Pieces whose traces would have become too large.
    pub(crate) too_large: Vec<Bytes>,
}

/// The section.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) first: u64,
    /// The offset after the last one that is accounted for.
    pub(crate) end: u64,
    /// Bytes held.
    pub(crate) bytes: usize,
    pub(crate) records: u64,
    /// Copies that producers sent again.
    pub(crate) copies: u64,
    pub(crate) tenants: HashMap<TenantId, TenantSection>,
    pub(crate) quarantined: Vec<Quarantined>,
    pub(crate) lost: Vec<Lost>,
    /// Time of the first record and the newest, unix milliseconds.
    pub(crate) times_ms: Option<(i64, i64)>,
    /// Everything that the log had was taken.
    pub(crate) up_to_date: bool,
    /// What was seen of producers below `end`.
    pub(crate) producers: Vec<u8>,
    /// Where the bytes of traces are.
    chunks: Chunks,
}

impl Section {
    /// Empty, from `first` on.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            first,
            end: first,
            bytes: 0,
            records: 0,
            copies: 0,
            tenants: HashMap::new(),
            quarantined: Vec::new(),
            lost: Vec::new(),
            times_ms: None,
            up_to_date: false,
            producers: Vec::new(),
            chunks: Chunks::default(),
        }
    }

    /// Whether the next record still belongs here: `bytes` long, of time `time_ms`.
    pub(crate) fn takes(&self, bytes: usize, time_ms: i64, rules: Rules) -> bool {
        let window = i64::try_from(rules.window.as_millis()).unwrap_or(i64::MAX);
        let in_time = self.times_ms.is_none_or(|(first, _)| time_ms.saturating_sub(first) <= window);
        let fits = self.bytes == 0 || self.bytes.saturating_add(bytes) <= rules.max_bytes;
        in_time && fits
    }

    /// Takes a record that is first of its kind; what it holds is copied.
    pub(crate) fn admit(
        &mut self,
        offset: u64,
        time_ms: i64,
        tenant: &TenantId,
        traces: impl Iterator<Item = (TraceId, Bytes)>,
        max_trace_bytes: usize,
    ) -> Admitted {
        self.seen(offset, time_ms);
        if !self.tenants.contains_key(tenant) {
            self.tenants
                .insert(tenant.clone(), TenantSection { received_ms: (time_ms, time_ms), ..TenantSection::default() });
        }
        let mut admitted = Admitted::default();
        let Some(own) = self.tenants.get_mut(tenant) else { return admitted };
        own.received_ms = (own.received_ms.0.min(time_ms), own.received_ms.1.max(time_ms));
        for (id, bytes) in traces {
            let trace = own.traces.entry(id).or_default();
            if max_trace_bytes > 0 && trace.bytes + bytes.len() > max_trace_bytes {
                admitted.too_large.push(bytes);
                continue;
            }
            trace.bytes += bytes.len();
            self.bytes += bytes.len() + PIECE_BYTES;
            trace.offsets.push(offset);
            trace.parts.push(self.chunks.keep(&bytes));
        }
        admitted
    }

    /// Passes over a record that another one is the original of.
    pub(crate) fn pass_copy(&mut self, offset: u64, time_ms: i64) {
        self.copies += 1;
        self.seen(offset, time_ms);
    }

    /// Passes over a record that cannot be used.
    pub(crate) fn set_aside(&mut self, offset: u64, time_ms: i64, reason: String) {
        self.seen(offset, time_ms);
        self.quarantined.push(Quarantined { offset, reason });
    }

    /// Accounts for offsets whose records are gone.
    pub(crate) fn lose(&mut self, first: u64, end: u64, reason: &str) {
        if first < end {
            self.lost.push(Lost { first, end, reason: reason.to_owned() });
            self.end = self.end.max(end);
        }
    }

    fn seen(&mut self, offset: u64, time_ms: i64) {
        self.records += 1;
        self.end = self.end.max(offset + 1);
        let (first, newest) = self.times_ms.unwrap_or((time_ms, time_ms));
        self.times_ms = Some((first, newest.max(time_ms)));
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { max_bytes: 1_000, window: Duration::from_secs(10) };

    fn piece(id: u8, len: usize) -> (TraceId, Bytes) {
        (TraceId([id; 16]), Bytes::from(vec![id; len]))
    }

    #[test]
    fn it_ends_before_the_record_that_is_too_much_or_too_late() {
        let mut section = Section::new(5);
        assert!(section.takes(5_000, 0, RULES), "one record alone may be larger");
        section.admit(7, 1_000, &TenantId::single(), [piece(1, 600)].into_iter(), 0);
        assert!(section.takes(304, 11_000, RULES));
        assert!(!section.takes(305, 11_000, RULES));
        assert!(!section.takes(1, 11_001, RULES));
        assert_eq!((section.first, section.end), (5, 8));
    }

    #[test]
    fn every_record_moves_the_end_whatever_becomes_of_it() {
        let mut section = Section::new(0);
        assert!(section.is_empty());
        section.lose(0, 3, "gone");
        section.pass_copy(3, 10);
        section.set_aside(5, 20, "no record".into());
        assert_eq!((section.end, section.records, section.copies, section.bytes), (6, 2, 1, 0));
        assert_eq!(section.times_ms, Some((10, 20)));
        assert!(!section.is_empty());
    }

    #[test]
    fn traces_are_sorted_and_bounded() {
        let mut section = Section::new(0);
        let tenant = TenantId::single();
        section.admit(0, 0, &tenant, [piece(9, 10), piece(2, 10)].into_iter(), 15);
        let admitted = section.admit(1, 7, &tenant, [piece(9, 6), piece(2, 5)].into_iter(), 15);
        assert_eq!(admitted.too_large.len(), 1);
        let own = &section.tenants[&tenant];
        let sorted: Vec<_> = own.sorted().into_iter().map(|(id, parts)| (id.0[0], parts.len())).collect();
        assert_eq!((sorted, own.received_ms), (vec![(2, 2), (9, 1)], (0, 7)));
        assert_eq!(own.traces[&TraceId([2; 16])].offsets, [0, 1]);
    }
}

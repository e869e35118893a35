//! What the live-store remembers on disk about one partition, so that a restart continues where it was.
//!
//! The order of events makes it crash-safe: the pending cut is written *before* its blocks are built, and cleared
//! *after* they are durable. A restart with a pending cut replays the log and cuts at exactly the same offset with
//! the same carried traces, so the same block ids get the same content.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vivace_protocol::{TenantId, TraceId};

use super::{Cut, CutId};

/// A cut that was decided and may or may not have become blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingCut {
    pub(crate) id: CutId,
    /// Traces left out of it, as (tenant, hex trace id).
    pub(crate) carried: Vec<(String, String)>,
    pub(crate) replay_from: u64,
}

/// The record on disk. All offsets are of one partition of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// The number of the next cut.
    pub(crate) next_number: u64,
    /// Everything below is in durable blocks, except the carried traces.
    pub(crate) covered: u64,
    /// Where a replay starts: the oldest piece of a carried trace, or `covered`.
    pub(crate) replay_from: u64,
    /// Traces with pieces below `covered` that are not in a block yet, as (tenant, hex trace id).
    pub(crate) carried: Vec<(String, String)>,
    /// Cuts on their way, oldest first; each starts where the one before ends.
    pub(crate) pending: Vec<PendingCut>,
    /// Records set aside because they panicked the consumer twice: (offset, reason).
    #[serde(default)]
    pub(crate) quarantined: Vec<(u64, String)>,
}

impl Ledger {
    /// A cut was made; must be on disk before its first block is written.
    pub(crate) fn begin(&mut self, cut: &Cut) {
        let carried = cut.carried.iter().map(|(t, id)| (t.to_string(), id.to_string())).collect();
        self.next_number = cut.id.number + 1;
        self.pending.push(PendingCut { id: cut.id, carried, replay_from: cut.replay_from });
    }

    /// The cuts with these numbers are durable. Returns the offset below which the log may be reclaimed.
    ///
    /// Cuts become durable in any order, but count only from the oldest on.
    pub(crate) fn complete(&mut self, done: &BTreeSet<u64>) -> u64 {
        while let Some(first) = self.pending.first() {
            if !done.contains(&first.id.number) {
                break;
            }
            let cut = self.pending.remove(0);
            self.covered = cut.id.end;
            self.replay_from = cut.replay_from;
            self.carried = cut.carried;
        }
        self.replay_from
    }

    /// The carried traces, parsed. An id that does not parse was not written by us and is reported by name.
    pub(crate) fn carried(list: &[(String, String)]) -> Result<BTreeSet<(TenantId, TraceId)>, String> {
        list.iter()
            .map(|(tenant, id)| {
                let tenant_id = TenantId::parse(tenant).map_err(|e| format!("tenant {tenant:?}: {e}"))?;
                let trace_id = TraceId::parse_hex(id).map_err(|e| format!("trace {id:?}: {e}"))?;
                Ok((tenant_id, trace_id))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(number: u64, first: u64, end: u64, replay_from: u64) -> Cut {
        Cut { id: CutId { number, first, end }, carried: BTreeSet::new(), replay_from, tenants: Vec::new(), bytes: 0 }
    }

    #[test]
    fn cuts_count_as_durable_only_from_the_oldest_on() {
        let mut ledger = Ledger::default();
        ledger.begin(&cut(0, 0, 10, 8));
        ledger.begin(&cut(1, 10, 20, 20));
        assert_eq!(ledger.complete(&BTreeSet::from([1])), 0);
        assert_eq!(ledger.covered, 0);
        assert_eq!(ledger.complete(&BTreeSet::from([0, 1])), 20);
        assert_eq!((ledger.covered, ledger.pending.len()), (20, 0));
    }
}

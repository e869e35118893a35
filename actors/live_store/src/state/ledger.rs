//! What the live-store remembers on disk about one partition, so that a restart continues where it was.
//!
//! Where blocks go to a bucket that others read, the order of events makes it crash-safe: the pending cut is written *before*
//! its blocks are built, and cleared *after* they are durable. A restart with a pending cut replays the log and cuts at exactly
//! the same offset with the same carried traces, so the same block ids get the same content.
//!
//! Where blocks stay on the own disk, the ledger alone says which of them count: one write adds the blocks of a cut and moves
//! `covered` behind it. What else lies there is removed at the next start, and the log is read again from `replay_from`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vivace_log::Dedup;
use vivace_protocol::{TenantId, TraceId};

use super::{Copies, Cut, CutId};

/// At most so many losses are remembered; further ones widen the last.
const LOSSES_MAX: usize = 16;

/// A cut that was decided and may or may not have become blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingCut {
    pub(crate) id: CutId,
    /// Traces left out of it.
    pub(crate) carried: Vec<Carried>,
    pub(crate) replay_from: u64,
    /// What was seen of producers below the end of the cut.
    #[serde(skip)]
    seen: Dedup,
    #[serde(skip)]
    copies: BTreeSet<u64>,
}

/// A trace that was still growing at a cut. On disk (tenant, hex trace id, offset); without the offset in earlier versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "CarriedForm", into = "CarriedForm")]
pub(crate) struct Carried {
    tenant: String,
    id: String,
    /// Of its first piece that is in no block.
    from: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CarriedForm {
    From(String, String, u64),
    Always(String, String),
}

impl From<CarriedForm> for Carried {
    fn from(form: CarriedForm) -> Self {
        match form {
            CarriedForm::From(tenant, id, from) => Self { tenant, id, from },
            CarriedForm::Always(tenant, id) => Self { tenant, id, from: 0 },
        }
    }
}

impl From<Carried> for CarriedForm {
    fn from(Carried { tenant, id, from }: Carried) -> Self {
        Self::From(tenant, id, from)
    }
}

/// A block on the own disk that counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Shelved {
    pub(crate) tenant: String,
    pub(crate) id: Uuid,
    /// Time of the last record that went into it, unix milliseconds.
    pub(crate) until_ms: i64,
}

/// Offsets that were removed from the log before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loss {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// When it was noticed, unix milliseconds.
    pub(crate) at_ms: i64,
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
    /// Traces with pieces below `covered` that are not in a block yet.
    pub(crate) carried: Vec<Carried>,
    /// Cuts on their way, oldest first; each starts where the one before ends.
    pub(crate) pending: Vec<PendingCut>,
    /// Records set aside because they panicked the consumer twice: (offset, reason).
    #[serde(default)]
    pub(crate) quarantined: Vec<(u64, String)>,
    /// The log that the offsets belong to. Empty where the log lies beside the ledger, and on a new disk.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) log: String,
    /// How often a consumer began with this ledger: part of the names of blocks on the own disk.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) generation: u64,
    /// The blocks on the own disk that count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocks: Vec<Shelved>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lost: Vec<Loss>,
    /// What was seen of producers below `covered`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(crate) seen: Dedup,
    /// Records from `replay_from` to `covered` that a producer had written before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) copies: BTreeSet<u64>,
    /// Blocks of cuts that are durable while an older cut's are not.
    #[serde(skip)]
    pub(super) finished: BTreeMap<u64, Vec<Shelved>>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_empty(seen: &Dedup) -> bool {
    *seen == Dedup::default()
}

impl Ledger {
    /// A cut was made. Where its blocks go to a bucket, this must be on disk before the first of them is written.
    pub(crate) fn begin(&mut self, cut: &Cut, copies: &Copies) {
        let carried = cut.carried.iter();
        let carried = carried.map(|((t, id), from)| Carried { tenant: t.to_string(), id: id.to_string(), from: *from });
        let carried = carried.collect();
        self.next_number = cut.id.number + 1;
        let (seen, copies) = copies.at_cut();
        self.pending.push(PendingCut { id: cut.id, carried, replay_from: cut.replay_from, seen, copies });
    }

    /// The blocks of a cut are durable; `blocks` are those that stay on the own disk. Returns the offset below which nothing is
    /// read again.
    ///
    /// Cuts become durable in any order, but count only from the oldest on.
    pub(crate) fn complete(&mut self, number: u64, blocks: Vec<Shelved>) -> u64 {
        self.finished.insert(number, blocks);
        while let Some(first) = self.pending.first()
            && let Some(blocks) = self.finished.remove(&first.id.number)
        {
            let cut = self.pending.remove(0);
            self.covered = cut.id.end;
            self.replay_from = cut.replay_from;
            self.carried = cut.carried;
            self.seen = cut.seen;
            self.copies = cut.copies;
            self.blocks.extend(blocks);
        }
        self.copies = self.copies.split_off(&self.replay_from);
        self.replay_from
    }

    /// The form for the disk where blocks stay there too: what is not complete is done again from the log.
    pub(crate) fn without_pending(&self) -> Self {
        Self { pending: Vec::new(), ..self.clone() }
    }

    /// Blocks whose last record is older than `before_ms` do not count any more; they are returned.
    pub(crate) fn expire(&mut self, before_ms: i64) -> Vec<Shelved> {
        self.lost.retain(|loss| loss.at_ms >= before_ms);
        self.blocks.extract_if(.., |block| block.until_ms < before_ms).collect()
    }

    /// Blocks that should be on the own disk are not: it is as good as empty. Returns those that are still there.
    pub(crate) fn forget_disk(&mut self) -> Vec<Shelved> {
        let blocks = std::mem::take(&mut self.blocks);
        *self = Self {
            next_number: self.next_number,
            generation: self.generation,
            quarantined: std::mem::take(&mut self.quarantined),
            ..Self::default()
        };
        blocks
    }

    /// The log has lost its end and gives the offsets from `end` on again.
    pub(crate) fn went_back(&mut self, end: u64) {
        self.covered = self.covered.min(end);
        self.replay_from = self.replay_from.min(end);
        for cut in &mut self.pending {
            cut.id.end = cut.id.end.min(end);
            cut.replay_from = cut.replay_from.min(end);
        }
    }

    /// Notes what was removed from the log before it was read.
    pub(crate) fn lose(&mut self, loss: Loss) {
        if self.lost.len() < LOSSES_MAX {
            self.lost.push(loss);
        } else if let Some(last) = self.lost.last_mut() {
            (last.to, last.at_ms) = (loss.to, loss.at_ms);
        }
    }

    /// The carried traces, parsed. An id that does not parse was not written by us and is reported by name.
    pub(crate) fn carried(list: &[Carried]) -> Result<BTreeMap<(TenantId, TraceId), u64>, String> {
        list.iter()
            .map(|Carried { tenant, id, from }| {
                let tenant_id = TenantId::parse(tenant).map_err(|e| format!("tenant {tenant:?}: {e}"))?;
                let trace_id = TraceId::parse_hex(id).map_err(|e| format!("trace {id:?}: {e}"))?;
                Ok(((tenant_id, trace_id), *from))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(number: u64, first: u64, end: u64, replay_from: u64) -> Cut {
        Cut { id: CutId { number, first, end }, carried: BTreeMap::new(), replay_from, tenants: Vec::new(), bytes: 0 }
    }

    fn block(number: u128, until_ms: i64) -> Shelved {
        Shelved { tenant: "t".to_owned(), id: Uuid::from_u128(number), until_ms }
    }

    #[test]
    fn cuts_count_as_durable_only_from_the_oldest_on() {
        let mut ledger = Ledger::default();
        let copies = Copies::recover(&ledger);
        ledger.begin(&cut(0, 0, 10, 8), &copies);
        ledger.begin(&cut(1, 10, 20, 20), &copies);
        assert_eq!(ledger.complete(1, vec![block(1, 5)]), 0);
        assert_eq!((ledger.covered, ledger.blocks.len()), (0, 0));
        assert_eq!(ledger.complete(0, vec![block(0, 4)]), 20);
        assert_eq!((ledger.covered, ledger.pending.len()), (20, 0));
        assert_eq!(ledger.blocks, [block(0, 4), block(1, 5)]);
        assert_eq!(ledger.expire(5), [block(0, 4)]);
        assert_eq!(ledger.blocks, [block(1, 5)]);
    }

    #[test]
    fn a_ledger_of_an_earlier_version_reads_and_one_beside_its_log_names_nothing_of_the_other_way() {
        let earlier = r#"{"next_number":3,"covered":9,"replay_from":7,"carried":[["a","00000000000000000000000000000001"]],"pending":[],"quarantined":[]}"#;
        let ledger: Ledger = serde_json::from_str(earlier).unwrap();
        assert_eq!((ledger.covered, ledger.carried.len(), ledger.log.as_str()), (9, 1, ""));
        let written = earlier.replace("001\"]", "001\",0]");
        assert_eq!(serde_json::to_string(&ledger).unwrap(), written);
        assert_eq!(serde_json::from_str::<Ledger>(&written).unwrap(), ledger);
    }

    #[test]
    fn losses_are_remembered_in_bounded_room() {
        let mut ledger = Ledger::default();
        for at in 0..40u64 {
            ledger.lose(Loss { from: 10 * at, to: 10 * at + 5, at_ms: 0 });
        }
        assert_eq!(ledger.lost.len(), LOSSES_MAX);
        assert_eq!(ledger.lost.last().map(|loss| (loss.from, loss.to)), Some((150, 395)));
        ledger.expire(1);
        assert!(ledger.lost.is_empty());
    }
}

//! A cut: the offsets [first, end) of one partition on their way into blocks, one block a tenant.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vivace_protocol::{TenantId, TraceId};
use vivace_storage::{LiveGroup, LiveTrace};

use super::noted::{Noted, Pieces};

/// One trace's pieces in the order of the log: each an encoded `tempopb.Trace`.
pub(crate) type TraceParts = (TraceId, Vec<Bytes>);

/// Name of a cut. The block ids follow from it, so a repeated attempt writes the same blocks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CutId {
    /// Counts the cuts of a partition. Offsets alone do not name a cut: while nothing arrives, traces that were carried may
    /// leave in several cuts of the same, empty range.
    pub(crate) number: u64,
    /// First offset that this cut covers.
    pub(crate) first: u64,
    /// First offset that it does not cover any more.
    pub(crate) end: u64,
}

/// Namespace of block ids that derive from the log; any fixed value does, this one was drawn once.
const BLOCK_NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_5ad0_93c7_4b0e_8a52_4f0c_71f6_2e9b);

impl CutId {
    /// The id of this cut's `part`-th block for one tenant: UUIDv5 over (log id, partition, number, first, end, tenant, part).
    pub(crate) fn block_id(&self, log_id: &str, partition: u32, tenant: &TenantId, part: u32) -> Uuid {
        let name = format!("{log_id}/{partition}/{}/{}/{}/{tenant}/{part}", self.number, self.first, self.end);
        Uuid::new_v5(&BLOCK_NAMESPACE, name.as_bytes())
    }
}

/// What one tenant contributes to a cut; `traces` are in ascending order of their ids, each id once.
#[derive(Debug)]
pub(crate) struct TenantCut {
    pub(crate) tenant: TenantId,
    pub(crate) traces: Vec<TraceParts>,
    /// Time of the first and the last record that contributed, unix milliseconds.
    pub(crate) received_ms: (i64, i64),
    groups: OnceLock<Vec<Arc<LiveGroup>>>,
    /// Of traces that somebody has asked for.
    noted: Mutex<HashMap<TraceId, Arc<Noted>>>,
}

/// A group of a cut has at least this much, unless it is the last.
const GROUP_BYTES: u64 = 32 << 20;

impl TenantCut {
    pub(crate) fn new(tenant: TenantId, traces: Vec<TraceParts>, received_ms: (i64, i64)) -> Self {
        Self { tenant, traces, received_ms, groups: OnceLock::new(), noted: Mutex::default() }
    }

    /// What queries see of it; put together the first time, which takes a fraction of a microsecond for each trace.
    fn groups(&self) -> &[Arc<LiveGroup>] {
        self.groups.get_or_init(|| {
            let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
            for (id, parts) in &self.traces {
                let trace = LiveTrace::new(*id, parts.clone());
                bytes += trace.bytes();
                group.push(Arc::new(trace));
                if bytes >= GROUP_BYTES {
                    groups.push(Arc::new(LiveGroup::new(std::mem::take(&mut group))));
                    bytes = 0;
                }
            }
            if !group.is_empty() {
                groups.push(Arc::new(LiveGroup::new(group)));
            }
            groups
        })
    }
}

/// A closed range of the log. Immutable: queries and the flusher share it.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) id: CutId,
    /// Traces that were still growing at the cut: what is held of them belongs to the next one, whole. With each the offset of its
    /// first piece that is held: older ones may have left in an earlier cut.
    pub(crate) carried: BTreeMap<(TenantId, TraceId), u64>,
    /// The oldest offset that a carried trace has a piece in, or `id.end`: nothing below is needed once this cut is
    /// durable.
    pub(crate) replay_from: u64,
    pub(crate) tenants: Vec<TenantCut>,
    /// Bytes of trace data held.
    pub(crate) bytes: usize,
}

impl Cut {
    fn locate(&self, tenant: &TenantId, id: &TraceId) -> Option<(&TenantCut, &[Bytes])> {
        let own = self.tenants.iter().find(|t| t.tenant == *tenant)?;
        let at = own.traces.binary_search_by(|(other, _)| other.cmp(id)).ok()?;
        Some((own, &own.traces[at].1))
    }

    /// Whether some of a trace is in this cut.
    pub(crate) fn has(&self, tenant: &TenantId, id: &TraceId) -> bool {
        self.locate(tenant, id).is_some()
    }

    /// The pieces of one trace, if it is in this cut.
    pub(crate) fn find(&self, tenant: &TenantId, id: &TraceId) -> Option<Pieces> {
        let (own, pieces) = self.locate(tenant, id)?;
        let noted = Arc::clone(own.noted.lock().entry(*id).or_default());
        Some(Pieces { bytes: pieces.to_vec(), noted })
    }

    /// All traces of one tenant in this cut, in groups.
    pub(crate) fn groups(&self, tenant: &TenantId) -> &[Arc<LiveGroup>] {
        self.tenants.iter().find(|t| t.tenant == *tenant).map_or(&[], TenantCut::groups)
    }

    /// All traces of one tenant in this cut.
    pub(crate) fn traces(&self, tenant: &TenantId) -> &[TraceParts] {
        self.tenants.iter().find(|t| t.tenant == *tenant).map_or(&[], |t| &t.traces)
    }
}

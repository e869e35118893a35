//! One tenant's data at one moment, for queries.

use std::sync::Arc;

use vivace_protocol::{TenantId, TraceId};
use vivace_storage::{LiveGroup, LivePart, LiveTrace, LiveView};

use super::Cut;

/// Taken in the owner's turn; what costs more than handing on pointers is left to [`Self::into_view`].
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) closing: Vec<Arc<Cut>>,
    pub(super) head: Vec<LivePart>,
    /// Traces of which there may be pieces in several cuts, or in a cut and the head; ascending.
    pub(super) split: Vec<TraceId>,
}

impl Snapshot {
    /// Every trace once, all its pieces together.
    pub(crate) fn into_view(self, tenant: &TenantId) -> LiveView {
        let closing = self.closing.iter().flat_map(|cut| cut.groups(tenant)).cloned().map(LivePart::whole);
        // In the order of the log, so that the pieces of a trace are.
        let mut parts: Vec<LivePart> = closing.chain(self.head).collect();
        let mut whole = Vec::new();
        let mut left_out: Vec<Vec<u32>> = vec![Vec::new(); parts.len()];
        for id in self.split {
            let seen = |part: &LivePart| {
                part.group.position(&id).filter(|position| part.without.binary_search(position).is_err())
            };
            let places: Vec<(usize, u32)> =
                parts.iter().enumerate().filter_map(|(number, part)| Some((number, seen(part)?))).collect();
            if places.len() < 2 {
                continue;
            }
            let mut pieces = Vec::new();
            for (number, position) in places {
                pieces.extend_from_slice(parts[number].group.traces()[position as usize].parts());
                left_out[number].push(position);
            }
            whole.push(Arc::new(LiveTrace::new(id, pieces)));
        }
        for (part, left_out) in parts.iter_mut().zip(left_out).filter(|(_, left_out)| !left_out.is_empty()) {
            let mut without: Vec<u32> = part.without.iter().copied().chain(left_out).collect();
            without.sort_unstable();
            part.without = without.into();
        }
        if !whole.is_empty() {
            parts.push(LivePart::whole(Arc::new(LiveGroup::new(whole))));
        }
        LiveView { parts }
    }
}

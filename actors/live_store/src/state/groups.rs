//! The traces of a head in groups, by when they got their last piece: what does not change is handed to queries as it is.
//!
//! Pieces go into the *open* group. When it has grown enough it is closed and another is opened; a trace of a closed group that gets
//! a piece moves into the open one. So whatever is asked again and again, only the open group is put together anew. Nothing is put
//! together before somebody asks.

use std::collections::HashMap;
use std::sync::Arc;

use vivace_protocol::TraceId;
use vivace_storage::{LiveGroup, LivePart, LiveTrace};

use super::head::Held;

/// Sizes of groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupRules {
    /// A group is closed when so much has come into it: little enough to be put together for every query.
    pub(crate) open_bytes: usize,
    pub(crate) open_traces: usize,
    /// Closed groups that nobody has asked for yet become one of up to so much.
    pub(crate) joined_bytes: usize,
}

impl Default for GroupRules {
    fn default() -> Self {
        Self { open_bytes: 4 << 20, open_traces: 8_192, joined_bytes: 32 << 20 }
    }
}

/// Names of groups: they ascend.
pub(super) type Number = u32;

/// The groups of one tenant's head.
#[derive(Debug)]
pub(super) struct Groups {
    rules: GroupRules,
    open: Number,
    /// Traces that came into the open group, in the order of arrival.
    members: Vec<TraceId>,
    bytes: usize,
    /// The open group as it was put together last; none once it has changed.
    built: Option<Arc<LiveGroup>>,
    /// By ascending numbers.
    closed: Vec<Closed>,
}

#[derive(Debug)]
struct Closed {
    /// Its numbers are those above that of the group before, up to this one.
    last: Number,
    /// Traces that came into it, until it is built; some have moved on.
    members: Vec<TraceId>,
    bytes: usize,
    /// Once somebody has asked.
    built: Option<LivePart>,
}

impl Groups {
    pub(super) fn new(rules: GroupRules) -> Self {
        Self { rules, open: 0, members: Vec::new(), bytes: 0, built: None, closed: Vec::new() }
    }

    pub(super) fn rules(&self) -> GroupRules {
        self.rules
    }

    /// A trace gets a piece of some bytes. `group` is the trace's, none before its first piece.
    #[inline]
    pub(super) fn grow(&mut self, id: &TraceId, group: &mut Option<Number>, bytes: usize) {
        if *group != Some(self.open) {
            if let Some(old) = *group {
                self.leave(id, old);
            }
            *group = Some(self.open);
            self.members.push(*id);
        }
        self.built = None;
        self.bytes += bytes;
        if self.bytes >= self.rules.open_bytes || self.members.len() >= self.rules.open_traces {
            self.close();
        }
    }

    fn close(&mut self) {
        let (members, bytes) = (std::mem::take(&mut self.members), std::mem::take(&mut self.bytes));
        self.closed.push(Closed { last: self.open, members, bytes, built: None });
        self.open += 1;
    }

    /// The trace is not seen in its closed group any more.
    fn leave(&mut self, id: &TraceId, group: Number) {
        let at = self.closed.partition_point(|closed| closed.last < group);
        let Some(part) = self.closed.get_mut(at).and_then(|closed| closed.built.as_mut()) else { return };
        let Some(position) = part.group.position(id) else { return };
        if let Err(place) = part.without.binary_search(&position) {
            let mut without = part.without.to_vec();
            without.insert(place, position);
            part.without = without.into();
        }
    }

    /// Every trace with its pieces, each in one part.
    pub(super) fn parts(&mut self, traces: &mut HashMap<TraceId, Held>) -> Vec<LivePart> {
        self.join();
        let mut first = 0;
        for closed in &mut self.closed {
            let last = closed.last;
            closed.built.get_or_insert_with(|| {
                let within = |held: &Held| held.group.is_some_and(|group| (first..=last).contains(&group));
                LivePart::whole(build(&closed.members, traces, within))
            });
            closed.members = Vec::new();
            first = last + 1;
        }
        // One that everything has left would only be looked at in vain. Its numbers pass to the next, which nobody leaves by them.
        self.closed.retain(|closed| closed.built.as_ref().is_none_or(|part| part.without.len() < part.group.len()));
        let open = self.open;
        let built = self.built.get_or_insert_with(|| build(&self.members, traces, |held| held.group == Some(open)));
        let parts = self.closed.iter().filter_map(|closed| closed.built.clone());
        parts.chain([LivePart::whole(Arc::clone(built))]).filter(|part| !part.group.is_empty()).collect()
    }

    /// Closed groups that nobody has asked for yet, and that are next to each other, become one.
    fn join(&mut self) {
        let mut joined: Vec<Closed> = Vec::with_capacity(self.closed.len());
        for closed in std::mem::take(&mut self.closed) {
            match joined.last_mut() {
                Some(before)
                    if before.built.is_none()
                        && closed.built.is_none()
                        && before.bytes + closed.bytes <= self.rules.joined_bytes =>
                {
                    before.last = closed.last;
                    before.members.extend(closed.members);
                    before.bytes += closed.bytes;
                }
                _ => joined.push(closed),
            }
        }
        self.closed = joined;
    }
}

/// The members that are (still) in the group.
fn build(members: &[TraceId], traces: &mut HashMap<TraceId, Held>, within: impl Fn(&Held) -> bool) -> Arc<LiveGroup> {
    let mut own: Vec<Arc<LiveTrace>> = Vec::with_capacity(members.len());
    for id in members {
        if let Some(held) = traces.get_mut(id)
            && within(held)
        {
            own.push(held.shared(id));
        }
    }
    Arc::new(LiveGroup::new(own))
}

#[cfg(test)]
mod tests;

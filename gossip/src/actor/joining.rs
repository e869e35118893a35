//! How a process comes into the cluster and into its rings: names are looked up for ever, and it registers once it has heard of a
//! former life of its own, or nobody is there to tell.

use std::net::SocketAddr;
use std::time::Duration;

use vivace_runtime::{Cx, Failure};

use super::Membership;
use crate::families::{Binds, Endpoints, Family};
use crate::ring::Candidate;
use crate::swim::Event;

/// Time between two rounds of lookups.
const LOOKUPS: Duration = Duration::from_secs(30);
const LOOKUPS_TROUBLED: Duration = Duration::from_secs(5);
/// The resolver of the system may try longer; meanwhile the page says what is the matter.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(6);

/// Where calls come back to this process.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) binds: Binds,
    pub(super) port: u16,
    pub(super) host: Vec<Candidate>,
    pub(super) endpoints: Endpoints,
}

impl Doors {
    fn lead_to(&self, address: SocketAddr) -> bool {
        let told = match Family::of(address) {
            Family::V4 => self.endpoints.v4,
            Family::V6 => self.endpoints.v6,
        };
        told == Some(address) || self.binds.hear(address, self.port, &self.host)
    }
}

/// Until the first whole exchange: rings are not registered in before that, or a record of a former life would win.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) patience: Duration,
    pub(super) fatal: bool,
}

impl Membership {
    /// Registers in the rings once there was an exchange, or there is nobody to exchange with, and what its records begin with
    /// is written down.
    pub(super) fn join(&mut self, cx: &mut Cx<Self>) {
        let Some(joining) = &self.joining else { return };
        let late = self.now(cx) >= joining.patience;
        let alone = self.discovery.names_only(|address| self.doors.lead_to(address));
        if !alone && !self.swim.has_exchanged() && !late {
            return;
        }
        if !alone && !self.swim.has_exchanged() && joining.fatal {
            let seeds = self.seeds();
            cx.fail(Failure::new(format!("memberlist.join_members: none of {seeds:?} could be joined")));
            return;
        }
        if self.keep_generations(cx) {
            return;
        }
        if !alone && !self.swim.has_exchanged() {
            let seeds = self.seeds();
            tracing::warn!(?seeds, "no member could be joined; the process goes on alone and keeps trying");
        }
        self.joining = None;
        let at = self.ring_now(cx);
        let keeper = &mut self.keeper;
        self.swim.update(|state| keeper.start(state, at));
        self.dirty = true;
    }

    fn seeds(&self) -> Vec<String> {
        self.discovery.views().map(|view| view.entry.clone()).collect()
    }

    /// Writes the generations of own records down, if that was not done. Answers whether it is being done.
    pub(super) fn keep_generations(&mut self, cx: &mut Cx<Self>) -> bool {
        let Some(generations) = &self.options.generations else { return false };
        let used = self.swim.with_state(|state| self.keeper.generations(state));
        if !self.keeping && generations.lacks(&used) {
            self.keeping = true;
            cx.spawn(generations.keep(used), |part, (), cx| {
                part.keeping = false;
                part.join(cx);
            });
        }
        self.keeping
    }

    pub(super) fn look_up(&mut self, cx: &mut Cx<Self>) {
        if self.discovery.is_empty() {
            return;
        }
        let lookup = self.discovery.look_up(&self.options.dns, LOOKUP_PATIENCE);
        cx.spawn(lookup, |part, found, cx| {
            let now = part.now(cx);
            let alone = part.swim.roster().up() <= 1;
            let seeds = part.discovery.take(now, found);
            part.happen(Event::Seeds(seeds), cx);
            let wait = if alone || part.discovery.troubled() { LOOKUPS_TROUBLED } else { LOOKUPS };
            cx.after(wait, |part, cx| part.look_up(cx));
        });
    }
}

//! Doubts: members are asked themselves before something bad is believed of them.
//!
//! - Our own probe failed: the suspect is told at once, by every prober, and once more halfway. Its objection is a higher
//!   incarnation.
//! - In a comparison somebody holds a member down that we hold up: the member is asked. If it is alive, it begins a new
//!   life, which beats what is said of the old one everywhere; if it stays silent, it is down here too. When a comparison
//!   brings many such claims, as after a split, a sample is asked: if nobody of it answers, all are believed; else only what
//!   was asked counts, and the others are asked by somebody else or found by probes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foca::{Member, State};

use super::{Due, Node, Swim};
use crate::sync::Replicated;

/// Members asked of one comparison's claims.
const SAMPLE: usize = 6;
/// Claims of other members that are examined at once.
const BATCHES_MAX: usize = 16;
/// News of a comparison up to which they are spread further by gossip; of more, others hear by comparing.
pub(super) const SPREAD_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Doubts {
    serial: u64,
    batches: BTreeMap<u64, Batch>,
    doubted: BTreeSet<u64>,
}

#[derive(Debug)]
struct Batch {
    claimed: Vec<Node>,
    asked: Vec<u64>,
    answered: usize,
}

impl Doubts {
    /// The member showed that it is alive, or is known to be down by another way.
    pub(super) fn resolve(&mut self, id: u64) {
        if !self.doubted.remove(&id) {
            return;
        }
        for batch in self.batches.values_mut().filter(|batch| batch.asked.contains(&id)) {
            batch.asked.retain(|asked| *asked != id);
            batch.answered += 1;
        }
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.doubted.contains(&id)
    }
}

impl<S: Replicated> Swim<S> {
    /// One of our probes failed: whatever foca spreads about it, the suspect hears it from us.
    pub(super) fn on_suspected(&mut self, now: Duration, suspect: &Node, incarnation: u16) {
        self.send_doubt(now, suspect, incarnation, false);
        self.timers.set(now + self.tuning.suspicion / 3, Due::SuspectStill(suspect.clone(), incarnation));
    }

    pub(super) fn on_suspect_still(&mut self, now: Duration, suspect: &Node, incarnation: u16) {
        let still = self.foca.iter_membership_state().any(|member| {
            member.id() == suspect && member.state() == State::Suspect && member.incarnation() == incarnation
        });
        if still {
            self.send_doubt_all_ways(now, suspect, incarnation);
        }
    }

    /// Somebody holds members down that we hold up.
    pub(super) fn on_claims(&mut self, now: Duration, claimed: Vec<Node>) {
        let mut claimed: Vec<_> = claimed.into_iter().filter(|node| !self.doubts.contains(node.id)).collect();
        if claimed.is_empty() || self.doubts.batches.len() >= BATCHES_MAX {
            return;
        }
        // A random sample: the first ones, after each was swapped with a random later one.
        let sample = SAMPLE.min(claimed.len());
        for place in 0..sample {
            let other = place + self.rng.index(claimed.len() - place);
            claimed.swap(place, other);
        }
        let asked: Vec<_> = claimed.iter().take(sample).cloned().collect();
        self.doubts.serial += 1;
        let batch = Batch { asked: asked.iter().map(|node| node.id).collect(), answered: 0, claimed };
        self.doubts.doubted.extend(&batch.asked);
        self.doubts.batches.insert(self.doubts.serial, batch);
        self.timers.set(now + self.tuning.suspicion, Due::DoubtsOver(self.doubts.serial));
        for node in asked {
            self.send_doubt(now, &node, 0, true);
        }
    }

    pub(super) fn on_doubts_over(&mut self, now: Duration, serial: u64) {
        let Some(batch) = self.doubts.batches.remove(&serial) else { return };
        for id in &batch.asked {
            self.doubts.doubted.remove(id);
        }
        let believed = |node: &Node| batch.answered == 0 || batch.asked.contains(&node.id);
        let down: Vec<_> = batch
            .claimed
            .iter()
            .filter(|node| believed(node) && self.roster.is_up(node))
            .map(|node| Member::down(node.clone()))
            .collect();
        let spread = down.len() <= SPREAD_MAX;
        self.learn(now, down, spread);
    }

    /// Somebody asks whether we are alive.
    pub(super) fn on_doubted(&mut self, now: Duration, sender: &Node, about: &Node, incarnation: u16, down: bool) {
        if about.id != self.node().id {
            // The address belonged to another process before.
            return;
        }
        if about == self.node() && !self.node().left {
            self.object(now, incarnation, if down { State::Down } else { State::Suspect });
        }
        self.go_above(now, about);
        self.send_proof_all_ways(now, sender);
    }

    /// A member says that it is alive.
    pub(super) fn on_proof(&mut self, now: Duration, node: Node, incarnation: u16) {
        if node.left {
            return;
        }
        self.doubts.resolve(node.id);
        self.learn(now, vec![Member::new(node, incarnation, State::Alive)], true);
    }
}

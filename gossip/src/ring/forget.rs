//! Forgetting members that are down for long, with a guard against forgetting everybody.
//!
//! A member is forgotten after twice the heartbeat timeout, measured by this process from the moment that it first saw
//! the member down. When more members of the ring are down than up, it is more likely that this process is cut off than
//! that they all died: then nobody is forgotten, and the page says so.

use std::collections::HashMap;
use std::time::Duration;

use super::view::{RingEntry, RingView};
use crate::state::{GraveReason, Key, Record};

/// Decides whom to forget in one ring. Run by the members of that ring.
#[derive(Debug, Clone)]
pub struct Forgetter {
    ring: String,
    by: String,
    after: Duration,
    down_since: HashMap<Key, (Position, Duration)>,
}

/// Which process, which life, which change.
type Position = (u64, u64, u64);

/// What came of one look at the ring.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgetting {
    /// Graves to put into the state.
    pub graves: Vec<Record>,
    /// Members that are overdue but kept, because most of the ring is down as seen from here.
    pub held: Vec<String>,
}

impl Forgetter {
    /// For the members of `ring`; `by` is written on the graves.
    #[must_use]
    pub fn new(ring: &str, by: &str, heartbeat_timeout: Duration) -> Self {
        Self { ring: ring.into(), by: by.into(), after: heartbeat_timeout * 2, down_since: HashMap::new() }
    }

    /// How long ago this process first saw a member down.
    #[must_use]
    pub fn down_for(&self, key: &Key, now: Duration) -> Option<Duration> {
        self.down_since.get(key).map(|(_, since)| now.saturating_sub(*since))
    }

    /// Looks at the ring at `now` on this process's monotonic clock.
    pub fn look(&mut self, view: &RingView, now: Duration) -> Forgetting {
        let members = view.entries().iter().map(|entry| (Key::instance(&self.ring, &entry.id), entry));
        let rivals = view.all_rivals().iter().map(|entry| (Key::rival(&self.ring, &entry.id, entry.nonce), entry));
        let all: Vec<(Key, &RingEntry)> = members.chain(rivals).collect();
        let mut down: HashMap<Key, (Position, Duration)> = HashMap::new();
        let mut overdue = Vec::new();
        for (key, entry) in &all {
            if entry.is_healthy() {
                continue;
            }
            let position = (entry.nonce, entry.generation, entry.version);
            // A change by the member is a sign of life: its time begins anew.
            let since = match self.down_since.get(key) {
                Some((seen, since)) if *seen == position => *since,
                _ => now,
            };
            down.insert(key.clone(), (position, since));
            if now.saturating_sub(since) >= self.after {
                overdue.push((key, *entry));
            }
        }
        self.down_since = down;
        let up = view.entries().iter().filter(|entry| entry.is_healthy()).count();
        if view.entries().len() - up > up {
            return Forgetting {
                held: overdue.iter().map(|(_, entry)| entry.id.to_string()).collect(),
                ..Default::default()
            };
        }
        let graves = overdue.into_iter().filter_map(|(key, entry)| grave(key, entry, GraveReason::Expired, &self.by));
        Forgetting { graves: graves.collect(), held: Vec::new() }
    }
}

/// The grave of a member as it was seen: anything newer from it beats this.
pub(crate) fn grave(key: &Key, entry: &RingEntry, reason: GraveReason, by: &str) -> Option<Record> {
    let claim = crate::state::Claim {
        generation: entry.generation,
        version: entry.version,
        nonce: entry.nonce,
        body: crate::state::Body::Live(std::sync::Arc::clone(&entry.instance)),
    };
    // A grave is smaller than the description that it replaces, unless the name on it is absurdly long.
    Record::claim(key.clone(), claim.buried(reason, by)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{RING, crowd, minutes};
    use super::*;

    #[test]
    fn who_is_down_for_twice_the_timeout_is_forgotten() {
        let mut crowd = crowd(4);
        let mut forgetter = Forgetter::new(RING, "live-store-0", minutes(1));
        crowd.kill(3);
        assert_eq!(forgetter.look(&crowd.view(), minutes(10)), Forgetting::default());
        assert_eq!(forgetter.down_for(&crowd.key(3), minutes(11)), Some(minutes(1)));
        assert_eq!(forgetter.look(&crowd.view(), minutes(12) - Duration::from_secs(1)), Forgetting::default());
        let forgetting = forgetter.look(&crowd.view(), minutes(12));
        assert_eq!(forgetting.graves.len(), 1);
        crowd.state.apply(forgetting.graves);
        assert_eq!(crowd.view().entries().len(), 3);
    }

    #[test]
    fn who_comes_back_meanwhile_is_not() {
        let mut crowd = crowd(4);
        let mut forgetter = Forgetter::new(RING, "live-store-0", minutes(1));
        crowd.kill(3);
        forgetter.look(&crowd.view(), minutes(10));
        crowd.revive(3);
        assert_eq!(forgetter.look(&crowd.view(), minutes(11)), Forgetting::default());
        crowd.kill(3);
        assert_eq!(forgetter.look(&crowd.view(), minutes(12)), Forgetting::default());
        // It changed its record while it seemed dead.
        crowd.touch(3);
        assert_eq!(forgetter.look(&crowd.view(), minutes(13)), Forgetting::default());
        assert_eq!(forgetter.look(&crowd.view(), minutes(15)).graves.len(), 1);
    }

    #[test]
    fn when_most_are_down_nobody_is_forgotten() {
        let mut crowd = crowd(5);
        let mut forgetter = Forgetter::new(RING, "live-store-0", minutes(1));
        for member in 2..5 {
            crowd.kill(member);
        }
        forgetter.look(&crowd.view(), minutes(1));
        let forgetting = forgetter.look(&crowd.view(), minutes(60));
        assert!(forgetting.graves.is_empty());
        assert_eq!(forgetting.held, ["live-store-2", "live-store-3", "live-store-4"]);
        // One returns: now most are up, and the two that are gone are forgotten.
        crowd.revive(2);
        assert_eq!(forgetter.look(&crowd.view(), minutes(61)).graves.len(), 2);
    }

    #[test]
    fn a_dead_rival_is_forgotten_as_well() {
        let mut crowd = crowd(2);
        crowd.add_rival(1, 77, false);
        let mut forgetter = Forgetter::new(RING, "live-store-0", minutes(1));
        forgetter.look(&crowd.view(), minutes(0));
        let graves = forgetter.look(&crowd.view(), minutes(2)).graves;
        assert_eq!(
            graves.iter().map(|grave| grave.key().clone()).collect::<Vec<_>>(),
            [Key::rival(RING, "live-store-1", 77)]
        );
    }
}

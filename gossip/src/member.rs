//! A process's part in one ring: registers, keeps its claim on its id, leaves.
//!
//! Owns nothing but its own record; whoever hosts it hands in the state, membership and the time, and calls
//! [`RingMember::look`] after every change and at least once a second. No clock, no IO.
//!
//! ```text
//!            start                        a living process claims the id above us
//! (waiting) ───────> registered ──────────────────────────────────────────────────> yielded
//!                     │   ^  └─ met something above our own: go above it               │
//!                leave│   └──────────── that process is gone ──────────────────────────┘
//!                     v
//!                  leaving ──unregister──> gone
//! ```
//!
//! The newest process with an id has it: a restart does not wait until its former life is declared dead. A process that
//! is overtaken while it lives yields once and stays visible as a rival, so that two processes with one id do not fight,
//! and both are named on the page.

use std::sync::Arc;
use std::time::Duration;

use crate::ring::{Liveness, RingSettings, Standing};
use crate::state::{Address, Body, Claim, GraveReason, Instance, InstanceState, Key, Record, State, TooLarge};

/// A record of an unknown process above our own: so long membership may take to hear of that process before it counts as
/// one that is gone.
const UNKNOWN_GRACE: Duration = Duration::from_secs(5);

/// This process, as the ring will know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its random id in membership.
    pub process: u64,
    /// Its name in membership.
    pub name: String,
    /// The version of the program.
    pub software: String,
}

/// Where the member is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Registered,
    /// To this process.
    Yielded(u64),
    Gone,
}

/// What happened, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    /// The record was forgotten or overtaken by something old, and was written anew.
    Reasserted {
        /// Its generation now.
        generation: u64,
    },
    /// Another living process has the same instance id.
    Yielded {
        /// Its id in membership.
        to: u64,
        /// Its name in membership.
        name: String,
    },
    /// The other process is gone; the id is this process's again.
    Regained {
        /// Its generation now.
        generation: u64,
    },
}

/// One process in one ring.
#[derive(Debug, Clone)]
pub struct RingMember {
    key: Key,
    rival_key: Key,
    process: u64,
    instance: Instance,
    generation: u64,
    version: u64,
    phase: Phase,
    unknown_since: Option<(u64, Duration)>,
}

impl RingMember {
    /// A member that is not registered yet. `partition` is what a live-store owns.
    ///
    /// # Errors
    /// Its record would be too large: the configuration has absurdly long values.
    pub fn new(
        settings: &RingSettings,
        identity: &Identity,
        addresses: Vec<Address>,
        partition: Option<u32>,
    ) -> Result<Self, TooLarge> {
        let instance = Instance {
            state: InstanceState::Active,
            member: identity.name.clone(),
            addresses,
            zone: settings.zone.clone(),
            tokens: settings.tokens,
            partition,
            registered_at: 0,
            read_only: false,
            read_only_changed_at: 0,
            software: identity.software.clone(),
            extra: Vec::new(),
        };
        let member = Self {
            key: Key::instance(&settings.ring, &settings.instance_id),
            rival_key: Key::rival(&settings.ring, &settings.instance_id, identity.process),
            process: identity.process,
            instance,
            generation: 0,
            version: 0,
            phase: Phase::Waiting,
            unknown_since: None,
        };
        // The rival's key is the longer one: when this fits, everything fits that will ever be written.
        Record::claim(member.rival_key.clone(), member.claim())?;
        Ok(member)
    }

    /// The key of its record.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The generation of its record; 0 before it registers. Worth keeping over a restart.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether its record stands under its id.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.phase == Phase::Registered
    }

    /// The process that has its id, if it yielded.
    #[must_use]
    pub fn yielded_to(&self) -> Option<u64> {
        match self.phase {
            Phase::Yielded(to) => Some(to),
            Phase::Waiting | Phase::Registered | Phase::Gone => None,
        }
    }

    /// The generation that its record would begin with now: above everything that is known of its id, and above `kept`, the
    /// generation of an earlier life, if it was kept.
    #[must_use]
    pub fn next_generation(&self, state: &State, kept: u64) -> u64 {
        let before = state.record(&self.key);
        before.as_ref().and_then(Record::as_claim).map_or(0, |claim| claim.generation).max(kept) + 1
    }

    /// Registers, above everything that is known of its id. To be called after the first full exchange with the cluster,
    /// or when there is nobody to exchange with. `kept` is the generation of an earlier life, if it was kept.
    pub fn start(&mut self, state: &mut State, kept: u64, unix_now: i64) {
        if self.phase != Phase::Waiting {
            return;
        }
        let before = state.record(&self.key);
        let before = before.as_ref().and_then(Record::as_claim);
        let registered = before.and_then(|claim| claim.live().map(|instance| instance.registered_at));
        self.instance.registered_at = registered.filter(|at| *at > 0).unwrap_or(unix_now);
        (self.generation, self.version) = (self.next_generation(state, kept), 1);
        self.phase = Phase::Registered;
        self.write(state);
    }

    /// Changes its state, for instance to LEAVING.
    pub fn set_state(&mut self, state: &mut State, to: InstanceState) {
        self.change(state, |instance| instance.state = to);
    }

    /// Says whether it takes new data, with the time of the change for people.
    pub fn set_read_only(&mut self, state: &mut State, read_only: bool, unix_now: i64) {
        if self.instance.read_only != read_only {
            self.change(state, |instance| {
                (instance.read_only, instance.read_only_changed_at) = (read_only, unix_now);
            });
        }
    }

    /// The partition that it owns.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        self.instance.partition
    }

    /// Changes its description and writes it, if it differs.
    pub fn change(&mut self, state: &mut State, change: impl FnOnce(&mut Instance)) {
        let before = self.instance.clone();
        change(&mut self.instance);
        if self.instance != before && matches!(self.phase, Phase::Registered | Phase::Yielded(_)) {
            self.version += 1;
            self.write(state);
        }
    }

    /// Compares what the state says of its id with what it wrote, and acts. `now` is monotonic.
    pub fn look(&mut self, state: &mut State, liveness: &Liveness, now: Duration) -> Option<MemberEvent> {
        let found = state.record(&self.key).and_then(|record| record.as_claim().cloned());
        match self.phase {
            Phase::Waiting | Phase::Gone => None,
            Phase::Registered => {
                self.stay_alone(state);
                let Some(found) = found else {
                    // Its grave was removed after a day, or the state was lost.
                    return Some(self.above(state, (self.generation, self.version)));
                };
                if found == self.claim() {
                    self.unknown_since = None;
                    return None;
                }
                if found.live().is_some() && found.nonce != self.process {
                    return self.contested(state, liveness, now, &found);
                }
                // A grave, or something that this very process wrote and does not remember.
                Some(self.above(state, found.position()))
            }
            Phase::Yielded(to) => {
                let standing = found.as_ref().filter(|claim| claim.live().is_some()).map(|claim| claim.nonce);
                match standing {
                    Some(nonce) if nonce != to && nonce != self.process => {
                        // A third one overtook the second.
                        self.phase = Phase::Yielded(nonce);
                        None
                    }
                    Some(nonce) if nonce == to && liveness.of(to).standing.is_up() => {
                        self.stay_visible(state);
                        None
                    }
                    _ => {
                        let position = found.map_or((self.generation, self.version), |claim| claim.position());
                        self.bury(state, self.rival_key.clone());
                        let MemberEvent::Reasserted { generation } = self.above(state, position) else { return None };
                        Some(MemberEvent::Regained { generation })
                    }
                }
            }
        }
    }

    /// Leaves the ring: its record becomes a grave that beats only what it wrote itself.
    pub fn unregister(&mut self, state: &mut State) {
        match self.phase {
            Phase::Registered => self.bury(state, self.key.clone()),
            Phase::Yielded(_) => self.bury(state, self.rival_key.clone()),
            Phase::Waiting | Phase::Gone => {}
        }
        self.phase = Phase::Gone;
    }

    fn contested(
        &mut self,
        state: &mut State,
        liveness: &Liveness,
        now: Duration,
        found: &Claim,
    ) -> Option<MemberEvent> {
        match liveness.of(found.nonce).standing {
            Standing::Alive | Standing::Suspect => {
                self.phase = Phase::Yielded(found.nonce);
                self.unknown_since = None;
                self.write(state);
                let name = found.live().map(|instance| instance.member.clone()).unwrap_or_default();
                Some(MemberEvent::Yielded { to: found.nonce, name })
            }
            Standing::Down | Standing::Left => Some(self.above(state, found.position())),
            Standing::Unknown => match self.unknown_since {
                Some((nonce, since)) if nonce == found.nonce => {
                    (now.saturating_sub(since) >= UNKNOWN_GRACE).then(|| self.above(state, found.position()))
                }
                _ => {
                    self.unknown_since = Some((found.nonce, now));
                    None
                }
            },
        }
    }

    /// Its record as a rival, long buried, may come back from a member that knew it and slept until its grave was removed.
    fn stay_alone(&self, state: &mut State) {
        let rival = state.record(&self.rival_key);
        if rival.as_ref().and_then(Record::as_claim).is_some_and(|claim| claim.live().is_some()) {
            self.bury(state, self.rival_key.clone());
        }
    }

    /// A rival's record may be forgotten while it seems dead, as any other.
    fn stay_visible(&mut self, state: &mut State) {
        let found = state.record(&self.rival_key).and_then(|record| record.as_claim().cloned());
        if found.as_ref() == Some(&self.claim()) {
            return;
        }
        if let Some(found) = found {
            self.generation = self.generation.max(found.generation);
            self.version = self.version.max(found.version) + 1;
        }
        self.write(state);
    }

    /// Writes the record above a position.
    fn above(&mut self, state: &mut State, (generation, _): (u64, u64)) -> MemberEvent {
        self.generation = generation.max(self.generation) + 1;
        self.version = 1;
        self.phase = Phase::Registered;
        self.unknown_since = None;
        self.write(state);
        MemberEvent::Reasserted { generation: self.generation }
    }

    fn claim(&self) -> Claim {
        Claim {
            generation: self.generation,
            version: self.version,
            nonce: self.process,
            body: Body::Live(Arc::new(self.instance.clone())),
        }
    }

    fn write(&self, state: &mut State) {
        let key = if self.yielded_to().is_some() { &self.rival_key } else { &self.key };
        match Record::claim(key.clone(), self.claim()) {
            Ok(record) => {
                state.put(record);
            }
            // Only addresses given later could do it; the record that stands stays.
            Err(error) => tracing::error!(%error, "the ring record was not changed"),
        }
    }

    fn bury(&self, state: &mut State, key: Key) {
        let grave = self.claim().buried(GraveReason::Left, &self.instance.member);
        match Record::claim(key, grave) {
            Ok(record) => {
                state.put(record);
            }
            Err(error) => tracing::error!(%error, "the ring record was not removed"),
        }
    }
}

#[cfg(test)]
mod chaos_tests;
#[cfg(test)]
mod tests;

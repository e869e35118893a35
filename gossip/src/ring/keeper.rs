//! Everything that one process does in all its rings, as one value: registers, forgets, polls partitions, shows.
//!
//! Pure: whoever hosts it owns the state and calls [`Keeper::tick`] after changes and at least once a second. With gossip the
//! host is the membership actor, without it a part of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::command::{Command, CommandError};
use super::forget::{Forgetter, grave};
use super::liveness::Liveness;
use super::settings::RingSettings;
use super::view::RingView;
use crate::member::{Identity, MemberEvent, RingMember};
use crate::partition::{PartitionLifecycle, PartitionTokens, PartitionView};
use crate::state::{
    Address, GraveReason, InstanceState, Key, PartitionState, Record, RingFigures, State, StateHash, TooLarge,
};

/// Reads the host's time.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// On the monotonic clock.
    pub monotonic: Duration,
    /// Since the epoch, for people.
    pub unix: Duration,
}

impl Now {
    fn unix_seconds(self) -> i64 {
        i64::try_from(self.unix.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperEvent {
    /// About an own record.
    Member(Key, MemberEvent),
    /// A member was forgotten.
    Forgotten(Key),
    /// A partition changed by itself.
    Partition(u32, PartitionState),
}

/// What a process's pages and lookups read.
#[derive(Debug, Clone, Default)]
pub struct Rings {
    /// Every ring that the process watches, by its whole key.
    pub rings: BTreeMap<String, Arc<RingView>>,
    /// The key of the ring of partitions, and its view.
    pub partitions: Option<(String, Arc<PartitionView>)>,
    /// Members that are overdue but not forgotten, because most of their ring is down as seen from here; by ring.
    pub held: BTreeMap<String, Vec<String>>,
    /// The hash of the whole state.
    pub digest: StateHash,
    /// Figures of each ring's records.
    pub figures: BTreeMap<String, RingFigures>,
    /// All records, by key.
    pub records: Arc<Vec<Record>>,
}

#[derive(Debug)]
struct Part {
    ring: String,
    member: RingMember,
    /// The generation of its record in an earlier life, as far as that was kept.
    kept: u64,
    forgetter: Forgetter,
    /// Whether the record is removed when the process stops.
    unregisters: bool,
    owns_partition: bool,
}

#[derive(Debug)]
struct Partitions {
    ring: String,
    live_stores: String,
    lifecycle: Option<PartitionLifecycle>,
    tokens: PartitionTokens,
    next_poll: Duration,
}

/// The rings of one process.
#[derive(Debug)]
pub struct Keeper {
    writer: String,
    parts: Vec<Part>,
    watched: Vec<String>,
    partitions: Option<Partitions>,
    held: BTreeMap<String, Vec<String>>,
    /// Copied only when something changed.
    records: (StateHash, Arc<Vec<Record>>),
    started: bool,
}

impl Keeper {
    /// Of the process with this name in membership; the name is written on what it forgets.
    #[must_use]
    pub fn new(writer: &str) -> Self {
        Self {
            writer: writer.to_owned(),
            parts: Vec::new(),
            watched: Vec::new(),
            partitions: None,
            held: BTreeMap::new(),
            records: Default::default(),
            started: false,
        }
    }

    /// Shows a ring without taking part.
    pub fn watch(&mut self, ring: &str) {
        if !self.watched.iter().any(|watched| watched == ring) {
            self.watched.push(ring.to_owned());
        }
    }

    /// Takes part in a ring, once [`Keeper::start`] was called.
    ///
    /// # Errors
    /// The record would be too large.
    pub fn join(
        &mut self,
        settings: &RingSettings,
        identity: &Identity,
        addresses: Vec<Address>,
        partition: Option<u32>,
    ) -> Result<(), TooLarge> {
        let member = RingMember::new(settings, identity, addresses, partition)?;
        self.watch(&settings.ring);
        self.parts.push(Part {
            ring: settings.ring.clone(),
            member,
            kept: 0,
            forgetter: Forgetter::new(&settings.ring, &self.writer, settings.heartbeat_timeout),
            unregisters: true,
            owns_partition: partition.is_some(),
        });
        Ok(())
    }

    /// Shows the ring of partitions, owned by the live-stores of another ring; with `lifecycle`, takes part in it.
    pub fn partitions(&mut self, ring: &str, live_stores: &str, lifecycle: Option<PartitionLifecycle>) {
        self.watch(live_stores);
        self.partitions = Some(Partitions {
            ring: ring.to_owned(),
            live_stores: live_stores.to_owned(),
            lifecycle,
            tokens: PartitionTokens::default(),
            next_poll: Duration::ZERO,
        });
    }

    /// Whether the record of the owner of a partition goes when the process stops: `remove_owner_on_shutdown`.
    pub fn set_removes_owner(&mut self, removes: bool) {
        for part in self.parts.iter_mut().filter(|part| part.owns_partition) {
            part.unregisters = removes;
        }
    }

    /// Tells the generations of an earlier life, so that records begin above them.
    pub fn set_kept(&mut self, kept: impl Fn(&Key) -> u64) {
        for part in &mut self.parts {
            part.kept = kept(part.member.key());
        }
    }

    /// The generation that each own record has, or will begin with.
    #[must_use]
    pub fn generations(&self, state: &State) -> Vec<(Key, u64)> {
        let generation = |part: &Part| match part.member.generation() {
            0 => part.member.next_generation(state, part.kept),
            generation => generation,
        };
        self.parts.iter().map(|part| (part.member.key().clone(), generation(part))).collect()
    }

    /// From now on the process registers: the first full exchange is done, or there is nobody to exchange with.
    pub fn start(&mut self, state: &mut State, now: Now) {
        self.started = true;
        self.register(state, now);
    }

    fn register(&mut self, state: &mut State, now: Now) {
        let may_own = match &self.partitions {
            Some(Partitions { lifecycle: Some(lifecycle), .. }) => lifecycle.start(state, now.unix_seconds()),
            _ => true,
        };
        for part in &mut self.parts {
            if may_own || !part.owns_partition {
                part.member.start(state, part.kept, now.unix_seconds());
            }
        }
    }

    /// Does what is due. Returns what happened, for the log.
    pub fn tick(&mut self, state: &mut State, liveness: &Liveness, now: Now) -> Vec<KeeperEvent> {
        let mut events = Vec::new();
        if !self.started {
            return events;
        }
        let waits = |part: &Part| part.member.generation() == 0;
        let polls = self.partitions.as_ref().is_some_and(|partitions| partitions.next_poll <= now.monotonic);
        if polls && self.parts.iter().any(waits) {
            self.register(state, now);
        }
        for part in &mut self.parts {
            if let Some(event) = part.member.look(state, liveness, now.monotonic) {
                events.push(KeeperEvent::Member(part.member.key().clone(), event));
            }
            let view = RingView::new(state, &part.ring, liveness);
            let forgetting = part.forgetter.look(&view, now.monotonic);
            for grave in forgetting.graves {
                events.push(KeeperEvent::Forgotten(grave.key().clone()));
                state.put(grave);
            }
            self.held.insert(part.ring.clone(), forgetting.held);
        }
        if polls && let Some(partitions) = &mut self.partitions {
            partitions.next_poll = now.monotonic + crate::partition::POLL_PERIOD;
            let live_stores = RingView::new(state, &partitions.live_stores, liveness);
            let view = PartitionView::new(state, &partitions.ring, &live_stores, &mut partitions.tokens);
            if let Some(lifecycle) = &mut partitions.lifecycle {
                let changed = lifecycle.poll(state, &view, now.monotonic, now.unix_seconds());
                events.extend(changed.into_iter().map(|(id, to)| KeeperEvent::Partition(id, to)));
            }
            // Nothing is written to an inactive partition: whoever owns it takes no new data, and says so.
            for part in &mut self.parts {
                if let Some(entry) = part.member.partition().and_then(|own| view.get(own)) {
                    let read_only = entry.state() == PartitionState::Inactive;
                    part.member.set_read_only(state, read_only, now.unix_seconds());
                }
            }
        }
        events
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// See [`CommandError`]; then nothing changed.
    pub fn command(
        &mut self,
        state: &mut State,
        liveness: &Liveness,
        command: Command,
        now: Now,
    ) -> Result<(), CommandError> {
        match command {
            Command::Forget { ring, id } => {
                let view = RingView::new(state, &ring, liveness);
                let unknown = || CommandError::Unknown { ring: ring.clone(), id: id.clone() };
                let entry = view.get(&id).ok_or_else(unknown)?;
                let key = Key::instance(&ring, &id);
                let grave = grave(&key, entry, GraveReason::Forgotten, &self.writer).ok_or_else(unknown)?;
                state.put(grave);
                Ok(())
            }
            Command::RemoveOwner(removes) => {
                self.set_removes_owner(removes);
                Ok(())
            }
            Command::Leave => {
                self.leave(state);
                self.stop(state);
                Ok(())
            }
            Command::ClearMessages => Ok(()),
            Command::Partition { id, change } => {
                let partitions = self.partitions.as_ref().ok_or(CommandError::NoPartitions)?;
                let at = now.unix_seconds();
                crate::partition::change_partition(state, &partitions.ring, &self.writer, id, change, at)?;
                Ok(())
            }
        }
    }

    /// Says in all rings that the process stops, and goes on answering.
    pub fn leave(&mut self, state: &mut State) {
        for part in &mut self.parts {
            part.member.set_state(state, InstanceState::Leaving);
        }
    }

    /// Takes the process out of its rings. An owner that keeps its partition stays, as LEAVING.
    pub fn stop(&mut self, state: &mut State) {
        self.started = false;
        for part in self.parts.iter_mut().filter(|part| part.unregisters) {
            part.member.unregister(state);
        }
    }

    fn records(&mut self, state: &State) -> Arc<Vec<Record>> {
        if self.records.0 != state.digest() {
            self.records = (state.digest(), Arc::new(state.records().cloned().collect()));
        }
        Arc::clone(&self.records.1)
    }

    /// What is to be shown now.
    pub fn rings(&mut self, state: &State, liveness: &Liveness) -> Rings {
        let rings: BTreeMap<String, Arc<RingView>> =
            self.watched.iter().map(|ring| (ring.clone(), Arc::new(RingView::new(state, ring, liveness)))).collect();
        let partitions = self.partitions.as_mut().and_then(|partitions| {
            let live_stores = rings.get(&partitions.live_stores)?;
            let view = PartitionView::new(state, &partitions.ring, live_stores, &mut partitions.tokens);
            Some((partitions.ring.clone(), Arc::new(view)))
        });
        Rings {
            rings,
            partitions,
            held: self.held.iter().filter(|(_, held)| !held.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect(),
            digest: state.digest(),
            figures: state.figures(),
            records: self.records(state),
        }
    }
}

#[cfg(test)]
mod tests;

//! Everything that one process does in all its rings, as one value: registers, forgets, polls partitions, shows.
//!
//! Pure: whoever hosts it owns the state and calls [`Keeper::tick`] after changes and at least once a second. With gossip the
//! host is the membership actor, without it a part of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::forget::{Forgetter, grave};
use super::liveness::Liveness;
use super::settings::RingSettings;
use super::view::RingView;
use crate::member::{Identity, MemberEvent, RingMember};
use crate::partition::{Change, ChangeError, PartitionLifecycle, PartitionTokens, PartitionView};
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

/// A change that a person or a tool asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Forget a member.
    Forget {
        /// The whole key of the ring.
        ring: String,
        /// The instance id.
        id: String,
    },
    /// Change a partition.
    Partition {
        /// The partition.
        id: u32,
        /// How.
        change: Change,
    },
    /// Whether the owner of a partition gives it up when it stops.
    RemoveOwner(bool),
    /// Leave the rings now, while the process still answers: it is about to stop.
    Leave,
    /// Forget the messages that are kept for the page. The host does it; the rings keep none.
    ClearMessages,
}

/// Why a command was not carried out. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nobody of that id is in the ring.
    #[error("error forgetting instance '{id}': it is not in the ring {ring}")]
    Unknown {
        /// The ring.
        ring: String,
        /// The id.
        id: String,
    },
    /// The partition may not change so.
    #[error(transparent)]
    Partition(#[from] ChangeError),
    /// This process has no part in the ring of partitions.
    #[error("this process does not know the ring of partitions")]
    NoPartitions,
    /// The host of the rings does not answer.
    #[error("the rings do not answer: {0}")]
    Unavailable(String),
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
mod tests {
    use vivace_runtime::config::{DistributorRingConfig, RingConfig};

    use super::super::settings::Host;
    use super::super::{Sight, Standing};
    use super::*;
    use crate::partition::PartitionTimings;

    const LIVE: &str = "collectors/live-store";
    const PARTITIONS: &str = "collectors/livestore-partitions";

    fn at(seconds: u64) -> Now {
        Now { monotonic: Duration::from_secs(seconds), unix: Duration::from_secs(1_700_000_000 + seconds) }
    }

    fn keeper(process: u64) -> Keeper {
        let host = Host { name: "ignored", grpc_port: 9095 };
        let config = RingConfig { instance_id: format!("live-store-{process}"), ..RingConfig::default() };
        let live = RingSettings::live_store(&config, host).unwrap();
        let distributor = RingSettings::distributor(&DistributorRingConfig::default(), "distributor", host).unwrap();
        let identity = Identity { process, name: format!("process-{process}"), software: "0.1.0".into() };
        let own = live.partition().unwrap();
        let lifecycle = PartitionLifecycle::new(PARTITIONS, &live, own, PartitionTimings::default()).unwrap();
        let mut keeper = Keeper::new(&identity.name);
        keeper.join(&live, &identity, Vec::new(), Some(own)).unwrap();
        let distributor = RingSettings { instance_id: format!("distributor-{process}"), ..distributor };
        keeper.join(&distributor, &identity, Vec::new(), None).unwrap();
        keeper.partitions(PARTITIONS, LIVE, Some(lifecycle));
        keeper
    }

    fn alive(processes: &[u64]) -> Liveness {
        Liveness::new(processes.iter().map(|process| (*process, Sight::ALIVE)))
    }

    #[test]
    fn a_process_registers_in_its_rings_and_its_partition_becomes_active() {
        let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
        assert!(keeper.tick(&mut state, &liveness, at(0)).is_empty() && state.is_empty(), "not before the start");
        keeper.start(&mut state, at(0));
        let events: Vec<KeeperEvent> =
            (0..15).flat_map(|second| keeper.tick(&mut state, &liveness, at(second))).collect();
        assert_eq!(events, [KeeperEvent::Partition(0, PartitionState::Active)]);
        let rings = keeper.rings(&state, &liveness);
        assert_eq!(rings.rings.keys().collect::<Vec<_>>(), ["collectors/distributor", LIVE]);
        let (_, partitions) = rings.partitions.unwrap();
        assert_eq!(partitions.get(0).unwrap().owners.len(), 1);
        assert_eq!(rings.digest, state.digest());
        keeper.leave(&mut state);
        keeper.stop(&mut state);
        let rings = keeper.rings(&state, &liveness);
        assert!(rings.rings.values().all(|ring| ring.entries().is_empty()));
        assert_eq!(rings.partitions.unwrap().1.get(0).unwrap().owners.len(), 0, "the partition stays, without owner");
    }

    #[test]
    fn an_owner_that_keeps_its_partition_stays_as_leaving() {
        let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
        keeper.set_removes_owner(false);
        keeper.start(&mut state, at(0));
        keeper.leave(&mut state);
        keeper.stop(&mut state);
        let rings = keeper.rings(&state, &liveness);
        assert_eq!(rings.rings[LIVE].entries()[0].instance.state, InstanceState::Leaving);
        assert!(rings.rings["collectors/distributor"].entries().is_empty());
    }

    #[test]
    fn who_is_told_to_leave_is_out_of_its_rings_at_once_and_does_not_come_back() {
        let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
        keeper.start(&mut state, at(0));
        keeper.command(&mut state, &liveness, Command::Leave, at(1)).unwrap();
        for second in 1..60 {
            keeper.tick(&mut state, &liveness, at(second));
            let rings = keeper.rings(&state, &liveness);
            assert!(rings.rings.values().all(|ring| ring.entries().is_empty()), "{second}");
        }
        // What a stop does otherwise was done.
        let before = state.digest();
        keeper.leave(&mut state);
        keeper.stop(&mut state);
        assert_eq!(state.digest(), before);
    }

    #[test]
    fn commands_change_what_they_name_and_nothing_else() {
        let mut state = State::new();
        keeper(1).start(&mut state, at(0));
        let mut keeper = keeper(0);
        keeper.start(&mut state, at(0));
        let liveness = Liveness::new([
            (0, Sight::ALIVE),
            (1, Sight { standing: Standing::Down, silent_for: Duration::from_secs(9) }),
        ]);
        let forget = |id: &str| Command::Forget { ring: LIVE.into(), id: id.into() };
        keeper.command(&mut state, &liveness, forget("live-store-1"), at(1)).unwrap();
        let view = RingView::new(&state, LIVE, &liveness);
        assert_eq!(view.entries().iter().map(|entry| &*entry.id).collect::<Vec<_>>(), ["live-store-0"]);
        let error = keeper.command(&mut state, &liveness, forget("live-store-1"), at(1)).unwrap_err().to_string();
        assert!(error.contains("live-store-1") && error.contains("not in the ring"), "{error}");
        let lock = Command::Partition { id: 0, change: Change::Lock(true) };
        keeper.command(&mut state, &liveness, lock, at(1)).unwrap();
        assert!(keeper.rings(&state, &liveness).partitions.unwrap().1.get(0).unwrap().is_locked());
        let absent = Command::Partition { id: 9, change: Change::Lock(true) };
        assert!(keeper.command(&mut state, &liveness, absent, at(1)).is_err());
        let mut none = Keeper::new("n");
        let lock = Command::Partition { id: 0, change: Change::Lock(false) };
        assert_eq!(none.command(&mut state, &liveness, lock, at(1)), Err(CommandError::NoPartitions));
    }

    #[test]
    fn a_live_store_that_was_told_to_go_registers_once_somebody_made_its_partition() {
        let (mut state, liveness) = (State::new(), alive(&[0, 1]));
        let mut waiting = keeper(0);
        if let Some(partitions) = &mut waiting.partitions
            && let Some(lifecycle) = &mut partitions.lifecycle
        {
            lifecycle.set_create_on_start(false);
        }
        waiting.start(&mut state, at(0));
        waiting.tick(&mut state, &liveness, at(1));
        assert!(waiting.rings(&state, &liveness).rings[LIVE].entries().is_empty());
        let mut maker = keeper(0);
        maker.start(&mut state, at(2));
        maker.stop(&mut state);
        for second in 2..8 {
            waiting.tick(&mut state, &liveness, at(second));
        }
        assert_eq!(waiting.rings(&state, &liveness).rings[LIVE].entries().len(), 1);
    }

    #[test]
    fn a_live_store_is_read_only_while_its_partition_is_inactive() {
        let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
        keeper.start(&mut state, at(0));
        let run = |keeper: &mut Keeper, state: &mut State, seconds: std::ops::Range<u64>| {
            for second in seconds {
                keeper.tick(state, &liveness, at(second));
            }
            let entry = keeper.rings(state, &liveness).rings[LIVE].entries()[0].clone();
            (entry.instance.read_only, entry.instance.read_only_changed_at)
        };
        assert_eq!(run(&mut keeper, &mut state, 0..20), (false, 0));
        let change = |to| Command::Partition { id: 0, change: Change::State(to) };
        keeper.command(&mut state, &alive(&[0]), change(PartitionState::Inactive), at(20)).unwrap();
        let (read_only, since) = run(&mut keeper, &mut state, 20..40);
        assert!(read_only && (1_700_000_020..=1_700_000_025).contains(&since), "{since}");
        keeper.command(&mut state, &alive(&[0]), change(PartitionState::Active), at(40)).unwrap();
        let (read_only, since) = run(&mut keeper, &mut state, 40..50);
        assert!(!read_only && since >= 1_700_000_040, "{since}");
        let distributors = keeper.rings(&state, &alive(&[0])).rings["collectors/distributor"].entries()[0].clone();
        assert!(!distributors.instance.read_only, "it has no partition");
    }

    #[test]
    fn a_wall_clock_that_steps_by_an_hour_forgets_nobody_and_changes_no_partition() {
        let (mut state, liveness) = (State::new(), alive(&[0, 1]));
        let mut keepers = [keeper(0), keeper(1)];
        let mut changes = Vec::new();
        for second in 0..400_u64 {
            // The monotonic clock goes on; that of the wall steps ahead, back over where it was, and to the right time.
            let step = [0_i64, 3600, -3600, 0][usize::try_from(second / 100).unwrap()];
            let unix = Duration::from_secs(1_700_000_000_u64.saturating_add_signed(step) + second);
            let now = Now { monotonic: Duration::from_secs(second), unix };
            for keeper in &mut keepers {
                if second == 0 {
                    keeper.start(&mut state, now);
                }
                changes.extend(keeper.tick(&mut state, &liveness, now));
            }
            if second > 0 {
                let rings = keepers[0].rings(&state, &liveness);
                assert!(rings.rings.values().all(|ring| ring.entries().len() == 2), "at {second}");
            }
        }
        let active = |id| KeeperEvent::Partition(id, PartitionState::Active);
        assert_eq!(changes, [active(0), active(1)]);
    }

    #[test]
    fn nobody_is_forgotten_by_a_process_that_sees_most_of_the_ring_down() {
        let mut state = State::new();
        for process in 0..3 {
            keeper(process).start(&mut state, at(0));
        }
        let (mut own, liveness) = (keeper(0), alive(&[0]));
        own.start(&mut state, at(0));
        own.tick(&mut state, &liveness, at(0));
        own.tick(&mut state, &liveness, at(3600));
        let rings = own.rings(&state, &liveness);
        assert_eq!(rings.rings[LIVE].entries().len(), 3);
        assert_eq!(rings.held[LIVE], ["live-store-1", "live-store-2"]);
        let mostly = alive(&[0, 1]);
        own.tick(&mut state, &mostly, at(3601));
        assert_eq!(own.rings(&state, &mostly).rings[LIVE].entries().len(), 2);
    }
}

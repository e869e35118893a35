//! A live-store's part in the ring of partitions: creates its partition, makes it active, deletes those that are over.
//!
//! Owns no partition: it reads the state and returns what to write. The shell calls [`PartitionLifecycle::poll`] every five
//! seconds. How long an owner has been there, and how long a partition has been without one, is measured by this process
//! from the moment that it first saw it, so that other hosts' clocks do not matter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::change::{By, ChangeError, change_lock, change_state};
use super::tokens::PARTITIONS_MAX;
use super::view::{PartitionEntry, PartitionView};
use crate::ring::RingSettings;
use crate::state::{Key, Partition, PartitionState, Record, State};

/// Time between two polls.
pub const POLL_PERIOD: Duration = Duration::from_secs(5);
/// However old a partition's state says that it is, this process watches it for so long before it deletes it (or for the
/// configured time, if that is shorter): a clock that was set forward must not delete what was made inactive a moment ago.
const WATCHED_AT_LEAST: Duration = Duration::from_secs(600);

/// When partitions change by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionTimings {
    /// Owners that a new partition needs.
    pub owners: usize,
    /// How long each must have been there.
    pub owned_for: Duration,
    /// Age at which an inactive partition without owners is deleted; zero means never.
    pub delete_after: Duration,
}

impl Default for PartitionTimings {
    fn default() -> Self {
        Self { owners: 1, owned_for: Duration::from_secs(10), delete_after: Duration::from_secs(13 * 3600) }
    }
}

/// A partition number that is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("partition {0}, from the instance id, is above {max}, the largest that a ring can hold", max = PARTITIONS_MAX - 1)]
pub struct PartitionTooHigh(u32);

/// The part of one live-store.
#[derive(Debug, Clone)]
pub struct PartitionLifecycle {
    ring: String,
    writer: String,
    own: u32,
    timings: PartitionTimings,
    create_on_start: bool,
    owners_since: HashMap<(u32, Arc<str>, u64), Duration>,
    ownerless_since: HashMap<(u32, u64), Duration>,
}

impl PartitionLifecycle {
    /// For the live-store with these settings, in the ring of partitions named `ring`.
    ///
    /// # Errors
    /// Its partition's number is too large.
    pub fn new(
        ring: &str,
        live_store: &RingSettings,
        own: u32,
        timings: PartitionTimings,
    ) -> Result<Self, PartitionTooHigh> {
        if own >= PARTITIONS_MAX {
            return Err(PartitionTooHigh(own));
        }
        Ok(Self {
            ring: ring.to_owned(),
            writer: live_store.instance_id.clone(),
            own,
            timings,
            create_on_start: true,
            owners_since: HashMap::new(),
            ownerless_since: HashMap::new(),
        })
    }

    /// The partition of this live-store.
    #[must_use]
    pub fn own(&self) -> u32 {
        self.own
    }

    /// Whether the partition is created when it is not there. Not after `prepare-downscale`.
    pub fn set_create_on_start(&mut self, create: bool) {
        self.create_on_start = create;
    }

    /// Whether the live-store may register as an owner now: its partition is there, or is created by this call.
    pub fn start(&self, state: &mut State, unix_now: i64) -> bool {
        let key = Key::partition(&self.ring, self.own);
        let found = state.record(&key).and_then(|record| record.as_partition().cloned());
        let fresh = match &found {
            Some(partition) if partition.state.value != PartitionState::Deleted => return true,
            // Deleted before: the new one must beat the grave on every member.
            Some(deleted) => Partition {
                state: deleted.state.changed(PartitionState::Pending, &self.writer, unix_now),
                lock: change_lock(deleted, false, self.by(unix_now)).map_or_else(|| deleted.lock.clone(), |p| p.lock),
            },
            None => Partition::pending(&self.writer, unix_now),
        };
        self.create_on_start && put(state, &self.ring, self.own, fresh).is_ok()
    }

    /// Looks at the partitions and makes the changes that are due. Returns what was changed, for the log. `now` is
    /// monotonic.
    pub fn poll(
        &mut self,
        state: &mut State,
        view: &PartitionView,
        now: Duration,
        unix_now: i64,
    ) -> Vec<(u32, PartitionState)> {
        self.watch(view, now);
        let mut changes = Vec::new();
        for entry in view.entries() {
            let to = if entry.id == self.own {
                self.is_ripe(entry, now).then_some(PartitionState::Active)
            } else {
                self.is_over(entry, now, unix_now).then_some(PartitionState::Deleted)
            };
            let Some(to) = to else { continue };
            let partition = Partition {
                state: entry.partition.state.changed(to, &self.writer, unix_now),
                lock: entry.partition.lock.clone(),
            };
            if put(state, &self.ring, entry.id, partition).is_ok() {
                changes.push((entry.id, to));
            }
        }
        changes
    }

    fn by(&self, at: i64) -> By<'_> {
        By { writer: &self.writer, at }
    }

    /// Remembers since when owners and ownerless partitions have been so.
    fn watch(&mut self, view: &PartitionView, now: Duration) {
        let mut owners = HashMap::new();
        let mut ownerless = HashMap::new();
        for entry in view.entries() {
            for owner in entry.healthy_owners() {
                let key = (entry.id, Arc::clone(&owner.id), owner.nonce);
                let since = self.owners_since.get(&key).copied().unwrap_or(now);
                owners.insert(key, since);
            }
            if entry.state() == PartitionState::Inactive && entry.owners.is_empty() {
                let key = (entry.id, entry.partition.state.version);
                ownerless.insert(key, self.ownerless_since.get(&key).copied().unwrap_or(now));
            }
        }
        (self.owners_since, self.ownerless_since) = (owners, ownerless);
    }

    /// Pending, and owned by enough for long enough.
    fn is_ripe(&self, entry: &PartitionEntry, now: Duration) -> bool {
        let settled = self
            .owners_since
            .iter()
            .filter(|((id, ..), since)| *id == entry.id && now.saturating_sub(**since) >= self.timings.owned_for);
        entry.state() == PartitionState::Pending && !entry.is_locked() && settled.count() >= self.timings.owners
    }

    /// Inactive and without owners for long enough, by its own word and by what was seen here.
    fn is_over(&self, entry: &PartitionEntry, now: Duration, unix_now: i64) -> bool {
        let after = self.timings.delete_after;
        let Some(since) = self.ownerless_since.get(&(entry.id, entry.partition.state.version)) else { return false };
        let age = u64::try_from(unix_now.saturating_sub(entry.partition.state.changed_at)).unwrap_or(0);
        !after.is_zero()
            && !entry.is_locked()
            && Duration::from_secs(age) > after
            && now.saturating_sub(*since) >= after.min(WATCHED_AT_LEAST)
    }
}

fn put(state: &mut State, ring: &str, id: u32, partition: Partition) -> Result<(), ChangeError> {
    let record =
        Record::partition(ring, id, partition).map_err(|error| ChangeError::Write { id, reason: error.to_string() })?;
    state.put(record);
    Ok(())
}

/// Changes a partition of `ring` for a page or an endpoint, signed by `writer`. False if it was so already.
///
/// # Errors
/// See [`ChangeError`].
pub fn change_partition(
    state: &mut State,
    ring: &str,
    writer: &str,
    id: u32,
    change: Change,
    unix_now: i64,
) -> Result<bool, ChangeError> {
    let key = Key::partition(ring, id);
    let record = state.record(&key).ok_or(ChangeError::Absent(id))?;
    let partition = record.as_partition().ok_or(ChangeError::Absent(id))?;
    if partition.state.value == PartitionState::Deleted {
        return Err(ChangeError::Absent(id));
    }
    let by = By { writer, at: unix_now };
    let changed = match change {
        Change::State(to) => change_state(id, partition, to, by)?,
        Change::Lock(locked) => change_lock(partition, locked, by),
        Change::StateAndLock(to) => {
            let changed = change_state(id, partition, to, by)?;
            let locked = change_lock(changed.as_ref().unwrap_or(partition), true, by);
            locked.or(changed)
        }
    };
    match changed {
        Some(changed) => put(state, ring, id, changed).map(|()| true),
        None => Ok(false),
    }
}

/// A change that people or tools ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Another state.
    State(PartitionState),
    /// Another state, and locked there.
    StateAndLock(PartitionState),
    /// Locked or not.
    Lock(bool),
}

//! The replicated state: every record that the members of a cluster share, and how two members find what differs.
//!
//! Owns the records, their hash and the queue of local changes. No clock and no IO: the shell says how much time has
//! passed ([`State::advance`]) and carries records to other members.
//!
//! ```text
//! probe carries digest() ─ differs ─> bucket_hashes() ─ those that differ ─> digests(bucket) ─ missing() ─> get(keys)
//!                                                                                                             │
//!                             changed keys, for watchers and for spreading further <─ apply(records) <────────┘
//! ```
//!
//! A record is at most [`RECORD_BYTES_MAX`] bytes, and there are at most [`RECORDS_MAX`]. A partition's record is kept for
//! ever, a grave for [`GRAVE_KEPT`]: its remaining time travels with it, so that no two members need the same clock.

mod codec;
mod hash;
mod instance;
mod key;
mod partition;
mod record;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

pub use hash::{Stamp, StateHash, stable_hash};
pub use instance::{ADDRESSES_MAX, Address, Instance, InstanceState, Via};
pub use key::{ID_BYTES_MAX, Key, RING_BYTES_MAX};
pub use partition::{Partition, PartitionState, Register};
pub use record::{Body, Claim, Entry, Grave, GraveReason, Record, TooLarge};

/// Largest encoding of a record: one fits into a packet with its frame.
pub const RECORD_BYTES_MAX: usize = 1100;
/// Most records. Beyond, records of unknown keys are refused and counted; a ring of 1,000 members is far below.
pub const RECORDS_MAX: usize = 20_000;
/// Into how many buckets the keys are divided for comparing.
pub const BUCKETS: usize = 64;
/// How long a grave is kept: longer than a member may sleep and come back with what it knew.
pub const GRAVE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Empty rings of which the figures are still kept.
const RINGS_REMEMBERED: usize = 64;
/// Highest generation or version that is accepted; nobody gets there by counting.
pub(crate) const COUNTER_MAX: u64 = 1 << 48;

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the record ends too early")]
    Short,
    /// Something follows.
    #[error("{0} bytes follow the record")]
    Trailing(usize),
    /// They are too many.
    #[error("a record of {0} bytes is larger than {RECORD_BYTES_MAX}")]
    Large(usize),
    /// A later version wrote them.
    #[error("records of format {0} are not known here")]
    Format(u8),
    /// A field has no such value.
    #[error("the field {0:?} has an impossible value")]
    Value(&'static str),
    /// A text is none.
    #[error("the field {0:?} is not UTF-8")]
    Text(&'static str, #[source] std::str::Utf8Error),
}

/// A record with what is derived from it.
#[derive(Debug, Clone)]
struct Slot {
    record: Record,
    stamp: Stamp,
    /// What it adds to the hash of its bucket.
    share: u64,
    bucket: usize,
    bytes: usize,
    /// When a grave is removed, on this member's own clock.
    expires: Option<Duration>,
}

/// What one ring holds here: for the page of the key-value store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingFigures {
    /// Counts the changes seen here.
    pub changes: u64,
    /// Bytes of its records.
    pub bytes: usize,
    /// Its records, graves included.
    pub records: usize,
    /// Its graves.
    pub graves: usize,
}

/// The replicated state as this member knows it.
#[derive(Debug, Clone)]
pub struct State {
    slots: BTreeMap<Key, Slot>,
    buckets: Vec<StateHash>,
    rings: HashMap<String, RingFigures>,
    news: BTreeSet<Key>,
    now: Duration,
    refused: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
            buckets: vec![StateHash::default(); BUCKETS],
            rings: HashMap::new(),
            news: BTreeSet::new(),
            now: Duration::ZERO,
            refused: 0,
        }
    }
}

impl State {
    /// An empty state at time zero of the member's own clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what time it is on this member's monotonic clock and removes the graves whose time is over. Returns their keys.
    pub fn advance(&mut self, now: Duration) -> Vec<Key> {
        self.now = self.now.max(now);
        let over: Vec<Key> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.expires.is_some_and(|at| at <= self.now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            self.remove(key);
            if let Some(ring) = self.rings.get_mut(key.ring()) {
                ring.changes += 1;
            }
        }
        // Names of rings come from others: those of which nothing is left do not pile up.
        if self.rings.len() > RINGS_REMEMBERED {
            self.rings.retain(|_, ring| ring.records > 0);
        }
        over
    }

    /// The hash of everything: equal on two members exactly if they hold the same.
    #[must_use]
    pub fn digest(&self) -> StateHash {
        let mut sum = StateHash::default();
        for bucket in &self.buckets {
            sum += bucket.0;
        }
        sum
    }

    /// The hash of each bucket, [`BUCKETS`] of them.
    #[must_use]
    pub fn bucket_hashes(&self) -> Vec<u64> {
        self.buckets.iter().map(|hash| hash.0).collect()
    }

    /// What a bucket holds, by key and stamp.
    #[must_use]
    pub fn digests(&self, bucket: usize) -> Vec<(Key, Stamp)> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.bucket == bucket)
            .map(|(key, slot)| (key.clone(), slot.stamp))
            .collect()
    }

    /// Of what another member holds, the keys of which this one holds something else or nothing.
    #[must_use]
    pub fn missing(&self, theirs: &[(Key, Stamp)]) -> Vec<Key> {
        theirs
            .iter()
            .filter(|(key, stamp)| self.slots.get(key).is_none_or(|slot| slot.stamp != *stamp))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The records of these keys, as they are to be sent. Unknown keys are left out.
    #[must_use]
    pub fn get(&self, keys: &[Key]) -> Vec<Record> {
        keys.iter().filter_map(|key| self.record(key)).collect()
    }

    /// One record, as it is to be sent.
    #[must_use]
    pub fn record(&self, key: &Key) -> Option<Record> {
        self.slots.get(key).map(|slot| self.outgoing(slot))
    }

    fn outgoing(&self, slot: &Slot) -> Record {
        match slot.expires {
            Some(at) => slot.record.clone().with_remaining(at.saturating_sub(self.now)),
            None => slot.record.clone(),
        }
    }

    /// Every record, by key.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.slots.values().map(|slot| &slot.record)
    }

    /// The records of one ring, by key.
    pub fn ring<'a>(&'a self, ring: &'a str) -> impl Iterator<Item = &'a Record> {
        self.records().filter(move |record| record.key().ring() == ring)
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Records refused because there were [`RECORDS_MAX`] already.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The figures of every ring, by name.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<String, RingFigures> {
        self.rings.iter().map(|(name, figures)| (name.clone(), *figures)).collect()
    }

    /// Merges what came from another member. Returns the keys of which something changed here.
    pub fn apply(&mut self, records: Vec<Record>) -> Vec<Key> {
        let mut changed = Vec::new();
        for record in records {
            let known = self.slots.len();
            if known >= RECORDS_MAX && !self.slots.contains_key(record.key()) {
                self.refused += 1;
                continue;
            }
            let key = record.key().clone();
            if self.merge(record) {
                changed.push(key);
            }
        }
        changed
    }

    /// A change made by this process: merged, and spread by [`State::take_broadcasts`]. False if it changed nothing.
    pub fn put(&mut self, record: Record) -> bool {
        let key = record.key().clone();
        let changed = self.merge(record);
        if changed {
            self.news.insert(key);
        }
        changed
    }

    /// The local changes since the last call, as they are now.
    pub fn take_broadcasts(&mut self) -> Vec<Record> {
        let keys = std::mem::take(&mut self.news);
        keys.iter().filter_map(|key| self.record(key)).collect()
    }

    fn merge(&mut self, incoming: Record) -> bool {
        let key = incoming.key().clone();
        let mine = self.record(&key);
        let merged = mine.as_ref().map_or_else(|| incoming.clone(), |mine| mine.merge(&incoming));
        let stamp = merged.stamp();
        let expires = merged.grave_remaining().map(|left| self.now + left.min(GRAVE_KEPT));
        let news = match self.slots.get(&key) {
            None if expires.is_some_and(|at| at <= self.now) => return false,
            None => true,
            Some(slot) => slot.stamp != stamp,
        };
        if !news {
            if let Some(slot) = self.slots.get_mut(&key) {
                // The same grave, of which the earliest end that anybody knows holds for all.
                (slot.record, slot.expires) = (merged, expires);
            }
            return false;
        }
        self.remove(&key);
        let hash = key.hash64();
        let bytes = merged.encode().len();
        let bucket = usize::try_from(hash % BUCKETS as u64).unwrap_or(0);
        let share = stable_hash(&[&hash.to_be_bytes(), &stamp.0.to_be_bytes()]);
        self.buckets[bucket] += share;
        let ring = self.rings.entry(key.ring().to_owned()).or_default();
        ring.bytes += bytes;
        ring.records += 1;
        ring.graves += usize::from(expires.is_some());
        ring.changes += 1;
        self.slots.insert(key, Slot { record: merged, stamp, share, bucket, bytes, expires });
        true
    }

    fn remove(&mut self, key: &Key) {
        if let Some(slot) = self.slots.remove(key) {
            self.buckets[slot.bucket] -= slot.share;
            if let Some(ring) = self.rings.get_mut(key.ring()) {
                ring.bytes -= slot.bytes;
                ring.records -= 1;
                ring.graves -= usize::from(slot.expires.is_some());
            }
        }
    }
}

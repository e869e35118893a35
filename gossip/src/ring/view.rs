//! A ring as it is at one moment: immutable, shared, for lookups and for pages.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::liveness::{Liveness, Sight};
use super::tokens::{TokenTable, instance_tokens};
use crate::state::{Claim, Instance, InstanceState, Key, State};

/// A member of a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingEntry {
    /// Its id.
    pub id: Arc<str>,
    /// The process that wrote the description, by its id in membership.
    pub nonce: u64,
    /// Counts the lives of the id.
    pub generation: u64,
    /// Counts the changes in this life.
    pub version: u64,
    /// What it says about itself.
    pub instance: Arc<Instance>,
    /// How membership sees it.
    pub sight: Sight,
}

impl RingEntry {
    fn new(id: &Arc<str>, claim: &Claim, liveness: &Liveness) -> Option<Self> {
        let instance = Arc::clone(claim.live()?);
        let sight = liveness.of(claim.nonce);
        let (nonce, generation, version) = (claim.nonce, claim.generation, claim.version);
        Some(Self { id: Arc::clone(id), nonce, generation, version, instance, sight })
    }

    /// Whether the process that wrote the description is alive or suspected here.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.sight.standing.is_up()
    }

    /// Healthy, and in a state for `operation`.
    #[must_use]
    pub fn serves(&self, operation: Operation) -> bool {
        self.is_healthy() && operation.accepts(self.instance.state)
    }

    /// The heartbeat that pages show: now while it is alive, else its last proof of life.
    #[must_use]
    pub fn last_heartbeat(&self, unix_now: Duration) -> Duration {
        unix_now.saturating_sub(self.sight.silent_for)
    }

    /// What callers dial, the best first: the proxies if there are any, else the process itself.
    pub fn dial(&self) -> impl Iterator<Item = &crate::state::Address> {
        let proxied = self.instance.addresses.iter().any(|address| address.via == crate::state::Via::Proxy);
        self.instance.addresses.iter().filter(move |address| (address.via == crate::state::Via::Proxy) == proxied)
    }
}

/// What a member is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// New data or work.
    Write,
    /// Questions.
    Read,
    /// Counting.
    Reporting,
}

impl Operation {
    fn accepts(self, state: InstanceState) -> bool {
        match self {
            Self::Write => state == InstanceState::Active,
            Self::Read => matches!(state, InstanceState::Active | InstanceState::Pending | InstanceState::Leaving),
            Self::Reporting => true,
        }
    }
}

/// A ring at one moment.
#[derive(Debug, Default)]
pub struct RingView {
    entries: Vec<RingEntry>,
    rivals: Vec<RingEntry>,
    table: OnceLock<TokenTable>,
}

impl RingView {
    /// The ring named `ring`.
    #[must_use]
    pub fn new(state: &State, ring: &str, liveness: &Liveness) -> Self {
        let (mut entries, mut rivals) = (Vec::new(), Vec::new());
        for record in state.ring(ring) {
            let Some(claim) = record.as_claim() else { continue };
            match record.key() {
                Key::Instance { id, .. } => entries.extend(RingEntry::new(id, claim, liveness)),
                Key::Rival { id, .. } => rivals.extend(RingEntry::new(id, claim, liveness)),
                Key::Partition { .. } => {}
            }
        }
        // Records come by key, and keys of one kind are ordered by id.
        Self { entries, rivals, table: OnceLock::new() }
    }

    /// Its members, sorted by id.
    #[must_use]
    pub fn entries(&self) -> &[RingEntry] {
        &self.entries
    }

    /// Living processes that yielded to a member of the same id.
    pub fn rivals(&self) -> impl Iterator<Item = &RingEntry> {
        self.rivals.iter().filter(|rival| rival.is_healthy())
    }

    /// Those that yielded to one member.
    pub fn rivals_of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a RingEntry> {
        self.rivals().filter(move |rival| &*rival.id == id)
    }

    /// All rival records, those of dead processes as well.
    pub(crate) fn all_rivals(&self) -> &[RingEntry] {
        &self.rivals
    }

    /// One member.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&RingEntry> {
        self.entries.binary_search_by(|entry| (*entry.id).cmp(id)).ok().map(|at| &self.entries[at])
    }

    /// How many members serve an operation.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.entries.iter().filter(|entry| entry.serves(operation)).count()
    }

    /// The member that owns a key: that of the first token above it whose member is active, healthy and takes data.
    #[must_use]
    pub fn owner(&self, key: u32) -> Option<&RingEntry> {
        let mut last = None;
        // Neighbouring tokens of one member are looked at once.
        self.table().walk(key).find_map(|at| {
            if last == Some(at) {
                return None;
            }
            last = Some(at);
            self.entries.get(at).filter(|entry| entry.serves(Operation::Write) && !entry.instance.read_only)
        })
    }

    /// Each member's share of the keys in its zone, from 0 to 1, in the order of [`RingView::entries`].
    #[must_use]
    pub fn ownership(&self) -> Vec<f64> {
        let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            zones.entry(&entry.instance.zone).or_default().push(at);
        }
        let mut shares = vec![0.0; self.entries.len()];
        for members in zones.into_values() {
            let table = TokenTable::new(members.iter().flat_map(|at| self.tokens_of(*at)));
            for (at, share) in table.shares(self.entries.len()).into_iter().enumerate() {
                shares[at] += share;
            }
        }
        shares
    }

    /// How many tokens the ring has.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.table().len()
    }

    fn tokens_of(&self, at: usize) -> Vec<(u32, usize)> {
        let entry = &self.entries[at];
        instance_tokens(&entry.id, entry.instance.tokens).into_iter().map(|token| (token, at)).collect()
    }

    fn table(&self) -> &TokenTable {
        self.table.get_or_init(|| TokenTable::new((0..self.entries.len()).flat_map(|at| self.tokens_of(at))))
    }
}

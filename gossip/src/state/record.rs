//! A record: a key and what is known about it, and the rule by which two of them become one.
//!
//! ```text
//! member, rival   (generation, version) > grave before living > nonce > content     the greater wins
//! partition       each register by itself: version > writer > value                 the greater wins
//! ```
//!
//! Both are orders in which nothing depends on time or on the order of arrival. A grave carries how long it is still
//! kept; of two that agree otherwise the shorter time holds. So merging is commutative, associative and idempotent.

use std::sync::Arc;
use std::time::Duration;

use super::codec::{Reader, Writer};
use super::hash::stable_hash;
use super::{COUNTER_MAX, DecodeError, GRAVE_KEPT, Instance, Key, Partition, RECORD_BYTES_MAX, Stamp};

const FORMAT: u8 = 1;

/// One record of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    key: Key,
    entry: Entry,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// About a member of a ring, or a rival of one.
    Claim(Claim),
    /// About a partition.
    Partition(Partition),
}

/// What the owner of an id wrote, or the grave that somebody put in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Counts the lives of the id: a process takes the highest that it has met, plus one.
    pub generation: u64,
    /// Counts the changes in one life.
    pub version: u64,
    /// The process that wrote it, by its id in membership: random, so it tells apart processes with the same instance id.
    pub nonce: u64,
    /// The description, or a grave.
    pub body: Body,
}

/// Whether a member is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// It is, and describes itself.
    Live(Arc<Instance>),
    /// It is not any more.
    Grave(Grave),
}

/// Says that a member is gone, as long as others may still hold what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grave {
    /// Why.
    pub reason: GraveReason,
    /// Who said so.
    pub by: String,
    /// How long the grave is kept from now on.
    pub remaining: Duration,
}

/// Why a member is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GraveReason {
    /// It left by itself.
    Left,
    /// Somebody forgot it on a page.
    Forgotten,
    /// It was down for so long that it was forgotten.
    Expired,
}

impl GraveReason {
    const ALL: [Self; 3] = [Self::Left, Self::Forgotten, Self::Expired];

    fn code(self) -> u8 {
        match self {
            Self::Left => 0,
            Self::Forgotten => 1,
            Self::Expired => 2,
        }
    }
}

/// A record that would not fit into a packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record of {key} takes {bytes} bytes; at most {RECORD_BYTES_MAX} are allowed, and 255 for one text: \
     shorten the id, the addresses or the zone"
)]
pub struct TooLarge {
    key: String,
    bytes: usize,
}

impl Record {
    /// A record about a member or a rival.
    ///
    /// # Errors
    /// It would be larger than a record may be.
    pub fn claim(key: Key, claim: Claim) -> Result<Self, TooLarge> {
        Self { key, entry: Entry::Claim(claim) }.checked()
    }

    /// A record about a partition.
    ///
    /// # Errors
    /// It would be larger than a record may be.
    pub fn partition(ring: &str, id: u32, partition: Partition) -> Result<Self, TooLarge> {
        Self { key: Key::partition(ring, id), entry: Entry::Partition(partition) }.checked()
    }

    fn checked(self) -> Result<Self, TooLarge> {
        let bytes = self.encode();
        // A text that does not fit its length byte is cut, and then the record read back is another.
        if Self::decode(&bytes).is_ok_and(|read| read == self) {
            Ok(self)
        } else {
            Err(TooLarge { key: self.key.to_string(), bytes: bytes.len() })
        }
    }

    /// What it is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What it says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The claim, if it is about a member or a rival.
    #[must_use]
    pub fn as_claim(&self) -> Option<&Claim> {
        match &self.entry {
            Entry::Claim(claim) => Some(claim),
            Entry::Partition(_) => None,
        }
    }

    /// The partition, if it is about one.
    #[must_use]
    pub fn as_partition(&self) -> Option<&Partition> {
        match &self.entry {
            Entry::Partition(partition) => Some(partition),
            Entry::Claim(_) => None,
        }
    }

    /// The grave's remaining time, if the record is a grave.
    pub(super) fn grave_remaining(&self) -> Option<Duration> {
        match &self.entry {
            Entry::Claim(Claim { body: Body::Grave(grave), .. }) => Some(grave.remaining),
            _ => None,
        }
    }

    pub(super) fn with_remaining(mut self, remaining: Duration) -> Self {
        if let Entry::Claim(Claim { body: Body::Grave(grave), .. }) = &mut self.entry {
            grave.remaining = remaining;
        }
        self
    }

    /// What the record says, without what runs down by itself.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp(stable_hash(&[&self.clone().with_remaining(Duration::ZERO).encode()]))
    }

    /// The one record that two records of the same key make. With another key, `self`.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        if self.key != other.key {
            return self.clone();
        }
        let entry = match (&self.entry, &other.entry) {
            (Entry::Claim(a), Entry::Claim(b)) => Entry::Claim(a.merge(b)),
            (Entry::Partition(a), Entry::Partition(b)) => Entry::Partition(a.merge(b)),
            // One key has one kind of entry: records are built and read so.
            (mine, _) => mine.clone(),
        };
        Self { key: self.key.clone(), entry }
    }

    /// The record's bytes, at most [`RECORD_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(FORMAT);
        self.key.write(&mut out);
        match &self.entry {
            Entry::Claim(claim) => claim.write(&mut out),
            Entry::Partition(partition) => partition.write(&mut out),
        }
        out.into_vec()
    }

    /// Reads what [`Record::encode`] wrote, anything else is refused.
    ///
    /// # Errors
    /// The bytes are not those of one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(DecodeError::Large(bytes.len()));
        }
        let mut from = Reader::new(bytes);
        match from.u8()? {
            FORMAT => {}
            other => return Err(DecodeError::Format(other)),
        }
        let key = Key::read(&mut from)?;
        let entry = match key {
            Key::Instance { .. } | Key::Rival { .. } => Entry::Claim(Claim::read(&mut from)?),
            Key::Partition { .. } => Entry::Partition(Partition::read(&mut from)?),
        };
        from.end()?;
        Ok(Self { key, entry })
    }
}

impl Claim {
    /// The description, if this is no grave.
    #[must_use]
    pub fn live(&self) -> Option<&Arc<Instance>> {
        match &self.body {
            Body::Live(instance) => Some(instance),
            Body::Grave(_) => None,
        }
    }

    /// A grave for exactly this claim: anything newer beats it.
    #[must_use]
    pub fn buried(&self, reason: GraveReason, by: &str) -> Self {
        let grave = Grave { reason, by: by.to_owned(), remaining: GRAVE_KEPT };
        Self { body: Body::Grave(grave), ..self.clone() }
    }

    /// Whether `self` is later than `other` by its counters alone.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (self.generation, self.version)
    }

    fn merge(&self, other: &Self) -> Self {
        match self.order().cmp(&other.order()) {
            std::cmp::Ordering::Less => other.clone(),
            std::cmp::Ordering::Greater => self.clone(),
            std::cmp::Ordering::Equal => {
                let mut one = self.clone();
                if let (Body::Grave(mine), Body::Grave(theirs)) = (&mut one.body, &other.body) {
                    mine.remaining = mine.remaining.min(theirs.remaining);
                }
                one
            }
        }
    }

    fn order(&self) -> (u64, u64, bool, u64, Content<'_>) {
        let content = match &self.body {
            Body::Live(instance) => Content::Live(instance),
            Body::Grave(grave) => Content::Grave(grave.reason, &grave.by),
        };
        (self.generation, self.version, self.live().is_none(), self.nonce, content)
    }

    fn write(&self, out: &mut Writer) {
        out.u64(self.generation);
        out.u64(self.version);
        out.u64(self.nonce);
        match &self.body {
            Body::Live(instance) => {
                out.u8(0);
                instance.write(out);
            }
            Body::Grave(grave) => {
                out.u8(1);
                out.u8(grave.reason.code());
                out.text(&grave.by);
                out.u32(u32::try_from(grave.remaining.as_secs()).unwrap_or(u32::MAX));
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (generation, version, nonce) = (from.u64()?, from.u64()?, from.u64()?);
        // An owner must always be able to go above what it meets.
        if generation > COUNTER_MAX || version > COUNTER_MAX {
            return Err(DecodeError::Value("generation or version"));
        }
        let body = match from.u8()? {
            0 => Body::Live(Arc::new(Instance::read(from)?)),
            1 => {
                let code = from.u8()?;
                let reason = GraveReason::ALL.into_iter().find(|reason| reason.code() == code);
                Body::Grave(Grave {
                    reason: reason.ok_or(DecodeError::Value("reason"))?,
                    by: from.text("by")?.to_owned(),
                    remaining: Duration::from_secs(from.u32()?.into()),
                })
            }
            _ => return Err(DecodeError::Value("kind of claim")),
        };
        Ok(Self { generation, version, nonce, body })
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Content<'a> {
    Live(&'a Instance),
    Grave(GraveReason, &'a str),
}

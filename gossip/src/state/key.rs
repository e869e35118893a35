//! What a record is about.

use std::fmt;
use std::sync::Arc;

use super::DecodeError;
use super::codec::{Reader, Writer};
use super::hash::stable_hash;

/// Names one record of the replicated state.
///
/// A ring is named by its whole key, prefix included (`collectors/live-store`): two prefixes are two rings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A member of a ring.
    Instance {
        /// The ring.
        ring: Arc<str>,
        /// The instance id.
        id: Arc<str>,
    },
    /// A second living process with the id of a member, which has yielded to that member.
    Rival {
        /// The ring.
        ring: Arc<str>,
        /// The instance id.
        id: Arc<str>,
        /// The process, by its id in membership.
        nonce: u64,
    },
    /// A partition of a partition ring.
    Partition {
        /// The ring.
        ring: Arc<str>,
        /// The partition.
        id: u32,
    },
}

/// Longest name of a ring, prefix included.
pub const RING_BYTES_MAX: usize = 96;
/// Longest instance id: a host name is at most 253 bytes.
pub const ID_BYTES_MAX: usize = 253;

impl Key {
    /// The key of a member of a ring.
    #[must_use]
    pub fn instance(ring: &str, id: &str) -> Self {
        Self::Instance { ring: ring.into(), id: id.into() }
    }

    /// The key of a process that yielded.
    #[must_use]
    pub fn rival(ring: &str, id: &str, nonce: u64) -> Self {
        Self::Rival { ring: ring.into(), id: id.into(), nonce }
    }

    /// The key of a partition.
    #[must_use]
    pub fn partition(ring: &str, id: u32) -> Self {
        Self::Partition { ring: ring.into(), id }
    }

    /// The ring that the record belongs to.
    #[must_use]
    pub fn ring(&self) -> &str {
        match self {
            Self::Instance { ring, .. } | Self::Rival { ring, .. } | Self::Partition { ring, .. } => ring,
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            Self::Instance { ring, id } => {
                out.u8(1);
                out.text(ring);
                out.text(id);
            }
            Self::Rival { ring, id, nonce } => {
                out.u8(2);
                out.text(ring);
                out.text(id);
                out.u64(*nonce);
            }
            Self::Partition { ring, id } => {
                out.u8(3);
                out.text(ring);
                out.u32(*id);
            }
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = from.u8()?;
        let ring = bounded(from.text("ring")?, RING_BYTES_MAX, "ring")?;
        match kind {
            1 => Ok(Self::Instance { ring, id: bounded(from.text("id")?, ID_BYTES_MAX, "id")? }),
            2 => Ok(Self::Rival { ring, id: bounded(from.text("id")?, ID_BYTES_MAX, "id")?, nonce: from.u64()? }),
            3 => Ok(Self::Partition { ring, id: from.u32()? }),
            _ => Err(DecodeError::Value("kind of key")),
        }
    }

    /// The key's bytes, for messages that carry keys without records.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.write(&mut out);
        out.into_vec()
    }

    /// Reads what [`Key::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are not those of one key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let key = Self::read(&mut from)?;
        from.end()?;
        Ok(key)
    }

    pub(super) fn hash64(&self) -> u64 {
        stable_hash(&[&self.encode()])
    }
}

fn bounded(text: &str, limit: usize, what: &'static str) -> Result<Arc<str>, DecodeError> {
    if text.is_empty() || text.len() > limit { Err(DecodeError::Value(what)) } else { Ok(text.into()) }
}

/// The form of logs and pages.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance { ring, id } => write!(f, "{ring}/{id}"),
            Self::Rival { ring, id, nonce } => write!(f, "{ring}/{id} (rival {nonce:016x})"),
            Self::Partition { ring, id } => write!(f, "{ring}/{id}"),
        }
    }
}

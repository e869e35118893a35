//! What people and tools ask of the rings of a process, and why it may not be done.

use crate::partition::{Change, ChangeError};

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

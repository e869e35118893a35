//! How the members are, as membership sees it from here: the one source of health for rings.
//!
//! A snapshot that the shell takes whenever membership changes. Rings read it; they keep no clocks of their own.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

/// What membership thinks of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It answers, directly or through others.
    Alive,
    /// It did not answer lately and may still object.
    Suspect,
    /// It was declared dead.
    Down,
    /// It said that it leaves.
    Left,
    /// Membership has not heard of it.
    Unknown,
}

impl Standing {
    /// Whether a process counts as healthy.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// The word on pages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
            Self::Unknown => "unknown",
        }
    }
}

/// A process in membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// What membership thinks of it.
    pub standing: Standing,
    /// Since its last proof of life; zero while it is alive.
    pub silent_for: Duration,
}

impl Sight {
    /// Alive at this moment.
    pub const ALIVE: Self = Self { standing: Standing::Alive, silent_for: Duration::ZERO };
    /// Never heard of.
    pub const UNKNOWN: Self = Self { standing: Standing::Unknown, silent_for: Duration::ZERO };
}

/// Membership at one moment, by process: the random id that a process draws when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Liveness {
    processes: HashMap<u64, Sight>,
}

impl Liveness {
    /// Of these processes.
    #[must_use]
    pub fn new(processes: impl IntoIterator<Item = (u64, Sight)>) -> Self {
        Self { processes: processes.into_iter().collect() }
    }

    /// Of this process alone: what a ring in memory goes by.
    #[must_use]
    pub fn alone(process: u64) -> Self {
        Self::new([(process, Sight::ALIVE)])
    }

    /// How a process is. A restart is another process.
    #[must_use]
    pub fn of(&self, process: u64) -> Sight {
        self.processes.get(&process).copied().unwrap_or(Sight::UNKNOWN)
    }

    /// How many processes are up.
    #[must_use]
    pub fn up(&self) -> usize {
        self.processes.values().filter(|sight| sight.standing.is_up()).count()
    }
}

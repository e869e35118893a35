//! The five words for how far along something is, shared by parts, supervisors and services.

use std::fmt;

use serde::Serialize;

/// How far along a part, a component or a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not ready yet: being built for the first time, or again.
    #[default]
    Starting,
    /// Ready.
    Running,
    /// Finishing what it has accepted.
    Stopping,
    /// Ended well.
    Stopped,
    /// Ended badly.
    Failed,
}

impl State {
    /// The word in lower case.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// The word as `/status/services` has it: `Starting`, `Running`, …
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Stopped => "Terminated",
            Self::Failed => "Failed",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    pub(crate) const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Starting,
            1 => Self::Running,
            2 => Self::Stopping,
            3 => Self::Stopped,
            _ => Self::Failed,
        }
    }

    /// The state of a whole whose parts are in these states.
    pub(crate) fn of_all(states: impl IntoIterator<Item = Self>) -> Self {
        let (mut starting, mut stopping, mut running, mut any) = (false, false, false, false);
        for state in states {
            any = true;
            match state {
                Self::Failed => return Self::Failed,
                Self::Starting => starting = true,
                Self::Stopping => stopping = true,
                Self::Running => running = true,
                Self::Stopped => {}
            }
        }
        match (stopping, starting, running) {
            (true, _, _) => Self::Stopping,
            (_, true, _) => Self::Starting,
            (_, _, true) => Self::Running,
            _ if any => Self::Stopped,
            _ => Self::Running,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One line of `/status/services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How far along it is.
    pub state: State,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_states_are_one_to_one() {
        for state in [State::Starting, State::Running, State::Stopping, State::Stopped, State::Failed] {
            assert_eq!(State::from_code(state.code()), state);
        }
    }

    #[test]
    fn a_whole_is_as_far_as_its_least_part() {
        use State::{Failed, Running, Starting, Stopped, Stopping};
        assert_eq!(State::of_all([Running, Starting]), Starting);
        assert_eq!(State::of_all([Running, Running]), Running);
        assert_eq!(State::of_all([Running, Stopped]), Running);
        assert_eq!(State::of_all([Running, Starting, Failed]), Failed);
        assert_eq!(State::of_all([Stopped, Stopping]), Stopping);
        assert_eq!(State::of_all([Stopped]), Stopped);
        assert_eq!(State::of_all([]), Running);
    }
}

//! Where an actor runs: a value, so that a simulation can put everybody on one thread.

use actix::ArbiterHandle;

/// The thread of a part.
#[derive(Debug, Clone, Default)]
pub enum Placement {
    /// The thread that starts the supervisor; it must run actix's `System` or a tokio `LocalSet`.
    #[default]
    Here,
    /// An arbiter. Parts that talk in lock-step belong on one: a hop between threads costs some 30 µs.
    On(ArbiterHandle),
}

impl Placement {
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::On(_) => "arbiter",
        }
    }

    /// Runs a function on that thread; false if the arbiter is gone.
    pub(crate) fn run(&self, function: impl FnOnce() + Send + 'static) -> bool {
        match self {
            Self::Here => {
                function();
                true
            }
            Self::On(arbiter) => arbiter.spawn_fn(function),
        }
    }
}

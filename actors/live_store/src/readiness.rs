//! Whether a live-store takes part, for `/ready` and for those who wait for it.

use tokio::sync::watch;

/// Where the live-store is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not caught up with its log so far.
    Starting,
    Ready,
    Stopping,
}

/// A handle; clones are the same one.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Sender<Phase>);

impl Readiness {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(watch::Sender::new(phase))
    }

    /// Why it does not take part, in the words of `/ready`; none when it does.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        match *self.0.borrow() {
            Phase::Starting => Some("live-store is starting".to_owned()),
            Phase::Ready => None,
            Phase::Stopping => Some("live-store is stopping".to_owned()),
        }
    }

    /// Waits until it is ready (or stopping).
    pub async fn started(&self) {
        // The sender is this value, so it cannot be gone.
        self.0.subscribe().wait_for(|phase| *phase != Phase::Starting).await.ok();
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.0.send_if_modified(|current| *current != Phase::Stopping && std::mem::replace(current, phase) != phase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_store_that_stops_does_not_become_ready_again() {
        let readiness = Readiness::new(Phase::Starting);
        assert_eq!(readiness.not_ready().unwrap(), "live-store is starting");
        readiness.set(Phase::Ready);
        assert_eq!(readiness.not_ready(), None);
        readiness.set(Phase::Stopping);
        readiness.set(Phase::Ready);
        assert_eq!(readiness.not_ready().unwrap(), "live-store is stopping");
    }
}

//! How far a consumer has come, for those who wait for it.

use std::future::Future;

use tokio::sync::watch;

use crate::error::Error;
use crate::record::Offset;

/// One consumer's progress through one partition, shared by clone: the consumer publishes, producers wait.
///
/// In the monolith an ack needs both: `append` (durable) and `applied` (a query by id finds it at once).
#[derive(Clone, Debug)]
pub struct Progress {
    sender: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    applied_end: Offset,
    closed: bool,
}

impl Progress {
    /// Everything below `applied_end` counts as applied already.
    #[must_use]
    pub fn new(applied_end: Offset) -> Self {
        Self { sender: watch::Sender::new(State { applied_end, closed: false }) }
    }

    /// Says that everything below `applied_end` is applied. A rebuilt consumer that replays publishes a lower value first,
    /// and waiters wait on; it also reopens a closed progress.
    pub fn publish(&self, applied_end: Offset) {
        self.sender.send_if_modified(|state| {
            let next = State { applied_end, closed: false };
            let changed = *state != next;
            *state = next;
            changed
        });
    }

    /// Says that nobody applies records any more: everyone who waits gets [`Error::Closed`], until somebody publishes again.
    pub fn close(&self) {
        self.sender.send_if_modified(|state| !std::mem::replace(&mut state.closed, true));
    }

    /// The offset below which everything is applied.
    #[must_use]
    pub fn applied_end(&self) -> Offset {
        self.sender.borrow().applied_end
    }

    /// Waits until the record at `offset` is applied, at most until `deadline` resolves (a timer of the injected clock).
    ///
    /// # Errors
    /// [`Error::DeadlineExceeded`] means unknown: the record may be applied a moment later. [`Error::Closed`] when the consumer
    /// is gone.
    pub async fn applied(&self, offset: Offset, deadline: impl Future<Output = ()>) -> Result<(), Error> {
        let mut receiver = self.sender.subscribe();
        let reached = receiver.wait_for(|state| state.closed || state.applied_end > offset);
        tokio::select! {
            biased;
            state = reached => match state {
                Ok(state) if state.applied_end > offset => Ok(()),
                Ok(_) | Err(_) => Err(Error::Closed),
            },
            () = deadline => Err(Error::DeadlineExceeded),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_waiter_wakes_when_its_offset_is_applied_and_not_before() {
        let progress = Progress::new(Offset(5));
        let publisher = progress.clone();
        let mut waiting = Box::pin(progress.applied(Offset(7), pending()));
        assert!(waiting.as_mut().now_or_never().is_none());
        publisher.publish(Offset(7));
        assert!(waiting.as_mut().now_or_never().is_none());
        publisher.publish(Offset(8));
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait_as_unknown() {
        let progress = Progress::new(Offset(0));
        assert!(matches!(progress.applied(Offset(0), ready(())).await, Err(Error::DeadlineExceeded)));
    }

    #[tokio::test]
    async fn an_applied_offset_wins_over_a_passed_deadline() {
        Progress::new(Offset(1)).applied(Offset(0), ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn closing_wakes_waiters_and_publishing_reopens() {
        let progress = Progress::new(Offset(0));
        progress.close();
        assert!(matches!(progress.applied(Offset(0), pending()).await, Err(Error::Closed)));
        progress.publish(Offset(1));
        progress.applied(Offset(0), pending()).await.unwrap();
    }
}

//! The instant by which an answer is of use.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

/// An instant after which a caller stops waiting. Passed down a chain of calls unchanged, so that the whole chain ends by it.
///
/// A call that reaches it has an *unknown* outcome: the message was not cancelled and may still take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The instant `duration` from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        // A year stands for "never": instants have an end.
        Self(Instant::now() + duration.min(Duration::from_secs(365 * 86_400)))
    }

    /// What is left; zero once it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// Waits for a future until the deadline.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED naming `what`; the future is dropped.
    pub async fn bound<T>(self, what: &str, future: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match tokio::time::timeout_at(self.0, future).await {
            Ok(result) => result,
            Err(_) => Err(Self::exceeded(what)),
        }
    }

    /// Completes when the deadline is reached.
    pub async fn reached(self) {
        self.sleep().await;
    }

    pub(crate) fn sleep(self) -> tokio::time::Sleep {
        tokio::time::sleep_until(self.0)
    }

    pub(crate) fn exceeded(what: &str) -> Status {
        Status::deadline_exceeded(format!("no answer from {what} in time; whether it took effect is unknown"))
    }
}

impl From<Duration> for Deadline {
    fn from(duration: Duration) -> Self {
        Self::after(duration)
    }
}

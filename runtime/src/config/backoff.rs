//! Waiting between attempts.

use super::GoDuration;

crate::config_struct! {
    /// Waiting between attempts, growing by a factor of two with jitter.
    pub struct BackoffConfig {
        /// First wait. Smaller values find a peer that comes back sooner, larger ones spare a struggling one.
        pub min_period: GoDuration = GoDuration::millis(100),
        /// Longest wait.
        pub max_period: GoDuration = GoDuration::secs(10),
        /// Attempts before giving up; 0 means without end.
        pub max_retries: u64 = 10,
    }
}

impl BackoffConfig {
    /// A block with other defaults than the usual ones.
    pub fn of(min_period: GoDuration, max_period: GoDuration, max_retries: u64) -> Self {
        Self { min_period, max_period, max_retries }
    }
}

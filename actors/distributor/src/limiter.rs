//! The rate limit of tenants as a rule: token buckets, their refusals and their forgetting. No clock, no IO.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vivace_protocol::TenantId;
use vivace_runtime::config::Limits;

/// How long a tenant's limits are used before they are looked up again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(10);
/// How often buckets that no longer matter are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a tenant may send through this distributor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimits {
    /// Bytes a second here.
    pub(crate) local: u64,
    /// Bytes a second in the whole cluster; 0 under the strategy `local`, as the texts of refusals print it.
    pub(crate) global: u64,
    /// Bytes at once. Never divided.
    pub(crate) burst: u64,
}

impl RateLimits {
    /// A tenant's share, with `distributors` of them healthy. When none seems to be, each allows the whole rate.
    pub(crate) fn of(limits: &Limits, distributors: u64) -> Self {
        let (rate, burst) = (limits.ingestion.rate_limit_bytes, limits.ingestion.burst_size_bytes);
        if limits.ingestion.rate_strategy == "global" {
            Self { local: rate.checked_div(distributors).unwrap_or(rate), global: rate, burst }
        } else {
            Self { local: rate, global: 0, burst }
        }
    }
}

/// Why a request was refused. Nothing happened; the texts are part of the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RateLimited {
    /// The bucket is too empty at present.
    #[error(
        "RATE_LIMITED: ingestion rate limit (local: {} bytes/s, global: {} bytes/s, burst: {} bytes) exceeded while adding \
         {bytes} bytes for user {tenant}. consider increasing the limit or reducing ingestion rate.",
        limits.local, limits.global, limits.burst
    )]
    Exhausted { limits: RateLimits, bytes: u64, tenant: TenantId },
    /// Larger than rate and burst: it can never pass, however long the sender waits.
    #[error(
        "RATE_LIMITED: batch size ({bytes} bytes) exceeds ingestion limit (local: {} bytes/s, global: {} bytes/s, burst: {} \
         bytes) for user {tenant}. consider reducing the batch size or increasing the limit.",
        limits.local, limits.global, limits.burst
    )]
    NeverFits { limits: RateLimits, bytes: u64, tenant: TenantId },
}

/// A bucket that fills at a rate up to a burst; a request takes all its tokens or none.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn full(limits: RateLimits, now: Instant) -> Self {
        let burst = as_tokens(limits.burst);
        Self { rate: as_tokens(limits.local), burst, tokens: burst, at: now }
    }

    /// Uses other limits from now on. Tokens above a smaller burst are lost; a larger burst fills at the rate.
    pub(crate) fn change(&mut self, limits: RateLimits, now: Instant) {
        self.refill(now);
        self.rate = as_tokens(limits.local);
        self.burst = as_tokens(limits.burst);
        self.tokens = self.tokens.min(self.burst);
    }

    /// Takes `bytes` tokens if there are so many.
    pub(crate) fn take(&mut self, bytes: u64, now: Instant) -> bool {
        self.refill(now);
        let wanted = as_tokens(bytes);
        let enough = wanted <= self.tokens;
        if enough {
            self.tokens -= wanted;
        }
        enough
    }

    /// Whether forgetting this bucket changes nothing, because a new one would be as full.
    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = elapsed.mul_add(self.rate, self.tokens).min(self.burst);
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits above 2^53 bytes are as good as none")]
fn as_tokens(bytes: u64) -> f64 {
    bytes as f64
}

/// The buckets of all tenants that matter at present.
#[derive(Debug)]
pub(crate) struct Limiter {
    tenants: HashMap<TenantId, Tenant>,
    swept: Instant,
}

#[derive(Debug)]
struct Tenant {
    bucket: TokenBucket,
    limits: RateLimits,
    looked_up: Instant,
}

impl Limiter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tenants: HashMap::new(), swept: now }
    }

    /// Charges a whole request to its tenant or refuses all of it.
    pub(crate) fn admit(
        &mut self,
        tenant: &TenantId,
        bytes: u64,
        now: Instant,
        look_up: impl Fn(&TenantId) -> RateLimits,
    ) -> Result<(), RateLimited> {
        self.sweep(now);
        if !self.tenants.contains_key(tenant) {
            let limits = look_up(tenant);
            let fresh = Tenant { bucket: TokenBucket::full(limits, now), limits, looked_up: now };
            self.tenants.insert(tenant.clone(), fresh);
        }
        let Some(entry) = self.tenants.get_mut(tenant) else { return Ok(()) };
        if now.saturating_duration_since(entry.looked_up) >= LOOK_UP_EVERY {
            entry.looked_up = now;
            let limits = look_up(tenant);
            if limits != entry.limits {
                entry.limits = limits;
                entry.bucket.change(limits, now);
            }
        }
        let limits = entry.limits;
        if entry.bucket.take(bytes, now) {
            Ok(())
        } else if bytes > limits.local && bytes > limits.burst {
            Err(RateLimited::NeverFits { limits, bytes, tenant: tenant.clone() })
        } else {
            Err(RateLimited::Exhausted { limits, bytes, tenant: tenant.clone() })
        }
    }

    /// How many tenants have a bucket.
    pub(crate) fn tenants(&self) -> usize {
        self.tenants.len()
    }

    /// Tenants are named by clients: without forgetting, memory would grow with every name ever sent.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.tenants.retain(|_, tenant| !tenant.bucket.is_full(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(rate: u64, burst: u64) -> RateLimits {
        RateLimits { local: rate, global: 0, burst }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn a_request_takes_all_or_nothing_and_tokens_come_back_at_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(limits(10, 100), start);
        assert!(!bucket.take(101, start));
        assert!(bucket.take(100, start));
        assert!(!bucket.take(1, start));
        assert!(!bucket.take(11, start + Duration::from_secs(1)));
        assert!(bucket.take(10, start + Duration::from_secs(1)));
    }

    #[test]
    fn a_rate_of_zero_allows_the_burst_and_then_nothing_more() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(limits(0, 5), start);
        assert!(bucket.take(5, start));
        assert!(!bucket.take(1, start + Duration::from_secs(1_000_000)));
    }

    #[test]
    fn refusals_have_the_texts_of_the_api() {
        let now = Instant::now();
        let mut limiter = Limiter::new(now);
        let look_up = |_: &TenantId| RateLimits { local: 50, global: 100, burst: 20 };
        let refused = limiter.admit(&tenant("a"), 30, now, look_up).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "RATE_LIMITED: ingestion rate limit (local: 50 bytes/s, global: 100 bytes/s, burst: 20 bytes) exceeded while \
             adding 30 bytes for user a. consider increasing the limit or reducing ingestion rate."
        );
        let refused = limiter.admit(&tenant("a"), 51, now, look_up).unwrap_err();
        assert!(
            refused.to_string().starts_with("RATE_LIMITED: batch size (51 bytes) exceeds ingestion limit (local: 50 ")
        );
    }

    #[test]
    fn the_global_strategy_divides_the_rate_but_never_the_burst() {
        let mut configured = Limits::default();
        configured.ingestion.rate_limit_bytes = 90;
        configured.ingestion.burst_size_bytes = 40;
        assert_eq!(RateLimits::of(&configured, 3), limits(90, 40));
        configured.ingestion.rate_strategy = "global".into();
        assert_eq!(RateLimits::of(&configured, 3), RateLimits { local: 30, global: 90, burst: 40 });
        assert_eq!(RateLimits::of(&configured, 0), RateLimits { local: 90, global: 90, burst: 40 });
    }

    #[test]
    fn changed_limits_count_after_ten_seconds() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let name = tenant("a");
        limiter.admit(&name, 1, start, |_| limits(1, 10)).unwrap();
        let raised = |_: &TenantId| limits(1000, 1000);
        assert!(limiter.admit(&name, 100, start + Duration::from_secs(9), raised).is_err());
        assert!(limiter.admit(&name, 100, start + Duration::from_secs(10), raised).is_err());
        limiter.admit(&name, 100, start + Duration::from_secs(11), raised).unwrap();
    }

    #[test]
    fn tenants_do_not_share_and_full_buckets_are_forgotten() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let look_up = |_: &TenantId| limits(1, 100);
        for name in ["a", "b"] {
            limiter.admit(&tenant(name), 100, start, look_up).unwrap();
        }
        limiter.admit(&tenant("c"), 1, start, look_up).unwrap();
        assert_eq!(limiter.tenants(), 3);
        let later = start + Duration::from_secs(60);
        assert!(limiter.admit(&tenant("a"), 61, later, look_up).is_err());
        assert_eq!(limiter.tenants(), 2);
    }

    proptest! {
        /// Whatever arrives whenever, a tenant never gets more than its burst plus what its rate yields.
        #[test]
        fn no_more_passes_than_burst_plus_rate_times_time(
            rate in 0u64..10_000,
            burst in 0u64..10_000,
            requests in prop::collection::vec((0u64..12_000, 0u64..3_000), 1..100),
        ) {
            let start = Instant::now();
            let mut limiter = Limiter::new(start);
            let (mut millis, mut passed) = (0, 0);
            for (bytes, pause) in requests {
                millis += pause;
                let now = start + Duration::from_millis(millis);
                if limiter.admit(&tenant("t"), bytes, now, |_| limits(rate, burst)).is_ok() {
                    passed += bytes;
                }
                let allowed = as_tokens(burst) + as_tokens(rate) * as_tokens(millis) / 1000.0;
                prop_assert!(as_tokens(passed) <= allowed + 1.0, "{} of {}", passed, allowed);
            }
        }

        /// A sender that stays within rate and burst is never refused.
        #[test]
        fn a_sender_within_its_rate_always_passes(rate in 1u64..10_000, seconds in 1u64..50) {
            let start = Instant::now();
            let mut limiter = Limiter::new(start);
            for second in 0..seconds {
                let now = start + Duration::from_secs(second);
                prop_assert!(limiter.admit(&tenant("t"), rate, now, |_| limits(rate, rate)).is_ok());
            }
        }
    }
}

//! What of the configuration concerns the router.

use std::time::Duration;

use vivace_runtime::tls::TlsError;
use vivace_runtime::{Dial, MAX_MESSAGE_BYTES, MAX_REPLY_BYTES};

use crate::config::{Config, LiveStoreClientConfig};

/// How live-stores are asked.
#[derive(Debug, Clone)]
pub struct RingSettings {
    pub(super) one_at_a_time: bool,
    /// None: nobody is asked because another is slow.
    pub(super) hedging_delay: Option<Duration>,
    pub(super) preferred_zone: String,
    /// A partition without owners that nothing was written to for so long is not missed.
    pub(super) settled_after: Duration,
    pub(super) dial: Dial,
    pub(super) max_request_bytes: usize,
    pub(super) max_reply_bytes: usize,
    /// How often connections are looked at.
    pub(super) check_interval: Duration,
    pub(super) health_checks: bool,
    pub(super) health_timeout: Duration,
    pub(super) health_grace: Duration,
    pub(super) health_concurrency: usize,
}

impl RingSettings {
    /// From `querier.partition_ring`, `live_store_client`, and how long it takes until blocks have everything
    /// (`query_frontend.search.query_backend_after`).
    ///
    /// # Errors
    /// The files or values of `live_store_client.grpc_client_config.tls_*` cannot be used.
    pub fn of(config: &Config, client: &LiveStoreClientConfig, settled_after: Duration) -> Result<Self, TlsError> {
        let (ring, pool, grpc) = (&config.partition_ring, &client.pool_config, &client.grpc_client_config);
        let or = |value: Duration, default| if value.is_zero() { Duration::from_secs(default) } else { value };
        let limit = |bytes: u64, most: usize| match usize::try_from(bytes).unwrap_or(usize::MAX) {
            0 => most,
            some => some.min(most),
        };
        let concurrency = usize::try_from(pool.maxconcurrenthealthchecks).unwrap_or(usize::MAX);
        Ok(Self {
            one_at_a_time: ring.minimize_requests,
            hedging_delay: Some(ring.hedging_delay.get()).filter(|delay| !delay.is_zero()),
            preferred_zone: ring.preferred_zone.clone(),
            settled_after,
            dial: Dial::of("live_store_client.grpc_client_config", grpc)?,
            max_request_bytes: limit(grpc.max_send_msg_size, MAX_MESSAGE_BYTES),
            max_reply_bytes: limit(grpc.max_recv_msg_size, MAX_REPLY_BYTES),
            check_interval: or(pool.checkinterval.get(), 15),
            health_checks: pool.healthcheckenabled,
            health_timeout: or(pool.healthchecktimeout.get(), 1),
            health_grace: pool.healthcheckgraceperiod.get(),
            health_concurrency: if concurrency == 0 { 16 } else { concurrency },
        })
    }
}

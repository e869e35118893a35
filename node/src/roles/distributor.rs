//! The distributor: receivers, limits, and the way into the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vivace_distributor::{Distributor, Partitions, TenantLimits, Wiring};
use vivace_log::{Log, Progress};
use vivace_runtime::{Failure, Rng};

use crate::base::Base;
use crate::kafka::Kafka;
use crate::rings::RingPartitions;

/// A process hears of the rings within moments of its start. After this long it has, or nobody takes writes; it is ready then all
/// the same, and refuses retryably.
const NEWS: Duration = Duration::from_secs(2);

/// What a distributor needs from others.
pub(super) struct Needs {
    pub(super) log: Arc<dyn Log>,
    pub(super) partitions: Arc<dyn Partitions>,
    pub(super) max_record_bytes: usize,
    /// The live-store of this process: an acknowledgement waits for it.
    pub(super) progress: Option<Progress>,
}

/// Adds it. The receivers say themselves where they listen, once they do.
///
/// # Errors
/// A receiver's port is taken, or something in its section cannot be used; names the key.
pub(super) fn add(base: &mut Base<'_>, needs: Needs) -> Result<(), Failure> {
    let wiring = Wiring {
        config: base.config.distributor.clone(),
        multitenancy: base.config.multitenancy(),
        limits: Arc::clone(&base.overrides) as Arc<dyn TenantLimits>,
        log: needs.log,
        partitions: needs.partitions,
        max_record_bytes: needs.max_record_bytes,
        progress: needs.progress,
        clock: Arc::clone(&base.clock),
        rng: Rng::from_system(),
        compute: base.pools.queries()?,
        servers: tokio::runtime::Handle::current(),
        metrics: base.registry.clone(),
        placement: base.ingest(),
    };
    Distributor::wire(wiring, &base.root())?;
    Ok(())
}

/// A distributor of its own process: it writes to Kafka, each trace to the partition that the ring has for it.
///
/// # Errors
/// What of the configuration cannot be used, or the brokers refuse or are not there; names the key.
pub(super) async fn add_alone(base: &mut Base<'_>) -> Result<(), Failure> {
    let log = Kafka::of(base).producer().await?;
    let largest = base.config.ingest.kafka.producer_max_record_size_bytes;
    let partitions = RingPartitions::new(base.rings.board.clone());
    let (ring, clock, began) = (partitions.clone(), Arc::clone(&base.clock), base.clock.now());
    base.ready_when(Box::new(move || unheard(ring.is_any_active(), began, clock.now())));
    let needs = Needs {
        log,
        partitions: Arc::new(partitions),
        max_record_bytes: usize::try_from(largest).unwrap_or(usize::MAX),
        progress: None,
    };
    add(base, needs)
}

/// Why it is not ready: it may not have heard yet of the partitions that it could write to.
fn unheard(is_any_active: bool, began: Instant, now: Instant) -> Option<String> {
    let waits = !is_any_active && now.saturating_duration_since(began) < NEWS;
    waits.then(|| "Distributor not ready: it has not heard of an active partition yet".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_it_knows_an_active_partition_or_has_waited_for_news() {
        let began = Instant::now();
        assert!(unheard(false, began, began).is_some());
        assert_eq!(unheard(true, began, began), None);
        assert_eq!(unheard(false, began, began + NEWS), None);
    }
}

//! The distributor: receivers, limits, and the way into the log.

use std::sync::Arc;

use vivace_distributor::{Distributor, Partitions, TenantLimits, Wiring};
use vivace_log::{Log, Progress};
use vivace_runtime::{Failure, Rng};

use crate::base::Base;
use crate::kafka::Kafka;
use crate::rings::RingPartitions;

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
    let needs = Needs {
        log,
        partitions: Arc::new(RingPartitions::new(base.rings.board.clone())),
        max_record_bytes: usize::try_from(largest).unwrap_or(usize::MAX),
        progress: None,
    };
    add(base, needs)
}

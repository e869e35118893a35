//! The log of separate processes: Kafka, as `ingest.kafka` says.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use vivace_log::config::KafkaConfig;
use vivace_log::kafka::{KafkaEnv, KafkaLog, LagExport, Role};
use vivace_log::{Budget, Error, GroupOffsets, Log, Partition};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Clock, Rng};

use crate::base::Base;

/// A refused client is asked to come back after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What a consumer has in flight is bounded by what it fetches; it appends nothing.
const NOTHING: usize = 0;

/// How the log is reached. Clones are equal.
#[derive(Clone)]
pub(crate) struct Kafka {
    config: KafkaConfig,
    clock: Arc<dyn Clock>,
    registry: Registry,
    runtime: Handle,
}

/// A log, and where a consumer's progress in it is committed.
pub(crate) type Source = (Arc<dyn Log>, Arc<dyn GroupOffsets>);

/// Reaches the log; to be called again after a pause if that failed.
pub(crate) type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Source, Error>> + Send + Sync>;

impl Kafka {
    /// To be called inside the runtime of servers and clients: connections live there.
    pub(crate) fn of(base: &Base<'_>) -> Self {
        Self {
            config: base.config.ingest.kafka.clone(),
            clock: Arc::clone(&base.clock),
            registry: base.registry.clone(),
            runtime: Handle::current(),
        }
    }

    async fn connect(&self, role: Role, budget_bytes: usize) -> Result<Arc<KafkaLog>, Error> {
        let env = KafkaEnv {
            clock: Arc::clone(&self.clock),
            rng: Rng::from_system(),
            budget: Budget::new(budget_bytes, RETRY_AFTER),
            registry: self.registry.clone(),
            role,
            runtime: self.runtime.clone(),
        };
        KafkaLog::connect(&self.config, env).await
    }

    /// The log of a distributor. Requests from their first byte to their acknowledgement are bounded by
    /// `ingest.kafka.producer_max_buffered_bytes`.
    ///
    /// # Errors
    /// The brokers refuse, or none is there within a minute.
    pub(crate) async fn producer(&self) -> Result<Arc<dyn Log>, Error> {
        let bytes = KafkaLog::budget_bytes(&self.config).unwrap_or(usize::MAX / 2);
        Ok(self.connect(Role::Producer, bytes).await?)
    }

    /// How a consumer of these partitions reaches the log; its lag is exported from then on.
    pub(crate) fn consumer(&self, component: &'static str, group: &str, partitions: Vec<Partition>) -> Connect {
        let (kafka, group) = (self.clone(), Arc::<str>::from(group));
        let (partitions, exports) = (Arc::<[Partition]>::from(partitions), Arc::new(Mutex::new(Vec::new())));
        Arc::new(move || {
            let (kafka, group) = (kafka.clone(), Arc::clone(&group));
            let (partitions, exports) = (Arc::clone(&partitions), Arc::clone(&exports));
            async move {
                let log = kafka.connect(Role::Consumer(component), NOTHING).await?;
                let offsets = log.offsets(&group);
                let of: Vec<LagExport> =
                    partitions.iter().map(|partition| log.export_lag(&group, *partition)).collect();
                // Those of a log that was replaced by another end here.
                *exports.lock() = of;
                Ok((log as Arc<dyn Log>, offsets))
            }
            .boxed()
        })
    }
}

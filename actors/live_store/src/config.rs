//! Configuration: `live_store`.

use vivace_runtime::config::{GoDuration, KvStoreConfig, RingConfig, WalConfig};

vivace_runtime::config_struct! {
    /// The live-store: recent traces, from the log. The form of its blocks is that of `storage.trace.block`.
    pub struct Config {
        /// Membership of the ring of live-stores.
        pub ring: RingConfig = RingConfig::default(),
        /// The ring of partitions.
        pub partition_ring: PartitionRingConfig = PartitionRingConfig::default(),
        /// Metrics queries on recent data.
        pub metrics: MetricsConfig = MetricsConfig::default(),
        /// Time between two commits of the log's offset; 0 commits with every batch. Longer means more to replay after a
        /// crash; nothing is lost either way.
        pub commit_interval: GoDuration = GoDuration::secs(5),
        /// Directory of local blocks and their log.
        pub wal: WalConfig = WalConfig::at("/var/tempo/live-store/traces"),
        /// Blocks searched at once for one query.
        pub query_block_concurrency: u64 = 10,
        /// How long complete blocks stay here after they are in object storage. Must exceed `storage.trace.blocklist_poll`,
        /// or traces vanish between flush and poll. Longer takes more disk.
        pub complete_block_timeout: GoDuration = GoDuration::minutes(20),
        /// Blocks completed at once.
        pub complete_block_concurrency: u64 = 2,
        /// Time between dropping a block and deleting its files: not below the longest query.
        pub block_reclaim_grace: GoDuration = GoDuration::minutes(2),
        /// Directory of the marker that says that this live-store is going for good, and of the generation of its ring
        /// record. On a disk that survives a restart.
        pub shutdown_marker_dir: String = "/var/tempo/live-store/shutdown-marker".into(),
        /// Time between two looks at what must be cut.
        pub flush_check_period: GoDuration = GoDuration::secs(5),
        /// Time limit of completing one block.
        pub flush_op_timeout: GoDuration = GoDuration::minutes(5),
        /// Age at which a trace is cut into a block although it still grows. Larger keeps more traces whole in one block and
        /// takes more memory.
        pub max_trace_live: GoDuration = GoDuration::secs(30),
        /// Idle time after which a trace is cut. Not above `max_trace_live`.
        pub max_trace_idle: GoDuration = GoDuration::secs(5),
        /// Bytes of one tenant that no block covers yet, from which on its traces are cut and, while earlier cuts wait for
        /// their blocks, consuming waits and requests are refused; 0 means without limit. Has an effect below
        /// `max_block_bytes`, which bounds all tenants together.
        pub max_live_traces_bytes: u64 = 250_000_000,
        /// Age at which a block is closed. Larger makes fewer and larger blocks.
        pub max_block_duration: GoDuration = GoDuration::secs(30),
        /// Bytes at which a block is closed.
        pub max_block_bytes: u64 = 52_428_800,
        /// Ready only when the lag is below this; 0 means ready at once. Also the lag above which `fail_on_high_lag` acts
        /// (10 s if 0).
        pub readiness_target_lag: GoDuration = GoDuration::ZERO,
        /// Ready after this time whatever the lag.
        pub readiness_max_wait: GoDuration = GoDuration::minutes(30),
        /// Answer queries retryably while the lag is high, instead of with old data.
        pub fail_on_high_lag: bool = true,
        /// Give up the partition when stopping. Off: it stays owned, and a restart finds it unchanged.
        pub remove_owner_on_shutdown: bool = true,
    }
}

vivace_runtime::config_struct! {
    /// The ring of partitions.
    pub struct PartitionRingConfig {
        /// Where the ring is kept.
        pub kvstore: KvStoreConfig = KvStoreConfig::default(),
        /// Owners that a new partition needs before it becomes active.
        pub min_partition_owners_count: u64 = 1,
        /// How long it must have had them.
        pub min_partition_owners_duration: GoDuration = GoDuration::secs(10),
        /// Age at which an inactive partition is removed; 0 means never. Must exceed the time that its data stays here.
        pub delete_inactive_partition_after: GoDuration = GoDuration::hours(13),
    }
}

vivace_runtime::config_struct! {
    /// Metrics queries on recent data.
    pub struct MetricsConfig {
        /// Skip the filter on time inside a block when the query's share of the block is below this, or above one minus it.
        pub time_overlap_cutoff: f64 = 0.2,
    }
}

/// Why a live-store cannot run as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that must be above zero.
    #[error("live_store.{0} must be above 0")]
    Zero(&'static str),
    /// Traces would be cut by age before they can be idle.
    #[error("live_store.max_trace_idle ({idle}) must not exceed live_store.max_trace_live ({live})")]
    IdleAboveLive {
        /// The idle time.
        idle: GoDuration,
        /// The age.
        live: GoDuration,
    },
}

impl Config {
    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// A duration or a count is zero that must not be, or `max_trace_idle` exceeds `max_trace_live`.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("complete_block_timeout", self.complete_block_timeout),
            ("flush_check_period", self.flush_check_period),
            ("flush_op_timeout", self.flush_op_timeout),
            ("max_trace_live", self.max_trace_live),
            ("max_trace_idle", self.max_trace_idle),
            ("max_block_duration", self.max_block_duration),
        ] {
            if value == GoDuration::ZERO {
                return Err(ConfigError::Zero(key));
            }
        }
        for (key, value) in [
            ("query_block_concurrency", self.query_block_concurrency),
            ("complete_block_concurrency", self.complete_block_concurrency),
            ("max_block_bytes", self.max_block_bytes),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(key));
            }
        }
        if self.max_trace_idle > self.max_trace_live {
            return Err(ConfigError::IdleAboveLive { idle: self.max_trace_idle, live: self.max_trace_live });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let config = Config { max_trace_idle: GoDuration::minutes(1), ..Config::default() };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "live_store.max_trace_idle (1m0s) must not exceed live_store.max_trace_live (30s)"
        );
        let config = Config { max_block_bytes: 0, ..Config::default() };
        assert_eq!(config.validate(), Err(ConfigError::Zero("max_block_bytes")));
    }
}

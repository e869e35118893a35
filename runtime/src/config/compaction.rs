//! Compaction and retention.

use super::GoDuration;

crate::config_struct! {
    /// Compaction and retention. Stands twice: planning uses the scheduler's, execution and retention the worker's; keep
    /// them equal.
    pub struct CompactionConfig {
        /// Blocks whose ends fall into one window of this length are merged. Larger windows give fewer, larger blocks and
        /// rewrite data more often.
        pub compaction_window: GoDuration = GoDuration::hours(1),
        /// Traces in one merged block.
        pub max_compaction_objects: u64 = 6_000_000,
        /// Bytes of one merged block.
        pub max_block_bytes: u64 = 107_374_182_400,
        /// Age at which blocks are deleted. Must exceed `storage.trace.blocklist_poll`.
        pub block_retention: GoDuration = GoDuration::hours(336),
        /// How long a block that was merged away stays readable for queries that began before.
        pub compacted_block_retention: GoDuration = GoDuration::hours(1),
        /// Tenants whose retention runs at once; 0 means the default, with a warning.
        pub retention_concurrency: u64 = 10,
        /// Longest time spent on one tenant before the next.
        pub max_time_per_tenant: GoDuration = GoDuration::minutes(5),
        /// Time between two cycles.
        pub compaction_cycle: GoDuration = GoDuration::secs(30),
    }
}

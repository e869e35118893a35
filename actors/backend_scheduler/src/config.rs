//! Configuration: `backend_scheduler`.

use vivace_runtime::config::{CompactionConfig, GoDuration};

vivace_runtime::config_struct! {
    /// The backend-scheduler: plans compaction, retention and redaction.
    pub struct Config {
        /// Jobs.
        pub work: WorkConfig = WorkConfig::default(),
        /// Time between two clean-ups of the jobs.
        pub maintenance_interval: GoDuration = GoDuration::minutes(1),
        /// Time between two copies of the jobs to object storage.
        pub backend_flush_interval: GoDuration = GoDuration::minutes(1),
        /// How long a worker's call waits for a job.
        pub job_timeout: GoDuration = GoDuration::secs(15),
        /// Directory of the file with the jobs.
        pub local_work_path: String = "/var/tempo".into(),
        /// Sources of jobs.
        pub provider: ProviderConfig = ProviderConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Jobs.
    pub struct WorkConfig {
        /// Age at which finished jobs are forgotten. Should exceed twice `storage.trace.blocklist_poll`.
        pub prune_age: GoDuration = GoDuration::hours(1),
        /// Age at which an unfinished job counts as lost.
        pub dead_job_timeout: GoDuration = GoDuration::hours(24),
    }
}

vivace_runtime::config_struct! {
    /// Sources of jobs.
    pub struct ProviderConfig {
        /// Retention.
        pub retention: RetentionConfig = RetentionConfig::default(),
        /// Compaction.
        pub compaction: CompactionProviderConfig = CompactionProviderConfig::default(),
        /// Redaction.
        pub redaction: RedactionConfig = RedactionConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Retention.
    pub struct RetentionConfig {
        /// Time between two retention jobs.
        pub interval: GoDuration = GoDuration::hours(1),
    }
}

vivace_runtime::config_struct! {
    /// Compaction.
    pub struct CompactionProviderConfig {
        /// Time between two measurements of what is outstanding. At most half of `work.prune_age`.
        pub measure_interval: GoDuration = GoDuration::minutes(1),
        /// What is planned. Keep it equal to `backend_worker.compaction`.
        pub compaction: CompactionConfig = CompactionConfig::default(),
        /// Jobs of one tenant before the next has its turn.
        pub max_jobs_per_tenant: u64 = 1000,
        /// Blocks that one job merges at least.
        pub min_input_blocks: u64 = 2,
        /// Blocks that one job merges at most.
        pub max_input_blocks: u64 = 4,
        /// Level above which blocks are left alone; 0 means without limit.
        pub max_compaction_level: u64 = 0,
        /// Least time between two rounds over all tenants.
        pub min_cycle_interval: GoDuration = GoDuration::secs(30),
    }
}

vivace_runtime::config_struct! {
    /// Redaction.
    pub struct RedactionConfig {
        /// Time between two looks for redactions.
        pub poll_interval: GoDuration = GoDuration::secs(2),
        /// Wait before blocks that appeared meanwhile are looked at again. Below `work.prune_age`.
        pub rescan_delay: GoDuration = GoDuration::minutes(5),
        /// How often they are looked at again.
        pub max_rescan_generations: u64 = 5,
    }
}

//! Configuration: `backend_worker`, `backend_scheduler_client`.

use vivace_runtime::config::{BackoffConfig, CompactionConfig, GoDuration, GrpcClientConfig, WorkerRingConfig};

vivace_runtime::config_struct! {
    /// The backend-worker: runs the jobs of the backend-scheduler and writes the index of each tenant's blocks.
    pub struct Config {
        /// Host and port of the backend-scheduler; an IPv6 address in brackets. Required outside target `all`.
        pub backend_scheduler_addr: String = String::new(),
        /// Waits between calls that fail.
        pub backoff: BackoffConfig = BackoffConfig::of(GoDuration::millis(100), GoDuration::minutes(1), 0),
        /// Compaction and retention.
        pub compaction: CompactionConfig = CompactionConfig::default(),
        /// Key of its ring.
        pub override_ring_key: String = "backend-worker".into(),
        /// Membership of its ring, over which tenants are divided. On with `kvstore.store: memberlist`.
        pub ring: WorkerRingConfig = WorkerRingConfig::default(),
        /// How long stopping waits for the job at hand.
        pub finish_on_shutdown_timeout: GoDuration = GoDuration::secs(30),
    }
}

vivace_runtime::config_struct! {
    /// `backend_scheduler_client`: connection to the backend-scheduler.
    pub struct SchedulerClientConfig {
        /// gRPC towards the backend-scheduler.
        pub grpc_client_config: GrpcClientConfig = GrpcClientConfig::default(),
    }
}

//! Configuration: `querier`, `live_store_client`.

use vivace_runtime::config::{GoDuration, GrpcClientConfig};

vivace_runtime::config_struct! {
    /// The querier: runs the jobs of queries.
    pub struct Config {
        /// Searches.
        pub search: SearchConfig = SearchConfig::default(),
        /// Traces by id.
        pub trace_by_id: TraceByIdConfig = TraceByIdConfig::default(),
        /// Metrics queries.
        pub metrics: MetricsConfig = MetricsConfig::default(),
        /// Choice of live-stores to ask.
        pub partition_ring: PartitionRingConfig = PartitionRingConfig::default(),
        /// Delay of every query, for tests. Accepted, no effect.
        pub extra_query_delay: GoDuration = GoDuration::ZERO,
        /// Jobs at once in this process. More uses more cores and more memory.
        pub max_concurrent_queries: u64 = 20,
        /// Connection to the query-frontends.
        pub frontend_worker: FrontendWorkerConfig = FrontendWorkerConfig::default(),
        /// Accepted, no effect.
        pub shuffle_sharding_ingesters_enabled: bool = false,
        /// Accepted, no effect.
        pub shuffle_sharding_ingesters_lookback_period: GoDuration = GoDuration::hours(1),
        /// Accepted, no effect.
        pub query_relevant_ingesters: bool = false,
        /// Accepted, no effect.
        pub secondary_ingester_ring: String = String::new(),
    }
}

vivace_runtime::config_struct! {
    /// Searches.
    pub struct SearchConfig {
        /// Time limit of one job.
        pub query_timeout: GoDuration = GoDuration::secs(30),
    }
}

vivace_runtime::config_struct! {
    /// Traces by id.
    pub struct TraceByIdConfig {
        /// Time limit of one job.
        pub query_timeout: GoDuration = GoDuration::secs(10),
        /// Another system that is asked too. Needs `query_frontend.trace_by_id.external_enabled`.
        pub external: ExternalConfig = ExternalConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Another system that is asked for traces.
    pub struct ExternalConfig {
        /// Its URL.
        pub endpoint: String = String::new(),
        /// Time limit of one request.
        pub timeout: GoDuration = GoDuration::secs(10),
    }
}

vivace_runtime::config_struct! {
    /// Metrics queries.
    pub struct MetricsConfig {
        /// Blocks of one job read at once. Accepted, not used.
        pub concurrent_blocks: u64 = 2,
        /// Skip the filter on time inside a block when the query's share of the block is below this, or above one minus it.
        pub time_overlap_cutoff: f64 = 0.2,
    }
}

vivace_runtime::config_struct! {
    /// Choice of live-stores to ask.
    pub struct PartitionRingConfig {
        /// Ask one owner of each partition first, and another only when it fails or is slow. Off: ask all owners.
        pub minimize_requests: bool = true,
        /// Time after which the next owner is asked too.
        pub hedging_delay: GoDuration = GoDuration::secs(3),
        /// Zone that is asked first.
        pub preferred_zone: String = String::new(),
    }
}

vivace_runtime::config_struct! {
    /// Connection to the query-frontends.
    pub struct FrontendWorkerConfig {
        /// Host and gRPC port of the query-frontends; a name is resolved to all its addresses. Required outside target `all`.
        pub frontend_address: String = String::new(),
        /// Time between two look-ups of that name.
        pub dns_lookup_duration: GoDuration = GoDuration::secs(10),
        /// Streams per query-frontend, with `match_max_concurrent: false`.
        pub parallelism: u64 = 2,
        /// Divide `max_concurrent_queries` among the query-frontends.
        pub match_max_concurrent: bool = true,
        /// Name of this querier. Empty: the host name.
        pub id: String = String::new(),
        /// gRPC towards the query-frontends.
        pub grpc_client_config: GrpcClientConfig = GrpcClientConfig::of_frontend_worker(),
    }
}

vivace_runtime::config_struct! {
    /// `live_store_client`: connections to live-stores.
    pub struct LiveStoreClientConfig {
        /// Pool of connections.
        pub pool_config: PoolConfig = PoolConfig::default(),
        /// Accepted, not used.
        pub remote_timeout: GoDuration = GoDuration::secs(5),
        /// gRPC towards the live-stores.
        pub grpc_client_config: GrpcClientConfig = GrpcClientConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Pool of connections.
    pub struct PoolConfig {
        /// Time between two looks for connections to members that are gone.
        pub checkinterval: GoDuration = GoDuration::secs(15),
        /// Ask every member for its health.
        pub healthcheckenabled: bool = true,
        /// Time limit of asking.
        pub healthchecktimeout: GoDuration = GoDuration::secs(1),
        /// How long a member may fail before its connection is dropped.
        pub healthcheckgraceperiod: GoDuration = GoDuration::ZERO,
        /// Members asked at once; 0 means 16.
        pub maxconcurrenthealthchecks: u64 = 0,
    }
}

//! Configuration: `storage`, `cache`.

use vivace_runtime::config::{
    AzureConfig, Csv, DedicatedColumn, GcsConfig, GoDuration, LocalConfig, S3Config, Secret, WalConfig,
};

vivace_runtime::config_struct! {
    /// Where blocks are kept.
    pub struct StorageConfig {
        /// Blocks of traces.
        pub trace: TraceConfig = TraceConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Blocks of traces.
    pub struct TraceConfig {
        /// Workers that read blocks.
        pub pool: PoolConfig = PoolConfig::default(),
        /// Directory of blocks in the making.
        pub wal: WalConfig = WalConfig::default(),
        /// Form of blocks.
        pub block: BlockConfig = BlockConfig::default(),
        /// Reading of blocks.
        pub search: SearchConfig = SearchConfig::default(),
        /// Time between two looks at the block list. Shorter shows new blocks sooner and costs requests.
        pub blocklist_poll: GoDuration = GoDuration::minutes(5),
        /// Blocks whose metadata is read at once; 0 means the default, with a warning.
        pub blocklist_poll_concurrency: u64 = 50,
        /// Tenants whose blocks are listed at once; 0 means 1.
        pub blocklist_poll_tenant_concurrency: u64 = 0,
        /// List the bucket when a tenant's index is missing or too old.
        pub blocklist_poll_fallback: bool = true,
        /// Backend-workers that write the index of each tenant.
        pub blocklist_poll_tenant_index_builders: u64 = 2,
        /// Age at which an index is too old; 0 means never.
        pub blocklist_poll_stale_tenant_index: GoDuration = GoDuration::ZERO,
        /// Milliseconds by which reading of metadata is spread.
        pub blocklist_poll_jitter_ms: u64 = 0,
        /// Errors in a row on one tenant that are overlooked.
        pub blocklist_poll_tolerate_consecutive_errors: u64 = 1,
        /// Tenants that may fail in one look.
        pub blocklist_poll_tolerate_tenant_failures: u64 = 1,
        /// Delete what is left of tenants without blocks.
        pub empty_tenant_deletion_enabled: bool = false,
        /// Age at which it is deleted; 0 means 12 hours.
        pub empty_tenant_deletion_age: GoDuration = GoDuration::ZERO,
        /// `s3`, `gcs`, `azure` or `local`. Required.
        pub backend: String = String::new(),
        /// A local directory.
        pub local: LocalConfig = LocalConfig::default(),
        /// Google Cloud Storage.
        pub gcs: GcsConfig = GcsConfig::default(),
        /// S3 and what speaks its protocol.
        pub s3: S3Config = S3Config::default(),
        /// Azure Blob Storage.
        pub azure: AzureConfig = AzureConfig::default(),
        /// Deprecated; use `cache`.
        pub cache: String = String::new(),
        /// Deprecated; use `cache`.
        pub cache_min_compaction_level: u64 = 0,
        /// Deprecated; use `cache`.
        pub cache_max_block_age: GoDuration = GoDuration::ZERO,
        /// Deprecated; use `cache`.
        pub background_cache: BackgroundConfig = BackgroundConfig { writeback_goroutines: 0, writeback_buffer: 0 },
        /// Deprecated; use `cache`.
        pub memcached: Option<MemcachedConfig> = None,
        /// Deprecated; use `cache`.
        pub redis: Option<RedisConfig> = None,
    }
}

vivace_runtime::config_struct! {
    /// Workers that read blocks.
    pub struct PoolConfig {
        /// Reads at once.
        pub max_workers: u64 = 400,
        /// Reads waiting.
        pub queue_depth: u64 = 20_000,
    }
}

/// A whole part is in memory while a block is written.
const MAX_BLOOM_SHARD_BYTES: u64 = 16 << 20;

vivace_runtime::config_struct! {
    /// Form of blocks.
    pub struct BlockConfig {
        /// Share of trace ids that a filter takes for present although they are not, above 0. Smaller costs memory and saves
        /// reads.
        pub bloom_filter_false_positive: f64 = 0.01,
        /// Bytes of one part of the filter.
        pub bloom_filter_shard_size_bytes: u64 = 102_400,
        /// Form of new blocks: `vParquet5`; also `vParquet4`, `vParquet3`.
        pub version: String = "vParquet5".into(),
        /// Bytes of one row group before compression. Larger compresses better and takes more memory to write.
        pub parquet_row_group_size_bytes: u64 = 100_000_000,
        /// Attributes with a column of their own. A list replaces the default one. At most 20 strings and 5 numbers a scope.
        pub parquet_dedicated_columns: Vec<DedicatedColumn> = DedicatedColumn::defaults(),
    }
}

vivace_runtime::config_struct! {
    /// Reading of blocks.
    pub struct SearchConfig {
        /// Bytes of one read.
        pub chunk_size_bytes: u64 = 1_000_000,
        /// Traces read ahead.
        pub prefetch_trace_count: u64 = 1000,
        /// Buffers of one read.
        pub read_buffer_count: u64 = 32,
        /// Bytes of one such buffer.
        pub read_buffer_size_bytes: u64 = 1_048_576,
        /// Parts of a block that are cached.
        pub cache_control: CacheControlConfig = CacheControlConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Parts of a block that are cached.
    pub struct CacheControlConfig {
        /// Footer.
        pub footer: bool = false,
        /// Index of columns.
        pub column_index: bool = false,
        /// Index of offsets.
        pub offset_index: bool = false,
    }
}

vivace_runtime::config_struct! {
    /// Caches in front of object storage and queries.
    pub struct CacheConfig {
        /// Writing in the background.
        pub background: BackgroundConfig = BackgroundConfig::default(),
        /// Caches, each with its roles.
        pub caches: Vec<CacheEntry> = Vec::new(),
    }
}

vivace_runtime::config_struct! {
    /// Writing in the background.
    pub struct BackgroundConfig {
        /// Writers.
        pub writeback_goroutines: u64 = 10,
        /// Entries waiting.
        pub writeback_buffer: u64 = 10_000,
    }
}

vivace_runtime::config_struct! {
    /// One cache.
    pub struct CacheEntry {
        /// What it keeps: `bloom`, `trace-id-index`, `parquet-footer`, `parquet-column-idx`, `parquet-offset-idx`,
        /// `parquet-page`, `frontend-search`. Each in one cache only.
        pub roles: Vec<String> = Vec::new(),
        /// Memcached. Excludes `redis`.
        pub memcached: Option<MemcachedConfig> = None,
        /// Redis. Excludes `memcached`.
        pub redis: Option<RedisConfig> = None,
    }
}

vivace_runtime::config_struct! {
    /// Memcached.
    pub struct MemcachedConfig {
        /// Name whose SRV or A records are the servers.
        pub host: String = String::new(),
        /// Service of those SRV records.
        pub service: String = String::new(),
        /// Servers, with `dns+`, `dnssrv+` or `dnssrvnoa+`; wins over `host`.
        pub addresses: Csv = Csv::default(),
        /// Time limit of one request.
        pub timeout: GoDuration = GoDuration::millis(100),
        /// Time limit of connecting; 0 means `timeout`.
        pub connect_timeout: GoDuration = GoDuration::ZERO,
        /// Idle connections per server.
        pub max_idle_conns: u64 = 100,
        /// Share of idle connections kept beyond what is used, in percent; below 0 keeps all.
        pub min_idle_conns_headroom_percentage: f64 = -1.0,
        /// Bytes of an entry; 0 means without limit.
        pub max_item_size: u64 = 0,
        /// Time between two look-ups of the servers.
        pub update_interval: GoDuration = GoDuration::minutes(1),
        /// Divide keys so that few move when a server comes or goes.
        pub consistent_hash: bool = false,
        /// Failures in a row after which a server is left out; 0 means never.
        pub circuit_breaker_consecutive_failures: u64 = 0,
        /// How long it is left out.
        pub circuit_breaker_timeout: GoDuration = GoDuration::ZERO,
        /// Time over which failures are counted.
        pub circuit_breaker_interval: GoDuration = GoDuration::ZERO,
        /// Use TLS. Off: the other `tls_` keys are ignored.
        pub tls_enabled: bool = false,
        /// Client certificate, a PEM file.
        pub tls_cert_path: String = String::new(),
        /// Key of the client certificate, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the server's certificate.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest TLS version to accept.
        pub tls_min_version: String = String::new(),
        /// How long entries live; 0 means without limit.
        pub ttl: GoDuration = GoDuration::ZERO,
    }
}

vivace_runtime::config_struct! {
    /// Redis.
    pub struct RedisConfig {
        /// Servers; several for a cluster or sentinels.
        pub endpoint: Csv = Csv::default(),
        /// Name of the master, with sentinels.
        pub master_name: String = String::new(),
        /// Time limit of one request; 0 means 100 ms.
        pub timeout: GoDuration = GoDuration::ZERO,
        /// How long entries live; 0 means `ttl`.
        pub expiration: GoDuration = GoDuration::ZERO,
        /// Database.
        pub db: u64 = 0,
        /// Connections; 0 means the library's choice.
        pub pool_size: u64 = 0,
        /// User name.
        pub username: String = String::new(),
        /// Password.
        pub password: Secret = Secret::default(),
        /// The endpoint is one server, not a cluster.
        pub single_node: bool = false,
        /// Use TLS. Off: the other `tls_` keys are ignored.
        pub tls_enabled: bool = false,
        /// Client certificate, a PEM file.
        pub tls_cert_path: String = String::new(),
        /// Key of the client certificate, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the server's certificate.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest TLS version to accept.
        pub tls_min_version: String = String::new(),
        /// How long an idle connection stays open.
        pub conn_max_idle_time: GoDuration = GoDuration::ZERO,
        /// How long a connection lives.
        pub conn_max_lifetime: GoDuration = GoDuration::ZERO,
        /// Read from the nearest server.
        pub route_by_latency: bool = false,
        /// Read from any server.
        pub route_randomly: bool = false,
        /// Read from replicas.
        pub read_only: bool = false,
        /// Redirections that are followed.
        pub max_redirects: u64 = 0,
        /// Idle connections.
        pub min_idle_conns: u64 = 0,
        /// Bytes of an entry; 0 means without limit.
        pub max_item_size: u64 = 0,
        /// How long entries live; 0 means without limit.
        pub ttl: GoDuration = GoDuration::ZERO,
    }
}

/// Why blocks cannot be kept as configured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Not one of the four kinds.
    #[error("unknown backend {0}: storage.trace.backend must be one of s3, gcs, azure, local")]
    Backend(String),
    /// `local` without a directory.
    #[error("storage.trace.local.path is required with storage.trace.backend: local")]
    NoLocalPath,
    /// Not a form of blocks.
    #[error("storage.trace.block.version is `{0}`, which is not a known form of blocks")]
    Version(String),
    /// Not a share.
    #[error("storage.trace.block.bloom_filter_false_positive is {0}, allowed is above 0 and below 1")]
    FalsePositive(f64),
    /// The parts of the filter have no room, or take all of the memory.
    #[error("storage.trace.block.bloom_filter_shard_size_bytes is {0}, allowed is 1 to {MAX_BLOOM_SHARD_BYTES}")]
    BloomShard(u64),
    /// Row groups have no room.
    #[error("storage.trace.block.parquet_row_group_size_bytes must be above 0")]
    RowGroup,
    /// Columns that do not fit.
    #[error("storage.trace.block.parquet_dedicated_columns cannot be used")]
    Columns(#[source] vivace_runtime::config::DedicatedColumnError),
}

impl TraceConfig {
    /// Checks the kind of storage and the form of blocks.
    ///
    /// # Errors
    ///
    /// A required key is missing or a value is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.backend.as_str() {
            "s3" | "gcs" | "azure" => {}
            "local" if self.local.path.is_empty() => return Err(ConfigError::NoLocalPath),
            "local" => {}
            other => return Err(ConfigError::Backend(other.to_owned())),
        }
        self.block.validate()
    }
}

impl BlockConfig {
    /// Size and sharpness of the bloom filters.
    #[must_use]
    pub fn bloom(&self) -> crate::BloomSpec {
        crate::BloomSpec {
            shard_bytes: usize::try_from(self.bloom_filter_shard_size_bytes).unwrap_or(usize::MAX),
            false_positives: self.bloom_filter_false_positive,
        }
    }

    /// Checks the form of blocks.
    ///
    /// # Errors
    ///
    /// A value is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !matches!(self.version.as_str(), "vParquet3" | "vParquet4" | "vParquet5") {
            return Err(ConfigError::Version(self.version.clone()));
        }
        let share = self.bloom_filter_false_positive;
        if !(share > 0.0 && share < 1.0) {
            return Err(ConfigError::FalsePositive(share));
        }
        let shard = self.bloom_filter_shard_size_bytes;
        if shard == 0 || shard > MAX_BLOOM_SHARD_BYTES {
            return Err(ConfigError::BloomShard(shard));
        }
        if self.parquet_row_group_size_bytes == 0 {
            return Err(ConfigError::RowGroup);
        }
        DedicatedColumn::validate(&self.parquet_dedicated_columns).map_err(ConfigError::Columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_storage_is_required() {
        assert_eq!(TraceConfig::default().validate(), Err(ConfigError::Backend(String::new())));
        let mut config = TraceConfig { backend: "local".into(), ..TraceConfig::default() };
        assert_eq!(config.validate(), Err(ConfigError::NoLocalPath));
        config.local.path = "/tmp/blocks".into();
        assert_eq!(config.validate(), Ok(()));
        config.block.bloom_filter_false_positive = 0.0;
        assert_eq!(config.validate(), Err(ConfigError::FalsePositive(0.0)));
    }
}

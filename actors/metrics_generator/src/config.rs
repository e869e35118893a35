//! Configuration: `metrics_generator`.

use std::collections::BTreeMap;

use vivace_runtime::config::{Any, DimensionMapping, FilterPolicy, GoDuration, RingConfig};

vivace_runtime::config_struct! {
    /// The metrics-generator: metrics from spans. It runs only with `storage.path` set.
    pub struct Config {
        /// Membership of its ring, with `ring_mode: generator`.
        pub ring: RingConfig = RingConfig::default(),
        /// How partitions are divided: `partition` by the log's consumer group, `generator` by a ring.
        pub ring_mode: RingMode = RingMode::Partition,
        /// Processors.
        pub processor: ProcessorConfig = ProcessorConfig::default(),
        /// Series.
        pub registry: RegistryConfig = RegistryConfig::default(),
        /// Where metrics go.
        pub storage: StorageConfig = StorageConfig::default(),
        /// Spans whose end is further from now than this are left out.
        pub metrics_ingestion_time_range_slack: GoDuration = GoDuration::secs(30),
        /// Key of its ring.
        pub override_ring_key: String = "metrics-generator".into(),
        /// Form of the log's records: `push-bytes` or `otlp`.
        pub codec: Codec = Codec::PushBytes,
        /// What is limited per tenant: `series` or `entity`.
        pub limiter_type: LimiterType = LimiterType::Series,
        /// Batches processed at once.
        pub ingest_concurrency: u64 = 16,
        /// Name of this process. Empty: the host name.
        pub instance_id: String = String::new(),
        /// Leave the consumer group when stopping. Off: a restart within the session time takes its partitions back.
        pub leave_consumer_group_on_shutdown: bool = false,
        /// Skip what is older than `metrics_ingestion_time_range_slack` at start instead of reading it.
        pub skip_stale_backlog_on_startup: bool = false,
    }
}

vivace_runtime::config_choice! {
    /// How partitions are divided.
    pub enum RingMode {
        /// By the log's consumer group.
        Partition = "partition",
        /// By a ring.
        Generator = "generator",
    }
}

vivace_runtime::config_choice! {
    /// Form of the log's records.
    pub enum Codec {
        /// As distributors write them.
        PushBytes = "push-bytes",
        /// OTLP.
        Otlp = "otlp",
    }
}

vivace_runtime::config_choice! {
    /// What is limited per tenant.
    pub enum LimiterType {
        /// Series.
        Series = "series",
        /// Entities: sets of labels that several series share.
        Entity = "entity",
    }
}

vivace_runtime::config_struct! {
    /// Processors. They run for tenants that list them in `metrics_generator.processors` of their overrides.
    pub struct ProcessorConfig {
        /// Service graphs.
        pub service_graphs: ServiceGraphsConfig = ServiceGraphsConfig::default(),
        /// Span metrics.
        pub span_metrics: SpanMetricsConfig = SpanMetricsConfig::default(),
        /// Host info.
        pub host_info: HostInfoConfig = HostInfoConfig::default(),
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

vivace_runtime::config_struct! {
    /// Service graphs.
    pub struct ServiceGraphsConfig {
        /// How long an edge waits for its other half. Longer pairs more edges and takes more memory.
        pub wait: GoDuration = GoDuration::secs(10),
        /// Edges waiting.
        pub max_items: u64 = 10_000,
        /// Workers.
        pub workers: u64 = 10,
        /// Upper bounds of buckets, in seconds, ascending.
        pub histogram_buckets: Vec<f64> = vec![0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8],
        /// Attributes that become labels.
        pub dimensions: Vec<String> = Vec::new(),
        /// Prefix labels by `client_` and `server_`.
        pub enable_client_server_prefix: bool = false,
        /// Measure the time in messaging systems.
        pub enable_messaging_system_latency_histogram: bool = false,
        /// Attributes that name the peer of a span without a partner, in order of preference.
        pub peer_attributes: Vec<String> = strings(&["peer.service", "db.name", "db.system", "db.system.name"]),
        /// Attribute with the number of spans that one stands for.
        pub span_multiplier_key: String = String::new(),
        /// Take that number from the tracestate.
        pub enable_tracestate_span_multiplier: bool = false,
        /// Label edges to nodes without spans.
        pub enable_virtual_node_label: bool = false,
        /// Attributes that name a database, in order of preference.
        pub database_name_attributes: Vec<String> = strings(&["db.namespace", "db.name", "db.system", "db.system.name"]),
        /// Which spans count.
        pub filter_policies: Vec<FilterPolicy> = Vec::new(),
    }
}

vivace_runtime::config_struct! {
    /// Span metrics.
    pub struct SpanMetricsConfig {
        /// Upper bounds of buckets, in seconds, ascending.
        pub histogram_buckets: Vec<f64> = (0..14).map(|n| 0.002 * f64::from(1 << n)).collect(),
        /// Intrinsics that become labels.
        pub intrinsic_dimensions: IntrinsicDimensions = IntrinsicDimensions::default(),
        /// Attributes that become labels. Each value makes series of its own.
        pub dimensions: Vec<String> = Vec::new(),
        /// Labels made of several attributes.
        pub dimension_mappings: Vec<DimensionMapping> = Vec::new(),
        /// Export `target_info`.
        pub enable_target_info: bool = false,
        /// Attribute with the number of spans that one stands for.
        pub span_multiplier_key: String = String::new(),
        /// Take that number from the tracestate.
        pub enable_tracestate_span_multiplier: bool = false,
        /// Which spans count.
        pub filter_policies: Vec<FilterPolicy> = Vec::new(),
        /// Attributes left out of `target_info`.
        pub target_info_excluded_dimensions: Vec<String> = Vec::new(),
        /// Label series by the instance of the resource.
        pub enable_instance_label: bool = true,
    }
}

vivace_runtime::config_struct! {
    /// Intrinsics that become labels.
    pub struct IntrinsicDimensions {
        /// Name of the service.
        pub service: bool = true,
        /// Name of the span.
        pub span_name: bool = true,
        /// Kind of the span.
        pub span_kind: bool = true,
        /// Code of the status.
        pub status_code: bool = true,
        /// Message of the status. Free text: many series.
        pub status_message: bool = false,
    }
}

vivace_runtime::config_struct! {
    /// Host info.
    pub struct HostInfoConfig {
        /// Resource attributes that identify a host, in order of preference.
        pub host_identifiers: Vec<String> = strings(&["k8s.node.name", "host.id"]),
        /// Name of the metric.
        pub metric_name: String = "traces_host_info".into(),
    }
}

vivace_runtime::config_struct! {
    /// Series.
    pub struct RegistryConfig {
        /// Time between two collections.
        pub collection_interval: GoDuration = GoDuration::secs(15),
        /// Series that did not change for this long are dropped.
        pub stale_duration: GoDuration = GoDuration::minutes(15),
        /// Labels of every series.
        pub external_labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Label with the tenant. Empty: none.
        pub inject_tenant_id_as: String = String::new(),
        /// Bytes of a label's name; longer ones are cut.
        pub max_label_name_length: u64 = 1024,
        /// Bytes of a label's value; longer ones are cut.
        pub max_label_value_length: u64 = 2048,
    }
}

vivace_runtime::config_struct! {
    /// Where metrics go.
    pub struct StorageConfig {
        /// Directory of the remote-write log. Empty: the metrics-generator does not run.
        pub path: String = String::new(),
        /// The remote-write log.
        pub wal: MetricsWalConfig = MetricsWalConfig::default(),
        /// How long stopping waits for samples to be sent.
        pub remote_write_flush_deadline: GoDuration = GoDuration::minutes(1),
        /// Send the tenant as `X-Scope-OrgID`.
        pub remote_write_add_org_id_header: bool = true,
        /// Receivers of metrics, in the form of Prometheus: `url`, `headers`, `basic_auth`, `queue_config`, …
        pub remote_write: Vec<Any> = Vec::new(),
    }
}

vivace_runtime::config_struct! {
    /// The remote-write log.
    pub struct MetricsWalConfig {
        /// Bytes of one segment.
        pub wal_segment_size: u64 = 134_217_728,
        /// `none`, `snappy` or `zstd`.
        pub wal_compression: String = "none".into(),
        /// Parts of the table of series.
        pub stripe_size: u64 = 16_384,
        /// Time between two truncations.
        pub truncate_frequency: GoDuration = GoDuration::hours(2),
        /// Milliseconds that samples stay at least.
        pub min_wal_time: u64 = 300_000,
        /// Milliseconds that samples stay at most.
        pub max_wal_time: u64 = 14_400_000,
        /// Do not lock the directory.
        pub no_lockfile: bool = false,
    }
}

//! Configuration: `distributor`.

mod receivers;

use vivace_runtime::config::{Any, DistributorRingConfig, GoDuration};

pub use receivers::{
    CorsConfig, GrpcReceiverConfig, HttpReceiverConfig, JaegerConfig, JaegerProtocols, KafkaReceiverConfig,
    KeepaliveConfig, KeepaliveEnforcement, KeepaliveParameters, OtlpConfig, OtlpHttpConfig, OtlpProtocols, Receiver,
    ReceiverTlsConfig, Receivers, UdpReceiverConfig, ZipkinConfig,
};

vivace_runtime::config_struct! {
    /// The distributor: receives spans and writes them to the log.
    pub struct Config {
        /// Membership of the ring of distributors, used by the global rate limit only.
        pub ring: DistributorRingConfig = DistributorRingConfig::default(),
        /// Receivers by `type` or `type/name`, with the keys of the OpenTelemetry Collector: `otlp`, `jaeger`, `zipkin`,
        /// `kafka`. None: OTLP over gRPC and over HTTP on their usual ports.
        pub receivers: Receivers = Receivers::default(),
        /// Key of the ring.
        pub override_ring_key: String = "distributor".into(),
        /// Log spans that were received. For debugging: it is a lot.
        pub log_received_spans: LogSpansConfig = LogSpansConfig::default(),
        /// Log spans that were refused. For debugging.
        pub log_discarded_spans: LogSpansConfig = LogSpansConfig::default(),
        /// Count received spans by name and service, as `tempo_distributor_debug_spans_received_total`. For debugging.
        pub metric_received_spans: MetricSpansConfig = MetricSpansConfig::default(),
        /// Other systems to which spans are sent on, for tenants that list their names.
        pub forwarders: Vec<ForwarderConfig> = Vec::new(),
        /// Attribution of cost.
        pub usage: UsageConfig = UsageConfig::default(),
        /// Accepted; `ingest.kafka` is what counts.
        pub kafka_config: Any = Any::default(),
        /// When a refused sender should come again; 0 gives no hint.
        pub retry_after_on_resource_exhausted: GoDuration = GoDuration::secs(5),
        /// Bytes after which keys and values of attributes are cut, at whole characters.
        pub max_attribute_bytes: u64 = 2048,
        /// Least duration of a request, for tests.
        pub artificial_delay: GoDuration = GoDuration::ZERO,
    }
}

vivace_runtime::config_struct! {
    /// Logging of spans.
    pub struct LogSpansConfig {
        /// Log them.
        pub enabled: bool = false,
        /// With all attributes.
        pub include_all_attributes: bool = false,
        /// Only those with an error.
        pub filter_by_status_error: bool = false,
    }
}

vivace_runtime::config_struct! {
    /// Counting of spans per service.
    pub struct MetricSpansConfig {
        /// Count them.
        pub enabled: bool = false,
        /// Only those without a parent.
        pub root_only: bool = false,
    }
}

vivace_runtime::config_struct! {
    /// Attribution of cost.
    pub struct UsageConfig {
        /// Attribution of cost.
        pub cost_attribution: CostAttributionConfig = CostAttributionConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Attribution of cost.
    pub struct CostAttributionConfig {
        /// Serve `/usage_metrics`.
        pub enabled: bool = false,
        /// Combinations of labels per tenant; what is beyond is counted together.
        pub max_cardinality: u64 = 10_000,
        /// Combinations that were not seen for this long are dropped.
        pub stale_duration: GoDuration = GoDuration::minutes(15),
    }
}

vivace_runtime::config_struct! {
    /// Another system to which spans are sent on.
    pub struct ForwarderConfig {
        /// Name, used in `overrides`.
        pub name: String = String::new(),
        /// `otlpgrpc`.
        pub backend: String = String::new(),
        /// OTLP over gRPC.
        pub otlpgrpc: OtlpGrpcForwarderConfig = OtlpGrpcForwarderConfig::default(),
        /// Which spans are left out.
        pub filter: ForwarderFilterConfig = ForwarderFilterConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// OTLP over gRPC.
    pub struct OtlpGrpcForwarderConfig {
        /// Hosts and ports.
        pub endpoints: Vec<String> = Vec::new(),
        /// TLS.
        pub tls: ForwarderTlsConfig = ForwarderTlsConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// TLS of a forwarder.
    pub struct ForwarderTlsConfig {
        /// Plain text.
        pub insecure: bool = false,
        /// Certificates of the authorities to trust, a PEM file.
        pub cert_file: String = String::new(),
    }
}

vivace_runtime::config_struct! {
    /// Which spans are left out.
    pub struct ForwarderFilterConfig {
        /// Of traces.
        pub traces: ForwarderTracesFilter = ForwarderTracesFilter::default(),
    }
}

vivace_runtime::config_struct! {
    /// Which parts of traces are left out.
    pub struct ForwarderTracesFilter {
        /// Conditions in OTTL; spans that meet one are left out.
        pub span: Vec<String> = Vec::new(),
        /// Conditions in OTTL; span events that meet one are left out.
        pub spanevent: Vec<String> = Vec::new(),
    }
}

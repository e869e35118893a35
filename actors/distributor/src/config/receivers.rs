//! `distributor.receivers`: the receivers' keys are those of the OpenTelemetry Collector.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};
use vivace_runtime::config::{Any, Described, GoDuration, Key, Presence, Shape};

/// Receivers by `type` or `type/name`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Receivers(pub BTreeMap<String, Receiver>);

/// One receiver.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Receiver {
    /// OTLP.
    Otlp(OtlpConfig),
    /// Jaeger.
    Jaeger(JaegerConfig),
    /// Zipkin.
    Zipkin(Box<ZipkinConfig>),
    /// Spans from a Kafka topic.
    Kafka(Box<KafkaReceiverConfig>),
}

impl Receivers {
    /// What listens: the configured receivers, or OTLP over both protocols when there are none.
    pub fn effective(&self) -> BTreeMap<String, Receiver> {
        if self.0.is_empty() {
            let protocols = OtlpProtocols {
                grpc: Presence(Some(GrpcReceiverConfig::default())),
                http: Presence(Some(OtlpHttpConfig::default())),
            };
            return BTreeMap::from([("otlp".to_owned(), Receiver::Otlp(OtlpConfig { protocols }))]);
        }
        self.0.clone()
    }

    /// The OTLP receivers among [`effective`](Self::effective), with their ids.
    pub fn otlp(&self) -> Vec<(String, OtlpConfig)> {
        self.effective()
            .into_iter()
            .filter_map(|(id, receiver)| if let Receiver::Otlp(config) = receiver { Some((id, config)) } else { None })
            .collect()
    }
}

/// Types that can stand before the `/`.
const TYPES: &[&str] = &["otlp", "jaeger", "zipkin", "kafka"];

impl<'de> Deserialize<'de> for Receivers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Receivers;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("receivers by type")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Receivers, A::Error> {
                let mut receivers = BTreeMap::new();
                while let Some(id) = map.next_key::<String>()? {
                    let receiver = match id.split('/').next().unwrap_or_default() {
                        "otlp" => Receiver::Otlp(map.next_value()?),
                        "jaeger" => Receiver::Jaeger(map.next_value()?),
                        "zipkin" => Receiver::Zipkin(map.next_value()?),
                        "kafka" => Receiver::Kafka(map.next_value()?),
                        other => return Err(de::Error::unknown_field(other, TYPES)),
                    };
                    receivers.insert(id, receiver);
                }
                Ok(Receivers(receivers))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Described for Receivers {
    fn shape() -> Shape {
        Shape::Components(vec![
            Key::new("otlp", " OTLP.\n", OtlpConfig::shape),
            Key::new("jaeger", " Jaeger.\n", JaegerConfig::shape),
            Key::new("zipkin", " Zipkin's JSON and protobuf over HTTP.\n", ZipkinConfig::shape),
            Key::new("kafka", " Spans from a Kafka topic.\n", KafkaReceiverConfig::shape),
        ])
    }
}

vivace_runtime::config_struct! {
    /// OTLP.
    pub struct OtlpConfig {
        /// Protocols; one that is named without a value listens with its defaults.
        pub protocols: OtlpProtocols = OtlpProtocols::default(),
    }
}

vivace_runtime::config_struct! {
    /// Protocols of OTLP.
    pub struct OtlpProtocols {
        /// OTLP over gRPC.
        pub grpc: Presence<GrpcReceiverConfig> = Presence::absent(),
        /// OTLP over HTTP, protobuf or JSON.
        pub http: Presence<OtlpHttpConfig> = Presence::absent(),
    }
}

vivace_runtime::config_struct! {
    /// A gRPC listener of a receiver.
    pub struct GrpcReceiverConfig {
        /// Address and port. In containers `0.0.0.0:4317` or `[::]:4317`.
        pub endpoint: String = "localhost:4317".into(),
        /// `tcp`, `tcp4` or `tcp6`.
        pub transport: String = "tcp".into(),
        /// TLS. Absent: plain text.
        pub tls: Presence<ReceiverTlsConfig> = Presence::absent(),
        /// Largest request, in MiB; 0 means 4.
        pub max_recv_msg_size_mib: u64 = 0,
        /// Requests at once on one connection; 0 means without limit.
        pub max_concurrent_streams: u32 = 0,
        /// Read buffer of a connection, in bytes.
        pub read_buffer_size: u64 = 524_288,
        /// Write buffer of a connection, in bytes.
        pub write_buffer_size: u64 = 0,
        /// Probing of connections.
        pub keepalive: KeepaliveConfig = KeepaliveConfig::default(),
        /// An authenticator of the collector. Not available.
        pub auth: Any = Any::default(),
        /// Accepted; the tenant's header is always looked at.
        pub include_metadata: bool = true,
        /// Extensions of the collector. Not available.
        pub middlewares: Vec<Any> = Vec::new(),
    }
}

vivace_runtime::config_struct! {
    /// Probing of connections.
    pub struct KeepaliveConfig {
        /// What the listener does.
        pub server_parameters: KeepaliveParameters = KeepaliveParameters::default(),
        /// What clients may do.
        pub enforcement_policy: KeepaliveEnforcement = KeepaliveEnforcement::default(),
    }
}

vivace_runtime::config_struct! {
    /// What a gRPC listener does with its connections; 0 means the library's.
    pub struct KeepaliveParameters {
        /// Idle time after which a connection is closed.
        pub max_connection_idle: GoDuration = GoDuration::ZERO,
        /// Age at which a connection is closed. Minutes spread senders over new replicas.
        pub max_connection_age: GoDuration = GoDuration::ZERO,
        /// Time that requests in flight have after that age.
        pub max_connection_age_grace: GoDuration = GoDuration::ZERO,
        /// Idle time after which a connection is probed.
        pub time: GoDuration = GoDuration::ZERO,
        /// Wait for the answer to a probe.
        pub timeout: GoDuration = GoDuration::ZERO,
    }
}

vivace_runtime::config_struct! {
    /// What clients of a gRPC listener may do.
    pub struct KeepaliveEnforcement {
        /// Least time between two probes of a client.
        pub min_time: GoDuration = GoDuration::ZERO,
        /// Allow probes of clients without a request.
        pub permit_without_stream: bool = false,
    }
}

vivace_runtime::config_struct! {
    /// TLS of a receiver.
    pub struct ReceiverTlsConfig {
        /// Accepted; a listener verifies its clients by `client_ca_file`.
        pub ca_file: String = String::new(),
        /// The same, inline.
        pub ca_pem: String = String::new(),
        /// Certificate chain, a PEM file.
        pub cert_file: String = String::new(),
        /// The same, inline.
        pub cert_pem: String = String::new(),
        /// Key, a PEM file.
        pub key_file: String = String::new(),
        /// The same, inline.
        pub key_pem: vivace_runtime::config::Secret = vivace_runtime::config::Secret::default(),
        /// Authorities for client certificates, a PEM file; clients must have one then.
        pub client_ca_file: String = String::new(),
        /// Read that file again when it changes.
        pub client_ca_file_reload: bool = false,
        /// Accepted; a listener verifies its clients by `client_ca_file`.
        pub include_system_ca_certs_pool: bool = false,
        /// Oldest version: `1.2` or `1.3`.
        pub min_version: String = String::new(),
        /// Newest version: `1.2` or `1.3`.
        pub max_version: String = String::new(),
        /// Cipher suites to allow.
        pub cipher_suites: Vec<String> = Vec::new(),
        /// Curves to allow.
        pub curve_preferences: Vec<String> = Vec::new(),
        /// Time between two looks at the files; 0 means never, but SIGHUP always makes them read again.
        pub reload_interval: GoDuration = GoDuration::ZERO,
    }
}

vivace_runtime::config_struct! {
    /// Requests from pages of other origins.
    pub struct CorsConfig {
        /// Origins that are allowed, with `*`.
        pub allowed_origins: Vec<String> = Vec::new(),
        /// Headers that are allowed besides the simple ones.
        pub allowed_headers: Vec<String> = Vec::new(),
        /// Headers of answers that pages may see.
        pub exposed_headers: Vec<String> = Vec::new(),
        /// Seconds for which browsers may remember the permission.
        pub max_age: u64 = 0,
    }
}

/// Declares a section of an HTTP listener with more keys of its own; the keys of listeners are written once.
macro_rules! http_receiver {
    ($(#[doc = $doc:literal])* $name:ident, $endpoint:literal, { $($own:tt)* }) => {
        vivace_runtime::config_struct! {
            $(#[doc = $doc])*
            pub struct $name {
                /// Address and port. In containers the address is `0.0.0.0` or `[::]`.
                pub endpoint: String = $endpoint.into(),
                /// `tcp`, `tcp4` or `tcp6`.
                pub transport: String = "tcp".into(),
                /// TLS. Absent: plain text.
                pub tls: Presence<ReceiverTlsConfig> = Presence::absent(),
                /// Requests from pages of other origins. Absent: none.
                pub cors: Presence<CorsConfig> = Presence::absent(),
                /// An authenticator of the collector. Not available.
                pub auth: Any = Any::default(),
                /// Bytes of a request, before and after decompression; 0 means 20 MiB.
                pub max_request_body_size: u64 = 0,
                /// Accepted; the tenant's header is always looked at.
                pub include_metadata: bool = true,
                /// Headers of every answer.
                pub response_headers: BTreeMap<String, String> = BTreeMap::new(),
                /// Compressions that are understood. Empty: all.
                pub compression_algorithms: Vec<String> = Vec::new(),
                /// Time limit for reading a whole request; 0 means without limit.
                pub read_timeout: GoDuration = GoDuration::ZERO,
                /// Time limit for reading the head of a request.
                pub read_header_timeout: GoDuration = GoDuration::minutes(1),
                /// Time limit for an answer.
                pub write_timeout: GoDuration = GoDuration::secs(30),
                /// How long an idle connection stays open.
                pub idle_timeout: GoDuration = GoDuration::minutes(1),
                /// Keep connections open between requests.
                pub keep_alives_enabled: bool = true,
                /// Extensions of the collector. Not available.
                pub middlewares: Vec<Any> = Vec::new(),
                $($own)*
            }
        }
    };
}

http_receiver! {
    /// OTLP over HTTP.
    OtlpHttpConfig, "localhost:4318", {
        /// Path of traces.
        pub traces_url_path: String = "/v1/traces".into(),
        /// Accepted; only traces are received.
        pub metrics_url_path: String = "/v1/metrics".into(),
        /// Accepted; only traces are received.
        pub logs_url_path: String = "/v1/logs".into(),
    }
}

http_receiver! {
    /// Jaeger's Thrift over HTTP.
    HttpReceiverConfig, "localhost:14268", {}
}

http_receiver! {
    /// Zipkin's JSON and protobuf over HTTP.
    ZipkinConfig, "localhost:9411", {
        /// Turn strings that look like numbers or truth values into such.
        pub parse_string_tags: bool = false,
    }
}

vivace_runtime::config_struct! {
    /// Jaeger.
    pub struct JaegerConfig {
        /// Protocols; one that is named without a value listens with its defaults.
        pub protocols: JaegerProtocols = JaegerProtocols::default(),
        /// Sampling strategies for clients. Not available.
        pub remote_sampling: Any = Any::default(),
    }
}

vivace_runtime::config_struct! {
    /// Protocols of Jaeger.
    pub struct JaegerProtocols {
        /// Over gRPC. Its endpoint is `localhost:14250` unless set.
        pub grpc: Presence<GrpcReceiverConfig> = Presence::absent(),
        /// Thrift over HTTP.
        pub thrift_http: Presence<HttpReceiverConfig> = Presence::absent(),
        /// Binary Thrift over UDP. Its endpoint is `localhost:6832` unless set.
        pub thrift_binary: Presence<UdpReceiverConfig> = Presence::absent(),
        /// Compact Thrift over UDP. Its endpoint is `localhost:6831` unless set.
        pub thrift_compact: Presence<UdpReceiverConfig> = Presence::absent(),
    }
}

vivace_runtime::config_struct! {
    /// A UDP listener of a receiver.
    pub struct UdpReceiverConfig {
        /// Address and port. Empty: the protocol's usual port on localhost.
        pub endpoint: String = String::new(),
        /// Packets waiting.
        pub queue_size: u64 = 1000,
        /// Bytes of a packet.
        pub max_packet_size: u64 = 65_000,
        /// Workers.
        pub workers: u64 = 10,
        /// Buffer of the socket, in bytes; 0 means the system's.
        pub socket_buffer_size: u64 = 0,
    }
}

vivace_runtime::config_struct! {
    /// Spans from a Kafka topic.
    pub struct KafkaReceiverConfig {
        /// Hosts and ports of brokers.
        pub brokers: Vec<String> = vec!["localhost:9092".into()],
        /// Resolve the names of brokers and use what they point to.
        pub resolve_canonical_bootstrap_servers_only: bool = false,
        /// Version of the protocol.
        pub protocol_version: String = "2.1.0".into(),
        /// Time without a sign of life after which a consumer is replaced.
        pub session_timeout: GoDuration = GoDuration::secs(10),
        /// Time between two signs of life.
        pub heartbeat_interval: GoDuration = GoDuration::secs(3),
        /// Topic.
        pub topic: String = String::new(),
        /// Form of messages: `otlp_proto`, `jaeger_proto`, `zipkin_json`, …
        pub encoding: String = "otlp_proto".into(),
        /// Topic and form of traces; wins over the two keys above.
        pub traces: Any = Any::default(),
        /// Consumer group.
        pub group_id: String = "otel-collector".into(),
        /// Name given to the brokers.
        pub client_id: String = "otel-collector".into(),
        /// Rack of this process.
        pub rack_id: String = String::new(),
        /// Where to start without an offset: `latest` or `earliest`.
        pub initial_offset: String = "latest".into(),
        /// Fixed name within the group.
        pub group_instance_id: String = String::new(),
        /// How partitions are divided.
        pub group_rebalance_strategy: String = "range".into(),
        /// Bytes of an answer at least.
        pub min_fetch_size: u64 = 1,
        /// Bytes of an answer usually.
        pub default_fetch_size: u64 = 1_048_576,
        /// Bytes of an answer at most; 0 means without limit.
        pub max_fetch_size: u64 = 0,
        /// Wait for `min_fetch_size`.
        pub max_fetch_wait: GoDuration = GoDuration::millis(250),
        /// Authentication.
        pub auth: Any = Any::default(),
        /// TLS towards the brokers.
        pub tls: Any = Any::default(),
        /// What is learned of the cluster.
        pub metadata: Any = Any::default(),
        /// Commits of offsets.
        pub autocommit: Any = Any::default(),
        /// When messages count as read.
        pub message_marking: Any = Any::default(),
        /// Headers that become resource attributes.
        pub header_extraction: Any = Any::default(),
        /// Waits after errors.
        pub error_backoff: Any = Any::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_receivers_both_protocols_of_otlp_listen() {
        let otlp = Receivers::default().otlp();
        let [(id, config)] = otlp.as_slice() else { panic!("one receiver") };
        assert_eq!(id, "otlp");
        assert_eq!(config.protocols.grpc.get().unwrap().endpoint, "localhost:4317");
        assert_eq!(config.protocols.http.get().unwrap().endpoint, "localhost:4318");
    }

    #[test]
    fn ids_may_have_a_name_and_only_named_protocols_listen() {
        let receivers: Receivers = serde_json::from_str(
            r#"{"otlp/a": {"protocols": {"http": {"endpoint": "[::]:4318"}}}, "zipkin": {}, "jaeger": {}}"#,
        )
        .unwrap();
        let otlp = receivers.otlp();
        assert_eq!(otlp[0].0, "otlp/a");
        assert!(otlp[0].1.protocols.grpc.get().is_none());
        assert_eq!(otlp[0].1.protocols.http.get().unwrap().endpoint, "[::]:4318");
        assert!(matches!(receivers.0["zipkin"], Receiver::Zipkin(_)));
    }

    #[test]
    fn a_receiver_of_another_type_is_refused() {
        let error = serde_json::from_str::<Receivers>(r#"{"opencensus": {}}"#).unwrap_err().to_string();
        assert!(error.contains("opencensus"), "{error}");
    }
}

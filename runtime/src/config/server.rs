//! The HTTP and gRPC server of a process.

use super::{Csv, GoDuration, ServerTlsConfig};

crate::config_struct! {
    /// The HTTP and gRPC server of a process.
    pub struct ServerConfig {
        /// `tcp` for both families, `tcp4` or `tcp6` for one.
        pub http_listen_network: String = "tcp".into(),
        /// Address of the HTTP listener. Empty, `::`, `::0` and `[::]`: all addresses of both families.
        pub http_listen_address: String = String::new(),
        /// Port of HTTP: API, pages, metrics. 0 takes a free one.
        pub http_listen_port: u16 = 3200,
        /// HTTP connections at once; 0 means without limit.
        pub http_listen_conn_limit: u64 = 0,
        /// `tcp` for both families, `tcp4` or `tcp6` for one.
        pub grpc_listen_network: String = "tcp".into(),
        /// Address of the gRPC listener. Empty, `::`, `::0` and `[::]`: all addresses of both families.
        pub grpc_listen_address: String = String::new(),
        /// Port of gRPC between components; also what a ring advertises unless its `instance_port` is set.
        pub grpc_listen_port: u16 = 9095,
        /// gRPC connections at once; 0 means without limit.
        pub grpc_listen_conn_limit: u64 = 0,
        /// Measure the streams per connection.
        pub grpc_collect_max_streams_by_conn: bool = true,
        /// Expect the PROXY protocol on the listeners.
        pub proxy_protocol_enabled: bool = false,
        /// Cipher suites of TLS 1.2 on both listeners, by their Go names, separated by commas. Empty: all that are there.
        /// Suites of TLS 1.3 are no choice. Weak ones (CBC, RC4, 3DES, RSA key exchange) are not there.
        pub tls_cipher_suites: String = String::new(),
        /// Oldest TLS version of both listeners: `VersionTLS12` or `VersionTLS13`. Empty: TLS 1.2; nothing older is spoken.
        pub tls_min_version: String = String::new(),
        /// TLS of the HTTP listener.
        pub http_tls_config: ServerTlsConfig = ServerTlsConfig::default(),
        /// TLS of the gRPC listener.
        pub grpc_tls_config: ServerTlsConfig = ServerTlsConfig::default(),
        /// Serve `/metrics` and `/debug`.
        pub register_instrumentation: bool = true,
        /// Use gRPC codes as values of the status label of request metrics.
        pub report_grpc_codes_in_instrumentation_label_enabled: bool = false,
        /// Longest wait at shutdown for requests in flight.
        pub graceful_shutdown_timeout: GoDuration = GoDuration::secs(30),
        /// Time limit for reading a whole HTTP request.
        pub http_server_read_timeout: GoDuration = GoDuration::secs(30),
        /// Time limit for reading the head of an HTTP request; 0 means `http_server_read_timeout`.
        pub http_server_read_header_timeout: GoDuration = GoDuration::ZERO,
        /// Time limit for an HTTP answer. On query-frontends it must exceed the longest query.
        pub http_server_write_timeout: GoDuration = GoDuration::secs(30),
        /// How long an idle HTTP connection stays open.
        pub http_server_idle_timeout: GoDuration = GoDuration::minutes(2),
        /// Log connections that were closed before an answer.
        pub http_log_closed_connections_without_response_enabled: bool = false,
        /// Largest gRPC message to receive, in bytes.
        pub grpc_server_max_recv_msg_size: u64 = 16_777_216,
        /// Largest gRPC message to send, in bytes.
        pub grpc_server_max_send_msg_size: u64 = 16_777_216,
        /// gRPC streams at once on one connection; 0 means without limit.
        pub grpc_server_max_concurrent_streams: u32 = 100,
        /// Idle time after which a gRPC connection is closed.
        pub grpc_server_max_connection_idle: GoDuration = GoDuration::NEVER,
        /// Age at which a gRPC connection is closed. Minutes spread clients over new replicas.
        pub grpc_server_max_connection_age: GoDuration = GoDuration::NEVER,
        /// Time that calls in flight have after that age.
        pub grpc_server_max_connection_age_grace: GoDuration = GoDuration::NEVER,
        /// Idle time after which a gRPC connection is probed.
        pub grpc_server_keepalive_time: GoDuration = GoDuration::hours(2),
        /// Wait for the answer to such a probe.
        pub grpc_server_keepalive_timeout: GoDuration = GoDuration::secs(20),
        /// Probes of clients that come faster than this close the connection.
        pub grpc_server_min_time_between_pings: GoDuration = GoDuration::secs(10),
        /// Allow probes of clients that have no call open.
        pub grpc_server_ping_without_stream_allowed: bool = true,
        /// Workers that serve gRPC streams; 0 means one task per stream.
        pub grpc_server_num_workers: u64 = 0,
        /// Measure the sizes of gRPC messages.
        pub grpc_server_stats_tracking_enabled: bool = true,
        /// Deprecated.
        pub grpc_server_recv_buffer_pools_enabled: bool = false,
        /// Read buffer of a gRPC connection, in bytes.
        pub grpc_server_read_buffer_size: u64 = 32_768,
        /// Write buffer of a gRPC connection, in bytes.
        pub grpc_server_write_buffer_size: u64 = 32_768,
        /// Form of log lines: `logfmt` or `json`.
        pub log_format: String = "logfmt".into(),
        /// Least severe level to log: `debug`, `info`, `warn` or `error`.
        pub log_level: String = "info".into(),
        /// Log the address of whoever asked.
        pub log_source_ips_enabled: bool = false,
        /// Log all addresses of the forwarding headers, not just the first.
        pub log_source_ips_full: bool = false,
        /// Header with the address, with `log_source_ips_regex`.
        pub log_source_ips_header: String = String::new(),
        /// What to take from that header; its first group is the address.
        pub log_source_ips_regex: String = String::new(),
        /// Log the headers of requests.
        pub log_request_headers: bool = false,
        /// Log requests at level `info` instead of `debug`.
        pub log_request_at_info_level_enabled: bool = false,
        /// Headers that are not logged.
        pub log_request_exclude_headers_list: String = String::new(),
        /// Put the headers of requests on own spans.
        pub trace_request_headers: bool = false,
        /// Headers that are not put on spans.
        pub trace_request_exclude_headers_list: String = String::new(),
        /// Prefix of every path, metrics included; prefer `http_api_prefix`.
        pub http_path_prefix: String = String::new(),
        /// Refuse calls that come from another cluster.
        pub cluster_validation: ClusterValidationConfig = ClusterValidationConfig::default(),
        /// Start a trace of our own even when the request brings one.
        pub create_new_traces: bool = false,
    }
}

crate::config_struct! {
    /// A second server with health and metrics only, for a port that the outside does not see.
    pub struct InternalServerConfig {
        /// Start it.
        pub enable: bool = false,
        /// `tcp` for both families, `tcp4` or `tcp6` for one.
        pub http_listen_network: String = "tcp".into(),
        /// Address of the HTTP listener. Empty, `::`, `::0` and `[::]`: all addresses of both families.
        pub http_listen_address: String = String::new(),
        /// Port of HTTP: API, pages, metrics. 0 takes a free one.
        pub http_listen_port: u16 = 3101,
        /// HTTP connections at once; 0 means without limit.
        pub http_listen_conn_limit: u64 = 0,
        /// `tcp` for both families, `tcp4` or `tcp6` for one.
        pub grpc_listen_network: String = String::new(),
        /// Address of the gRPC listener. Empty, `::`, `::0` and `[::]`: all addresses of both families.
        pub grpc_listen_address: String = String::new(),
        /// Port of gRPC between components; also what a ring advertises unless its `instance_port` is set.
        pub grpc_listen_port: u16 = 0,
        /// gRPC connections at once; 0 means without limit.
        pub grpc_listen_conn_limit: u64 = 0,
        /// Measure the streams per connection.
        pub grpc_collect_max_streams_by_conn: bool = false,
        /// Expect the PROXY protocol on the listeners.
        pub proxy_protocol_enabled: bool = false,
        /// Cipher suites of both listeners, by their Go names.
        pub tls_cipher_suites: String = String::new(),
        /// Oldest TLS version of both listeners: `VersionTLS12` or `VersionTLS13`.
        pub tls_min_version: String = String::new(),
        /// TLS of the HTTP listener.
        pub http_tls_config: ServerTlsConfig = ServerTlsConfig::default(),
        /// TLS of the gRPC listener.
        pub grpc_tls_config: ServerTlsConfig = ServerTlsConfig::default(),
        /// Serve `/metrics` and `/debug`.
        pub register_instrumentation: bool = false,
        /// Use gRPC codes as values of the status label of request metrics.
        pub report_grpc_codes_in_instrumentation_label_enabled: bool = false,
        /// Longest wait at shutdown for requests in flight.
        pub graceful_shutdown_timeout: GoDuration = GoDuration::secs(30),
        /// Time limit for reading a whole HTTP request.
        pub http_server_read_timeout: GoDuration = GoDuration::secs(30),
        /// Time limit for reading the head of an HTTP request; 0 means `http_server_read_timeout`.
        pub http_server_read_header_timeout: GoDuration = GoDuration::ZERO,
        /// Time limit for an HTTP answer. On query-frontends it must exceed the longest query.
        pub http_server_write_timeout: GoDuration = GoDuration::secs(30),
        /// How long an idle HTTP connection stays open.
        pub http_server_idle_timeout: GoDuration = GoDuration::minutes(2),
        /// Log connections that were closed before an answer.
        pub http_log_closed_connections_without_response_enabled: bool = false,
        /// Largest gRPC message to receive, in bytes.
        pub grpc_server_max_recv_msg_size: u64 = 0,
        /// Largest gRPC message to send, in bytes.
        pub grpc_server_max_send_msg_size: u64 = 0,
        /// gRPC streams at once on one connection; 0 means without limit.
        pub grpc_server_max_concurrent_streams: u32 = 0,
        /// Idle time after which a gRPC connection is closed.
        pub grpc_server_max_connection_idle: GoDuration = GoDuration::ZERO,
        /// Age at which a gRPC connection is closed. Minutes spread clients over new replicas.
        pub grpc_server_max_connection_age: GoDuration = GoDuration::ZERO,
        /// Time that calls in flight have after that age.
        pub grpc_server_max_connection_age_grace: GoDuration = GoDuration::ZERO,
        /// Idle time after which a gRPC connection is probed.
        pub grpc_server_keepalive_time: GoDuration = GoDuration::ZERO,
        /// Wait for the answer to such a probe.
        pub grpc_server_keepalive_timeout: GoDuration = GoDuration::ZERO,
        /// Probes of clients that come faster than this close the connection.
        pub grpc_server_min_time_between_pings: GoDuration = GoDuration::ZERO,
        /// Allow probes of clients that have no call open.
        pub grpc_server_ping_without_stream_allowed: bool = false,
        /// Workers that serve gRPC streams; 0 means one task per stream.
        pub grpc_server_num_workers: u64 = 0,
        /// Measure the sizes of gRPC messages.
        pub grpc_server_stats_tracking_enabled: bool = false,
        /// Deprecated.
        pub grpc_server_recv_buffer_pools_enabled: bool = false,
        /// Read buffer of a gRPC connection, in bytes.
        pub grpc_server_read_buffer_size: u64 = 0,
        /// Write buffer of a gRPC connection, in bytes.
        pub grpc_server_write_buffer_size: u64 = 0,
        /// Form of log lines: `logfmt` or `json`.
        pub log_format: String = "logfmt".into(),
        /// Least severe level to log: `debug`, `info`, `warn` or `error`.
        pub log_level: String = "info".into(),
        /// Log the address of whoever asked.
        pub log_source_ips_enabled: bool = false,
        /// Log all addresses of the forwarding headers, not just the first.
        pub log_source_ips_full: bool = false,
        /// Header with the address, with `log_source_ips_regex`.
        pub log_source_ips_header: String = String::new(),
        /// What to take from that header; its first group is the address.
        pub log_source_ips_regex: String = String::new(),
        /// Log the headers of requests.
        pub log_request_headers: bool = false,
        /// Log requests at level `info` instead of `debug`.
        pub log_request_at_info_level_enabled: bool = false,
        /// Headers that are not logged.
        pub log_request_exclude_headers_list: String = String::new(),
        /// Put the headers of requests on own spans.
        pub trace_request_headers: bool = false,
        /// Headers that are not put on spans.
        pub trace_request_exclude_headers_list: String = String::new(),
        /// Prefix of every path, metrics included; prefer `http_api_prefix`.
        pub http_path_prefix: String = String::new(),
        /// Refuse calls that come from another cluster.
        pub cluster_validation: ClusterValidationConfig = ClusterValidationConfig::default(),
        /// Start a trace of our own even when the request brings one.
        pub create_new_traces: bool = false,
    }
}

crate::config_struct! {
    /// The label that keeps clusters apart on their connections.
    pub struct ClusterValidationConfig {
        /// Label of this cluster. Empty: nothing is checked.
        pub label: String = String::new(),
        /// Labels that are accepted too, while a label changes.
        pub additional_labels: Csv = Csv::default(),
        /// Checking of gRPC calls.
        pub grpc: TransportValidation = TransportValidation::default(),
        /// Checking of HTTP requests.
        pub http: HttpClusterValidation = HttpClusterValidation::default(),
    }
}

crate::config_struct! {
    /// Checking of the cluster label on gRPC.
    pub struct TransportValidation {
        /// Check the label.
        pub enabled: bool = false,
        /// Only log a mismatch.
        pub soft_validation: bool = false,
    }
}

crate::config_struct! {
    /// Checking of the cluster label on HTTP.
    pub struct HttpClusterValidation {
        /// Check the label.
        pub enabled: bool = false,
        /// Only log a mismatch.
        pub soft_validation: bool = false,
        /// Paths that are not checked.
        pub excluded_paths: Csv = Csv::default(),
        /// User agents that are not checked.
        pub excluded_user_agents: Csv = Csv::default(),
    }
}

crate::config_struct! {
    /// The label that a client sends.
    pub struct ClusterLabel {
        /// Label of the peer's cluster. Empty: none is sent.
        pub label: String = String::new(),
    }
}

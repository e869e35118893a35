//! gRPC towards another component.

use super::{BackoffConfig, ByteSize, ClusterLabel, Csv, GoDuration, TlsClientConfig};

crate::config_struct! {
    /// gRPC towards another component.
    pub struct GrpcClientConfig {
        /// Largest message to receive, in bytes.
        pub max_recv_msg_size: u64 = 104_857_600,
        /// Largest message to send, in bytes.
        pub max_send_msg_size: u64 = 104_857_600,
        /// Compression of requests: empty, `gzip` or `snappy`. Costs CPU on both sides, saves network.
        pub grpc_compression: String = "snappy".into(),
        /// Requests a second; 0 means without limit.
        pub rate_limit: f64 = 0.0,
        /// Requests at once, with `rate_limit`.
        pub rate_limit_burst: u64 = 0,
        /// Try again when the peer says that it is asked too often.
        pub backoff_on_ratelimits: bool = false,
        /// Waits between such attempts.
        pub backoff_config: BackoffConfig = BackoffConfig::default(),
        /// Flow-control window of one stream. Larger helps on long, fast lines.
        pub initial_stream_window_size: ByteSize = ByteSize(65_535),
        /// Flow-control window of one connection.
        pub initial_connection_window_size: ByteSize = ByteSize(65_535),
        /// Use TLS. Off: the other `tls_` keys are ignored.
        pub tls_enabled: bool = false,
        /// Client certificate, a PEM file. Needs `tls_key_path`.
        pub tls_cert_path: String = String::new(),
        /// Key of the client certificate, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file. Empty: those of the system.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the peer's certificate. Empty: the name that was dialled.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate. For tests only.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow, by their Go names. Empty: the library's choice.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest version to accept: `VersionTLS12` or `VersionTLS13`. Empty: TLS 1.2.
        pub tls_min_version: String = String::new(),
        /// Time limit of connecting; 0 means the library's.
        pub connect_timeout: GoDuration = GoDuration::secs(5),
        /// First wait before connecting again.
        pub connect_backoff_base_delay: GoDuration = GoDuration::secs(1),
        /// Longest wait before connecting again.
        pub connect_backoff_max_delay: GoDuration = GoDuration::secs(5),
        /// Label that the peer's cluster must carry.
        pub cluster_validation: ClusterLabel = ClusterLabel::default(),
    }
}

impl GrpcClientConfig {
    /// How to use TLS, if it is on.
    pub fn tls(&self) -> Option<TlsClientConfig> {
        self.tls_enabled.then(|| TlsClientConfig {
            tls_cert_path: self.tls_cert_path.clone(),
            tls_key_path: self.tls_key_path.clone(),
            tls_ca_path: self.tls_ca_path.clone(),
            tls_server_name: self.tls_server_name.clone(),
            tls_insecure_skip_verify: self.tls_insecure_skip_verify,
            tls_cipher_suites: self.tls_cipher_suites.clone(),
            tls_min_version: self.tls_min_version.clone(),
        })
    }

    /// The block with the defaults that it has in `querier.frontend_worker`.
    pub fn of_frontend_worker() -> Self {
        Self {
            max_send_msg_size: 16_777_216,
            backoff_config: BackoffConfig::of(GoDuration::millis(100), GoDuration::secs(1), 5),
            initial_stream_window_size: ByteSize(0),
            initial_connection_window_size: ByteSize(0),
            connect_timeout: GoDuration::ZERO,
            connect_backoff_base_delay: GoDuration::ZERO,
            connect_backoff_max_delay: GoDuration::ZERO,
            ..Self::default()
        }
    }
}

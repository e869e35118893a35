//! Where a ring is kept.

use super::{Csv, GoDuration, Secret};

crate::config_struct! {
    /// Where a ring is kept. Rings live in gossip; the stores of other kinds are accepted and have no effect.
    pub struct KvStoreConfig {
        /// `memberlist`, `inmemory`, `consul`, `etcd` or `multi`. Target `all` forces `inmemory` on its own rings.
        pub store: String = "memberlist".into(),
        /// Prefix of the ring's key.
        pub prefix: String = "collectors/".into(),
        /// Consul, with `store: consul`.
        pub consul: ConsulConfig = ConsulConfig::default(),
        /// etcd, with `store: etcd`.
        pub etcd: EtcdConfig = EtcdConfig::default(),
        /// Two stores at once, for moving from one to the other, with `store: multi`.
        pub multi: MultiConfig = MultiConfig::default(),
    }
}

crate::config_struct! {
    /// Consul as the place of a ring.
    pub struct ConsulConfig {
        /// Host and port.
        pub host: String = "localhost:8500".into(),
        /// Token for its access control.
        pub acl_token: Secret = Secret::default(),
        /// Time limit of one request.
        pub http_client_timeout: GoDuration = GoDuration::secs(20),
        /// Read from the leader only.
        pub consistent_reads: bool = false,
        /// Watches a second; 0 means without limit.
        pub watch_rate_limit: f64 = 1.0,
        /// Watches at once; 0 means without limit.
        pub watch_burst_size: u64 = 1,
        /// Longest wait before a lost compare-and-swap is tried again.
        pub cas_retry_delay: GoDuration = GoDuration::secs(1),
    }
}

crate::config_struct! {
    /// etcd as the place of a ring.
    pub struct EtcdConfig {
        /// Hosts and ports.
        pub endpoints: Vec<String> = Vec::new(),
        /// Time limit of connecting.
        pub dial_timeout: GoDuration = GoDuration::secs(10),
        /// Attempts of one operation.
        pub max_retries: u64 = 10,
        /// Use TLS. Off: the other `tls_` keys are ignored.
        pub tls_enabled: bool = false,
        /// Client certificate, a PEM file.
        pub tls_cert_path: String = String::new(),
        /// Key of the client certificate, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the peer's certificate.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest TLS version to accept.
        pub tls_min_version: String = String::new(),
        /// User name.
        pub username: String = String::new(),
        /// Password.
        pub password: Secret = Secret::default(),
    }
}

crate::config_struct! {
    /// Two places of a ring at once.
    pub struct MultiConfig {
        /// Store that is read and written.
        pub primary: String = String::new(),
        /// Store that follows.
        pub secondary: String = String::new(),
        /// Copy writes to the second store.
        pub mirror_enabled: bool = false,
        /// Time limit of a copied write.
        pub mirror_timeout: GoDuration = GoDuration::secs(2),
    }
}

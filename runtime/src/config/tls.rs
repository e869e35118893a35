//! TLS blocks, of clients and of listeners.

use super::{Csv, Secret};

crate::config_struct! {
    /// TLS towards a peer.
    pub struct TlsClientConfig {
        /// Client certificate, a PEM file. Needs `tls_key_path`.
        pub tls_cert_path: String = String::new(),
        /// Key of the client certificate, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file. Empty: those of the system.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the peer's certificate. Empty: the name that was dialled.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate. For tests only: it gives up what TLS is for.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow, by their Go names. Empty: the library's choice.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest version to accept: `VersionTLS12` or `VersionTLS13`; older ones are not supported. Empty: TLS 1.2.
        pub tls_min_version: String = String::new(),
    }
}

crate::config_struct! {
    /// TLS of a listener. Empty: plain text. Files are looked at every 10 s and on SIGHUP; what has changed counts for new
    /// connections, and what cannot be used leaves the last good.
    pub struct ServerTlsConfig {
        /// Certificate chain in PEM, inline, the listener's own certificate first. Excludes `cert_file`.
        pub cert: String = String::new(),
        /// Key in PEM, inline. Excludes `key_file`.
        pub key: Secret = Secret::default(),
        /// Authorities for client certificates in PEM, inline. Excludes `client_ca_file`.
        pub client_ca: String = String::new(),
        /// Certificate chain, a PEM file.
        pub cert_file: String = String::new(),
        /// Key, a PEM file.
        pub key_file: String = String::new(),
        /// What is asked of clients, by its Go name: `NoClientCert`, `RequestClientCert`, `RequireAnyClientCert`,
        /// `VerifyClientCertIfGiven`, `RequireAndVerifyClientCert`. Empty: `NoClientCert`.
        pub client_auth_type: String = String::new(),
        /// Authorities for client certificates, a PEM file.
        pub client_ca_file: String = String::new(),
    }
}

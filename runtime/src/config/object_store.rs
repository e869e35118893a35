//! The four kinds of object storage, as they stand under `storage.trace` and under user-configurable overrides.

use std::collections::BTreeMap;

use super::{Csv, GoDuration, Secret};

crate::config_struct! {
    /// A local directory as object storage.
    pub struct LocalConfig {
        /// Directory of the blocks. Shared by all processes if there are several.
        pub path: String = String::new(),
        /// The directory is on a disk that every process of the cluster sees, as on a single machine. Says so where the
        /// target is not `all`, so that the warning about it goes. Only Vivace has this key.
        pub shared: bool = false,
    }
}

crate::config_struct! {
    /// S3 and what speaks its protocol.
    pub struct S3Config {
        /// Bucket.
        pub bucket: String = String::new(),
        /// Prefix of every object.
        pub prefix: String = String::new(),
        /// Host, with or without port, without scheme; an IPv6 address in brackets.
        pub endpoint: String = String::new(),
        /// Region. Empty: `AWS_REGION`, else derived from the endpoint, else `us-east-1`.
        pub region: String = String::new(),
        /// Access key. Empty: the first of the environment (`AWS_ACCESS_KEY_ID`, `MINIO_ROOT_USER` and their like), the shared file of
        /// credentials, a web identity, the container's and the machine's role that has one.
        pub access_key: String = String::new(),
        /// Secret key.
        pub secret_key: Secret = Secret::default(),
        /// Session token, with temporary keys.
        pub session_token: Secret = Secret::default(),
        /// Plain HTTP instead of HTTPS.
        pub insecure: bool = false,
        /// Client certificate, a PEM file. Needs `tls_key_path`.
        pub tls_cert_path: String = String::new(),
        /// Key of the client certificate, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file. Empty: those of the system.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the server's certificate.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate. For tests only.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow, by their Go names.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest TLS version to accept.
        pub tls_min_version: String = "VersionTLS12".into(),
        /// Bytes of one part of an upload, 5 MiB to 512 MiB; 0 means 5 MiB. Two parts are in memory at a time.
        pub part_size: u64 = 0,
        /// A second request is sent when the first has not been answered for this long; 0 means never. A value near the
        /// usual p99 cuts the tail of queries and costs one request in a hundred.
        pub hedge_requests_at: GoDuration = GoDuration::ZERO,
        /// Requests at once for one object, the first included.
        pub hedge_requests_up_to: u64 = 2,
        /// Attempts of one request.
        pub retry_max_attempts: u64 = 10,
        /// First wait between attempts.
        pub retry_backoff_initial: GoDuration = GoDuration::millis(200),
        /// Longest wait between attempts.
        pub retry_backoff_max: GoDuration = GoDuration::secs(1),
        /// Sign requests by the old version 2.
        pub signature_v2: bool = false,
        /// The bucket's name stands in the path and not in the host name.
        pub forcepathstyle: bool = false,
        /// Use AWS endpoints that have IPv6 addresses too.
        pub enable_dual_stack: bool = false,
        /// How the bucket is addressed: 0 automatic, 1 in the host name, 2 in the path.
        pub bucket_lookup_type: u64 = 0,
        /// Tags of every object.
        pub tags: BTreeMap<String, String> = BTreeMap::new(),
        /// Storage class of every object.
        pub storage_class: String = String::new(),
        /// Metadata of every object.
        pub metadata: BTreeMap<String, String> = BTreeMap::new(),
        /// Deprecated and ignored.
        pub native_aws_auth_enabled: bool = false,
        /// Listings at once while the block list is read.
        pub list_blocks_concurrency: u64 = 3,
        /// Encryption on the server's side.
        pub sse: SseConfig = SseConfig::default(),
    }
}

crate::config_struct! {
    /// Encryption on the server's side.
    pub struct SseConfig {
        /// Empty, `SSE-KMS`, `SSE-S3` or `SSE-C`.
        pub r#type: String = String::new(),
        /// Key of the key service, with `SSE-KMS`.
        pub kms_key_id: String = String::new(),
        /// Context of the key service, a JSON object, with `SSE-KMS`.
        pub kms_encryption_context: String = String::new(),
        /// Key of 32 bytes, with `SSE-C`.
        pub encryption_key: Secret = Secret::default(),
    }
}

crate::config_struct! {
    /// Google Cloud Storage.
    pub struct GcsConfig {
        /// Bucket.
        pub bucket_name: String = String::new(),
        /// Prefix of every object.
        pub prefix: String = String::new(),
        /// Bytes of one part of an upload.
        pub chunk_buffer_size: u64 = 10_485_760,
        /// Another endpoint than Google's, for emulators.
        pub endpoint: String = String::new(),
        /// A second request is sent when the first has not been answered for this long; 0 means never.
        pub hedge_requests_at: GoDuration = GoDuration::ZERO,
        /// Requests at once for one object, the first included.
        pub hedge_requests_up_to: u64 = 2,
        /// Do not authenticate, and use plain HTTP with an endpoint of one's own.
        pub insecure: bool = false,
        /// `Cache-Control` of every object.
        pub object_cache_control: String = String::new(),
        /// Metadata of every object.
        pub object_metadata: BTreeMap<String, String> = BTreeMap::new(),
        /// Listings at once while the block list is read.
        pub list_blocks_concurrency: u64 = 3,
        /// Attempts of one request after the first.
        pub max_retries: u64 = 3,
    }
}

crate::config_struct! {
    /// Azure Blob Storage.
    pub struct AzureConfig {
        /// Storage account.
        pub storage_account_name: String = String::new(),
        /// Key of the account. Empty: from the environment, or one of the identities below.
        pub storage_account_key: Secret = Secret::default(),
        /// Authenticate by the machine's identity.
        pub use_managed_identity: bool = false,
        /// Authenticate by a federated token.
        pub use_federated_token: bool = false,
        /// Which of the machine's identities to use.
        pub user_assigned_id: String = String::new(),
        /// Container.
        pub container_name: String = String::new(),
        /// Prefix of every object.
        pub prefix: String = String::new(),
        /// Suffix of the host name. One that does not start with `blob.` addresses an emulator:
        /// `http://<endpoint_suffix>/<account>`.
        pub endpoint_suffix: String = "blob.core.windows.net".into(),
        /// Parts of an upload in flight.
        pub max_buffers: u64 = 4,
        /// Bytes of one part.
        pub buffer_size: u64 = 3_145_728,
        /// A second request is sent when the first has not been answered for this long; 0 means never.
        pub hedge_requests_at: GoDuration = GoDuration::ZERO,
        /// Requests at once for one object, the first included.
        pub hedge_requests_up_to: u64 = 2,
    }
}

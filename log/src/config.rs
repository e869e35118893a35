//! Configuration of the log: `ingest.kafka`. Ignored by target `all`, which writes a local log.

use std::collections::BTreeMap;

use vivace_runtime::config::{Csv, GoDuration, Secret, TlsClientConfig};

vivace_runtime::config_struct! {
    /// The log between distributors and their consumers.
    pub struct IngestConfig {
        /// Kafka.
        pub kafka: KafkaConfig = KafkaConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Kafka.
    pub struct KafkaConfig {
        /// Host and port of a broker, from which the others are learned, or several with commas between; an IPv6 address in brackets.
        pub address: String = "localhost:9092".into(),
        /// Topic. Required.
        pub topic: String = String::new(),
        /// Name given to the brokers. Empty: derived from the component.
        pub client_id: String = String::new(),
        /// Rack of this process. Without effect: records are fetched from the leader.
        pub client_rack: String = String::new(),
        /// Time limit of connecting.
        pub dial_timeout: GoDuration = GoDuration::secs(2),
        /// Time limit of one write. A write that ran out of time has an unknown outcome and is refused to the sender, who
        /// will repeat it.
        pub write_timeout: GoDuration = GoDuration::secs(10),
        /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER` or `AWS_MSK_IAM`. `PLAIN` without a user name means no
        /// authentication.
        pub sasl_mechanism: String = "PLAIN".into(),
        /// User name. With `sasl_password` or not at all.
        pub sasl_username: String = String::new(),
        /// Password.
        pub sasl_password: Secret = Secret::default(),
        /// Token, with `OAUTHBEARER`.
        pub sasl_oauthbearer_token: Secret = Secret::default(),
        /// Identity to act as, with `OAUTHBEARER`.
        pub sasl_oauthbearer_zid: String = String::new(),
        /// Extensions, with `OAUTHBEARER`.
        pub sasl_oauthbearer_extensions: BTreeMap<String, String> = BTreeMap::new(),
        /// JSON file `{token, zid, extensions}`, read again for every authentication.
        pub sasl_oauthbearer_file_path: String = String::new(),
        /// Unix socket that answers with the same JSON. Excludes the file.
        pub sasl_oauthbearer_http_socket_path: String = String::new(),
        /// Time limit of asking that socket.
        pub sasl_oauthbearer_http_socket_timeout: GoDuration = GoDuration::secs(10),
        /// Access key, with `AWS_MSK_IAM`.
        pub sasl_msk_iam_access_key: Secret = Secret::default(),
        /// Secret key, with `AWS_MSK_IAM`.
        pub sasl_msk_iam_secret_key: Secret = Secret::default(),
        /// Session token, with `AWS_MSK_IAM`.
        pub sasl_msk_iam_session_token: Secret = Secret::default(),
        /// User agent, with `AWS_MSK_IAM`.
        pub sasl_msk_iam_user_agent: String = String::new(),
        /// JSON file `{AccessKey, SecretKey, SessionToken, UserAgent}`.
        pub sasl_msk_iam_file_path: String = String::new(),
        /// Unix socket that answers with the same JSON. Excludes the file.
        pub sasl_msk_iam_http_socket_path: String = String::new(),
        /// Time limit of asking that socket.
        pub sasl_msk_iam_http_socket_timeout: GoDuration = GoDuration::secs(10),
        /// Use TLS. Off: the other `tls_` keys are ignored.
        pub tls_enabled: bool = false,
        /// Client certificate, a PEM file. Needs `tls_key_path`.
        pub tls_cert_path: String = String::new(),
        /// Key of the client certificate, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file. Empty: those of the system.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the brokers' certificates.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate. For tests only.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow, by their Go names.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest TLS version to accept.
        pub tls_min_version: String = String::new(),
        /// Consumer group. Components set their own: live-stores their id without the number, block-builders and
        /// metrics-generators their name.
        pub consumer_group: String = String::new(),
        /// Time between two commits of a consumer's offset. A live-store uses `live_store.commit_interval`.
        pub consumer_group_offset_commit_interval: GoDuration = GoDuration::secs(1),
        /// How long to try to learn the last offset of a partition.
        pub last_produced_offset_retry_timeout: GoDuration = GoDuration::secs(10),
        /// Create the topic if it does not exist.
        pub auto_create_topic_enabled: bool = true,
        /// Partitions of a topic made that way; 0 or less leaves it to the broker. Must be at least the highest number of a
        /// live-store + 1.
        pub auto_create_topic_default_partitions: i64 = 1000,
        /// Bytes of one record, 1048576 to 15983616. Larger requests are split.
        pub producer_max_record_size_bytes: u64 = 15_983_616,
        /// Bytes waiting to be written, beyond which requests are refused; 0 means without limit.
        pub producer_max_buffered_bytes: u64 = 1_073_741_824,
        /// How long a record waits for others, to be written with them. Longer: fewer, larger batches; it adds to every
        /// acknowledgement. Records that wait for the request before them wait for nothing else.
        pub producer_linger: GoDuration = GoDuration::millis(5),
        /// `none`, `gzip`, `snappy` or `lz4`. Empty: `lz4`. Brokers do not hand `zstd` batches to this client, so it is refused.
        pub producer_compression: String = String::new(),
        /// Consume at start until the lag is below this; 0 (both) means do not wait.
        pub target_consumer_lag_at_startup: GoDuration = GoDuration::secs(2),
        /// A lag that is good enough when the target cannot be reached. Not below the target.
        pub max_consumer_lag_at_startup: GoDuration = GoDuration::secs(15),
        /// Do not let the client send its metrics to the brokers.
        pub disable_kafka_telemetry: bool = false,
        /// Time between two updates of the metrics of lag.
        pub consumer_group_lag_metric_update_interval: GoDuration = GoDuration::minutes(1),
    }
}

/// Why Kafka cannot be used as configured. Checked by components that use it, when they start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No broker.
    #[error("the Kafka address has not been configured")]
    NoAddress,
    /// No topic.
    #[error("the Kafka topic has not been configured")]
    NoTopic,
    /// A record size out of range.
    #[error("ingest.kafka.producer_max_record_size_bytes is {0}, allowed are 1048576 to 15983616")]
    RecordSize(u64),
    /// One of the two lags is zero and the other is not, or the target is above the maximum.
    #[error(
        "ingest.kafka.target_consumer_lag_at_startup ({target}) and max_consumer_lag_at_startup ({max}) must both be 0, \
         or both above 0 with the first not above the second"
    )]
    Lag {
        /// The target.
        target: GoDuration,
        /// The maximum.
        max: GoDuration,
    },
    /// Half of the credentials.
    #[error("ingest.kafka.sasl_username and sasl_password must be set together")]
    HalfCredentials,
    /// A mechanism that does not exist.
    #[error("ingest.kafka.sasl_mechanism is `{0}`, which is not known")]
    Mechanism(String),
}

impl KafkaConfig {
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

    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    ///
    /// A required key is missing, or values contradict each other.
    pub fn validate(&self) -> Result<(), Error> {
        if self.address.is_empty() {
            return Err(Error::NoAddress);
        }
        if self.topic.is_empty() {
            return Err(Error::NoTopic);
        }
        if !(1_048_576..=15_983_616).contains(&self.producer_max_record_size_bytes) {
            return Err(Error::RecordSize(self.producer_max_record_size_bytes));
        }
        let (target, max) = (self.target_consumer_lag_at_startup, self.max_consumer_lag_at_startup);
        if (target == GoDuration::ZERO) != (max == GoDuration::ZERO) || target > max {
            return Err(Error::Lag { target, max });
        }
        if self.sasl_username.is_empty() != self.sasl_password.is_empty() {
            return Err(Error::HalfCredentials);
        }
        match self.sasl_mechanism.as_str() {
            "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" | "OAUTHBEARER" | "AWS_MSK_IAM" => Ok(()),
            other => Err(Error::Mechanism(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_contradictory_is_named() {
        let config = KafkaConfig { topic: "t".into(), ..KafkaConfig::default() };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(KafkaConfig::default().validate(), Err(Error::NoTopic));
        let lag = KafkaConfig { max_consumer_lag_at_startup: GoDuration::ZERO, ..config.clone() };
        assert!(matches!(lag.validate(), Err(Error::Lag { .. })));
        let half = KafkaConfig { sasl_username: "u".into(), ..config };
        assert_eq!(half.validate(), Err(Error::HalfCredentials));
    }
}

//! `ingest.kafka` checked and turned into what the parts of this form need. What cannot be done is an error here, before anything is
//! started, or a notice.

use std::net::Ipv6Addr;
use std::time::Duration;

use kafka_protocol::records::Compression;
use vivace_runtime::tls::ClientTls;

use super::sasl::Sasl;
use crate::config::KafkaConfig;
use crate::error::Error;

const SECTION: &str = "ingest.kafka";

/// How to reach the brokers and how to treat them.
pub(crate) struct Settings {
    /// `host:port` each, an IPv6 address in brackets; tried in turn.
    pub(crate) brokers: Vec<String>,
    pub(crate) topic: String,
    pub(crate) client_id: String,
    pub(crate) dial_timeout: Duration,
    /// For one record from the first attempt to its acknowledgement.
    pub(crate) write_timeout: Duration,
    /// For learning offsets.
    pub(crate) offset_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) compression: Compression,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) tls: Option<ClientTls>,
    /// Partitions of a topic that is created, -1 for the broker's default; `None`: it must exist.
    pub(crate) create_partitions: Option<i32>,
    pub(crate) max_record_bytes: usize,
    pub(crate) lag_interval: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("brokers", &self.brokers).field("topic", &self.topic).finish_non_exhaustive()
    }
}

fn wrong(key: &str, what: impl Into<String>) -> Error {
    Error::Configuration { key: format!("{SECTION}.{key}"), what: what.into() }
}

impl Settings {
    /// Reads the TLS files; asks no broker.
    ///
    /// # Errors
    /// [`Error::Configuration`] with the key and what to do.
    pub(crate) fn new(config: &KafkaConfig) -> Result<Self, Error> {
        config.validate().map_err(|error| Error::Configuration { key: SECTION.to_owned(), what: error.to_string() })?;
        let brokers = brokers(&config.address)?;
        let tls = match config.tls() {
            None => None,
            Some(tls) => {
                if let Some(broker) = brokers.iter().find(|broker| is_literal_ipv6(broker)) {
                    return Err(wrong("address", tls_to_ipv6(broker)));
                }
                let opened = ClientTls::open_unnamed(SECTION, &tls);
                Some(opened.map_err(|error| wrong("tls_enabled", chain(&error)))?)
            }
        };
        let create_partitions = match config.auto_create_topic_default_partitions {
            _ if !config.auto_create_topic_enabled => None,
            count if count <= 0 => Some(-1),
            count => Some(i32::try_from(count).map_err(|error| {
                wrong("auto_create_topic_default_partitions", format!("{count} is too large: {error}"))
            })?),
        };
        let max_record_bytes = usize::try_from(config.producer_max_record_size_bytes).unwrap_or(usize::MAX);
        Ok(Self {
            brokers,
            topic: config.topic.clone(),
            client_id: if config.client_id.is_empty() { "vivace".to_owned() } else { config.client_id.clone() },
            dial_timeout: positive("dial_timeout", config.dial_timeout.get())?,
            write_timeout: positive("write_timeout", config.write_timeout.get())?,
            offset_timeout: positive(
                "last_produced_offset_retry_timeout",
                config.last_produced_offset_retry_timeout.get(),
            )?,
            linger: config.producer_linger.get(),
            compression: compression(&config.producer_compression)?,
            sasl: Sasl::new(config).map_err(|(key, what)| wrong(key, what))?,
            tls,
            create_partitions,
            max_record_bytes,
            lag_interval: positive(
                "consumer_group_lag_metric_update_interval",
                config.consumer_group_lag_metric_update_interval.get(),
            )?,
        })
    }

    /// What is configured and has no effect, to be told once at start.
    pub(crate) fn notices(config: &KafkaConfig) -> Vec<String> {
        let mut notices = Vec::new();
        if !config.client_rack.is_empty() {
            notices.push(format!(
                "{SECTION}.client_rack has no effect: records are always fetched from the partition's leader"
            ));
        }
        if config.producer_max_buffered_bytes == 0 {
            notices.push(format!(
                "{SECTION}.producer_max_buffered_bytes is 0, without limit: the budget of the process still bounds what waits"
            ));
        }
        notices
    }
}

fn positive(key: &str, value: Duration) -> Result<Duration, Error> {
    if value.is_zero() { Err(wrong(key, "must be above 0")) } else { Ok(value) }
}

fn brokers(address: &str) -> Result<Vec<String>, Error> {
    let brokers: Vec<String> =
        address.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if brokers.is_empty() {
        return Err(wrong("address", "names no broker; give host:port, several separated by commas"));
    }
    for broker in &brokers {
        let split = broker.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, _port)) = split.filter(|(host, _)| !host.is_empty()) else {
            return Err(wrong("address", format!("`{broker}` is not host:port")));
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let fits = match bracketed {
            Some(inner) => inner.split('%').next().is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()),
            None => !host.contains([':', '[', ']']),
        };
        if !fits {
            return Err(wrong("address", format!("`{broker}`: an IPv6 address stands in brackets, as in [::1]:9092")));
        }
    }
    Ok(brokers)
}

/// Whether a broker's address is a literal IPv6 address: with brackets in `host:port`, without as brokers advertise it.
pub(crate) fn is_literal_ipv6(broker: &str) -> bool {
    broker.starts_with('[') || broker.parse::<Ipv6Addr>().is_ok()
}

pub(crate) fn tls_to_ipv6(broker: &str) -> String {
    format!(
        "TLS to the literal IPv6 address {broker} is not possible with this client; give the brokers names, in `address` and in the \
         brokers' advertised.listeners (the names may well resolve to IPv6 addresses)"
    )
}

fn compression(name: &str) -> Result<Compression, Error> {
    match name {
        // The client's choice: what costs least for what it saves.
        "" | "lz4" => Ok(Compression::Lz4),
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "snappy" => Ok(Compression::Snappy),
        "zstd" => Err(wrong(
            "producer_compression",
            "zstd is not available: brokers do not hand zstd batches to this client's fetch; use lz4, snappy, gzip or none",
        )),
        other => Err(wrong("producer_compression", format!("`{other}` is not one of none, gzip, snappy, lz4"))),
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use vivace_runtime::config::GoDuration;

    use super::*;

    fn config() -> KafkaConfig {
        KafkaConfig { topic: "traces".into(), ..KafkaConfig::default() }
    }

    fn refusal(config: &KafkaConfig) -> String {
        Settings::new(config).unwrap_err().to_string()
    }

    #[test]
    fn several_brokers_are_a_list_and_ipv6_stands_in_brackets() {
        let of = |address: &str| Settings::new(&KafkaConfig { address: address.into(), ..config() });
        assert_eq!(of("a:1, b:2").unwrap().brokers, ["a:1", "b:2"]);
        assert_eq!(of("[2001:db8::1]:9092,[::1]:9092").unwrap().brokers, ["[2001:db8::1]:9092", "[::1]:9092"]);
        for wrong in ["a", "a:b", ":9092", "::1:9092", "[::1]", "[a]:1", ","] {
            let told = of(wrong).unwrap_err().to_string();
            assert!(told.starts_with("ingest.kafka.address: "), "{told}");
        }
    }

    #[test]
    fn what_this_client_cannot_do_is_an_error_at_start() {
        let tls = KafkaConfig { tls_enabled: true, tls_insecure_skip_verify: true, ..config() };
        let told = refusal(&KafkaConfig { address: "broker:9093,[::1]:9093".into(), ..tls.clone() });
        assert!(told.contains("[::1]:9093") && told.contains("give the brokers names"), "{told}");
        Settings::new(&tls).unwrap();
        let told = refusal(&KafkaConfig { producer_compression: "zstd".into(), ..config() });
        assert!(told.starts_with("ingest.kafka.producer_compression: zstd is not available"), "{told}");
        let told = refusal(&KafkaConfig { sasl_mechanism: "AWS_MSK_IAM".into(), ..config() });
        assert!(told.starts_with("ingest.kafka.sasl_mechanism: AWS_MSK_IAM"), "{told}");
        let told = refusal(&KafkaConfig { dial_timeout: GoDuration::ZERO, ..config() });
        assert_eq!(told, "ingest.kafka.dial_timeout: must be above 0");
    }

    #[test]
    fn a_rack_is_a_notice() {
        assert_eq!(Settings::notices(&config()), [] as [&str; 0]);
        let notices = Settings::notices(&KafkaConfig { client_rack: "a".into(), ..config() });
        assert!(notices[0].starts_with("ingest.kafka.client_rack has no effect"), "{notices:?}");
    }

    #[test]
    fn a_topic_is_created_with_the_configured_partitions_or_the_brokers_default() {
        let of = |enabled, count| {
            let config = KafkaConfig {
                auto_create_topic_enabled: enabled,
                auto_create_topic_default_partitions: count,
                ..config()
            };
            Settings::new(&config).map(|settings| settings.create_partitions)
        };
        assert_eq!(of(true, 7).unwrap(), Some(7));
        assert_eq!(of(true, 0).unwrap(), Some(-1));
        assert_eq!(of(false, 7).unwrap(), None);
        of(true, i64::MAX).unwrap_err();
    }
}

//! The configuration of a ring, in its four variants, as one value that the rules read.

use std::time::Duration;

use vivace_runtime::config::{DistributorRingConfig, KvStoreConfig, RingConfig, WorkerRingConfig};

use crate::state::RING_BYTES_MAX;

/// Where a ring lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In gossip, shared with every member of the cluster.
    Gossip,
    /// In this process.
    Memory,
    /// Nowhere: the ring is off.
    Off,
}

/// What one process needs to take part in one ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingSettings {
    /// The section of the configuration, for errors.
    pub section: &'static str,
    /// The whole key of the ring.
    pub ring: String,
    /// Where the ring lives.
    pub store: Store,
    /// How long a member may be down; it is forgotten after twice this.
    pub heartbeat_timeout: Duration,
    /// The id of this member.
    pub instance_id: String,
    /// Interfaces whose addresses are preferred.
    pub interface_names: Vec<String>,
    /// The address to tell instead of an interface's.
    pub address: Option<String>,
    /// The port to tell.
    pub port: u16,
    /// Whether that port is a proxy's.
    pub proxied: bool,
    /// The port that the process itself listens on.
    pub listen_port: u16,
    /// Which families to tell.
    pub families: Families,
    /// Availability zone, or empty.
    pub zone: String,
    /// How many tokens this member has.
    pub tokens: u16,
}

/// Which families a member tells, and in which order: `enable_inet6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// What the host has, IPv4 first.
    Detect,
    /// IPv4 only.
    V4,
    /// What the host has, IPv6 first.
    PreferV6,
}

impl From<Option<bool>> for Families {
    fn from(enable_inet6: Option<bool>) -> Self {
        match enable_inet6 {
            None => Self::Detect,
            Some(false) => Self::V4,
            Some(true) => Self::PreferV6,
        }
    }
}

/// Why a ring cannot be as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingConfigError {
    /// A store of another kind.
    #[error(
        "{section}.kvstore.store is {store:?}, which Vivace does not use: rings live in its own gossip; set it to \
         memberlist (shared) or inmemory (one process)"
    )]
    ForeignStore {
        /// The section.
        section: &'static str,
        /// The value.
        store: String,
    },
    /// No store at all.
    #[error("{section}.kvstore.store is {store:?}; valid are memberlist and inmemory")]
    UnknownStore {
        /// The section.
        section: &'static str,
        /// The value.
        store: String,
    },
    /// Everybody would be unhealthy and forgotten at once.
    #[error(
        "{section}.heartbeat_timeout must be above 0: with 0 every member would be forgotten as soon as it is down"
    )]
    ZeroTimeout {
        /// The section.
        section: &'static str,
    },
    /// An address in the wrong form.
    #[error("{section}.instance_addr is {address:?}: {what}")]
    Address {
        /// The section.
        section: &'static str,
        /// The value.
        address: String,
        /// What to write instead.
        what: &'static str,
    },
    /// The key is empty or too long.
    #[error("the ring key {ring:?} of {section} has {bytes} bytes; between 1 and {RING_BYTES_MAX} are allowed")]
    Key {
        /// The section.
        section: &'static str,
        /// The key.
        ring: String,
        /// Its length.
        bytes: usize,
    },
    /// A live-store without a partition in its name.
    #[error(
        "{section}.instance_id is {id:?}; it must end in \"-\" and a number, its partition, for instance live-store-0"
    )]
    NoPartition {
        /// The section.
        section: &'static str,
        /// The value, or the host name in its place.
        id: String,
    },
}

/// What the process adds to the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// The host name, the default of instance ids.
    pub name: &'a str,
    /// `server.grpc_listen_port`.
    pub grpc_port: u16,
}

impl RingSettings {
    /// `live_store.ring`: no tokens.
    ///
    /// # Errors
    /// See [`RingConfigError`].
    pub fn live_store(config: &RingConfig, host: Host<'_>) -> Result<Self, RingConfigError> {
        Self::common("live_store.ring", "live-store", &config.into(), host)
    }

    /// `metrics_generator.ring`, with its key: no tokens.
    ///
    /// # Errors
    /// See [`RingConfigError`].
    pub fn metrics_generator(config: &RingConfig, key: &str, host: Host<'_>) -> Result<Self, RingConfigError> {
        Self::common("metrics_generator.ring", key, &config.into(), host)
    }

    /// `distributor.ring`, with its key: one token.
    ///
    /// # Errors
    /// See [`RingConfigError`].
    pub fn distributor(config: &DistributorRingConfig, key: &str, host: Host<'_>) -> Result<Self, RingConfigError> {
        let parts = Parts {
            kvstore: &config.kvstore,
            heartbeat_timeout: config.heartbeat_timeout.into(),
            instance_id: &config.instance_id,
            interface_names: &config.instance_interface_names,
            address: &config.instance_addr,
            port: config.instance_port,
            enable_inet6: config.enable_inet6,
            zone: "",
        };
        Ok(Self { tokens: 1, ..Self::common("distributor.ring", key, &parts, host)? })
    }

    /// `backend_worker.ring`, with its key: 512 tokens, and off unless it lives in gossip.
    ///
    /// # Errors
    /// See [`RingConfigError`].
    pub fn backend_worker(config: &WorkerRingConfig, key: &str, host: Host<'_>) -> Result<Self, RingConfigError> {
        let parts = Parts {
            kvstore: &config.kvstore,
            heartbeat_timeout: config.heartbeat_timeout.into(),
            instance_id: &config.instance_id,
            interface_names: &config.instance_interface_names,
            address: &config.instance_addr,
            port: config.instance_port,
            enable_inet6: config.enable_inet6,
            zone: "",
        };
        let mut settings = Self { tokens: 512, ..Self::common("backend_worker.ring", key, &parts, host)? };
        if settings.store == Store::Memory {
            // A ring of one worker divides nothing.
            settings.store = Store::Off;
        }
        Ok(settings)
    }

    /// This ring in this process alone, on the loopback address: what `-target=all` makes of it.
    #[must_use]
    pub fn in_memory(self) -> Self {
        Self { store: Store::Memory, address: Some("127.0.0.1".to_owned()), ..self }
    }

    fn common(section: &'static str, key: &str, parts: &Parts<'_>, host: Host<'_>) -> Result<Self, RingConfigError> {
        let store = store(section, parts.kvstore)?;
        if parts.heartbeat_timeout.is_zero() {
            return Err(RingConfigError::ZeroTimeout { section });
        }
        let ring = format!("{}{key}", parts.kvstore.prefix);
        if key.is_empty() || ring.len() > RING_BYTES_MAX {
            let bytes = ring.len();
            return Err(RingConfigError::Key { section, ring, bytes });
        }
        let port = if parts.port == 0 { host.grpc_port } else { parts.port };
        Ok(Self {
            section,
            ring,
            store,
            heartbeat_timeout: parts.heartbeat_timeout,
            instance_id: non_empty(parts.instance_id).unwrap_or(host.name).to_owned(),
            interface_names: parts.interface_names.to_vec(),
            address: address(section, parts.address)?,
            port,
            proxied: port != host.grpc_port,
            listen_port: host.grpc_port,
            families: parts.enable_inet6.into(),
            zone: parts.zone.to_owned(),
            tokens: 0,
        })
    }

    /// The partition in a live-store's id: `live-store-zone-a-3` owns partition 3.
    ///
    /// # Errors
    /// The id does not end in `-` and a number.
    pub fn partition(&self) -> Result<u32, RingConfigError> {
        partition_of(&self.instance_id)
            .ok_or_else(|| RingConfigError::NoPartition { section: self.section, id: self.instance_id.clone() })
    }
}

/// The number after the last `-` of an instance id.
#[must_use]
pub fn partition_of(instance_id: &str) -> Option<u32> {
    let (_, digits) = instance_id.rsplit_once('-')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Where a ring with this configuration lives.
///
/// # Errors
/// The store is one that Vivace does not use, or none.
pub fn store(section: &'static str, kvstore: &KvStoreConfig) -> Result<Store, RingConfigError> {
    match kvstore.store.as_str() {
        "memberlist" => Ok(Store::Gossip),
        "inmemory" => Ok(Store::Memory),
        "" => Ok(Store::Off),
        "consul" | "etcd" | "multi" => Err(RingConfigError::ForeignStore { section, store: kvstore.store.clone() }),
        other => Err(RingConfigError::UnknownStore { section, store: other.to_owned() }),
    }
}

/// What the variants have in common.
struct Parts<'a> {
    kvstore: &'a KvStoreConfig,
    heartbeat_timeout: Duration,
    instance_id: &'a str,
    interface_names: &'a [String],
    address: &'a str,
    port: u16,
    enable_inet6: Option<bool>,
    zone: &'a str,
}

impl<'a> From<&'a RingConfig> for Parts<'a> {
    fn from(config: &'a RingConfig) -> Self {
        Self {
            kvstore: &config.kvstore,
            heartbeat_timeout: config.heartbeat_timeout.into(),
            instance_id: &config.instance_id,
            interface_names: &config.instance_interface_names,
            address: &config.instance_addr,
            port: config.instance_port,
            enable_inet6: config.enable_inet6,
            zone: &config.instance_zone,
        }
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// The configured address without brackets; a port in it, or a zone id, is refused.
fn address(section: &'static str, text: &str) -> Result<Option<String>, RingConfigError> {
    let Some(text) = non_empty(text) else { return Ok(None) };
    let wrong = |what| Err(RingConfigError::Address { section, address: text.to_owned(), what });
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.contains('%') {
        return wrong("an address with a zone id means nothing to other hosts; give a routable one");
    }
    match bare.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_unspecified() => wrong("the unspecified address is no place to call; give a routable one"),
        Ok(ip) => Ok(Some(ip.to_string())),
        Err(_) if bare.contains([':', '/', ' ', '[', ']']) => {
            wrong("give the address alone; the port goes into instance_port")
        }
        Err(_) => Ok(Some(bare.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host<'_> = Host { name: "live-store-zone-a-3", grpc_port: 9095 };

    fn with(change: impl FnOnce(&mut RingConfig)) -> Result<RingSettings, RingConfigError> {
        let mut config = RingConfig::default();
        change(&mut config);
        RingSettings::live_store(&config, HOST)
    }

    #[test]
    fn the_four_variants_have_their_keys_tokens_and_timeouts() {
        let live = RingSettings::live_store(&RingConfig::default(), HOST).unwrap();
        let generator = RingSettings::metrics_generator(&RingConfig::default(), "metrics-generator", HOST).unwrap();
        let distributor = RingSettings::distributor(&DistributorRingConfig::default(), "distributor", HOST).unwrap();
        let worker = RingSettings::backend_worker(&WorkerRingConfig::default(), "backend-worker", HOST).unwrap();
        let facts = |s: &RingSettings| (s.ring.clone(), s.tokens, s.heartbeat_timeout.as_secs(), s.store);
        assert_eq!(facts(&live), ("collectors/live-store".into(), 0, 60, Store::Gossip));
        assert_eq!(facts(&generator), ("collectors/metrics-generator".into(), 0, 60, Store::Gossip));
        assert_eq!(facts(&distributor), ("collectors/distributor".into(), 1, 300, Store::Gossip));
        assert_eq!(facts(&worker), ("collectors/backend-worker".into(), 512, 60, Store::Off));
        assert_eq!(live.in_memory().address.as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn other_stores_are_refused_with_the_key_and_the_remedy() {
        for store in ["consul", "etcd", "multi"] {
            let error = with(|config| config.kvstore.store = store.into()).unwrap_err().to_string();
            assert!(error.starts_with("live_store.ring.kvstore.store is ") && error.contains("memberlist"), "{error}");
        }
        assert!(with(|config| config.kvstore.store = "zookeeper".into()).is_err());
        assert_eq!(with(|config| config.kvstore.store = "inmemory".into()).unwrap().store, Store::Memory);
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        let error = with(|config| config.heartbeat_timeout = vivace_runtime::config::GoDuration::ZERO).unwrap_err();
        assert_eq!(error, RingConfigError::ZeroTimeout { section: "live_store.ring" });
    }

    #[test]
    fn the_port_of_a_sidecar_is_told_and_marked() {
        let plain = with(|_| {}).unwrap();
        assert_eq!((plain.port, plain.proxied), (9095, false));
        let sidecar = with(|config| config.instance_port = 12345).unwrap();
        assert_eq!((sidecar.port, sidecar.proxied, sidecar.listen_port), (12345, true, 9095));
    }

    #[test]
    fn addresses_are_taken_bare_and_nonsense_is_named() {
        for (text, bare) in [("[2001:db8::1]", "2001:db8::1"), ("2001:db8::1", "2001:db8::1"), ("proxy", "proxy")] {
            assert_eq!(with(|config| config.instance_addr = text.into()).unwrap().address.as_deref(), Some(bare));
        }
        for text in ["10.0.0.1:9095", "[::1]:9095", "fe80::1%eth0", "0.0.0.0", "::", "a b"] {
            assert!(with(|config| config.instance_addr = text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_partition_is_the_number_at_the_end_of_the_id() {
        assert_eq!(with(|_| {}).unwrap().partition(), Ok(3));
        for id in ["live-store", "live-store-", "live-store-3a", "live-store--x", "7"] {
            let error = with(|config| config.instance_id = id.into()).unwrap().partition().unwrap_err().to_string();
            assert!(error.contains(id) && error.contains("live-store-0"), "{error}");
        }
    }
}

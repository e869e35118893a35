//! Configuration: `memberlist`.

use serde::{Deserialize, Deserializer, Serialize, de};
use vivace_runtime::config::{Csv, Described, GoDuration, Secret, Shape};

vivace_runtime::config_struct! {
    /// Gossip. The keys are those of another library; several have no counterpart in ours and no effect.
    pub struct Config {
        /// Name of this member. Empty: the host name.
        pub node_name: String = String::new(),
        /// Add a random part to the name, so that a restart is another member.
        pub randomize_node_name: bool = true,
        /// Time limit of a stream between two members.
        pub stream_timeout: GoDuration = GoDuration::secs(2),
        /// Factor of how often news are repeated. Larger spreads them more surely and costs network.
        pub retransmit_factor: u64 = 2,
        /// Time between two full exchanges with a random member; 0 means never.
        pub pull_push_interval: GoDuration = GoDuration::secs(30),
        /// Time between two rounds of gossip. Shorter spreads news sooner and costs network.
        pub gossip_interval: GoDuration = GoDuration::secs(1),
        /// Members told in one round.
        pub gossip_nodes: u64 = 2,
        /// How long a dead member is still told, so that it can object.
        pub gossip_to_dead_nodes_time: GoDuration = GoDuration::secs(30),
        /// Age after which a dead member's name may be taken by another address; 0 means never.
        pub dead_node_reclaim_time: GoDuration = GoDuration::ZERO,
        /// Compress messages.
        pub compression_enabled: bool = false,
        /// `lzw` or `snappy`.
        pub compression_algorithm: String = "lzw".into(),
        /// Time over which changes are collected before they are told to watchers.
        pub notify_interval: GoDuration = GoDuration::ZERO,
        /// Messages received and waiting.
        pub received_messages_queue_size: u64 = 1024,
        /// Messages processed and waiting.
        pub processed_messages_queue_size: u64 = 1024,
        /// Address told to others. Empty: the best address of each family. An IPv6 address without brackets; one of each
        /// family with a comma between.
        pub advertise_addr: String = String::new(),
        /// Port told to others, with `advertise_addr`.
        pub advertise_port: u16 = 7946,
        /// Label that keeps clusters apart. Members with another label are not heard.
        pub cluster_label: String = String::new(),
        /// Hear members with another label, while a label is introduced.
        pub cluster_label_verification_disabled: bool = false,
        /// Keys of encryption, 32 bytes each in base64, with commas between: every message is encrypted and authenticated.
        /// The first encrypts, each decrypts. To rotate: add the new one at the end everywhere, move it to the front, remove
        /// the old one.
        pub encryption_keys: Secret = Secret::default(),
        /// Members to join: `host:port`, or a name with `dns+`, `dnssrv+` or `dnssrvnoa+`. They are looked up again for ever.
        pub join_members: Addresses = Addresses::default(),
        /// First wait between attempts to join.
        pub min_join_backoff: GoDuration = GoDuration::secs(1),
        /// Longest wait between attempts to join.
        pub max_join_backoff: GoDuration = GoDuration::minutes(1),
        /// Attempts to join before giving up, with `abort_if_cluster_join_fails`.
        pub max_join_retries: u64 = 10,
        /// Stop the process when the first attempt to join fails.
        pub abort_if_cluster_fast_join_fails: bool = false,
        /// Members that the first attempt must reach.
        pub abort_if_cluster_fast_join_fails_min_nodes: u64 = 1,
        /// Stop the process when joining fails.
        pub abort_if_cluster_join_fails: bool = false,
        /// Time between two joins of members that are already joined; 0 means never.
        pub rejoin_interval: GoDuration = GoDuration::ZERO,
        /// Members to rejoin. Empty: `join_members`.
        pub rejoin_seed_nodes: Csv = Csv::default(),
        /// How long members that left are remembered.
        pub left_ingesters_timeout: GoDuration = GoDuration::minutes(5),
        /// How long deleted keys are remembered.
        pub obsolete_entries_timeout: GoDuration = GoDuration::secs(30),
        /// Time limit of leaving.
        pub leave_timeout: GoDuration = GoDuration::secs(20),
        /// How long stopping waits for own news to be told.
        pub broadcast_timeout_for_local_updates_on_shutdown: GoDuration = GoDuration::secs(10),
        /// Bytes of messages kept for the page.
        pub message_history_buffer_bytes: u64 = 0,
        /// Changes waiting for one watcher.
        pub watch_prefix_buffer_size: u64 = 128,
        /// Addresses to listen on. Empty, `::`, `::0` and `[::]`: all addresses of both families.
        pub bind_addr: Addresses = Addresses::default(),
        /// Port to listen on, TCP and UDP.
        pub bind_port: u16 = 7946,
        /// Time limit of connecting for a packet.
        pub packet_dial_timeout: GoDuration = GoDuration::secs(2),
        /// Time limit of writing a packet.
        pub packet_write_timeout: GoDuration = GoDuration::secs(5),
        /// Packets written at once.
        pub max_concurrent_writes: u64 = 3,
        /// How long a packet waits to be written before it is dropped.
        pub acquire_writer_timeout: GoDuration = GoDuration::millis(250),
        /// Use TLS between members. Off: the other `tls_` keys are ignored.
        pub tls_enabled: bool = false,
        /// Certificate, a PEM file.
        pub tls_cert_path: String = String::new(),
        /// Key, a PEM file.
        pub tls_key_path: String = String::new(),
        /// Certificates of the authorities to trust, a PEM file.
        pub tls_ca_path: String = String::new(),
        /// Name expected in the certificates.
        pub tls_server_name: String = String::new(),
        /// Accept any certificate.
        pub tls_insecure_skip_verify: bool = false,
        /// Cipher suites to allow, by their Go names.
        pub tls_cipher_suites: Csv = Csv::default(),
        /// Oldest TLS version to accept.
        pub tls_min_version: String = String::new(),
        /// Gossip that prefers its own zone.
        pub zone_aware_routing: ZoneAwareRoutingConfig = ZoneAwareRoutingConfig::default(),
        /// Measuring how long news take.
        pub propagation_delay_tracker: PropagationDelayTrackerConfig = PropagationDelayTrackerConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// Gossip that prefers its own zone.
    pub struct ZoneAwareRoutingConfig {
        /// Prefer members of the own zone.
        pub enabled: bool = false,
        /// The own zone, at most 16 bytes.
        pub instance_availability_zone: String = String::new(),
        /// `member`, or `bridge` for one that gossips between zones.
        pub role: String = "member".into(),
    }
}

vivace_runtime::config_struct! {
    /// Measuring how long news take.
    pub struct PropagationDelayTrackerConfig {
        /// Send beacons.
        pub enabled: bool = false,
        /// Time between two beacons.
        pub beacon_interval: GoDuration = GoDuration::minutes(1),
        /// How long a beacon lives.
        pub beacon_lifetime: GoDuration = GoDuration::minutes(10),
        /// Log beacons that took longer; 0 means none.
        pub log_beacons_latency_longer_than: GoDuration = GoDuration::ZERO,
    }
}

/// Addresses: a list, or one comma-separated string.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Addresses(pub Vec<String>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Addresses;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a list of addresses")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
                Ok(Addresses(Csv::from(text.to_owned()).0))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Addresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(item) = items.next_element::<String>()? {
                    // An item may itself be a comma-separated string.
                    addresses.append(&mut Csv::from(item).0);
                }
                Ok(Addresses(addresses))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Described for Addresses {
    fn shape() -> Shape {
        Shape::TextOrList
    }
}

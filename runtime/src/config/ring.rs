//! Membership of a ring, in its three variants.

use super::{GoDuration, KvStoreConfig};

crate::config_struct! {
    /// Membership of the ring of live-stores or metrics-generators.
    pub struct RingConfig {
        /// Where the ring is kept.
        pub kvstore: KvStoreConfig = KvStoreConfig::default(),
        /// Time between signs of life. Has no effect: liveness comes from gossip.
        pub heartbeat_period: GoDuration = GoDuration::secs(5),
        /// How long a member may be down before it counts as unhealthy; it is forgotten after twice this time. Shorter
        /// forgets sooner after a crash, longer rides out restarts. 0 makes every member unhealthy.
        pub heartbeat_timeout: GoDuration = GoDuration::minutes(1),
        /// Name of this member. For live-stores it must end in `-<n>`, the partition. Empty: the host name.
        pub instance_id: String = String::new(),
        /// Network interfaces whose address is advertised, in order of preference.
        pub instance_interface_names: Vec<String> = vec!["eth0".into(), "en0".into()],
        /// Address to advertise instead of that of an interface, without port; an IPv6 address without brackets.
        pub instance_addr: String = String::new(),
        /// Port to advertise; 0 means `server.grpc_listen_port`. Set it to the port of a sidecar proxy that takes the
        /// calls of other members.
        pub instance_port: u16 = 0,
        /// Absent: both families, whichever the host has. `false`: IPv4 only. `true`: IPv6 preferred.
        pub enable_inet6: Option<bool> = None,
        /// Availability zone. Copies are spread over zones, and queries ask one zone first.
        pub instance_zone: String = String::new(),
    }
}

crate::config_struct! {
    /// Membership of the ring of distributors, used by the global rate limit only.
    pub struct DistributorRingConfig {
        /// Where the ring is kept.
        pub kvstore: KvStoreConfig = KvStoreConfig::default(),
        /// Time between signs of life. Has no effect: liveness comes from gossip.
        pub heartbeat_period: GoDuration = GoDuration::secs(5),
        /// How long a member may be down before it counts as unhealthy; it is forgotten after twice this time. Shorter
        /// forgets sooner after a crash, longer rides out restarts. 0 makes every member unhealthy.
        pub heartbeat_timeout: GoDuration = GoDuration::minutes(5),
        /// Name of this member. For live-stores it must end in `-<n>`, the partition. Empty: the host name.
        pub instance_id: String = String::new(),
        /// Network interfaces whose address is advertised, in order of preference.
        pub instance_interface_names: Vec<String> = vec!["eth0".into(), "en0".into()],
        /// Address to advertise instead of that of an interface, without port; an IPv6 address without brackets.
        pub instance_addr: String = String::new(),
        /// Port to advertise; 0 means `server.grpc_listen_port`. Set it to the port of a sidecar proxy that takes the
        /// calls of other members.
        pub instance_port: u16 = 0,
        /// Absent: both families, whichever the host has. `false`: IPv4 only. `true`: IPv6 preferred.
        pub enable_inet6: Option<bool> = None,
    }
}

crate::config_struct! {
    /// Membership of the ring of backend-workers.
    pub struct WorkerRingConfig {
        /// Where the ring is kept.
        pub kvstore: KvStoreConfig = KvStoreConfig { store: String::new(), ..KvStoreConfig::default() },
        /// Time between signs of life. Has no effect: liveness comes from gossip.
        pub heartbeat_period: GoDuration = GoDuration::secs(5),
        /// How long a member may be down before it counts as unhealthy; it is forgotten after twice this time. Shorter
        /// forgets sooner after a crash, longer rides out restarts. 0 makes every member unhealthy.
        pub heartbeat_timeout: GoDuration = GoDuration::minutes(1),
        /// Name of this member. For live-stores it must end in `-<n>`, the partition. Empty: the host name.
        pub instance_id: String = String::new(),
        /// Network interfaces whose address is advertised, in order of preference.
        pub instance_interface_names: Vec<String> = vec!["eth0".into(), "en0".into()],
        /// Address to advertise instead of that of an interface, without port; an IPv6 address without brackets.
        pub instance_addr: String = String::new(),
        /// Port to advertise; 0 means `server.grpc_listen_port`. Set it to the port of a sidecar proxy that takes the
        /// calls of other members.
        pub instance_port: u16 = 0,
        /// Absent: both families, whichever the host has. `false`: IPv4 only. `true`: IPv6 preferred.
        pub enable_inet6: Option<bool> = None,
        /// Shortest time without change in the ring before work starts.
        pub wait_stability_min_duration: GoDuration = GoDuration::minutes(1),
        /// Longest wait for a ring that does not come to rest.
        pub wait_stability_max_duration: GoDuration = GoDuration::minutes(5),
        /// Longest wait for this member to become active.
        pub wait_active_instance_timeout: GoDuration = GoDuration::minutes(10),
    }
}

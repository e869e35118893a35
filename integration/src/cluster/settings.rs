//! What the processes of a cluster are told: one file serves all roles.
//!
//! At addresses of this machine everybody listens at the own address only, and is found by it. On hosts with names everybody listens
//! on all addresses, says nothing of the own one, and finds the others by the names that [`Cluster::names`] has.

use serde_json::{Value, json};

use super::{BROKER, Cluster, GOSSIP, GRPC, HTTP, KAFKA, OTLP_GRPC, OTLP_HTTP, TOPIC};

/// Roles that gossip, as a headless service would find them; some of them may be away.
const GOSSIPING: [&str; 3] = ["live-store", "distributor", "querier"];

impl Cluster {
    /// The names of a cluster on hosts, with the addresses behind each.
    #[must_use]
    pub fn names(&self) -> Vec<(String, Vec<std::net::IpAddr>)> {
        let Some(domain) = &self.domain else { return Vec::new() };
        let of = |names: Vec<String>| names.iter().flat_map(|name| self.member(name).home.addresses.clone()).collect();
        let gossiping = GOSSIPING.iter().flat_map(|role| self.named(role)).collect();
        vec![
            (format!("gossip-ring.{domain}"), of(gossiping)),
            (format!("query-frontend.{domain}"), of(self.named("query-frontend"))),
            (format!("kafka.{domain}"), of(vec![BROKER.to_owned()])),
        ]
    }

    /// Everything that this process is told.
    pub(super) fn settings(&self, name: &str) -> Value {
        let member = self.member(name);
        let here = self.dir_of(name);
        let mut settings = json!({
            "live_store": {
                "partition_ring": { "min_partition_owners_duration": "0s" },
                "wal": { "path": here.join("traces") },
                "shutdown_marker_dir": here.join("marker"),
                "readiness_target_lag": "1s",
                "remove_owner_on_shutdown": false,
            },
            "block_builder": {
                "instance_id": name, "partitions_per_instance": self.partitions,
                "consume_cycle_duration": "2s",
            },
            "querier": { "frontend_worker": { "dns_lookup_duration": "1s" } },
            "storage": { "trace": {
                "backend": "local", "local": { "path": self.bucket(), "shared": true }, "blocklist_poll": "1s",
            } },
        });
        let found = match &self.domain {
            Some(domain) => by_name(name, domain),
            None => self.by_address(name),
        };
        merge(&mut settings, &found);
        merge(&mut settings, &member.settings);
        settings
    }

    fn by_address(&self, name: &str) -> Value {
        let host = self.member(name).home.address().to_string();
        // There is no name here that stands for all of them: each querier has its own, counted round.
        let frontends = self.named("query-frontend");
        let number = name.rsplit_once('-').and_then(|(_, number)| number.parse::<usize>().ok()).unwrap_or(0);
        let frontend = frontends.iter().cycle().nth(number).map_or(String::new(), |name| self.grpc(name).to_string());
        let gossiping = GOSSIPING.iter().flat_map(|role| self.named(role));
        let seeds: Vec<String> = gossiping.map(|name| self.at(&name, GOSSIP).to_string()).collect();
        json!({
            "server": {
                "http_listen_address": host, "http_listen_port": self.at(name, HTTP).port(),
                "grpc_listen_address": host, "grpc_listen_port": self.at(name, GRPC).port(),
            },
            "memberlist": {
                "node_name": name, "bind_addr": [host], "bind_port": self.at(name, GOSSIP).port(), "join_members": seeds,
            },
            "ingest": { "kafka": { "address": self.at(BROKER, KAFKA).to_string(), "topic": TOPIC } },
            "distributor": { "receivers": { "otlp": { "protocols": {
                "grpc": { "endpoint": self.at(name, OTLP_GRPC).to_string() },
                "http": { "endpoint": self.at(name, OTLP_HTTP).to_string() },
            } } } },
            "live_store": { "ring": { "instance_id": name, "instance_addr": host } },
            "querier": { "frontend_worker": { "frontend_address": frontend } },
        })
    }
}

fn by_name(name: &str, domain: &str) -> Value {
    json!({
        "server": {
            "http_listen_address": "::", "http_listen_port": HTTP,
            "grpc_listen_address": "::", "grpc_listen_port": GRPC,
        },
        "memberlist": {
            "node_name": name, "bind_addr": ["::"], "bind_port": GOSSIP,
            "join_members": [format!("dns+gossip-ring.{domain}:{GOSSIP}")],
        },
        "ingest": { "kafka": { "address": format!("kafka.{domain}:{KAFKA}"), "topic": TOPIC } },
        "distributor": { "receivers": { "otlp": { "protocols": {
            "grpc": { "endpoint": format!("[::]:{OTLP_GRPC}") },
            "http": { "endpoint": format!("[::]:{OTLP_HTTP}") },
        } } } },
        "live_store": { "ring": { "instance_id": name } },
        "querier": { "frontend_worker": { "frontend_address": format!("query-frontend.{domain}:{GRPC}") } },
    })
}

/// Puts `over` into `settings`: sections are merged, everything else is replaced.
pub(super) fn merge(settings: &mut Value, over: &Value) {
    match (settings, over) {
        (Value::Object(settings), Value::Object(over)) => {
            for (key, value) in over {
                merge(settings.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (settings, over) => *settings = over.clone(),
    }
}

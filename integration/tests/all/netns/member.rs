//! A real process on a host of its own, and what its pages say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use vivace_integration::http;
use vivace_integration::process::{Node, Setup};

use super::lab::{Host, Lab};

pub(crate) const HTTP: u16 = 3200;
pub(crate) const GRPC: u16 = 9095;
pub(crate) const GOSSIP: u16 = 7946;

/// What a process is started as, and the page of the ring that it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    pub(crate) target: &'static str,
    /// The section of its ring, below which `instance_id` stands.
    pub(crate) section: &'static str,
    pub(crate) page: &'static str,
    /// More of the configuration: what its section goes on with, and other sections.
    yaml: &'static str,
}

/// A process whose distributors find each other by gossip.
pub(crate) const DISTRIBUTOR: Role = Role {
    target: "all",
    section: "distributor",
    page: "/distributor/ring",
    yaml: "overrides:\n  defaults:\n    ingestion:\n      rate_strategy: global\n",
};

/// A live-store of its own. There is no Kafka, which concerns neither its rings nor their pages.
pub(crate) const LIVE_STORE: Role = Role {
    target: "live-store",
    section: "live_store",
    page: "/live-store/ring",
    yaml: "  partition_ring:\n    min_partition_owners_duration: 1s\n  shutdown_marker_dir: ./marker\n\
           ingest:\n  kafka:\n    address: 127.0.0.1:1\n    topic: traces\n",
};

/// How a member is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) role: Role,
    /// Its instance id, and its name in membership unless `name` says otherwise.
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// `memberlist.join_members`.
    pub(crate) join: Vec<String>,
    /// One spelling of everything.
    pub(crate) bind: &'static str,
    /// More lines of `memberlist`.
    pub(crate) memberlist: String,
    /// More lines of its ring.
    pub(crate) ring: String,
    pub(crate) env: Vec<(String, String)>,
}

impl Start {
    pub(crate) fn new(id: &str, join: &[String]) -> Self {
        Self {
            role: DISTRIBUTOR,
            id: id.to_owned(),
            name: None,
            join: join.to_vec(),
            bind: "::",
            memberlist: String::new(),
            ring: String::new(),
            env: Vec::new(),
        }
    }

    pub(crate) fn memberlist(mut self, line: &str) -> Self {
        self.memberlist.push_str(&format!("  {line}\n"));
        self
    }

    pub(crate) fn ring(mut self, line: &str) -> Self {
        self.ring.push_str(&format!("    {line}\n"));
        self
    }

    /// Where it keeps its files on a host.
    pub(crate) fn dir(&self, lab: &Lab, host: &Host) -> PathBuf {
        lab.dir().join(format!("{}-{}", host.namespace, self.name.as_ref().unwrap_or(&self.id)))
    }

    /// Starts the process on a host, and waits for nothing.
    pub(crate) fn on(&self, lab: &Lab, host: &Host) -> Member {
        let Self { role, id, join, bind, memberlist, ring, .. } = self;
        let name = self.name.as_ref().unwrap_or(id);
        let dir = self.dir(lab, host);
        std::fs::create_dir_all(&dir).unwrap();
        let (section, more) = (role.section, role.yaml);
        let mut setup = Setup::new(&dir).yaml(&format!(
            "{section}:\n  ring:\n    instance_id: {id}\n{ring}{more}\
             memberlist:\n  node_name: {name}\n  randomize_node_name: false\n  bind_addr: ['{bind}']\n  \
             join_members: {join:?}\n{memberlist}"
        ));
        setup.args = vec![format!("-target={}", role.target)];
        setup.wrapper = host.wrapper();
        let port = |key: &str, port: u16| (format!("VIVACE_SERVER__{key}_LISTEN_PORT"), port.to_string());
        let all = |key: &str| (format!("VIVACE_SERVER__{key}_LISTEN_ADDRESS"), "::".to_owned());
        setup.env = vec![port("HTTP", HTTP), port("GRPC", GRPC), all("HTTP"), all("GRPC")];
        setup.env.extend(self.env.iter().cloned());
        let node = setup.spawn().unwrap();
        Member { id: id.clone(), name: name.clone(), page: role.page, host: host.clone(), node }
    }
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) page: &'static str,
    pub(crate) host: Host,
    pub(crate) node: Node,
}

impl Member {
    /// A page as JSON; null while there is none.
    pub(crate) fn json(&self, path: &str) -> Value {
        self.request("GET", path, &[]).and_then(|answer| answer.json().ok()).unwrap_or(Value::Null)
    }

    /// A request at the process's own loopback address, which no firewall of these tests cuts.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> Option<http::Answer> {
        let address = SocketAddr::from(([127, 0, 0, 1], HTTP));
        let accept = [("Accept", "application/json")];
        self.host.run(|| http::request(address, method, path, &accept, body).ok())
    }

    /// The page of its ring.
    pub(crate) fn ring(&self) -> Value {
        self.json(self.page)
    }

    /// The page of members.
    pub(crate) fn members(&self) -> Value {
        self.json("/memberlist")
    }
}

/// The members of a ring that a page shows as healthy, by id.
pub(crate) fn active(page: &Value) -> Vec<String> {
    let shards = page["shards"].as_array().cloned().unwrap_or_default();
    let active = shards.iter().filter(|shard| shard["state"] == "ACTIVE");
    active.map(|shard| shard["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Waits until `look` has nothing to object to, and says how long that took.
pub(crate) fn within<R>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<R, String>) -> (R, Duration) {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(result) => return (result, begun.elapsed()),
            Err(objection) => assert!(begun.elapsed() < limit, "not within {limit:?}: {what}: {objection}"),
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Waits until each of `observers` shows exactly `wanted` as healthy members of its ring.
pub(crate) fn rings_are<'m>(
    limit: Duration,
    observers: impl IntoIterator<Item = &'m Member>,
    wanted: &[String],
) -> Duration {
    let mut wanted = wanted.to_vec();
    wanted.sort();
    let begun = Instant::now();
    for member in observers {
        let left = limit.saturating_sub(begun.elapsed());
        within(left, &format!("the ring of {}", member.id), || {
            let page = member.ring();
            let shown = active(&page);
            if shown == wanted {
                Ok(())
            } else {
                Err(format!("it shows {shown:?}; log:\n{}", member.node.log().join("\n")))
            }
        });
    }
    begun.elapsed()
}

/// The ids of members.
pub(crate) fn ids<'m>(members: impl IntoIterator<Item = &'m Member>) -> Vec<String> {
    members.into_iter().map(|member| member.id.clone()).collect()
}

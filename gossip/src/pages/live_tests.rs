//! Pages of members that gossip over real sockets on this host's loopback: faults as a reader of the JSON sees them, within
//! the fifteen seconds that are promised, and nothing said of the others.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use vivace_runtime::config::{RingConfig, Secret};
use vivace_runtime::{Clock as _, Placement, Rng, Supervisor, SystemClock};

use super::compose::{Layout, RingPage};
use super::member_verdict::RingKind;
use super::routes::{Setup, router};
use crate::actor::{self, Options};
use crate::config::{Addresses, Config};
use crate::discovery::{Dns, DnsError, Service};
use crate::partition::{PartitionLifecycle, PartitionTimings};
use crate::ring::{Host, Keeper, RingSettings, choose_addresses};

const RING: &str = "collectors/live-store";
const PARTITIONS: &str = "collectors/livestore-partitions";
/// What the pages promise.
const PROMISED: Duration = Duration::from_secs(15);
/// 32 times the byte 7, in base64.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

struct NoDns;

impl Dns for NoDns {
    fn addresses(&self, host: &str) -> BoxFuture<'static, Result<Vec<std::net::IpAddr>, DnsError>> {
        let error = DnsError { name: host.to_owned(), reason: "no such name".to_owned() };
        std::future::ready(Err(error)).boxed()
    }

    fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, DnsError>> {
        let error = DnsError { name: name.to_owned(), reason: "no such name".to_owned() };
        std::future::ready(Err(error)).boxed()
    }
}

/// A live-store: membership, rings, pages, and a port that answers as a gRPC server would.
struct LiveStore {
    root: Supervisor,
    router: Router,
    service: tokio::task::JoinHandle<()>,
}

struct Wanted<'a> {
    id: &'a str,
    seed: u64,
    label: &'a str,
    key: &'a str,
    join: Vec<String>,
}

impl LiveStore {
    async fn start(wanted: Wanted<'_>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Whoever calls may be gone already.
                stream.write_all(&[0; 9]).await.ok();
            }
        });
        let config = RingConfig {
            instance_id: wanted.id.to_owned(),
            instance_addr: "127.0.0.1".to_owned(),
            ..RingConfig::default()
        };
        let settings = RingSettings::live_store(&config, Host { name: "host", grpc_port: port }).unwrap();
        let partition = settings.partition().unwrap();
        let rings: actor::BuildRings = Arc::new(move |identity| {
            let mut keeper = Keeper::new(&identity.name);
            let timings = PartitionTimings { owned_for: Duration::ZERO, ..PartitionTimings::default() };
            let lifecycle = PartitionLifecycle::new(PARTITIONS, &settings, partition, timings)?;
            keeper.join(&settings, identity, choose_addresses(&settings, &[])?, Some(partition))?;
            keeper.partitions(PARTITIONS, RING, Some(lifecycle));
            Ok(keeper)
        });
        let root = Supervisor::root("test", Arc::new(SystemClock), Placement::Here);
        let seed = wanted.seed;
        let options = Options {
            config: Config {
                node_name: format!("pod-{}", wanted.id),
                bind_addr: Addresses(vec!["127.0.0.1".to_owned()]),
                bind_port: 0,
                cluster_label: wanted.label.to_owned(),
                encryption_keys: Secret::new(wanted.key),
                join_members: Addresses(wanted.join),
                ..Config::default()
            },
            host_name: "host".to_owned(),
            software: "test".to_owned(),
            rings,
            generations: None,
            dns: Arc::new(NoDns),
            rng: Arc::new(move || Rng::seeded(seed)),
        };
        let gossip = actor::add(&root, options, Placement::Here).unwrap();
        root.start();
        let page = RingPage { kind: RingKind::LiveStore, ring: RING.into(), used: true, why: "It is tested.".into() };
        let layout = Layout {
            rings: vec![page],
            partition_ring: PARTITIONS.to_owned(),
            partitions_used: true,
            partitions_why: "It is tested.".to_owned(),
        };
        let (clock, rng) = (Arc::new(SystemClock), Rng::seeded(seed));
        let router = router(Setup { board: gossip.board, gossip: None, layout, clock, rng, downscale: None });
        Self { root, router, service }
    }

    async fn json(&self, path: &str) -> Value {
        let request = Request::get(path).header(header::ACCEPT, "application/json").body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }

    /// The page once it shows what is wanted.
    async fn until(&self, path: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let begun = SystemClock.now();
        loop {
            let page = self.json(path).await;
            if done(&page) {
                return page;
            }
            assert!(SystemClock.now() - begun < PROMISED, "not within {PROMISED:?}: {what}; {page:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn endpoint(&self) -> String {
        let page = self.until("/memberlist", "it knows itself", |page| page["SortedMembers"].is_array()).await;
        let member = &page["SortedMembers"][0];
        format!("{}:{}", member["Addr"].as_str().unwrap(), member["Port"])
    }

    async fn stop(self) {
        self.service.abort();
        assert!(self.root.drain(PROMISED).await);
    }
}

/// `live-store-0` … of one cluster, and the address to join it.
async fn cluster(size: u64, label: &str, key: &str) -> (Vec<LiveStore>, String) {
    let (mut members, mut join) = (Vec::new(), Vec::new());
    for seed in 0..size {
        let id = format!("live-store-{seed}");
        members.push(LiveStore::start(Wanted { id: &id, seed, label, key, join: join.clone() }).await);
        if join.is_empty() {
            join.push(members[0].endpoint().await);
        }
    }
    let all = usize::try_from(size).unwrap();
    for member in &members {
        member.until("/live-store/ring", "everybody is there and healthy", |page| healthy(page).len() == all).await;
    }
    (members, join.remove(0))
}

/// All at once: each says farewell for a while.
async fn stop(members: Vec<LiveStore>) {
    futures::future::join_all(members.into_iter().map(LiveStore::stop)).await;
}

fn shards(page: &Value) -> &[Value] {
    page["shards"].as_array().map_or(&[], Vec::as_slice)
}

fn code(shard: &Value) -> &str {
    shard["finding"]["code"].as_str().unwrap_or_default()
}

fn healthy(page: &Value) -> Vec<&str> {
    shards(page).iter().filter(|shard| code(shard) == "healthy").filter_map(|shard| shard["id"].as_str()).collect()
}

fn found<'a>(page: &'a Value, list: &str, wanted: &str) -> Option<&'a Value> {
    page[list].as_array()?.iter().find(|finding| finding["code"] == wanted)
}

fn run(body: impl Future<Output = ()>) {
    actix::System::new().block_on(body);
}

#[test]
fn members_show_one_ring_and_agree_on_it() {
    run(async {
        let (members, _) = cluster(3, "", "").await;
        let active = |page: &Value| {
            let rows = page["partitions"].as_array().map_or(&[][..], Vec::as_slice);
            rows.len() == 3 && rows.iter().all(|row| row["state"] == 2 && row["finding"]["code"] == "healthy")
        };
        for member in &members {
            member.until("/partition-ring", "three active partitions", active).await;
            let agreed = |page: &Value| page["state_hash"].is_string() && page["differences"] == serde_json::json!([]);
            member.until("/live-store/ring", "nobody sees it otherwise", agreed).await;
        }
        stop(members).await;
    });
}

#[test]
fn a_second_process_with_an_instance_id_is_named_with_both_addresses() {
    run(async {
        let (mut members, join) = cluster(3, "", "").await;
        let second = Wanted { id: "live-store-1", seed: 77, label: "", key: "", join: vec![join] };
        members.push(LiveStore::start(second).await);
        let twice = |page: &Value| shards(page).iter().any(|shard| code(shard) == "duplicate_id");
        for member in &members {
            let page = member.until("/live-store/ring", "one id twice", twice).await;
            let shard = shards(&page).iter().find(|shard| code(shard) == "duplicate_id").unwrap();
            assert_eq!(shard["id"], "live-store-1");
            assert_eq!(shard["finding"]["forget"]["safe"], false);
            let evidence = shard["finding"]["evidence"].to_string();
            assert_eq!(evidence.matches("pod-live-store-1-").count(), 2, "{evidence}");
            assert_eq!(healthy(&page), ["live-store-0", "live-store-2"], "the others are well");
        }
        // The newer one leaves: the older one has the id again.
        members.pop().unwrap().stop().await;
        members[0].until("/live-store/ring", "all is well again", |page| healthy(page).len() == 3).await;
        stop(members).await;
    });
}

#[test]
fn a_dead_service_port_is_named_while_gossip_lives() {
    run(async {
        let (members, _) = cluster(3, "", "").await;
        members[2].service.abort();
        let dead = |page: &Value| shards(page).iter().any(|shard| code(shard) == "service_dead");
        let page = members[0].until("/live-store/ring", "the port is dead", dead).await;
        assert_eq!(healthy(&page), ["live-store-0", "live-store-1"]);
        let finding = &shards(&page)[2]["finding"];
        assert_eq!(finding["forget"]["safe"], false);
        assert!(finding["evidence"][0].as_str().unwrap().ends_with("refuses connections."), "{finding}");
        assert!(finding["effect"].as_str().unwrap().starts_with("Nobody else owns partition 2"), "{finding}");
        // Its owner is up, and yet nobody answers for its partition.
        let code = |page: &Value, id: usize| page["partitions"][id]["finding"]["code"].clone();
        let unanswered = |page: &Value| code(page, 2) == "partition_unanswered";
        let page = members[0].until("/partition-ring", "nobody answers for a partition", unanswered).await;
        assert_eq!((code(&page, 0), code(&page, 1)), ("healthy".into(), "healthy".into()));
        let evidence = page["partitions"][2]["finding"]["evidence"][0].as_str().unwrap().to_owned();
        assert!(evidence.starts_with("live-store-2 is alive, but the port"), "{evidence}");
        stop(members).await;
    });
}

#[test]
fn strangers_and_wrong_names_are_named_on_the_page_of_members() {
    run(async {
        let (members, join) = cluster(2, "prod", KEY).await;
        let wanted = |id: &'static str, seed, label: &'static str, key: &'static str, join: &str| {
            LiveStore::start(Wanted { id, seed, label, key, join: vec![join.to_owned()] })
        };
        let foreign = wanted("live-store-7", 70, "test", KEY, &join).await;
        let lost = wanted("live-store-8", 80, "prod", "", "no-such-name").await;
        let keyless = wanted("live-store-9", 90, "prod", "", &join).await;
        let labelled = |page: &Value| found(page, "Findings", "foreign_label").is_some();
        let page = members[0].until("/memberlist", "a foreign label", labelled).await;
        let finding = found(&page, "Findings", "foreign_label").unwrap();
        assert!(finding["action"].as_str().unwrap().contains("prod"), "{finding}");
        let unresolved = |page: &Value| found(page, "Findings", "seed_unresolved").is_some();
        let page = lost.until("/memberlist", "a name that does not resolve", unresolved).await;
        assert_eq!(found(&page, "Findings", "seed_unresolved").unwrap()["subject"], "no-such-name");
        // It comes from the address that the foreign one comes from, which is named first.
        let counted = |page: &Value| page["RefusedFrames"]["plain"].as_u64().is_some_and(|count| count > 0);
        members[0].until("/memberlist", "frames without encryption", counted).await;
        stop(vec![foreign, lost, keyless]).await;
        assert_eq!(healthy(&members[0].json("/live-store/ring").await).len(), 2, "nothing is said of the others");
        stop(members).await;
    });
}

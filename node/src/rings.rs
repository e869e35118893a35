//! The rings of a process and their pages.
//!
//! With `-target=all` the rings of live-stores and partitions are in memory, as in Tempo. Separate processes share theirs by
//! gossip, and every process that reads a ring has its page. A ring of distributors is there only under the global rate
//! strategy, and lives where it is configured.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use vivace_gossip::Board;
use vivace_gossip::actor;
use vivace_gossip::pages::{self, Downscale, LiveStoreDownscale, Setup};
use vivace_gossip::partition::downscale::Marker;
use vivace_gossip::ring::{CommandError, Generations, Operation};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Clock, Compute, Disk, Failure, Placement, Rng, State, Supervisor};

use crate::config::{Config, Target};
use crate::limits::Overrides;

mod farewell;
mod hosts;
mod live_stores;
mod partitions;
mod plan;

pub(crate) use live_stores::RingLiveStores;
pub(crate) use partitions::RingPartitions;
pub(crate) use plan::{gossips, unshared};

use farewell::Farewell;
use plan::{Part, Plan};

/// The paths of the pages, by name.
pub(crate) const PAGES: [(&str, &str); 5] = [
    ("backend-worker-ring", "/backend-worker/ring"),
    ("distributor-ring", "/distributor/ring"),
    ("live-store-ring", "/live-store/ring"),
    ("metrics-generator-ring", "/metrics-generator/ring"),
    ("partition-ring", "/partition-ring"),
];

/// What the rings of a process are hosted with.
pub(crate) struct Wiring<'a> {
    pub(crate) root: &'a Supervisor,
    pub(crate) target: Target,
    pub(crate) config: &'a Config,
    /// Where the process really listens for gRPC.
    pub(crate) grpc_port: u16,
    pub(crate) overrides: &'a Arc<Overrides>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where the shutdown marker is.
    pub(crate) disk: Arc<dyn Disk>,
    /// Writes it.
    pub(crate) compute: Compute,
    pub(crate) registry: &'a Registry,
    pub(crate) placement: Placement,
}

/// The rings of a process, for its roles.
pub(crate) struct Rings {
    /// Their pages, and with a live-store the two endpoints that prepare its end.
    pub(crate) pages: Router,
    /// What the host of the rings of live-stores and partitions publishes; empty where they are not used.
    pub(crate) board: Board,
    /// The partition of this process's live-store, and its id in the ring.
    pub(crate) own: Option<(u32, String)>,
    downscale: Option<LiveStoreDownscale>,
}

impl Rings {
    /// What a process does at the beginning of its stop, while it still answers.
    pub(crate) fn stopping(&self) -> Option<BoxFuture<'static, ()>> {
        let downscale = self.downscale.clone()?;
        Some(async move { downscale.stopping().await }.boxed())
    }

    /// Adds what follows the end of the live-store, in the row below it.
    pub(crate) fn add_farewell(&self, root: &Supervisor) {
        if let Some(downscale) = &self.downscale {
            Farewell::add(root, downscale.clone());
        }
    }
}

/// Adds the hosts of the rings and returns their pages.
///
/// # Errors
/// The configuration of a ring or of gossip cannot be used.
pub(crate) fn add(wiring: Wiring<'_>) -> Result<Rings, Failure> {
    let Wiring { root, target, config, grpc_port, overrides, clock, disk, compute, registry, placement } = wiring;
    let mut rng = Rng::from_system();
    let host_name = host_name();
    let plan = Plan::new(config, target, &host_name, grpc_port)?;
    let folder = Path::new(&config.live_store.shutdown_marker_dir);
    // Whoever has a live-store has a folder for what it must not forget; other processes have no disk.
    let keeps = plan.live_store.part == Part::Joins && plan::gossips(config, target);
    let generations = keeps.then(|| Generations::open(Arc::clone(&disk), folder, compute.clone()));
    let marker = Marker::open(disk, folder, config.live_store.remove_owner_on_shutdown)
        .map_err(|error| Failure::new(format!("live_store.shutdown_marker_dir: {error}")))?;
    let marker = Arc::new(Mutex::new(marker));
    let memory = hosts::add_memory(root, &plan, rng.next(), &marker, placement.clone())?;
    let gossip = hosts::add_gossip(root, config, &plan, &marker, &host_name, generations, placement)?;
    let shared = gossip.as_ref().map(|gossip| gossip.board.clone());
    let first = memory.clone().or_else(|| shared.clone()).unwrap_or_else(nobody);
    // With both, the pages find each ring where it is.
    let second = if memory.is_some() { shared.clone() } else { None };
    let boards: Vec<Board> = memory.iter().chain(&shared).cloned().collect();
    if plan.distributor.part == Part::Joins {
        count_distributors(overrides, &plan.distributor.settings.ring, boards.clone());
    }
    vivace_gossip::export_rings(boards, registry);
    if let Some(gossip) = &gossip {
        actor::export_membership(gossip.board.clone(), registry);
    }
    // Of a live-store: the board of the ring that it is in.
    let downscale = plan.own.map(|own| {
        let state = root.state();
        LiveStoreDownscale {
            board: first.clone(),
            own,
            marker,
            compute,
            clock: Arc::clone(&clock),
            runs: Arc::new(move || *state.borrow() == State::Running),
        }
    });
    let board = first.clone();
    let pages = pages::router(Setup {
        board: first,
        gossip: second,
        layout: plan.layout,
        clock,
        rng,
        downscale: downscale.clone().map(|downscale| Arc::new(downscale) as Arc<dyn Downscale>),
    });
    let settings = plan.live_store.settings;
    let own = plan.own.map(|own| (own, settings.instance_id));
    Ok(Rings { pages, board, own, downscale })
}

/// The board of a process without rings.
fn nobody() -> Board {
    let refuse = |_| std::future::ready(Err(CommandError::Unavailable("this process has no rings".to_owned()))).boxed();
    Board::new(Arc::new(refuse), None)
}

/// The divisor of the global rate limit: how many distributors the ring shows at that moment.
fn count_distributors(overrides: &Overrides, ring: &str, boards: Vec<Board>) {
    let ring = ring.to_owned();
    overrides.count_distributors(move || {
        let views = boards.iter().filter_map(|board| board.rings().rings.get(&ring).cloned());
        let count: usize = views.map(|view| view.count(Operation::Write)).sum();
        u64::try_from(count).unwrap_or(u64::MAX)
    });
}

/// The host's name, as the kernel has it.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use serde_json::Value;
    use tower::ServiceExt as _;
    use vivace_runtime::{StdDisk, SystemClock};

    use super::*;

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

    async fn rings_page(router: &Router, path: &str) -> String {
        let request = http::Request::get(path).header("accept", "application/json").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    async fn json(router: &Router, path: &str) -> Value {
        serde_json::from_str(&rings_page(router, path).await).unwrap()
    }

    fn rings_of(target: Target, root: &Supervisor, config: &Config, overrides: &Arc<Overrides>) -> Router {
        let rings = add(Wiring {
            root,
            target,
            config,
            grpc_port: 9095,
            overrides,
            clock: Arc::new(SystemClock),
            disk: Arc::new(StdDisk),
            compute: Compute::inline(),
            registry: &Registry::new(),
            placement: Placement::Here,
        })
        .unwrap();
        rings.add_farewell(root);
        rings.pages
    }

    fn rings(root: &Supervisor, config: &Config, overrides: &Arc<Overrides>) -> Router {
        rings_of(Target::All, root, config, overrides)
    }

    fn overrides(config: &Config) -> Arc<Overrides> {
        Arc::new(Overrides::new(config.overrides.defaults.clone(), Vec::new()))
    }

    #[actix_rt::test]
    async fn one_process_shows_its_live_store_and_its_partition() {
        let config = Config::default();
        let root = Supervisor::root("test", Arc::new(SystemClock), Placement::Here);
        let router = rings(&root, &config, &overrides(&config));
        root.start();
        tokio::time::timeout(PATIENCE, root.running()).await.unwrap().unwrap();
        let ring = json(&router, "/live-store/ring").await;
        assert_eq!(ring["shards"][0]["id"], host_name());
        assert_eq!(ring["shards"][0]["address"], "127.0.0.1:9095");
        let partitions = json(&router, "/partition-ring").await;
        assert_eq!(partitions["partitions"][0]["owner_ids"][0], host_name());
        assert_eq!(json(&router, "/distributor/ring").await["shards"], Value::Null);
        for path in ["/backend-worker/ring", "/metrics-generator/ring"] {
            assert!(json(&router, path).await["note"].is_string(), "{path}");
        }
        assert!(root.drain(PATIENCE).await);
    }

    #[actix_rt::test]
    async fn a_live_store_is_told_to_go_and_back_and_a_clean_stop_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.live_store.shutdown_marker_dir = dir.path().join("marker").display().to_string();
        config.live_store.partition_ring.min_partition_owners_duration = vivace_runtime::config::GoDuration::ZERO;
        let root = Supervisor::root("test", Arc::new(SystemClock), Placement::Here);
        let overrides = overrides(&config);
        let router = rings(&root, &config, &overrides);
        let send = async |method: &str, path: &str| {
            let request = http::Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let (partition, instance) = ("/live-store/prepare-partition-downscale", "/live-store/prepare-downscale");
        assert_eq!(send("GET", instance).await.0, 503, "it does not run yet");
        root.start();
        tokio::time::timeout(PATIENCE, root.running()).await.unwrap().unwrap();
        assert_eq!(send("GET", instance).await, (200, "unset\n".to_owned()));
        assert_eq!(send("POST", instance).await.0, 409, "the partition is active");
        let (status, body) = send("POST", partition).await;
        assert!(status == 200 && body.contains("\"state\":\"PartitionInactive\""), "{status} {body}");
        assert_eq!(send("POST", instance).await.0, 204);
        assert_eq!(send("GET", instance).await, (200, "set\n".to_owned()));
        assert!(dir.path().join("marker/shutdown-requested.txt").exists());
        assert_eq!(send("DELETE", partition).await.1, r#"{"timestamp":0,"state":"PartitionActive"}"#);
        assert!(root.drain(PATIENCE).await);
        assert!(!dir.path().join("marker/shutdown-requested.txt").exists(), "what it announced has happened");
    }

    #[actix_rt::test]
    async fn under_the_global_strategy_distributors_count_each_other() {
        use vivace_distributor::TenantLimits as _;
        let mut config = Config::default();
        config.overrides.defaults.ingestion.rate_strategy = "global".into();
        config.distributor.ring.kvstore.store = "inmemory".into();
        let overrides = overrides(&config);
        let root = Supervisor::root("test", Arc::new(SystemClock), Placement::Here);
        let router = rings(&root, &config, &overrides);
        assert_eq!(overrides.distributors(), 0, "nobody is there yet: the whole rate");
        root.start();
        tokio::time::timeout(PATIENCE, root.running()).await.unwrap().unwrap();
        assert_eq!(overrides.distributors(), 1);
        assert_eq!(json(&router, "/distributor/ring").await["shards"][0]["tokens"].as_array().unwrap().len(), 1);
        assert!(root.drain(PATIENCE).await);
    }

    /// Gossip on this host, with a port of the system's choice.
    fn gossiping() -> Config {
        let mut config = Config::default();
        config.memberlist.bind_addr.0 = vec!["127.0.0.1".into()];
        config.memberlist.bind_port = 0;
        config.live_store.ring.instance_id = "live-store-2".into();
        config.live_store.ring.instance_addr = "127.0.0.1".into();
        config.live_store.ring.instance_port = 12345;
        config
    }

    #[actix_rt::test]
    async fn a_live_store_of_its_own_shows_its_proxys_port_and_its_partition_by_gossip() {
        let (dir, mut config) = (tempfile::tempdir().unwrap(), gossiping());
        config.live_store.shutdown_marker_dir = dir.path().join("marker").display().to_string();
        let root = Supervisor::root("test", Arc::new(SystemClock), Placement::Here);
        let router = rings_of(Target::LiveStore, &root, &config, &overrides(&config));
        root.start();
        tokio::time::timeout(PATIENCE, root.running()).await.unwrap().unwrap();
        tokio::time::timeout(PATIENCE, async {
            while json(&router, "/partition-ring").await["partitions"][0]["owner_ids"][0] != "live-store-2" {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(json(&router, "/partition-ring").await["partitions"][0]["id"], 2);
        let ring = json(&router, "/live-store/ring").await;
        assert_eq!(
            (&ring["shards"][0]["id"], &ring["shards"][0]["address"]),
            (&"live-store-2".into(), &"127.0.0.1:12345".into())
        );
        assert_eq!(ring["shards"][0]["generation"], 1);
        let kept = std::fs::read_dir(dir.path().join("marker")).unwrap().flatten();
        let kept: Vec<_> = kept.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect();
        assert_eq!(kept, [r#"{"record":"collectors/live-store/live-store-2","generation":1}"#]);
        assert!(root.drain(PATIENCE).await);
    }

    #[actix_rt::test]
    async fn a_reader_of_the_rings_shows_their_pages_and_is_in_none_and_a_query_frontend_has_none() {
        let config = gossiping();
        let root = Supervisor::root("test", Arc::new(SystemClock), Placement::Here);
        let querier = rings_of(Target::Querier, &root, &config, &overrides(&config));
        root.start();
        tokio::time::timeout(PATIENCE, root.running()).await.unwrap().unwrap();
        let gossips = async {
            while rings_page(&querier, "/memberlist").await.starts_with("This instance doesn't") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gossips).await.unwrap();
        for path in ["/live-store/ring", "/partition-ring"] {
            let page = json(&querier, path).await;
            assert_eq!((&page["note"], &page["shards"]), (&Value::Null, &Value::Null), "{path}: {page}");
        }
        assert!(json(&querier, "/memberlist").await["SortedMembers"][0].is_object());
        let post = http::Request::post("/live-store/prepare-downscale").body(Body::empty()).unwrap();
        assert_eq!(querier.clone().oneshot(post).await.unwrap().status(), 404, "it has no live-store");
        assert!(root.drain(PATIENCE).await);
        let root = Supervisor::root("test", Arc::new(SystemClock), Placement::Here);
        let frontend = rings_of(Target::QueryFrontend, &root, &config, &overrides(&config));
        assert!(json(&frontend, "/live-store/ring").await["note"].is_string());
        assert!(json(&frontend, "/partition-ring").await["note"].is_string());
        assert!(root.services().is_empty(), "nothing hosts rings that are not used");
    }
}

//! The rings of one process with every component, and their pages.
//!
//! As in Tempo, `-target=all` keeps the rings of live-stores and partitions in memory, and has a ring of distributors only
//! under the global rate strategy; that one lives where it is configured, by default in gossip.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use parking_lot::Mutex;
use vivace_gossip::actor::{self, Gossip};
use vivace_gossip::discovery::SystemDns;
use vivace_gossip::families::host_candidates;
use vivace_gossip::pages::{self, Downscale, Layout, LiveStoreDownscale, RingKind, RingPage, Setup};
use vivace_gossip::partition::downscale::Marker;
use vivace_gossip::partition::{PartitionLifecycle, PartitionTimings};
use vivace_gossip::ring::{Host, Keeper, Operation, RingSettings, Store, choose_addresses};
use vivace_gossip::{Board, Farewell, Identity, MemoryRings};
use vivace_runtime::config::KvStoreConfig;
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Clock, Compute, Failure, Placement, Rng, State, StdDisk, Supervisor};

use crate::config::Config;
use crate::limits::Overrides;

/// The partition of a process that has all components, whatever its name.
const PARTITION: u32 = 0;
const PARTITION_RING: &str = "livestore-partitions";
const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// What the rings of a process are made from.
#[derive(Debug, Clone)]
struct Plan {
    live_store: RingSettings,
    distributor: RingSettings,
    partition_ring: String,
    timings: PartitionTimings,
    /// Whether distributors share a rate limit and so need to know each other.
    global: bool,
    layout: Layout,
}

/// What the rings of a process are hosted with.
pub(crate) struct Wiring<'a> {
    pub(crate) root: &'a Supervisor,
    pub(crate) config: &'a Config,
    /// Where the process really listens for gRPC.
    pub(crate) grpc_port: u16,
    pub(crate) overrides: &'a Arc<Overrides>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Writes the shutdown marker.
    pub(crate) compute: Compute,
    pub(crate) registry: &'a Registry,
    pub(crate) placement: Placement,
}

/// Adds the hosts of the rings and returns their pages.
///
/// # Errors
/// The configuration of a ring or of gossip cannot be used.
pub(crate) fn add(wiring: Wiring<'_>) -> Result<Router, Failure> {
    let Wiring { root, config, grpc_port, overrides, clock, compute, registry, placement } = wiring;
    let mut rng = Rng::from_system();
    let plan = plan(config, &host_name(), grpc_port)?;
    let process = rng.next();
    let marker = Path::new(&config.live_store.shutdown_marker_dir);
    let marker = Marker::open(Arc::new(StdDisk), marker, config.live_store.remove_owner_on_shutdown)
        .map_err(|error| Failure::new(format!("live_store.shutdown_marker_dir: {error}")))?;
    let keepers = memory_keeper(&plan, process, &marker)?;
    let (marker, state, at) = (Arc::new(Mutex::new(marker)), root.state(), Arc::clone(&clock));
    let downscale = move |board: &Board| LiveStoreDownscale {
        board: board.clone(),
        own: PARTITION,
        marker: Arc::clone(&marker),
        compute: compute.clone(),
        clock: Arc::clone(&at),
        runs: Arc::new({
            let state = state.clone();
            move || *state.borrow() == State::Running
        }),
    };
    let board = MemoryRings::add(root, process, keepers, placement.clone(), |board| Some(farewell(downscale(board))));
    let downscale: Arc<dyn Downscale> = Arc::new(downscale(&board));
    let gossip = if plan.global && plan.distributor.store == Store::Gossip {
        Some(add_gossip(root, config, &plan, placement)?)
    } else {
        None
    };
    if plan.global {
        count_distributors(overrides, &plan.distributor.ring, gossip.as_ref().map_or(&board, |gossip| &gossip.board));
    }
    let boards = std::iter::once(&board).chain(gossip.as_ref().map(|gossip| &gossip.board));
    vivace_gossip::export_rings(boards.cloned().collect(), registry);
    if let Some(gossip) = &gossip {
        actor::export_membership(gossip.board.clone(), registry);
    }
    Ok(pages::router(Setup {
        board,
        gossip: gossip.map(|gossip| gossip.board),
        layout: plan.layout,
        clock,
        rng,
        downscale: Some(downscale),
    }))
}

/// At the end of a clean stop the marker is removed: what it announced has happened.
fn farewell(downscale: LiveStoreDownscale) -> Farewell {
    Farewell(Arc::new(move || {
        let downscale = downscale.clone();
        Box::pin(async move {
            if let Err(error) = downscale.stopped().await {
                tracing::warn!(%error, "the shutdown marker was not removed; the next start does not make its partition");
            }
        })
    }))
}

/// The divisor of the global rate limit: how many distributors the ring shows at that moment.
fn count_distributors(overrides: &Overrides, ring: &str, board: &Board) {
    let (board, ring) = (board.clone(), ring.to_owned());
    overrides.count_distributors(move || {
        let count = board.rings().rings.get(&ring).map_or(0, |view| view.count(Operation::Write));
        u64::try_from(count).unwrap_or(u64::MAX)
    });
}

fn plan(config: &Config, host_name: &str, grpc_port: u16) -> Result<Plan, Failure> {
    let host = Host { name: host_name, grpc_port };
    // Whatever the configuration says, these are in memory here.
    let memory = |kvstore: &KvStoreConfig| KvStoreConfig { store: "inmemory".to_owned(), ..kvstore.clone() };
    let mut live_store = config.live_store.ring.clone();
    live_store.kvstore = memory(&live_store.kvstore);
    live_store.instance_addr.clear();
    let live_store = RingSettings::live_store(&live_store, host)?.in_memory();
    let global = config.overrides.defaults.ingestion.rate_strategy == "global";
    let mut distributor = config.distributor.ring.clone();
    if !global {
        distributor.kvstore = memory(&distributor.kvstore);
        distributor.instance_addr.clear();
    }
    let distributor = RingSettings::distributor(&distributor, &config.distributor.override_ring_key, host)?;
    let partitions = &config.live_store.partition_ring;
    let partition_ring = format!("{}{PARTITION_RING}", partitions.kvstore.prefix);
    let timings = PartitionTimings {
        owners: usize::try_from(partitions.min_partition_owners_count).unwrap_or(usize::MAX),
        owned_for: partitions.min_partition_owners_duration.into(),
        delete_after: partitions.delete_inactive_partition_after.into(),
    };
    let layout = layout(config, &live_store, &distributor, &partition_ring, global);
    Ok(Plan { live_store, distributor, partition_ring, timings, global, layout })
}

fn layout(
    config: &Config,
    live_store: &RingSettings,
    distributor: &RingSettings,
    partition_ring: &str,
    global: bool,
) -> Layout {
    let page = |kind, ring: &str, used, why: &str| RingPage { kind, ring: ring.to_owned(), used, why: why.to_owned() };
    let key = |kvstore: &KvStoreConfig, key: &str| format!("{}{key}", kvstore.prefix);
    let worker = key(&config.backend_worker.ring.kvstore, &config.backend_worker.override_ring_key);
    let generator = key(&config.metrics_generator.ring.kvstore, &config.metrics_generator.override_ring_key);
    let here = "This process has all components and keeps the ring in its memory.";
    let shared = "Distributors share the global rate limit (overrides: ingestion.rate_strategy: global).";
    let local = "There is a ring of distributors only with ingestion.rate_strategy: global; here it is local.";
    let alone = "A process with all components divides its work with no other.";
    let no_generators = "Metrics-generators divide their work by the log's consumer group; no ring is written.";
    Layout {
        rings: vec![
            page(RingKind::LiveStore, &live_store.ring, true, here),
            page(RingKind::Distributor, &distributor.ring, global, if global { shared } else { local }),
            page(RingKind::BackendWorker, &worker, false, alone),
            page(RingKind::MetricsGenerator, &generator, false, no_generators),
        ],
        partition_ring: partition_ring.to_owned(),
        partitions_used: true,
        partitions_why: here.to_owned(),
    }
}

/// Makes the keeper of the rings in memory, at each start of their host.
fn memory_keeper(plan: &Plan, process: u64, marker: &Marker) -> Result<impl FnMut() -> Keeper + Send + use<>, Failure> {
    let (plan, goes, removes) = (plan.clone(), marker.is_set(), marker.removes_owner());
    let build = move || -> Result<Keeper, Failure> {
        let identity = Identity { process, name: plan.live_store.instance_id.clone(), software: SOFTWARE.to_owned() };
        let mut keeper = Keeper::new(&identity.name);
        let addresses = choose_addresses(&plan.live_store, &[])?;
        keeper.join(&plan.live_store, &identity, addresses, Some(PARTITION))?;
        keeper.set_removes_owner(removes);
        let mut lifecycle = PartitionLifecycle::new(&plan.partition_ring, &plan.live_store, PARTITION, plan.timings)?;
        lifecycle.set_create_on_start(!goes);
        keeper.partitions(&plan.partition_ring, &plan.live_store.ring, Some(lifecycle));
        if plan.global && plan.distributor.store == Store::Memory {
            let distributor = plan.distributor.clone().in_memory();
            let addresses = choose_addresses(&distributor, &[])?;
            keeper.join(&distributor, &identity, addresses, None)?;
        }
        Ok(keeper)
    };
    // Built once here, so that what is wrong fails the start; the same is built again later.
    build()?;
    Ok(move || build().expect("it was built from the same plan before"))
}

fn add_gossip(root: &Supervisor, config: &Config, plan: &Plan, placement: Placement) -> Result<Gossip, Failure> {
    let distributor = plan.distributor.clone();
    let rings: actor::BuildRings = Arc::new(move |identity| {
        let addresses = choose_addresses(&distributor, &host_candidates()?)?;
        let mut keeper = Keeper::new(&identity.name);
        keeper.join(&distributor, identity, addresses, None)?;
        Ok(keeper)
    });
    let options = actor::Options {
        config: config.memberlist.clone(),
        host_name: host_name(),
        software: SOFTWARE.to_owned(),
        rings,
        dns: Arc::new(SystemDns),
        rng: Arc::new(Rng::from_system),
    };
    Ok(actor::add(root, options, placement)?)
}

/// The host's name, as the kernel has it.
fn host_name() -> String {
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
    use vivace_runtime::SystemClock;

    use super::*;

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

    async fn json(router: &Router, path: &str) -> Value {
        let request = http::Request::get(path).header("accept", "application/json").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }

    fn rings(root: &Supervisor, config: &Config, overrides: &Arc<Overrides>) -> Router {
        add(Wiring {
            root,
            config,
            grpc_port: 9095,
            overrides,
            clock: Arc::new(SystemClock),
            compute: Compute::inline(),
            registry: &Registry::new(),
            placement: Placement::Here,
        })
        .unwrap()
    }

    fn overrides(config: &Config) -> Arc<Overrides> {
        Arc::new(Overrides::new(config.overrides.defaults.clone(), Vec::new()))
    }

    #[test]
    fn foreign_stores_are_refused_where_they_would_be_used() {
        let mut config = Config::default();
        config.live_store.ring.kvstore.store = "consul".into();
        config.distributor.ring.kvstore.store = "etcd".into();
        assert!(plan(&config, "h", 9095).is_ok(), "in memory, whatever is written");
        config.overrides.defaults.ingestion.rate_strategy = "global".into();
        let error = plan(&config, "h", 9095).unwrap_err().to_string();
        assert!(
            error.contains("distributor.ring.kvstore.store is \"etcd\"") && error.contains("memberlist"),
            "{error}"
        );
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
}

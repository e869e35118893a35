//! One process with every component, its log and its blocks on local disk (`-target=all`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tonic_health::ServingStatus;
use vivace_distributor as distributor;
use vivace_live_store as live_store;
use vivace_log::{Budget, LocalEnv, LocalLog, LocalOptions, Log, Offset, Partition, Progress};
use vivace_querier as querier;
use vivace_query_frontend as query_frontend;
use vivace_runtime::metrics::Registry;
use vivace_runtime::telemetry::{LogHandle, export_actors, export_process};
use vivace_runtime::tls::Tls;
use vivace_runtime::{
    Bounds, Clock, Compute, Disk, EndpointRouter, Failure, Listen, Network, Process, Rng, Server, ServerLimits, StdDisk,
};
use vivace_storage::{Backend, BlockMeta, LocalBlock, OpenBlock, ReadError};

use crate::config::Config;
use crate::limits::Overrides;
use crate::pages::Pages;

/// Bytes of requests on their way into the log, over all connections. Beyond, requests are refused retryably.
const IN_FLIGHT_BYTES: usize = 48 << 20;
/// A refused client is asked to come back after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The monolith has one partition.
const PARTITION: Partition = Partition(0);

/// Opens blocks of a local bucket.
struct LocalBlocks(Arc<Path>);

impl querier::OpenBlocks for LocalBlocks {
    fn open(&self, meta: &BlockMeta) -> Result<OpenBlock, ReadError> {
        let folder = self.0.join(&meta.tenant_id).join(meta.block_id.to_string());
        OpenBlock::open(meta.clone(), Arc::new(LocalBlock::open(folder)?))
    }
}

fn listen(key: &str, network: &str, host: &str, port: u16) -> Result<Listen, Failure> {
    let network = match network {
        "" | "tcp" => Network::Tcp,
        "tcp4" => Network::Tcp4,
        "tcp6" => Network::Tcp6,
        other => return Err(Failure::new(format!("{key}: network {other:?} is none of tcp, tcp4, tcp6"))),
    };
    Ok(Listen { key: key.to_owned(), network, host: host.to_owned(), port })
}

/// What runs until the process ends.
pub(crate) struct Running {
    servers: Vec<tokio::task::JoinHandle<bool>>,
    stop_queries: tokio_util::sync::CancellationToken,
}

impl Running {
    /// Ends what is not a part: the servers of queries and pages. The receivers are parts of the distributor.
    pub(crate) async fn close_doors(self) {
        self.stop_queries.cancel();
        for server in self.servers {
            // A server task ends by its own grace period; a panic in it has been logged.
            server.await.ok();
        }
    }
}

/// Builds everything below the root of the process. Nothing is started yet.
pub(crate) async fn wire(
    process: &Process,
    config: Config,
    clock: Arc<dyn Clock>,
    log_level: LogHandle,
    faults: Option<live_store::ApplyHook>,
) -> Result<Running, Failure> {
    let registry = Registry::new();
    export_process(&registry);
    export_actors(&registry, &process.root);

    // Doors first: a port conflict fails the start before anything else happens.
    let server = &config.server;
    let http = listen(
        "server.http_listen_port",
        &server.http_listen_network,
        &server.http_listen_address,
        server.http_listen_port,
    )?
    .bind_tokio()?;
    let grpc = listen(
        "server.grpc_listen_port",
        &server.grpc_listen_network,
        &server.grpc_listen_address,
        server.grpc_listen_port,
    )?
    .bind_tokio()?;

    let http_tls = Tls::of_server(server, "http_tls_config", &server.http_tls_config)?;
    let grpc_tls = Tls::of_server(server, "grpc_tls_config", &server.grpc_tls_config)?;

    let trace = &config.storage.trace;
    if trace.backend != "local" {
        let backend = &trace.backend;
        return Err(Failure::new(format!(
            "storage.trace.backend: unknown backend {backend:?}; this version has: local"
        )));
    }
    if trace.local.path.is_empty() {
        return Err(Failure::new("storage.trace.local.path is empty: say where blocks are kept"));
    }
    let root: Arc<Path> = Path::new(&trace.local.path).into();
    let backend = Backend::local(&root)?;
    let wal = Path::new(&config.live_store.wal.path).to_path_buf();
    let disk: Arc<dyn Disk> = Arc::new(StdDisk);
    disk.create_dir_all(&wal)
        .map_err(|error| Failure::new(format!("live_store.wal.path: create {}: {error}", wal.display())))?;

    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let background = Compute::new("viv-background", 1, Bounds::messages(1024))?;
    // Merging blocks takes long: flushes must not wait behind it.
    let merging = Compute::new("viv-merge", 1, Bounds::messages(16))?;
    let queries = Compute::new("viv-query", cores, Bounds::messages(4096))?;

    let budget = Budget::new(IN_FLIGHT_BYTES, RETRY_AFTER);
    let env = LocalEnv {
        disk: Arc::clone(&disk),
        clock: Arc::clone(&clock),
        compute: queries.clone(),
        budget,
        metrics: vivace_log::Metrics::register(&registry),
    };
    let options = LocalOptions::in_dir(wal.join("log"));
    let log: Arc<dyn Log> = Arc::new(LocalLog::open(&options, env, &mut Rng::from_system())?);

    let overrides = Arc::new(Overrides::new(
        config.overrides.defaults.clone(),
        config.storage.trace.block.parquet_dedicated_columns.clone(),
    ));
    overrides.export(&registry);
    crate::tenants::follow(&config, &overrides, process, &registry)?;

    let (plan, news) = querier::Plan::new(querier::Setup {
        config: config.querier.clone(),
        poll_period: trace.blocklist_poll.into(),
        backend: backend.clone(),
        opener: Arc::new(LocalBlocks(Arc::clone(&root))),
        compute: queries.clone(),
        metrics: registry.clone(),
    });

    // Rows of the root in the order of the data flow: each is drained before the next.
    let ingest = process.arbiter(0);
    let query = process.arbiter(1);
    let components = process.root.clone();
    let progress = Progress::new(Offset(0));
    // The third arbiter is gossip's own, where it is used; else there are two, and the rings are a guest of the first.
    let ring_pages = crate::rings::add(crate::rings::Wiring {
        root: &components,
        config: &config,
        grpc_port: grpc.local_addr()?.port(),
        overrides: &overrides,
        clock: Arc::clone(&clock),
        compute: queries.clone(),
        registry: &registry,
        placement: process.arbiter(2),
    })?;
    // The receivers say themselves where they listen, once they do.
    distributor::Distributor::wire(
        distributor::Wiring {
            config: config.distributor.clone(),
            multitenancy: config.multitenancy(),
            limits: Arc::clone(&overrides) as Arc<dyn distributor::TenantLimits>,
            log: Arc::clone(&log),
            partition: PARTITION,
            progress: Some(progress.clone()),
            clock: Arc::clone(&clock),
            rng: Rng::from_system(),
            compute: queries.clone(),
            servers: tokio::runtime::Handle::current(),
            metrics: registry.clone(),
            placement: ingest.clone(),
        },
        &components,
    )?;
    let live = live_store::LiveStore::add(
        &components,
        live_store::Setup {
            config: config.live_store.clone(),
            row_group_bytes: trace.block.parquet_row_group_size_bytes,
            bloom: trace.block.bloom(),
            log: Arc::clone(&log),
            partition: PARTITION,
            progress,
            dir: wal.clone(),
            disk,
            backend: backend.clone(),
            limits: Arc::clone(&overrides) as Arc<dyn live_store::Limits>,
            publish: news.published.clone(),
            background,
            queries: queries.clone(),
            metrics: registry.clone(),
            hook: faults,
        },
        ingest,
    );
    vivace_backend_worker::add(
        &components,
        vivace_backend_worker::Setup {
            config: config.backend_worker.clone(),
            backend,
            root,
            row_group_bytes: trace.block.parquet_row_group_size_bytes,
            bloom: trace.block.bloom(),
            limits: Arc::clone(&overrides) as Arc<dyn vivace_backend_worker::Limits>,
            replaced: news.replaced.clone(),
            compute: merging,
            metrics: registry.clone(),
        },
        query.clone(),
    );
    let recent = querier::Recent {
        find: live.find.clone(),
        search: live.search.clone(),
        tag_names: live.tag_names.clone(),
        tag_values: live.tag_values.clone(),
        metrics: live.metrics.clone(),
    };
    let querier = plan.add(&components, recent, query.clone());
    let api = query_frontend::add(
        &components,
        query_frontend::Setup {
            config: config.query_frontend.clone(),
            multitenancy: config.multitenancy(),
            prefix: config.http_api_prefix.clone(),
            max_running: usize::try_from(config.querier.max_concurrent_queries).unwrap_or(usize::MAX),
            limits: Arc::clone(&overrides) as Arc<dyn query_frontend::Limits>,
            queriers: query_frontend::Queriers {
                find: querier.find.clone(),
                search: querier.search.clone(),
                tag_names: querier.tag_names.clone(),
                tag_values: querier.tag_values.clone(),
                metrics: querier.metrics.clone(),
                blocks: querier.blocks.clone(),
            },
            clock: Arc::clone(&clock),
        },
        query,
    )?;
    let pages = Pages {
        root: process.root.clone(),
        registry,
        config: config.clone(),
        stopping: process.stopping.clone(),
        overrides,
        clock,
        log: log_level,
        endpoints: endpoints(&config.http_api_prefix),
    };
    let mut router = pages.router(&config.http_api_prefix).merge(api.http);
    let known = crate::listeners::known(&config, http.local_addr()?, grpc.local_addr()?);
    router = router.merge(crate::listeners::router(known, queries)).merge(ring_pages);
    let internal = EndpointRouter::new().unary(live.find).streaming(live.search).into_router();
    let internal = internal.merge(api.grpc).merge(health(process).await);
    if config.stream_over_http_enabled {
        router = query_frontend::grpc_over_http(router, internal.clone());
    }
    let stop_queries = tokio_util::sync::CancellationToken::new();
    let (http_limits, grpc_limits) = (ServerLimits::of_http(server), ServerLimits::of_grpc(server));
    let grace: Duration = server.graceful_shutdown_timeout.into();
    let grace = grace.min(Duration::from_secs(4));
    let mut servers = Vec::new();
    let listeners = [("http", http, http_tls, http_limits, router), ("grpc", grpc, grpc_tls, grpc_limits, internal)];
    for (name, listener, tls, limits, router) in listeners {
        tracing::info!(listener = name, addr = %listener.local_addr()?, tls = tls.is_some(), "listening");
        let (server, stop) = (Server::new(limits).tls(tls), stop_queries.clone());
        servers.push(tokio::spawn(async move { server.serve(listener, router, stop, grace).await }));
    }
    Ok(Running { servers, stop_queries })
}

/// `grpc.health.v1`: SERVING once everything runs, NOT_SERVING from the first signal to stop.
async fn health(process: &Process) -> Router {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let (mut state, stopping) = (process.root.state(), process.stopping.clone());
    tokio::spawn(async move {
        loop {
            let running = *state.borrow_and_update() == vivace_runtime::State::Running && !stopping.is_cancelled();
            let status = if running { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = stopping.cancelled() => {
                    reporter.set_service_status("", ServingStatus::NotServing).await;
                    return;
                }
            }
        }
    });
    tonic::service::Routes::new(service).into_axum_router()
}

fn endpoints(prefix: &str) -> Vec<(&'static str, String)> {
    let api = |path: &str| format!("{}{path}", prefix.trim_end_matches('/'));
    vec![
        ("actors", "/status/actors".to_owned()),
        ("backend-worker-ring", "/backend-worker/ring".to_owned()),
        ("build-info", api("/api/status/buildinfo")),
        ("config", "/status/config".to_owned()),
        ("distributor-ring", "/distributor/ring".to_owned()),
        ("echo", api("/api/echo")),
        ("listeners", "/status/listeners".to_owned()),
        ("live-store-ring", "/live-store/ring".to_owned()),
        ("log-level", "/status/log_level".to_owned()),
        ("memberlist", "/memberlist".to_owned()),
        ("metrics", "/metrics".to_owned()),
        ("metrics-generator-ring", "/metrics-generator/ring".to_owned()),
        ("overrides", "/status/overrides".to_owned()),
        ("overrides-tenant", "/status/overrides/{tenant}".to_owned()),
        ("partition-ring", "/partition-ring".to_owned()),
        ("ready", "/ready".to_owned()),
        ("runtime-config", "/status/runtime_config".to_owned()),
        ("search", api("/api/search")),
        ("search-tag-values", api("/api/search/tag/{tagName}/values")),
        ("search-tag-values-v2", api("/api/v2/search/tag/{tagName}/values")),
        ("search-tags", api("/api/search/tags")),
        ("search-tags-v2", api("/api/v2/search/tags")),
        ("services", "/status/services".to_owned()),
        ("status", "/status".to_owned()),
        ("trace", api("/api/traces/{traceID}")),
        ("trace-diff", api("/api/v2/traces/diff")),
        ("trace-v2", api("/api/v2/traces/{traceID}")),
        ("usage-stats", api("/status/usage-stats")),
    ]
}

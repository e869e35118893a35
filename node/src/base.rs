//! What every process has whatever its roles: listeners, metrics, limits, pools, rings, pages, health. Roles add their parts
//! to the root and say here what they serve; then the listeners open.

use std::sync::Arc;

use axum::Router;
use vivace_live_store::ApplyHook;
use vivace_runtime::metrics::Registry;
use vivace_runtime::telemetry::{LogHandle, export_actors, export_process};
use vivace_runtime::{Clock, Disk, Failure, Placement, Process, StdDisk, Supervisor};
use vivace_storage::StoreEnvironment;

use crate::config::{Config, Target};
use crate::doors::{Doors, HangUp, Running};
use crate::limits::Overrides;
use crate::pages::{Pages, ReadyRule};
use crate::pools::Pools;
use crate::rings::{self, Rings};

/// Arbiters for the parts of roles; gossip has one more, so that no query or flush keeps it from answering.
const ARBITERS_OF_ALL: usize = 2;
const ARBITERS_OF_A_ROLE: usize = 1;

/// The arbiters that a process needs.
pub(crate) fn arbiters(config: &Config, target: Target) -> usize {
    of_roles(target) + usize::from(rings::gossips(config, target))
}

fn of_roles(target: Target) -> usize {
    if target == Target::All { ARBITERS_OF_ALL } else { ARBITERS_OF_A_ROLE }
}

/// A process in the making.
pub(crate) struct Base<'a> {
    process: &'a Process,
    pub(crate) target: Target,
    pub(crate) config: Box<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) registry: Registry,
    pub(crate) overrides: Arc<Overrides>,
    pub(crate) pools: Pools,
    pub(crate) rings: Rings,
    /// Failures on demand, for tests.
    pub(crate) faults: Option<ApplyHook>,
    /// Where stores find credentials that the configuration does not have.
    pub(crate) store_environment: StoreEnvironment,
    doors: Doors,
    log_level: LogHandle,
    http: Router,
    grpc: Router,
    rules: Vec<ReadyRule>,
    hang_up: Vec<HangUp>,
    endpoints: Vec<(&'static str, String)>,
}

/// What a process is made from.
pub(crate) struct Setup {
    pub(crate) target: Target,
    pub(crate) config: Box<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log_level: LogHandle,
    pub(crate) faults: Option<ApplyHook>,
    pub(crate) store_environment: StoreEnvironment,
}

impl<'a> Base<'a> {
    /// Binds the listeners, reads the limits, adds the host of the rings below the root. Nothing is started.
    ///
    /// # Errors
    /// What of the configuration cannot be used; names the key.
    pub(crate) fn new(process: &'a Process, setup: Setup) -> Result<Self, Failure> {
        let Setup { target, config, clock, log_level, faults, store_environment } = setup;
        let registry = Registry::new();
        export_process(&registry);
        export_actors(&registry, &process.root);
        let doors = Doors::bind(&config.server)?;
        let overrides = Arc::new(Overrides::new(
            config.overrides.defaults.clone(),
            config.storage.trace.block.parquet_dedicated_columns.clone(),
        ));
        overrides.export(&registry);
        crate::tenants::follow(&config, &overrides, process, &registry)?;
        let (pools, disk) = (Pools::default(), Arc::new(StdDisk) as Arc<dyn Disk>);
        let rings = rings::add(rings::Wiring {
            root: &process.root,
            target,
            config: &config,
            grpc_port: doors.grpc_addr().port(),
            overrides: &overrides,
            clock: Arc::clone(&clock),
            disk: Arc::clone(&disk),
            compute: pools.queries()?,
            registry: &registry,
            // The one after those of the roles is gossip's own, where it is used; else the rings are a guest of the first.
            placement: process.arbiter(of_roles(target)),
        })?;
        Ok(Self {
            process,
            target,
            config,
            clock,
            disk,
            registry,
            overrides,
            pools,
            rings,
            faults,
            store_environment,
            doors,
            log_level,
            http: Router::new(),
            grpc: Router::new(),
            rules: Vec::new(),
            hang_up: Vec::new(),
            endpoints: Vec::new(),
        })
    }

    /// The supervisor that roles add their components to, in the order of the data flow: each is drained before the next.
    pub(crate) fn root(&self) -> Supervisor {
        self.process.root.clone()
    }

    /// Where parts that write run.
    pub(crate) fn ingest(&self) -> Placement {
        self.process.arbiter(0)
    }

    /// Where parts that read run: not behind those that write, where one process has both.
    pub(crate) fn query(&self) -> Placement {
        self.process.arbiter(of_roles(self.target) - 1)
    }

    /// Serves more on the HTTP port.
    pub(crate) fn serve_http(&mut self, routes: Router) {
        self.http = std::mem::take(&mut self.http).merge(routes);
    }

    /// Serves more on the gRPC port. `routes` have no fallback.
    pub(crate) fn serve_grpc(&mut self, routes: Router) {
        self.grpc = std::mem::take(&mut self.grpc).merge(routes);
    }

    /// The process is not ready while the rule gives a reason, even if all its parts run.
    pub(crate) fn ready_when(&mut self, rule: ReadyRule) {
        self.rules.push(rule);
    }

    /// When the process stops and HTTP is over, ends calls to it that would otherwise never end.
    pub(crate) fn hang_up_with(&mut self, hang_up: HangUp) {
        self.hang_up.push(hang_up);
    }

    /// Lists a path at `/status/endpoints`.
    pub(crate) fn lists(&mut self, name: &'static str, path: impl Into<String>) {
        self.endpoints.push((name, path.into()));
    }

    /// Lists a path below `http_api_prefix`.
    pub(crate) fn lists_api(&mut self, name: &'static str, path: &str) {
        let path = format!("{}{path}", self.config.http_api_prefix.trim_end_matches('/'));
        self.lists(name, path);
    }

    /// Opens the listeners.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) async fn open(mut self) -> Result<Running, Failure> {
        self.list_pages();
        let stopping = self.rings.stopping();
        let known = crate::listeners::known(&self.config, self.target, self.doors.http_addr(), self.doors.grpc_addr());
        let grpc = self.grpc.merge(crate::health::health(self.process).await);
        let pages = Pages {
            root: self.process.root.clone(),
            registry: self.registry,
            stopping: self.process.stopping.clone(),
            overrides: self.overrides,
            clock: self.clock,
            log: self.log_level,
            rules: self.rules,
            endpoints: self.endpoints,
            config: self.config.clone(),
        };
        let mut http = pages.router(&self.config.http_api_prefix).merge(self.http);
        http = http.merge(crate::listeners::router(known, self.pools.queries()?)).merge(self.rings.pages);
        if self.config.stream_over_http_enabled {
            http = vivace_query_frontend::grpc_over_http(http, grpc.clone());
        }
        Ok(self.doors.open(http, grpc, self.hang_up, stopping))
    }

    fn list_pages(&mut self) {
        for (name, path) in [
            ("actors", "/status/actors"),
            ("config", "/status/config"),
            ("listeners", "/status/listeners"),
            ("log-level", "/status/log_level"),
            ("memberlist", "/memberlist"),
            ("metrics", "/metrics"),
            ("overrides", "/status/overrides"),
            ("overrides-tenant", "/status/overrides/{tenant}"),
            ("ready", "/ready"),
            ("runtime-config", "/status/runtime_config"),
            ("services", "/status/services"),
            ("status", "/status"),
        ] {
            self.lists(name, path);
        }
        for (name, path) in rings::PAGES {
            self.lists(name, path);
        }
        self.lists_api("build-info", "/api/status/buildinfo");
        self.lists_api("usage-stats", "/status/usage-stats");
    }
}

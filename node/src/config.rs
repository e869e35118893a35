//! Configuration of a process: what all components together read, from where, and how it is checked.
#![doc = ""]
#![doc = include_str!("config/README.md")]

mod check;
mod effects;
mod environment;
mod expand;
mod flag_table;
mod flags;
mod legacy;
mod load;
mod problem;
mod reference;
mod render;
mod report;
mod target;
mod tenants;
#[cfg(test)]
mod tests;
mod warnings;
mod yaml;

use vivace_gossip::ring::{Host, RingConfigError, RingSettings};
use vivace_runtime::config::{Any, BackoffConfig, GoDuration, InternalServerConfig, OverridesConfig, ServerConfig};
use vivace_runtime::tls::TlsSettings;

pub use effects::{Effect, effect_of};
pub use environment::Environment;
pub use expand::{Error as ExpandError, expand};
pub use flags::{Action, CommandLine, Error as FlagError, help, parse as parse_flags};
pub use load::{Error as LoadError, Loaded, Source, load};
pub use problem::Problem;
pub use reference::{compatibility, reference};
pub use render::{Mode, UnknownMode, render, render_entries, render_limits};
pub(crate) use report::chain;
pub use report::report;
pub use target::{Error as TargetError, Target};
pub use tenants::{Error as TenantsError, TenantLimits};
pub use warnings::Warning;
pub use yaml::Position;

vivace_runtime::config_struct! {
    /// Everything that a configuration file can hold.
    pub struct Config {
        /// Component to run: `all`, `distributor`, `live-store`, `block-builder`, `querier`, `query-frontend`,
        /// `metrics-generator`, `backend-scheduler`, `backend-worker`.
        pub target: String = "all".into(),
        /// Deprecated synonym of `multitenancy_enabled`; either one enables.
        pub auth_enabled: bool = false,
        /// Require a tenant in `X-Scope-OrgID` with every request. Off: everything belongs to `single-tenant`.
        pub multitenancy_enabled: bool = false,
        /// Wait between the signal to stop and stopping; `/ready` answers 503 meanwhile, so that load balancers notice.
        pub shutdown_delay: GoDuration = GoDuration::ZERO,
        /// Serve gRPC on the HTTP port too. Grafana's streaming of searches needs it.
        pub stream_over_http_enabled: bool = false,
        /// Prefix of the paths of the API; must start with `/`.
        pub http_api_prefix: String = String::new(),
        /// Metrics of Go's runtime. There is none.
        pub enable_go_runtime_metrics: bool = false,
        /// Labels of profiles on own spans.
        pub span_profiling: bool = false,
        /// Memory of the process.
        pub memory: MemoryConfig = MemoryConfig::default(),
        /// The HTTP and gRPC server.
        pub server: ServerConfig = ServerConfig::default(),
        /// A second server with health and metrics only.
        pub internal_server: InternalServerConfig = InternalServerConfig::default(),
        /// The distributor.
        pub distributor: vivace_distributor::config::Config = vivace_distributor::config::Config::default(),
        /// Connections to live-stores.
        pub live_store_client: vivace_querier::config::LiveStoreClientConfig =
            vivace_querier::config::LiveStoreClientConfig::default(),
        /// Ignored, for compatibility.
        pub metrics_generator_client: Any = Any::default(),
        /// The querier.
        pub querier: vivace_querier::config::Config = vivace_querier::config::Config::default(),
        /// The query-frontend.
        pub query_frontend: vivace_query_frontend::config::Config = vivace_query_frontend::config::Config::default(),
        /// The metrics-generator.
        pub metrics_generator: vivace_metrics_generator::config::Config =
            vivace_metrics_generator::config::Config::default(),
        /// The log between components.
        pub ingest: vivace_log::config::IngestConfig = vivace_log::config::IngestConfig::default(),
        /// The block-builder.
        pub block_builder: vivace_block_builder::config::Config = vivace_block_builder::config::Config::default(),
        /// Where blocks are kept.
        pub storage: vivace_storage::config::StorageConfig = vivace_storage::config::StorageConfig::default(),
        /// Limits of tenants.
        pub overrides: OverridesConfig = OverridesConfig::default(),
        /// Gossip.
        pub memberlist: vivace_gossip::config::Config = vivace_gossip::config::Config::default(),
        /// Reports of usage to the makers of Tempo. None are sent.
        pub usage_report: UsageReportConfig = UsageReportConfig::default(),
        /// Caches.
        pub cache: vivace_storage::config::CacheConfig = vivace_storage::config::CacheConfig::default(),
        /// The backend-scheduler.
        pub backend_scheduler: vivace_backend_scheduler::config::Config =
            vivace_backend_scheduler::config::Config::default(),
        /// Connection to the backend-scheduler.
        pub backend_scheduler_client: vivace_backend_worker::config::SchedulerClientConfig =
            vivace_backend_worker::config::SchedulerClientConfig::default(),
        /// The backend-worker.
        pub backend_worker: vivace_backend_worker::config::Config = vivace_backend_worker::config::Config::default(),
        /// The live-store.
        pub live_store: vivace_live_store::config::Config = vivace_live_store::config::Config::default(),
    }
}

vivace_runtime::config_struct! {
    /// Memory of the process.
    pub struct MemoryConfig {
        /// Derive a limit of the runtime's memory from the container's.
        pub automemlimit_enabled: bool = false,
        /// Its share of the container's limit.
        pub automemlimit_ratio: f64 = 0.8,
    }
}

vivace_runtime::config_struct! {
    /// Reports of usage.
    pub struct UsageReportConfig {
        /// Send reports. Vivace sends none whatever this says.
        pub reporting_enabled: bool = true,
        /// Waits between attempts.
        pub backoff: BackoffConfig = BackoffConfig::of(GoDuration::millis(100), GoDuration::secs(10), 0),
    }
}

/// A rule that the values break.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// No such level.
    #[error("invalid log level: server.log_level is `{0}`, allowed are debug, info, warn, error")]
    LogLevel(String),
    /// No such form.
    #[error("server.log_format is `{0}`, allowed are logfmt, json")]
    LogFormat(String),
    /// TLS of a listener; the key is in the text.
    #[error(transparent)]
    Tls(#[from] vivace_runtime::tls::TlsError),
    /// A prefix that is no path.
    #[error("http_api_prefix is `{0}`, it must start with `/`")]
    ApiPrefix(String),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] vivace_storage::config::ConfigError),
    /// The live-store.
    #[error(transparent)]
    LiveStore(#[from] vivace_live_store::config::ConfigError),
    /// A ring.
    #[error(transparent)]
    Ring(#[from] vivace_gossip::ring::RingConfigError),
    /// A ring that separate processes share is not shared.
    #[error(
        "{section}.kvstore.store is {store:?}: nobody else would see this ring; with -target={target} it must be memberlist"
    )]
    UnsharedRing {
        /// The section.
        section: &'static str,
        /// The value.
        store: String,
        /// The target.
        target: Target,
    },
    /// Gossip.
    #[error(transparent)]
    Gossip(#[from] vivace_gossip::actor::BadSetting),
    /// The query-frontend.
    #[error(transparent)]
    QueryFrontend(#[from] vivace_query_frontend::config::ConfigError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] vivace_log::config::Error),
    /// The querier does not know whom to ask.
    #[error("frontend worker address not specified: querier.frontend_worker.frontend_address is required")]
    NoFrontend,
    /// The backend-worker does not know whom to ask.
    #[error("backend scheduler address is required: set backend_worker.backend_scheduler_addr")]
    NoScheduler,
    /// The block-builder has no partitions.
    #[error("at least one of block_builder.assigned_partitions or partitions_per_instance must be set")]
    NoPartitions,
}

impl Config {
    /// Requests must name their tenant.
    pub fn multitenancy(&self) -> bool {
        self.multitenancy_enabled || self.auth_enabled
    }

    /// Checks the values that every process needs: how it logs and what it serves.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate_process(&self) -> Result<(), Invalid> {
        if !matches!(self.server.log_level.as_str(), "debug" | "info" | "warn" | "error") {
            return Err(Invalid::LogLevel(self.server.log_level.clone()));
        }
        if !matches!(self.server.log_format.as_str(), "logfmt" | "json") {
            return Err(Invalid::LogFormat(self.server.log_format.clone()));
        }
        if !self.http_api_prefix.is_empty() && !self.http_api_prefix.starts_with('/') {
            return Err(Invalid::ApiPrefix(self.http_api_prefix.clone()));
        }
        Ok(())
    }

    /// The settings of the rings that a target takes part in or reads, as far as they are not in memory whatever the
    /// configuration says.
    fn rings_of(&self, target: Target) -> Vec<Result<RingSettings, RingConfigError>> {
        // The name and the port of the host are not checked here.
        let host = Host { name: "host-0", grpc_port: self.server.grpc_listen_port };
        let mut rings = Vec::new();
        let distributes = matches!(target, Target::All | Target::Distributor);
        if distributes && self.overrides.defaults.ingestion.rate_strategy == "global" {
            rings.push(RingSettings::distributor(&self.distributor.ring, &self.distributor.override_ring_key, host));
        }
        if matches!(
            target,
            Target::Distributor | Target::LiveStore | Target::Querier | Target::BlockBuilder | Target::MetricsGenerator
        ) {
            let live_store = RingSettings::live_store(&self.live_store.ring, host);
            let nameless = live_store.as_ref().ok().and_then(|ring| ring.partition().err());
            rings.push(live_store);
            rings.extend(nameless.filter(|_| target == Target::LiveStore).map(Err));
        }
        if target == Target::BackendWorker {
            let worker = &self.backend_worker;
            rings.push(RingSettings::backend_worker(&worker.ring, &worker.override_ring_key, host));
        }
        rings
    }

    /// Checks what the components of a target check when they start, all of it.
    pub fn validate(&self, target: Target) -> Vec<Invalid> {
        let mut broken = Vec::new();
        let mut check = |result: Result<(), Invalid>| broken.extend(result.err());
        check(self.validate_process());
        let server = &self.server;
        for (section, tls) in
            [("http_tls_config", &server.http_tls_config), ("grpc_tls_config", &server.grpc_tls_config)]
        {
            check(TlsSettings::of_server(server, section, tls).map(drop).map_err(Invalid::from));
        }
        check(self.storage.trace.validate().map_err(Invalid::from));
        let all = target == Target::All;
        if all || target == Target::LiveStore {
            check(self.live_store.validate().map_err(Invalid::from));
        }
        if all || target == Target::QueryFrontend {
            check(self.query_frontend.validate().map_err(Invalid::from));
        }
        if matches!(target, Target::Distributor | Target::LiveStore | Target::BlockBuilder | Target::MetricsGenerator) {
            check(self.ingest.kafka.validate().map_err(Invalid::from));
        }
        for ring in self.rings_of(target) {
            check(ring.map(drop).map_err(Invalid::from));
        }
        for invalid in crate::rings::unshared(self, target) {
            check(Err(invalid));
        }
        if crate::rings::gossips(self, target) {
            check(vivace_gossip::actor::check(&self.memberlist).map_err(Invalid::from));
        }
        let required = |present: bool, invalid: Invalid| if present { Ok(()) } else { Err(invalid) };
        match target {
            Target::Querier => {
                check(required(!self.querier.frontend_worker.frontend_address.is_empty(), Invalid::NoFrontend));
            }
            Target::BackendWorker => {
                check(required(!self.backend_worker.backend_scheduler_addr.is_empty(), Invalid::NoScheduler));
            }
            Target::BlockBuilder => {
                let builder = &self.block_builder;
                let assigned = !builder.assigned_partitions.is_empty() || builder.partitions_per_instance > 0;
                check(required(assigned, Invalid::NoPartitions));
            }
            _ => {}
        }
        broken
    }
}

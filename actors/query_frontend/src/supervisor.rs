//! The query-frontend's table of children.
//!
//! | child | built from | on panic | limit | on stop |
//! |---|---|---|---|---|
//! | queue | nothing | rebuilt empty; what waited is refused retryably | 10 a minute | ends at once: listeners are closed before |
//!
//! The API itself has no actor: a request is a task of the server that lives as long as its client waits for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use regex::Regex;
use tonic::server::NamedService;
use vivace_runtime::{Bounds, Child, Clock, Failure, Links, Placement, Restart, Supervisor};

use crate::api::Api;
use crate::config::Config;
use crate::limits::Limits;
use crate::planner::{BlockLists, Planner, Queriers, RecentData};
use crate::queue::{Queue, Running};

/// What a query-frontend is made of.
pub struct Setup {
    /// Keys below `query_frontend`.
    pub config: Config,
    /// Whether requests must name their tenant.
    pub multitenancy: bool,
    /// Put before every path of the API.
    pub prefix: String,
    /// Jobs that run at once in this process. Over links, as many run as there are links.
    pub max_running: usize,
    /// What `queriers` go over, where they are other processes.
    pub links: Option<Links>,
    /// How recent data and blocks share what there is.
    pub recent: RecentData,
    /// Limits by tenant.
    pub limits: Arc<dyn Limits>,
    /// Who runs the jobs.
    pub queriers: Queriers,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
}

/// What is to be served: the API over HTTP, and the streaming one over gRPC.
pub struct Served {
    /// For the HTTP port.
    pub http: Router,
    /// For the gRPC port. It has no fallback, so that it can be merged with other services.
    pub grpc: Router,
}

/// Adds the query-frontend below `parent`, and gives the routes of its API.
///
/// # Errors
/// A pattern of `url_deny_list` is none.
pub fn add(parent: &Supervisor, setup: Setup, placement: Placement) -> Result<Served, Failure> {
    let denied = setup.config.url_deny_list.iter().map(|pattern| {
        Regex::new(pattern).map_err(|error| Failure::new(format!("query_frontend.url_deny_list: {pattern:?}: {error}")))
    });
    let denied = denied.collect::<Result<_, _>>()?;
    let component =
        parent.component("query-frontend", Restart::default().at_most(2, Duration::from_secs(300)), placement);
    let queue = Child::<Queue>::new("queue", Bounds::messages(65_536))
        .restart(Restart::default().at_most(10, Duration::from_secs(60)));
    let enter = queue.mailbox();
    let outstanding = usize::try_from(setup.config.max_outstanding_per_tenant).unwrap_or(usize::MAX);
    let running = match &setup.links {
        Some(links) => Running::Links(links.watch()),
        None => Running::Most(setup.max_running),
    };
    component.add(queue, move |_| Ok(Queue::new(outstanding, running.clone())));
    let planner = Planner {
        config: setup.config,
        multitenancy: setup.multitenancy,
        limits: setup.limits,
        queriers: setup.queriers,
        queue: enter,
        clock: setup.clock,
        block_lists: BlockLists::default(),
        recent: setup.recent,
    };
    let api = Api { planner: Arc::new(planner), denied };
    let streaming = api.clone().streaming();
    let grpc = Router::new().route_service(&format!("/{}/{{*method}}", name(&streaming)), streaming);
    Ok(Served { http: api.router(&setup.prefix), grpc })
}

fn name<S: NamedService>(_service: &S) -> &'static str {
    S::NAME
}

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
use vivace_runtime::{Bounds, Child, Clock, Placement, Restart, Supervisor};

use crate::api::Api;
use crate::config::Config;
use crate::limits::Limits;
use crate::planner::{Planner, Queriers};
use crate::queue::Queue;

/// What a query-frontend is made of.
pub struct Setup {
    /// Keys below `query_frontend`.
    pub config: Config,
    /// Whether requests must name their tenant.
    pub multitenancy: bool,
    /// Put before every path of the API.
    pub prefix: String,
    /// Jobs that run at once in this process.
    pub max_running: usize,
    /// Limits by tenant.
    pub limits: Arc<dyn Limits>,
    /// Who runs the jobs.
    pub queriers: Queriers,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
}

/// Adds the query-frontend below `parent`, and gives the routes of its API.
pub fn add(parent: &Supervisor, setup: Setup, placement: Placement) -> Router {
    let component =
        parent.component("query-frontend", Restart::default().at_most(2, Duration::from_secs(300)), placement);
    let queue = Child::<Queue>::new("queue", Bounds::messages(65_536))
        .restart(Restart::default().at_most(10, Duration::from_secs(60)));
    let enter = queue.mailbox();
    let outstanding = usize::try_from(setup.config.max_outstanding_per_tenant).unwrap_or(usize::MAX);
    let running = setup.max_running;
    component.add(queue, move |_| Ok(Queue::new(outstanding, running)));
    let planner = Planner {
        config: setup.config,
        multitenancy: setup.multitenancy,
        limits: setup.limits,
        queriers: setup.queriers,
        queue: enter,
        clock: setup.clock,
    };
    Api(Arc::new(planner)).router(&setup.prefix)
}

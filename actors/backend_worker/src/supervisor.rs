//! The backend-worker's table of children.
//!
//! | child | built from | on panic | limit | on stop |
//! |---|---|---|---|---|
//! | keeper | handles | rebuilt; begins its cycle anew | never given up: blocks are readable without it | ends between two steps |

use std::sync::Arc;
use std::time::Duration;

use vivace_protocol::vivace::{BlocksReplaced, BlocksReplacedReply};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Bounds, Child, Compute, Endpoint, Placement, Restart, Supervisor};
use vivace_storage::{Backend, BlockOpener};

use crate::config::Config;
use crate::keeper::Keeper;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// What a backend-worker is made of.
pub struct Setup {
    /// Keys below `backend_worker`.
    pub config: Config,
    /// Where blocks are.
    pub backend: Backend,
    /// How blocks to merge are opened.
    pub opener: BlockOpener,
    /// Rows of a block are grouped up to this estimate.
    pub row_group_bytes: u64,
    /// Size and sharpness of the blocks' bloom filters.
    pub bloom: vivace_storage::BloomSpec,
    /// Limits by tenant.
    pub limits: Arc<dyn Limits>,
    /// Who is told of merged and removed blocks.
    pub replaced: Endpoint<BlocksReplaced, BlocksReplacedReply>,
    /// Merging.
    pub compute: Compute,
    /// Where measurements go.
    pub metrics: Registry,
}

/// Adds the backend-worker below `parent`; it starts with it.
pub fn add(parent: &Supervisor, setup: Setup, placement: Placement) {
    let component =
        parent.component("backend-worker", Restart::default().at_most(2, Duration::from_secs(300)), placement);
    let metrics = Metrics::register(&setup.metrics);
    let keeper = Child::<Keeper>::new("keeper", Bounds::messages(1))
        .restart(Restart::forever().backoff(Duration::from_secs(1), Duration::from_secs(60)))
        .waits_for("querier/blocklist");
    let parts = crate::keeper::Parts {
        config: setup.config,
        backend: setup.backend,
        opener: setup.opener,
        row_group_bytes: setup.row_group_bytes,
        bloom: setup.bloom,
        limits: setup.limits,
        replaced: setup.replaced,
        compute: setup.compute,
        metrics,
        apart: crate::keeper::Apart::default(),
    };
    component.add(keeper, move |_| Ok(Keeper::new(parts.clone())));
}

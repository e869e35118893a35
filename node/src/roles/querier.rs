//! The querier: runs the jobs of queries, on blocks and on recent data.

use std::sync::Arc;

use vivace_live_store::LiveStore;
use vivace_querier::{self as querier, Frontends, News, Plan, Querier, Recent, RingSettings, Setup};
use vivace_runtime::{Failure, Restart, Rng};

use crate::base::Base;
use crate::bucket::Bucket;
use crate::rings::{RingLiveStores, host_name};

/// A querier to be, and where it takes news of blocks: others need that before it is there.
///
/// # Errors
/// The system gives no thread.
pub(super) fn plan(base: &Base<'_>, bucket: &Bucket) -> Result<(Plan, News), Failure> {
    Ok(Plan::new(Setup {
        config: base.config.querier.clone(),
        poll_period: base.config.storage.trace.blocklist_poll.into(),
        backend: bucket.backend.clone(),
        opener: bucket.opener(),
        compute: base.pools.queries()?,
        metrics: base.registry.clone(),
    }))
}

/// Adds it, with the live-store of this process.
pub(super) fn add(base: &Base<'_>, plan: Plan, live: LiveStore) -> Querier {
    let recent = querier::LiveStore {
        find: live.find,
        search: live.search,
        tag_names: live.tag_names,
        tag_values: live.tag_values,
        metrics: live.metrics,
    };
    plan.add(&base.root(), recent, base.query())
}

/// A querier of its own process: it finds live-stores by the ring, and opens links to the query-frontends for its jobs.
///
/// # Errors
/// What of the configuration cannot be used; names the key.
pub(super) async fn add_alone(base: &mut Base<'_>) -> Result<(), Failure> {
    let bucket = Bucket::open(&base.config, &base.store_environment).await?;
    // Blocks are found by polling: nobody tells of them.
    let (plan, _news) = plan(base, &bucket)?;
    let mut rng = Rng::from_system();
    let config = &base.config;
    let settled_after = config.query_frontend.search.query_backend_after.into();
    let settings = RingSettings::of(&config.querier, &config.live_store_client, settled_after)?;
    let stores = Arc::new(RingLiveStores::new(base.rings.board.clone(), Arc::clone(&base.clock)));
    let recent = Recent::ring(stores, settings, Arc::clone(&base.clock), rng.fork(), &base.registry);
    // The row above the querier: when that drains, no job comes any more.
    let links = base.root().component("links", Restart::default(), base.query());
    let querier = plan.add(&base.root(), recent, base.query());
    let routes = querier.router();
    Frontends::add(&links, &config.querier, &routes, &host_name(), Arc::clone(&base.clock), &mut rng, base.query())?;
    base.serve_grpc(routes.into_router());
    Ok(())
}

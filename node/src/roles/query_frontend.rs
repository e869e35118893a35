//! The query-frontend: the public API for queries.

use std::sync::Arc;

use vivace_querier::Querier;
use vivace_query_frontend::{Limits, Queriers, RecentData, Setup};
use vivace_runtime::{Failure, Links};

use crate::base::Base;

/// What `/ready` says while no querier has opened a link, in Tempo's words.
const NOBODY: &str = "Query Frontend not ready: not ready: number of queriers connected to query-frontend is 0";

/// The paths of the API, by name.
const PATHS: [(&str, &str); 9] = [
    ("echo", "/api/echo"),
    ("search", "/api/search"),
    ("search-tag-values", "/api/search/tag/{tagName}/values"),
    ("search-tag-values-v2", "/api/v2/search/tag/{tagName}/values"),
    ("search-tags", "/api/search/tags"),
    ("search-tags-v2", "/api/v2/search/tags"),
    ("trace", "/api/traces/{traceID}"),
    ("trace-diff", "/api/v2/traces/diff"),
    ("trace-v2", "/api/v2/traces/{traceID}"),
];

/// Adds it, with the querier of this process.
///
/// # Errors
/// Something in its section cannot be used; names the key.
pub(super) fn add(base: &mut Base<'_>, querier: Querier) -> Result<(), Failure> {
    let queriers = Queriers {
        find: querier.find,
        search: querier.search,
        tag_names: querier.tag_names,
        tag_values: querier.tag_values,
        metrics: querier.metrics,
        blocks: querier.blocks,
    };
    add_with(base, queriers, None, RecentData::HandedOver)
}

/// A query-frontend of its own process: queriers open links to it, over which it asks them.
///
/// # Errors
/// Something in its section cannot be used; names the key.
pub(super) fn add_alone(base: &mut Base<'_>) -> Result<(), Failure> {
    let links = Links::new("queriers");
    add_with(base, Queriers::linked(&links), Some(links.clone()), RecentData::Shared)?;
    base.serve_grpc(links.router());
    let connected = links.clone();
    base.ready_when(Box::new(move || (connected.connected() == 0).then(|| NOBODY.to_owned())));
    // Links would hold the gRPC listener open for as long as it waits for its connections.
    base.hang_up_with(Box::new(move || links.close()));
    Ok(())
}

fn add_with(base: &mut Base<'_>, queriers: Queriers, links: Option<Links>, recent: RecentData) -> Result<(), Failure> {
    let setup = Setup {
        config: base.config.query_frontend.clone(),
        multitenancy: base.config.multitenancy(),
        prefix: base.config.http_api_prefix.clone(),
        max_running: usize::try_from(base.config.querier.max_concurrent_queries).unwrap_or(usize::MAX),
        limits: Arc::clone(&base.overrides) as Arc<dyn Limits>,
        queriers,
        links,
        recent,
        clock: Arc::clone(&base.clock),
    };
    let served = vivace_query_frontend::add(&base.root(), setup, base.query())?;
    base.serve_http(served.http);
    base.serve_grpc(served.grpc);
    for (name, path) in PATHS {
        base.lists_api(name, path);
    }
    Ok(())
}

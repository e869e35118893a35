//! The public query API over HTTP: routes, and one file a family of endpoints.

mod search;
mod tags;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, StatusCode, Uri};
use vivace_protocol::TenantId;

use crate::params::{Params, TimeRules};
use crate::planner::Planner;
use crate::respond::{Form, Refusal};
use crate::tenant;

/// What every handler needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<Planner>);

/// A request, taken apart.
pub(crate) struct Request {
    headers: HeaderMap,
    params: Params,
    tenants: Vec<TenantId>,
    form: Form,
}

impl Api {
    pub(crate) fn router(self, prefix: &str) -> Router {
        let prefix = prefix.trim_end_matches('/');
        let mut router = Router::new();
        macro_rules! route {
            ($path:literal, $handler:path) => {{
                let api = self.clone();
                let handler = move |Path(part): Path<String>, uri: Uri, headers: HeaderMap| async move {
                    answer(&api, &uri, headers, |api, request| async move { $handler(&api, request, &part).await })
                        .await
                };
                router = router.route(&format!("{prefix}{}", $path), any(handler));
            }};
            ($path:literal => $handler:path) => {{
                let api = self.clone();
                let handler = move |uri: Uri, headers: HeaderMap| async move {
                    answer(&api, &uri, headers, |api, request| async move { $handler(&api, request).await }).await
                };
                router = router.route(&format!("{prefix}{}", $path), any(handler));
            }};
        }
        route!("/api/traces/{id}", trace::v1);
        route!("/api/v2/traces/{id}", trace::v2);
        route!("/api/search" => search::search);
        route!("/api/search/tags" => tags::names_v1);
        route!("/api/v2/search/tags" => tags::names_v2);
        route!("/api/search/tag/{*tag}", tags::values_v1);
        route!("/api/v2/search/tag/{*tag}", tags::values_v2);
        router.route(&format!("{prefix}/api/echo"), any(|| async { "echo\n" }))
    }

    fn time_rules(&self, tenant: &TenantId) -> TimeRules {
        let config = &self.0.config;
        let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        let own = self.0.limits.max_search_duration(tenant);
        let max = if own.is_zero() { config.search.max_duration.into() } else { own };
        TimeRules {
            now: seconds(self.0.clock.unix()),
            cutoff: seconds(config.query_end_cutoff.into()),
            default_window: seconds(config.search.query_backend_after.into()),
            max_window: seconds(max),
        }
    }
}

/// Takes the request apart, runs the handler within `api_timeout`, and turns what comes out into an answer.
async fn answer<F, R>(api: &Api, uri: &Uri, headers: HeaderMap, handler: F) -> Response
where
    F: FnOnce(Api, Request) -> R,
    R: Future<Output = Result<Response, Refusal>>,
{
    let planner = &api.0;
    let tenants = match tenant::tenants(&headers, planner.multitenancy, planner.config.multi_tenant_queries_enabled) {
        Ok(tenants) => tenants,
        Err(refusal) => return refusal.response(),
    };
    let form = Form::wanted(&headers);
    let request = Request { params: Params::parse(uri.query().unwrap_or("")), headers, tenants, form };
    let running = handler(api.clone(), request);
    let timeout: std::time::Duration = planner.config.api_timeout.into();
    let result = if timeout.is_zero() {
        running.await
    } else {
        tokio::select! {
            result = running => result,
            () = planner.clock.sleep(timeout) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unable to process request in the configured timeout",
            )),
        }
    };
    result.unwrap_or_else(Refusal::response)
}

//! The public query API: routes, and one file a family of endpoints. Over HTTP here, over gRPC in [`streaming`]; both read
//! their requests into the same plans.

mod diff;
mod legacy;
mod mcp;
mod metrics;
mod search;
mod streaming;
mod tag_filter;
mod tags;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, StatusCode, Uri};
use prost::Message;
use regex::Regex;
use vivace_protocol::TenantId;
use vivace_protocol::json::{self, ToJson};

use crate::coverage::Covered;
use crate::params::{Params, TimeRules};
use crate::planner::{Planner, Progress, complete};
use crate::respond::{Form, Manner, Refusal};
use crate::tenant;

/// What every handler needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) planner: Arc<Planner>,
    /// URLs that are refused, key `url_deny_list`.
    pub(crate) denied: Arc<[Regex]>,
}

/// A request, taken apart.
pub(crate) struct Request {
    params: Params,
    tenants: Vec<TenantId>,
    manner: Manner,
}

impl Api {
    pub(crate) fn router(self, prefix: &str) -> Router {
        let prefix = prefix.trim_end_matches('/');
        let mut router = Router::new();
        macro_rules! route {
            ($path:literal, $handler:path) => {{
                let api = self.clone();
                let handler = move |Path(part): Path<String>, uri: Uri, headers: HeaderMap| async move {
                    answer(&api, &uri, &headers, |api, request| async move { $handler(&api, request, &part).await })
                        .await
                };
                router = router.route(&format!("{prefix}{}", $path), any(handler));
            }};
            ($path:literal => $handler:path) => {{
                let api = self.clone();
                let handler = move |uri: Uri, headers: HeaderMap| async move {
                    answer(&api, &uri, &headers, |api, request| async move { $handler(&api, request).await }).await
                };
                router = router.route(&format!("{prefix}{}", $path), any(handler));
            }};
        }
        route!("/api/traces/{id}", trace::v1);
        route!("/api/v2/traces/{id}", trace::v2);
        route!("/api/metrics/query_range" => metrics::range);
        route!("/api/metrics/query" => metrics::instant);
        route!("/api/search" => search::search);
        route!("/api/search/tags" => tags::names_v1);
        route!("/api/v2/search/tags" => tags::names_v2);
        route!("/api/search/tag/{*tag}", tags::values_v1);
        route!("/api/v2/search/tag/{*tag}", tags::values_v2);
        if self.planner.config.mcp_server.enabled {
            router = router.merge(mcp::routes(self.clone(), &format!("{prefix}/api/mcp")));
        }
        router = router.merge(diff::routes(self.clone(), &format!("{prefix}/api/v2/traces/diff")));
        router.route(&format!("{prefix}/api/echo"), any(|| async { "echo\n" }))
    }

    fn time_rules(&self, tenants: &[TenantId]) -> TimeRules {
        let config = &self.planner.config;
        let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        // The narrowest of several tenants' ranges holds for all.
        let max = tenants.iter().map(|tenant| {
            let own = self.planner.limits.max_search_duration(tenant);
            if own.is_zero() { config.search.max_duration.into() } else { own }
        });
        let max = max.filter(|max| !max.is_zero()).min().unwrap_or_default();
        TimeRules {
            now: seconds(self.planner.clock.unix()),
            cutoff: seconds(config.query_end_cutoff.into()),
            default_window: seconds(config.search.query_backend_after.into()),
            max_window: seconds(max),
        }
    }

    /// Refuses what no query of any kind may have.
    fn check(&self, params: &Params) -> Result<(), Refusal> {
        let max = self.planner.config.max_query_expression_size_bytes;
        let too_long = |name| params.get(name).is_some_and(|query| query.len() as u64 > max);
        if max > 0 && (too_long("q") || too_long("query")) {
            return Err(Refusal::bad(format!(
                "TraceQL expression exceeds the configured maximum size of {max} bytes, reduce the query expression size \
                 or contact your system administrator"
            )));
        }
        Ok(())
    }

    fn check_url(&self, uri: &Uri) -> Result<(), Refusal> {
        let url = uri.path_and_query().map_or("", |part| part.as_str());
        if self.denied.iter().any(|pattern| pattern.is_match(url)) {
            return Err(Refusal::bad(format!(
                "this query was identified as one that destabilises the service, ask the administrator: {url}"
            )));
        }
        Ok(())
    }

    /// Runs something within `api_timeout`.
    async fn in_time<T>(&self, running: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let timeout: std::time::Duration = self.planner.config.api_timeout.into();
        if timeout.is_zero() {
            return running.await;
        }
        tokio::select! {
            result = running => result,
            () = self.planner.clock.sleep(timeout) => Err(too_slow()),
        }
    }
}

fn too_slow() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unable to process request in the configured timeout")
}

/// Takes the request apart, runs the handler within `api_timeout`, and turns what comes out into an answer.
async fn answer<F, R>(api: &Api, uri: &Uri, headers: &HeaderMap, handler: F) -> Response
where
    F: FnOnce(Api, Request) -> R,
    R: Future<Output = Result<Response, Refusal>>,
{
    let planner = &api.planner;
    let request = || {
        let tenants = tenant::tenants(headers, planner.multitenancy, planner.config.multi_tenant_queries_enabled)?;
        api.check_url(uri)?;
        let params = Params::parse(uri.query().unwrap_or(""));
        api.check(&params)?;
        let manner = Manner::wanted(headers, params.bool("coverage")?.unwrap_or(false))?;
        Ok(Request { params, tenants, manner })
    };
    match request() {
        Ok(request) => api.in_time(handler(api.clone(), request)).await.unwrap_or_else(Refusal::response),
        Err(refusal) => Refusal::response(refusal),
    }
}

/// Drives a query to its end and answers with the message made of its answer.
async fn answer_whole<P, M>(
    mut query: P,
    manner: Manner,
    message: impl FnOnce(P::Answer) -> M,
) -> Result<Response, Refusal>
where
    P: Progress,
    M: Message + ToJson,
{
    let whole = message(complete(&mut query).await?);
    Ok(written(&whole, manner.plain(), query.covered()))
}

fn written(message: &(impl Message + ToJson), manner: Manner, covered: &Covered) -> Response {
    match manner.form {
        Form::Protobuf => manner.whole(message.encode_to_vec().into(), covered),
        Form::Json | Form::Llm => manner.answer(json::to_vec(message), covered),
    }
}

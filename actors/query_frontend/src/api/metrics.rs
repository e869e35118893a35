//! TraceQL metrics: `/api/metrics/query_range` and `/api/metrics/query`. Answers are JSON whatever the client accepts, as in
//! Tempo.

mod parts;
mod request;

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use vivace_protocol::TenantId;
use vivace_protocol::json::{self, ToJson};

use self::request::{Asked, RequestError, Rules};
pub(crate) use self::request::{instant_parameters, range_parameters};
use super::{Api, Request};
use crate::explain;
use crate::params::Params;
use crate::planner::{Metrics, Progress, at_once, complete};
use crate::respond::{Form, Manner, Refusal};

pub(crate) async fn range(api: &Api, request: Request) -> Result<Response, Refusal> {
    answer(api, request, false, std::convert::identity).await
}

pub(crate) async fn instant(api: &Api, request: Request) -> Result<Response, Refusal> {
    answer(api, request, true, at_once).await
}

async fn answer<M: ToJson>(
    api: &Api,
    request: Request,
    instant: bool,
    message: impl FnOnce(<Metrics as Progress>::Answer) -> M,
) -> Result<Response, Refusal> {
    let explained = request.params.bool("explain")?.unwrap_or(false);
    let mut query = begin(api, &request.tenants, &request.params, instant)?;
    let mut body = json::to_vec(&message(complete(&mut query).await?));
    if explained {
        let explanation = query.explain(&request.tenants).await?;
        body = explain::insert(body, &explanation);
    }
    let manner = Manner { form: Form::Json, ..request.manner };
    Ok(manner.answer(body, query.covered()))
}

/// A query for what the parameters say; `instant`: over the whole range at once.
pub(crate) fn begin(api: &Api, tenants: &[TenantId], params: &Params, instant: bool) -> Result<Metrics, Refusal> {
    let rules = rules(api, tenants);
    let of_params = if instant { Asked::at_once_of_params } else { Asked::of_params };
    let checked = of_params(params, rules.now_ns)?.check(&rules)?;
    let explain = params.bool("explain")?.unwrap_or(false);
    Metrics::new(&api.planner, tenants, &checked.query, &checked.request, explain)
}

/// [`begin`] for a client that streams, which knows a query without series by another code.
pub(crate) fn begin_stream(
    api: &Api,
    tenants: &[TenantId],
    params: &Params,
    instant: bool,
) -> Result<Metrics, Refusal> {
    begin(api, tenants, params, instant).map_err(|refusal| {
        if refusal.text == RequestError::NotMetrics.to_string() {
            // Whatever has no code of its own is UNKNOWN there.
            Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, ..refusal }
        } else {
            refusal
        }
    })
}

fn rules(api: &Api, tenants: &[TenantId]) -> Rules {
    let (planner, config) = (&api.planner, &api.planner.config);
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    // The narrowest of several tenants' ranges holds for all.
    let ranges = tenants.iter().map(|tenant| {
        let own = planner.limits.max_metrics_duration(tenant);
        if own.is_zero() { config.metrics.max_duration.into() } else { own }
    });
    Rules {
        now_ns: planner.clock.unix_nanos(),
        cutoff_ns: nanos(config.query_end_cutoff.into()),
        max_range: ranges.filter(|range| !range.is_zero()).min().unwrap_or_default(),
        max_intervals: config.metrics.max_intervals,
        max_exemplars: u32::try_from(config.metrics.max_exemplars).unwrap_or(u32::MAX),
        max_series: u32::try_from(config.metrics.max_response_series).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests;

//! Which roles a process has, one file each. A role adds its component to the root, in the order of the data flow, and says what
//! it serves. `all` is a composition of the same files: what differs is how a role reaches the others.

mod all;
mod backend_worker;
mod block_builder;
mod distributor;
mod live_store;
mod querier;
mod query_frontend;

use vivace_runtime::Failure;

use crate::base::Base;
use crate::config::Target;

/// Why a target cannot be run in this version, if it cannot.
pub(crate) fn missing(target: Target) -> Option<&'static str> {
    match target {
        Target::All
        | Target::Distributor
        | Target::LiveStore
        | Target::BlockBuilder
        | Target::Querier
        | Target::QueryFrontend => None,
        Target::MetricsGenerator => {
            Some("the metrics-generator is not part of this version: spans become blocks, not series")
        }
        Target::BackendScheduler | Target::BackendWorker => Some(
            "backend-scheduler and backend-worker are not part of this version as processes of their own: blocks are merged \
             and removed by -target=all only",
        ),
    }
}

/// Adds the components of the process's target.
///
/// # Errors
/// What of the configuration cannot be used; names the key.
pub(crate) async fn add(base: &mut Base<'_>) -> Result<(), Failure> {
    if matches!(base.target, Target::All | Target::Querier) {
        rehearse(base).await?;
    }
    match base.target {
        Target::All => all::add(base).await,
        Target::Distributor => distributor::add_alone(base).await,
        Target::LiveStore => live_store::add_alone(base),
        Target::BlockBuilder => block_builder::add_alone(base).await,
        Target::Querier => querier::add_alone(base).await,
        Target::QueryFrontend => query_frontend::add_alone(base),
        target @ (Target::MetricsGenerator | Target::BackendScheduler | Target::BackendWorker) => {
            Err(Failure::new(missing(target).unwrap_or_default()))
        }
    }
}

/// Asks a block in memory what blocks are asked, so that the first who asks does not wait for code that was never run. What is wrong with
/// that concerns every answer, and is said; whether to go on without them is not for this process to decide.
async fn rehearse(base: &Base<'_>) -> Result<(), Failure> {
    let rehearsal = || {
        let rehearsed = vivace_storage::query::rehearse();
        vivace_heap::give_back_now();
        rehearsed
    };
    match base.pools.queries()?.run(0, rehearsal).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "rehearse queries"),
        Err(status) => tracing::error!(error = %status, "rehearse queries"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_without_a_component_are_refused_with_what_there_is_instead() {
        for target in [Target::MetricsGenerator, Target::BackendScheduler, Target::BackendWorker] {
            assert!(missing(target).is_some_and(|reason| reason.contains("not part of this version")), "{target}");
        }
        for target in ["all", "distributor", "live-store", "block-builder", "querier", "query-frontend"] {
            assert_eq!(missing(target.parse().unwrap()), None, "{target}");
        }
    }
}

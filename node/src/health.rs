//! `grpc.health.v1`: SERVING once everything runs, NOT_SERVING from the first signal to stop.

use axum::Router;
use tonic_health::ServingStatus;
use vivace_runtime::{Process, State};

/// The service; a task keeps it true until the process ends.
pub(crate) async fn health(process: &Process) -> Router {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let (mut state, stopping) = (process.root.state(), process.stopping.clone());
    tokio::spawn(async move {
        loop {
            let running = *state.borrow_and_update() == State::Running && !stopping.is_cancelled();
            let status = if running { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = stopping.cancelled() => {
                    reporter.set_service_status("", ServingStatus::NotServing).await;
                    return;
                }
            }
        }
    });
    tonic::service::Routes::new(service).into_axum_router()
}

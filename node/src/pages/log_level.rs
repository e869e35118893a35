//! `/status/log_level`: which lines are logged, and changing that until the next start. Ours; Tempo has no such page.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use vivace_runtime::telemetry::LogHandle;

/// The new level: `?log_level=debug`, or the same as the body of a form.
#[derive(serde::Deserialize)]
pub(super) struct Wanted {
    log_level: Option<String>,
}

pub(super) async fn show(State(log): State<LogHandle>) -> String {
    format!("Current log level is {}\n", log.level())
}

pub(super) async fn change(State(log): State<LogHandle>, Query(query): Query<Wanted>, body: String) -> Response {
    let in_body = || body.trim().strip_prefix("log_level=").map(|level| level.replace("%3D", "=").replace("%2C", ","));
    let Some(level) = query.log_level.or_else(in_body) else {
        let text = "say the level: POST /status/log_level?log_level=debug\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    match log.set_level(&level) {
        Ok(()) => {
            tracing::warn!(level, "log level changed");
            format!("Log level set to {level}\n").into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

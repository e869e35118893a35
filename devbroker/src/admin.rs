//! The admin port: HTTP on loopback, for adding and removing faults from outside the process.
//!
//! ```text
//! GET    /faults          the rules in force
//! POST   /faults          adds one, a `Fault` as JSON; answers {"id": …}
//! DELETE /faults          removes all
//! DELETE /faults/{id}     removes one
//! ```

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::faults::{Fault, Faults};

pub(crate) fn router(faults: Faults) -> Router {
    Router::new()
        .route("/faults", get(list).post(add).delete(clear))
        .route("/faults/{id}", axum::routing::delete(remove))
        .with_state(faults)
}

async fn list(State(faults): State<Faults>) -> Response {
    Json(faults.list()).into_response()
}

async fn add(State(faults): State<Faults>, fault: Result<Json<Fault>, JsonRejection>) -> Response {
    let fault = match fault {
        Ok(Json(fault)) => fault,
        Err(rejection) => return (StatusCode::BAD_REQUEST, rejection.body_text()).into_response(),
    };
    tracing::info!(?fault, "add fault");
    match faults.add(fault) {
        Ok(id) => Json(json!({ "id": id })).into_response(),
        Err(error) => (StatusCode::TOO_MANY_REQUESTS, error.to_string()).into_response(),
    }
}

async fn clear(State(faults): State<Faults>) -> StatusCode {
    faults.clear();
    StatusCode::NO_CONTENT
}

async fn remove(State(faults): State<Faults>, Path(id): Path<u64>) -> StatusCode {
    if faults.remove(id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

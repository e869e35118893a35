//! The receiving side: exposes local endpoints over gRPC without generated services.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use http::HeaderMap;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Request, Response};
use tonic_prost::ProstCodec;

use super::{ADMISSION, Admission, Endpoint, StreamEndpoint, Wire, path};
use crate::deadline::Deadline;
use crate::dial::MAX_MESSAGE_BYTES;

/// Collects endpoints and becomes a piece of an HTTP router, to be merged with tonic's own services.
#[derive(Debug, Default)]
pub struct EndpointRouter {
    router: Router,
}

/// How long a request without a `grpc-timeout` may take.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(300);

impl EndpointRouter {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Exposes an endpoint under the path of its request's name.
    ///
    /// # Panics
    /// When a request type is exposed twice: two parts cannot answer one path.
    #[must_use]
    pub fn unary<Q: Wire, R: Wire>(self, endpoint: Endpoint<Q, R>) -> Self {
        let handler = move |request: axum::extract::Request| {
            let endpoint = endpoint.clone();
            async move {
                let answer = tower::service_fn(|request: Request<Q>| {
                    let endpoint = endpoint.clone();
                    async move {
                        let (deadline, admission) = terms(request.metadata().as_ref());
                        endpoint.with(request.into_inner(), deadline, admission).await.map(Response::new)
                    }
                });
                codec::<Q, R>().unary(answer, request).await
            }
        };
        Self { router: self.router.route(path::<Q>("Endpoint").path(), post(handler)) }
    }

    /// Exposes an endpoint whose answer is a stream.
    ///
    /// # Panics
    /// When a request type is exposed twice.
    #[must_use]
    pub fn streaming<Q: Wire, R: Wire>(self, endpoint: StreamEndpoint<Q, R>) -> Self {
        let handler = move |request: axum::extract::Request| {
            let endpoint = endpoint.clone();
            async move {
                let answer = tower::service_fn(|request: Request<Q>| {
                    let endpoint = endpoint.clone();
                    async move {
                        let (deadline, admission) = terms(request.metadata().as_ref());
                        endpoint.with(request.into_inner(), deadline, admission).await.map(Response::new)
                    }
                });
                codec::<Q, R>().server_streaming(answer, request).await
            }
        };
        Self { router: self.router.route(path::<Q>("Stream").path(), post(handler)) }
    }

    /// The router, to be merged with others.
    pub fn into_router(self) -> Router {
        self.router
    }
}

fn codec<Q: Wire, R: Wire>() -> Grpc<ProstCodec<R, Q>> {
    Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn terms(headers: &HeaderMap) -> (Deadline, Admission) {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout);
    let admission =
        if headers.get(ADMISSION).is_some_and(|value| value == "try") { Admission::Try } else { Admission::Wait };
    (Deadline::after(asked.unwrap_or(DEFAULT_DEADLINE)), admission)
}

/// The value of a `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
pub(crate) fn grpc_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().next_back()?;
    let digits = value.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(amount * 3600)),
        'M' => Some(Duration::from_secs(amount * 60)),
        'S' => Some(Duration::from_secs(amount)),
        'm' => Some(Duration::from_millis(amount)),
        'u' => Some(Duration::from_micros(amount)),
        'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// A deadline from the headers of any gRPC request, for services that are generated; `None` when it has no `grpc-timeout`.
#[must_use]
pub fn deadline_of(headers: &HeaderMap) -> Option<Deadline> {
    headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout).map(Deadline::after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_nothing_else() {
        assert_eq!(grpc_timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(grpc_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "1", "1x", "-1S", "123456789S", "1é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
    }
}

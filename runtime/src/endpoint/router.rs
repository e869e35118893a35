//! The receiving side: exposes local endpoints over gRPC without generated services, and to peers that this process linked to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::HeaderMap;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::remote::ADMISSION;
use super::{Admission, Endpoint, Replies, StreamEndpoint, Wire, path};
use crate::deadline::Deadline;
use crate::dial::{MAX_MESSAGE_BYTES, MAX_REPLY_BYTES};

/// Collects the endpoints of one component and becomes a piece of an HTTP router, to be merged with tonic's own services and
/// with other components'.
#[derive(Debug, Clone)]
pub struct EndpointRouter {
    service: &'static str,
    router: Router,
    answers: Answers,
}

/// The same endpoints for callers that are not HTTP: an encoded request by its path, encoded replies.
#[derive(Clone, Default)]
pub struct Answers(HashMap<String, Arc<Answer>>);

type Answer = dyn Fn(Bytes, Deadline, Admission) -> Answering + Send + Sync;
type Answering = BoxFuture<'static, Result<Replies<Bytes>, Status>>;

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Answers {
    pub(crate) async fn ask(
        &self,
        path: &str,
        request: Bytes,
        deadline: Deadline,
        admission: Admission,
    ) -> Result<Replies<Bytes>, Status> {
        match self.0.get(path) {
            Some(answer) => answer(request, deadline, admission).await,
            None => Err(Status::unimplemented(format!("{path} is not served here"))),
        }
    }
}

/// How long a request without a `grpc-timeout` may take.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(300);

impl EndpointRouter {
    /// Nothing yet. `service` is the component's name on the wire, such as `vivace.v1.LiveStore`.
    #[must_use]
    pub fn of(service: &'static str) -> Self {
        Self { service, router: Router::new(), answers: Answers::default() }
    }

    /// Exposes an endpoint under the path of its request's name.
    ///
    /// # Panics
    /// When a request type is exposed twice: two parts cannot answer one path.
    #[must_use]
    pub fn unary<Q: Wire, R: Wire>(mut self, endpoint: Endpoint<Q, R>) -> Self {
        let path = path::<Q>(self.service);
        let local = endpoint.clone();
        self.answers.0.insert(
            path.path().to_owned(),
            Arc::new(move |request: Bytes, deadline: Deadline, admission: Admission| -> Answering {
                let endpoint = local.clone();
                async move {
                    let reply = endpoint.with(decoded::<Q>(request)?, deadline, admission).await?;
                    let reply: Bytes = reply.encode_to_vec().into();
                    Ok(futures::stream::iter([Ok(reply)]).boxed())
                }
                .boxed()
            }),
        );
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
        Self { router: self.router.route(path.path(), post(handler)), ..self }
    }

    /// Exposes an endpoint whose answer is a stream.
    ///
    /// # Panics
    /// When a request type is exposed twice.
    #[must_use]
    pub fn streaming<Q: Wire, R: Wire>(mut self, endpoint: StreamEndpoint<Q, R>) -> Self {
        let path = path::<Q>(self.service);
        let local = endpoint.clone();
        self.answers.0.insert(
            path.path().to_owned(),
            Arc::new(move |request: Bytes, deadline: Deadline, admission: Admission| -> Answering {
                let endpoint = local.clone();
                async move {
                    let replies = endpoint.with(decoded::<Q>(request)?, deadline, admission).await?;
                    Ok(replies.map(|reply| reply.map(|reply| reply.encode_to_vec().into())).boxed())
                }
                .boxed()
            }),
        );
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
        Self { router: self.router.route(path.path(), post(handler)), ..self }
    }

    /// The endpoints for a link that this process opens; see [`LinkTo`](crate::LinkTo).
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// The router, to be merged with others.
    pub fn into_router(self) -> Router {
        self.router
    }
}

fn decoded<Q: Wire>(request: Bytes) -> Result<Q, Status> {
    Q::decode(request).map_err(|error| Status::invalid_argument(format!("a request that cannot be read: {error}")))
}

fn codec<Q: Wire, R: Wire>() -> Grpc<ProstCodec<R, Q>> {
    Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_REPLY_BYTES)
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

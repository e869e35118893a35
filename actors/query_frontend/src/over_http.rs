//! gRPC on the HTTP port, for clients that know one address only. Key `stream_over_http_enabled`.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use http::{Version, header};
use tower::ServiceExt;

/// Hands what comes over HTTP/2 and is gRPC by its content type to the gRPC services; everything else is as it was.
pub fn grpc_over_http(http: Router, grpc: Router) -> Router {
    http.layer(from_fn(move |request: Request, next: Next| {
        let grpc = grpc.clone();
        async move {
            if is_grpc(&request) {
                match grpc.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            } else {
                next.run(request).await
            }
        }
    }))
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    request.version() == Version::HTTP_2 && content_type.is_some_and(|name| name.contains("application/grpc"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::Response;
    use axum::routing::any;

    use super::*;

    async fn body(version: Version, content_type: &str, path: &str) -> String {
        let http = Router::new().route("/x", any(|| async { "http" })).fallback(|| async { "http fallback" });
        let grpc = Router::new().fallback(|| async { "grpc" });
        let request = Request::builder().version(version).header(header::CONTENT_TYPE, content_type).uri(path);
        let response: Response =
            grpc_over_http(http, grpc).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn only_grpc_over_http_2_goes_to_the_services() {
        assert_eq!(body(Version::HTTP_2, "application/grpc+proto", "/any.Service/Call").await, "grpc");
        assert_eq!(body(Version::HTTP_2, "application/grpc", "/x").await, "grpc");
        assert_eq!(body(Version::HTTP_11, "application/grpc", "/x").await, "http");
        assert_eq!(body(Version::HTTP_2, "application/json", "/x").await, "http");
        assert_eq!(body(Version::HTTP_2, "application/json", "/y").await, "http fallback");
    }
}

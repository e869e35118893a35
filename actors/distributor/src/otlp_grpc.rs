//! OTLP over gRPC, served by hand: one unary method whose request stays bytes.
//!
//! A generated service would decode every span into objects only for them to be encoded again, and would not know snappy. What
//! is left of gRPC is a path, five bytes before the message and two trailers behind the answer; see "gRPC over HTTP2" in the
//! gRPC documentation.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tonic::{Code, Status};
use vivace_protocol::{Error, TenantId};
use vivace_runtime::Deadline;

use crate::body::{BodyError, Gathered};
use crate::encoding::{DecompressError, Encoding};
use crate::intake::Intake;
use crate::metrics::TurnedAway;
use crate::push::{Push, Refusal, log_error};
use crate::receiver::Answers;
use crate::reply::Reply;
use crate::reservation::Reservation;
use crate::tenant;

const SERVICE: &str = "opentelemetry.proto.collector.trace.v1.TraceService";
const METHOD: &str = "Export";
/// `max_recv_msg_size_mib` when it is 0.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// A flag, and the length of the message.
const PREFIX_BYTES: usize = 5;
/// For reading a message: what a stalled sender holds of the budget must come back.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// What is understood besides `identity`.
const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static("gzip,zstd,snappy");
/// A frame with an `ExportTraceServiceResponse` whose `partial_success` is present and empty.
const SUCCESS: &[u8] = &[0, 0, 0, 0, 2, 0x0a, 0x00];

/// The receiver.
pub(crate) struct OtlpGrpc {
    intake: Arc<Intake>,
    max_message_bytes: usize,
}

impl OtlpGrpc {
    /// `max_message_mib` as configured.
    pub(crate) fn new(intake: Arc<Intake>, max_message_mib: u64) -> Self {
        let max_message_bytes = match usize::try_from(max_message_mib).unwrap_or(usize::MAX).saturating_mul(1 << 20) {
            0 => MAX_MESSAGE_BYTES,
            bytes => bytes.min(u32::MAX as usize),
        };
        Self { intake, max_message_bytes }
    }

    async fn call(&self, request: Request<Incoming>, stopping: bool) -> Result<(), Status> {
        let (head, body) = request.into_parts();
        check_path(head.uri.path())?;
        if stopping {
            let error = Error::retry("the distributor is stopping");
            return Err(self.intake.turned_away(TurnedAway::Stopping, error).into());
        }
        let encoding = encoding(&head.headers)?;
        let deadline = timeout(&head.headers)?.map(Deadline::after);
        let tenant = self.intake.tenancy.of(&head.headers)?;
        let skip_metrics = tenant::skip_metrics(&head.headers);
        self.export(body, encoding, deadline, tenant, skip_metrics).await
    }

    async fn export(
        &self,
        body: Incoming,
        encoding: Encoding,
        deadline: Option<Deadline>,
        tenant: TenantId,
        skip_metrics: bool,
    ) -> Result<(), Status> {
        let mut reservation = self.intake.pusher.reservation(&tenant);
        let reading = self.message(body, &mut reservation);
        let (compressed, message) = read_in_time(reading, deadline).await?;
        let encoding = match (compressed, encoding) {
            (false, _) => Encoding::Identity,
            (true, Encoding::Identity) => {
                return Err(Status::internal("grpc: compressed flag set with identity or empty encoding"));
            }
            (true, encoding) => encoding,
        };
        let (body, reservation) = self
            .intake
            .decompress(encoding, message, self.max_message_bytes, reservation)
            .await
            .map_err(|error| self.undecompressed(error))?;
        let push = Push { tenant, body, reservation, skip_metrics, deadline };
        self.intake.push(push).await.map_err(|refusal| match refusal {
            Refusal::Malformed(text) => Status::internal(format!("grpc: error unmarshalling request: {text}")),
            Refusal::Error(error) => error.into(),
        })
    }

    /// Reads the one message of the call, without its prefix, and whether it is compressed.
    async fn message<B>(&self, body: B, reservation: &mut Reservation) -> Result<(bool, Bytes), Status>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let mut body = pin!(body);
        let mut gathered = Gathered::default();
        let mut expected = None;
        // The prefix bounds what is read; before it is there, one piece may be as large as the connection's window.
        let mut limit = usize::MAX;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Status::cancelled(format!("request could not be read: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            gathered.push(piece, expected, limit, reservation).map_err(|error| self.unread(error))?;
            if expected.is_none()
                && let Some([_, a, b, c, d]) = gathered.head::<PREFIX_BYTES>()
            {
                let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                let max = self.max_message_bytes;
                if len > max {
                    let text = format!("grpc: received message larger than max ({len} vs. {max})");
                    return Err(Status::resource_exhausted(text));
                }
                reservation.cover(len + PREFIX_BYTES).map_err(|error| self.unread(BodyError::Overloaded(error)))?;
                (expected, limit) = (Some(len + PREFIX_BYTES), len + PREFIX_BYTES);
                if gathered.len() > limit {
                    return Err(self.unread(BodyError::TooLarge));
                }
            }
        }
        let Some([flag]) = gathered.head() else { return Err(Status::internal("grpc: request has no message")) };
        if flag > 1 {
            return Err(Status::internal(format!("grpc: received unexpected payload format {flag}")));
        }
        if expected != Some(gathered.len()) {
            return Err(Status::internal("grpc: unexpected end of the request"));
        }
        Ok((flag == 1, gathered.finish().slice(PREFIX_BYTES..)))
    }

    fn unread(&self, error: BodyError) -> Status {
        match error {
            BodyError::TooLarge => Status::internal("grpc: request has more than one message"),
            BodyError::Overloaded(error) => self.intake.turned_away(TurnedAway::Overloaded, log_error(error)).into(),
            BodyError::Broken(text) => Status::cancelled(text),
        }
    }

    fn undecompressed(&self, error: DecompressError) -> Status {
        match error {
            DecompressError::TooLarge => {
                let max = self.max_message_bytes;
                Status::resource_exhausted(format!("grpc: received message after decompression larger than max {max}"))
            }
            DecompressError::Overloaded(error) => {
                self.intake.turned_away(TurnedAway::Overloaded, log_error(error)).into()
            }
            DecompressError::Interrupted(error) => error.into(),
            DecompressError::Corrupt(error) => {
                Status::internal(format!("grpc: failed to decompress the received message: {error}"))
            }
        }
    }
}

impl Answers for OtlpGrpc {
    async fn answer(&self, request: Request<Incoming>, stopping: bool) -> Response<Reply> {
        if request.method() != Method::POST {
            return bare(StatusCode::METHOD_NOT_ALLOWED);
        }
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !content_type.is_some_and(is_grpc) {
            return bare(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        match self.call(request, stopping).await {
            Ok(()) => success(),
            Err(status) => failure(status),
        }
    }

    fn broken(&self) -> Response<Reply> {
        failure(Status::internal("internal error"))
    }
}

/// `application/grpc`, alone or with a format or parameters behind it.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn check_path(path: &str) -> Result<(), Status> {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Err(Status::unimplemented(format!("malformed method name: {path:?}")));
    };
    if service != SERVICE {
        return Err(Status::unimplemented(format!("unknown service {service}")));
    }
    if method != METHOD {
        return Err(Status::unimplemented(format!("unknown method {method} for service {service}")));
    }
    Ok(())
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    let name =
        headers.get("grpc-encoding").map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()));
    Encoding::of_grpc(&name).ok_or_else(|| {
        let mut status =
            Status::unimplemented(format!("grpc: Decompressor is not installed for grpc-encoding {name:?}"));
        status.metadata_mut().as_mut().insert("grpc-accept-encoding", ACCEPTED_ENCODINGS);
        status
    })
}

/// How long the client waits: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        let count: u64 = digits.parse().ok().filter(|_| plain)?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    });
    match parsed {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Status::internal(format!("malformed grpc-timeout: {value:?}"))),
    }
}

async fn read_in_time<T>(
    reading: impl Future<Output = Result<T, Status>>,
    deadline: Option<Deadline>,
) -> Result<T, Status> {
    let ours = Deadline::after(READ_TIMEOUT);
    let until = deadline.map_or(ours, |theirs| theirs.min(ours));
    tokio::select! {
        biased;
        read = reading => read,
        () = until.reached() => Err(if until == ours {
            Status::unavailable("the request was not read in time")
        } else {
            Status::deadline_exceeded("the request was not read in time")
        }),
    }
}

fn success() -> Response<Reply> {
    let trailers =
        HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let mut response = Response::new(Reply::with_trailers(SUCCESS, trailers));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Headers that are trailers at once.
fn failure(status: Status) -> Response<Reply> {
    // A status whose metadata does not fit into headers would be an answer without any.
    debug_assert!(status.code() != Code::Ok);
    status.into_http()
}

fn bare(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        let read = |value| timeout(&headers("grpc-timeout", value));
        assert_eq!(read("5S").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(read("99999999H").unwrap(), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("250m").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
        for malformed in ["", "S", "5", "123456789S", "-1S", "+1S", "5s"] {
            assert_eq!(read(malformed).unwrap_err().code(), Code::Internal, "{malformed}");
        }
    }

    #[test]
    fn content_types_of_grpc_have_a_boundary_behind_the_name() {
        assert!(is_grpc(b"application/grpc") && is_grpc(b"application/grpc+proto") && is_grpc(b"application/grpc;x"));
        assert!(!is_grpc(b"application/grpc-web") && !is_grpc(b"application/json"));
    }

    #[test]
    fn other_paths_are_not_implemented() {
        assert!(check_path(&format!("/{SERVICE}/{METHOD}")).is_ok());
        let text = |path: &str| check_path(path).unwrap_err().message().to_owned();
        assert_eq!(text("/a.B/C"), "unknown service a.B");
        assert_eq!(text(&format!("/{SERVICE}/Import")), format!("unknown method Import for service {SERVICE}"));
        assert_eq!(text("/nothing"), "malformed method name: \"/nothing\"");
    }
}

//! OTLP over HTTP: what is asked, what is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use vivace_protocol::{Error, TenantId};

use crate::body::{self, BodyError};
use crate::config::OtlpHttpConfig;
use crate::cors::Cors;
use crate::encoding::{DecompressError, Encoding};
use crate::intake::Intake;
use crate::metrics::TurnedAway;
use crate::push::{Push, Refusal, log_error};
use crate::receiver::Answers;
use crate::reply::Reply;
use crate::tenant;

/// `max_request_body_size` when it is 0.
const MAX_BODY_BYTES: usize = 20 << 20;
/// For reading a body when `read_timeout` is 0: what a stalled sender holds of the budget must come back.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The form of a request, which its answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = value.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/x-protobuf") {
            Some(Self::Protobuf)
        } else if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }

    const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }

    /// An `ExportTraceServiceResponse` with an empty but present `partial_success`.
    const fn success(self) -> &'static [u8] {
        match self {
            Self::Protobuf => &[0x0a, 0x00],
            Self::Json => br#"{"partialSuccess":{}}"#,
        }
    }
}

/// The receiver.
pub(crate) struct OtlpHttp {
    intake: Arc<Intake>,
    path: String,
    max_body_bytes: usize,
    read_timeout: Duration,
    /// Names of encodings that are understood; empty means all.
    encodings: Vec<String>,
    cors: Option<Cors>,
    response_headers: Vec<(HeaderName, HeaderValue)>,
}

impl OtlpHttp {
    /// # Errors
    /// A text that says which key holds what cannot be used.
    pub(crate) fn new(intake: Arc<Intake>, config: &OtlpHttpConfig) -> Result<Self, String> {
        let path = match config.traces_url_path.as_str() {
            "" => "/v1/traces".to_owned(),
            rooted if rooted.starts_with('/') => rooted.to_owned(),
            bare => format!("/{bare}"),
        };
        let max_body_bytes = match usize::try_from(config.max_request_body_size).unwrap_or(usize::MAX) {
            0 => MAX_BODY_BYTES,
            bytes => bytes,
        };
        let read_timeout = config.read_timeout.get();
        Ok(Self {
            intake,
            path,
            max_body_bytes,
            read_timeout: if read_timeout.is_zero() { READ_TIMEOUT } else { read_timeout },
            encodings: config.compression_algorithms.clone(),
            cors: config.cors.get().and_then(Cors::new),
            response_headers: response_headers(&config.response_headers)?,
        })
    }

    fn encoding(&self, headers: &HeaderMap) -> Result<Encoding, Error> {
        let name = match headers.get(header::CONTENT_ENCODING) {
            Some(value) => String::from_utf8_lossy(value.as_bytes()),
            None => "".into(),
        };
        let allowed = self.encodings.is_empty() || self.encodings.iter().any(|allowed| *allowed == *name);
        Encoding::of_content(&name)
            .filter(|_| allowed)
            .ok_or_else(|| Error::fix_request(format!("unsupported Content-Encoding: {name}")))
    }

    async fn route(&self, request: Request<Incoming>, stopping: bool) -> Response<Reply> {
        if request.uri().path() != self.path {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed, supported: [POST]");
        }
        let Some(form) = Form::of(request.headers()) else {
            self.discard(request.into_body()).await;
            return text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "415 unsupported media type, supported: [application/json, application/x-protobuf]",
            );
        };
        match self.export(request, form, stopping).await {
            Ok(()) => respond(StatusCode::OK, form.content_type(), form.success()),
            Err(error) => failure(&error, form),
        }
    }

    async fn export(&self, request: Request<Incoming>, form: Form, stopping: bool) -> Result<(), Error> {
        let (head, body) = request.into_parts();
        let judged = self.judge(&head.headers, stopping);
        let (tenant, encoding) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                // A sender that finds its connection closed while it writes may not look for the answer.
                self.discard(body).await;
                return Err(error);
            }
        };
        let mut reservation = self.intake.pusher.reservation(&tenant);
        let reading = body::read(body, self.max_body_bytes, &mut reservation);
        let body = self.in_time(async { reading.await.map_err(|error| self.unread(error)) }).await?;
        let (body, mut reservation) = self
            .intake
            .decompress(encoding, body, self.max_body_bytes, reservation)
            .await
            .map_err(|error| self.undecompressed(error))?;
        let body = match form {
            Form::Protobuf => body,
            Form::Json => {
                // The protobuf form is smaller than the JSON form, whose room is free again only after the conversion.
                reservation.add(body.len()).map_err(|error| self.unread(BodyError::Overloaded(error)))?;
                self.intake.json_to_protobuf(body).await?
            }
        };
        let push =
            Push { tenant, body, reservation, skip_metrics: tenant::skip_metrics(&head.headers), deadline: None };
        self.intake.push(push).await.map_err(|refusal| match refusal {
            Refusal::Malformed(text) => Error::fix_request(text),
            Refusal::Error(error) => error,
        })
    }

    /// What can be said before the body is read.
    fn judge(&self, headers: &HeaderMap, stopping: bool) -> Result<(TenantId, Encoding), Error> {
        if stopping {
            return Err(self.intake.turned_away(TurnedAway::Stopping, Error::retry("the distributor is stopping")));
        }
        let encoding = self.encoding(headers)?;
        Ok((self.intake.tenancy.of(headers)?, encoding))
    }

    async fn discard(&self, body: Incoming) {
        // Who does not send it in time is answered all the same.
        tokio::time::timeout(self.read_timeout, body::discard(body)).await.unwrap_or_default();
    }

    async fn in_time<T>(&self, reading: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(self.read_timeout, reading)
            .await
            .unwrap_or_else(|_| Err(Error::retry("the request was not read in time")))
    }

    fn unread(&self, error: BodyError) -> Error {
        match error {
            BodyError::TooLarge => too_large(),
            BodyError::Overloaded(error) => self.intake.turned_away(TurnedAway::Overloaded, log_error(error)),
            BodyError::Broken(text) => Error::fix_request(text),
        }
    }

    fn undecompressed(&self, error: DecompressError) -> Error {
        match error {
            DecompressError::TooLarge => too_large(),
            DecompressError::Overloaded(error) => self.intake.turned_away(TurnedAway::Overloaded, log_error(error)),
            DecompressError::Interrupted(error) => error,
            DecompressError::Corrupt(_) => Error::fix_request(error.to_string()),
        }
    }
}

impl Answers for OtlpHttp {
    async fn answer(&self, request: Request<Incoming>, stopping: bool) -> Response<Reply> {
        let cors = self.cors.as_ref().map(|cors| cors.judge(request.method(), request.headers()));
        let mut response = match &cors {
            Some(judged) if judged.is_preflight() => text(StatusCode::NO_CONTENT, ""),
            _ => self.route(request, stopping).await,
        };
        if let Some(judged) = cors {
            judged.add_to(response.headers_mut());
        }
        for (name, value) in &self.response_headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }

    fn broken(&self) -> Response<Reply> {
        failure(&Error::report("internal error"), Form::Json)
    }
}

fn too_large() -> Error {
    Error::fix_request("http: request body too large")
}

fn response_headers(configured: &BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let parse = |(name, value): (&String, &String)| {
        let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        header.ok_or_else(|| format!("response_headers: `{name}: {value}` is no HTTP header"))
    };
    configured.iter().map(parse).collect()
}

fn respond(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::bytes(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Reply> {
    let mut response = Response::new(Reply::bytes(text));
    *response.status_mut() = status;
    if !text.is_empty() {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    response
}

/// A `google.rpc.Status` in the form of the request.
fn failure(error: &Error, form: Form) -> Response<Reply> {
    let status = StatusCode::from_u16(error.kind().otlp_http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match form {
        Form::Protobuf => error.to_rpc_status().encode_to_vec(),
        Form::Json => json_status(error).into_bytes(),
    };
    let mut response = respond(status, form.content_type(), body);
    if let Some(after) = error.retry_after() {
        // Whole seconds, and never 0, which would ask for a retry at once.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}

/// The status as protobuf's JSON form has it.
fn json_status(error: &Error) -> String {
    let code = i32::from(error.kind().grpc_code());
    let mut status = serde_json::json!({ "code": code, "message": error.message() });
    if let Some(after) = error.retry_after() {
        let delay = format!("{}s", after.as_secs_f64());
        let detail = serde_json::json!([{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }]);
        status["details"] = detail;
    }
    status.to_string()
}

#[cfg(test)]
mod tests {
    use vivace_protocol::Kind;

    use super::*;

    #[test]
    fn the_form_is_the_content_type_without_its_parameters() {
        let form = |value: &str| {
            Form::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_str(value).unwrap())]))
        };
        assert_eq!(form("application/json"), Some(Form::Json));
        assert_eq!(form("Application/X-Protobuf; charset=utf-8"), Some(Form::Protobuf));
        assert_eq!(form("application/protobuf"), None);
        assert_eq!(Form::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_status_in_json_has_its_details_only_with_a_hint() {
        assert_eq!(json_status(&Error::fix_request("no \"x\"")), r#"{"code":3,"message":"no \"x\""}"#);
        let hinted = Error::new(Kind::SlowDown, "m").with_retry_after(Duration::from_millis(1500));
        assert_eq!(
            json_status(&hinted),
            r#"{"code":8,"message":"m","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}]}"#
        );
        assert_eq!(failure(&hinted, Form::Json).headers()[header::RETRY_AFTER], "2");
    }
}

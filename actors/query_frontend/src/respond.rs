//! Answers: content negotiation, compression, errors as Tempo's clients know them.

use std::io::Write;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Code;

use crate::coverage::Covered;

/// Where every answer says what it was read from. In lower case, as HTTP/2 has it.
pub(crate) const COVERAGE: &str = "x-vivace-coverage";
/// Bodies below this are not worth compressing.
const COMPRESS_FROM: usize = 1024;

/// What the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Protobuf,
    /// For language models. Where an answer has no such form it is JSON.
    Llm,
}

impl Form {
    /// `Accept` is searched for the known types, in this order; anything else means JSON.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let known = [
            ("application/protobuf", Self::Protobuf),
            ("application/json", Self::Json),
            ("application/vnd.grafana.llm", Self::Llm),
        ];
        known.into_iter().find(|(name, _)| accept.contains(name)).map_or(Self::Json, |(_, form)| form)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/protobuf",
            Self::Llm => "application/vnd.grafana.llm+json",
        }
    }
}

/// An error on its way to the client: a status and a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    /// What was read before it was refused, as the header says it.
    pub(crate) coverage: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), coverage: None }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Says what was read all the same.
    #[must_use]
    pub(crate) fn covering(self, covered: &Covered) -> Self {
        Self { coverage: Some(covered.header()), ..self }
    }

    pub(crate) fn response(self) -> Response {
        let mut response = Response::new(Body::from(self.text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(Ok(coverage)) = self.coverage.as_deref().map(HeaderValue::from_str) {
            headers.insert(COVERAGE, coverage);
        }
        response
    }

    /// The same for a client that streams.
    pub(crate) fn status(&self) -> tonic::Status {
        let code = match self.status.as_u16() {
            400 => Code::InvalidArgument,
            404 => Code::NotFound,
            429 => Code::ResourceExhausted,
            499 => Code::Cancelled,
            500..=599 => Code::Internal,
            _ => Code::Unknown,
        };
        tonic::Status::new(code, self.text.trim_end_matches('\n'))
    }
}

impl From<crate::params::BadParam> for Refusal {
    fn from(error: crate::params::BadParam) -> Self {
        Self::bad(error.0)
    }
}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(code, status.message())
    }
}

/// How one answer is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) form: Form,
    pub(crate) gzip: bool,
    /// Say in the body, too, what was read and what was not.
    pub(crate) coverage: bool,
}

impl Manner {
    pub(crate) fn wanted(headers: &HeaderMap, coverage: bool) -> Result<Self, Refusal> {
        let form = Form::wanted(headers);
        if coverage && form == Form::Protobuf {
            return Err(Refusal::bad("coverage=true needs a JSON answer: send Accept: application/json"));
        }
        let gzip = headers
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|e| e.trim().split(';').next() == Some("gzip")));
        Ok(Self { form, gzip, coverage })
    }

    /// The answer's form where it has none for language models.
    pub(crate) fn plain(self) -> Self {
        Self { form: if self.form == Form::Llm { Form::Json } else { self.form }, ..self }
    }

    fn headers(self, covered: &Covered) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.form.content_type()));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Ok(coverage) = HeaderValue::from_str(&covered.header()) {
            headers.insert(COVERAGE, coverage);
        }
        headers
    }

    /// What the coverage adds to a JSON object that was written without its last brace.
    pub(crate) fn tail(self, covered: &Covered, empty: bool) -> String {
        if !self.coverage {
            return "}".to_owned();
        }
        format!("{}\"coverage\":{}}}", if empty { "" } else { "," }, covered.json())
    }

    /// A successful answer. A JSON body is one object.
    pub(crate) fn answer(self, mut body: Vec<u8>, covered: &Covered) -> Response {
        if self.coverage && body.pop().is_some() {
            let empty = body.len() <= 1;
            body.extend_from_slice(self.tail(covered, empty).as_bytes());
        }
        self.whole(body.into(), covered)
    }

    /// A successful answer whose body is finished.
    pub(crate) fn whole(self, mut body: Bytes, covered: &Covered) -> Response {
        let mut headers = self.headers(covered);
        if self.gzip
            && body.len() >= COMPRESS_FROM
            && let Some(compressed) = gzip(&body)
        {
            body = compressed.into();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let mut response = Response::new(Body::from(body));
        *response.headers_mut() = headers;
        response
    }

    /// A successful answer that is written piece by piece. An error in the stream cuts the connection.
    pub(crate) fn pieces<E: Into<axum::BoxError> + Send + 'static>(
        self,
        pieces: impl Stream<Item = Result<Vec<u8>, E>> + Send + 'static,
        covered: &Covered,
    ) -> Response {
        let mut headers = self.headers(covered);
        let body = if self.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Body::from_stream(gzip_pieces(pieces.map(|piece| piece.map_err(Into::into))))
        } else {
            Body::from_stream(pieces)
        };
        let mut response = Response::new(body);
        *response.headers_mut() = headers;
        response
    }
}

impl Manner {
    /// A successful answer that is written while it is read. What it was read from is known once it is written: `coverage` is
    /// asked then, for the trailer. An error in the stream cuts the connection.
    pub(crate) fn flow(
        self,
        pieces: impl Stream<Item = Result<Vec<u8>, axum::BoxError>> + Send + 'static,
        coverage: impl FnOnce() -> String + Send + 'static,
    ) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.form.content_type()));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(header::TRAILER, HeaderValue::from_static(COVERAGE));
        let pieces = if self.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            gzip_pieces(pieces).boxed()
        } else {
            pieces.boxed()
        };
        let trailers = async move {
            let value = HeaderValue::from_str(&coverage());
            Ok(Frame::trailers(HeaderMap::from_iter(
                value.ok().map(|value| (HeaderName::from_static(COVERAGE), value)),
            )))
        };
        let frames = pieces.map(|piece| piece.map(|piece| Frame::data(Bytes::from(piece))));
        let mut response = Response::new(Body::new(StreamBody::new(frames.chain(futures::stream::once(trailers)))));
        *response.headers_mut() = headers;
        response
    }
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

fn gzip_pieces(
    pieces: impl Stream<Item = Result<Vec<u8>, axum::BoxError>> + Send + 'static,
) -> impl Stream<Item = Result<Vec<u8>, axum::BoxError>> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    futures::stream::unfold(Some((pieces.boxed(), encoder)), |state| async move {
        let (mut pieces, mut encoder) = state?;
        loop {
            match pieces.next().await {
                Some(Ok(piece)) => {
                    if let Err(error) = encoder.write_all(&piece) {
                        return Some((Err(error.into()), None));
                    }
                    if !encoder.get_ref().is_empty() {
                        return Some((Ok(std::mem::take(encoder.get_mut())), Some((pieces, encoder))));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None => return Some((encoder.finish().map_err(Into::into), None)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_first_known_type_wins_in_a_fixed_order() {
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Json);
        assert_eq!(Form::wanted(&accept("text/html")), Form::Json);
        assert_eq!(Form::wanted(&accept("application/json, application/protobuf")), Form::Protobuf);
        assert_eq!(Form::wanted(&accept("application/vnd.grafana.llm, application/json")), Form::Json);
        assert_eq!(Form::wanted(&accept("application/vnd.grafana.llm")), Form::Llm);
    }

    #[test]
    fn streaming_clients_get_the_codes_that_they_know() {
        let code = |status: u16| Refusal::new(StatusCode::from_u16(status).unwrap(), "x\n").status().code();
        assert_eq!(
            [400, 401, 404, 422, 429].map(code),
            [Code::InvalidArgument, Code::Unknown, Code::NotFound, Code::Unknown, Code::ResourceExhausted,]
        );
        assert_eq!([499, 500, 503, 504].map(code), [Code::Cancelled, Code::Internal, Code::Internal, Code::Internal]);
        assert_eq!(Refusal::new(StatusCode::UNAUTHORIZED, "no org id\n").status().message(), "no org id");
    }

    #[tokio::test]
    async fn pieces_compressed_are_the_whole() {
        let pieces: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 1000]).collect();
        let due = pieces.concat();
        let stream = gzip_pieces(futures::stream::iter(pieces.into_iter().map(Ok)));
        let packed: Vec<u8> = stream.map(Result::unwrap).collect::<Vec<_>>().await.concat();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, due);
    }

    #[tokio::test]
    async fn coverage_is_in_the_body_on_request_only() {
        let mut covered = Covered::default();
        covered.miss("block 1", 1, "gone");
        let plain = Manner { form: Form::Json, gzip: false, coverage: false };
        let body = |manner: Manner, body: &str| {
            let response = manner.answer(body.as_bytes().to_vec(), &covered);
            async move { axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap() }
        };
        assert_eq!(body(plain, "{\"traces\":[]}").await, "{\"traces\":[]}");
        let with = Manner { coverage: true, ..plain };
        let skipped = r#"{"total":1,"read":0,"skipped":[{"what":"block 1","reason":"gone"}]}"#;
        assert_eq!(body(with, "{\"traces\":[]}").await, format!("{{\"traces\":[],\"coverage\":{skipped}}}"));
        assert_eq!(body(with, "{}").await, format!("{{\"coverage\":{skipped}}}"));
    }
}

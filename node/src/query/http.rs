//! One `GET` to the HTTP API.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Failure;

const CONNECT: Duration = Duration::from_secs(5);
/// Answers above this are not for a command line.
const MAX_BODY: usize = 1 << 30;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// As given, without a slash at the end.
    url: String,
    /// `host:port`, for the connection.
    address: String,
    /// As in the URL, for the `Host` header.
    authority: String,
    /// Before every path of the API.
    prefix: String,
}

/// What came back with status 200.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) coverage: Option<String>,
    /// Where a trace that is asked for in pages goes on.
    pub(super) next_page: Option<String>,
    pub(super) body: Bytes,
}

impl Server {
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure(format!("-url={url}: {why}; it looks like http://localhost:3200"));
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("TLS is not spoken here; name a plain listener, or forward a local port to it"));
            }
            _ => return Err(wrong("it has to begin with http://")),
        }
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            address: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            authority: uri.authority().map_or_else(|| host.to_owned(), ToString::to_string),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Asks for a path with its parameters; anything but 200 is a failure, with 404 told apart as none.
    pub(super) async fn get(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        tenant: Option<&str>,
        accept: &str,
    ) -> Result<Option<Answer>, Failure> {
        let stream = self.connect().await?;
        let failed = |error: hyper::Error| {
            Failure(format!("{} ended the connection without an answer: {}", self.url, super::chain(&error)))
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with the answer; what goes wrong in it is told by the request.
        tokio::spawn(async move { connection.await.ok() });
        let mut request = Request::get(format!("{}{path}{}", self.prefix, query_string(parameters)))
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, accept);
        if let Some(tenant) = tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure(format!("the request cannot be written: {error} (look at -url and -tenant)")))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (coverage, next_page) = (header("X-Vivace-Coverage"), header("X-Vivace-Next-Page"));
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body =
            body.map_err(|error| Failure(format!("the answer of {} ended early: {error}", self.url)))?.to_bytes();
        if status == StatusCode::OK {
            return Ok(Some(Answer { coverage, next_page, body }));
        }
        if status == StatusCode::NOT_FOUND && body.is_empty() {
            return Ok(None);
        }
        Err(Failure(self.refusal(status, &String::from_utf8_lossy(&body))))
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        match tokio::time::timeout(CONNECT, TcpStream::connect(&self.address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Failure(unreachable(&self.url, &error.to_string(), "-url"))),
            Err(_late) => Err(Failure(unreachable(&self.url, "no answer within 5 s", "-url"))),
        }
    }

    fn refusal(&self, status: StatusCode, body: &str) -> String {
        let body = super::table::plain(body.trim_end());
        let hint = match status {
            StatusCode::UNAUTHORIZED => " (say whose data with -tenant)",
            StatusCode::NOT_FOUND => " (is -url the HTTP API of Vivace or Tempo, and its prefix right?)",
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => " (try again)",
            StatusCode::GATEWAY_TIMEOUT => " (narrow the window or the query)",
            _ => "",
        };
        format!("{} answered {}: {body}{hint}", self.url, status.as_u16())
    }
}

/// What to do when nobody is there.
pub(super) fn unreachable(place: &str, reason: &str, flag: &str) -> String {
    format!(
        "no connection to {place}: {reason}\nIs Vivace running there? Start it, or say where it is with {flag}=… \
         (`server.http_listen_port` is the HTTP port, 3200 unless set, `server.grpc_listen_port` the gRPC port, 9095)"
    )
}

fn query_string(parameters: &[(&str, String)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encoding that leaves only what is harmless everywhere in a URL.
pub(super) fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").unwrap_or(()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_or_refused_with_what_is_expected() {
        let server = Server::new("http://[::1]:3200/tempo/").unwrap();
        assert_eq!((server.address.as_str(), server.prefix.as_str()), ("[::1]:3200", "/tempo"));
        assert_eq!(Server::new("http://host").unwrap().address, "host:80");
        for (url, why) in
            [("https://host", "TLS is not spoken"), ("localhost:3200", "begin with http"), ("http://", "-url=")]
        {
            let message = Server::new(url).unwrap_err().to_string();
            assert!(message.contains(why) && message.contains("http://localhost:3200"), "{message}");
        }
    }

    #[test]
    fn parameters_survive_the_way() {
        let query = query_string(&[("q", "{ .a = \"ü&1\" }".to_owned()), ("limit", "5".to_owned())]);
        assert_eq!(query, "?q=%7B%20.a%20%3D%20%22%C3%BC%261%22%20%7D&limit=5");
        assert_eq!(query_string(&[]), "");
    }

    #[tokio::test]
    async fn a_refused_connection_says_what_to_do() {
        // A port that was just free and is listened to by nobody.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Server::new(&format!("http://127.0.0.1:{port}")).unwrap();
        let error = server.get("/api/search", &[], None, "application/json").await.unwrap_err().to_string();
        assert!(error.contains("refused") && error.contains("Is Vivace running there?"), "{error}");
        assert!(error.contains("-url="), "{error}");
    }
}

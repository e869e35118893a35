//! The HTTP client below the S3 store: the process's one TLS, connections that are kept, time limits on every step, hedged reads.
//!
//! Requests run on the runtime that [`Connector`] was made with, whoever asks, so that a busy actor never holds up a connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderValue, Method, Uri, header::USER_AGENT};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use object_store::{
    ClientOptions,
    client::{
        HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
        HttpService, SpawnService,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    runtime::Handle,
    time::{Instant, Sleep},
};
use vivace_runtime::tls::ClientTls;

/// TCP and TLS handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the start of a request, its body included, to the head of the answer: a part of an upload over a slow line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Silence within an answer.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// An idle connection is closed before the usual servers close it.
const IDLE: Duration = Duration::from_secs(20);

/// A second try of a read that takes unusually long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hedge {
    /// So long after the try before.
    pub(super) after: Duration,
    /// Tries at once, the first included.
    pub(super) up_to: usize,
}

/// Makes HTTP clients for the store and for those who give it credentials.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) tls: Option<ClientTls>,
    pub(super) hedge: Option<Hedge>,
    pub(super) runtime: Handle,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<object_store::client::HttpClient> {
        let dial = Dial { tls: self.tls.clone() };
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(dial);
        let service = Service { client, hedge: self.hedge };
        Ok(object_store::client::HttpClient::new(SpawnService::new(service, self.runtime.clone())))
    }
}

#[derive(Debug, Clone)]
struct Service {
    client: Client<Dial, HttpRequestBody>,
    hedge: Option<Hedge>,
}

impl Service {
    async fn once(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await;
        let answer = answered.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?.map_err(failed)?;
        Ok(answer.map(|body| HttpResponseBody::new(Patient::new(body))))
    }

    /// Asks again while nobody has answered; the first answer counts. A failed try ends the others only when it is the last.
    async fn hedged(&self, request: HttpRequest, hedge: Hedge) -> Result<HttpResponse, HttpError> {
        let mut tries = FuturesUnordered::new();
        tries.push(self.once(request.clone()));
        let mut left = hedge.up_to.saturating_sub(1);
        loop {
            tokio::select! {
                biased;
                Some(answer) = tries.next() => match answer {
                    Err(_) if !tries.is_empty() => {}
                    answer => return answer,
                },
                () = tokio::time::sleep(hedge.after), if left > 0 => {
                    left -= 1;
                    tries.push(self.once(request.clone()));
                }
            }
        }
    }

    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = HeaderValue::from_static(concat!("vivace/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        match self.hedge {
            Some(hedge) if request.method() == Method::GET => self.hedged(request, hedge).await,
            _ => self.once(request).await,
        }
    }
}

impl HttpService for Service {
    // Written out: the trait's methods return boxed futures.
    fn call<'a, 'f>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(self.send(request))
    }
}

/// What went wrong decides whether the store tries again.
fn failed(error: hyper_util::client::legacy::Error) -> HttpError {
    let mut kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Unknown };
    let mut source = std::error::Error::source(&error);
    while let (HttpErrorKind::Unknown, Some(cause)) = (kind, source) {
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            kind = kind_of(error);
        } else if cause.is::<io::Error>() {
            kind = HttpErrorKind::Interrupted;
        }
        source = cause.source();
    }
    // The store prints an error without its causes, and only they say what is wrong.
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    HttpError::new(kind, io::Error::other(text))
}

fn kind_of(error: &hyper::Error) -> HttpErrorKind {
    if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_closed() || error.is_incomplete_message() || error.is_canceled() || error.is_body_write_aborted()
    {
        HttpErrorKind::Interrupted
    } else {
        HttpErrorKind::Unknown
    }
}

/// A body that is given up when nothing comes.
struct Patient {
    body: Incoming,
    silence: Pin<Box<Sleep>>,
}

impl Patient {
    fn new(body: Incoming) -> Self {
        Self { body, silence: Box::pin(tokio::time::sleep(SILENCE_TIMEOUT)) }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.silence.as_mut().reset(Instant::now() + SILENCE_TIMEOUT);
            return Poll::Ready(frame.map(|frame| {
                frame.map_err(|error| match kind_of(&error) {
                    HttpErrorKind::Unknown => HttpError::new(HttpErrorKind::Interrupted, error),
                    kind => HttpError::new(kind, error),
                })
            }));
        }
        ready!(self.silence.as_mut().poll(cx));
        let late = io::Error::new(io::ErrorKind::TimedOut, "the answer stopped coming");
        Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Opens connections.
#[derive(Debug, Clone)]
struct Dial {
    tls: Option<ClientTls>,
}

impl Dial {
    async fn dial(self, url: Uri) -> io::Result<TokioIo<Wire>> {
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("connect to {host}:{port}: {error}")))?;
        stream.set_nodelay(true)?;
        let wire: Box<dyn Socket> =
            match (secure, self.tls) {
                (false, _) => Box::new(stream),
                (true, Some(tls)) => Box::new(tls.connect(&host, stream).await.map_err(|error| {
                    io::Error::new(error.kind(), format!("TLS handshake with {host}:{port}: {error}"))
                })?),
                (true, None) => return Err(io::Error::other("TLS is switched off by storage.trace.s3.insecure")),
            };
        Ok(TokioIo::new(Wire(wire)))
    }
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Wire>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let dialled = self.clone().dial(url);
        Box::pin(async move {
            let late = |_late| io::Error::new(io::ErrorKind::TimedOut, "no connection within 5 s");
            tokio::time::timeout(CONNECT_TIMEOUT, dialled).await.map_err(late)?
        })
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A connection, plain or under TLS.
struct Wire(Box<dyn Socket>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn client(hedge: Option<Hedge>) -> Service {
        let client = Client::builder(TokioExecutor::new()).build(Dial { tls: None });
        Service { client, hedge }
    }

    fn request(method: Method, port: u16) -> HttpRequest {
        let url = format!("http://127.0.0.1:{port}/object");
        http::Request::builder().method(method).uri(url).body(HttpRequestBody::empty()).unwrap()
    }

    /// A server whose first connection is never answered.
    async fn forgetful() -> (u16, tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (_silent, _) = listener.accept().await.unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            let mut head = [0; 64];
            assert!(second.read(&mut head).await.unwrap() > 0);
            second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            2
        });
        (port, served)
    }

    #[tokio::test]
    async fn a_read_that_takes_long_is_asked_for_again_and_the_first_answer_counts() {
        let hedge = Hedge { after: Duration::from_millis(20), up_to: 2 };
        let (port, served) = forgetful().await;
        let answer = client(Some(hedge)).send(request(Method::GET, port)).await.unwrap();
        assert_eq!(answer.into_body().bytes().await.unwrap(), b"ok".as_slice());
        assert_eq!(served.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn writes_are_never_hedged() {
        let hedge = Hedge { after: Duration::from_millis(1), up_to: 5 };
        let (port, served) = forgetful().await;
        let client = client(Some(hedge));
        let sent = tokio::time::timeout(Duration::from_millis(100), client.send(request(Method::PUT, port))).await;
        assert!(sent.is_err(), "nobody has answered");
        assert!(!served.is_finished(), "a second connection was made");
        served.abort();
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = client(None).send(request(Method::GET, port)).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Connect);
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        assert!(text.contains(&format!("connect to 127.0.0.1:{port}")), "{text}");
    }
}

//! Serving HTTP/1, HTTP/2 and gRPC on one listener, plain or under TLS, with the limits that keep a server alive.
//!
//! gRPC services become part of an axum router by [`tonic::service::Routes::into_axum_router`]; [`Server::serve`] does not
//! care which is which.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{GoDuration, ServerConfig};
use crate::dial::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::tls::{Socket, Tls};

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections at once; more wait in the system's queue. `None` for no limit.
    pub connections: Option<usize>,
    /// How long a client may take for the head of a request (HTTP/1) or for its first bytes.
    pub read_header_timeout: Duration,
    /// How long a peer may be silent on HTTP/2 before it is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long that may take.
    pub keep_alive_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub concurrent_streams: u32,
    /// After this long an HTTP/2 connection is asked to go once its requests are done, so that clients behind one address
    /// spread anew. `None` for never.
    pub connection_age: Option<Duration>,
    /// How long the requests of such a connection have; then it is cut. `None` for as long as they take.
    pub connection_age_grace: Option<Duration>,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: None,
            read_header_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            concurrent_streams: 256,
            connection_age: None,
            connection_age_grace: None,
        }
    }
}

impl ServerLimits {
    /// As the section `server` says for its HTTP listener.
    #[must_use]
    pub fn of_http(server: &ServerConfig) -> Self {
        let or = |value: Duration, default| if value.is_zero() { default } else { value };
        // On HTTP/1 an idle connection is one that waits for the head of its next request.
        let head = or(server.http_server_read_header_timeout.get(), server.http_server_read_timeout.get());
        let idle = or(server.http_server_idle_timeout.get(), server.http_server_read_timeout.get());
        Self {
            connections: limit(server.http_listen_conn_limit),
            read_header_timeout: or(head.max(idle), Self::default().read_header_timeout),
            ..Self::of_streams(server)
        }
    }

    /// As the section `server` says for its gRPC listener.
    #[must_use]
    pub fn of_grpc(server: &ServerConfig) -> Self {
        let bounded = |value: GoDuration| Some(value).filter(|value| *value != GoDuration::NEVER).map(GoDuration::get);
        Self {
            connections: limit(server.grpc_listen_conn_limit),
            connection_age: bounded(server.grpc_server_max_connection_age).filter(|age| !age.is_zero()),
            connection_age_grace: bounded(server.grpc_server_max_connection_age_grace),
            ..Self::of_streams(server)
        }
    }

    /// Both listeners speak HTTP/2.
    fn of_streams(server: &ServerConfig) -> Self {
        let streams = server.grpc_server_max_concurrent_streams;
        Self { concurrent_streams: if streams == 0 { u32::MAX } else { streams }, ..Self::default() }
    }
}

fn limit(connections: u64) -> Option<usize> {
    usize::try_from(connections).ok().filter(|limit| *limit > 0)
}

/// What went through a listener, exported as metrics by the owner.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes that came in.
    pub received_bytes: AtomicU64,
    /// Bytes that went out.
    pub sent_bytes: AtomicU64,
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections open now.
    pub open: AtomicUsize,
}

/// One listener's server.
#[derive(Debug, Clone, Default)]
pub struct Server {
    limits: ServerLimits,
    traffic: Arc<Traffic>,
    tls: Option<Tls>,
}

impl Server {
    /// A server with these limits.
    #[must_use]
    pub fn new(limits: ServerLimits) -> Self {
        Self { limits, traffic: Arc::default(), tls: None }
    }

    /// Speaks TLS, and only that; `None` for plain text. While it serves, the files of TLS are followed.
    #[must_use]
    pub fn tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// The figures, which grow while it serves.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Serves until `stop` is cancelled; then takes no more, tells every connection to finish, and waits for them until
    /// `grace` after that. Connections that are left then are cut. True if all finished.
    pub async fn serve(&self, listener: TcpListener, router: Router, stop: CancellationToken, grace: Duration) -> bool {
        let room =
            self.limits.connections.map(|limit| Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))));
        let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
        if let Some(tls) = &self.tls {
            tasks.spawn(tls.clone().follow(stop.clone()));
        }
        loop {
            let accepted = async {
                let permit = match &room {
                    // The semaphore is never closed, so there is always a permit in the end.
                    Some(room) => Arc::clone(room).acquire_owned().await.ok(),
                    None => None,
                };
                (permit, accept(&listener).await)
            };
            let (permit, stream) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            let (server, router, stop, cut) = (self.clone(), router.clone(), stop.clone(), cut.clone());
            tasks.spawn(async move {
                cut.run_until_cancelled(server.connection(stream, router, stop)).await;
                drop(permit);
            });
        }
        drop(listener);
        tasks.close();
        let finished = tokio::time::timeout(grace, tasks.wait()).await.is_ok();
        cut.cancel();
        tasks.wait().await;
        finished
    }

    async fn connection(&self, stream: TcpStream, router: Router, stop: CancellationToken) {
        let peer = stream.peer_addr().ok();
        // Answers are written whole; waiting for more to send only delays them.
        stream.set_nodelay(true).ok();
        let stream = Counted::new(stream, Arc::clone(&self.traffic));
        let stream = match &self.tls {
            None => Socket::Plain(stream),
            Some(tls) => {
                let shaken = tokio::select! {
                    shaken = tls.accept(stream) => shaken,
                    () = stop.cancelled() => return,
                };
                match shaken {
                    Ok(stream) => stream,
                    Err(error) => return tracing::debug!(?peer, %error, "TLS handshake failed"),
                }
            }
        };
        let builder = self.builder();
        let service = TowerToHyperService::new(WithPeer { router, peer });
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let age = async {
            match self.limits.connection_age {
                Some(age) => tokio::time::sleep(age).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = age => {
                connection.as_mut().graceful_shutdown();
                match self.limits.connection_age_grace {
                    None => connection.await,
                    Some(grace) => match tokio::time::timeout(grace, connection).await {
                        Ok(result) => result,
                        Err(_) => return tracing::debug!(?peer, "connection cut: it was too old"),
                    },
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(?peer, %error, "connection ended with an error");
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.read_header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.keep_alive_interval)
            .keep_alive_timeout(self.limits.keep_alive_timeout)
            .max_concurrent_streams(self.limits.concurrent_streams)
            .max_pending_accept_reset_streams(GIVEN_UP)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(64 << 10);
        builder
    }
}

/// Calls that their client gave up before this process came to look at them. More of them end a connection, and with it every call on
/// it: with the 20 that are usual, a querier that stood still for a moment lost all others who asked it.
const GIVEN_UP: usize = 1024;

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "connection could not be accepted");
                // Out of file descriptors, mostly: trying again at once would only burn the processor.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Adds the peer's address to every request, as `axum::extract::ConnectInfo<SocketAddr>` finds it.
#[derive(Clone)]
struct WithPeer {
    router: Router,
    peer: Option<std::net::SocketAddr>,
}

impl tower::Service<http::Request<hyper::body::Incoming>> for WithPeer {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = <Router as tower::Service<http::Request<hyper::body::Incoming>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::<http::Request<hyper::body::Incoming>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: http::Request<hyper::body::Incoming>) -> Self::Future {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        }
        self.router.call(request)
    }
}

/// A connection whose bytes are counted.
struct Counted {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl Counted {
    fn new(stream: TcpStream, traffic: Arc<Traffic>) -> Self {
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        traffic.open.fetch_add(1, Ordering::Relaxed);
        Self { stream, traffic }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.traffic.sent_bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.traffic.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.traffic.received_bytes.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

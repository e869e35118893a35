//! Serving HTTP/1, HTTP/2 and gRPC on one listener, with the limits that keep a server alive.
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
        }
    }
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
}

impl Server {
    /// A server with these limits.
    #[must_use]
    pub fn new(limits: ServerLimits) -> Self {
        Self { limits, traffic: Arc::default() }
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
            () = async { tokio::select! { () = stop.cancelled() => {}, () = age => {} } } => {
                connection.as_mut().graceful_shutdown();
                connection.await
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
            .adaptive_window(true)
            .max_header_list_size(64 << 10);
        builder
    }
}

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

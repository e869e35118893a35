//! Receiver: one listening socket and its connections, for one protocol.
//! Owns the socket and the loop that accepts; consumes no messages, its work comes from the network. Each request runs in a task
//! of the server's runtime; what requests may hold is bounded by the byte budget, not by a mailbox.
//! On restart: the same socket is accepted from again, so that no port is lost; connections that are open stay open.
//! Drain: the socket closes, connections are told to end, requests in flight are finished.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use vivace_runtime::tls::{Socket, Tls};
use vivace_runtime::{Cx, Failure, Part};

use crate::reply::Reply;

/// A pause after accepting failed: no file handles are left, and trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a connection may send before we read it, per stream and in all: memory that no request's budget knows of.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// The head of an HTTP/2 request.
const MAX_HEADER_BYTES: u32 = 64 << 10;

/// What answers requests.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Answers one request. With `stopping`, new requests are turned away.
    fn answer(&self, request: Request<Incoming>, stopping: bool) -> impl Future<Output = Response<Reply>> + Send;

    /// The answer when answering has panicked.
    fn broken(&self) -> Response<Reply>;
}

/// How connections are served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionOptions {
    /// Only HTTP/2, as gRPC needs.
    pub(crate) http2_only: bool,
    /// For reading the head of an HTTP/1 request, which an idle connection waits for, too.
    pub(crate) head_timeout: Option<Duration>,
    /// HTTP/1 connections serve one request each.
    pub(crate) close_after_each: bool,
    /// Requests at once on one connection; `None` is the library's choice.
    pub(crate) max_concurrent_streams: Option<u32>,
    /// Idle time after which an HTTP/2 connection is probed, and the wait for the answer.
    pub(crate) keepalive: Option<(Duration, Duration)>,
    /// Age at which a connection is asked to end, and the time that its requests have then.
    pub(crate) max_age: Option<(Duration, Duration)>,
}

/// What a receiver is built from, again and again.
pub(crate) struct Listening<A> {
    /// For the log: the kind of listener and its bound address.
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    /// Taken away, and so closed, when the receiver drains.
    pub(crate) listener: Arc<Mutex<Option<std::net::TcpListener>>>,
    pub(crate) answers: Arc<A>,
    pub(crate) options: ConnectionOptions,
    /// Plain text without it.
    pub(crate) tls: Option<Tls>,
    /// Where connections run.
    pub(crate) servers: tokio::runtime::Handle,
    /// All connections, those from before a restart included.
    pub(crate) connections: TaskTracker,
    /// Ends accepting and asks all connections to end.
    pub(crate) stop: CancellationToken,
    /// Tells the requests of all receivers that the process stops.
    pub(crate) stopping: CancellationToken,
}

impl<A> Clone for Listening<A> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            addr: self.addr,
            listener: Arc::clone(&self.listener),
            answers: Arc::clone(&self.answers),
            options: self.options,
            tls: self.tls.clone(),
            servers: self.servers.clone(),
            connections: self.connections.clone(),
            stop: self.stop.clone(),
            stopping: self.stopping.clone(),
        }
    }
}

/// The part.
pub(crate) struct Receiver<A> {
    listening: Listening<A>,
}

impl<A: Answers> Receiver<A> {
    pub(crate) fn new(listening: Listening<A>) -> Self {
        Self { listening }
    }
}

impl<A: Answers> Part for Receiver<A> {
    fn started(&mut self, cx: &mut Cx<Self>) {
        let listening = self.listening.clone();
        if cx.generation() == 0 {
            tracing::info!(listener = listening.name, addr = %listening.addr, "listening");
        }
        let (alive, servers) = (cx.alive(), listening.servers.clone());
        // The loop ends with this life of the part; connections do not.
        let accepting = servers.spawn(async move { alive.run_until_cancelled(listening.accept_all()).await });
        cx.spawn(accepting, |part, ended, cx| {
            if !part.listening.stop.is_cancelled() {
                cx.fail(match ended {
                    Ok(Some(Err(error))) => Failure::from(error),
                    Ok(Some(Ok(())) | None) => Failure::new("accepting has ended"),
                    Err(error) => Failure::from(error),
                });
            }
        });
    }

    fn drain(&mut self, _: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        self.listening.stop.cancel();
        self.listening.stopping.cancel();
        self.listening.listener.lock().take();
        self.listening.connections.close();
        let connections = self.listening.connections.clone();
        async move { connections.wait().await }.boxed_local()
    }

    fn observe(&self) -> serde_json::Value {
        serde_json::json!({ "connections": self.listening.connections.len() })
    }
}

impl<A: Answers> Listening<A> {
    /// Accepts until stopped.
    async fn accept_all(self) -> io::Result<()> {
        let Some(listener) = self.listener.lock().as_ref().map(std::net::TcpListener::try_clone).transpose()? else {
            return Ok(());
        };
        let listener = TcpListener::from_std(listener)?;
        let following = self.tls.clone().map(|tls| tls.follow(self.stop.clone()));
        let _following = following.map(|following| AbortOnDropHandle::new(tokio::spawn(following)));
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.connect(stream, peer),
                Err(error) => {
                    // The client gave up, or this process has no handles left: neither is a fault of the socket.
                    tracing::debug!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    fn connect(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "set TCP_NODELAY");
        }
        let this = self.clone();
        // The handle is not needed: the tracker knows the task.
        drop(self.connections.spawn_on(
            async move {
                if let Err(error) = this.serve(stream).await {
                    tracing::debug!(%peer, error, "connection ended");
                }
            },
            &self.servers,
        ));
    }

    /// Serves one connection to its end.
    async fn serve(&self, stream: TcpStream) -> Result<(), String> {
        let stream = match &self.tls {
            None => Socket::Plain(stream),
            Some(tls) => match self.stop.run_until_cancelled(tls.accept(stream)).await {
                Some(shaken) => shaken.map_err(|error| format!("TLS handshake failed: {error}"))?,
                None => return Ok(()),
            },
        };
        let service = service_fn(|request| {
            let answers = Arc::clone(&self.answers);
            let stopping = self.stop.is_cancelled();
            async move {
                let answered = AssertUnwindSafe(answers.answer(request, stopping)).catch_unwind().await;
                answered.or_else(|_| {
                    tracing::error!("answering a request panicked");
                    Ok::<_, std::convert::Infallible>(answers.broken())
                })
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let (age, grace) = self.options.max_age.unwrap_or((Duration::MAX, Duration::MAX));
        let asked = tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
            () = self.stop.cancelled() => None,
            () = sleep(age) => Some(grace),
        };
        connection.as_mut().graceful_shutdown();
        // When the process stops, the drain's deadline is what ends it.
        tokio::select! {
            ended = connection => ended.map_err(|error| error.to_string()),
            () = sleep(asked.unwrap_or(Duration::MAX)) => Err("connection is too old".to_owned()),
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let options = self.options;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(options.head_timeout)
            .keep_alive(!options.close_after_each);
        let mut http2 = builder.http2();
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES);
        if let Some(streams) = options.max_concurrent_streams {
            http2.max_concurrent_streams(streams);
        }
        if let Some((interval, timeout)) = options.keepalive {
            http2.keep_alive_interval(interval).keep_alive_timeout(timeout);
        }
        if options.http2_only { builder.http2_only() } else { builder }
    }
}

/// A sleep that may be for ever.
async fn sleep(duration: Duration) {
    if duration == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(duration).await;
}

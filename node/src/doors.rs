//! The two listeners of a process, HTTP and gRPC. They are bound first, so that a port that is taken fails the start before
//! anything else happens, and opened last, when every role has said what it serves.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vivace_runtime::config::ServerConfig;
use vivace_runtime::tls::Tls;
use vivace_runtime::{Failure, Listen, Network, Server, ServerLimits};

/// Connections get at most this long for their requests when the process ends, whatever the configuration says.
const GRACE_MAX: Duration = Duration::from_secs(4);

/// Ends what others keep open to this process.
pub(crate) type HangUp = Box<dyn FnOnce() + Send>;

/// Bound, not yet served.
pub(crate) struct Doors {
    http: Door,
    grpc: Door,
    grace: Duration,
}

struct Door {
    name: &'static str,
    listener: TcpListener,
    addr: SocketAddr,
    tls: Option<Tls>,
    limits: ServerLimits,
}

impl Doors {
    /// Binds both ports of the section `server`.
    ///
    /// # Errors
    /// A port is taken, an address is not ours, or the files of TLS cannot be used; names the key.
    pub(crate) fn bind(server: &ServerConfig) -> Result<Self, Failure> {
        let http = listen(
            "server.http_listen_port",
            &server.http_listen_network,
            &server.http_listen_address,
            server.http_listen_port,
        )?;
        let grpc = listen(
            "server.grpc_listen_port",
            &server.grpc_listen_network,
            &server.grpc_listen_address,
            server.grpc_listen_port,
        )?;
        let http_tls = Tls::of_server(server, "http_tls_config", &server.http_tls_config)?;
        let grpc_tls = Tls::of_server(server, "grpc_tls_config", &server.grpc_tls_config)?;
        let grace: Duration = server.graceful_shutdown_timeout.into();
        Ok(Self {
            http: Door::new("http", http, http_tls, ServerLimits::of_http(server))?,
            grpc: Door::new("grpc", grpc, grpc_tls, ServerLimits::of_grpc(server))?,
            grace: grace.min(GRACE_MAX),
        })
    }

    /// Where HTTP is taken; the port is the real one where 0 was configured.
    pub(crate) fn http_addr(&self) -> SocketAddr {
        self.http.addr
    }

    /// Where gRPC is taken.
    pub(crate) fn grpc_addr(&self) -> SocketAddr {
        self.grpc.addr
    }

    /// Serves from now on. `hang_up` ends calls to this process that would otherwise never end; it is done when the process
    /// stops and HTTP is over. `stopping` comes before anything is closed.
    pub(crate) fn open(
        self,
        http: Router,
        grpc: Router,
        hang_up: Vec<HangUp>,
        stopping: Option<BoxFuture<'static, ()>>,
    ) -> Running {
        let stop = CancellationToken::new();
        let mut servers = Vec::new();
        for (door, router) in [(self.http, http), (self.grpc, grpc)] {
            tracing::info!(listener = door.name, addr = %door.addr, tls = door.tls.is_some(), "listening");
            let (server, stop, grace) = (Server::new(door.limits).tls(door.tls), stop.clone(), self.grace);
            servers.push(tokio::spawn(async move { server.serve(door.listener, router, stop, grace).await }));
        }
        Running { servers, stop, hang_up, stopping }
    }
}

impl Door {
    fn new(name: &'static str, listener: TcpListener, tls: Option<Tls>, limits: ServerLimits) -> Result<Self, Failure> {
        let addr = listener.local_addr()?;
        Ok(Self { name, listener, addr, tls, limits })
    }
}

fn listen(key: &str, network: &str, host: &str, port: u16) -> Result<TcpListener, Failure> {
    let network = match network {
        "" | "tcp" => Network::Tcp,
        "tcp4" => Network::Tcp4,
        "tcp6" => Network::Tcp6,
        other => return Err(Failure::new(format!("{key}: network {other:?} is none of tcp, tcp4, tcp6"))),
    };
    Ok(Listen { key: key.to_owned(), network, host: host.to_owned(), port }.bind_tokio()?)
}

/// What runs until the process ends and is not a part: the servers of queries, pages and calls between processes. The
/// receivers are parts of the distributor.
pub(crate) struct Running {
    /// HTTP, then gRPC.
    servers: Vec<tokio::task::JoinHandle<bool>>,
    stop: CancellationToken,
    hang_up: Vec<HangUp>,
    stopping: Option<BoxFuture<'static, ()>>,
}

impl Running {
    /// Takes no more connections, lets requests finish within the grace period.
    pub(crate) async fn close(self) {
        if let Some(stopping) = self.stopping {
            stopping.await;
        }
        self.stop.cancel();
        let mut hang_up = self.hang_up;
        for server in self.servers {
            // A server task ends by its own grace period; a panic in it has been logged.
            server.await.ok();
            // Queries are answered by now, or it is too late for them.
            hang_up.drain(..).for_each(|hang_up| hang_up());
        }
    }
}

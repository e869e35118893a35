//! The distributor's table of children, and what it is wired from.
//!
//! ```text
//! child       factory          on panic           while away         on stop                        limit
//! otlp_grpc   same socket      restart, backoff   sockets queue      close, finish what is in it    5 a minute, then the component
//! otlp_http   same socket      restart, backoff   sockets queue      close, finish what is in it    5 a minute, then the component
//! admission   empty            restart, backoff   refuse retryably   -                              5 a minute, then the component
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vivace_log::{Log, Progress};
use vivace_runtime::metrics::Registry;
use vivace_runtime::tls::{Tls, TlsError};
use vivace_runtime::{
    Bounds, Child, Clock, Compute, Listen, ListenError, Network, Placement, Restart, Rng, Supervisor,
};

use crate::admission::{self, Admission};
use crate::config::{Config, GrpcReceiverConfig, OtlpHttpConfig, Receiver as ReceiverConfig};
use crate::debug::SpanDebug;
use crate::intake::Intake;
use crate::limits::TenantLimits;
use crate::metrics::Metrics;
use crate::otlp_grpc::OtlpGrpc;
use crate::otlp_http::OtlpHttp;
use crate::partitions::Partitions;
use crate::push::{MAX_RECORD_BYTES, Pusher};
use crate::receiver::{Answers, ConnectionOptions, Listening, Receiver};
use crate::tenant::Tenancy;

/// When an HTTP/2 peer that has been silent is probed, and how long it may take, unless configured: a peer behind a cut network
/// must not hold its connection for hours.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// What a distributor is wired from.
pub struct Wiring {
    /// The section `distributor`.
    pub config: Config,
    /// `multitenancy_enabled`: tenants are named by a header; otherwise there is one.
    pub multitenancy: bool,
    /// The limits of tenants.
    pub limits: Arc<dyn TenantLimits>,
    /// Where records go. Its budget bounds all requests of this distributor, from their first byte until they are durable; it
    /// must hold at least four of the largest requests.
    pub log: Arc<dyn Log>,
    /// Which partition a trace is written to.
    pub partitions: Arc<dyn Partitions>,
    /// What one record may hold, [`MAX_RECORD_BYTES`](crate::MAX_RECORD_BYTES) at most; larger requests are split between traces.
    pub max_record_bytes: usize,
    /// The consumer whose progress an acknowledgement waits for, where it runs in this process. `None`: durable is enough.
    pub progress: Option<Progress>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for `artificial_delay`.
    pub rng: Rng,
    /// Where large bodies are decompressed and sliced.
    pub compute: Compute,
    /// The runtime that connections run on.
    pub servers: tokio::runtime::Handle,
    /// Where metrics are registered.
    pub metrics: Registry,
    /// Where the parts run.
    pub placement: Placement,
}

/// Why a distributor could not be wired. Nothing listens then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or the address is not ours; the configuration key is in the text.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS of a receiver; the configuration key is in the text.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key holds what cannot be used.
    #[error("{key}: {what}")]
    Config {
        /// The key, from the root.
        key: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `otlp_grpc` or `otlp_http`.
    pub listener: &'static str,
    /// The receiver's id in the configuration: `otlp` or `otlp/name`.
    pub receiver: String,
    /// The bound address; the port is the real one where 0 was configured.
    pub addr: SocketAddr,
}

/// A wired distributor. Its parts start, drain and end with the supervisor above it.
#[derive(Clone, Debug)]
pub struct Distributor {
    supervisor: Supervisor,
    addresses: Vec<Address>,
}

impl Distributor {
    /// Binds all sockets and adds the component `distributor` to `parent`, in its next row: before the row of the live-store,
    /// whose progress requests in flight wait for while the distributor drains. Connections are taken from the moment that the
    /// parts run; until then they queue in the operating system.
    ///
    /// # Errors
    /// See [`StartError`]; `parent` is unchanged then.
    pub fn wire(wiring: Wiring, parent: &Supervisor) -> Result<Self, StartError> {
        let Wiring {
            config,
            multitenancy,
            limits,
            log,
            partitions,
            max_record_bytes,
            progress,
            clock,
            rng,
            compute,
            servers,
            metrics,
            placement,
        } = wiring;
        let debug = Arc::new(SpanDebug::new(&config, &metrics));
        let metrics = Metrics::new(&metrics);
        let admission = Child::<Admission>::new("admission", Bounds::messages(admission::MAILBOX));
        let pusher = Arc::new(Pusher {
            limits: Arc::clone(&limits),
            admission: admission.mailbox(),
            log,
            partitions,
            max_record_bytes: max_record_bytes.min(MAX_RECORD_BYTES),
            progress,
            clock,
            stopping: CancellationToken::new(),
            rng: Mutex::new(rng),
            compute,
            metrics: metrics.clone(),
            debug,
            shares: Arc::default(),
            max_attribute_bytes: config.max_attribute_bytes,
            artificial_delay: config.artificial_delay.get(),
            retry_after: config.retry_after_on_resource_exhausted.get(),
            error_lines: Pusher::error_lines(),
            truncation_lines: Pusher::truncation_lines(),
        });
        let mut plan = Plan {
            intake: IntakePlan {
                pusher,
                metrics,
                tenancy: if multitenancy { Tenancy::Header } else { Tenancy::Single },
            },
            servers,
            sockets: Vec::new(),
            add: Vec::new(),
        };
        for (id, receiver) in config.receivers.effective() {
            let ReceiverConfig::Otlp(otlp) = receiver else {
                tracing::warn!(receiver = id, "this kind of receiver is not available yet and does not listen");
                continue;
            };
            if let Some(grpc) = otlp.protocols.grpc.get() {
                plan.otlp_grpc(&id, grpc)?;
            }
            if let Some(http) = otlp.protocols.http.get() {
                plan.otlp_http(&id, http)?;
            }
        }
        // From here on nothing fails.
        let supervisor = parent.component("distributor", Restart::default(), placement);
        for add in plan.add {
            add(&supervisor);
        }
        supervisor.add(admission, move |cx| Ok(Admission::new(Arc::clone(&limits), cx.now())));
        Ok(Self { supervisor, addresses: plan.sockets })
    }

    /// Everything that listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The component's supervisor: its state, its tree, its drain.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }
}

struct IntakePlan {
    pusher: Arc<Pusher>,
    metrics: Metrics,
    tenancy: Tenancy,
}

impl IntakePlan {
    fn intake(&self, id: &str, transport: &'static str) -> Arc<Intake> {
        let metrics = self.metrics.receiver(id, transport);
        Arc::new(Intake { pusher: Arc::clone(&self.pusher), tenancy: self.tenancy, metrics })
    }
}

type Add = Box<dyn FnOnce(&Supervisor)>;

/// Sockets that are bound and the parts that will serve them.
struct Plan {
    intake: IntakePlan,
    servers: tokio::runtime::Handle,
    sockets: Vec<Address>,
    add: Vec<Add>,
}

impl Plan {
    fn otlp_grpc(&mut self, id: &str, config: &GrpcReceiverConfig) -> Result<(), StartError> {
        let key = format!("distributor.receivers.{id}.protocols.grpc");
        let tls = config.tls.get().map(|tls| crate::tls::open(format!("{key}.tls"), tls)).transpose()?;
        let parameters = &config.keepalive.server_parameters;
        let or = |configured: Duration, default| if configured.is_zero() { default } else { configured };
        let age = or(parameters.max_connection_age.get(), Duration::MAX);
        let grace = or(parameters.max_connection_age_grace.get(), Duration::MAX);
        let options = ConnectionOptions {
            http2_only: true,
            max_concurrent_streams: Some(config.max_concurrent_streams).filter(|streams| *streams > 0),
            keepalive: Some((or(parameters.time.get(), KEEPALIVE.0), or(parameters.timeout.get(), KEEPALIVE.1))),
            max_age: (age != Duration::MAX).then_some((age, grace)),
            ..ConnectionOptions::default()
        };
        let answers = OtlpGrpc::new(self.intake.intake(id, "grpc"), config.max_recv_msg_size_mib);
        self.listen("otlp_grpc", id, &key, &config.endpoint, &config.transport, answers, (options, tls))
    }

    fn otlp_http(&mut self, id: &str, config: &OtlpHttpConfig) -> Result<(), StartError> {
        let key = format!("distributor.receivers.{id}.protocols.http");
        let tls = config.tls.get().map(|tls| crate::tls::open(format!("{key}.tls"), tls)).transpose()?;
        let head_timeout = config.read_header_timeout.get().max(config.idle_timeout.get());
        let options = ConnectionOptions {
            head_timeout: Some(head_timeout).filter(|timeout| !timeout.is_zero()),
            close_after_each: !config.keep_alives_enabled,
            keepalive: Some(KEEPALIVE),
            ..ConnectionOptions::default()
        };
        let answers = OtlpHttp::new(self.intake.intake(id, "http"), config)
            .map_err(|what| StartError::Config { key: key.clone(), what })?;
        self.listen("otlp_http", id, &key, &config.endpoint, &config.transport, answers, (options, tls))
    }

    #[expect(clippy::too_many_arguments, reason = "the two callers name each of them once")]
    fn listen<A: Answers>(
        &mut self,
        name: &'static str,
        id: &str,
        key: &str,
        endpoint: &str,
        transport: &str,
        answers: A,
        (options, tls): (ConnectionOptions, Option<Tls>),
    ) -> Result<(), StartError> {
        let listen = address(format!("{key}.endpoint"), endpoint, network(key, transport)?)?;
        let listener = listen.bind()?;
        let addr = listener.local_addr().map_err(|error| StartError::Config {
            key: format!("{key}.endpoint"),
            what: format!("the bound address cannot be read: {error}"),
        })?;
        self.sockets.push(Address { listener: name, receiver: id.to_owned(), addr });
        let listening = Listening {
            name,
            addr,
            listener: Arc::new(Mutex::new(Some(listener))),
            answers: Arc::new(answers),
            options,
            tls,
            servers: self.servers.clone(),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
            stopping: self.intake.pusher.stopping.clone(),
        };
        let child_name = if id == "otlp" { name.to_owned() } else { format!("{name} {id}") };
        self.add.push(Box::new(move |supervisor| {
            // It gets no messages: the bound is the smallest.
            let child = Child::<Receiver<A>>::new(child_name, Bounds::messages(1)).waits_for("admission");
            supervisor.add(child, move |_| Ok(Receiver::new(listening.clone())));
        }));
        Ok(())
    }
}

fn network(key: &str, transport: &str) -> Result<Network, StartError> {
    match transport {
        "" | "tcp" => Ok(Network::Tcp),
        "tcp4" => Ok(Network::Tcp4),
        "tcp6" => Ok(Network::Tcp6),
        other => Err(StartError::Config {
            key: format!("{key}.transport"),
            what: format!("`{other}` is not one of tcp, tcp4, tcp6"),
        }),
    }
}

fn address(key: String, endpoint: &str, network: Network) -> Result<Listen, StartError> {
    let parsed = endpoint.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    match parsed {
        Some((host, port)) => Ok(Listen { key, network, host, port }),
        None => Err(StartError::Config { key, what: format!("`{endpoint}` is not a host and a port") }),
    }
}

#[cfg(test)]
mod tests;

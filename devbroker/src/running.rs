//! Starts a broker and ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use vivace_log::{Budget, Metrics};
use vivace_runtime::{Bounds, Compute, Listen, Network};

use crate::admin;
use crate::broker::Broker;
use crate::connection::Connection;
use crate::error::Error;
use crate::faults::Faults;
use crate::groups::Groups;
use crate::options::Options;
use crate::replica::Ground;
use crate::topic_settings::TopicSettings;
use crate::topics::Topics;

/// Bytes between a request and the disk.
const IN_FLIGHT_BYTES: usize = 256 << 20;
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Threads for files.
const FILE_THREADS: usize = 4;
/// How often groups look for members that fell silent.
const GROUP_TICK: Duration = Duration::from_millis(100);
/// What the log takes as one record, less room for its own head.
const LONGEST_MESSAGE_BYTES: usize = (32 << 20) - (64 << 10);

/// A development broker. There is nothing to it but to start one.
#[derive(Clone, Copy, Debug)]
pub struct DevBroker;

/// A broker that runs. Dropping it ends it as a crash would, save that what is queued is still written; [`Running::stop`] waits
/// for that.
pub struct Running {
    broker: Arc<Broker>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    compute: Compute,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl DevBroker {
    /// Recovers what the folder holds, makes the topics that are asked for, and listens. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// [`Error`]; nothing is listening then.
    pub async fn start(options: Options) -> Result<Running, Error> {
        check(&options)?;
        tracing::warn!(
            "this is a development broker: one copy of everything, no encryption, no permissions; use Apache Kafka in production"
        );
        let advertise =
            options.advertise.as_deref().map(|text| host_and_port("advertised address", text)).transpose()?;
        let (listeners, addresses) = bind(&options)?;
        let admin_listener = options.admin.as_deref().map(bind_admin).transpose()?;
        let admin = admin_listener.as_ref().map(TcpListener::local_addr).transpose();
        let admin = admin.map_err(|source| Error::Io { action: "ask for the admin port", source })?;

        let compute = Compute::new("devbroker-files", FILE_THREADS, Bounds::messages(1024))
            .map_err(|source| Error::Io { action: "start threads", source })?;
        let ground = Ground {
            disk: Arc::clone(&options.disk),
            clock: Arc::clone(&options.clock),
            compute: compute.clone(),
            budget: Budget::new(IN_FLIGHT_BYTES, RETRY_AFTER),
            metrics: Metrics::unregistered(),
            segment_bytes: options.segment_bytes,
            rng: Arc::new(Mutex::new(options.rng())),
        };
        let groups = Groups::open(options.dir.join("groups"), &ground).await?;
        let topics = Topics::open(options.dir.clone(), ground).await?;
        make_topics(&topics, &options.topics).await?;

        let broker = Arc::new(Broker::new(topics, groups, Faults::default(), options, advertise));
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let connections = Arc::new(Semaphore::new(broker.options.max_connections));
        for listener in listeners {
            tasks.spawn(accept(Arc::clone(&broker), listener, Arc::clone(&connections), stopping.clone()));
        }
        if let Some(listener) = admin_listener {
            let router = admin::router(broker.faults.clone());
            tasks.spawn(serve_admin(listener, router, stopping.clone()));
        }
        tasks.spawn(keep_house(Arc::clone(&broker), stopping.clone()));
        tasks.spawn(watch_groups(Arc::clone(&broker), stopping));
        for address in &addresses {
            tracing::info!(addr = %address, listener = "kafka", "listening");
        }
        if let Some(address) = admin {
            tracing::info!(addr = %address, listener = "admin", "listening");
        }
        Ok(Running { broker, addresses, admin, compute, stop, tasks })
    }
}

fn check(options: &Options) -> Result<(), Error> {
    if options.listen.is_empty() {
        return Err(Error::NoAddress);
    }
    if options.max_message_bytes > LONGEST_MESSAGE_BYTES {
        let message = format!(
            "the longest message is {} bytes, at most {LONGEST_MESSAGE_BYTES} are possible",
            options.max_message_bytes
        );
        return Err(Error::Option(message));
    }
    if options.default_partitions < 1 || options.max_connections == 0 {
        return Err(Error::Option("partitions and connections are at least 1".to_owned()));
    }
    Ok(())
}

fn host_and_port(what: &'static str, text: &str) -> Result<(String, u16), Error> {
    let wrong = || Error::Address { what, address: text.to_owned() };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // More colons without brackets: nobody knows where the port begins.
    if bare.is_none() && host.contains(':') {
        return Err(wrong());
    }
    let port = port.parse().map_err(|_not_a_port| wrong())?;
    Ok((bare.unwrap_or(host).to_owned(), port))
}

fn bind(options: &Options) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Error> {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for text in &options.listen {
        let listener = bind_one("address to listen on", text)?;
        let address = listener.local_addr().map_err(|source| Error::Io { action: "ask for the port", source })?;
        if !address.ip().is_loopback() && !options.allow_remote {
            return Err(Error::Remote { address });
        }
        listeners.push(listener);
        addresses.push(address);
    }
    Ok((listeners, addresses))
}

fn bind_admin(text: &str) -> Result<TcpListener, Error> {
    let listener = bind_one("admin address", text)?;
    let address = listener.local_addr().map_err(|source| Error::Io { action: "ask for the admin port", source })?;
    if address.ip().is_loopback() { Ok(listener) } else { Err(Error::RemoteAdmin { address }) }
}

fn bind_one(what: &'static str, text: &str) -> Result<TcpListener, Error> {
    let (host, port) = host_and_port(what, text)?;
    Ok(Listen { key: what.to_owned(), network: Network::Tcp, host, port }.bind_tokio()?)
}

async fn make_topics(topics: &Topics, wanted: &[(String, i32)]) -> Result<(), Error> {
    for (name, partitions) in wanted {
        let present = topics.get(name).map(|topic| topic.slots.len());
        let made = match present {
            None => topics.create(name, *partitions, TopicSettings::default(), false).await.map(|_| ()),
            Some(present) if usize::try_from(*partitions).is_ok_and(|wanted| wanted > present) => {
                topics.grow(name, *partitions, false).await
            }
            Some(_) => Ok(()),
        };
        made.map_err(|error| Error::Topic { name: name.clone(), message: error.message })?;
    }
    Ok(())
}

/// Takes connections until the broker stops; its connections end with it.
async fn accept(broker: Arc<Broker>, listener: TcpListener, room: Arc<Semaphore>, mut stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = stopped(&mut stopping) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "accept connection");
                // Most likely there are too many files open; trying at once would only burn time.
                broker.clock.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%peer, limit = broker.options.max_connections, "refuse connection: there are too many");
            continue;
        };
        match Connection::new(Arc::clone(&broker), stream, peer) {
            Ok(connection) => {
                connections.spawn(async move {
                    connection.run().await;
                    drop(permit);
                });
            }
            Err(error) => tracing::debug!(%peer, error = &error as &dyn std::error::Error, "set up connection"),
        }
    }
}

/// Waits until the broker stops or is dropped.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    stopping.wait_for(|stop| *stop).await.ok();
}

async fn serve_admin(listener: TcpListener, router: axum::Router, mut stopping: watch::Receiver<bool>) {
    let stop = async move { stopped(&mut stopping).await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "serve admin port");
    }
}

async fn keep_house(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = broker.clock.sleep(broker.options.retention_check) => broker.expire().await,
            () = stopped(&mut stopping) => return,
        }
    }
}

async fn watch_groups(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = broker.clock.sleep(GROUP_TICK) => broker.groups.tick(broker.clock.now()),
            () = stopped(&mut stopping) => return,
        }
    }
}

impl Running {
    /// The first address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses, in the order of the options.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The admin port's address, if there is one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The failures to happen.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.broker.faults
    }

    /// The options that it was started with. Started again with the same, it has the same topics, records and offsets; its
    /// ports are new unless the options name them.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.broker.options
    }

    #[cfg(test)]
    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Ends the connections, finishes what is queued and closes the files.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.broker.topics.close().await;
        self.compute.stop().await;
    }
}

//! Channels to live-stores, by address. They are made on first use, and go when the ring no longer names the address or when
//! their peer stays silent.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use vivace_runtime::{Clock, Deadline, Peer};

use super::settings::RingSettings;

/// How long a peer that is down and does not answer is not tried again. Short: what comes back must be asked within seconds.
const DEAD_FOR: std::time::Duration = std::time::Duration::from_secs(2);

/// See the module.
pub(super) struct Pool {
    settings: RingSettings,
    clock: Arc<dyn Clock>,
    /// Connections live on the runtime of servers and clients, not on the threads of parts.
    runtime: Handle,
    known: Mutex<HashMap<String, Known>>,
    /// Addresses that did not answer in time.
    doubted: Mutex<HashSet<String>>,
}

struct Known {
    peer: Peer,
    /// Since when its health checks fail.
    failing: Option<Instant>,
    /// Until when it counts as dead.
    dead_until: Option<Instant>,
}

impl Pool {
    pub(super) fn new(settings: RingSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock, runtime: Handle::current(), known: Mutex::default(), doubted: Mutex::default() }
    }

    /// The peer at an address.
    ///
    /// # Errors
    /// UNAVAILABLE: the address makes no sense.
    pub(super) fn peer(&self, address: &str) -> Result<Peer, Status> {
        let mut known = self.known.lock();
        if let Some(known) = known.get(address) {
            return Ok(known.peer.clone());
        }
        let peer = self.dial(address)?;
        known.insert(address.to_owned(), Known { peer: peer.clone(), failing: None, dead_until: None });
        Ok(peer)
    }

    fn dial(&self, address: &str) -> Result<Peer, Status> {
        let _on = self.runtime.enter();
        let channel = self.settings.dial.channel(address).map_err(|error| Status::unavailable(error.to_string()))?;
        let settings = &self.settings;
        // The address stands beside what it says.
        Ok(Peer::new(channel, "it").limits(settings.max_request_bytes, settings.max_reply_bytes))
    }

    /// It did not answer in time: before it is asked again, it is looked whether it answers at all. A network that swallows what is
    /// sent would cost every question all of its patience otherwise.
    pub(super) fn doubt(&self, address: &str) {
        self.doubted.lock().insert(address.to_owned());
    }

    pub(super) fn is_doubted(&self, address: &str) -> bool {
        self.doubted.lock().contains(address)
    }

    /// Whether a peer that is said to be down, or is in doubt, answers at all, so that nobody waits long for one that does not.
    ///
    /// # Errors
    /// UNAVAILABLE: it does not.
    pub(super) async fn alive(&self, address: &str) -> Result<(), Status> {
        let dead = || Status::unavailable("it does not answer health checks");
        let peer = self.peer(address)?;
        let now = self.clock.now();
        if self.known.lock().get(address).and_then(|known| known.dead_until).is_some_and(|until| now < until) {
            return Err(dead());
        }
        let answers = self.answers(&peer).await;
        // The connection of one that says nothing may hang for long after the network works again.
        let fresh = if answers { None } else { Some(self.dial(address)?) };
        if let Some(known) = self.known.lock().get_mut(address) {
            match fresh {
                None => known.dead_until = None,
                Some(fresh) => (known.peer, known.dead_until) = (fresh, Some(self.clock.now() + DEAD_FOR)),
            }
        }
        if answers {
            self.doubted.lock().remove(address);
            return Ok(());
        }
        Err(dead())
    }

    /// Whether a peer that is being asked answers a health check.
    pub(super) async fn shows_life(&self, address: &str) -> bool {
        match self.peer(address) {
            Ok(peer) => self.answers(&peer).await,
            Err(_no_address) => false,
        }
    }

    /// Any answer to a health check is a sign of life, also that it serves not yet.
    async fn answers(&self, peer: &Peer) -> bool {
        let mut client = HealthClient::new(peer.channel());
        let check = async { client.check(HealthCheckRequest { service: String::new() }).await.map(drop) };
        match Deadline::after(self.settings.health_timeout).bound("the health check", check).await {
            Ok(()) => true,
            Err(status) => {
                !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
                    && std::error::Error::source(&status).is_none()
            }
        }
    }

    /// Drops channels to addresses that the ring no longer has.
    pub(super) fn keep(&self, addresses: &HashSet<String>) {
        self.known.lock().retain(|address, _| addresses.contains(address));
        self.doubted.lock().retain(|address| addresses.contains(address));
    }

    /// Asks every peer for its health, and drops the channels of those that fail for longer than the grace period. They are
    /// dialled anew when they are asked next.
    pub(super) async fn check(&self) {
        if !self.settings.health_checks {
            return;
        }
        let peers: Vec<(String, Peer)> =
            self.known.lock().iter().map(|(address, known)| (address.clone(), known.peer.clone())).collect();
        let checks = peers.into_iter().map(|(address, peer)| async move { (address, self.answers(&peer).await) });
        let checked: Vec<_> = stream::iter(checks).buffer_unordered(self.settings.health_concurrency).collect().await;
        let now = self.clock.now();
        let mut known = self.known.lock();
        for (address, answers) in checked {
            let Some(entry) = known.get_mut(&address) else { continue };
            if answers {
                entry.failing = None;
                continue;
            }
            let since = *entry.failing.get_or_insert(now);
            if now.saturating_duration_since(since) >= self.settings.health_grace {
                tracing::debug!(address, "a live-store does not answer health checks; its connection is dropped");
                known.remove(&address);
                self.doubt(&address);
            }
        }
    }

    /// Addresses with a channel.
    pub(super) fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = self.known.lock().keys().cloned().collect();
        addresses.sort();
        addresses
    }
}

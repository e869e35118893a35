//! Frontends: keeps links open to every query-frontend, so that they can ask this querier.
//!
//! Owns the links by address. Looks up `querier.frontend_worker.frontend_address` every `dns_lookup_duration`; consumes
//! nothing. On restart: all links are opened anew; jobs on the old ones are tried elsewhere by their query-frontends. On stop:
//! query-frontends are told that no further job is wanted, and running jobs end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use vivace_runtime::tls::TlsError;
use vivace_runtime::{
    Answers, Bounds, Child, Clock, Cx, Dial, EndpointRouter, LinkTo, MAX_MESSAGE_BYTES, Part, Peer, Placement, Restart,
    Rng, Supervisor,
};

use crate::config::Config;

/// Waits between attempts to open a link grow from here,
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// to here.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The port of an address without one, as Tempo has it.
const DEFAULT_PORT: u16 = 443;

/// What links are made of.
#[derive(Clone)]
struct Setup {
    /// `host` and port.
    frontend: (String, u16),
    every: Duration,
    /// Links in all, or to each.
    links: Links,
    dial: Dial,
    name: String,
    answers: Answers,
    runtime: Handle,
    clock: Arc<dyn Clock>,
    /// What chance begins with here, and which process this is.
    seed: u64,
}

/// How many links there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// So many, divided among the query-frontends.
    Divided(usize),
    /// So many to each.
    Each(usize),
}

impl Links {
    fn of(config: &Config) -> Self {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        if config.frontend_worker.match_max_concurrent {
            Self::Divided(count(config.max_concurrent_queries))
        } else {
            Self::Each(count(config.frontend_worker.parallelism))
        }
    }

    /// How many to the query-frontend at this place among all: at least one, the remainder to the first.
    fn to(self, place: usize, frontends: usize) -> usize {
        match self {
            Self::Each(count) => count,
            Self::Divided(all) => (all / frontends + usize::from(place < all % frontends)).max(1),
        }
    }
}

/// The part.
pub struct Frontends {
    setup: Setup,
    rng: Rng,
    /// Each link ends when its token is cancelled.
    links: BTreeMap<SocketAddr, Vec<CancellationToken>>,
    /// Links that have not ended.
    open: watch::Sender<usize>,
    all: CancellationToken,
    /// A part that is rebuilt leaves none behind.
    _ends: DropGuard,
    last_error: Option<String>,
}

impl std::fmt::Debug for Frontends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frontends").field("links", &self.links.keys()).finish_non_exhaustive()
    }
}

impl Frontends {
    /// Adds it below `parent`. `querier` is what query-frontends may ask, `host` the name of this host. To be called inside the
    /// runtime of servers and clients: connections live there.
    ///
    /// # Errors
    /// The files or values of `querier.frontend_worker.grpc_client_config.tls_*` cannot be used.
    pub fn add(
        parent: &Supervisor,
        config: &Config,
        querier: &EndpointRouter,
        host: &str,
        clock: Arc<dyn Clock>,
        rng: &mut Rng,
        placement: Placement,
    ) -> Result<(), TlsError> {
        let worker = &config.frontend_worker;
        let every = worker.dns_lookup_duration.get();
        let setup = Setup {
            frontend: split(&worker.frontend_address),
            every: if every.is_zero() { Duration::from_secs(10) } else { every },
            links: Links::of(config),
            dial: Dial::of("querier.frontend_worker.grpc_client_config", &worker.grpc_client_config)?,
            name: if worker.id.is_empty() { host.to_owned() } else { worker.id.clone() },
            answers: querier.answers(),
            runtime: Handle::current(),
            clock,
            seed: rng.next(),
        };
        let policy = Restart::default().at_most(2, Duration::from_secs(300));
        let component = parent.component("frontend-links", policy, placement);
        component.add(Child::<Self>::new("frontends", Bounds::messages(1)), move |_| Ok(Self::new(setup.clone())));
        Ok(())
    }

    fn new(setup: Setup) -> Self {
        let all = CancellationToken::new();
        Self {
            rng: Rng::seeded(setup.seed),
            setup,
            links: BTreeMap::new(),
            open: watch::Sender::new(0),
            _ends: all.clone().drop_guard(),
            all,
            last_error: None,
        }
    }

    fn look(&mut self, cx: &mut Cx<Self>) {
        let (host, port) = self.setup.frontend.clone();
        let looked_up = async move {
            match tokio::net::lookup_host((host.as_str(), port)).await {
                Ok(addresses) => Ok(addresses.collect::<BTreeSet<_>>()),
                Err(error) => Err(error.to_string()),
            }
        };
        cx.spawn(looked_up, |part, found, cx| {
            part.found(found);
            if !part.all.is_cancelled() {
                cx.after(part.setup.every, Self::look);
            }
        });
    }

    /// A look-up that fails or finds nothing changes nothing: links that work stay.
    fn found(&mut self, found: Result<BTreeSet<SocketAddr>, String>) {
        let name = &self.setup.frontend.0;
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                self.last_error = None;
                self.follow(&addresses);
            }
            Ok(_) => self.last_error = Some(format!("{name} has no address")),
            Err(error) => self.last_error = Some(format!("look up {name}: {error}")),
        }
        if let Some(error) = &self.last_error {
            tracing::warn!(error, "query-frontends cannot be found");
        }
    }

    fn follow(&mut self, addresses: &BTreeSet<SocketAddr>) {
        self.links.retain(|address, links| {
            let stays = addresses.contains(address);
            if !stays {
                tracing::info!(%address, "a query-frontend is gone");
                links.iter().for_each(CancellationToken::cancel);
            }
            stays
        });
        for (place, address) in addresses.iter().enumerate() {
            let wanted = self.setup.links.to(place, addresses.len());
            let mut links = self.links.remove(address).unwrap_or_default();
            links.drain(wanted.min(links.len())..).for_each(|surplus| surplus.cancel());
            while links.len() < wanted {
                links.push(self.open(*address));
            }
            self.links.insert(*address, links);
        }
    }

    /// Keeps one link open until its token is cancelled.
    fn open(&mut self, address: SocketAddr) -> CancellationToken {
        let leave = self.all.child_token();
        let (setup, mut rng, leaves) = (self.setup.clone(), self.rng.fork(), leave.clone());
        let open = Open::new(&self.open);
        self.setup.runtime.spawn(async move {
            let _open = open;
            let mut wait = FIRST_WAIT;
            while !leaves.is_cancelled() {
                let began = setup.clock.now();
                match link(&setup, address, leaves.clone()).await {
                    Ok(()) => {}
                    Err(why) => tracing::debug!(%address, why, "the link to a query-frontend has ended"),
                }
                let lasted = setup.clock.now().saturating_duration_since(began);
                wait = if lasted > LONGEST_WAIT { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
                // Spread, so that all queriers do not come at once.
                let wait = wait.mul_f64(0.5 + rng.unit() / 2.0);
                leaves.run_until_cancelled(setup.clock.sleep(wait)).await;
            }
        });
        leave
    }
}

async fn link(setup: &Setup, address: SocketAddr, leave: CancellationToken) -> Result<(), String> {
    let name = setup.frontend.0.trim_start_matches('[').trim_end_matches(']');
    let channel = setup.dial.channel_to(&address.to_string(), Some(name)).map_err(|error| error.to_string())?;
    let peer = Peer::new(channel, address.to_string());
    let link = LinkTo { peer, name: setup.name.clone(), process: setup.seed, answers: setup.answers.clone() };
    link.serve(leave).await.map_err(|status| status.message().to_owned())
}

/// Counts a link as long as it is there.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Host and port of an address. IPv6 addresses may have brackets.
fn split(address: &str) -> (String, u16) {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (bare(host), port),
            Err(_) => (bare(address), DEFAULT_PORT),
        },
        _ => (bare(address), DEFAULT_PORT),
    }
}

impl Part for Frontends {
    fn started(&mut self, cx: &mut Cx<Self>) {
        self.look(cx);
    }

    fn drain(&mut self, _cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        self.all.cancel();
        let mut open = self.open.subscribe();
        async move {
            // The sender lives as long as a link does.
            open.wait_for(|open| *open == 0).await.ok();
        }
        .boxed_local()
    }

    fn observe(&self) -> serde_json::Value {
        let frontends: BTreeMap<String, usize> =
            self.links.iter().map(|(address, links)| (address.to_string(), links.len())).collect();
        serde_json::json!({ "links": frontends, "last_error": self.last_error, "max_message_bytes": MAX_MESSAGE_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_taken_apart_in_every_spelling() {
        let split = |address: &str| split(address);
        assert_eq!(split("query-frontend:9095"), ("query-frontend".to_owned(), 9095));
        assert_eq!(split("[fd00::1]:9095"), ("fd00::1".to_owned(), 9095));
        assert_eq!(split("[fd00::1]"), ("fd00::1".to_owned(), 443));
        assert_eq!(split("fd00::1"), ("fd00::1".to_owned(), 443));
        assert_eq!(split("10.0.0.1"), ("10.0.0.1".to_owned(), 443));
    }

    proptest! {
        #[test]
        fn every_frontend_gets_a_link_and_the_whole_is_divided(all in 1usize..200, frontends in 1usize..50) {
            let links: Vec<usize> = (0..frontends).map(|place| Links::Divided(all).to(place, frontends)).collect();
            prop_assert!(links.iter().all(|links| *links >= 1));
            prop_assert_eq!(links.iter().sum::<usize>(), all.max(frontends));
            prop_assert!(links.iter().max().unwrap() - links.iter().min().unwrap() <= 1);
            prop_assert_eq!(Links::Each(3).to(frontends - 1, frontends), 3);
        }
    }
}

//! The entries and what they resolved to last.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::{BadEntry, Dns, DnsError, Entry};

/// Addresses kept of one entry.
const ADDRESSES_MAX: usize = 2048;

/// What one entry says now, for pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedView {
    /// As written.
    pub entry: String,
    /// What it resolved to last.
    pub addresses: Vec<SocketAddr>,
    /// Why the last lookup failed; none if it did not.
    pub error: Option<String>,
    /// Since when it resolves, or since when it does not.
    pub since: Duration,
}

/// The answer to one round of lookups.
#[derive(Debug)]
pub struct Found(Vec<Result<Vec<SocketAddr>, DnsError>>);

/// All entries.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    entries: Vec<(Entry, SeedView)>,
}

impl Discovery {
    /// Understands entries.
    ///
    /// # Errors
    /// Names the first that cannot be understood.
    pub fn new(entries: &[String]) -> Result<Self, BadEntry> {
        let parsed = entries.iter().filter(|text| !text.trim().is_empty()).map(|text| {
            let view = SeedView { entry: text.clone(), addresses: Vec::new(), error: None, since: Duration::ZERO };
            Ok((text.parse()?, view))
        });
        Ok(Self { entries: parsed.collect::<Result<_, _>>()? })
    }

    /// Whether there is nobody to join.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Looks everything up, all at once. An entry that has no answer after `patience` failed; the others do not wait for it any
    /// longer.
    pub fn look_up(&self, dns: &Arc<dyn Dns>, patience: Duration) -> impl Future<Output = Found> + 'static {
        let lookups = self.entries.iter().map(|(entry, view)| {
            let (entry, dns, name) = (entry.clone(), Arc::clone(dns), view.entry.clone());
            async move {
                let late = |_elapsed| DnsError { name, reason: format!("no answer within {patience:?}") };
                tokio::time::timeout(patience, resolve(entry, dns)).await.map_err(late)?
            }
        });
        let lookups: Vec<_> = lookups.collect();
        async move { Found(join_all(lookups).await) }
    }

    /// Takes the answer and says which addresses to join now. An entry whose lookup failed keeps those that it had.
    pub fn take(&mut self, now: Duration, found: Found) -> Vec<SocketAddr> {
        for ((_, view), result) in self.entries.iter_mut().zip(found.0) {
            let failed = view.error.is_some();
            match result {
                Ok(addresses) if addresses.is_empty() => view.error = Some("the name has no address".to_owned()),
                Ok(addresses) => (view.addresses, view.error) = (addresses, None),
                Err(error) => view.error = Some(error.to_string()),
            }
            if failed != view.error.is_some() {
                view.since = now;
            }
        }
        let all: BTreeSet<_> = self.entries.iter().flat_map(|(_, view)| view.addresses.iter().copied()).collect();
        all.into_iter().collect()
    }

    /// Whether every entry was looked up, and no address but this process's own came of it: there is nobody else to join.
    #[must_use]
    pub fn names_only(&self, own: impl Fn(SocketAddr) -> bool) -> bool {
        let only_own = |view: &SeedView| {
            view.error.is_none() && !view.addresses.is_empty() && view.addresses.iter().all(|address| own(*address))
        };
        self.entries.iter().all(|(_, view)| only_own(view))
    }

    /// Whether the last lookup of some entry failed.
    #[must_use]
    pub fn troubled(&self) -> bool {
        self.entries.iter().any(|(_, view)| view.error.is_some())
    }

    /// What the entries say.
    pub fn views(&self) -> impl Iterator<Item = &SeedView> {
        self.entries.iter().map(|(_, view)| view)
    }
}

async fn resolve(entry: Entry, dns: Arc<dyn Dns>) -> Result<Vec<SocketAddr>, DnsError> {
    let mut addresses = match entry {
        Entry::Address(address) => vec![address],
        Entry::Host { host, port } => host_addresses(&*dns, &host, port).await?,
        Entry::Service { name, port } => {
            let services = dns.services(&name).await?;
            let targets = services.iter().map(|found| host_addresses(&*dns, &found.host, port.unwrap_or(found.port)));
            let mut addresses = Vec::new();
            let mut failure = None;
            for target in join_all(targets).await {
                match target {
                    Ok(found) => addresses.extend(found),
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                // One dead target of several is no reason not to use the others.
                Some(error) if addresses.is_empty() => return Err(error),
                _ => addresses,
            }
        }
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}

async fn host_addresses(dns: &dyn Dns, host: &str, port: u16) -> Result<Vec<SocketAddr>, DnsError> {
    let found = dns.addresses(host).await?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), port)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use parking_lot::Mutex;

    use super::super::Service;
    use super::*;

    #[derive(Default)]
    struct Zone {
        hosts: Mutex<HashMap<String, Vec<IpAddr>>>,
        services: Mutex<HashMap<String, Vec<Service>>>,
    }

    fn missing(name: &str) -> DnsError {
        DnsError { name: name.to_owned(), reason: "no such name".to_owned() }
    }

    impl Dns for Zone {
        fn addresses(&self, host: &str) -> BoxFuture<'static, Result<Vec<IpAddr>, DnsError>> {
            let answer = self.hosts.lock().get(host).cloned().ok_or_else(|| missing(host));
            std::future::ready(answer).boxed()
        }

        fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, DnsError>> {
            let answer = self.services.lock().get(name).cloned().ok_or_else(|| missing(name));
            std::future::ready(answer).boxed()
        }
    }

    fn strings(entries: &[&str]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    async fn look(discovery: &mut Discovery, dns: &Arc<dyn Dns>) -> Vec<String> {
        let found = discovery.look_up(dns, Duration::from_secs(1)).await;
        discovery.take(Duration::from_secs(1), found).iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn both_families_of_a_name_and_all_targets_of_a_service_count() {
        let zone = Zone::default();
        let both = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        zone.hosts.lock().extend([("ring.".to_owned(), both), ("a.".to_owned(), vec!["192.0.2.9".parse().unwrap()])]);
        let targets = vec![Service { host: "a.".into(), port: 17 }, Service { host: "gone.".into(), port: 18 }];
        zone.services.lock().insert("srv".to_owned(), targets);
        let dns: Arc<dyn Dns> = Arc::new(zone);
        let mut discovery = Discovery::new(&strings(&["dns+ring.:7946", "dnssrv+srv", "dnssrvnoa+srv:99"])).unwrap();
        let found = look(&mut discovery, &dns).await;
        assert_eq!(found, ["192.0.2.1:7946", "192.0.2.9:17", "192.0.2.9:99", "[2001:db8::1]:7946"]);
    }

    #[tokio::test]
    async fn there_is_nobody_else_when_every_entry_leads_to_this_process_and_to_nobody_else() {
        let zone = Arc::new(Zone::default());
        let dns: Arc<dyn Dns> = Arc::clone(&zone) as Arc<dyn Dns>;
        let own = |address: SocketAddr| address.ip() == IpAddr::from([192, 0, 2, 1]);
        let mut discovery = Discovery::new(&strings(&["ring:7946", "192.0.2.1:7946"])).unwrap();
        assert!(!discovery.names_only(own), "nothing was looked up yet");
        look(&mut discovery, &dns).await;
        assert!(!discovery.names_only(own), "who has the name that does not resolve is not known");
        zone.hosts.lock().insert("ring".to_owned(), vec!["192.0.2.1".parse().unwrap()]);
        look(&mut discovery, &dns).await;
        assert!(discovery.names_only(own));
        zone.hosts.lock().insert("ring".to_owned(), vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]);
        look(&mut discovery, &dns).await;
        assert!(!discovery.names_only(own), "another one resolves, whether it answers or not");
    }

    /// A name server that says nothing.
    struct Silent;

    impl Dns for Silent {
        fn addresses(&self, _: &str) -> BoxFuture<'static, Result<Vec<IpAddr>, DnsError>> {
            std::future::pending().boxed()
        }

        fn services(&self, _: &str) -> BoxFuture<'static, Result<Vec<Service>, DnsError>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn a_name_server_that_is_silent_fails_its_names_and_keeps_nobody_waiting() {
        let dns: Arc<dyn Dns> = Arc::new(Silent);
        let mut discovery = Discovery::new(&strings(&["dns+ring:7946", "dnssrv+srv", "192.0.2.7:7946"])).unwrap();
        let found = discovery.look_up(&dns, Duration::from_millis(20)).await;
        let addresses = discovery.take(Duration::from_secs(1), found);
        assert_eq!(addresses, ["192.0.2.7:7946".parse().unwrap()], "what needs no name server is there");
        let errors: Vec<_> = discovery.views().map(|view| view.error.clone()).collect();
        let late = |name: &str| Some(format!("look up {name}: no answer within 20ms"));
        assert_eq!(errors, [late("dns+ring:7946"), late("dnssrv+srv"), None]);
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_addresses_and_one_that_changes_gets_new_ones() {
        let zone = Arc::new(Zone::default());
        let dns: Arc<dyn Dns> = Arc::clone(&zone) as Arc<dyn Dns>;
        let mut discovery = Discovery::new(&strings(&["ring"])).unwrap();
        assert!(look(&mut discovery, &dns).await.is_empty());
        assert!(discovery.troubled());
        assert_eq!(discovery.views().next().unwrap().error.as_deref(), Some("look up ring: no such name"));
        zone.hosts.lock().insert("ring".to_owned(), vec!["192.0.2.1".parse().unwrap()]);
        assert_eq!(look(&mut discovery, &dns).await, ["192.0.2.1:7946"]);
        zone.hosts.lock().clear();
        assert_eq!(look(&mut discovery, &dns).await, ["192.0.2.1:7946"]);
        assert!(discovery.troubled());
        zone.hosts.lock().insert("ring".to_owned(), vec!["192.0.2.2".parse().unwrap()]);
        assert_eq!(look(&mut discovery, &dns).await, ["192.0.2.2:7946"]);
        assert!(!discovery.troubled());
    }
}

//! Which rings a target takes part in or reads, where they live, and what its pages say about each of them.
//!
//! With `-target=all` the rings of live-stores and partitions are in memory, as in Tempo; in separate processes all rings that
//! processes share live in gossip. Which target has which is `cluster.md` 1.3 of the reference: distributors, queriers and
//! block-builders read what live-stores write.

use vivace_gossip::pages::{Layout, RingKind, RingPage};
use vivace_gossip::partition::PartitionTimings;
use vivace_gossip::ring::{Host, RingSettings, Store, store};
use vivace_runtime::Failure;
use vivace_runtime::config::KvStoreConfig;

use crate::config::{Config, Invalid, Target};

/// The partition of a process that has all components, whatever its name.
const PARTITION_OF_ALL: u32 = 0;
const PARTITION_RING: &str = "livestore-partitions";

/// What a process does in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing: it does not look at it.
    None,
    /// Looks at it.
    Watches,
    /// Is in it.
    Joins,
}

/// A ring as one process uses it.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    pub(super) settings: RingSettings,
    pub(super) part: Part,
}

/// What the rings of a process are made from.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) live_store: Ring,
    pub(super) distributor: Ring,
    pub(super) worker: Ring,
    /// The partition of this process's live-store.
    pub(super) own: Option<u32>,
    /// The whole key of the ring of partitions. It lives where the ring of live-stores does.
    pub(super) partition_ring: String,
    pub(super) timings: PartitionTimings,
    pub(super) layout: Layout,
}

impl Plan {
    /// Of the process `target` on this host, which listens for gRPC on `grpc_port`.
    ///
    /// # Errors
    /// A ring cannot be as configured; names the key.
    pub(super) fn new(config: &Config, target: Target, host_name: &str, grpc_port: u16) -> Result<Self, Failure> {
        let host = Host { name: host_name, grpc_port };
        let all = target == Target::All;
        let live_store = live_store(config, target, host)?;
        let own = match live_store.part {
            Part::Joins if all => Some(PARTITION_OF_ALL),
            Part::Joins => Some(live_store.settings.partition()?),
            Part::None | Part::Watches => None,
        };
        let partitions = &config.live_store.partition_ring;
        if let Some(invalid) = unshared(config, target).into_iter().next() {
            return Err(invalid.into());
        }
        let distributor = distributor(config, target, host)?;
        let worker = worker(config, target, host)?;
        let partition_ring = format!("{}{PARTITION_RING}", partitions.kvstore.prefix);
        let layout = layout(config, target, [&live_store, &distributor, &worker], &partition_ring);
        Ok(Self {
            live_store,
            distributor,
            worker,
            own,
            partition_ring,
            timings: PartitionTimings {
                owners: usize::try_from(partitions.min_partition_owners_count).unwrap_or(usize::MAX),
                owned_for: partitions.min_partition_owners_duration.into(),
                delete_after: partitions.delete_inactive_partition_after.into(),
            },
            layout,
        })
    }

    /// The rings that live in one place and that the process uses.
    pub(super) fn rings_in(&self, store: Store) -> impl Iterator<Item = &Ring> {
        let rings = [&self.live_store, &self.distributor, &self.worker];
        rings.into_iter().filter(move |ring| ring.part != Part::None && ring.settings.store == store)
    }
}

/// Whether distributors share a rate limit and so need to know each other.
pub(super) fn is_global(config: &Config) -> bool {
    config.overrides.defaults.ingestion.rate_strategy == "global"
}

/// Whether a process gossips. What is wrong with the configuration is found elsewhere.
pub(crate) fn gossips(config: &Config, target: Target) -> bool {
    let in_gossip = |kvstore: &KvStoreConfig| kvstore.store == "memberlist";
    match target {
        Target::All => is_global(config) && in_gossip(&config.distributor.ring.kvstore),
        Target::Distributor | Target::LiveStore | Target::Querier | Target::BlockBuilder => true,
        Target::BackendWorker => in_gossip(&config.backend_worker.ring.kvstore),
        Target::QueryFrontend | Target::MetricsGenerator | Target::BackendScheduler => false,
    }
}

/// The part of a target in the ring of live-stores, and so in that of partitions.
fn part_in_live_stores(target: Target) -> Part {
    match target {
        Target::All | Target::LiveStore => Part::Joins,
        Target::Distributor | Target::Querier | Target::BlockBuilder | Target::MetricsGenerator => Part::Watches,
        Target::QueryFrontend | Target::BackendScheduler | Target::BackendWorker => Part::None,
    }
}

fn live_store(config: &Config, target: Target, host: Host<'_>) -> Result<Ring, Failure> {
    let mut ring = config.live_store.ring.clone();
    let part = part_in_live_stores(target);
    if target == Target::All || part == Part::None {
        // Whatever the configuration says, it is not shared here.
        "inmemory".clone_into(&mut ring.kvstore.store);
        ring.instance_addr.clear();
        return Ok(Ring { settings: RingSettings::live_store(&ring, host)?.in_memory(), part });
    }
    Ok(Ring { settings: RingSettings::live_store(&ring, host)?, part })
}

fn distributor(config: &Config, target: Target, host: Host<'_>) -> Result<Ring, Failure> {
    let mut ring = config.distributor.ring.clone();
    let key = &config.distributor.override_ring_key;
    let joins = matches!(target, Target::All | Target::Distributor) && is_global(config);
    if !joins {
        "inmemory".clone_into(&mut ring.kvstore.store);
        ring.instance_addr.clear();
        return Ok(Ring { settings: RingSettings::distributor(&ring, key, host)?, part: Part::None });
    }
    let mut settings = RingSettings::distributor(&ring, key, host)?;
    if settings.store == Store::Memory {
        settings = settings.in_memory();
    }
    Ok(Ring { settings, part: Part::Joins })
}

fn worker(config: &Config, target: Target, host: Host<'_>) -> Result<Ring, Failure> {
    let mut ring = config.backend_worker.ring.clone();
    if target != Target::BackendWorker {
        ring.kvstore.store.clear();
    }
    let settings = RingSettings::backend_worker(&ring, &config.backend_worker.override_ring_key, host)?;
    let part = if settings.store == Store::Gossip { Part::Joins } else { Part::None };
    Ok(Ring { settings, part })
}

/// A ring that separate processes share cannot be in the memory of one.
fn shared(section: &'static str, kvstore: &KvStoreConfig, target: Target) -> Result<(), Invalid> {
    if store(section, kvstore)? == Store::Gossip {
        return Ok(());
    }
    Err(Invalid::UnsharedRing { section, store: kvstore.store.clone(), target })
}

/// Which of the rings that the target's processes share do not live where all of them see it.
pub(crate) fn unshared(config: &Config, target: Target) -> Vec<Invalid> {
    if target == Target::All || part_in_live_stores(target) == Part::None {
        return Vec::new();
    }
    let (ring, partitions) = (&config.live_store.ring, &config.live_store.partition_ring);
    // A store that nobody can use is found with what else is wrong in that section.
    let ring = shared("live_store.ring", &ring.kvstore, target).err();
    let ring = ring.filter(|invalid| matches!(invalid, Invalid::UnsharedRing { .. }));
    ring.into_iter().chain(shared("live_store.partition_ring", &partitions.kvstore, target).err()).collect()
}

const ALL: &str = "This process has all components and keeps the ring in its memory.";
const JOINS: &str = "This live-store is in the ring; distributors, queriers and block-builders read it.";
const WRITES: &str = "A distributor chooses the partition of a trace by it.";
const READS: &str = "A querier asks the live-stores of this ring for recent data.";
const CONSUMES: &str = "A block-builder consumes those of its partitions that the ring has.";
const GENERATES: &str = "Metrics-generators divide the partitions of the ring among them.";
const FRONTEND: &str = "A query-frontend asks queriers only, which find live-stores by the ring.";
const BACKEND: &str = "This role works on the object store only.";
const SHARED: &str = "Distributors share the global rate limit (overrides: ingestion.rate_strategy: global).";
const LOCAL: &str = "There is a ring of distributors only with ingestion.rate_strategy: global; here it is local.";
const NOT_HERE: &str = "Only distributors use it.";
const ALONE: &str = "A process with all components divides its work with no other.";
const NO_WORKER: &str = "Only backend-workers use it.";
const WORKER: &str = "Backend-workers divide the tenants' indexes among them.";
const WORKER_OFF: &str = "It is off: backend_worker.ring.kvstore.store is not memberlist.";
const NO_GENERATORS: &str = "Metrics-generators divide their work by the log's consumer group; no ring is written.";

fn layout(
    config: &Config,
    target: Target,
    [live_store, distributor, worker]: [&Ring; 3],
    partition_ring: &str,
) -> Layout {
    let page = |kind, ring: &str, used, why: &str| RingPage { kind, ring: ring.to_owned(), used, why: why.to_owned() };
    let recent = match target {
        Target::All => ALL,
        Target::LiveStore => JOINS,
        Target::Distributor => WRITES,
        Target::Querier => READS,
        Target::BlockBuilder => CONSUMES,
        Target::MetricsGenerator => GENERATES,
        Target::QueryFrontend => FRONTEND,
        Target::BackendScheduler | Target::BackendWorker => BACKEND,
    };
    let rates = match target {
        Target::All | Target::Distributor if distributor.part == Part::Joins => SHARED,
        Target::All | Target::Distributor => LOCAL,
        _ => NOT_HERE,
    };
    let work = match (target, worker.part) {
        (_, Part::Joins) => WORKER,
        (Target::All, _) => ALONE,
        (Target::BackendWorker, _) => WORKER_OFF,
        _ => NO_WORKER,
    };
    let worker_key =
        format!("{}{}", config.backend_worker.ring.kvstore.prefix, config.backend_worker.override_ring_key);
    let generator = &config.metrics_generator;
    let generator_key = format!("{}{}", generator.ring.kvstore.prefix, generator.override_ring_key);
    let used = |ring: &Ring| ring.part != Part::None;
    Layout {
        rings: vec![
            page(RingKind::LiveStore, &live_store.settings.ring, used(live_store), recent),
            page(RingKind::Distributor, &distributor.settings.ring, used(distributor), rates),
            page(RingKind::BackendWorker, &worker_key, used(worker), work),
            page(RingKind::MetricsGenerator, &generator_key, false, NO_GENERATORS),
        ],
        partition_ring: partition_ring.to_owned(),
        partitions_used: used(live_store),
        partitions_why: recent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: [Target; 6] = [
        Target::All,
        Target::Distributor,
        Target::LiveStore,
        Target::BlockBuilder,
        Target::Querier,
        Target::QueryFrontend,
    ];

    #[test]
    fn who_writes_the_rings_and_who_reads_them() {
        let parts: Vec<_> = TARGETS
            .into_iter()
            .map(|target| {
                let plan = Plan::new(&Config::default(), target, "live-store-zone-a-3", 9095).unwrap();
                (target, plan.live_store.part, plan.live_store.settings.store, plan.own)
            })
            .collect();
        let (memory, gossip) = (Store::Memory, Store::Gossip);
        assert_eq!(
            parts,
            [
                (Target::All, Part::Joins, memory, Some(0)),
                (Target::Distributor, Part::Watches, gossip, None),
                (Target::LiveStore, Part::Joins, gossip, Some(3)),
                (Target::BlockBuilder, Part::Watches, gossip, None),
                (Target::Querier, Part::Watches, gossip, None),
                (Target::QueryFrontend, Part::None, memory, None),
            ]
        );
        let gossiping: Vec<_> = TARGETS.into_iter().filter(|target| gossips(&Config::default(), *target)).collect();
        assert_eq!(gossiping, TARGETS[1..5]);
    }

    #[test]
    fn a_ring_of_separate_processes_that_nobody_else_would_see_is_refused() {
        let refused = |change: fn(&mut Config), target| {
            let mut config = Config::default();
            change(&mut config);
            Plan::new(&config, target, "live-store-0", 9095).err().map(|error| error.to_string())
        };
        let ring: fn(&mut Config) = |config| config.live_store.ring.kvstore.store = "inmemory".into();
        let partitions: fn(&mut Config) = |config| config.live_store.partition_ring.kvstore.store = "inmemory".into();
        for target in [Target::Distributor, Target::LiveStore, Target::Querier, Target::BlockBuilder] {
            let error = refused(ring, target).unwrap();
            assert!(error.contains("live_store.ring.kvstore.store is \"inmemory\""), "{error}");
            assert!(error.ends_with(&format!("with -target={target} it must be memberlist")), "{error}");
            let error = refused(partitions, target).unwrap();
            assert!(error.starts_with("live_store.partition_ring.kvstore.store"), "{error}");
        }
        for target in [Target::All, Target::QueryFrontend] {
            assert_eq!((refused(ring, target), refused(partitions, target)), (None, None), "{target}");
        }
    }

    #[test]
    fn a_live_store_without_a_number_in_its_name_has_no_partition() {
        let error = Plan::new(&Config::default(), Target::LiveStore, "host", 9095).unwrap_err().to_string();
        assert!(error.contains("live_store.ring.instance_id is \"host\""), "{error}");
    }

    #[test]
    fn a_live_store_behind_a_proxy_tells_the_proxys_address_and_port() {
        let mut config = Config::default();
        config.live_store.ring.instance_id = "live-store-1".into();
        config.live_store.ring.instance_addr = "10.9.8.7".into();
        config.live_store.ring.instance_port = 12345;
        let plan = Plan::new(&config, Target::LiveStore, "host", 9095).unwrap();
        let told = vivace_gossip::ring::choose_addresses(&plan.live_store.settings, &[]).unwrap();
        let told: Vec<_> = told.iter().map(|address| format!("{:?} {address}", address.via)).collect();
        assert_eq!(told, ["Proxy 10.9.8.7:12345", "Direct 10.9.8.7:9095"]);
    }

    #[test]
    fn foreign_stores_are_refused_where_they_would_be_used() {
        let mut config = Config::default();
        config.live_store.ring.kvstore.store = "consul".into();
        config.distributor.ring.kvstore.store = "etcd".into();
        let all = |config: &Config| Plan::new(config, Target::All, "h", 9095);
        assert!(all(&config).is_ok(), "in memory, whatever is written");
        assert!(Plan::new(&config, Target::Querier, "h", 9095).is_err());
        config.overrides.defaults.ingestion.rate_strategy = "global".into();
        let error = all(&config).unwrap_err().to_string();
        assert!(
            error.contains("distributor.ring.kvstore.store is \"etcd\"") && error.contains("memberlist"),
            "{error}"
        );
    }
}

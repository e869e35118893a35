//! Who hosts the rings: a part of this process for those in memory, gossip for those that are shared, or both.

use std::sync::Arc;

use parking_lot::Mutex;
use vivace_gossip::actor::{self, Gossip};
use vivace_gossip::discovery::SystemDns;
use vivace_gossip::families::host_candidates;
use vivace_gossip::partition::PartitionLifecycle;
use vivace_gossip::partition::downscale::Marker;
use vivace_gossip::ring::{Generations, Keeper, Store, choose_addresses};
use vivace_gossip::{Board, Identity, MemoryRings};
use vivace_runtime::{Failure, Placement, Rng, Supervisor};

use super::plan::{Part, Plan};
use crate::config::Config;

const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// What a live-store was told about its end; shared by what answers that and what makes its records.
pub(super) type SharedMarker = Arc<Mutex<Marker>>;

/// The rings that live in one place, for one life of their host.
fn keeper(plan: &Plan, store: Store, identity: &Identity, marker: &SharedMarker) -> Result<Keeper, Failure> {
    let mut keeper = Keeper::new(&identity.name);
    let candidates = if store == Store::Gossip { host_candidates()? } else { Vec::new() };
    for ring in plan.rings_in(store) {
        match ring.part {
            Part::Joins => {
                let addresses = choose_addresses(&ring.settings, &candidates)?;
                let partition = plan.own.filter(|_| std::ptr::eq(ring, &plan.live_store));
                keeper.join(&ring.settings, identity, addresses, partition)?;
            }
            Part::Watches | Part::None => keeper.watch(&ring.settings.ring),
        }
    }
    let live_store = &plan.live_store;
    if live_store.part != Part::None && live_store.settings.store == store {
        let (goes, removes) = {
            let marker = marker.lock();
            (marker.is_set(), marker.removes_owner())
        };
        keeper.set_removes_owner(removes);
        let lifecycle = match plan.own {
            Some(own) => {
                let mut lifecycle =
                    PartitionLifecycle::new(&plan.partition_ring, &live_store.settings, own, plan.timings)?;
                lifecycle.set_create_on_start(!goes);
                Some(lifecycle)
            }
            None => None,
        };
        keeper.partitions(&plan.partition_ring, &live_store.settings.ring, lifecycle);
    }
    Ok(keeper)
}

/// Adds the host of the rings in memory, if there are any.
pub(super) fn add_memory(
    root: &Supervisor,
    plan: &Plan,
    process: u64,
    marker: &SharedMarker,
    placement: Placement,
) -> Result<Option<Board>, Failure> {
    if plan.rings_in(Store::Memory).next().is_none() {
        return Ok(None);
    }
    let name = plan.live_store.settings.instance_id.clone();
    let identity = Identity { process, name, software: SOFTWARE.to_owned() };
    let (plan, marker) = (plan.clone(), Arc::clone(marker));
    let build = move || keeper(&plan, Store::Memory, &identity, &marker);
    // Built once here, so that what is wrong fails the start; the same is built again later.
    build()?;
    let keepers = move || build().expect("it was built from the same plan before");
    Ok(Some(MemoryRings::add(root, process, keepers, placement, |_| None)))
}

/// Adds gossip, if a ring lives there.
pub(super) fn add_gossip(
    root: &Supervisor,
    config: &Config,
    plan: &Plan,
    marker: &SharedMarker,
    host_name: &str,
    generations: Option<Generations>,
    placement: Placement,
) -> Result<Option<Gossip>, Failure> {
    if plan.rings_in(Store::Gossip).next().is_none() {
        return Ok(None);
    }
    let (plan, marker) = (plan.clone(), Arc::clone(marker));
    let rings: actor::BuildRings = Arc::new(move |identity| keeper(&plan, Store::Gossip, identity, &marker));
    let options = actor::Options {
        config: config.memberlist.clone(),
        host_name: host_name.to_owned(),
        software: SOFTWARE.to_owned(),
        rings,
        generations,
        dns: Arc::new(SystemDns),
        rng: Arc::new(Rng::from_system),
    };
    Ok(Some(actor::add(root, options, placement)?))
}

//! Partitions over time, on the ring of live-stores that owns them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vivace_runtime::config::RingConfig;
use vivace_runtime::{Disk, SimDisk};

use super::downscale::{Answer, Marker, Method, partition_report, partition_target};
use super::*;
use crate::ring::testing::{Crowd, crowd};
use crate::ring::{Host, RingSettings};
use crate::state::{Key, Partition, PartitionState, Record};

const PARTITIONS: &str = "collectors/livestore-partitions";
const DAY: i64 = 86_400;

/// Live-stores 0 and 1 own partition 0, 2 and 3 partition 1, and so on.
struct World {
    crowd: Crowd,
    tokens: PartitionTokens,
    now: u64,
    unix: i64,
}

fn world(live_stores: u32) -> World {
    World { crowd: crowd(live_stores), tokens: PartitionTokens::default(), now: 0, unix: 1_700_000_000 }
}

fn lifecycle(member: u32, timings: PartitionTimings) -> PartitionLifecycle {
    let host = Host { name: "unused", grpc_port: 9095 };
    let config = RingConfig { instance_id: format!("live-store-{member}"), ..RingConfig::default() };
    let settings = RingSettings::live_store(&config, host).unwrap();
    PartitionLifecycle::new(PARTITIONS, &settings, member / 2, timings).unwrap()
}

impl World {
    fn view(&mut self) -> PartitionView {
        PartitionView::new(&self.crowd.state, PARTITIONS, &self.crowd.view(), &mut self.tokens)
    }

    fn poll(&mut self, lifecycle: &mut PartitionLifecycle) -> Vec<(u32, PartitionState)> {
        let view = self.view();
        lifecycle.poll(&mut self.crowd.state, &view, Duration::from_secs(self.now), self.unix)
    }

    fn pass(&mut self, seconds: i64) {
        self.now += u64::try_from(seconds).unwrap();
        self.unix += seconds;
    }

    fn state_of(&mut self, id: u32) -> Option<PartitionState> {
        self.view().get(id).map(PartitionEntry::state)
    }

    fn change(&mut self, id: u32, change: Change) -> Result<bool, ChangeError> {
        change_partition(&mut self.crowd.state, PARTITIONS, "admin", id, change, self.unix)
    }

    /// Creates partitions `0..count` and makes them active.
    fn active(&mut self, count: u32) -> PartitionLifecycle {
        for id in 0..count {
            let lifecycle = lifecycle(id * 2, PartitionTimings::default());
            assert!(lifecycle.start(&mut self.crowd.state, self.unix));
            self.change(id, Change::State(PartitionState::Active)).unwrap();
        }
        lifecycle(0, PartitionTimings::default())
    }

    /// The live-stores of a partition leave.
    fn disown(&mut self, id: u32) {
        for member in [id * 2, id * 2 + 1] {
            self.crowd.change(member, |instance| instance.partition = None);
        }
    }
}

#[test]
fn a_new_partition_becomes_active_once_it_was_owned_for_a_while() {
    let mut world = world(1);
    let mut own = lifecycle(0, PartitionTimings::default());
    assert!(own.start(&mut world.crowd.state, world.unix));
    assert_eq!(world.state_of(0), Some(PartitionState::Pending));
    assert_eq!(world.poll(&mut own), []);
    world.pass(9);
    assert_eq!(world.poll(&mut own), []);
    world.pass(1);
    assert_eq!(world.poll(&mut own), [(0, PartitionState::Active)]);
    assert_eq!(world.state_of(0), Some(PartitionState::Active));
    world.pass(60);
    assert_eq!(world.poll(&mut own), []);
    assert!(own.start(&mut world.crowd.state, world.unix), "a restart finds it");
    assert_eq!(world.state_of(0), Some(PartitionState::Active));
}

#[test]
fn it_needs_as_many_owners_as_configured_and_each_alive_all_the_time() {
    let mut world = world(2);
    let mut own = lifecycle(0, PartitionTimings { owners: 2, ..PartitionTimings::default() });
    own.start(&mut world.crowd.state, world.unix);
    world.crowd.kill(1);
    world.poll(&mut own);
    world.pass(60);
    assert_eq!(world.poll(&mut own), [], "one of two is down");
    world.crowd.revive(1);
    assert_eq!(world.poll(&mut own), [], "the second has only just come");
    world.pass(10);
    assert_eq!(world.poll(&mut own), [(0, PartitionState::Active)]);
}

#[test]
fn a_lock_holds_a_pending_partition_and_an_old_inactive_one() {
    let mut world = world(4);
    let mut own = lifecycle(0, PartitionTimings::default());
    own.start(&mut world.crowd.state, world.unix);
    assert_eq!(world.change(0, Change::Lock(true)), Ok(true));
    world.poll(&mut own);
    world.pass(60);
    assert_eq!(world.poll(&mut own), []);
    assert_eq!(world.change(0, Change::Lock(false)), Ok(true));
    assert_eq!(world.poll(&mut own), [(0, PartitionState::Active)]);
    let other = lifecycle(2, PartitionTimings::default());
    other.start(&mut world.crowd.state, world.unix);
    assert_eq!(world.change(1, Change::StateAndLock(PartitionState::Inactive)), Ok(true));
    assert!(matches!(world.change(1, Change::State(PartitionState::Active)), Err(ChangeError::Locked { .. })));
    world.disown(1);
    world.poll(&mut own);
    world.pass(2 * DAY);
    assert_eq!(world.poll(&mut own), []);
}

#[test]
fn an_inactive_partition_without_owners_is_deleted_by_another_live_store_and_comes_back_only_newer() {
    let mut world = world(4);
    let mut first = world.active(2);
    let mut second = lifecycle(2, PartitionTimings::default());
    world.change(1, Change::State(PartitionState::Inactive)).unwrap();
    world.poll(&mut first);
    world.pass(DAY);
    assert_eq!(world.poll(&mut first), [], "it still has owners");
    world.disown(1);
    assert_eq!(world.poll(&mut second), [], "nobody deletes its own");
    world.poll(&mut first);
    world.pass(601);
    assert_eq!(world.poll(&mut second), []);
    let stale = world.crowd.state.record(&Key::partition(PARTITIONS, 1)).unwrap();
    assert_eq!(world.poll(&mut first), [(1, PartitionState::Deleted)]);
    assert_eq!(world.state_of(1), None);
    assert!(world.crowd.state.apply(vec![stale]).is_empty(), "a member that slept does not bring it back");
    assert_eq!(world.change(1, Change::State(PartitionState::Active)), Err(ChangeError::Absent(1)));
    // Scaling up again.
    assert!(second.start(&mut world.crowd.state, world.unix));
    assert_eq!(world.state_of(1), Some(PartitionState::Pending));
}

#[test]
fn a_clock_set_forward_deletes_nothing_that_was_just_made_inactive() {
    let mut world = world(4);
    let mut first = world.active(2);
    world.disown(1);
    world.change(1, Change::State(PartitionState::Inactive)).unwrap();
    world.poll(&mut first);
    world.unix += 30 * DAY;
    world.now += 5;
    assert_eq!(world.poll(&mut first), []);
}

#[test]
fn deletion_can_be_switched_off() {
    let mut world = world(4);
    world.active(2);
    let mut first = lifecycle(0, PartitionTimings { delete_after: Duration::ZERO, ..PartitionTimings::default() });
    world.disown(1);
    world.change(1, Change::State(PartitionState::Inactive)).unwrap();
    world.poll(&mut first);
    world.pass(300 * DAY);
    assert_eq!(world.poll(&mut first), []);
}

#[test]
fn nothing_makes_an_inactive_partition_active_by_itself() {
    let mut world = world(2);
    let mut own = world.active(1);
    world.change(0, Change::State(PartitionState::Inactive)).unwrap();
    world.poll(&mut own);
    world.pass(3600);
    assert_eq!(world.poll(&mut own), []);
    assert!(own.start(&mut world.crowd.state, world.unix));
    assert_eq!(world.state_of(0), Some(PartitionState::Inactive));
}

#[test]
fn after_prepare_downscale_a_restart_waits_for_the_partition() {
    let mut world = world(1);
    let mut own = lifecycle(0, PartitionTimings::default());
    own.set_create_on_start(false);
    assert!(!own.start(&mut world.crowd.state, world.unix));
    assert_eq!(world.state_of(0), None);
    lifecycle(1, PartitionTimings::default()).start(&mut world.crowd.state, world.unix);
    assert!(own.start(&mut world.crowd.state, world.unix));
}

#[test]
fn traces_go_where_tempo_sends_them() {
    let mut world = world(6);
    let id = 0x0123_4567_89ab_cdef_u128.to_be_bytes();
    for count in 1..=3 {
        world.active(count);
        let view = world.view();
        assert_eq!(view.route(trace_key("single-tenant", id)), Some(count - 1));
        assert_eq!(view.route(trace_key("acme", id)), Some(count - 1));
    }
    // Not to partitions that take nothing.

    world.change(2, Change::State(PartitionState::Inactive)).unwrap();
    assert_ne!(world.view().route(trace_key("acme", id)), Some(2));
    for partition in [0, 1] {
        world.change(partition, Change::State(PartitionState::Inactive)).unwrap();
    }
    assert_eq!(world.view().route(trace_key("acme", id)), None);
}

#[test]
fn a_tenant_with_a_shard_writes_to_its_partitions_only_and_to_all_of_them() {
    let mut world = world(16);
    world.active(8);
    let view = world.view();
    let shard = view.shard("acme", 3);
    assert_eq!(shard.len(), 3);
    let mut hits: BTreeMap<u32, usize> = BTreeMap::new();
    for n in 0..2000_u128 {
        let key = trace_key("acme", (n << 64 | n).to_be_bytes());
        *hits.entry(view.route_in(key, &shard).unwrap()).or_default() += 1;
    }
    assert_eq!(hits.keys().copied().collect::<Vec<_>>(), shard);
    assert_eq!(view.shard("acme", 0), view.in_state(PartitionState::Active));
}

#[test]
fn ownership_is_nearly_equal() {
    let mut world = world(10);
    world.active(5);
    let shares = world.view().ownership();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(shares.iter().all(|share| (share - 0.2).abs() < 0.001), "{shares:?}");
}

#[test]
fn owners_are_the_live_stores_that_name_the_partition() {
    let mut world = world(6);
    world.active(2);
    world.crowd.kill(1);
    let view = world.view();
    let owners: Vec<_> = view.get(0).unwrap().owners.iter().map(|owner| &*owner.id).collect();
    assert_eq!(owners, ["live-store-0", "live-store-1"]);
    assert_eq!(view.get(0).unwrap().healthy_owners().count(), 1);
    let orphans: Vec<_> = view.orphans().iter().map(|(id, owners)| (*id, owners.len())).collect();
    assert_eq!(orphans, [(2, 2)], "they name a partition that is not there");
}

#[test]
fn a_number_that_cannot_be_meant_is_shown_and_routed_nowhere() {
    let mut world = world(1);
    let absurd = Partition::pending("x", 0);
    world.crowd.state.apply(vec![Record::partition(PARTITIONS, u32::MAX, absurd).unwrap()]);
    assert!(world.view().get(u32::MAX).unwrap().tokens.is_none());
    assert_eq!(world.view().route(5), None);
    let settings = RingSettings::live_store(&RingConfig::default(), Host { name: "a-9999", grpc_port: 1 }).unwrap();
    assert!(PartitionLifecycle::new(PARTITIONS, &settings, 9999, PartitionTimings::default()).is_err());
}

#[test]
fn prepare_partition_downscale_answers_as_the_operator_expects() {
    let mut world = world(2);
    let own = lifecycle(0, PartitionTimings::default());
    assert_eq!(partition_target(Method::Get, 0, None).unwrap_err().status, 500);
    own.start(&mut world.crowd.state, world.unix);
    let now = |world: &mut World| world.view().get(0).unwrap().partition.clone();
    assert_eq!(partition_target(Method::Post, 0, Some(&now(&mut world))).unwrap_err().status, 409);
    assert_eq!(partition_report(&now(&mut world)).body, r#"{"timestamp":0,"state":"PartitionPending"}"#);
    world.change(0, Change::State(PartitionState::Active)).unwrap();
    world.pass(7);
    let to = partition_target(Method::Post, 0, Some(&now(&mut world))).unwrap().unwrap();
    world.change(0, Change::State(to)).unwrap();
    let report = partition_report(&now(&mut world));
    assert_eq!(report.body, format!(r#"{{"timestamp":{},"state":"PartitionInactive"}}"#, world.unix));
    world.pass(60);
    assert_eq!(partition_target(Method::Post, 0, Some(&now(&mut world))), Ok(None), "twice: the time is kept");
    assert_eq!(partition_target(Method::Delete, 0, Some(&now(&mut world))), Ok(Some(PartitionState::Active)));
    world.change(0, Change::State(PartitionState::Active)).unwrap();
    assert_eq!(partition_target(Method::Delete, 0, Some(&now(&mut world))), Ok(None));
    assert_eq!(partition_report(&now(&mut world)).body, r#"{"timestamp":0,"state":"PartitionActive"}"#);
}

#[test]
fn prepare_downscale_survives_power_loss_and_a_refusal_leaves_nothing() {
    let mut world = world(2);
    world.active(1);
    let disk = SimDisk::new(7);
    let folder = Path::new("/marker");
    let open = |disk: &SimDisk| Marker::open(Arc::new(disk.clone()) as Arc<dyn Disk>, folder, false).unwrap();
    let mut marker = open(&disk);
    let unix = Duration::from_secs(1_700_000_000);
    let partition = |world: &mut World| world.view().get(0).unwrap().partition.clone();
    assert_eq!(marker.answer(Method::Get, 0, None, unix), Answer::new(200, "unset\n"));
    assert_eq!(marker.answer(Method::Post, 0, Some(&partition(&mut world)), unix).status, 409);
    assert!(!open(&disk).is_set(), "refused, so nothing was left");
    world.change(0, Change::State(PartitionState::Inactive)).unwrap();
    assert_eq!(marker.answer(Method::Post, 0, Some(&partition(&mut world)), unix), Answer::new(204, ""));
    assert!(marker.removes_owner(), "although the configuration says otherwise");
    disk.crash();
    let text = disk.read(&folder.join("shutdown-requested.txt")).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "2023-11-14T22:13:20.000Z");
    assert_eq!(open(&disk).answer(Method::Get, 0, None, unix), Answer::new(200, "set\n"));
    assert_eq!(marker.answer(Method::Delete, 0, None, unix), Answer::new(204, ""));
    assert!(!open(&disk).is_set() && !marker.removes_owner());
    let configured = Marker::open(Arc::new(disk.clone()) as Arc<dyn Disk>, folder, true).unwrap();
    assert!(configured.removes_owner(), "what the configuration says holds again");
}

//! Views of rings.

use std::time::Duration;

use super::testing::{crowd, instance};
use super::*;
use crate::state::{InstanceState, State};

#[test]
fn members_are_sorted_and_found() {
    let crowd = crowd(12);
    let view = crowd.view();
    let ids: Vec<&str> = view.entries().iter().map(|entry| &*entry.id).collect();
    assert!(ids.is_sorted() && ids.len() == 12);
    assert_eq!(&*view.get("live-store-7").unwrap().id, "live-store-7");
    assert!(view.get("live-store-99").is_none());
}

#[test]
fn health_is_what_membership_says_of_the_process_that_wrote_the_record() {
    let mut crowd = crowd(2);
    assert!(crowd.view().get("live-store-1").unwrap().is_healthy());
    crowd.kill(1);
    let view = crowd.view();
    let dead = view.get("live-store-1").unwrap();
    assert!(!dead.is_healthy());
    let unix = Duration::from_secs(1_700_000_100);
    assert_eq!(dead.last_heartbeat(unix), Duration::from_secs(1_700_000_010), "the last proof of life");
    assert_eq!(view.get("live-store-0").unwrap().last_heartbeat(unix), unix, "alive: now");
    // Another process says nothing good about the one that wrote the record.
    assert_eq!(Liveness::alone(7).of(0), Sight::UNKNOWN);
}

#[test]
fn operations_accept_their_states() {
    let mut crowd = crowd(4);
    for (member, state) in [(1, InstanceState::Leaving), (2, InstanceState::Pending), (3, InstanceState::Joining)] {
        crowd.change(member, |instance| instance.state = state);
    }
    let view = crowd.view();
    assert_eq!(
        (view.count(Operation::Write), view.count(Operation::Read), view.count(Operation::Reporting)),
        (1, 3, 4)
    );
}

#[test]
fn a_key_belongs_to_the_next_active_healthy_member_that_takes_data() {
    let mut crowd = crowd(3);
    for member in 0..3 {
        crowd.change(member, |instance| instance.tokens = 64);
    }
    let first = crowd.view().owner(12345).unwrap().id.to_string();
    let member: usize = first.rsplit('-').next().unwrap().parse().unwrap();
    crowd.kill(member);
    let second = crowd.view().owner(12345).unwrap().id.to_string();
    assert_ne!(first, second);
    crowd.revive(member);
    assert_eq!(*crowd.view().owner(12345).unwrap().id, *first);
    for member in 0..3 {
        crowd.kill(member);
    }
    assert!(crowd.view().owner(12345).is_none());
}

#[test]
fn ownership_is_counted_in_each_zone() {
    let mut crowd = crowd(4);
    for member in 0..4 {
        crowd.change(member, |instance| instance.tokens = 128);
    }
    let shares = crowd.view().ownership();
    assert!((shares[0] + shares[2] - 1.0).abs() < 1e-9, "zone a: {shares:?}");
    assert!((shares[1] + shares[3] - 1.0).abs() < 1e-9, "zone b: {shares:?}");
}

#[test]
fn living_rivals_are_named_and_dead_ones_are_not() {
    let mut crowd = crowd(2);
    crowd.add_rival(1, 5, true);
    crowd.add_rival(1, 6, false);
    let view = crowd.view();
    assert_eq!(view.entries().len(), 2);
    assert_eq!(view.rivals_of("live-store-1").map(|rival| rival.nonce).collect::<Vec<_>>(), [5]);
    assert_eq!(view.rivals_of("live-store-0").count(), 0);
}

#[test]
fn callers_dial_the_proxies_if_there_are_any() {
    use crate::state::{Address, Via};
    let mut crowd = crowd(1);
    crowd.change(0, |instance| {
        instance.addresses.push(Address { via: Via::Proxy, host: "10.0.0.1".into(), port: 12345 });
    });
    let view = crowd.view();
    let dialled: Vec<String> = view.entries()[0].dial().map(ToString::to_string).collect();
    assert_eq!(dialled, ["10.0.0.1:12345"]);
    assert_eq!(instance(0).addresses.len(), 1);
}

#[test]
fn an_empty_ring_owns_nothing() {
    let view = RingView::new(&State::new(), testing::RING, &Liveness::default());
    assert!(view.owner(1).is_none() && view.ownership().is_empty() && view.tokens() == 0);
    assert_eq!(view.count(Operation::Reporting), 0);
}

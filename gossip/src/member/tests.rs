//! One suite for the part that every ring uses, run with the configuration of each of the four.

use vivace_runtime::config::{DistributorRingConfig, RingConfig, WorkerRingConfig};

use super::*;
use crate::ring::{Forgetter, Host, Operation, RingView, Sight, Store, choose_addresses};

const NOW: i64 = 1_700_000_000;

/// A cluster of processes that share everything at once.
struct World {
    settings: RingSettings,
    state: State,
    up: Vec<(u64, Standing)>,
}

fn rings() -> Vec<RingSettings> {
    let host = Host { name: "pod-3", grpc_port: 9095 };
    let worker = RingSettings::backend_worker(&WorkerRingConfig::default(), "backend-worker", host).unwrap();
    vec![
        RingSettings::live_store(&RingConfig::default(), host).unwrap(),
        RingSettings::metrics_generator(&RingConfig::default(), "metrics-generator", host).unwrap(),
        RingSettings::distributor(&DistributorRingConfig::default(), "distributor", host).unwrap(),
        RingSettings { store: Store::Gossip, ..worker },
    ]
}

/// Runs one body for each of the four configurations.
fn each_ring(body: impl Fn(World)) {
    let rings = rings();
    assert_eq!(rings.len(), 4);
    for settings in rings {
        body(World { settings, state: State::new(), up: Vec::new() });
    }
}

impl World {
    fn process(&mut self, process: u64) -> RingMember {
        self.up.push((process, Standing::Alive));
        let identity = Identity { process, name: format!("pod-3-{process:08x}"), software: "0.1.0".into() };
        let settings = RingSettings { address: Some(format!("10.0.0.{process}")), ..self.settings.clone() };
        let addresses = choose_addresses(&settings, &[]).unwrap();
        let partition = self.settings.ring.ends_with("live-store").then_some(3);
        RingMember::new(&settings, &identity, addresses, partition).unwrap()
    }

    fn set(&mut self, process: u64, standing: Standing) {
        for (known, state) in &mut self.up {
            if *known == process {
                *state = standing;
            }
        }
    }

    fn liveness(&self) -> Liveness {
        let silent_for = Duration::ZERO;
        Liveness::new(self.up.iter().map(|(process, standing)| (*process, Sight { standing: *standing, silent_for })))
    }

    fn look(&mut self, member: &mut RingMember, at: u64) -> Option<MemberEvent> {
        let liveness = self.liveness();
        member.look(&mut self.state, &liveness, Duration::from_secs(at))
    }

    fn view(&self) -> RingView {
        RingView::new(&self.state, &self.settings.ring, &self.liveness())
    }

    /// Everybody looks until nobody has anything to do; more than a few rounds would be a fight.
    fn settle(&mut self, members: &mut [&mut RingMember], at: u64) {
        for _ in 0..4 {
            let mut quiet = true;
            for member in members.iter_mut() {
                quiet &= self.look(member, at).is_none();
            }
            if quiet {
                return;
            }
        }
        panic!("the members fight over the id");
    }
}

#[test]
fn a_member_registers_is_seen_and_leaves() {
    each_ring(|mut world| {
        let mut member = world.process(1);
        assert_eq!(world.look(&mut member, 0), None, "nothing before the start");
        member.start(&mut world.state, 0, NOW);
        assert_eq!(world.look(&mut member, 0), None);
        let view = world.view();
        let entry = view.get("pod-3").expect("registered");
        assert!(entry.is_healthy() && entry.serves(Operation::Write));
        assert_eq!((entry.generation, entry.instance.registered_at), (1, NOW));
        assert_eq!(usize::from(world.settings.tokens), view.tokens());
        assert_eq!(entry.dial().next().unwrap().to_string(), "10.0.0.1:9095");
        member.set_state(&mut world.state, InstanceState::Leaving);
        assert!(!world.view().get("pod-3").unwrap().serves(Operation::Write));
        assert_eq!(world.look(&mut member, 1), None, "its own change is no contest");
        member.unregister(&mut world.state);
        assert!(world.view().entries().is_empty());
        assert_eq!(world.look(&mut member, 2), None, "gone for good");
    });
}

#[test]
fn a_restart_takes_the_id_at_once_and_keeps_the_time_of_registration() {
    each_ring(|mut world| {
        let mut first = world.process(1);
        first.start(&mut world.state, 0, NOW);
        // Killed: membership does not know it yet when the next life begins.
        let mut second = world.process(2);
        second.start(&mut world.state, 0, NOW + 60);
        assert_eq!(second.generation(), 2);
        let view = world.view();
        assert_eq!((view.entries()[0].nonce, view.entries()[0].instance.registered_at), (2, NOW));
        world.set(1, Standing::Down);
        assert_eq!(world.look(&mut second, 1), None);
        assert!(world.view().entries()[0].is_healthy());
    });
}

#[test]
fn a_restart_with_lost_state_goes_above_what_it_meets_later() {
    each_ring(|mut world| {
        let mut first = world.process(1);
        first.start(&mut world.state, 8, NOW);
        world.set(1, Standing::Down);
        let others_know = world.state.clone();
        // The next life finds nobody at first, so it begins low.
        world.state = State::new();
        let mut second = world.process(2);
        second.start(&mut world.state, 0, NOW);
        assert_eq!(second.generation(), 1);
        world.state.apply(others_know.records().cloned().collect());
        assert_eq!(world.look(&mut second, 1), Some(MemberEvent::Reasserted { generation: 10 }));
        assert_eq!(world.view().entries()[0].nonce, 2);
        assert_eq!(world.look(&mut second, 2), None);
    });
}

#[test]
fn the_record_of_a_process_that_nobody_knows_is_overtaken_after_a_while() {
    each_ring(|mut world| {
        let mut first = world.process(1);
        first.start(&mut world.state, 8, NOW);
        let old = world.state.record(first.key()).unwrap();
        world.up.clear();
        world.state = State::new();
        let mut second = world.process(2);
        second.start(&mut world.state, 0, NOW);
        world.state.apply(vec![old]);
        assert_eq!(world.look(&mut second, 10), None, "membership may hear of it in a moment");
        assert_eq!(world.look(&mut second, 14), None);
        assert_eq!(world.look(&mut second, 15), Some(MemberEvent::Reasserted { generation: 10 }));
    });
}

#[test]
fn two_living_processes_with_one_id_do_not_fight_and_are_both_named() {
    each_ring(|mut world| {
        let (mut first, mut second) = (world.process(1), world.process(2));
        first.start(&mut world.state, 0, NOW);
        second.start(&mut world.state, 0, NOW);
        assert_eq!(world.look(&mut first, 1), Some(MemberEvent::Yielded { to: 2, name: "pod-3-00000002".to_owned() }));
        world.settle(&mut [&mut first, &mut second], 2);
        assert!(first.yielded_to() == Some(2) && second.is_registered());
        let view = world.view();
        assert_eq!(view.entries()[0].nonce, 2);
        let rivals: Vec<_> = view.rivals_of("pod-3").map(|rival| rival.instance.member.clone()).collect();
        assert_eq!(rivals, ["pod-3-00000001"]);
        // The second one dies: the first has the id again, and nothing is left of the dispute.
        world.set(2, Standing::Down);
        assert!(matches!(world.look(&mut first, 3), Some(MemberEvent::Regained { .. })));
        let view = world.view();
        assert_eq!((view.entries()[0].nonce, view.rivals().count()), (1, 0));
    });
}

#[test]
fn two_that_started_apart_with_one_generation_are_told_apart() {
    each_ring(|mut world| {
        let (mut first, mut second) = (world.process(1), world.process(2));
        let mut elsewhere = State::new();
        first.start(&mut world.state, 0, NOW);
        second.start(&mut elsewhere, 0, NOW);
        world.state.apply(elsewhere.records().cloned().collect());
        world.settle(&mut [&mut first, &mut second], 1);
        assert_eq!(first.is_registered(), second.yielded_to().is_some());
        assert_eq!(world.view().rivals().count(), 1);
    });
}

#[test]
fn of_three_with_one_id_one_has_it_and_two_are_named() {
    each_ring(|mut world| {
        let (mut a, mut b, mut c) = (world.process(1), world.process(2), world.process(3));
        for member in [&mut a, &mut b, &mut c] {
            member.start(&mut world.state, 0, NOW);
        }
        world.settle(&mut [&mut a, &mut b, &mut c], 1);
        assert_eq!(world.view().rivals().count(), 2);
        world.set(3, Standing::Down);
        world.settle(&mut [&mut a, &mut b, &mut c], 2);
        assert_eq!(world.view().rivals().count(), 1);
        assert!(world.view().entries()[0].is_healthy());
    });
}

#[test]
fn forgetting_a_living_member_is_undone_by_it() {
    each_ring(|mut world| {
        let mut member = world.process(1);
        member.start(&mut world.state, 0, NOW);
        let claim = world.state.record(member.key()).unwrap().as_claim().unwrap().clone();
        let grave = Record::claim(member.key().clone(), claim.buried(GraveReason::Forgotten, "admin")).unwrap();
        world.state.apply(vec![grave]);
        assert!(world.view().entries().is_empty());
        assert_eq!(world.look(&mut member, 1), Some(MemberEvent::Reasserted { generation: 2 }));
        assert!(world.view().entries()[0].is_healthy());
        assert_eq!(world.look(&mut member, 2), None);
    });
}

#[test]
fn a_member_that_slept_for_a_day_is_back_although_it_was_forgotten() {
    each_ring(|mut world| {
        let mut sleeper = world.process(1);
        sleeper.start(&mut world.state, 0, NOW);
        let (mut forgetter, mut other) =
            (Forgetter::new(&world.settings.ring, "o", Duration::from_secs(60)), world.process(2));
        other.key = Key::instance(&world.settings.ring, "pod-4");
        other.start(&mut world.state, 0, NOW);
        world.set(1, Standing::Down);
        forgetter.look(&world.view(), Duration::from_secs(0));
        let graves = forgetter.look(&world.view(), Duration::from_secs(120)).graves;
        assert_eq!(world.state.apply(graves).len(), 1);
        world.state.advance(crate::state::GRAVE_KEPT);
        assert!(world.state.record(sleeper.key()).is_none(), "nothing is left of it");
        world.set(1, Standing::Alive);
        assert!(world.look(&mut sleeper, 90_000).is_some());
        assert!(world.view().get("pod-3").unwrap().is_healthy());
    });
}

#[test]
fn clocks_set_back_change_nothing() {
    each_ring(|mut world| {
        let mut first = world.process(1);
        first.start(&mut world.state, 0, NOW);
        world.set(1, Standing::Down);
        let mut second = world.process(2);
        second.start(&mut world.state, 0, 5);
        assert_eq!(world.view().entries()[0].nonce, 2);
        second.set_state(&mut world.state, InstanceState::Leaving);
        assert_eq!(world.view().entries()[0].instance.state, InstanceState::Leaving);
    });
}

#[test]
fn a_member_that_yielded_leaves_without_touching_the_other() {
    each_ring(|mut world| {
        let (mut first, mut second) = (world.process(1), world.process(2));
        first.start(&mut world.state, 0, NOW);
        second.start(&mut world.state, 0, NOW);
        world.settle(&mut [&mut first, &mut second], 1);
        first.unregister(&mut world.state);
        let view = world.view();
        assert_eq!((view.entries()[0].nonce, view.rivals().count()), (2, 0));
    });
}

#[test]
fn a_rival_that_was_forgotten_while_it_seemed_dead_is_named_again() {
    each_ring(|mut world| {
        let (mut first, mut second) = (world.process(1), world.process(2));
        first.start(&mut world.state, 0, NOW);
        second.start(&mut world.state, 0, NOW);
        world.settle(&mut [&mut first, &mut second], 1);
        let key = Key::rival(&world.settings.ring, "pod-3", 1);
        let claim = world.state.record(&key).unwrap().as_claim().unwrap().clone();
        world.state.apply(vec![Record::claim(key, claim.buried(GraveReason::Expired, "other")).unwrap()]);
        assert_eq!(world.view().rivals().count(), 0);
        world.look(&mut first, 2);
        assert_eq!(world.view().rivals().count(), 1);
        world.settle(&mut [&mut first, &mut second], 3);
    });
}

#[test]
fn absurd_configuration_is_an_error_at_the_start() {
    each_ring(|mut world| {
        world.settings.zone = "z".repeat(300);
        let identity = Identity { process: 1, name: "m".into(), software: String::new() };
        assert!(RingMember::new(&world.settings, &identity, Vec::new(), None).is_err());
    });
}

#[test]
fn the_record_of_a_former_rival_that_comes_back_from_one_that_slept_is_buried_again() {
    each_ring(|mut world| {
        let (mut first, mut second) = (world.process(1), world.process(2));
        first.start(&mut world.state, 0, NOW);
        second.start(&mut world.state, 0, NOW);
        assert!(matches!(world.look(&mut first, 0), Some(MemberEvent::Yielded { .. })));
        let asleep = world.state.clone();
        world.set(2, Standing::Down);
        assert!(matches!(world.look(&mut first, 1), Some(MemberEvent::Regained { .. })));
        // Its grave as a rival is removed before the one that sleeps hears of it.
        world.state.advance(crate::state::GRAVE_KEPT + Duration::from_secs(3600));
        world.state.apply(asleep.records().cloned().collect());
        assert_eq!(world.view().rivals_of("pod-3").count(), 1);
        assert_eq!(world.look(&mut first, 2), None);
        assert_eq!(world.view().rivals_of("pod-3").count(), 0, "it is its own rival no more");
    });
}

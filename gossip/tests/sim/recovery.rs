//! Coming back: from a split, a pause, a crash, a mass death, a day away, with a wrong key or a doubled name.

use std::time::Duration;

use vivace_gossip::swim::Health;

use crate::world::{Stack, World};

fn cluster(seed: u64, size: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..size {
        world.add_place(Stack::Dual);
    }
    world.seeds = world.addresses(0).into_iter().chain(world.addresses(1)).collect();
    for place in 0..size {
        world.start(place, &format!("member-{place}"), "cluster");
    }
    let all = world.living();
    world.run_until(Duration::from_secs(15), |world| world.agree(&all)).expect("whole at first");
    world
}

fn whole_within(world: &mut World, limit: u64, places: &[usize]) {
    let done = world.run_until(Duration::from_secs(limit), |world| world.agree(places));
    assert!(done.is_some(), "not within {limit} s: {:?}", world.disagreement(places));
}

#[test]
fn a_split_heals_without_help() {
    for seed in 1..=3 {
        let mut world = cluster(seed, 16);
        let all = world.living();
        for place in 0..16 {
            world.network.blocks.groups.insert(place, place % 2);
        }
        world.run(Duration::from_secs(90));
        assert!(!world.agree(&all));
        world.network.blocks.groups.clear();
        whole_within(&mut world, 20, &all);
    }
}

#[test]
fn a_member_back_after_a_day_is_welcome_and_takes_nobody_down() {
    let mut world = cluster(4, 9);
    let all = world.living();
    world.network.blocks.groups.insert(8, 1);
    world.run(Duration::from_secs(24 * 3600));
    world.network.blocks.groups.clear();
    world.false_deaths.clear();
    whole_within(&mut world, 20, &all);
    let taken: Vec<_> = world.false_deaths.iter().filter(|(who, ..)| *who != 8).collect();
    assert!(taken.is_empty(), "{taken:?}");
}

#[test]
fn a_short_pause_is_not_noticed_and_a_long_one_is_forgiven() {
    let mut world = cluster(5, 9);
    let all = world.living();
    world.pause(3);
    world.run(Duration::from_secs(4));
    world.resume(3);
    world.run(Duration::from_secs(20));
    assert_eq!(world.false_deaths, []);
    world.pause(3);
    world.run(Duration::from_secs(60));
    world.resume(3);
    world.false_deaths.clear();
    whole_within(&mut world, 15, &all);
    // Whoever stood still does not hold the time it missed against the others.
    let by_sleeper = world.false_deaths.iter().filter(|(who, ..)| *who == 3).count();
    assert_eq!(by_sleeper, 0);
}

#[test]
fn datagrams_to_a_member_that_was_stopped_are_used_again_when_pairs_meet() {
    let mut world = cluster(12, 9);
    world.run(Duration::from_secs(30));
    let blocked = |world: &World| {
        let pairs = world.living().into_iter().flat_map(|here| {
            let others = world.swim(here).view(world.clock(here)).members.into_iter();
            others.filter(|other| other.paths.iter().any(|path| path.datagram == Some(false))).map(move |_| here)
        });
        pairs.collect::<Vec<_>>()
    };
    assert_eq!(blocked(&world), [0_usize; 0]);
    world.pause(3);
    world.run(Duration::from_secs(15));
    assert!(blocked(&world).len() >= 6, "who met the one that is stopped was not answered: {:?}", blocked(&world));
    world.resume(3);
    // A member probes each of the eight others in this time.
    world.run(Duration::from_secs(18));
    assert_eq!(blocked(&world), [0_usize; 0]);
}

#[test]
fn a_third_of_the_members_killed_at_once_is_noticed_by_all_the_others() {
    let mut world = cluster(6, 21);
    (14..21).for_each(|place| world.kill(place));
    let rest = world.living();
    whole_within(&mut world, 24, &rest);
}

#[test]
fn a_restart_with_the_same_name_and_nothing_remembered_is_another_life() {
    let mut world = cluster(7, 9);
    world.kill(5);
    world.start(5, "member-5", "cluster");
    let all = world.living();
    whole_within(&mut world, 20, &all);
}

#[test]
fn a_leaving_member_is_known_to_have_left() {
    let mut world = cluster(8, 9);
    let id = world.swim(5).node().id;
    world.leave(5);
    world.run(Duration::from_secs(2));
    world.kill(5);
    let rest = world.living();
    assert_eq!(world.disagreement(&rest), None);
    for place in rest {
        let view = world.swim(place).view(world.clock(place));
        let left = view.members.iter().find(|member| member.node.id == id).map(|member| member.health);
        assert_eq!(left, Some(Health::Left), "as seen by {place}");
    }
}

#[test]
fn two_living_members_of_one_name_are_both_there_and_both_named() {
    let mut world = cluster(9, 7);
    let twin = world.add_place(Stack::Dual);
    world.start(twin, "member-3", "cluster");
    let all = world.living();
    whole_within(&mut world, 10, &all);
    world.run(Duration::from_secs(60));
    assert_eq!(world.false_deaths, []);
    let view = world.swim(0).view(world.clock(0));
    let twins: Vec<_> = view.members.iter().filter(|member| member.name_taken_twice).collect();
    assert_eq!(twins.iter().map(|member| member.node.name()).collect::<Vec<_>>(), ["member-3", "member-3"]);
}

#[test]
fn a_member_with_a_wrong_key_stays_outside_and_is_named() {
    let mut world = World::new(10);
    world.keys = vec![[1; 32]];
    for _ in 0..5 {
        world.add_place(Stack::V4);
    }
    world.seeds = world.addresses(0);
    for place in 0..4 {
        world.start(place, &format!("member-{place}"), "cluster");
    }
    world.keys = vec![[2; 32]];
    world.start(4, "wrong", "cluster");
    world.run(Duration::from_secs(20));
    let right = [0, 1, 2, 3];
    assert_eq!(world.disagreement(&right), None);
    let refusals = world.swim(0).refusals();
    assert!(refusals.count("key") > 0);
    assert_eq!(refusals.offenders()[0].address, world.addresses(4)[0].ip());
    // It is told, and can name those that do not hear it.
    let refusals = world.swim(4).refusals();
    assert_eq!(refusals.offenders().first().map(|offender| offender.address), Some(world.addresses(0)[0].ip()));
}

#[test]
fn a_cluster_whose_seeds_are_gone_heals_by_what_its_members_remember() {
    let mut world = cluster(11, 10);
    for place in 0..10 {
        world.network.blocks.groups.insert(place, place % 2);
    }
    world.kill(0);
    world.kill(1);
    world.run(Duration::from_secs(60));
    world.network.blocks.groups.clear();
    let rest = world.living();
    whole_within(&mut world, 20, &rest);
}

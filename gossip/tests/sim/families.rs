//! IPv4 alone, IPv6 alone and both, in one cluster.

use std::time::Duration;

use vivace_gossip::families::Family;

use crate::world::{Stack, World};

/// The given numbers of places; the dual ones come first and are the seeds.
fn mixed(seed: u64, dual: usize, v4: usize, v6: usize) -> World {
    let mut world = World::new(seed);
    for stack in [(Stack::Dual, dual), (Stack::V4, v4), (Stack::V6, v6)] {
        for _ in 0..stack.1 {
            world.add_place(stack.0);
        }
    }
    world.seeds = (0..dual).flat_map(|place| world.addresses(place)).collect();
    for place in 0..dual + v4 + v6 {
        world.start(place, &format!("member-{place}"), "cluster");
    }
    world
}

#[test]
fn ten_of_each_family_and_one_dual_member_are_one_cluster() {
    let mut world = mixed(1, 1, 10, 10);
    let all = world.living();
    let whole = world.run_until(Duration::from_secs(15), |world| world.agree(&all));
    assert!(whole.is_some(), "{:?}", world.disagreement(&all));
    world.network.weather.loss = 20;
    world.run(Duration::from_secs(120));
    assert_eq!(world.false_deaths, []);
    assert_eq!(world.disagreement(&all), None);
}

#[test]
fn when_the_last_dual_member_dies_each_family_goes_on_and_a_new_one_joins_them_again() {
    let mut world = mixed(2, 1, 6, 6);
    let all = world.living();
    world.run_until(Duration::from_secs(15), |world| world.agree(&all)).expect("whole at first");
    world.kill(0);
    let (v4, v6): (Vec<usize>, Vec<usize>) = ((1..7).collect(), (7..13).collect());
    let parted = world.run_until(Duration::from_secs(30), |world| world.agree(&v4) && world.agree(&v6));
    assert!(parted.is_some(), "{:?} {:?}", world.disagreement(&v4), world.disagreement(&v6));
    world.run(Duration::from_secs(60));
    world.start(0, "dual again", "cluster");
    let again = world.run_until(Duration::from_secs(30), |world| world.agree(&all));
    assert!(again.is_some(), "{:?}", world.disagreement(&all));
}

#[test]
fn the_next_dual_member_relays_when_one_dies() {
    let mut world = mixed(3, 2, 5, 5);
    let all = world.living();
    world.run_until(Duration::from_secs(15), |world| world.agree(&all)).expect("whole at first");
    world.kill(1);
    let rest: Vec<usize> = all.into_iter().filter(|place| *place != 1).collect();
    let whole = world.run_until(Duration::from_secs(20), |world| world.agree(&rest));
    assert!(whole.is_some(), "{:?}", world.disagreement(&rest));
    assert_eq!(world.false_deaths, []);
}

#[test]
fn when_one_family_dies_between_dual_members_nobody_notices() {
    for family in [Family::V4, Family::V6] {
        let mut world = mixed(4, 9, 0, 0);
        let all = world.living();
        world.run_until(Duration::from_secs(15), |world| world.agree(&all)).expect("whole at first");
        world.run(Duration::from_secs(30));
        for a in 0..9 {
            for b in a + 1..9 {
                world.network.blocks.families.insert((a, b, family));
            }
        }
        // Each probes each within two rounds.
        world.run(Duration::from_secs(22));
        works(&world, family, false);
        world.run(Duration::from_secs(98));
        assert_eq!(world.false_deaths, [], "{family} dead");
        assert_eq!(world.disagreement(&all), None, "{family} dead");
        world.network.blocks.families.clear();
        world.run(Duration::from_secs(80));
        works(&world, family, true);
    }
}

/// Each member knows of each other one whether `family` works, and that the other family does, whichever of them it uses.
fn works(world: &World, family: Family, whether: bool) {
    for place in world.living() {
        let view = world.swim(place).view(world.clock(place));
        for member in view.members.iter().filter(|member| member.node.id != view.me.id) {
            for path in &member.paths {
                let expected = whether || path.family != family;
                assert_eq!(path.datagram, Some(expected), "{place} to {}: {path:?}", member.node.name());
                assert!(
                    path.stream.is_none_or(|works| works == expected),
                    "{place} to {}: {path:?}",
                    member.node.name()
                );
            }
        }
    }
}

#[test]
fn members_with_both_families_do_the_relaying() {
    let mut world = mixed(5, 3, 4, 4);
    let all = world.living();
    world.run_until(Duration::from_secs(15), |world| world.agree(&all)).expect("whole at first");
    let relayed = |world: &World, places: std::ops::Range<usize>| -> u64 {
        places.map(|place| world.swim(place).view(world.clock(place)).relayed).sum()
    };
    // While members start, one may be dialled before it listens, and is reached through whoever is there already.
    world.run(Duration::from_secs(20));
    let at_first = relayed(&world, 3..11);
    world.run(Duration::from_secs(60));
    assert!(relayed(&world, 0..3) > 100, "{}", relayed(&world, 0..3));
    assert_eq!(relayed(&world, 3..11), at_first);
}

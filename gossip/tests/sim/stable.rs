//! Safety: packet loss alone kills nobody.

use std::time::Duration;

use vivace_gossip::swim::Health;

use crate::seeds;
use crate::world::{Stack, World};

fn lossy(seed: u64, size: usize, loss: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..size {
        world.add_place(Stack::Dual);
    }
    world.seeds = world.addresses(0);
    for place in 0..size {
        world.start(place, &format!("member-{place}"), "cluster");
    }
    world.network.weather.loss = loss;
    world
}

#[test]
fn nobody_living_is_declared_down_at_five_percent_loss() {
    for seed in seeds(8, 0, 1) {
        let mut world = lossy(seed, 20, 50);
        world.run(Duration::from_secs(300));
        assert_eq!(world.false_deaths, [], "seed {seed}");
        assert_eq!(world.disagreement(&world.living()), None, "seed {seed}");
    }
}

#[test]
fn nobody_living_is_declared_down_where_datagrams_never_arrive() {
    let mut world = lossy(1, 20, 20);
    world.network.blocks.all_datagrams = true;
    world.run(Duration::from_secs(200));
    assert_eq!(world.false_deaths, []);
    assert_eq!(world.disagreement(&world.living()), None);
}

#[test]
fn nobody_living_is_declared_down_when_datagrams_stop_for_one_member_or_for_all() {
    let mut world = lossy(2, 20, 20);
    world.run(Duration::from_secs(60));
    world.network.blocks.datagrams.insert(7);
    world.run(Duration::from_secs(60));
    world.network.blocks.all_datagrams = true;
    world.run(Duration::from_secs(60));
    assert_eq!(world.false_deaths, []);
    assert_eq!(world.disagreement(&world.living()), None);
}

#[test]
fn nobody_is_suspected_when_no_stream_can_be_opened_to_one_member() {
    let mut world = lossy(4, 12, 0);
    world.run(Duration::from_secs(30));
    for place in 0..12 {
        world.network.blocks.opening.insert((place, 7));
    }
    // Until the last stream to it is closed, and every pair has found out.
    world.run(Duration::from_secs(40));
    for _ in 0..120 {
        world.run(Duration::from_millis(500));
        for place in world.living() {
            let view = world.swim(place).view(world.clock(place));
            let unwell = view.members.iter().find(|member| member.health != Health::Alive);
            assert!(unwell.is_none(), "at {place}: {unwell:?}");
        }
    }
    assert_eq!(world.false_deaths, []);
}

#[test]
fn a_quiet_cluster_costs_each_member_less_than_two_kilobytes_a_second() {
    let mut world = lossy(3, 50, 20);
    world.run(Duration::from_secs(60));
    world.traffic = Default::default();
    world.run(Duration::from_secs(100));
    let rate = world.traffic.total() / 50 / 100;
    assert!(rate <= 2000, "{rate} B/s: {:?}", world.traffic);
}

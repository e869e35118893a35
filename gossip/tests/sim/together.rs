//! Several faults at the same moment in a small cluster: whoever lives is not declared down for them.

use std::time::Duration;

use vivace_gossip::families::Family;

use crate::seeds;
use crate::world::{Stack, World};

#[test]
fn five_faults_at_once_among_seven_members_take_nobody_down_who_lives() {
    let mut taken = Vec::new();
    for seed in seeds(60, 0, 1) {
        let mut world = World::new(seed);
        for _ in 0..7 {
            world.add_place(Stack::Dual);
        }
        world.seeds = world.addresses(0);
        for place in 0..7 {
            world.start(place, &format!("member-{place}"), "cluster");
        }
        world.network.weather.loss = [0, 10, 20][world.rng.index(3)];
        let settled = Duration::from_millis(10_000 + world.rng.below(10_000));
        world.run(settled);
        world.kill(2);
        world.pause(3);
        world.network.blocks.deaf.insert(4);
        world.network.blocks.uncallable.insert(5);
        for place in 0..6 {
            world.network.blocks.families.insert((place, 6, Family::V6));
        }
        world.false_deaths.clear();
        world.run(Duration::from_secs(60));
        let stopped = world.swim(3).node().id;
        let ids: Vec<u64> = (0..7).filter(|place| *place != 2).map(|place| world.swim(place).node().id).collect();
        let of = |id: u64| ids.iter().position(|known| *known == id);
        let falsely = world.false_deaths.iter().filter(|(who, whom, _)| *whom != stopped && *who != 3);
        taken.extend(falsely.map(|(who, whom, at)| (seed, *who, of(*whom), *at - settled)));
    }
    assert!(taken.is_empty(), "seed, who, whom (of those but the killed one), when: {taken:#?}");
}

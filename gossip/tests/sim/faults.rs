//! A random story: members come, faults come and go, and in the end everything works again.

use std::time::Duration;

use vivace_gossip::families::Family;

use crate::world::{Stack, World};

/// How long faults come and go.
const TROUBLE: Duration = Duration::from_secs(60);

fn seconds(world: &mut World, least: u64, most: u64) -> Duration {
    Duration::from_millis(1000 * least + world.rng.below(1000 * (most - least)))
}

/// A world of 7 to 25 members that has been through a story of its seed. All faults are over; some members are gone.
pub(crate) fn lived(seed: u64, prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(seed);
    prepare(&mut world);
    let size = 7 + world.rng.index(19);
    world.network.weather.loss = [0, 10, 20, 50][world.rng.index(4)];
    world.network.weather.doubled = world.rng.below(30);
    world.network.weather.delay = [(200, 1200), (200, 1200), (1000, 90_000)][world.rng.index(3)];
    for _ in 0..size {
        let stack = if world.rng.chance(1, 6) { [Stack::V4, Stack::V6][world.rng.index(2)] } else { Stack::Dual };
        world.add_place(stack);
    }
    // Two that always have both families and never go: seeds that everybody reaches.
    world.stacks[0] = Stack::Dual;
    world.stacks[1] = Stack::Dual;
    for place in [0, 1] {
        for address in world.addresses(place) {
            world.network.places.insert(address, place);
        }
    }
    world.seeds = world.addresses(0).into_iter().chain(world.addresses(1)).collect();
    for place in 0..size {
        world.start(place, &format!("member-{place}"), "cluster");
        if world.rng.chance(1, 2) {
            let wait = seconds(&mut world, 0, 1);
            world.run(wait);
        }
    }
    let end = world.now + TROUBLE;
    while world.now < end {
        trouble(&mut world, size);
    }
    heal(&mut world, size);
    world
}

/// Ends every fault.
pub(crate) fn heal(world: &mut World, size: usize) {
    world.network.blocks = Default::default();
    world.network.weather.loss = world.network.weather.loss.min(20);
    for place in 0..size {
        world.resume(place);
    }
}

fn trouble(world: &mut World, size: usize) {
    let victim = world.rng.index(size);
    match world.rng.below(12) {
        0 => split(world, size),
        1 => {
            let other = world.rng.index(size);
            world.network.blocks.one_way.insert((victim, other));
            let span = seconds(world, 2, 15);
            world.run(span);
            world.network.blocks.one_way.clear();
        }
        2 => {
            world.network.blocks.all_datagrams = !world.network.blocks.all_datagrams;
        }
        3 => {
            world.network.blocks.datagrams.insert(victim);
        }
        4 => {
            world.pause(victim);
            let span = seconds(world, 1, 20);
            world.run(span);
            world.resume(victim);
        }
        5 | 6 if victim > 1 => {
            world.kill(victim);
            let span = seconds(world, 0, 14);
            world.run(span);
            if world.rng.chance(2, 3) {
                world.start(victim, &format!("member-{victim}"), "cluster");
            }
        }
        7 if victim > 1 && world.is_running(victim) => {
            world.leave(victim);
            world.run(Duration::from_secs(2));
            world.kill(victim);
        }
        8 if victim > 1 && (world.processes[victim].is_none() || world.rng.chance(1, 4)) => {
            // The address has a new owner, of another cluster, which was given the old seeds.
            if world.processes[victim].is_some() {
                world.kill(victim);
            }
            world.start(victim, "stranger", "another cluster");
        }
        9 => {
            let other = world.rng.index(size);
            let family = [Family::V4, Family::V6][world.rng.index(2)];
            let pair = (victim.min(other), victim.max(other), family);
            world.network.blocks.families.insert(pair);
        }
        10 => {
            let other = world.rng.index(size);
            world.network.blocks.opening.insert((victim, other));
        }
        _ => world.write(victim),
    }
    let span = seconds(world, 0, 5);
    world.run(span);
}

/// Any partition, of any length up to half a minute.
fn split(world: &mut World, size: usize) {
    let groups = 2 + world.rng.index(2);
    for place in 0..size {
        let group = world.rng.index(groups);
        world.network.blocks.groups.insert(place, group);
    }
    let span = seconds(world, 3, 30);
    world.run(span);
    world.network.blocks.groups.clear();
}

/// Places whose process belongs to the cluster.
pub(crate) fn members(world: &World) -> Vec<usize> {
    let ours = |place: &usize| world.processes[*place].as_ref().is_some_and(|process| process.label == "cluster");
    world.living().into_iter().filter(ours).collect()
}

//! Figures of gossip in the simulated network: how long a cluster needs to agree, and what that costs in bytes.
//!
//! `cargo run --release -p vivace-gossip --example figures [members] [seeds] [what]`, by default 1,000 members, 3 seeds and
//! `usual`. `what`: `usual` is 2 % loss; `blocked` the same where no datagram ever arrives; `hour` counts living members that are
//! declared down in an hour at 5 % loss; `third` kills 30 % at once. Times are of the simulated clock, bytes are what one member
//! sends.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/sim/network.rs"]
mod network;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/sim/registers.rs"]
mod registers;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/sim/world.rs"]
mod world;

use std::time::{Duration, Instant};

use vivace_gossip::swim::Kind;
use world::{Stack, World};

const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| arguments.get(place).and_then(|text| text.parse::<usize>().ok());
    let (size, seeds) = (number(0).unwrap_or(1000), number(1).unwrap_or(3) as u64);
    let what = arguments.get(2).map_or("usual", String::as_str);
    println!("{what}: {size} members; seconds until 99 % / all agree");
    for seed in 1..=seeds {
        let began = Instant::now();
        print!("seed {seed:2}: ");
        match what {
            "usual" => usual(started(seed, size, 20, false), size),
            "blocked" => usual(started(seed, size, 20, true), size),
            "hour" => hour(started(seed, size, 50, false)),
            "third" => third(started(seed, size, 20, false), size),
            other => println!("no figure {other:?}; there are usual, blocked, hour and third"),
        }
        println!("         computed in {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// Members that were all started at once and know each other.
fn started(seed: u64, size: usize, loss: u64, datagrams_blocked: bool) -> World {
    let mut world = World::new(seed);
    for _ in 0..=size {
        world.add_place(Stack::Dual);
    }
    world.network.weather.loss = loss;
    world.network.blocks.all_datagrams = datagrams_blocked;
    world.seeds = (0..3).flat_map(|place| world.addresses(place)).collect();
    for place in 0..size {
        world.start(place, &format!("member-{place}"), "cluster");
    }
    members_agree(&mut world, "start");
    world
}

fn hour(mut world: World) {
    world.false_deaths.clear();
    world.traffic = Default::default();
    world.run(Duration::from_secs(3600));
    let rate = world.traffic.total() as f64 / world.living().len() as f64 / 3600.0;
    println!("false deaths {}, {rate:.0} B/s", world.false_deaths.len());
}

fn third(mut world: World, size: usize) {
    world.run(Duration::from_secs(30));
    (size * 7 / 10..size).for_each(|place| world.kill(place));
    members_agree(&mut world, "30 % dead");
    println!();
}

fn usual(mut world: World, size: usize) {
    world.run(Duration::from_secs(60));

    world.traffic = Default::default();
    let span = Duration::from_secs(60);
    world.run(span);
    let rates: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| {
            let bytes = world.traffic.bytes.get(kind).copied().unwrap_or(0);
            format!("{kind:?} {:.0}", bytes as f64 / size as f64 / span.as_secs_f64())
        })
        .collect();
    let steady = world.traffic.total() as f64 / size as f64 / span.as_secs_f64();

    world.start(size, "joiner", "cluster");
    members_agree(&mut world, "joiner");

    world.run(Duration::from_secs(20));
    world.write(5);
    let version = world.swim(5).with_state(|state| state.get(5));
    let knows = |world: &World| {
        let all = world.living();
        all.iter().filter(|place| world.swim(**place).with_state(|state| state.get(5)) == version).count()
    };
    both(&mut world, "change", knows);

    world.run(Duration::from_secs(20));
    world.kill(size - 1);
    members_agree(&mut world, "death");

    world.run(Duration::from_secs(20));
    for place in 0..=size {
        world.network.blocks.groups.insert(place, place % 2);
    }
    world.run(Duration::from_secs(90));
    world.network.blocks.groups.clear();
    world.false_deaths.clear();
    world.traffic = Default::default();
    let healed_from = world.now;
    members_agree(&mut world, "heal");
    let healing = (world.now - healed_from).as_secs_f64().max(0.1);
    let healing_rate = world.traffic.total() as f64 / size as f64 / healing;
    println!("\n         steady {steady:.0} B/s ({}), healing {healing_rate:.0} B/s", rates.join(", "),);
}

fn members_agree(world: &mut World, what: &str) {
    both(world, what, |world| world.agreeing(&world.living()));
}

/// Prints when 99 % and when all members are counted by `count`.
fn both(world: &mut World, what: &str, count: impl Fn(&World) -> usize) {
    let size = world.living().len();
    let most = world.run_until(LIMIT, |world| count(world) * 100 >= size * 99);
    let rest = most.and_then(|_| world.run_until(LIMIT, |world| count(world) == size));
    match (most, rest) {
        (Some(most), Some(rest)) => print!("{what} {:.1}/{:.1}  ", most.as_secs_f64(), (most + rest).as_secs_f64()),
        (Some(most), None) => print!("{what} {:.1}/never ({} of {size})  ", most.as_secs_f64(), count(world)),
        (None, _) => print!("{what} never ({} of {size})  ", count(world)),
    }
}

//! Figures of gossip in the simulated network: how long a cluster needs to agree, and what that costs in bytes.
//!
//! `cargo run --release -p vivace-gossip --example figures [members] [seeds] [what]`, by default 1,000 members, 3 seeds and
//! `usual`. `what`: `usual` is 2 % loss; `blocked` the same where no datagram ever arrives; `hour` counts living members that are
//! declared down in an hour at 5 % loss; `third` kills 30 % at once. Times are of the simulated clock, bytes are what one member
//! sends. Seeds are computed beside each other, one on each core; at the end stand the median and the worst of them beside what
//! is promised, and the exit code is 1 if that was not kept.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/sim/network.rs"]
mod network;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/sim/registers.rs"]
mod registers;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/sim/world.rs"]
mod world;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vivace_gossip::swim::Kind;
use world::{Stack, World};

const LIMIT: Duration = Duration::from_secs(120);

/// What is promised: within so many seconds for 99 % of the members, within twice as many for all of them. Without
/// datagrams it may take two seconds more.
const PROMISES: [(&str, f64); 5] = [("start", 15.0), ("joiner", 3.0), ("change", 3.0), ("death", 12.0), ("heal", 20.0)];
const BYTES_A_SECOND: f64 = 2000.0;

/// What came of one seed.
#[derive(Default)]
struct Figures {
    text: String,
    /// Seconds until 99 % and until all; infinite for never.
    times: Vec<(&'static str, f64, f64)>,
    /// Bytes a second that one member sends while nothing happens.
    steady: Option<f64>,
    false_deaths: Option<usize>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| arguments.get(place).and_then(|text| text.parse::<usize>().ok());
    let (size, seeds) = (number(0).unwrap_or(1000), number(1).unwrap_or(3) as u64);
    let what = arguments.get(2).map_or("usual", String::as_str);
    if !["usual", "blocked", "hour", "third"].contains(&what) {
        println!("no figure {what:?}; there are usual, blocked, hour and third");
        return ExitCode::from(2);
    }
    println!("{what}: {size} members; seconds until 99 % / all agree");
    let (next, all) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        break;
                    }
                    let began = Instant::now();
                    let figures = of_seed(seed, size, what);
                    let took = began.elapsed().as_secs_f64();
                    println!("seed {seed:2}: {}\n         computed in {took:.1} s", figures.text);
                    all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(figures);
                }
            });
        }
    });
    let all = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if summary(&all, what) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn of_seed(seed: u64, size: usize, what: &str) -> Figures {
    let mut figures = Figures::default();
    match what {
        "usual" => usual(&mut figures, seed, size, false),
        "blocked" => usual(&mut figures, seed, size, true),
        "hour" => hour(&mut figures, seed, size),
        _ => third(&mut figures, seed, size),
    }
    figures
}

/// The worst and the middle of all seeds beside what is promised. Whether everything was kept.
fn summary(all: &[Figures], what: &str) -> bool {
    let mut kept = true;
    println!("\nof {} seeds           99 % of the members: median, worst    all: median, worst    promised", all.len());
    let mut names: Vec<&str> = all.iter().flat_map(|figures| figures.times.iter().map(|(name, ..)| *name)).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let of = |pick: fn(&(&'static str, f64, f64)) -> f64| {
            let times = all.iter().flat_map(|figures| figures.times.iter().filter(|(it, ..)| *it == name));
            let mut times: Vec<f64> = times.map(pick).collect();
            times.sort_by(f64::total_cmp);
            (times[times.len() / 2], times[times.len() - 1])
        };
        let (most, rest) = (of(|it| it.1), of(|it| it.2));
        let later = if what == "blocked" { 2.0 } else { 0.0 };
        let promise = PROMISES.iter().find(|(it, _)| *it == name).map(|(_, seconds)| seconds + later);
        let ok = promise.is_none_or(|promise| most.1 <= promise && rest.1 <= 2.0 * promise);
        kept &= ok;
        let promise = promise.map_or_else(|| "-".to_owned(), |promise| format!("{promise:.0}, {:.0}", 2.0 * promise));
        let verdict = if ok { "" } else { "  NOT KEPT" };
        println!("{name:10} {:36.1}, {:5.1} {:15.1}, {:5.1} {promise:>12}{verdict}", most.0, most.1, rest.0, rest.1);
    }
    let steady = all.iter().filter_map(|figures| figures.steady).fold(0.0, f64::max);
    let deaths: usize = all.iter().filter_map(|figures| figures.false_deaths).sum();
    let quiet = steady <= BYTES_A_SECOND && deaths == 0;
    println!(
        "steady     {steady:.0} B/s a member at worst (promised {BYTES_A_SECOND:.0}); false deaths {deaths} (promised 0)"
    );
    kept && quiet
}

/// Members that were all started at once and know each other.
fn started(figures: &mut Figures, seed: u64, size: usize, loss: u64, datagrams_blocked: bool) -> World {
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
    members_agree(figures, &mut world, "start");
    world
}

fn hour(figures: &mut Figures, seed: u64, size: usize) {
    let mut world = started(figures, seed, size, 50, false);
    world.false_deaths.clear();
    world.traffic = Default::default();
    world.run(Duration::from_secs(3600));
    let rate = world.traffic.total() as f64 / world.living().len() as f64 / 3600.0;
    note(figures, format_args!("false deaths {}, {rate:.0} B/s", world.false_deaths.len()));
    (figures.steady, figures.false_deaths) = (Some(rate), Some(world.false_deaths.len()));
}

fn third(figures: &mut Figures, seed: u64, size: usize) {
    let mut world = started(figures, seed, size, 20, false);
    world.run(Duration::from_secs(30));
    (size * 7 / 10..size).for_each(|place| world.kill(place));
    members_agree(figures, &mut world, "30 % dead");
}

fn usual(figures: &mut Figures, seed: u64, size: usize, datagrams_blocked: bool) {
    let mut world = started(figures, seed, size, 20, datagrams_blocked);
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
    members_agree(figures, &mut world, "joiner");

    world.run(Duration::from_secs(20));
    world.write(5);
    let version = world.swim(5).with_state(|state| state.get(5));
    let knows = |world: &World| {
        let all = world.living();
        all.iter().filter(|place| world.swim(**place).with_state(|state| state.get(5)) == version).count()
    };
    both(figures, &mut world, "change", knows);

    world.run(Duration::from_secs(20));
    world.kill(size - 1);
    members_agree(figures, &mut world, "death");

    world.run(Duration::from_secs(20));
    for place in 0..=size {
        world.network.blocks.groups.insert(place, place % 2);
    }
    world.run(Duration::from_secs(90));
    world.network.blocks.groups.clear();
    world.false_deaths.clear();
    world.traffic = Default::default();
    let healed_from = world.now;
    members_agree(figures, &mut world, "heal");
    let healing = (world.now - healed_from).as_secs_f64().max(0.1);
    let healing_rate = world.traffic.total() as f64 / size as f64 / healing;
    let rates = rates.join(", ");
    note(figures, format_args!("\n         steady {steady:.0} B/s ({rates}), healing {healing_rate:.0} B/s"));
    figures.steady = Some(steady);
}

fn note(figures: &mut Figures, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    figures.text.write_fmt(text).unwrap_or(());
}

fn members_agree(figures: &mut Figures, world: &mut World, what: &'static str) {
    both(figures, world, what, |world| world.agreeing(&world.living()));
}

/// Notes when 99 % and when all members are counted by `count`.
fn both(figures: &mut Figures, world: &mut World, what: &'static str, count: impl Fn(&World) -> usize) {
    let size = world.living().len();
    let most = world.run_until(LIMIT, |world| count(world) * 100 >= size * 99);
    let rest = most.and_then(|_| world.run_until(LIMIT, |world| count(world) == size));
    let (most, rest) = match (most, rest) {
        (Some(most), Some(rest)) => (most.as_secs_f64(), (most + rest).as_secs_f64()),
        (Some(most), None) => (most.as_secs_f64(), f64::INFINITY),
        (None, _) => (f64::INFINITY, f64::INFINITY),
    };
    note(figures, format_args!("{what} {most:.1}/{rest:.1}  "));
    figures.times.push((what, most, rest));
}

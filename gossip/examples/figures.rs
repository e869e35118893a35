//! Figures of gossip in the simulated network: how long a cluster needs to agree, and what that costs in bytes.
//!
//! ```sh
//! cargo run --release --config 'profile.release.package.vivace-gossip.opt-level=3' -p vivace-gossip --example figures -- \
//!   [members] [seeds] [what]
//! ```
//!
//! (The release builds gossip for size; without `--config` the same figures come out, three times later.) By default 1,000 members, 3
//! seeds and `usual`; `14-20` instead of a number of seeds are those seeds. `what`: `usual` is 2 % loss; `blocked` the same where no datagram ever arrives; `hour` counts living members that are
//! declared down in an hour at 5 % loss; `third` kills 30 % at once. Times are of the simulated clock, bytes are what one member
//! sends. Nobody who lives may be declared down in any of them, a split apart. Seeds are computed beside each other, one on each
//! core; at the end stand the median and the worst of them beside what is promised, and the exit code is 1 if that was not kept.

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
/// datagrams it may take two seconds more. Of anything else that it happens at all, within [`LIMIT`].
const PROMISES: [(&str, f64); 5] = [("start", 15.0), ("joiner", 3.0), ("change", 3.0), ("death", 12.0), ("heal", 20.0)];
const BYTES_A_SECOND: f64 = 2000.0;

/// What came of one seed.
#[derive(Default)]
struct Figures {
    text: String,
    /// Seconds until 99 % and until all; infinite for never.
    times: Vec<(&'static str, f64, f64)>,
    /// Bytes a second that one member sends while nothing happens, by kind.
    steady: Vec<(Kind, f64)>,
    /// Members that were declared down while they lived, and could be reached.
    false_deaths: usize,
}

impl Figures {
    fn steady(&self) -> f64 {
        self.steady.iter().map(|(_, rate)| rate).sum()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let size = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let (first, last) = arguments.get(1).and_then(|text| seeds(text)).unwrap_or((1, 3));
    let what = arguments.get(2).map_or("usual", String::as_str);
    if !["usual", "blocked", "hour", "third"].contains(&what) {
        println!("no figure {what:?}; there are usual, blocked, hour and third");
        return ExitCode::from(2);
    }
    let loss = if what == "hour" { 5 } else { 2 };
    println!("{what}: {size} members, seeds {first} to {last}, {loss} % loss; seconds until 99 % / all agree");
    let (next, all) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
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

/// The first and the last of `20`, or of `14-20`.
fn seeds(text: &str) -> Option<(u64, u64)> {
    match text.split_once('-') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => Some((1, text.parse().ok()?)),
    }
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
        let promise =
            PROMISES.iter().find(|(it, _)| *it == name).map_or(LIMIT.as_secs_f64(), |(_, seconds)| seconds + later);
        let ok = most.1 <= promise && rest.1 <= 2.0 * promise;
        kept &= ok;
        let (verdict, promise) = (verdict(ok), format!("{promise:.0}, {:.0}", 2.0 * promise));
        println!("{name:10} {:36.1}, {:5.1} {:15.1}, {:5.1} {promise:>12}{verdict}", most.0, most.1, rest.0, rest.1);
    }
    let measured: Vec<&Figures> = all.iter().filter(|figures| !figures.steady.is_empty()).collect();
    if !measured.is_empty() {
        let steady = measured.iter().map(|figures| figures.steady()).fold(0.0, f64::max);
        let ok = steady <= BYTES_A_SECOND;
        kept &= ok;
        println!("steady     {steady:.0} B/s a member at worst; promised {BYTES_A_SECOND:.0}{}", verdict(ok));
        let mean = |kind: Kind| {
            let rates = measured.iter().flat_map(|figures| figures.steady.iter().filter(|(it, _)| *it == kind));
            rates.map(|(_, rate)| rate).sum::<f64>() / measured.len() as f64
        };
        println!("by kind    {}", listed(Kind::ALL.iter().map(|kind| (*kind, mean(*kind)))));
    }
    let deaths: usize = all.iter().map(|figures| figures.false_deaths).sum();
    println!("deaths     {deaths} of members that live; promised 0{}", verdict(deaths == 0));
    kept && deaths == 0 && !all.is_empty()
}

fn verdict(kept: bool) -> &'static str {
    if kept { "" } else { "  NOT KEPT" }
}

fn listed(rates: impl Iterator<Item = (Kind, f64)>) -> String {
    rates.map(|(kind, rate)| format!("{kind:?} {rate:.0}")).collect::<Vec<_>>().join(", ")
}

/// What one member sent a second in `span`, by kind.
fn rates(world: &World, span: Duration) -> Vec<(Kind, f64)> {
    let members = world.living().len() as f64;
    let bytes = |kind: &Kind| world.traffic.bytes.get(kind).copied().unwrap_or(0) as f64;
    Kind::ALL.iter().map(|kind| (*kind, bytes(kind) / members / span.as_secs_f64())).collect()
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
    figures.steady = rates(&world, Duration::from_secs(3600));
    figures.false_deaths = world.false_deaths.len();
    let (deaths, rate) = (figures.false_deaths, figures.steady());
    let by_kind = listed(figures.steady.clone().into_iter());
    note(figures, format_args!("false deaths {deaths}, {rate:.0} B/s ({by_kind})"));
}

fn third(figures: &mut Figures, seed: u64, size: usize) {
    let mut world = started(figures, seed, size, 20, false);
    world.run(Duration::from_secs(30));
    (size * 7 / 10..size).for_each(|place| world.kill(place));
    members_agree(figures, &mut world, "30 % dead");
    figures.false_deaths = world.false_deaths.len();
}

fn usual(figures: &mut Figures, seed: u64, size: usize, datagrams_blocked: bool) {
    let mut world = started(figures, seed, size, 20, datagrams_blocked);
    world.run(Duration::from_secs(60));

    world.traffic = Default::default();
    let span = Duration::from_secs(60);
    world.run(span);
    figures.steady = rates(&world, span);

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
    figures.false_deaths = world.false_deaths.len();
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
    let (steady, deaths) = (figures.steady(), figures.false_deaths);
    let by_kind = listed(figures.steady.clone().into_iter());
    note(
        figures,
        format_args!(
            "\n         steady {steady:.0} B/s ({by_kind}), healing {healing_rate:.0} B/s, false deaths {deaths}"
        ),
    );
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

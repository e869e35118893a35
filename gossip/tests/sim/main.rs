//! Seeded simulation of gossip: a virtual network and one invariant per file.
//!
//! One seed decides everything: sizes, weather, faults, chance within the members. A failing test names its seed;
//! `VIVACE_SIM_SEED=<seed>` runs that one alone, `VIVACE_SIM_LOG=1` prints what its members noticed, and
//! `VIVACE_LONG=<hours>` runs ten times as many seeds.

mod faults;
mod network;
mod registers;
mod world;

mod families;
mod foreign;
mod planted;
mod recovery;
mod repeat;
mod stable;
mod thousand;
mod together;
mod whole;

/// The seeds of one of `parts` tests that share the work: tests run beside each other.
fn seeds(count: u64, part: u64, parts: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("VIVACE_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let count = if long() { 10 * count } else { count };
    (1..=count).filter(|seed| seed % parts == part).collect()
}

/// Whether the long size was asked for.
fn long() -> bool {
    std::env::var_os("VIVACE_LONG").is_some()
}

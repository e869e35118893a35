//! `kill -9` at random moments of a running load: every acknowledged span is there afterwards, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use vivace_integration::ledger::{self, Ledger, Outcome};
use vivace_integration::load::Template;
use vivace_integration::process::{Node, Setup};
use vivace_runtime::{Clock, SystemClock};

/// Small heads, so that cuts, flushes and reclaims happen all the time.
pub(crate) const SMALL_BLOCKS: &str = "live_store:\n  max_block_bytes: 600000\n  max_block_duration: 1s\n  flush_check_period: 100ms\n  max_trace_idle: 200ms\n";

pub(crate) fn now_ns() -> u64 {
    SystemClock.unix_nanos()
}

/// Sends from four connections until told to stop, and notes every outcome.
pub(crate) fn load(
    node: &Node,
    seed: u64,
    next: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<Vec<(u64, Outcome)>>> {
    let addr = node.addr("otlp_http").unwrap();
    (0..4)
        .map(|_| {
            let (next, stop) = (Arc::clone(next), Arc::clone(stop));
            std::thread::spawn(move || {
                let mut template = Template::new(seed, 120);
                let mut connection = None;
                let mut outcomes = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let sequence = next.fetch_add(1, Ordering::Relaxed);
                    let body = template.fill(seed, sequence, now_ns());
                    outcomes.push((sequence, ledger::send(&mut connection, addr, body)));
                }
                outcomes
            })
        })
        .collect()
}

fn rounds() -> u64 {
    match std::env::var("VIVACE_LONG") {
        Ok(hours) => hours.parse::<u64>().unwrap() * 720,
        Err(_) => 10,
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_nine() {
    let seed = std::env::var("VIVACE_SEED").map_or(20_261_120, |s| s.parse().unwrap());
    println!("replay with VIVACE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).yaml(SMALL_BLOCKS);
    let template = Template::new(seed, 120);
    let mut book = Ledger { seed, ..Ledger::default() };
    let mut critical = Vec::new();
    let next = Arc::new(AtomicU64::new(0));
    for round in 0..rounds() {
        let node = setup.start().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let workers = load(&node, seed, &next, &stop);
        // The moment of the kill is part of the experiment, not a wait for a condition.
        std::thread::park_timeout(Duration::from_millis(rng.random_range(50..1500)));
        node.kill().unwrap();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            book.outcomes.extend(worker.join().unwrap());
        }
        // What was acknowledged just before the kill is looked at whole; of the rest a sample.
        critical.extend(book.sample(40, 0));
        // Usually straight on, sometimes a look in between: both kinds of restart are exercised.
        if round % 3 == 2 || round + 1 == rounds() {
            let node = setup.start().unwrap();
            critical.extend(book.sample(0, 150));
            let checked = book.verify(&critical, node.addr("http").unwrap(), &template, 3).unwrap();
            critical.clear();
            assert!(checked > 0, "round {round}: nothing was acknowledged");
            let (status, _, _) = node.stop().unwrap();
            assert!(status.success(), "round {round}: {status}");
        }
    }
    println!("{} requests acknowledged, none of those checked lost or doubled", book.acknowledged().len());
}

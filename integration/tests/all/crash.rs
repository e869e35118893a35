//! `kill -9` at random moments of a running load, and of recoveries: every acknowledged span is there afterwards, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use vivace_integration::http;
use vivace_integration::ledger::{self, Ledger, Outcome, hex};
use vivace_integration::load::{Template, trace_id};
use vivace_integration::process::{Node, Setup};
use vivace_runtime::{Clock, SystemClock};

/// Small heads, so that cuts, flushes and reclaims happen all the time.
pub(crate) const SMALL_BLOCKS: &str = "live_store:\n  max_block_bytes: 600000\n  max_block_duration: 1s\n  flush_check_period: 100ms\n  max_trace_idle: 200ms\n";
/// Merging all the time, so that it is hit, too, and blocks stay few.
const MERGING: &str = "backend_worker:\n  compaction:\n    compaction_cycle: 500ms\n";
/// Spans of a request of [`load`]: two traces, few enough that all of all rounds can be asked for.
pub(crate) const SPANS: usize = 16;
/// Between two requests of a connection: time for the flushes and merges that a kill must hit as well.
pub(crate) const PACE: Duration = Duration::from_millis(3);
/// Requests looked at whole after each kill.
const NEWEST: usize = 60;
/// Connections that ask for traces.
const CHECKERS: usize = 6;

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
                let mut template = Template::new(seed, SPANS);
                let mut connection = None;
                let mut outcomes = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let sequence = next.fetch_add(1, Ordering::Relaxed);
                    let body = template.fill(seed, sequence, now_ns());
                    outcomes.push((sequence, ledger::send(&mut connection, addr, body)));
                    std::thread::park_timeout(PACE);
                }
                outcomes
            })
        })
        .collect()
}

/// From the first answer of a new process on, what was acknowledged last is there or cannot be asked for yet: never "not
/// found".
fn found_or_not_to_be_answered(node: &mut Node, book: &Ledger) {
    let Some(sequence) = book.newest(1).pop() else { return };
    let http = node.addr("http").unwrap();
    let path = format!("/api/traces/{}", hex(&trace_id(book.seed, sequence, 0)));
    node.wait_until("the newest trace is found", || match http::get(http, &path) {
        Ok(answer) if answer.status == 200 => true,
        Ok(answer) => {
            assert_eq!(answer.status, 503, "request {sequence}: {path}: {}", answer.text());
            false
        }
        Err(_) => false,
    })
    .unwrap();
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
    let setup = Setup::new(dir.path()).yaml(SMALL_BLOCKS).yaml(MERGING);
    let template = Template::new(seed, SPANS);
    let mut book = Ledger { seed, ..Ledger::default() };
    let next = Arc::new(AtomicU64::new(0));
    for round in 0..rounds() {
        if rng.random_range(0..3u8) == 0 {
            // Killed again before it has recovered.
            let node = setup.spawn().unwrap();
            std::thread::park_timeout(Duration::from_millis(rng.random_range(0..80)));
            Node::check_no_error(&node.kill().unwrap()).unwrap();
        }
        let mut node = setup.spawn().unwrap();
        found_or_not_to_be_answered(&mut node, &book);
        node.wait_ready().unwrap();
        let newest = book.newest(NEWEST);
        let checked = book.verify_parallel(&newest, node.addr("http").unwrap(), &template, CHECKERS);
        assert_eq!(checked.unwrap(), newest.len() * template.trace_count(), "round {round}");
        let stop = Arc::new(AtomicBool::new(false));
        let workers = load(&node, seed, &next, &stop);
        // The moment of the kill is part of the experiment, not a wait for a condition.
        std::thread::park_timeout(Duration::from_millis(rng.random_range(50..1500)));
        let log = node.kill().unwrap();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            book.outcomes.extend(worker.join().unwrap());
        }
        // For instance that the log begins after what is still needed, or that something was set aside.
        Node::check_no_error(&log).unwrap_or_else(|e| panic!("round {round}: {e}"));
        // Usually straight on, sometimes a clean end in between: both kinds of restart are exercised.
        if round % 3 == 2 {
            let (status, _, log) = setup.start().unwrap().stop().unwrap();
            assert!(status.success(), "round {round}: {status}");
            Node::check_no_error(&log).unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
    }
    // Everything of all rounds, every trace of every request.
    let node = setup.start().unwrap();
    let all = book.acknowledged();
    let checked = book.verify_parallel(&all, node.addr("http").unwrap(), &template, CHECKERS).unwrap();
    assert_eq!(checked, all.len() * template.trace_count());
    assert!(all.len() > 100, "only {} requests were acknowledged: that says little", all.len());
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success(), "{status}");
    Node::check_no_error(&log).unwrap();
    // And what the last end left in the log as blocks.
    let node = setup.start().unwrap();
    book.verify_parallel(&book.newest(NEWEST), node.addr("http").unwrap(), &template, CHECKERS).unwrap();
    node.stop().unwrap();
    println!("{} requests acknowledged, {checked} traces asked for, none lost or doubled", all.len());
}

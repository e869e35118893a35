//! `kill -9` of every process of the cluster in turn, under load: nothing that was acknowledged is lost, nothing is there twice.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use vivace_integration::cluster::{BROKER, Cluster};
use vivace_integration::ledger::Outcome;

use super::{PATIENCE, SPANS, audit, counted, found_by_id, send};

/// Requests acknowledged between two kills: enough that every process has something in its hands.
const BETWEEN: u64 = 40;
/// Rounds in which every process dies once.
const ROUNDS: u64 = 2;

fn rounds() -> u64 {
    match std::env::var("VIVACE_LONG") {
        Ok(hours) => hours.parse::<u64>().unwrap() * 600,
        Err(_) => ROUNDS,
    }
}

/// Cuts and blocks all the time, so that kills hit them too.
fn busy() -> serde_json::Value {
    json!({
        "live_store": {
            "max_trace_idle": "100ms", "max_trace_live": "200ms", "flush_check_period": "50ms",
            "max_block_duration": "300ms", "max_block_bytes": 60_000,
        },
        "block_builder": { "consume_cycle_duration": "300ms" },
    })
}

#[test]
fn nothing_is_lost_or_doubled_whatever_process_is_killed() {
    let seed = std::env::var("VIVACE_SEED").map_or(20_261_125, |seed| seed.parse().unwrap());
    println!("replay with VIVACE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 2);
    for (name, role) in Cluster::EACH_ROLE {
        cluster.add(name, role, busy());
    }
    cluster.start_all().unwrap();
    let sending = send(&cluster, seed, 0);
    sending.wait_for_more(BETWEEN, PATIENCE).unwrap();
    for round in 0..rounds() {
        let mut names: Vec<&str> = Cluster::EACH_ROLE.iter().map(|(name, _)| *name).chain([BROKER]).collect();
        while !names.is_empty() {
            let name = names.swap_remove(rng.random_range(0..names.len()));
            // The moment of the kill is part of the experiment, not a wait for a condition.
            std::thread::park_timeout(Duration::from_millis(rng.random_range(0..300)));
            cluster.kill(name).unwrap();
            cluster.start(&[name]).unwrap();
            sending.wait_for_more(BETWEEN, PATIENCE).unwrap_or_else(|error| panic!("round {round}, {name}: {error}"));
        }
    }
    let (book, _) = sending.end();
    let frontend = cluster.http("query-frontend-0");
    let all = book.acknowledged();
    let checked = found_by_id(&book, &all, frontend);
    // What a trace shows is free of copies of a span; a count is not.
    let unknown = book.outcomes.values().filter(|outcome| **outcome == Outcome::Unknown).count();
    let spans = |requests: usize| requests as f64 * SPANS as f64;
    let (count, answer) = counted(frontend);
    println!("{checked} traces asked for, {} requests of unknown outcome, {count} spans counted", unknown);
    let end_of_log = |name: &str| {
        let log = cluster.log(name);
        log[log.len().saturating_sub(20)..].join("\n")
    };
    assert!(
        count >= spans(all.len()) && count <= spans(all.len() + unknown),
        "{} and {unknown}: {answer}\n{}\n{}",
        all.len(),
        end_of_log("querier-0"),
        end_of_log("query-frontend-0"),
    );
    audit(&cluster);
    cluster.check_logs(&[]).unwrap();
}

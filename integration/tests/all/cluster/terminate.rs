//! SIGTERM to every process in an order of chance, under load: each ends cleanly within its time, whoever has gone before it, and
//! nothing is lost.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use vivace_integration::cluster::{BROKER, Cluster};

use super::{PATIENCE, STOP_MAX, found_by_id, send};

/// Orders that are tried.
const ROUNDS: u64 = 2;
/// Requests acknowledged before the first one is told to end.
const REQUESTS: u64 = 60;

fn rounds() -> u64 {
    match std::env::var("VIVACE_LONG") {
        Ok(hours) => hours.parse::<u64>().unwrap() * 200,
        Err(_) => ROUNDS,
    }
}

#[test]
fn every_role_ends_within_ten_seconds_of_sigterm_in_any_order_under_load() {
    let seed = std::env::var("VIVACE_SEED").map_or(20_261_126, |seed| seed.parse().unwrap());
    println!("replay with VIVACE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::of_each_role(dir.path());
    cluster.start_all().unwrap();
    let sending = send(&cluster, 540, 0);
    for round in 0..rounds() {
        sending.wait_for_more(REQUESTS, PATIENCE).unwrap();
        let mut names: Vec<&str> = Cluster::EACH_ROLE.iter().map(|(name, _)| *name).chain([BROKER]).collect();
        names.shuffle(&mut rng);
        println!("round {round}: {names:?}");
        for name in &names {
            // How long the others have been without the one before is part of the experiment, not a wait for a condition.
            std::thread::park_timeout(Duration::from_millis(rng.random_range(0..200)));
            let (status, took) = cluster.stop(name).unwrap();
            println!("{name} ended after {took:?}");
            let log = || cluster.log(name).join("\n");
            assert!(
                status.success() && took <= STOP_MAX,
                "round {round}, {names:?}: {name}: {status}, {took:?}\n{}",
                log()
            );
        }
        cluster.start_all().unwrap();
    }
    sending.wait_for_more(REQUESTS, PATIENCE).unwrap();
    let (book, _) = sending.end();
    let frontend = cluster.http("query-frontend-0");
    let all_are_known = || {
        let page = cluster.page("querier-0", "/live-store/ring").unwrap();
        let shards = page["shards"].as_array().cloned().unwrap_or_default();
        shards.iter().filter(|shard| shard["state"] == "ACTIVE").count() == 2
    };
    cluster.wait_until("the querier knows both live-stores", &["querier-0"], all_are_known).unwrap();
    let checked = found_by_id(&book, &book.acknowledged(), frontend);
    println!("{checked} traces found");
    cluster.check_logs(&[]).unwrap();
}

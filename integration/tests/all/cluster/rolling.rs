//! A rolling restart with two of each role, one half of everything after the other: nothing lost, no query failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use vivace_integration::cluster::Cluster;
use vivace_integration::http::Connection;
use vivace_integration::ledger::Outcome;

use super::{PATIENCE, STOP_MAX, found_by_id, send_at};

/// Between two requests of a connection: every trace of them is asked for in the end.
const PACE: Duration = Duration::from_millis(25);
const ROLES: [&str; 5] = ["distributor", "live-store", "block-builder", "querier", "query-frontend"];

/// Asks both query-frontends in turn until told to stop, and counts. A refused connection is tried once at the other.
fn ask(frontends: &[SocketAddr], stop: &AtomicBool, asked: &AtomicU64) -> Result<(), String> {
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let open = |number: usize| Connection::open(frontends[number % frontends.len()], Duration::from_secs(20));
        let mut connection = open(turn).or_else(|_refused| open(turn + 1)).map_err(|error| error.to_string())?;
        let answer = connection
            .send("GET", "/api/search?q=%7B%7D&limit=5", &[], &[])
            .map_err(|error| format!("query {turn}: {error}"))?;
        if answer.status != 200 {
            return Err(format!("query {turn}: {}: {}", answer.status, answer.text()));
        }
        asked.fetch_add(1, Ordering::Relaxed);
        std::thread::park_timeout(Duration::from_millis(30));
    }
    Ok(())
}

#[test]
fn a_rolling_restart_loses_nothing_and_fails_no_query() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 1);
    // Two live-stores of one partition, as zones have them.
    for (number, zone) in ["a", "b"].into_iter().enumerate() {
        for role in ROLES {
            let name = match role {
                "live-store" => format!("live-store-{zone}-0"),
                _ => format!("{role}-{number}"),
            };
            let settings = match role {
                "live-store" => json!({ "live_store": { "ring": { "instance_zone": zone } } }),
                // Both write blocks of the one partition: what one commits the other leaves out.
                "block-builder" => json!({ "block_builder": {
                    "assigned_partitions": { "block-builder-0": [0], "block-builder-1": [0] },
                    "partitions_per_instance": 0,
                } }),
                _ => json!({}),
            };
            cluster.add(&name, role, settings);
        }
    }
    cluster.start_all().unwrap();
    let frontends: Vec<SocketAddr> = cluster.named("query-frontend").iter().map(|name| cluster.http(name)).collect();
    let sending = send_at(&cluster, 504, 0, PACE);
    sending.wait_for_more(40, PATIENCE).unwrap();
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let asker = {
        let (frontends, stop, asked) = (frontends.clone(), Arc::clone(&stop), Arc::clone(&asked));
        std::thread::spawn(move || ask(&frontends, &stop, &asked))
    };
    for number in 0..2 {
        let names: Vec<String> = ROLES.iter().map(|role| cluster.named(role)[number].clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let times = cluster.stop_together(&names).unwrap();
        assert!(times.iter().all(|(_, took)| *took < STOP_MAX), "{times:?}");
        sending.wait_for_more(10, PATIENCE).unwrap();
        cluster.start(&names).unwrap();
        sending.wait_for_more(10, PATIENCE).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    asker.join().unwrap().unwrap();
    let (book, _) = sending.end();
    println!("{} queries answered", asked.load(Ordering::Relaxed));
    let refused: Vec<_> = book.outcomes.iter().filter(|(_, outcome)| **outcome != Outcome::Acknowledged).collect();
    assert!(refused.iter().all(|(_, outcome)| !matches!(outcome, Outcome::Refused(400..=499))), "{refused:?}");
    let checked = found_by_id(&book, &book.acknowledged(), frontends[0]);
    found_by_id(&book, &book.sample(50, 50), frontends[1]);
    println!("{checked} traces found");
    cluster.check_logs(&[]).unwrap();
}

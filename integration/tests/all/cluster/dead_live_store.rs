//! One of two live-stores is dead: queries go on, say what is missing, and are whole again when it is back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vivace_integration::cluster::Cluster;
use vivace_integration::http;
use vivace_integration::ledger::{Ledger, hex};
use vivace_integration::load;

use super::{PATIENCE, found_by_id, search, send};

/// Whole again this soon after the return.
const WHOLE: Duration = Duration::from_secs(5);

/// Asks for traces that are there and returns how many answers were whole and how many marked as partial. None may say "not
/// found", and none may fail.
fn ask(book: &Ledger, sequences: &[u64], frontend: SocketAddr) -> (usize, usize) {
    let (mut whole, mut partial) = (0, 0);
    for &sequence in sequences {
        let id = load::trace_id(book.seed, sequence, 0);
        let answer = http::get(frontend, &format!("/api/v2/traces/{}", hex(&id))).unwrap();
        assert_eq!(answer.status, 200, "request {sequence}: {}", answer.text());
        if answer.json().unwrap()["status"] == "PARTIAL" {
            partial += 1;
        } else {
            whole += 1;
        }
        let answer = search(frontend, &id);
        assert_eq!(answer.status, 200, "request {sequence}: {}", answer.text());
        let coverage = answer.header("x-vivace-coverage").unwrap_or_default().to_owned();
        let traces = answer.json().unwrap()["traces"].as_array().map_or(0, Vec::len);
        assert!(traces == 1 || coverage.contains("skipped="), "request {sequence}: {coverage}: {}", answer.text());
    }
    (whole, partial)
}

#[test]
fn with_one_of_two_live_stores_dead_answers_say_what_is_missing_and_are_whole_after_its_return() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 2);
    for (name, role) in [
        ("distributor-0", "distributor"),
        ("live-store-0", "live-store"),
        ("live-store-1", "live-store"),
        ("querier-0", "querier"),
        ("query-frontend-0", "query-frontend"),
    ] {
        cluster.add(name, role, serde_json::json!({}));
    }
    cluster.start_all().unwrap();
    let frontend = cluster.http("query-frontend-0");
    let sending = send(&cluster, 503, 0);
    sending.wait_for_more(60, PATIENCE).unwrap();
    cluster.kill("live-store-1").unwrap();
    // Writes go on: its partition is in the log.
    sending.wait_for_more(60, PATIENCE).unwrap();
    let (book, _) = sending.end();
    let sample = book.sample(20, 20);
    let (_, partial) = ask(&book, &sample, frontend);
    assert!(partial > 0, "somebody must say that a partition is not answered for");
    cluster.start(&["live-store-1"]).unwrap();
    let back = Instant::now();
    cluster
        .wait_until("answers are whole", &["querier-0", "live-store-1"], || {
            ask(&book, &sample, frontend) == (sample.len(), 0)
        })
        .unwrap();
    println!("whole {:?} after it was ready", back.elapsed());
    assert!(back.elapsed() < WHOLE, "{:?}", back.elapsed());
    found_by_id(&book, &book.acknowledged(), frontend);
    cluster.check_logs(&[]).unwrap();
}

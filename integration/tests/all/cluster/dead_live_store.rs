//! One of two live-stores is dead: queries go on, say what is missing, and are whole again when it is back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use vivace_integration::cluster::{Cluster, TOPIC};
use vivace_integration::http;
use vivace_integration::ledger::{Ledger, hex};
use vivace_integration::load;
use vivace_integration::watch::Asker;

use super::{PATIENCE, SPANS, counted, found_by_id, search, send};

/// Whole again this soon after the return.
const WHOLE: Duration = Duration::from_secs(5);

/// How long the broker takes to give records to the live-store that has lost its disk.
const SLOW_MS: u32 = 2_000;

/// One of each role that answers needs, and two live-stores.
fn cluster(dir: &std::path::Path) -> Cluster {
    let mut cluster = Cluster::new(dir, 2);
    for (name, role) in Cluster::EACH_ROLE {
        if role != "block-builder" {
            cluster.add(name, role, json!({}));
        }
    }
    cluster.start_all().unwrap();
    cluster
}

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
    let mut cluster = cluster(dir.path());
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

#[test]
fn a_live_store_that_lost_its_disk_says_what_is_missing_until_it_has_read_its_partition_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = cluster(dir.path());
    let frontend = cluster.http("query-frontend-0");
    let sending = send(&cluster, 507, 0);
    sending.wait_for_more(60, PATIENCE).unwrap();
    cluster.kill("live-store-1").unwrap();
    sending.wait_for_more(60, PATIENCE).unwrap();
    let (book, _) = sending.end();
    std::fs::remove_dir_all(cluster.dir_of("live-store-1")).unwrap();

    let slow = json!({ "api_key": 1, "topic": TOPIC, "partition": 1, "action": { "slow": { "ms": SLOW_MS } } });
    cluster.fault(Some(&slow)).unwrap();
    cluster.spawn("live-store-1").unwrap();
    let (mut asker, sample) = (Asker::new(507, SPANS, frontend), book.sample(3, 3));
    let mut said = Vec::new();
    let replays = || {
        said.extend(asker.missing(&sample).unwrap());
        said.iter().any(|what: &String| what.contains("records of its log are not applied yet"))
    };
    cluster.wait_until("it says that it replays", &["querier-0", "live-store-1"], replays).unwrap();
    assert!(said.iter().all(|what| what.contains("partition 1") && what.contains("live-store-1")), "{said:#?}");

    cluster.fault(None).unwrap();
    let from = Instant::now();
    let whole = || asker.missing(&sample).unwrap().is_empty();
    cluster.wait_until("answers are whole", &["querier-0", "live-store-1"], whole).unwrap();
    println!("whole {:?} after the broker was quick again", from.elapsed());
    // What is slow already is waited for.
    assert!(from.elapsed() < WHOLE + Duration::from_millis(SLOW_MS.into()), "{:?}", from.elapsed());
    found_by_id(&book, &book.acknowledged(), frontend);
    let (count, answer) = counted(frontend);
    assert!((count - (book.acknowledged().len() * SPANS) as f64).abs() < 0.5, "{count}: {answer}");
    cluster.check_logs(&[]).unwrap();
}

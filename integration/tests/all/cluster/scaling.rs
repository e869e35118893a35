//! Live-stores from two to four and back to two, by the steps of `docs/runbook.md`, under load and with a client that asks all the
//! time: no answer is wrong and none is partial.

use std::time::Duration;

use serde_json::{Value, json};
use vivace_integration::cluster::{BROKER, Cluster};
use vivace_integration::http;
use vivace_integration::ledger::Outcome;
use vivace_integration::watch::Watch;
use vivace_runtime::{Clock, SystemClock};

use super::{PATIENCE, SPANS, STOP_MAX, audit, counted, found_by_id, send_at};

/// Enough for every partition in a second.
const PACE: Duration = Duration::from_millis(20);
/// After this, queriers take it for granted that blocks have what was written to a partition (15 minutes unless configured). It
/// must exceed what block-builders and queriers take to make and see them, here a second each.
const BACKEND_AFTER: Duration = Duration::from_secs(6);

fn settings(partitions: u8) -> Value {
    let after = format!("{}s", BACKEND_AFTER.as_secs());
    json!({
        "live_store": { "partition_ring": { "min_partition_owners_duration": "1s" } },
        "block_builder": { "partitions_per_instance": partitions, "consume_cycle_duration": "500ms" },
        "query_frontend": { "search": { "query_backend_after": after }, "metrics": { "query_backend_after": after } },
    })
}

/// The state of each partition as a process shows it, by number.
fn states(cluster: &Cluster, name: &str) -> Vec<String> {
    let page = cluster.page(name, "/partition-ring").unwrap();
    let partitions = page["partitions"].as_array().cloned().unwrap_or_default();
    partitions.iter().map(|partition| partition["state_name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn wait_for_states(cluster: &Cluster, wanted: &[&str]) {
    for name in ["distributor-0", "querier-0", "block-builder-0"] {
        let shown = || states(cluster, name) == wanted;
        cluster.wait_until(&format!("{name} shows {wanted:?}"), &[name], shown).unwrap();
    }
}

/// Records of a partition that the block-builder has not put into blocks.
fn lag(cluster: &Cluster, partition: u32) -> Option<f64> {
    let text = http::get(cluster.http("block-builder-0"), "/metrics").unwrap().text();
    let of = format!("partition=\"{partition}\"");
    let line = text.lines().find(|line| line.starts_with("tempo_ingest_group_partition_lag{") && line.contains(&of));
    line?.rsplit(' ').next()?.parse().ok()
}

fn post(cluster: &Cluster, name: &str, path: &str) -> http::Answer {
    http::request(cluster.http(name), "POST", path, &[], &[]).unwrap()
}

#[test]
fn two_live_stores_become_four_and_two_again_without_a_gap_in_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 2);
    for (name, role) in Cluster::EACH_ROLE {
        cluster.add(name, role, settings(2));
    }
    cluster.add("live-store-2", "live-store", settings(4));
    cluster.add("live-store-3", "live-store", settings(4));
    cluster.start(&[BROKER]).unwrap();
    cluster.start(&Cluster::EACH_ROLE.map(|(name, _)| name)).unwrap();
    wait_for_states(&cluster, &["PartitionActive"; 2]);
    let sending = send_at(&cluster, 520, 0, PACE);
    sending.wait_for_more(20, PATIENCE).unwrap();
    let frontend = cluster.http("query-frontend-0");
    let watching = Watch { seed: 520, spans: SPANS, frontend }.begin(&sending.book());
    watching.wait_for_whole(20, PATIENCE).unwrap();

    // More: the topic gets the partitions, then the block-builder, then the live-stores are started.
    cluster.stop(BROKER).unwrap();
    cluster.set_partitions(4);
    cluster.start(&[BROKER]).unwrap();
    cluster.stop("block-builder-0").unwrap();
    cluster.set("block-builder-0", settings(4));
    cluster.start(&["block-builder-0", "live-store-2", "live-store-3"]).unwrap();
    wait_for_states(&cluster, &["PartitionActive"; 4]);
    sending.wait_for_more(100, PATIENCE).unwrap();
    watching.wait_for_whole(100, PATIENCE).unwrap();

    // Fewer, step 1: nobody writes to the partition any more.
    for name in ["live-store-3", "live-store-2"] {
        let answer = post(&cluster, name, "/live-store/prepare-partition-downscale");
        let told = answer.json().unwrap();
        assert_eq!((answer.status, &told["state"]), (200, &json!("PartitionInactive")), "{told}");
        assert!(told["timestamp"].as_i64().is_some_and(|at| at > 0), "{told}");
    }
    let inactive = SystemClock.unix();
    wait_for_states(&cluster, &["PartitionActive", "PartitionActive", "PartitionInactive", "PartitionInactive"]);
    // Step 2: until blocks have its data and queriers rely on them.
    let margin = Duration::from_secs(2);
    let relied_on = || {
        SystemClock.unix() > inactive + BACKEND_AFTER + margin
            && [2, 3].iter().all(|one| lag(&cluster, *one) == Some(0.0))
    };
    cluster.wait_until("blocks have the partitions that go", &["block-builder-0"], relied_on).unwrap();
    // Steps 3 and 4: it goes for good.
    for name in ["live-store-3", "live-store-2"] {
        let answer = post(&cluster, name, "/live-store/prepare-downscale");
        assert_eq!(answer.status, 204, "{}", answer.text());
        let (status, took) = cluster.stop(name).unwrap();
        assert!(status.success() && took < STOP_MAX, "{name}: {status}, {took:?}");
    }
    let left = || {
        let page = cluster.page("querier-0", "/live-store/ring").unwrap();
        page["shards"].as_array().map_or(0, Vec::len) == 2
    };
    cluster.wait_until("the querier knows two live-stores", &["querier-0"], left).unwrap();
    sending.wait_for_more(50, PATIENCE).unwrap();
    watching.wait_for_whole(100, PATIENCE).unwrap();

    let seen = watching.end();
    println!("{} whole answers, the slowest after {:?}", seen.whole, seen.slowest);
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    assert!(seen.partial.is_empty(), "{:#?}", seen.partial);
    let (book, _) = sending.end();
    let refused: Vec<_> = book.outcomes.iter().filter(|(_, outcome)| **outcome != Outcome::Acknowledged).collect();
    println!("{} requests acknowledged, others: {refused:?}", book.acknowledged().len());
    assert!(refused.iter().all(|(_, outcome)| **outcome == Outcome::Refused(503)), "{refused:?}");
    found_by_id(&book, &book.sample(100, 300), frontend);
    // By the end blocks have the partitions that went. A count shows every span that is missing and every copy.
    let (count, answer) = counted(frontend);
    assert!((count - (book.acknowledged().len() * SPANS) as f64).abs() < 0.5, "{count}: {answer}");
    let said = audit(&cluster);
    for partition in 0..4 {
        assert!(
            said.contains(&format!("partition {partition}: offsets 0 to ")),
            "every partition was written to: {said}"
        );
    }
    cluster.check_logs(&[]).unwrap();
}

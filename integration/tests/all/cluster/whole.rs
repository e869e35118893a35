//! The cluster as a whole: it starts, takes traces, finds them, shows its rings, writes blocks, ends.

use std::time::Duration;

use serde_json::Value;
use vivace_integration::cluster::{BROKER, Cluster};
use vivace_integration::http;
use vivace_integration::ledger::Outcome;

use super::{STOP_MAX, blocks, found_by_id, found_by_search, send};

/// From the start to ready, each of them, all started at once on these cores.
const READY_MAX: Duration = Duration::from_secs(20);

#[test]
fn what_is_acknowledged_is_found_and_every_reader_shows_the_rings() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::of_each_role(dir.path());
    let ready = cluster.start_all().unwrap();
    println!("ready after {ready:?}");
    assert!(ready.iter().all(|(_, took)| *took < READY_MAX), "{ready:?}");
    rings_are_shown(&cluster);

    let sending = send(&cluster, 501, 0);
    sending.wait_for_more(150, super::PATIENCE).unwrap();
    let (book, _) = sending.end();
    let frontend = cluster.http("query-frontend-0");
    let all = book.acknowledged();
    let newest = book.newest(10);
    found_by_id(&book, &newest, frontend);
    found_by_search(&book, &newest, frontend);
    let checked = found_by_id(&book, &all, frontend);
    println!("{checked} traces of {} acknowledged requests found", all.len());
    cluster.wait_until("the block-builder wrote blocks", &["block-builder-0"], || blocks(&cluster) > 0).unwrap();

    // A distributor that comes back is ready when it knows where to write, and refuses nothing.
    cluster.stop("distributor-0").unwrap();
    cluster.start(&["distributor-0"]).unwrap();
    let sending = send(&cluster, 502, 0);
    sending.wait_for_more(4, super::PATIENCE).unwrap();
    let (first, _) = sending.end();
    assert!(first.outcomes.values().all(|outcome| *outcome == Outcome::Acknowledged), "{:?}", first.outcomes);

    // All at once, in no order.
    let names: Vec<String> = cluster
        .named("live-store")
        .into_iter()
        .chain(
            ["distributor", "querier", "query-frontend", "block-builder"].iter().flat_map(|role| cluster.named(role)),
        )
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let times = cluster.stop_together(&names).unwrap();
    println!("stopped after {times:?}");
    assert!(times.iter().all(|(_, took)| *took < STOP_MAX), "{times:?}");
    cluster.start(&names).unwrap();
    // Until the querier has heard of the live-stores, answers say that they are missing.
    rings_are_shown(&cluster);
    found_by_id(&book, &all, frontend);

    // Once more, with a broker that hangs: nobody waits for it.
    cluster.node(BROKER).signal("STOP").unwrap();
    let times = cluster.stop_together(&names).unwrap();
    println!("stopped without an answer of the broker after {times:?}");
    assert!(times.iter().all(|(_, took)| *took < STOP_MAX), "{times:?}");
    cluster.node(BROKER).signal("CONT").unwrap();
    assert!(cluster.stop(BROKER).unwrap().0.success());
    cluster.check_logs(&[]).unwrap();
}

#[test]
fn a_distributor_that_waits_for_brokers_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 1);
    cluster.add("distributor-0", "distributor", serde_json::json!({}));
    cluster.spawn("distributor-0").unwrap();
    cluster.node("distributor-0").wait_log(|line| line.contains("waiting for Kafka")).unwrap();
    let (status, took) = cluster.stop("distributor-0").unwrap();
    assert!(status.success() && took < STOP_MAX, "{status}, {took:?}");
}

/// Every process that reads a ring shows it; a query-frontend reads none and says so.
fn rings_are_shown(cluster: &Cluster) {
    let wanted: Vec<(String, String)> =
        cluster.named("live-store").iter().map(|name| (name.clone(), cluster.grpc(name).to_string())).collect();
    for name in ["distributor-0", "querier-0", "block-builder-0", "live-store-0", "live-store-1"] {
        let shows = || {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let page = cluster.page(name, "/live-store/ring").unwrap();
            let shards = page["shards"].as_array().cloned().unwrap_or_default();
            let found: Vec<_> = shards.iter().map(|shard| (text(&shard["id"]), text(&shard["address"]))).collect();
            let page = cluster.page(name, "/partition-ring").unwrap();
            let partitions = page["partitions"].as_array().cloned().unwrap_or_default();
            let active = partitions.iter().filter(|partition| partition["state"] == 2).count();
            found == wanted && active == wanted.len()
        };
        cluster.wait_until(&format!("{name} shows {wanted:?} and two active partitions"), &[name], shows).unwrap();
    }
    let frontend = cluster.http("query-frontend-0");
    let memberlist = http::get(frontend, "/memberlist").unwrap().text();
    assert_eq!(memberlist, "This instance doesn't use memberlist.\n");
    let page = cluster.page("query-frontend-0", "/live-store/ring").unwrap();
    assert!(page["note"].as_str().unwrap().contains("query-frontend"), "{page}");
}

#[test]
fn roles_that_are_not_there_are_refused_and_say_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 1);
    let scheduler = serde_json::json!({ "backend_worker": { "backend_scheduler_addr": "127.0.0.1:1" } });
    for role in ["backend-worker", "backend-scheduler", "metrics-generator"] {
        cluster.add(role, role, scheduler.clone());
        cluster.spawn(role).unwrap();
        let line = cluster.node(role).wait_log(|line| line.contains("level=error")).unwrap();
        assert!(line.contains("not part of this version") && line.contains(role), "{line}");
    }
}

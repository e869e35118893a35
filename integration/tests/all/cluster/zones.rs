//! Two zones: one of them dies, hangs and comes back, and no answer is even partial.

use serde_json::json;
use vivace_integration::cluster::Cluster;
use vivace_integration::watch::Watch;

use super::{PATIENCE, SPANS, found_by_id, send};

/// Whole answers that are wanted in each state.
const ANSWERS: u64 = 60;

#[test]
fn with_two_zones_answers_stay_whole_while_one_of_them_is_dead_or_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 2);
    for zone in ["a", "b"] {
        for partition in 0..2 {
            let settings = json!({ "live_store": { "ring": { "instance_zone": zone } } });
            cluster.add(&format!("live-store-{zone}-{partition}"), "live-store", settings);
        }
    }
    for (name, role) in
        [("distributor-0", "distributor"), ("querier-0", "querier"), ("query-frontend-0", "query-frontend")]
    {
        let hedging = json!({ "querier": { "partition_ring": { "hedging_delay": "200ms" } } });
        cluster.add(name, role, hedging);
    }
    cluster.start_all().unwrap();
    let knows_all = || {
        let page = cluster.page("querier-0", "/live-store/ring").unwrap();
        page["shards"].as_array().map_or(0, Vec::len) == 4
    };
    cluster.wait_until("the querier knows both zones", &["querier-0"], knows_all).unwrap();
    let sending = send(&cluster, 530, 0);
    sending.wait_for_more(20, PATIENCE).unwrap();
    let frontend = cluster.http("query-frontend-0");
    let watching = Watch { seed: 530, spans: SPANS, frontend }.begin(&sending.book());
    watching.wait_for_whole(ANSWERS, PATIENCE).unwrap();

    for name in ["live-store-a-0", "live-store-a-1"] {
        cluster.kill(name).unwrap();
    }
    watching.wait_for_whole(ANSWERS, PATIENCE).unwrap();
    sending.wait_for_more(20, PATIENCE).unwrap();
    cluster.start(&["live-store-a-0", "live-store-a-1"]).unwrap();
    watching.wait_for_whole(ANSWERS, PATIENCE).unwrap();

    // The other one is there and says nothing.
    for name in ["live-store-b-0", "live-store-b-1"] {
        cluster.node(name).signal("STOP").unwrap();
    }
    watching.wait_for_whole(ANSWERS, PATIENCE).unwrap();
    for name in ["live-store-b-0", "live-store-b-1"] {
        cluster.node(name).signal("CONT").unwrap();
    }
    watching.wait_for_whole(ANSWERS, PATIENCE).unwrap();

    let seen = watching.end();
    println!("{} whole answers, the slowest after {:?}", seen.whole, seen.slowest);
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    assert!(seen.partial.is_empty(), "{:#?}", seen.partial);
    let (book, _) = sending.end();
    found_by_id(&book, &book.sample(100, 200), frontend);
    cluster.check_logs(&[]).unwrap();
}

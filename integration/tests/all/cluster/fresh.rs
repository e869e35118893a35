//! What was acknowledged a moment ago, while live-stores get it late.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use vivace_integration::cluster::{Cluster, TOPIC};
use vivace_integration::http::{self, Connection};
use vivace_integration::ledger::{self, Outcome, hex};
use vivace_integration::load;
use vivace_integration::metrics;
use vivace_runtime::{Clock, SystemClock};

use super::{PATIENCE, found_by_id, send, template};

const SEED: u64 = 511;
const REQUESTS: u64 = 40;
/// Longer than anything takes from an acknowledgement to a question, much shorter than what live-stores wait for.
const SLOW_MS: u32 = 60;

/// Finds in all live-stores that waited, and ended like this.
fn awaited(cluster: &Cluster, outcome: &str) -> f64 {
    let labels = [&*format!("outcome=\"{outcome}\"")];
    let of = |name: &String| metrics::read(cluster.http(name), "vivace_live_store_awaited_finds_total", &labels);
    cluster.named("live-store").iter().filter_map(|name| of(name).unwrap()).fold(0.0, |sum, of| sum + of)
}

/// Sends requests one after the other and asks for all traces of each as soon as it is acknowledged. Returns how many are found at once.
fn found_at_once(distributor: SocketAddr, frontend: SocketAddr) -> u64 {
    let (mut template, mut to, mut found) = (template(SEED), None, 0);
    let mut asker = Connection::open(frontend, PATIENCE).unwrap();
    for sequence in 1_000..1_000 + REQUESTS {
        let body = template.fill(SEED, sequence, SystemClock.unix_nanos());
        assert_eq!(ledger::send(&mut to, distributor, body), Outcome::Acknowledged);
        for trace in 0..template.trace_count() {
            let id = load::trace_id(SEED, sequence, trace);
            let spans = ledger::fetch_v2(&mut asker, &id).unwrap().len();
            assert!(spans == 0 || spans == template.spans_of(trace).len(), "{spans} spans of request {sequence}");
            found += u64::from(spans > 0);
        }
    }
    found
}

#[test]
fn a_trace_is_found_by_id_as_soon_as_it_is_acknowledged_also_where_live_stores_get_it_late() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::of_each_role(dir.path());
    cluster.start_all().unwrap();
    let sending = send(&cluster, SEED, 0);
    sending.wait_for_more(20, PATIENCE).unwrap();
    let (first, _) = sending.end();
    let frontend = cluster.http("query-frontend-0");
    found_by_id(&first, &first.acknowledged(), frontend);
    // Fetches.
    let slow = json!({ "api_key": 1, "topic": TOPIC, "action": { "slow": { "ms": SLOW_MS } } });
    cluster.fault(Some(&slow)).unwrap();

    let due = REQUESTS as f64 * template(SEED).trace_count() as f64;
    let found = found_at_once(cluster.otlp_http("distributor-0"), frontend) as f64;
    let (in_time, late) = (awaited(&cluster, "in_time"), awaited(&cluster, "late"));
    println!("{found} of {due} found at once; live-stores waited {in_time} times in time, {late} times too short");
    // On a machine that is busy enough nothing comes in time; then that is what is counted.
    assert!(found + late >= due, "{found} of {due} found at once, and {late} questions waited too short");
    assert!(found > 0.0 && in_time > 0.0, "{found} found, {in_time} in time");

    cluster.fault(None).unwrap();
    let from = std::time::Instant::now();
    let absent = http::get(frontend, &format!("/api/traces/{}", hex(&[7; 16]))).unwrap();
    assert_eq!(absent.status, 404, "{}", absent.text());
    println!("not found after {:?}", from.elapsed());
    assert!(from.elapsed() < Duration::from_secs(10), "{:?}", from.elapsed());
    cluster.check_logs(&[]).unwrap();
}

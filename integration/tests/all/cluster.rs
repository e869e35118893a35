//! Separate processes for each role, with the development broker between them and one bucket.

mod dead_live_store;
mod fresh;
mod kill;
mod rolling;
mod scaling;
mod sidecars;
mod terminate;
mod whole;
mod zones;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use vivace_integration::cluster::Cluster;
use vivace_integration::http::{self, Answer, encode};
use vivace_integration::ledger::{Ledger, hex};
use vivace_integration::load::{self, Template};
use vivace_integration::process::binary;
use vivace_integration::traffic::{Sending, Traffic};

/// Spans of a request: two traces.
pub(crate) const SPANS: usize = 16;
/// Between two requests of a connection.
const PACE: Duration = Duration::from_millis(5);
/// No role may take longer to end, whatever is there or not.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(10);
/// Connections that ask for traces.
const CHECKERS: usize = 4;
/// How long acknowledgements may stay away while nothing is being restarted.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

fn template(seed: u64) -> Template {
    Template::new(seed, SPANS)
}

pub(crate) fn send(cluster: &Cluster, seed: u64, first: u64) -> Sending {
    send_at(cluster, seed, first, PACE)
}

pub(crate) fn send_at(cluster: &Cluster, seed: u64, first: u64, pace: Duration) -> Sending {
    let targets: Vec<SocketAddr> = cluster.named("distributor").iter().map(|name| cluster.otlp_http(name)).collect();
    Traffic { seed, spans: SPANS, pace, targets }.begin(first)
}

/// Fails unless the traces of these requests are there by id, whole and with every span once. Returns how many were asked for.
pub(crate) fn found_by_id(book: &Ledger, sequences: &[u64], frontend: SocketAddr) -> usize {
    let template = template(book.seed);
    let checked = book.verify_parallel(sequences, frontend, &template, CHECKERS).unwrap();
    assert_eq!(checked, sequences.len() * template.trace_count());
    checked
}

fn search(frontend: SocketAddr, id: &[u8; 16]) -> Answer {
    let query = encode(&format!("{{ trace:id = \"{}\" }}", hex(id)));
    http::get(frontend, &format!("/api/search?q={query}")).unwrap()
}

/// Fails unless a search finds the first trace of each of these requests.
fn found_by_search(book: &Ledger, sequences: &[u64], frontend: SocketAddr) {
    for &sequence in sequences {
        let id = load::trace_id(book.seed, sequence, 0);
        let answer = search(frontend, &id);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let traces = answer.json().unwrap()["traces"].clone();
        let found = traces.as_array().map_or(0, Vec::len);
        assert_eq!(found, 1, "request {sequence}, trace {}: {}", hex(&id), answer.text());
    }
}

/// How many spans a metrics query counts over the last minutes.
pub(crate) fn counted(frontend: SocketAddr) -> (f64, String) {
    let query = encode("{} | count_over_time()");
    let answer = http::get(frontend, &format!("/api/metrics/query?q={query}&since=30m")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json().unwrap();
    let count = json["series"][0]["value"].as_f64().unwrap_or(0.0);
    (count, answer.text())
}

/// Blocks in the bucket.
fn blocks(cluster: &Cluster) -> usize {
    let tenant = cluster.bucket().join("single-tenant");
    let Ok(entries) = std::fs::read_dir(tenant) else { return 0 };
    entries.flatten().filter(|entry| entry.path().join("meta.json").is_file()).count()
}

/// What `vivace blocks audit` says of the bucket, which must be that its blocks are those of gapless chains of commits, each of
/// them accounted for.
fn audit(cluster: &Cluster) -> String {
    let bucket = cluster.bucket();
    let audit = Command::new(binary().unwrap())
        .args(["blocks", "audit", "-storage.trace.backend=local"])
        .arg(format!("-storage.trace.local.path={}", bucket.display()))
        .output()
        .unwrap();
    let (out, errors) = (String::from_utf8_lossy(&audit.stdout), String::from_utf8_lossy(&audit.stderr));
    assert!(audit.status.success(), "{}\n{out}\n{errors}", audit.status);
    out.into_owned()
}

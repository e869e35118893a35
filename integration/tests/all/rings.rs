//! Rings and their pages, of one process and of several that gossip.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use vivace_integration::http;
use vivace_integration::process::{Node, Setup, binary};

/// The pages name what is wrong within this time.
const PROMISED: Duration = Duration::from_secs(15);

fn json(addr: SocketAddr, path: &str) -> Value {
    let answer = http::request(addr, "GET", path, &[("Accept", "application/json")], &[]).unwrap();
    answer.json().unwrap_or(Value::Null)
}

/// A process whose distributors are found by gossip on this host.
fn distributor(dir: &Path, id: &str, join: Option<&str>) -> Node {
    let dir = dir.join(id);
    std::fs::create_dir_all(&dir).unwrap();
    let join = join.map(|seed| format!("  join_members: ['{seed}']\n")).unwrap_or_default();
    let mut node = Setup::new(&dir)
        .yaml(&format!(
            "distributor:\n  ring:\n    instance_id: {id}\n    instance_addr: 127.0.0.1\n\
             overrides:\n  defaults:\n    ingestion:\n      rate_strategy: global\n\
             memberlist:\n  node_name: {id}\n  bind_addr: ['127.0.0.1']\n  bind_port: 0\n{join}"
        ))
        .spawn()
        .unwrap();
    node.wait_ready().unwrap();
    node
}

fn codes(page: &Value) -> Vec<(String, String)> {
    let shards = page["shards"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    shards.iter().map(|shard| (text(&shard["id"]), text(&shard["finding"]["code"]))).collect()
}

fn shows(page: &Value, wanted: &[(&str, &str)]) -> bool {
    codes(page).iter().map(|(id, code)| (id.as_str(), code.as_str())).eq(wanted.iter().copied())
}

#[test]
fn one_process_serves_all_six_pages_and_its_listeners() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Setup::new(dir.path()).spawn().unwrap();
    node.wait_ready().unwrap();
    let addr = node.addr("http").unwrap();
    for path in [
        "/live-store/ring",
        "/partition-ring",
        "/distributor/ring",
        "/metrics-generator/ring",
        "/backend-worker/ring",
        "/memberlist",
    ] {
        let page = http::get(addr, path).unwrap();
        assert_eq!(page.status, 200, "{path}");
    }
    let grpc = node.addr("grpc").unwrap();
    let ring = json(addr, "/live-store/ring");
    assert_eq!(ring["shards"][0]["address"], format!("127.0.0.1:{}", grpc.port()));
    assert_eq!(ring["shards"][0]["finding"]["code"], "healthy", "its gRPC port answers: {ring}");
    assert_eq!(http::get(addr, "/memberlist").unwrap().text(), "This instance doesn't use memberlist.\n");
    node.wait_until("the partition is active", || json(addr, "/partition-ring")["partitions"][0]["state"] == 2)
        .unwrap();
    // The kernel's list, in the page and on the command line.
    let listeners = json(addr, "/status/listeners");
    let rows = listeners["listeners"].as_array().unwrap();
    let key = |address: &str| {
        rows.iter().find(|row| row["address"] == address).map(|row| row["config"].as_str().unwrap().to_owned())
    };
    assert_eq!(key(&addr.to_string()).as_deref(), Some("server.http_listen_port: 0"), "{listeners}");
    assert_eq!(key(&grpc.to_string()).as_deref(), Some("server.grpc_listen_port: 0"), "{listeners}");
    assert!(key(&node.addr("otlp_http").unwrap().to_string()).is_some(), "{listeners}");
    let shown = Command::new(binary().unwrap())
        .args(["listeners", &format!("http://{addr}/status/listeners")])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.lines().any(|line| line.contains(&addr.to_string())), "{text}");
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    Node::check_log(&log, &[]).unwrap();
}

#[test]
fn pages_tell_a_killed_process_from_a_stopped_one_and_forget_the_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = distributor(dir.path(), "distributor-0", None);
    let addr = first.addr("http").unwrap();
    first.wait_until("gossip began", || json(addr, "/memberlist")["SortedMembers"][0].is_object()).unwrap();
    let member = json(addr, "/memberlist")["SortedMembers"][0].clone();
    let seed = format!("{}:{}", member["Addr"].as_str().unwrap(), member["Port"]);
    let others: Vec<Node> = (1..4).map(|n| distributor(dir.path(), &format!("distributor-{n}"), Some(&seed))).collect();
    let until = |what: &str, wanted: &[(&str, &str)]| {
        let begun = Instant::now();
        loop {
            let page = json(addr, "/distributor/ring");
            if shows(&page, wanted) {
                return page;
            }
            assert!(begun.elapsed() < PROMISED, "not within {PROMISED:?}: {what}; {page:#}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    };
    let (zero, one) = (("distributor-0", "healthy"), ("distributor-1", "healthy"));
    let all = [zero, one, ("distributor-2", "healthy"), ("distributor-3", "healthy")];
    until("four distributors", &all);
    let [one_node, killed, stopped] = <[Node; 3]>::try_from(others).ok().unwrap();
    killed.kill().unwrap();
    stopped.signal("STOP").unwrap();
    let page = until("one is dead, one hangs", &[zero, one, ("distributor-2", "dead"), ("distributor-3", "hangs")]);
    let safe: Vec<&Value> =
        page["shards"].as_array().unwrap().iter().map(|shard| &shard["finding"]["forget"]["safe"]).collect();
    assert_eq!(safe, [false, false, true, false]);
    let forgotten = http::request(addr, "POST", "/distributor/ring", &[], b"forget=distributor-2").unwrap();
    assert_eq!((forgotten.status, forgotten.header("location")), (302, Some("#")));
    until("the dead one is forgotten", &[zero, one, ("distributor-3", "hangs")]);
    stopped.signal("CONT").unwrap();
    // Datagrams too, which were left while it hung.
    until("the stopped one is back", &[zero, one, ("distributor-3", "healthy")]);
    for node in [one_node, stopped] {
        let (status, _, _) = node.stop().unwrap();
        assert!(status.success());
    }
    until("the others left by themselves", &[zero]);
    let (status, _, _) = first.stop().unwrap();
    assert!(status.success());
}

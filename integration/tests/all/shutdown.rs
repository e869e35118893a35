//! SIGTERM under load: new writes refused, the rest drained, exit 0 in time, nothing acknowledged lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vivace_integration::ledger::Ledger;
use vivace_integration::load::Template;
use vivace_integration::process::Setup;

use crate::crash;

#[test]
fn sigterm_under_load_drains_and_exits_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let seed = 77;
    let node = setup.start().unwrap();
    let http = node.addr("http").unwrap();
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let workers = crash::load(&node, seed, &next, &stop);
    while next.load(Ordering::Relaxed) < 200 {
        std::thread::yield_now();
    }
    let (status, took, log) = node.stop().unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut book = Ledger { seed, ..Ledger::default() };
    for worker in workers {
        book.outcomes.extend(worker.join().unwrap());
    }
    assert!(status.success(), "{status}; log:\n{}", log.join("\n"));
    assert!(took < Duration::from_secs(10), "took {took:?}");
    assert!(vivace_integration::http::get(http, "/ready").is_err(), "the listener is gone");
    let blocks = std::fs::read_dir(dir.path().join("data/blocks/single-tenant")).unwrap().count();
    assert!(blocks >= 1, "the drain leaves blocks");
    let node = setup.start().unwrap();
    let checked =
        book.verify(&book.sample(60, 60), node.addr("http").unwrap(), &Template::new(seed, crash::SPANS), 1).unwrap();
    assert!(checked > 100, "only {checked} traces were acknowledged");
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    vivace_integration::process::Node::check_log(&log, &[]).unwrap();
}

//! A full disk: writes are refused retryably, reads go on, and writes are taken again once there is room, without a restart.

use std::path::Path;
use std::process::Command;

use vivace_integration::http::Connection;
use vivace_integration::ledger::{self, Ledger, Outcome};
use vivace_integration::load::Template;
use vivace_integration::process::{PATIENCE, Setup};
use vivace_integration::skip;

use crate::crash::now_ns;

/// A file system of its own, unmounted at the end.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(path: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path).status();
        mounted.is_ok_and(|s| s.success()).then_some(Self(path))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0).status().ok();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(_mount) = Mount::new(&data, "48m") else {
        skip::skip("a file system of a known size cannot be mounted without root");
        return;
    };
    let ballast = data.join("ballast");
    std::fs::write(&ballast, vec![1; 30 << 20]).unwrap();
    let mut node = Setup::new(dir.path()).start().unwrap();
    let (otlp, http) = (node.addr("otlp_http").unwrap(), node.addr("http").unwrap());
    let seed = 3;
    let mut template = Template::new(seed, 500);
    let mut book = Ledger { seed, ..Ledger::default() };
    let mut connection = None;
    let mut sequence = 0;
    let mut send = |book: &mut Ledger| {
        sequence += 1;
        let outcome = ledger::send(&mut connection, otlp, template.fill(seed, sequence, now_ns()));
        book.outcomes.insert(sequence, outcome);
        outcome
    };
    let mut refused = None;
    for _ in 0..400 {
        match send(&mut book) {
            Outcome::Acknowledged => {}
            other => {
                refused = Some(other);
                break;
            }
        }
    }
    assert_eq!(refused, Some(Outcome::Refused(503)), "a full disk is a retryable refusal");
    assert!(!book.acknowledged().is_empty());
    let check = Template::new(seed, 500);
    book.verify(&book.acknowledged(), http, &check, 20).unwrap();
    std::fs::remove_file(&ballast).unwrap();
    node.wait_until("writes are taken again", || send(&mut book) == Outcome::Acknowledged).unwrap();
    for _ in 0..10 {
        assert_eq!(send(&mut book), Outcome::Acknowledged);
    }
    book.verify(&book.acknowledged(), http, &check, 5).unwrap();
    let mut open = Connection::open(http, PATIENCE).unwrap();
    assert_eq!(open.send("GET", "/ready", &[], &[]).unwrap().status, 200);
    let (status, _, _) = node.stop().unwrap();
    assert!(status.success());
}

//! What the kernel sees: no acknowledgement leaves before the `fdatasync` that covers it, and no segment is unlinked
//! before the block that replaces it, and its directories, are synced.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use vivace_integration::http::Connection;
use vivace_integration::load::Template;
use vivace_integration::process::{PATIENCE, Setup};
use vivace_integration::skip;

use crate::crash::{SMALL_BLOCKS, now_ns};

struct Call {
    name: String,
    text: String,
}

/// Joins `<unfinished …>` with `… resumed>` and gives the calls in the order of their *completion*.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: HashMap<String, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let text = if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            open.insert(pid.to_owned(), begin.to_owned());
            continue;
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let end = resumed.split_once("resumed>").map_or("", |(_, end)| end);
            format!("{}{end}", open.remove(pid).unwrap_or_default())
        } else {
            rest.to_owned()
        };
        if let Some((name, _)) = text.split_once('(') {
            calls.push(Call { name: name.to_owned(), text: text.clone() });
        }
    }
    calls
}

#[test]
fn acks_follow_their_fdatasync_and_segments_go_after_their_blocks() {
    if Command::new("strace").arg("-V").output().is_err() {
        skip::skip("strace is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // As strace shows descriptors: without symbolic links.
    let root = dir.path().canonicalize().unwrap();
    let trace_path = root.join("trace");
    let mut setup = Setup::new(&root).yaml(SMALL_BLOCKS);
    setup.wrapper = ["strace", "-f", "-yy", "-s", "40", "-o"].map(String::from).to_vec();
    setup.wrapper.push(trace_path.display().to_string());
    setup.wrapper.extend(
        ["-e", "trace=openat,write,writev,pwrite64,sendto,sendmsg,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat"]
            .map(String::from),
    );
    let mut node = setup.start().unwrap();
    let mut template = Template::new(5, 500);
    let otlp = node.addr("otlp_http").unwrap();
    let mut connection = Connection::open(otlp, PATIENCE).unwrap();
    let requests = 100;
    for sequence in 0..requests {
        let body = template.fill(5, sequence, now_ns());
        let answer =
            connection.send("POST", "/v1/traces", &[("Content-Type", "application/x-protobuf")], body).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let blocks = root.join("data/blocks/single-tenant");
    node.wait_until("a block is there", || std::fs::read_dir(&blocks).is_ok_and(|d| d.count() > 0)).unwrap();
    // strace forwards nothing to its child: the traced process is told itself.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", node.pid())).unwrap();
    let child = children.split_whitespace().next().unwrap().to_owned();
    assert!(Command::new("kill").args(["-TERM", &child]).status().unwrap().success());
    node.wait_log(|l| l.contains("msg=stopped")).unwrap();
    drop(connection);
    node.wait_until("the trace is written", || {
        std::fs::read_to_string(&trace_path).is_ok_and(|t| t.contains("+++ exited with"))
    })
    .ok();

    let trace = std::fs::read_to_string(&trace_path).unwrap();
    let calls = calls(&trace);
    let ack = |c: &Call| {
        ["write", "writev", "sendto", "sendmsg"].contains(&c.name.as_str())
            && c.text.contains("HTTP/1.1 200 OK")
            && c.text.contains(&format!("TCP:[{otlp}->"))
    };
    let segment = |c: &Call| c.text.contains("/wal/log/0/") && c.text.contains(".log");
    let mut acks = 0;
    let mut unsynced = HashSet::new();
    // Segments whose name is not durable yet.
    let mut unnamed = HashSet::new();
    let mut named = 0;
    let mut synced_since_ack = false;
    for call in &calls {
        let written = ["write", "writev", "pwrite64"].contains(&call.name.as_str());
        if written && segment(call) {
            unsynced.insert(path(&call.text));
        } else if call.name == "openat" && segment(call) && call.text.contains("O_CREAT") {
            unnamed.extend(quoted(&call.text).pop());
            named += 1;
        } else if call.name == "fsync" && call.text.contains("/wal/log/0>") && call.text.trim_end().ends_with("= 0") {
            unnamed.clear();
        } else if call.name == "fdatasync" && segment(call) && call.text.trim_end().ends_with("= 0") {
            unsynced.remove(&path(&call.text));
            synced_since_ack = true;
        } else if ack(call) {
            assert!(unsynced.is_empty(), "an answer left before {unsynced:?} was synced: {}", call.text);
            assert!(unnamed.is_empty(), "an answer left before the folder of {unnamed:?} was synced: {}", call.text);
            assert!(synced_since_ack, "an answer left without an fdatasync since the one before: {}", call.text);
            synced_since_ack = false;
            acks += 1;
        }
    }
    assert_eq!(acks, requests, "every acknowledgement has its own fdatasync before it");

    assert!(named > 1, "segments are begun under load, not only at the start");

    let stored = |c: &Call| c.name.starts_with("rename") && c.text.contains("/blocks/");
    let syncs = |c: &Call, of: &str| c.name == "fsync" && c.text.contains(&format!("<{of}>"));
    for (at, call) in calls.iter().enumerate().filter(|(_, c)| stored(c)) {
        let from = quoted(&call.text).into_iter().next().expect("a rename names its source");
        assert!(
            calls[..at].iter().any(|c| syncs(c, &from)),
            "an object got its name before it was synced: {}",
            call.text
        );
    }
    let unlinked: Vec<usize> =
        (0..calls.len()).filter(|i| calls[*i].name.starts_with("unlink") && segment(&calls[*i])).collect();
    assert!(!unlinked.is_empty(), "segments are reclaimed");
    for at in unlinked {
        // Another block may be on its way just then, so it is asked for one that is there for good.
        let durable = |meta: usize| {
            let name = quoted(&calls[meta].text).pop().expect("a rename names its target");
            let folder = name.rsplit_once('/').expect("it is in a folder").0;
            calls[meta..at].iter().any(|c| syncs(c, folder))
        };
        let metas: Vec<usize> =
            (0..at).filter(|i| stored(&calls[*i]) && calls[*i].text.contains("/meta.json")).collect();
        assert!(!metas.is_empty(), "a block's meta.json is in place before a segment goes");
        assert!(metas.into_iter().any(durable), "the folder of a block is synced before a segment goes");
    }
}

/// The texts in quotes: names of files, which strace shows whole.
fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The path that strace shows for the descriptor.
fn path(text: &str) -> String {
    text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or_else(String::new, |(p, _)| p.to_owned())
}

//! "Not found" is said only when everything that could hold the trace was asked: a block that cannot be read is no empty block.

use std::path::PathBuf;

use vivace_integration::http::{self, Answer};
use vivace_integration::ledger::{self, Outcome, hex};
use vivace_integration::load::{self, Template};
use vivace_integration::process::{Node, Setup};

use crate::crash::now_ns;

/// This object of the only block.
fn object(dir: &std::path::Path, name: &str) -> PathBuf {
    let tenant = dir.join("data/blocks/single-tenant");
    let blocks: Vec<_> = std::fs::read_dir(tenant).unwrap().flatten().filter(|entry| entry.path().is_dir()).collect();
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    blocks[0].path().join(name)
}

fn header(answer: &Answer) -> &str {
    answer.header("x-vivace-coverage").unwrap_or("")
}

#[test]
fn a_block_that_cannot_be_read_makes_answers_incomplete_and_never_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let node = setup.start().unwrap();
    let mut template = Template::new(6, 40);
    let body = template.fill(6, 1, now_ns()).to_vec();
    assert_eq!(ledger::send(&mut None, node.addr("otlp_http").unwrap(), &body), Outcome::Acknowledged);
    // Everything into one block.
    assert!(node.stop().unwrap().0.success());
    for name in ["data.parquet", "bloom-0"] {
        // A process that has not looked at the block yet.
        let node = setup.start().unwrap();
        let http = node.addr("http").unwrap();
        let (stored, unknown) = (hex(&load::trace_id(6, 1, 0)), "0f".repeat(16));
        let place = object(dir.path(), name);
        let away = place.with_extension("away");
        std::fs::rename(&place, &away).unwrap();
        for id in [&stored, &unknown] {
            let answer = http::get(http, &format!("/api/traces/{id}")).unwrap();
            assert_eq!(answer.status, 503, "without {name}: {}", answer.text());
            assert!(answer.text().contains(name), "it says what is missing: {}", answer.text());
            let answer = http::get(http, &format!("/api/v2/traces/{id}")).unwrap();
            assert_eq!(answer.status, 200, "without {name}: {}", answer.text());
            assert_eq!(answer.json().unwrap()["status"], "PARTIAL", "without {name}: {}", answer.text());
            assert!(header(&answer).starts_with("read=1/2; skipped="), "{}", header(&answer));
        }
        let search = http::get(http, "/api/search?q=%7B%7D").unwrap();
        assert_eq!(search.status, 200, "{}", search.text());
        if name == "data.parquet" {
            assert!(header(&search).starts_with("read=1/2; skipped="), "{}", header(&search));
        }
        std::fs::rename(&away, &place).unwrap();
        // Nothing is remembered of it.
        let answer = http::get(http, &format!("/api/traces/{stored}")).unwrap();
        assert_eq!((answer.status, header(&answer)), (200, "read=2/2"), "{}", answer.text());
        assert_eq!(http::get(http, &format!("/api/traces/{unknown}")).unwrap().status, 404);
        let (status, _, log) = node.stop().unwrap();
        assert!(status.success());
        Node::check_no_error(&log).unwrap();
    }
}

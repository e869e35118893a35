//! Blocks stay few, nothing is lost by merging them, and they go when their time is over.

use std::path::Path;

use vivace_integration::ledger::{self, Ledger};
use vivace_integration::load::Template;
use vivace_integration::process::Setup;

use crate::crash::{SMALL_BLOCKS, now_ns};

/// Blocks of the only tenant with this object.
fn blocks(bucket: &Path, object: &str) -> usize {
    let folders = std::fs::read_dir(bucket.join("single-tenant")).map(|d| d.flatten().collect()).unwrap_or_default();
    let folders: Vec<std::fs::DirEntry> = folders;
    folders.iter().filter(|folder| folder.path().join(object).is_file()).count()
}

#[test]
fn small_blocks_are_merged_whole_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("data/blocks");
    let keep = "backend_worker:\n  compaction:\n    compaction_cycle: 200ms\n    compacted_block_retention: 5s\n";
    let mut node = Setup::new(dir.path()).yaml(SMALL_BLOCKS).yaml(keep).start().unwrap();
    let (otlp, http) = (node.addr("otlp_http").unwrap(), node.addr("http").unwrap());
    let seed = 41;
    let mut template = Template::new(seed, 400);
    let mut book = Ledger { seed, ..Ledger::default() };
    let mut connection = None;
    for sequence in 0..60 {
        let outcome = ledger::send(&mut connection, otlp, template.fill(seed, sequence, now_ns()));
        book.outcomes.insert(sequence, outcome);
    }
    node.wait_until("blocks are merged", || blocks(&bucket, "meta.compacted.json") >= 6).unwrap();
    // Asked while blocks are merged and deleted: an answer is whole at any moment.
    for _ in 0..3 {
        book.verify(&book.acknowledged(), http, &Template::new(seed, 400), 10).unwrap();
    }
    // Of each level fewer wait than one merge takes.
    node.wait_until("few blocks are left", || {
        blocks(&bucket, "meta.json") <= 10 && blocks(&bucket, "meta.compacted.json") == 0
    })
    .unwrap();
    book.verify(&book.acknowledged(), http, &Template::new(seed, 400), 5).unwrap();
    let (status, _, _) = node.stop().unwrap();
    assert!(status.success());

    let short = format!("{keep}    block_retention: 1s\n");
    let mut node = Setup::new(dir.path()).yaml(SMALL_BLOCKS).yaml(&short).start().unwrap();
    node.wait_until("blocks past their retention are gone", || {
        blocks(&bucket, "meta.json") == 0 && blocks(&bucket, "data.parquet") == 0
    })
    .unwrap();
    node.stop().unwrap();
}

//! A whole cluster on real Apache Kafka and on a bucket of an S3 server that is not ours: read from live-stores and from blocks, with
//! block-builders that are killed.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use vivace_integration::cluster::Cluster as Roles;
use vivace_integration::kafka::Kafka;
use vivace_integration::ledger::Outcome;
use vivace_integration::process::binary;
use vivace_integration::s3::{S3Server, program};
use vivace_integration::skip::skip;
use vivace_integration::watch::{Asker, Said, Watch};

use crate::cluster::{PATIENCE, SPANS, counted, found_by_id, send};

const BUCKET: &str = "traces";
const PREFIX: &str = "whole";
/// So often the block-builder is killed.
const KILLS: u64 = 3;

#[test]
fn a_cluster_on_kafka_and_s3_answers_from_both_and_has_every_span_in_one_block_when_its_builder_is_killed() {
    let Some(program) = program() else {
        return skip("no S3 server (PyPI: moto with Flask, in .venv, or VIVACE_MOTO names moto_server)");
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kafka");
    std::fs::create_dir(&folder).unwrap();
    let Some(kafka) = Kafka::start(&folder, 1).unwrap() else { return };
    let server = S3Server::start(&program, &[BUCKET]).unwrap();
    let settings = json!({
        "ingest": { "kafka": {
            "address": kafka.address(), "topic": "bucket", "auto_create_topic_default_partitions": 2,
        } },
        // Sections as short as a builder makes them, so that kills hit all of their steps.
        "block_builder": { "consume_cycle_duration": "300ms" },
        "storage": { "trace": { "backend": "s3", "s3": {
            "bucket": BUCKET, "prefix": PREFIX, "endpoint": server.addr.to_string(), "insecure": true,
            "access_key": "test", "secret_key": "test",
        } } },
    });
    let mut roles = Roles::of_each_role_with(dir.path(), &settings);
    let names = Roles::EACH_ROLE.map(|(name, _)| name);
    roles.start(&names).unwrap();
    let frontend = roles.http("query-frontend-0");
    let sending = send(&roles, 570, 0);
    sending.wait_for_more(20, PATIENCE).unwrap();
    let watching = Watch { seed: 570, spans: SPANS, frontend }.begin(&sending.book());
    watching.wait_for_whole(20, PATIENCE).unwrap();
    for kill in 0..KILLS {
        sending.wait_for_more(40, PATIENCE).unwrap();
        // Where in its cycle it is hit is part of the experiment, not a wait for a condition.
        std::thread::park_timeout(Duration::from_millis(kill * 110));
        roles.kill("block-builder-0").unwrap();
        roles.start(&["block-builder-0"]).unwrap();
    }
    sending.wait_for_more(40, PATIENCE).unwrap();
    watching.wait_for_whole(20, PATIENCE).unwrap();
    let (book, _) = sending.end();
    let seen = watching.end();
    println!("{} whole answers, the slowest after {:?}", seen.whole, seen.slowest);
    assert!(seen.wrong.is_empty() && seen.partial.is_empty(), "{seen:#?}");
    let acknowledged = book.acknowledged();
    let unknown = book.outcomes.values().filter(|outcome| **outcome == Outcome::Unknown).count();
    assert_eq!((acknowledged.len(), unknown), (book.outcomes.len(), 0), "nothing that clients use was disturbed");
    found_by_id(&book, &acknowledged, frontend);

    // The same from blocks alone.
    let mut asker = Asker::new(570, SPANS, frontend);
    let mut found = 0;
    let in_blocks = || {
        while found < acknowledged.len() {
            let is_whole = |trace| matches!(asker.by_id(acknowledged[found], trace, "?mode=blocks"), Ok(Said::Whole));
            if !(0..2).all(is_whole) {
                return false;
            }
            found += 1;
        }
        true
    };
    roles.wait_until("blocks have everything", &["block-builder-0", "querier-0"], in_blocks).unwrap();
    let (count, answer) = counted(frontend);
    assert!((count - (acknowledged.len() * SPANS) as f64).abs() < 0.5, "{count}: {answer}");
    let audit = Command::new(binary().unwrap())
        .args(["blocks", "audit", "-target=block-builder"])
        .envs(server.environment(BUCKET, PREFIX))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&audit.stdout);
    assert!(audit.status.success(), "{said}{}", String::from_utf8_lossy(&audit.stderr));
    for partition in 0..2 {
        assert!(said.contains(&format!("partition {partition}: offsets 0 to ")), "{said}");
    }
    let times = roles.stop_together(&names).unwrap();
    println!("stopped after {times:?}; {said}");
    roles.check_logs(&[]).unwrap();
}

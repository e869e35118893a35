//! Separate processes for each role on real Apache Kafka, which is killed and comes back while they write and read.

use serde_json::json;
use vivace_integration::cluster::Cluster as Roles;
use vivace_integration::kafka::Kafka;
use vivace_integration::ledger::Outcome;
use vivace_integration::load::Template;

use super::TOPICS;
use crate::cluster::{PATIENCE, SPANS, counted, found_by_id, send};

/// Requests acknowledged before and after the broker is killed.
const REQUESTS: u64 = 100;

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_the_broker_is_killed_under_a_whole_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kafka");
    std::fs::create_dir(&folder).unwrap();
    let Some(mut kafka) = Kafka::start(&folder, 1).unwrap() else { return };
    let mut roles = Roles::new(dir.path(), 2);
    let settings = json!({ "ingest": { "kafka": {
        "address": kafka.address(), "topic": "whole", "auto_create_topic_default_partitions": 2, "write_timeout": "30s",
    } } });
    for (name, role) in Roles::EACH_ROLE {
        roles.add(name, role, settings.clone());
    }
    let names: Vec<&str> = Roles::EACH_ROLE.iter().map(|(name, _)| *name).collect();
    roles.start(&names).unwrap();
    let sending = send(&roles, 808, 0);
    sending.wait_for_more(REQUESTS, PATIENCE).unwrap();
    kafka.kill(0);
    kafka.restart(0).unwrap();
    sending.wait_for_more(REQUESTS, PATIENCE).unwrap();
    let (book, _) = sending.end();
    let frontend = roles.http("query-frontend-0");
    let acknowledged = book.acknowledged();
    // Readers, too, must find the broker again. Until then a live-store answers up to what it has read.
    let (template, newest) = (Template::new(book.seed, SPANS), book.newest(20));
    let caught_up = || book.verify_parallel(&newest, frontend, &template, 2).is_ok();
    roles.wait_until("the newest traces are found", &names, caught_up).unwrap();
    found_by_id(&book, &acknowledged, frontend);
    // A count shows copies of a span. Requests of unknown outcome may be in it.
    let unknown = book.outcomes.values().filter(|outcome| **outcome == Outcome::Unknown).count();
    let spans = |requests: usize| requests as f64 * SPANS as f64;
    let (count, answer) = counted(frontend);
    println!("{} requests acknowledged, {unknown} unknown, {count} spans counted", acknowledged.len());
    let range = spans(acknowledged.len())..=spans(acknowledged.len() + unknown);
    assert!(range.contains(&count), "{count} spans, not within {range:?}: {answer}");

    let described =
        kafka.tool(TOPICS, &["--bootstrap-server", &kafka.address(), "--describe", "--topic", "whole"]).unwrap();
    assert!(described.contains("PartitionCount: 2"), "{described}");
    let groups = kafka
        .tool(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            &["--bootstrap-server", &kafka.address(), "--describe", "--all-groups"],
        )
        .unwrap();
    assert!(groups.contains("block-builder"), "the block-builder has committed: {groups}");
    let times = roles.stop_together(&names).unwrap();
    println!("stopped after {times:?}");
}

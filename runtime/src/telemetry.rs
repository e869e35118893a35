//! What a process says about itself: log lines, and the metrics that every process has.

pub use self::log::{LogError, LogFormat, LogHandle, init_log, timestamp as rfc3339};
pub use self::process::export_process;

use crate::metrics::Registry;
use crate::supervisor::Supervisor;
use crate::tree::Kind;

mod log;
mod process;

/// Exports the figures of every mailbox and part below a supervisor: `vivace_actor_*`, read at each scrape.
pub fn export_actors(registry: &Registry, root: &Supervisor) {
    let root = root.clone();
    registry.collector(move |text| {
        let tree = root.outline();
        let nodes: Vec<_> = tree.flatten().into_iter().filter(|(_, node)| node.kind == Kind::Part).collect();
        #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
        let count = |n: u64| n as f64;
        type Value<'a> = &'a dyn Fn(&crate::tree::Node) -> Option<f64>;
        let mut family = |name: &str, kind: &str, help: &str, value: Value<'_>| {
            text.family(name, kind, help);
            for (path, node) in &nodes {
                if let Some(value) = value(node) {
                    text.sample(name, "", &[("actor", path)], None, value);
                }
            }
        };
        family("vivace_actor_up", "gauge", "1 while the part is running.", &|node| {
            Some(f64::from(u8::from(node.state == crate::lifecycle::State::Running)))
        });
        family("vivace_actor_restarts_total", "counter", "How often the part was rebuilt.", &|node| {
            Some(count(node.restarts))
        });
        family("vivace_actor_failures_total", "counter", "How often the part failed by itself.", &|node| {
            Some(count(node.failures))
        });
        family("vivace_actor_mailbox_depth", "gauge", "Messages queued or being handled.", &|node| {
            node.load.map(|load| count(load.depth as u64))
        });
        family("vivace_actor_mailbox_capacity", "gauge", "The bound of the mailbox in messages.", &|node| {
            node.load.map(|load| count(load.capacity as u64))
        });
        family("vivace_actor_mailbox_bytes", "gauge", "Bytes of the messages in the mailbox.", &|node| {
            node.load.map(|load| count(load.bytes as u64))
        });
        family("vivace_actor_mailbox_capacity_bytes", "gauge", "The bound of the mailbox in bytes.", &|node| {
            node.load.and_then(|load| load.capacity_bytes).map(|bytes| count(bytes as u64))
        });
        family("vivace_actor_mailbox_waiting", "gauge", "Senders that wait for room.", &|node| {
            node.load.map(|load| count(load.waiting as u64))
        });
        family("vivace_actor_messages_total", "counter", "Messages accepted.", &|node| {
            node.load.map(|load| count(load.accepted))
        });
        family("vivace_actor_refused_total", "counter", "Messages refused for want of room.", &|node| {
            node.load.map(|load| count(load.refused))
        });
        family("vivace_actor_waits_total", "counter", "Messages that waited for room.", &|node| {
            node.load.map(|load| count(load.waits))
        });
        family("vivace_actor_wait_seconds_total", "counter", "Time that messages waited for room.", &|node| {
            node.load.map(|load| load.waited.as_secs_f64())
        });
    });
}

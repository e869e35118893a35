//! The block-builder's table of children.
//!
//! | child | built from | on panic | limit | on stop |
//! |---|---|---|---|---|
//! | conductor | handles | rebuilt; the section under way is given up and read again | 10 a minute | finishes what is being written, for 6 s |
//! | consumer-n | the chain of commit objects, then a reader; questions are refused meanwhile | rebuilt; the record that it died on counts a strike | none | ends at once |
//! | flusher | handles | rebuilt; the conductor asks again | 10 a minute | ends at once |
//! | committer | handles | rebuilt; the consumer looks for the end of the chain | 10 a minute | ends at once |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use vivace_log::{Partition, Quarantine};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Bounds, Child, Compute, Placement, Restart, Rng, Supervisor};
use vivace_storage::{Backend, BloomSpec};

use crate::committer::Committer;
use crate::conductor::{Conductor, Hands};
use crate::config::Config;
use crate::consumer::{ApplyHook, Consumer, Shared};
use crate::flusher::Flusher;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::source::{Connect, Connection};
use crate::state::Rules;

/// What a block-builder is made of.
pub struct Setup {
    /// Keys below `block_builder`.
    pub config: Config,
    /// The partitions to read, see [`Config::partitions`].
    pub partitions: Vec<i32>,
    /// Rows of a block are grouped up to this estimate, key `storage.trace.block.parquet_row_group_size_bytes`.
    pub row_group_bytes: u64,
    /// Size and sharpness of the blocks' bloom filters, keys `storage.trace.block.bloom_filter_*`.
    pub bloom: BloomSpec,
    /// Where blocks go.
    pub backend: Backend,
    /// How the log is reached.
    pub connect: Connect,
    /// Limits by tenant.
    pub limits: Arc<dyn Limits>,
    /// Encoding of blocks.
    pub compute: Compute,
    /// Names of attempts.
    pub rng: Rng,
    /// Where measurements go.
    pub metrics: Registry,
    /// Called for every record before it is filed; tests plant failures here.
    pub hook: Option<ApplyHook>,
}

/// Adds the block-builder below `parent`; it starts with it.
pub fn add(parent: &Supervisor, setup: Setup, placement: Placement) {
    let component =
        parent.component("block-builder", Restart::default().at_most(2, Duration::from_secs(300)), placement);
    let config = &setup.config;
    let metrics = Metrics::register(&setup.metrics, &setup.partitions, "assigned");
    let connection = Arc::new(Connection::new(setup.connect));
    let rules = Rules { max_bytes: config.section_bytes(), window: config.consume_cycle_duration.into() };
    let often = Restart::default().at_most(10, Duration::from_secs(60));

    let flusher = Child::<Flusher>::new("flusher", Bounds::messages(1)).restart(often.waiting());
    let committer = Child::<Committer>::new("committer", Bounds::messages(1)).restart(often.waiting());
    let mut hands = Hands {
        collect: BTreeMap::new(),
        advance: BTreeMap::new(),
        flusher: flusher.mailbox(),
        committer: committer.mailbox(),
        metrics: metrics.clone(),
    };
    let mut conductor = Child::<Conductor>::new("conductor", Bounds::messages(1))
        .restart(often)
        .waits_for("flusher")
        .waits_for("committer");
    let (mut consumers, ending) = (Vec::new(), CancellationToken::new());
    for &partition in &setup.partitions {
        let name = format!("consumer-{partition}");
        // What stops it comes from outside: brokers, the store. It is tried for ever.
        // Questions are refused meanwhile, so that the other partitions go on.
        let patient = Restart::forever().backoff(Duration::from_millis(500), Duration::from_secs(30));
        let consumer = Child::<Consumer>::new(name.as_str(), Bounds::messages(2)).restart(patient);
        hands.collect.insert(partition, consumer.mailbox());
        hands.advance.insert(partition, consumer.mailbox());
        conductor = conductor.waits_for(name);
        let shared = Arc::new(Shared {
            connection: Arc::clone(&connection),
            partition: Partition(partition),
            backend: setup.backend.clone(),
            rules,
            limits: Arc::clone(&setup.limits),
            quarantine: Quarantine::default(),
            metrics: metrics.clone(),
            hook: setup.hook.clone(),
            ending: ending.clone(),
        });
        consumers.push((consumer, shared));
    }
    let (period, rng) = (config.consume_cycle_duration.into(), Mutex::new(setup.rng));
    component.add(conductor, move |_| Ok(Conductor::new(hands.clone(), period, rng.lock().fork(), ending.clone())));
    for (consumer, shared) in consumers {
        component.add_async(consumer, move |_| Consumer::build(Arc::clone(&shared)));
    }
    let parts = Flusher {
        backend: setup.backend.clone(),
        compute: setup.compute,
        limits: setup.limits,
        row_group_bytes: setup.row_group_bytes,
        bloom: setup.bloom,
        slack: config.wal.ingestion_time_range_slack.into(),
        metrics: metrics.clone(),
    };
    component.add(flusher, move |_| Ok(parts.clone()));
    let parts = Committer { backend: setup.backend, metrics };
    component.add(committer, move |_| Ok(parts.clone()));
}

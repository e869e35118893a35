//! The Kafka form: the log of deployments with more than one process, behind our own wrapper around `rskafka`.
//!
//! ```text
//! append  ─► Lane, one per partition ─► Batch ─► Leader ─► Wire ─► leader of the partition
//! next    ─► KafkaReader ─► fetch task ─► Channel ─► rskafka ─► leader of the partition
//! bounds  ─► Channel ─► rskafka
//! offsets ─► KafkaGroupOffsets ─► Wire ─► coordinator of the group
//! start   ─► Topic ─► Wire ─► any broker, the controller
//! ```
//!
//! `Wire` is a connection of our own, for what rskafka does not speak or does not do well. What the wrapper adds to both: a time limit
//! on every call; a way back to the list of brokers when what is known of the cluster leads nowhere; errors classed by what to do
//! (`Failure`); batching with one request in flight per partition, so that order is kept and the header
//! `vivace-seq` tells copies apart; reading that waits while brokers are away; group offsets; the topic's id, so that a topic that
//! was created again is another log.
//!
//! Durable means: acknowledged by all in-sync replicas. How many those are is the topic's `min.insync.replicas`.

mod answers;
mod batch;
mod brokers;
mod channel;
mod failure;
mod groups;
mod identity;
mod lag;
mod lane;
mod leader;
mod metrics;
mod reader;
mod records;
mod sasl;
mod scram;
mod settings;
pub mod shape;
mod topic;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::OffsetAt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Clock, Rng};

use crate::budget::{Budget, Permit};
use crate::config::KafkaConfig;
use crate::error::Error;
use crate::group_offsets::GroupOffsets;
use crate::log::{Appended, Bounds, Log, Reader};
use crate::log_id::LogId;
use crate::record::{Offset, Partition, Record};

pub use lag::LagExport;
pub use metrics::{LagMetrics, Role};

use brokers::Brokers;
use channel::Channel;
use failure::Failure;
use groups::{KafkaGroupOffsets, on};
use identity::Identity;
use lag::Consumption;
use lane::{Lane, Queued};
use metrics::Metrics;
use reader::{Fetcher, KafkaReader};
use settings::Settings;
use topic::Topic;

const OPEN: &str = "open the topic";
const BOUNDS: &str = "learn the bounds of a partition";
/// How long a start waits for brokers before it fails and leaves it to whoever starts processes.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the topic's identity is compared with what the brokers say.
const COMPARE_INTERVAL: Duration = Duration::from_secs(10);

/// What a Kafka log is wired from.
pub struct KafkaEnv {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For the producer's session, back-off and nonces.
    pub rng: Rng,
    /// The bytes in flight between `append` and acknowledgement; see [`KafkaLog::budget_bytes`].
    pub budget: Budget,
    /// Where metrics are registered.
    pub registry: Registry,
    /// What this process does with the log.
    pub role: Role,
    /// Where connections live.
    pub runtime: Handle,
}

/// A topic of a Kafka cluster.
pub struct KafkaLog {
    brokers: Arc<Brokers>,
    identity: Arc<Identity>,
    budget: Budget,
    /// Draws the session of each lane.
    sessions: Mutex<Rng>,
    consumption: Arc<Consumption>,
    runtime: Handle,
    lanes: Mutex<Lanes>,
    tasks: TaskTracker,
    closed: watch::Sender<bool>,
    /// For questions about offsets, one per partition that is asked for.
    askers: Mutex<BTreeMap<Partition, Arc<tokio::sync::Mutex<Channel>>>>,
}

#[derive(Default)]
struct Lanes {
    closed: bool,
    senders: BTreeMap<Partition, UnboundedSender<Queued>>,
}

impl KafkaLog {
    /// How many bytes the configuration lets wait to be written; `None`: without limit.
    #[must_use]
    pub fn budget_bytes(config: &KafkaConfig) -> Option<usize> {
        let bytes = usize::try_from(config.producer_max_buffered_bytes).unwrap_or(usize::MAX);
        Some(bytes).filter(|bytes| *bytes > 0)
    }

    /// Finds the topic, or creates it if that is allowed. Waits for brokers that are not there yet, up to a minute.
    ///
    /// # Errors
    /// [`Error::Configuration`] for what can be seen without a broker, [`Error::BrokerRefused`] for what the brokers refuse or this
    /// client cannot do with them, [`Error::BrokerUnavailable`] when the minute is over.
    pub async fn connect(config: &KafkaConfig, env: KafkaEnv) -> Result<Arc<Self>, Error> {
        let KafkaEnv { clock, mut rng, budget, registry, role, runtime } = env;
        let settings = Settings::new(config)?;
        for notice in Settings::notices(config) {
            tracing::warn!("{notice}");
        }
        let sessions = Mutex::new(rng.fork());
        let brokers = Arc::new(Brokers::new(settings, clock, rng, Metrics::new(&registry, role)));
        let opening = Arc::clone(&brokers);
        let topic = on(&runtime, async move { open(&opening).await }).await?;
        if !topic.has_own_id {
            tracing::warn!(
                topic = brokers.settings.topic,
                "the brokers give topics no ids: a topic that is deleted and created again will not be noticed"
            );
        }
        tracing::info!(
            topic = brokers.settings.topic, partitions = topic.partitions, id = %topic.id, "opened the Kafka topic"
        );
        let identity = Arc::new(Identity::new(&brokers.settings.topic, topic.id, role));
        let lag = LagMetrics::register(&registry);
        let consumption = Arc::new(Consumption::new(lag, Arc::clone(&brokers.clock)));
        let log = Arc::new(Self {
            brokers,
            identity,
            budget,
            sessions,
            consumption,
            runtime,
            lanes: Mutex::default(),
            tasks: TaskTracker::new(),
            closed: watch::Sender::new(false),
            askers: Mutex::default(),
        });
        log.runtime.spawn(compare(Arc::downgrade(&log)));
        Ok(log)
    }

    /// The offsets that `group` commits for this topic.
    #[must_use]
    pub fn offsets(&self, group: &str) -> Arc<dyn GroupOffsets> {
        Arc::new(KafkaGroupOffsets::new(Arc::clone(&self.brokers), group, self.runtime.clone()))
    }

    /// Exports how far `group` is behind in `partition`, until the returned value is dropped.
    #[must_use]
    pub fn export_lag(self: &Arc<Self>, group: &str, partition: Partition) -> LagExport {
        LagExport::start(
            Arc::clone(self) as Arc<dyn Log>,
            self.offsets(group),
            Arc::clone(&self.consumption),
            (group, partition),
            self.brokers.settings.lag_interval,
            &self.runtime,
        )
    }

    fn asker(&self, partition: Partition) -> Arc<tokio::sync::Mutex<Channel>> {
        let mut askers = self.askers.lock();
        let asker = askers
            .entry(partition)
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Channel::new(Arc::clone(&self.brokers), partition))));
        Arc::clone(asker)
    }

    fn ask(&self, partition: Partition, at: Vec<OffsetAt>) -> BoxFuture<'static, Result<Vec<Option<Offset>>, Error>> {
        let (asker, identity) = (self.asker(partition), Arc::clone(&self.identity));
        on(&self.runtime, async move {
            let mut asker = asker.lock().await;
            let mut offsets = Vec::with_capacity(at.len());
            for at in at {
                if let Some(error) = identity.replaced() {
                    return Err(error);
                }
                offsets.push(learn(&mut asker, at).await?);
            }
            Ok(offsets)
        })
    }
}

/// Tries for as long as offsets may take to be learned. `None`: the broker knows none, for a time after the last record.
async fn learn(asker: &mut Channel, at: OffsetAt) -> Result<Option<Offset>, Error> {
    let brokers = asker.shared();
    let limit = brokers.settings.offset_timeout;
    let started = brokers.clock.now();
    let mut attempt = 0;
    loop {
        let failure = match asker.call(BOUNDS, limit / 2, |client| async move { client.get_offset(at).await }).await {
            Ok(offset) => return Ok(u64::try_from(offset).ok().map(Offset)),
            Err(failure) => failure,
        };
        let wait = brokers.back_off(attempt);
        let taken = brokers.clock.now().saturating_duration_since(started);
        if !failure.is_retryable() || taken + wait >= limit {
            return Err(failure.into_error(BOUNDS));
        }
        attempt += 1;
        brokers.clock.sleep(wait).await;
    }
}

async fn open(brokers: &Brokers) -> Result<Topic, Error> {
    let started = brokers.clock.now();
    let mut attempt = 0;
    loop {
        let failure = match Topic::open(brokers).await {
            Ok(Some(topic)) => return Ok(topic),
            Ok(None) => {
                Failure::Busy { reason: "the topic has partitions without a leader".to_owned(), unknown: false }
            }
            Err(failure) => failure,
        };
        let wait = brokers.back_off(attempt);
        let taken = brokers.clock.now().saturating_duration_since(started);
        if !failure.is_retryable() || taken + wait >= START_TIMEOUT {
            return Err(failure.into_error(OPEN));
        }
        if attempt == 3 {
            tracing::warn!(topic = brokers.settings.topic, reason = %failure, "waiting for Kafka");
        }
        attempt += 1;
        brokers.clock.sleep(wait).await;
    }
}

/// Asks the brokers now and then which topic this is.
async fn compare(log: Weak<KafkaLog>) {
    loop {
        let Some((brokers, identity)) = log
            .upgrade()
            .filter(|log| !*log.closed.borrow())
            .map(|log| (Arc::clone(&log.brokers), Arc::clone(&log.identity)))
        else {
            return;
        };
        brokers.clock.sleep(COMPARE_INTERVAL).await;
        let described = async {
            let mut wire = brokers.wire().await?;
            Topic::describe(&brokers, &mut wire).await
        };
        match described.await {
            Ok(Some(topic)) => identity.compare(&topic),
            // A topic that is missing is told by those who use it.
            Ok(None) => {}
            Err(failure) => brokers.metrics.failed(OPEN, &failure),
        }
    }
}

impl Log for KafkaLog {
    fn id(&self) -> LogId {
        self.identity.id()
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn append_reserved(
        &self,
        partition: Partition,
        record: Record,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Appended, Error>> {
        let limit_bytes = self.brokers.settings.max_record_bytes;
        let bytes = record.value.len();
        if bytes > limit_bytes {
            self.brokers.metrics.refused("record-too-large", 1);
            return Box::pin(std::future::ready(Err(Error::RecordTooLarge { bytes, limit_bytes })));
        }
        if partition.0 < 0 {
            return Box::pin(std::future::ready(Err(Error::UnknownPartition(partition))));
        }
        let (reply, answer) = oneshot::channel();
        let queued = Queued { record, permit, queued: self.brokers.clock.now(), reply };
        let mut lanes = self.lanes.lock();
        if lanes.closed {
            self.brokers.metrics.refused("cancelled-before-producing", 1);
            return Box::pin(std::future::ready(Err(Error::Closed)));
        }
        // A lane ends before its queue is closed only if it panics; the next one is another session, since its numbers begin anew.
        let sender = lanes.senders.get(&partition).filter(|sender| !sender.is_closed()).cloned();
        let sender = sender.unwrap_or_else(|| {
            let (sender, queue) = unbounded_channel();
            let (brokers, identity) = (Arc::clone(&self.brokers), Arc::clone(&self.identity));
            let session = self.sessions.lock().next();
            let lane = Lane::new(partition, brokers, self.budget.clone(), identity, session);
            self.tasks.spawn_on(lane.run(queue), &self.runtime);
            lanes.senders.insert(partition, sender.clone());
            sender
        });
        self.brokers.metrics.queued(&self.budget);
        // A lane that is gone has dropped the other end of the reply as well.
        drop(sender.send(queued));
        drop(lanes);
        Box::pin(async move { answer.await.unwrap_or(Err(Error::Closed)) })
    }

    fn append(&self, partition: Partition, record: Record) -> BoxFuture<'static, Result<Appended, Error>> {
        match self.budget.acquire(record.charged_bytes()) {
            Ok(permit) => self.append_reserved(partition, record, permit),
            Err(error) => {
                self.brokers.metrics.refused("buffer-full", 1);
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }

    /// The bounds are the brokers' to know: an offset outside of them is told by the first `next`.
    fn reader(&self, partition: Partition, from: Offset) -> Result<Box<dyn Reader>, Error> {
        if partition.0 < 0 {
            return Err(Error::UnknownPartition(partition));
        }
        let channel = Channel::new(Arc::clone(&self.brokers), partition);
        let fetcher = Fetcher { channel, identity: Arc::clone(&self.identity), closed: self.closed.subscribe() };
        Ok(Box::new(KafkaReader::new(fetcher, Arc::clone(&self.consumption), self.runtime.clone(), from)))
    }

    fn bounds(&self, partition: Partition) -> BoxFuture<'static, Result<Bounds, Error>> {
        let asked = self.ask(partition, vec![OffsetAt::Earliest, OffsetAt::Latest]);
        Box::pin(async move {
            let offsets = asked.await?;
            let of = |at: usize| offsets.get(at).copied().flatten().unwrap_or(Offset(0));
            Ok(Bounds { earliest: of(0), end: of(1) })
        })
    }

    fn end(&self, partition: Partition) -> BoxFuture<'static, Result<Offset, Error>> {
        let asked = self.ask(partition, vec![OffsetAt::Latest]);
        Box::pin(async move { Ok(asked.await?.first().copied().flatten().unwrap_or(Offset(0))) })
    }

    fn offset_at(&self, partition: Partition, timestamp_ms: i64) -> BoxFuture<'static, Result<Offset, Error>> {
        // Negative times mean something else in the protocol, and one that no calendar has is after every record.
        let time = DateTime::<Utc>::from_timestamp_millis(timestamp_ms.max(0)).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let asked = self.ask(partition, vec![OffsetAt::Timestamp(time), OffsetAt::Latest]);
        Box::pin(async move {
            let offsets = asked.await?;
            let end = offsets.get(1).copied().flatten().unwrap_or(Offset(0));
            Ok(offsets.first().copied().flatten().unwrap_or(end))
        })
    }

    /// Does nothing: how long Kafka keeps records is the topic's `retention.ms` and `retention.bytes`, and other groups read them
    /// too. It is said once, at debug level.
    fn reclaim(&self, partition: Partition, below: Offset) -> BoxFuture<'static, Result<(), Error>> {
        tracing::debug!(
            partition = partition.0,
            below = below.0,
            "the topic's own retention removes records from Kafka"
        );
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let senders = {
            let mut lanes = self.lanes.lock();
            lanes.closed = true;
            std::mem::take(&mut lanes.senders)
        };
        // The lanes end once they have settled what was queued.
        drop(senders);
        self.closed.send_replace(true);
        self.tasks.close();
        let tasks = self.tasks.clone();
        Box::pin(async move { tasks.wait().await })
    }
}

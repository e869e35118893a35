//! A consumer group's offsets, kept by the broker that coordinates the group: committed "simply", without joining the group, so
//! that standard tools show them and no rebalance ever happens.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::brokers::Brokers;
use super::failure::Failure;
use super::topic::topic_name;
use super::wire::Wire;
use crate::error::Error;
use crate::group_offsets::GroupOffsets;
use crate::record::{Offset, Partition};

const COMMIT: &str = "commit an offset";
const FETCH: &str = "ask for a committed offset";

/// One group. Calls are made one after the other on one connection, which is made anew when it breaks or the coordinator moves.
pub(crate) struct KafkaGroupOffsets {
    inner: Arc<Inner>,
    runtime: Handle,
}

struct Inner {
    brokers: Arc<Brokers>,
    group: String,
    coordinator: Mutex<Option<Wire>>,
}

impl KafkaGroupOffsets {
    pub(crate) fn new(brokers: Arc<Brokers>, group: &str, runtime: Handle) -> Self {
        let inner = Inner { brokers, group: group.to_owned(), coordinator: Mutex::new(None) };
        Self { inner: Arc::new(inner), runtime }
    }
}

impl GroupOffsets for KafkaGroupOffsets {
    fn committed(&self, partition: Partition) -> BoxFuture<'static, Result<Option<Offset>, Error>> {
        let inner = Arc::clone(&self.inner);
        on(&self.runtime, async move { inner.retried(FETCH, Call::Committed(partition)).await })
    }

    fn commit(&self, partition: Partition, next: Offset) -> BoxFuture<'static, Result<(), Error>> {
        let inner = Arc::clone(&self.inner);
        on(&self.runtime, async move { inner.retried(COMMIT, Call::Commit(partition, next)).await.map(|_| ()) })
    }
}

/// Runs on the runtime of the log, whatever thread waits for it.
pub(crate) fn on<T: Send + 'static>(
    runtime: &Handle,
    call: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> BoxFuture<'static, Result<T, Error>> {
    let task = runtime.spawn(call);
    // The task is not aborted when the caller goes away, so it can only fail when it panics or the runtime ends.
    Box::pin(async move { task.await.unwrap_or(Err(Error::Closed)) })
}

#[derive(Clone, Copy)]
enum Call {
    Committed(Partition),
    Commit(Partition, Offset),
}

impl Inner {
    /// Tries for as long as offsets may take to be learned.
    async fn retried(&self, action: &'static str, call: Call) -> Result<Option<Offset>, Error> {
        let limit = self.brokers.settings.offset_timeout;
        let started = self.brokers.clock.now();
        let mut attempt = 0;
        loop {
            let failure = match self.once(call, limit).await {
                Ok(offset) => return Ok(offset),
                Err(failure) => failure,
            };
            self.brokers.metrics.failed(action, &failure);
            let wait = self.brokers.back_off(attempt);
            let taken = self.brokers.clock.now().saturating_duration_since(started);
            if !failure.is_retryable() || taken + wait >= limit {
                return Err(failure.into_error(action));
            }
            attempt += 1;
            self.brokers.clock.sleep(wait).await;
        }
    }

    async fn once(&self, call: Call, limit: Duration) -> Result<Option<Offset>, Failure> {
        let mut coordinator = self.coordinator.lock().await;
        // Taken out: a call that fails or is dropped half-way leaves no connection that is in the middle of an answer.
        let mut wire = match coordinator.take() {
            Some(wire) => wire,
            None => self.find(limit).await?,
        };
        let result = self.brokers.within(limit / 2, self.ask(&mut wire, call)).await;
        if !matches!(&result, Err(failure) if failure.is_retryable()) {
            *coordinator = Some(wire);
        }
        result
    }

    async fn find(&self, limit: Duration) -> Result<Wire, Failure> {
        let mut any = self.brokers.wire().await?;
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(self.group.clone()));
        let answer = self.brokers.within(limit / 2, any.ask(&request, 1..=3)).await?;
        if answer.error_code != 0 {
            return Err(Failure::of_code(answer.error_code, answer.error_message.as_deref()));
        }
        self.brokers.wire_to(&self.brokers.advertised(&answer.host, answer.port)?).await
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.clone()))
    }

    async fn ask(&self, wire: &mut Wire, call: Call) -> Result<Option<Offset>, Failure> {
        match call {
            Call::Committed(partition) => self.committed(wire, partition).await,
            Call::Commit(partition, next) => self.commit(wire, partition, next).await.map(|()| None),
        }
    }

    async fn committed(&self, wire: &mut Wire, partition: Partition) -> Result<Option<Offset>, Failure> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(&self.brokers))
            .with_partition_indexes(vec![partition.0]);
        let request = OffsetFetchRequest::default().with_group_id(self.group_id()).with_topics(Some(vec![topic]));
        let answer = wire.ask(&request, 2..=7).await?;
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        let code =
            partition.map(|partition| partition.error_code).filter(|code| *code != 0).unwrap_or(answer.error_code);
        if code != 0 {
            return Err(Failure::of_code(code, None));
        }
        let committed = partition.ok_or_else(|| Failure::Broken("an answer without the partition".to_owned()))?;
        // -1: nothing was committed.
        Ok(u64::try_from(committed.committed_offset).ok().map(Offset))
    }

    async fn commit(&self, wire: &mut Wire, partition: Partition, next: Offset) -> Result<(), Failure> {
        let offset = i64::try_from(next.0).map_err(|error| Failure::Refused(format!("offset {next}: {error}")))?;
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition.0)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::from_static_str("")));
        let topic =
            OffsetCommitRequestTopic::default().with_name(topic_name(&self.brokers)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let answer = wire.ask(&request, 2..=8).await?;
        let code =
            answer.topics.first().and_then(|topic| topic.partitions.first()).map(|partition| partition.error_code);
        match code {
            Some(0) => Ok(()),
            Some(code) => Err(Failure::of_code(code, None)),
            None => Err(Failure::Broken("an answer without the partition".to_owned())),
        }
    }
}

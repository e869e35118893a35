//! The way to the leader of one partition for writing: our own connection and request.
//!
//! rskafka could write, too, but sends a throttled request again, which the broker has stored; copies every payload; and leaves
//! Nagle's algorithm on, which costs 40 ms for a request of 8 to 64 KiB where segments are large.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use super::brokers::Brokers;
use super::failure::Failure;
use super::topic::{Topic, topic_name};
use super::wire::Wire;
use crate::record::{Offset, Partition};

const WRITE: &str = "write records";
/// All in-sync replicas.
const ACKS: i16 = -1;

pub(crate) struct Leader {
    brokers: Arc<Brokers>,
    partition: Partition,
    wire: Option<Wire>,
}

impl Leader {
    pub(crate) fn new(brokers: Arc<Brokers>, partition: Partition) -> Self {
        Self { brokers, partition, wire: None }
    }

    pub(crate) fn brokers(&self) -> &Arc<Brokers> {
        &self.brokers
    }

    /// One attempt, at most for `limit`, connecting included. Answers the offset of the batch's first record.
    pub(crate) async fn produce(&mut self, batch: Bytes, limit: Duration) -> Result<Offset, Failure> {
        let brokers = Arc::clone(&self.brokers);
        let mut asked = false;
        let attempt = brokers.within(limit, async {
            // Taken out: whatever goes wrong within a request leaves no connection that is in the middle of an answer.
            let mut wire = match self.wire.take() {
                Some(wire) => wire,
                None => self.connect().await?,
            };
            asked = true;
            let result = self.ask(&mut wire, batch, limit).await;
            if keeps_connection(&result) {
                self.wire = Some(wire);
            }
            result
        });
        let result = attempt.await.map_err(|failure| match failure {
            Failure::Timeout(_) | Failure::Broken(_) if !asked => Failure::Unreachable(failure.to_string()),
            other => other,
        });
        if let Err(failure) = &result {
            self.brokers.metrics.failed(WRITE, failure);
        }
        result
    }

    /// From the list of brokers to the leader, each time: nothing that is remembered can be stale.
    async fn connect(&self) -> Result<Wire, Failure> {
        let mut any = self.brokers.wire().await?;
        let leader = Topic::leader(&self.brokers, &mut any, self.partition).await?;
        self.brokers.wire_to(&leader).await
    }

    async fn ask(&self, wire: &mut Wire, batch: Bytes, limit: Duration) -> Result<Offset, Failure> {
        let data = PartitionProduceData::default().with_index(self.partition.0).with_records(Some(batch));
        let topic = TopicProduceData::default().with_name(topic_name(&self.brokers)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(ACKS)
            .with_timeout_ms(i32::try_from(limit.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic]);
        let answer = wire.ask(&request, 3..=9).await?;
        if answer.throttle_time_ms > 0 {
            // The broker holds the connection back by itself (KIP-219); the batch is stored.
            self.brokers.metrics.throttled(answer.throttle_time_ms);
        }
        let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let stored = partition.ok_or_else(|| Failure::Broken("an answer without the partition".to_owned()))?;
        if stored.error_code != 0 {
            return Err(Failure::of_code(stored.error_code, stored.error_message.as_deref()));
        }
        u64::try_from(stored.base_offset)
            .map(Offset)
            .map_err(|error| Failure::Broken(format!("offset {}: {error}", stored.base_offset)))
    }
}

/// A refusal that concerns the batch or the replicas leaves the leader where it is; any other is reason to look for it anew.
fn keeps_connection(result: &Result<Offset, Failure>) -> bool {
    match result {
        Ok(_) | Err(Failure::TooLarge(_) | Failure::Refused(_) | Failure::OutOfRange) => true,
        Err(Failure::Timeout(_) | Failure::Unreachable(_) | Failure::Broken(_) | Failure::Busy { .. }) => false,
    }
}

//! Produce: one batch for each partition, durable before it is answered, whatever acknowledgement was asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use uuid::Uuid;

use vivace_log::Error as LogError;

use crate::api::{code_of, explain, text, wire_offset};
use crate::batch;
use crate::broker::Call;
use crate::code::{self, Code};
use crate::replica::Refusal;
use crate::slot::Slot;
use crate::topics::Topic;

/// Versions from here on name topics by id.
const IDS_FROM: i16 = 13;

pub(crate) async fn handle(call: Call<'_>, request: ProduceRequest) -> ProduceResponse {
    let bad_acks = !(-1..=1).contains(&request.acks);
    let patience = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let topics = request.topic_data.into_iter().map(|data| async move {
        let id = (call.version >= IDS_FROM).then_some(data.topic_id);
        let topic = call.topic(id, &data.name);
        let partitions = data.partition_data.into_iter().map(|partition| {
            let topic = topic.as_deref();
            async move {
                let index = partition.index;
                let outcome = match bad_acks {
                    true => Err((code::INVALID_REQUIRED_ACKS, "acks are -1, 0 or 1".to_owned())),
                    false => append(call, id, topic, partition, patience).await,
                };
                let answer = PartitionProduceResponse::default().with_index(index).with_log_append_time_ms(-1);
                match outcome {
                    Ok((base, start)) => answer.with_base_offset(base).with_log_start_offset(start),
                    Err((code, message)) => answer
                        .with_error_code(code)
                        .with_error_message(Some(text(message)))
                        .with_base_offset(-1)
                        .with_log_start_offset(-1),
                }
            }
        });
        let partition_responses = join_all(partitions).await;
        TopicProduceResponse::default()
            .with_name(data.name)
            .with_topic_id(data.topic_id)
            .with_partition_responses(partition_responses)
    });
    ProduceResponse::default().with_responses(join_all(topics).await)
}

async fn append(
    call: Call<'_>,
    id: Option<Uuid>,
    topic: Option<&Topic>,
    partition: PartitionProduceData,
    patience: Duration,
) -> Result<(i64, i64), (Code, String)> {
    let unknown = |code| (code, "there is no such topic or partition".to_owned());
    let Some(topic) = topic else {
        return Err(unknown(if id.is_some() { code::UNKNOWN_TOPIC_ID } else { code::UNKNOWN_TOPIC_OR_PARTITION }));
    };
    let slot = topic.slot(partition.index).ok_or_else(|| unknown(code::UNKNOWN_TOPIC_OR_PARTITION))?;
    if !call.leads(&topic.name, partition.index) {
        return Err((code::NOT_LEADER_OR_FOLLOWER, "another broker leads the partition".to_owned()));
    }
    if let Some(code) = call.broker.faults.error(call.key, Some((&topic.name, partition.index))) {
        return Err((code, "a fault was asked for".to_owned()));
    }
    let batch = partition.records.unwrap_or_default();
    let limit = topic.settings.max_message_bytes.unwrap_or(call.broker.options.max_message_bytes);
    if batch.len() > limit {
        return Err((code::MESSAGE_TOO_LARGE, format!("the batch has {} bytes, {limit} are allowed", batch.len())));
    }
    let head = batch::Head::check(&batch).map_err(|reason| (reason.code(), reason.to_string()))?;
    match append_patiently(call, slot, head, batch, patience).await {
        Ok(base) => {
            let start = slot.shown().await.map_or(-1, |shown| wire_offset(shown.start));
            Ok((wire_offset(base), start))
        }
        Err(refusal) => Err((code_of(&refusal), explain(&refusal))),
    }
}

/// Waits for room among the bytes in flight as long as the client does.
async fn append_patiently(
    call: Call<'_>,
    slot: &Arc<Slot>,
    head: batch::Head,
    batch: Bytes,
    patience: Duration,
) -> Result<u64, Refusal> {
    let clock = &call.broker.clock;
    let until = clock.now() + patience.min(Duration::from_secs(60));
    loop {
        match slot.append(head, batch.clone()).await {
            Err(Refusal::Log(LogError::Overloaded { retry_after })) if clock.now() < until => {
                clock.sleep(retry_after).await;
            }
            other => return other,
        }
    }
}

/// What the request touches, for faults.
pub(crate) fn places(call: Call<'_>, request: &ProduceRequest) -> Vec<(String, i32)> {
    let mut places = Vec::new();
    for data in &request.topic_data {
        let Some(topic) = call.topic((call.version >= IDS_FROM).then_some(data.topic_id), &data.name) else { continue };
        places.extend(data.partition_data.iter().map(|partition| (topic.name.clone(), partition.index)));
    }
    places
}

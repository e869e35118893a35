//! ListOffsets: the first offset, the end, or the first record at or after a time.

use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::api::{code_of, wire_offset};
use crate::broker::Call;
use crate::code::{self, Code};

/// In place of a time: the end.
const LATEST: i64 = -1;
/// In place of a time: the first offset that is still held.
const EARLIEST: i64 = -2;
/// Versions from here on have room for the leader's epoch.
const EPOCHS_FROM: i16 = 4;
/// No time, no offset.
const NOTHING: i64 = -1;

pub(crate) async fn handle(call: Call<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let index = partition.partition_index;
            let found = find(call, &asked.name, index, partition.timestamp).await;
            let epoch = if call.version >= EPOCHS_FROM { call.broker.faults.leader_epoch() } else { -1 };
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(index).with_leader_epoch(epoch);
            partitions.push(match found {
                Ok((timestamp_ms, offset)) => answer.with_timestamp(timestamp_ms).with_offset(offset),
                Err(code) => answer.with_error_code(code).with_timestamp(NOTHING).with_offset(NOTHING),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn find(call: Call<'_>, topic: &str, partition: i32, at_ms: i64) -> Result<(i64, i64), Code> {
    let found = call.topic(None, topic).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    let slot = found.slot(partition).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if !call.leads(topic, partition) {
        return Err(code::NOT_LEADER_OR_FOLLOWER);
    }
    if let Some(code) = call.broker.faults.error(call.key, Some((topic, partition))) {
        return Err(code);
    }
    let of = |refusal| code_of(&refusal);
    match at_ms {
        LATEST => Ok((NOTHING, wire_offset(slot.shown().await.map_err(of)?.end))),
        EARLIEST => Ok((NOTHING, wire_offset(slot.shown().await.map_err(of)?.start))),
        at_ms if at_ms < 0 => Err(code::INVALID_REQUEST),
        at_ms => {
            let found = slot.find(at_ms).await.map_err(of)?;
            Ok(found.map_or((NOTHING, NOTHING), |(timestamp_ms, offset)| (timestamp_ms, wire_offset(offset))))
        }
    }
}

/// What the request touches, for faults.
pub(crate) fn places(request: &ListOffsetsRequest) -> Vec<(String, i32)> {
    let of = |topic: &kafka_protocol::messages::list_offsets_request::ListOffsetsTopic| {
        let name = topic.name.to_string();
        topic.partitions.iter().map(|partition| (name.clone(), partition.partition_index)).collect::<Vec<_>>()
    };
    request.topics.iter().flat_map(of).collect()
}

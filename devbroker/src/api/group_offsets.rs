//! OffsetCommit and OffsetFetch, for members and for those who only keep their offsets here.

use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};

use crate::api::{text, topic_name};
use crate::broker::Call;
use crate::code::{self, Code};
use crate::groups::{Committed, Offsets};

/// The longest remark beside an offset.
const LONGEST_METADATA: usize = 4096;
/// Versions from here on ask for several groups.
const SEVERAL_FROM: i16 = 8;
/// Nothing was committed.
const NOTHING: i64 = -1;

pub(crate) async fn commit(call: Call<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let now = call.broker.clock.now();
    let cell = call.broker.groups.get_or_new(&request.group_id);
    let permitted = cell.and_then(|cell| {
        cell.group.lock().may_commit(&request.member_id, request.generation_id_or_member_epoch, now)?;
        Ok(cell)
    });
    let mut taken = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in &request.topics {
        let topic = call.topic(None, &asked.name);
        let partitions = asked.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let remark = partition.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default();
            let code = match (&permitted, &topic) {
                (Err(code), _) => *code,
                (Ok(_), Some(topic)) if topic.slot(index).is_some() => {
                    let fault = call.broker.faults.error(call.key, Some((&topic.name, index)));
                    let too_long = (remark.len() > LONGEST_METADATA).then_some(code::OFFSET_METADATA_TOO_LARGE);
                    fault.or(too_long).unwrap_or(code::NONE)
                }
                (Ok(_), _) => code::UNKNOWN_TOPIC_OR_PARTITION,
            };
            if code == code::NONE {
                let leader_epoch = partition.committed_leader_epoch;
                let committed = Committed { offset: partition.committed_offset, leader_epoch, metadata: remark };
                taken.push((asked.name.to_string(), index, committed));
            }
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        let partitions = partitions.collect();
        topics.push(OffsetCommitResponseTopic::default().with_name(asked.name.clone()).with_partitions(partitions));
    }
    if let Ok(cell) = &permitted
        && !taken.is_empty()
        && let Err(code) = cell.commit(taken).await
    {
        let answers = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        answers.filter(|answer| answer.error_code == code::NONE).for_each(|answer| answer.error_code = code);
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// What the request touches, for faults.
pub(crate) fn places(request: &OffsetCommitRequest) -> Vec<(String, i32)> {
    let mut places = Vec::new();
    for topic in &request.topics {
        places.extend(topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition_index)));
    }
    places
}

/// A topic that is asked for, and which partitions of it.
type Asked = (TopicName, Vec<i32>);
/// A topic of the answer.
type Found = (TopicName, Vec<(i32, Option<Committed>)>);

pub(crate) fn fetch(call: Call<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let fault = call.broker.faults.error(call.key, None);
    if call.version >= SEVERAL_FROM {
        let groups = request.groups.into_iter().map(|asked| {
            let topics = asked.topics.map(|topics| {
                topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect::<Vec<_>>()
            });
            let found = look_up(call, &asked.group_id, topics, fault);
            let answer = OffsetFetchResponseGroup::default().with_group_id(asked.group_id);
            match found {
                Ok(topics) => answer.with_topics(topics.into_iter().map(topics_answer).collect()),
                Err(code) => answer.with_error_code(code),
            }
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect::<Vec<_>>());
    // Before version 2 there is no place for an error of the whole request, and null means nothing.
    match look_up(call, &request.group_id, topics, fault) {
        Ok(topics) => OffsetFetchResponse::default().with_topics(topics.into_iter().map(topic_answer).collect()),
        Err(code) => OffsetFetchResponse::default().with_error_code(code),
    }
}

fn look_up(call: Call<'_>, group: &str, asked: Option<Vec<Asked>>, fault: Option<Code>) -> Result<Vec<Found>, Code> {
    if let Some(code) = fault {
        return Err(code);
    }
    let offsets: Offsets = call.broker.groups.get(group).map(|cell| cell.offsets()).unwrap_or_default();
    let Some(asked) = asked else {
        let everything = offsets.into_iter().map(|(topic, partitions)| {
            (topic_name(topic), partitions.into_iter().map(|(number, committed)| (number, Some(committed))).collect())
        });
        return Ok(everything.collect());
    };
    let answer = asked.into_iter().map(|(topic, partitions)| {
        let known = offsets.get(topic.as_str());
        let of = |number| (number, known.and_then(|partitions| partitions.get(&number).cloned()));
        (topic, partitions.into_iter().map(of).collect())
    });
    Ok(answer.collect())
}

fn topic_answer((name, partitions): Found) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(number, committed)| {
        let committed = committed.unwrap_or_else(nothing);
        OffsetFetchResponsePartition::default()
            .with_partition_index(number)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(committed.metadata)))
    });
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
}

fn topics_answer((name, partitions): Found) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(number, committed)| {
        let committed = committed.unwrap_or_else(nothing);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(number)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(committed.metadata)))
    });
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
}

fn nothing() -> Committed {
    Committed { offset: NOTHING, leader_epoch: -1, metadata: String::new() }
}

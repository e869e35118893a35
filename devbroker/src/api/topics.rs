//! CreateTopics, CreatePartitions, DeleteTopics, DeleteRecords.

use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use uuid::Uuid;

use crate::api::{code_of, explain, text, topic_name, wire_offset};
use crate::broker::Call;
use crate::code::{self, Code};
use crate::topic_settings::TopicSettings;
use crate::topics::TopicError;

/// In place of a number: the broker's own choice.
const DEFAULT: i32 = -1;

pub(crate) async fn create(call: Call<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let result = CreatableTopicResult::default().with_name(asked.name.clone());
        results.push(match create_one(call, &asked, request.validate_only).await {
            Ok((id, partitions)) => {
                result.with_topic_id(id).with_num_partitions(partitions).with_replication_factor(1).with_configs(None)
            }
            Err(error) => result
                .with_error_code(error.code)
                .with_error_message(Some(text(error.message)))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_configs(None),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create_one(call: Call<'_>, asked: &CreatableTopic, only_check: bool) -> Result<(Uuid, i32), TopicError> {
    if let Some(code) = call.broker.faults.error(call.key, Some((&asked.name, -1))) {
        return Err(TopicError::new(code, "a fault was asked for"));
    }
    let assigned = i32::try_from(asked.assignments.len()).unwrap_or(i32::MAX);
    let replicas = asked.assignments.iter().map(|assignment| assignment.broker_ids.len()).max();
    if !matches!(asked.replication_factor, -1 | 1) || replicas.is_some_and(|replicas| replicas != 1) {
        let message = "this broker is alone, so that there is one replica (replication factor 1 or -1)";
        return Err(TopicError::new(code::INVALID_REPLICATION_FACTOR, message));
    }
    let partitions = match asked.num_partitions {
        DEFAULT if assigned > 0 => assigned,
        DEFAULT => call.broker.options.default_partitions,
        number => number,
    };
    let mut settings = TopicSettings::default();
    for setting in &asked.configs {
        settings.set(&setting.name, setting.value.as_deref())?;
    }
    let topic = call.broker.topics.create(&asked.name, partitions, settings, only_check).await?;
    Ok((topic.map_or(Uuid::nil(), |topic| topic.id), partitions))
}

pub(crate) async fn grow(call: Call<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let grown = call.broker.topics.grow(&asked.name, asked.count, request.validate_only).await;
        let result = CreatePartitionsTopicResult::default().with_name(asked.name);
        results.push(match grown {
            Ok(()) => result,
            Err(error) => result.with_error_code(error.code).with_error_message(Some(text(error.message))),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

pub(crate) async fn delete(call: Call<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let asked: Vec<_> = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).chain(by_name).collect();
    let mut results = Vec::with_capacity(asked.len());
    for (name, id) in asked {
        let result = DeletableTopicResult::default();
        results.push(match delete_one(call, name.as_ref(), id).await {
            Ok((name, id)) => result.with_name(Some(topic_name(name))).with_topic_id(id),
            Err(error) => result
                .with_name(name)
                .with_topic_id(id)
                .with_error_code(error.code)
                .with_error_message(Some(text(error.message))),
        });
    }
    DeleteTopicsResponse::default().with_responses(results)
}

async fn delete_one(call: Call<'_>, name: Option<&TopicName>, id: Uuid) -> Result<(String, Uuid), TopicError> {
    let name = match name {
        Some(name) => name.to_string(),
        None => {
            let topic = call.broker.topics.by_id(id);
            topic.ok_or_else(|| TopicError::new(code::UNKNOWN_TOPIC_ID, "no topic has this id"))?.name.clone()
        }
    };
    let topic = call.broker.topics.delete(&name).await?;
    call.broker.groups.forget_topic(&name).await;
    Ok((name, topic.id))
}

pub(crate) async fn delete_records(call: Call<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let index = partition.partition_index;
            let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
            partitions.push(match delete_below(call, &asked.name, index, partition.offset).await {
                Ok(start) => result.with_low_watermark(start),
                Err(code) => result.with_low_watermark(-1).with_error_code(code),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions));
    }
    if let Err(error) = call.broker.topics.keep_starts().await {
        tracing::error!(error = explain(&error), "write down what was deleted");
        for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.error_code = code::KAFKA_STORAGE_ERROR;
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete_below(call: Call<'_>, topic: &str, partition: i32, below: i64) -> Result<i64, Code> {
    let found = call.topic(None, topic).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    let slot = found.slot(partition).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if !call.leads(topic, partition) {
        return Err(code::NOT_LEADER_OR_FOLLOWER);
    }
    if let Some(code) = call.broker.faults.error(call.key, Some((topic, partition))) {
        return Err(code);
    }
    slot.delete_below(below).await.map(wire_offset).map_err(|refusal| code_of(&refusal))
}

/// What a DeleteRecords touches, for faults.
pub(crate) fn places(request: &DeleteRecordsRequest) -> Vec<(String, i32)> {
    let mut places = Vec::new();
    for topic in &request.topics {
        places.extend(topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition_index)));
    }
    places
}

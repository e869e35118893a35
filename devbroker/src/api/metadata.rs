//! Metadata: brokers, topics, leaders. There is one broker; a fault can name another one as leader of some partitions.

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use uuid::Uuid;

use crate::api::{text, topic_name};
use crate::broker::{Call, NODE};
use crate::code;
use crate::topics::{Topic, check_name};

pub(crate) async fn handle(call: Call<'_>, request: MetadataRequest) -> MetadataResponse {
    let (host, port) = call.advertised();
    let broker = |node: i32, host: String, port: u16| {
        MetadataResponseBroker::default().with_node_id(node.into()).with_host(text(host)).with_port(port.into())
    };
    let mut brokers = vec![broker(NODE, host, port)];
    for other in call.broker.faults.leaders() {
        brokers.push(broker(other.node, other.host, other.port));
    }
    MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(Some(text(call.broker.topics.cluster_id.clone())))
        .with_controller_id(NODE.into())
        .with_topics(topics(call, request).await)
}

async fn topics(call: Call<'_>, request: MetadataRequest) -> Vec<MetadataResponseTopic> {
    let failed = |code| MetadataResponseTopic::default().with_error_code(code);
    // Before version 1 an empty list asked for everything; since then null does.
    let wanted = request.topics.filter(|topics| call.version > 0 || !topics.is_empty());
    let Some(wanted) = wanted else {
        return call.broker.topics.list().iter().map(|topic| describe(call, topic)).collect();
    };
    let mut described = Vec::with_capacity(wanted.len());
    for asked in wanted {
        let Some(name) = asked.name.as_ref().filter(|_| asked.topic_id == Uuid::nil()) else {
            described.push(match call.broker.topics.by_id(asked.topic_id) {
                Some(topic) => describe(call, &topic),
                // Without a name only versions that can say so.
                None => failed(code::UNKNOWN_TOPIC_ID)
                    .with_topic_id(asked.topic_id)
                    .with_name((call.version < 12).then(|| topic_name(""))),
            });
            continue;
        };
        let found = match call.broker.faults.error(call.key, Some((name, -1))) {
            Some(code) => Err(code),
            None if check_name(name).is_err() => Err(code::INVALID_TOPIC),
            None => {
                let may_create = call.version < 4 || request.allow_auto_topic_creation;
                call.broker.topic_or_new(name, may_create).await.ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)
            }
        };
        described.push(match found {
            Ok(topic) => describe(call, &topic),
            Err(code) => failed(code).with_name(Some(name.clone())),
        });
    }
    described
}

fn describe(call: Call<'_>, topic: &Topic) -> MetadataResponseTopic {
    let faults = &call.broker.faults;
    let epoch = faults.leader_epoch();
    let partitions = topic.slots.iter().map(|slot| {
        let leader = faults.leader(&topic.name, slot.number).map_or(NODE, |other| other.node);
        MetadataResponsePartition::default()
            .with_partition_index(slot.number)
            .with_leader_id(leader.into())
            .with_leader_epoch(epoch)
            .with_replica_nodes(vec![leader.into()])
            .with_isr_nodes(vec![leader.into()])
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(topic.name.clone())))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}

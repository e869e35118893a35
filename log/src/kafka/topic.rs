//! The topic: is it there, which one is it, how many partitions has it; created when it is missing and that is allowed.
//!
//! Only this topic is touched, never a setting of the cluster, and no broker is asked to create topics by itself.

use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponse;
use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::brokers::Brokers;
use super::failure::Failure;
use super::wire::Wire;
use crate::log_id::LogId;
use crate::record::Partition;

const UNKNOWN_TOPIC: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const NOT_CONTROLLER: i16 = 41;
/// How long a broker may take to create the topic on its peers.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);

/// The topic as a broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) id: LogId,
    /// Whether the id is the broker's own. If not, a topic that is created again cannot be told from the old one.
    pub(crate) has_own_id: bool,
    pub(crate) partitions: i32,
    /// Every partition has a leader.
    pub(crate) is_ready: bool,
}

impl Topic {
    /// What a broker of the list says; `None`: there is no such topic.
    pub(crate) async fn describe(brokers: &Brokers, wire: &mut Wire) -> Result<Option<Self>, Failure> {
        let answer = metadata(brokers, wire).await?;
        for broker in &answer.brokers {
            brokers.advertised(&broker.host, broker.port)?;
        }
        let Some(topic) = answer.topics.first() else {
            return Err(Failure::Broken("an answer without the topic".to_owned()));
        };
        match topic.error_code {
            0 | LEADER_NOT_AVAILABLE => {}
            UNKNOWN_TOPIC => return Ok(None),
            code => return Err(Failure::of_code(code, None)),
        }
        let has_own_id = !topic.topic_id.is_nil();
        let id = if has_own_id {
            topic.topic_id
        } else {
            let cluster = answer.cluster_id.as_deref().unwrap_or_default();
            Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("kafka:{cluster}:{}", brokers.settings.topic).as_bytes())
        };
        Ok(Some(Self {
            id: LogId::from_bytes(id.into_bytes()),
            has_own_id,
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            is_ready: !topic.partitions.is_empty()
                && topic.partitions.iter().all(|partition| partition.leader_id.0 >= 0),
        }))
    }

    /// The address of the broker that leads a partition.
    pub(crate) async fn leader(brokers: &Brokers, wire: &mut Wire, partition: Partition) -> Result<String, Failure> {
        let answer = metadata(brokers, wire).await?;
        let busy = |reason| Failure::Busy { reason, unknown: false };
        let Some(topic) = answer.topics.first() else {
            return Err(Failure::Broken("an answer without the topic".to_owned()));
        };
        if topic.error_code != 0 && topic.error_code != LEADER_NOT_AVAILABLE {
            return Err(Failure::of_code(topic.error_code, None));
        }
        let Some(there) = topic.partitions.iter().find(|there| there.partition_index == partition.0) else {
            let (name, count) = (&brokers.settings.topic, topic.partitions.len());
            return Err(busy(format!(
                "topic {name} has no partition {partition}, it has {count}: it needs one for each live-store of a zone"
            )));
        };
        let leader = answer.brokers.iter().find(|broker| broker.node_id == there.leader_id);
        let leader = leader.ok_or_else(|| busy(format!("partition {partition} has no leader now")))?;
        brokers.advertised(&leader.host, leader.port)
    }

    /// Finds the topic, or creates it. `Ok(None)`: it is being created, ask again.
    pub(crate) async fn open(brokers: &Brokers) -> Result<Option<Self>, Failure> {
        let mut wire = brokers.wire().await?;
        if let Some(topic) = Self::describe(brokers, &mut wire).await? {
            return Ok(Some(topic).filter(|topic| topic.is_ready));
        }
        let name = &brokers.settings.topic;
        let Some(partitions) = brokers.settings.create_partitions else {
            return Err(Failure::Refused(format!(
                "topic {name} does not exist; create it, or set ingest.kafka.auto_create_topic_enabled"
            )));
        };
        create(brokers, &mut wire, partitions).await?;
        Ok(None)
    }
}

pub(crate) fn topic_name(brokers: &Brokers) -> TopicName {
    TopicName(StrBytes::from_string(brokers.settings.topic.clone()))
}

async fn metadata(brokers: &Brokers, wire: &mut Wire) -> Result<MetadataResponse, Failure> {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(brokers)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
    brokers.within(brokers.settings.offset_timeout, wire.ask(&request, 4..=12)).await
}

async fn create(brokers: &Brokers, wire: &mut Wire, partitions: i32) -> Result<(), Failure> {
    // The cluster's own default of replicas: -1.
    let topic = CreatableTopic::default()
        .with_name(topic_name(brokers))
        .with_num_partitions(partitions)
        .with_replication_factor(-1);
    let timeout_ms = i32::try_from(CREATE_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms);
    let mut answer = brokers.within(CREATE_TIMEOUT * 2, wire.ask(&request, 4..=6)).await?;
    if answer.topics.first().is_some_and(|topic| topic.error_code == NOT_CONTROLLER) {
        let cluster = metadata(brokers, wire).await?;
        let controller = cluster.brokers.iter().find(|broker| broker.node_id == cluster.controller_id);
        let Some(controller) = controller else {
            return Err(Failure::Busy { reason: "the cluster has no controller now".to_owned(), unknown: false });
        };
        let mut wire = brokers.wire_to(&brokers.advertised(&controller.host, controller.port)?).await?;
        answer = brokers.within(CREATE_TIMEOUT * 2, wire.ask(&request, 4..=6)).await?;
    }
    let Some(topic) = answer.topics.first() else {
        return Err(Failure::Broken("an answer without the topic".to_owned()));
    };
    match topic.error_code {
        0 => {
            tracing::info!(topic = brokers.settings.topic, partitions, "created the topic");
            Ok(())
        }
        // Another process was first.
        TOPIC_ALREADY_EXISTS => Ok(()),
        code => match Failure::of_code(code, topic.error_message.as_deref()) {
            Failure::Refused(reason) => Err(Failure::Refused(format!(
                "topic {} does not exist and cannot be created: {reason}; create it by hand",
                brokers.settings.topic
            ))),
            other => Err(other),
        },
    }
}

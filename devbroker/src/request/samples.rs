//! One request of every kind in every version that this broker takes, with all arrays filled: for tests that must cover them all.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
    RequestHeader, SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest, TopicName,
    create_partitions_request, create_topics_request, delete_records_request, delete_topics_request,
    describe_configs_request, fetch_request, join_group_request, list_offsets_request, metadata_request,
    offset_commit_request, offset_fetch_request, produce_request, sync_group_request,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use uuid::Uuid;

use super::APIS;

/// A request as a frame without its length.
pub(crate) struct Sample {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) frame: Bytes,
    /// Where the body starts.
    pub(crate) body_at: usize,
}

pub(crate) fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name() -> TopicName {
    TopicName(text("topic"))
}

fn group() -> GroupId {
    GroupId(text("group"))
}

/// A frame without its length.
pub(crate) fn frame<R: Encodable + HeaderVersion>(key: ApiKey, version: i16, request: &R) -> (Bytes, usize) {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(text("sample")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, R::header_version(version)).unwrap();
    let body_at = frame.len();
    request.encode(&mut frame, version).unwrap();
    (frame.freeze(), body_at)
}

/// All of them. The topic is called `topic` and has the id that is given.
pub(crate) fn all(topic: Uuid, batch: &Bytes) -> Vec<Sample> {
    let mut samples = Vec::new();
    for api in APIS {
        for version in api.oldest..=api.newest {
            let (frame, body_at) = one(api.key, version, topic, batch);
            samples.push(Sample { key: api.key, version, frame, body_at });
        }
    }
    samples
}

fn one(key: ApiKey, version: i16, topic: Uuid, batch: &Bytes) -> (Bytes, usize) {
    let by_id = |since: i16| if version >= since { (TopicName::default(), topic) } else { (name(), Uuid::nil()) };
    match key {
        ApiKey::Produce => {
            let (name, id) = by_id(13);
            let partition = produce_request::PartitionProduceData::default().with_records(Some(batch.clone()));
            let data = produce_request::TopicProduceData::default()
                .with_name(name)
                .with_topic_id(id)
                .with_partition_data(vec![partition.clone(), partition.with_index(1)]);
            frame(key, version, &ProduceRequest::default().with_acks(-1).with_topic_data(vec![data]))
        }
        ApiKey::Fetch => {
            let (name, id) = by_id(13);
            let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1000);
            let asked = fetch_request::FetchTopic::default()
                .with_topic(name.clone())
                .with_topic_id(id)
                .with_partitions(vec![partition.clone(), partition.with_partition(1)]);
            let mut request = FetchRequest::default().with_max_bytes(1000).with_topics(vec![asked]);
            if version >= 7 {
                let forgotten = fetch_request::ForgottenTopic::default()
                    .with_topic(name)
                    .with_topic_id(id)
                    .with_partitions(vec![5]);
                request.forgotten_topics_data.push(forgotten);
            }
            frame(key, version, &request)
        }
        ApiKey::ListOffsets => {
            let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
            let asked = list_offsets_request::ListOffsetsTopic::default()
                .with_name(name())
                .with_partitions(vec![partition.clone(), partition.with_partition_index(1)]);
            frame(key, version, &ListOffsetsRequest::default().with_topics(vec![asked]))
        }
        ApiKey::Metadata => {
            let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(name()));
            frame(key, version, &MetadataRequest::default().with_topics(Some(vec![asked])))
        }
        ApiKey::OffsetCommit => {
            let partition = offset_commit_request::OffsetCommitRequestPartition::default()
                .with_committed_offset(3)
                .with_committed_metadata(Some(text("remark")));
            let asked = offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default().with_group_id(group()).with_generation_id_or_member_epoch(-1);
            frame(key, version, &request.with_topics(vec![asked]))
        }
        ApiKey::OffsetFetch if version >= 8 => {
            let asked = offset_fetch_request::OffsetFetchRequestTopics::default()
                .with_name(name())
                .with_partition_indexes(vec![0, 1]);
            let asked = offset_fetch_request::OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_topics(Some(vec![asked]));
            frame(key, version, &OffsetFetchRequest::default().with_groups(vec![asked]))
        }
        ApiKey::OffsetFetch => {
            let asked = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(name())
                .with_partition_indexes(vec![0, 1]);
            frame(key, version, &OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![asked])))
        }
        ApiKey::FindCoordinator if version >= 4 => {
            frame(key, version, &FindCoordinatorRequest::default().with_coordinator_keys(vec![text("a"), text("b")]))
        }
        ApiKey::FindCoordinator => frame(key, version, &FindCoordinatorRequest::default().with_key(text("a"))),
        ApiKey::CreateTopics => {
            let assignment =
                create_topics_request::CreatableReplicaAssignment::default().with_broker_ids(vec![1.into()]);
            let setting = create_topics_request::CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1000")));
            let asked = create_topics_request::CreatableTopic::default()
                .with_name(TopicName(text("made")))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![assignment])
                .with_configs(vec![setting]);
            frame(key, version, &CreateTopicsRequest::default().with_topics(vec![asked]))
        }
        ApiKey::DeleteTopics if version >= 6 => {
            let asked = delete_topics_request::DeleteTopicState::default().with_name(Some(TopicName(text("made"))));
            frame(key, version, &DeleteTopicsRequest::default().with_topics(vec![asked]))
        }
        ApiKey::DeleteTopics => {
            frame(key, version, &DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text("made"))]))
        }
        ApiKey::DeleteRecords => {
            let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
            let asked = delete_records_request::DeleteRecordsTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            frame(key, version, &DeleteRecordsRequest::default().with_topics(vec![asked]))
        }
        ApiKey::CreatePartitions => {
            let assignment =
                create_partitions_request::CreatePartitionsAssignment::default().with_broker_ids(vec![1.into()]);
            let asked = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(name())
                .with_count(2)
                .with_assignments(Some(vec![assignment]));
            frame(key, version, &CreatePartitionsRequest::default().with_topics(vec![asked]))
        }
        ApiKey::DescribeConfigs => {
            let asked = |kind: i8, name: &'static str| {
                describe_configs_request::DescribeConfigsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(text(name))
                    .with_configuration_keys(Some(vec![text("retention.ms"), text("log.retention.ms")]))
            };
            let asked = vec![asked(2, "topic"), asked(4, "1"), asked(2, "none"), asked(8, "x")];
            frame(key, version, &DescribeConfigsRequest::default().with_resources(asked))
        }
        ApiKey::InitProducerId => frame(key, version, &InitProducerIdRequest::default().with_transactional_id(None)),
        _ => of_groups(key, version),
    }
}

fn of_groups(key: ApiKey, version: i16) -> (Bytes, usize) {
    match key {
        ApiKey::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"metadata"));
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(10_000)
                .with_rebalance_timeout_ms(if version == 0 { -1 } else { 10_000 })
                .with_member_id(text("member"))
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            frame(key, version, &request)
        }
        ApiKey::SyncGroup => {
            let given = sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(text("member"))
                .with_assignment(Bytes::from_static(b"share"));
            let request = SyncGroupRequest::default().with_group_id(group()).with_member_id(text("member"));
            frame(key, version, &request.with_assignments(vec![given]))
        }
        ApiKey::Heartbeat => {
            frame(key, version, &HeartbeatRequest::default().with_group_id(group()).with_member_id(text("member")))
        }
        ApiKey::LeaveGroup => {
            frame(key, version, &LeaveGroupRequest::default().with_group_id(group()).with_member_id(text("member")))
        }
        ApiKey::DescribeGroups => {
            frame(key, version, &DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("none"))]))
        }
        ApiKey::ListGroups => {
            let mut request = ListGroupsRequest::default();
            if version >= 4 {
                request.states_filter = vec![text("Empty"), text("Stable")];
            }
            if version >= 5 {
                request.types_filter = vec![text("classic")];
            }
            frame(key, version, &request)
        }
        ApiKey::DeleteGroups => {
            frame(key, version, &DeleteGroupsRequest::default().with_groups_names(vec![group(), GroupId(text("none"))]))
        }
        ApiKey::SaslHandshake => frame(key, version, &SaslHandshakeRequest::default().with_mechanism(text("PLAIN"))),
        ApiKey::SaslAuthenticate => {
            frame(key, version, &SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0u\0p")))
        }
        ApiKey::ApiVersions => {
            let mut request = ApiVersionsRequest::default();
            if version >= 3 {
                request = request.with_client_software_name(text("c")).with_client_software_version(text("1"));
            }
            frame(key, version, &request)
        }
        other => panic!("{other:?} has no sample: write one"),
    }
}

/// With its length in front, as a connection carries it.
pub(crate) fn with_length(frame: &[u8]) -> Bytes {
    let mut whole = BytesMut::new();
    whole.put_i32(i32::try_from(frame.len()).unwrap());
    whole.put_slice(frame);
    whole.freeze()
}

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, CreateTopicsResponse, FindCoordinatorResponse, MetadataResponse, OffsetCommitResponse,
    OffsetFetchResponse, ProduceResponse, SaslAuthenticateResponse, SaslHandshakeResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::super::shape::BadShape;
use super::*;

const ENOUGH: usize = 100;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name() -> TopicName {
    TopicName(text("traces"))
}

/// What the library writes passes, and nothing that is cut off does, nor anything longer.
fn passes<R: Answered>(versions: RangeInclusive<i16>, of: impl Fn(i16) -> R::Response)
where
    R::Response: Encodable,
{
    for version in versions {
        let mut body = BytesMut::new();
        of(version).encode(&mut body, version).unwrap();
        assert_eq!(R::ANSWER.check(version, &body, ENOUGH), Ok(()), "{} {version}", R::KEY);
        for length in 0..body.len() {
            let cut = R::ANSWER.check(version, &body[..length], ENOUGH);
            assert_eq!(cut, Err(BadShape::CutOff), "{} {version}: {length} bytes", R::KEY);
        }
        body.extend_from_slice(&[0]);
        assert_eq!(R::ANSWER.check(version, &body, ENOUGH), Err(BadShape::Left(1)), "{} {version}", R::KEY);
    }
}

#[test]
fn what_brokers_answer_passes_in_every_version_that_is_asked_for_and_nothing_shorter_or_longer() {
    passes::<ApiVersionsRequest>(0..=0, |_| {
        ApiVersionsResponse::default().with_api_keys(vec![ApiVersion::default(), ApiVersion::default()])
    });
    passes::<SaslHandshakeRequest>(1..=1, |_| {
        SaslHandshakeResponse::default().with_mechanisms(vec![text("PLAIN"), text("SCRAM-SHA-256")])
    });
    passes::<SaslAuthenticateRequest>(0..=1, |_| {
        let answer = SaslAuthenticateResponse::default().with_error_message(Some(text("no")));
        answer.with_auth_bytes(Bytes::from_static(b"token"))
    });
    passes::<MetadataRequest>(4..=12, |_| {
        let partition = MetadataResponsePartition::default()
            .with_replica_nodes(vec![1.into(), 2.into()])
            .with_isr_nodes(vec![1.into()])
            .with_offline_replicas(vec![2.into()]);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(name()))
            .with_partitions(vec![partition, MetadataResponsePartition::default()]);
        let broker = MetadataResponseBroker::default().with_host(text("kafka")).with_rack(Some(text("a")));
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(text("cluster")))
            .with_topics(vec![topic])
    });
    passes::<CreateTopicsRequest>(4..=6, |version| {
        let configs = vec![CreatableTopicConfigs::default().with_name(text("a")).with_value(Some(text("b")))];
        let topic = CreatableTopicResult::default().with_name(name()).with_error_message(Some(text("no")));
        let topic = if version < 5 { topic } else { topic.with_configs(Some(configs)) };
        CreateTopicsResponse::default().with_topics(vec![topic])
    });
    passes::<ProduceRequest>(3..=9, |version| {
        let partition = PartitionProduceResponse::default();
        let refused = BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some(text("no")));
        let partition = match version {
            ..8 => partition,
            _ => partition.with_record_errors(vec![refused]).with_error_message(Some(text("no"))),
        };
        let topic = TopicProduceResponse::default().with_name(name()).with_partition_responses(vec![partition]);
        ProduceResponse::default().with_responses(vec![topic])
    });
    passes::<FindCoordinatorRequest>(1..=3, |_| {
        FindCoordinatorResponse::default().with_error_message(Some(text("no"))).with_host(text("kafka"))
    });
    passes::<OffsetFetchRequest>(2..=7, |_| {
        let partition = OffsetFetchResponsePartition::default().with_metadata(Some(text("m")));
        let topic = OffsetFetchResponseTopic::default().with_name(name()).with_partitions(vec![partition]);
        OffsetFetchResponse::default().with_topics(vec![topic])
    });
    passes::<OffsetCommitRequest>(2..=8, |_| {
        let partitions = vec![OffsetCommitResponsePartition::default()];
        let topic = OffsetCommitResponseTopic::default().with_name(name()).with_partitions(partitions);
        OffsetCommitResponse::default().with_topics(vec![topic])
    });
}

#[test]
fn an_array_that_claims_more_than_there_is_is_refused_before_anything_is_allocated() {
    let claim = |count: i32| [&[0, 0][..], &count.to_be_bytes()].concat();
    let check = |body: &[u8]| ApiVersionsRequest::ANSWER.check(0, body, ENOUGH);
    assert_eq!(check(&claim(i32::MAX)), Err(BadShape::TooManyElements(ENOUGH)));
    assert_eq!(check(&claim(99)), Err(BadShape::CutOff));
    assert_eq!(check(&claim(-2)), Err(BadShape::NegativeLength));
    assert_eq!(check(&claim(0)), Ok(()));
}

//! Every request in every version gets an answer in the form of that version.

use bytes::{Buf as _, Bytes};
use kafka_protocol::messages::{self, ApiKey, ApiVersionsRequest, ApiVersionsResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable as _, Message as _};

use super::raw::Raw;
use crate::batch::tests::batch;
use crate::request::{APIS, samples};
use crate::{DevBroker, Options, code};

#[tokio::test(flavor = "multi_thread")]
async fn every_request_in_every_version_is_answered_in_its_form() {
    let mut options = Options::in_memory().topic("topic", 2);
    options.sasl_plain = Some(("u".to_owned(), "p".to_owned()));
    let broker = DevBroker::start(options).await.unwrap();
    let id = broker.broker().topics.get("topic").unwrap().id;
    let mut client = Raw::to(&broker).await;
    let batch = Bytes::from(batch(&[1]));
    let (early, others): (Vec<_>, Vec<_>) =
        samples::all(id, &batch).into_iter().partition(|sample| sample.key as i16 == 17 || sample.key as i16 == 36);
    for sample in early.into_iter().chain(others) {
        client.send(&samples::with_length(&sample.frame)).await;
        let (key, version) = (sample.key, sample.version);
        let mut answer = client.receive().await.unwrap_or_else(|| panic!("{key:?} {version}: no answer"));
        let header = ResponseHeader::decode(&mut answer, key.response_header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 7);
        let form = decode(key, &mut answer, version);
        assert!(form.is_ok(), "{key:?} {version}: {form:?}");
        assert!(!answer.has_remaining(), "{key:?} {version}: bytes follow the answer");
    }
    broker.stop().await;
}

/// Reads an answer, or says why it cannot be read.
fn decode(key: ApiKey, answer: &mut Bytes, version: i16) -> Result<(), String> {
    macro_rules! by_key {
        ($($key:ident => $response:ident),* $(,)?) => {
            match key {
                $(ApiKey::$key => messages::$response::decode(answer, version).map(|_| ()),)*
                other => panic!("{other:?} is taken and its answer not read here"),
            }
        };
    }
    let read = by_key!(
        Produce => ProduceResponse,
        Fetch => FetchResponse,
        ListOffsets => ListOffsetsResponse,
        Metadata => MetadataResponse,
        OffsetCommit => OffsetCommitResponse,
        OffsetFetch => OffsetFetchResponse,
        FindCoordinator => FindCoordinatorResponse,
        JoinGroup => JoinGroupResponse,
        Heartbeat => HeartbeatResponse,
        LeaveGroup => LeaveGroupResponse,
        SyncGroup => SyncGroupResponse,
        DescribeGroups => DescribeGroupsResponse,
        ListGroups => ListGroupsResponse,
        SaslHandshake => SaslHandshakeResponse,
        ApiVersions => ApiVersionsResponse,
        CreateTopics => CreateTopicsResponse,
        DeleteTopics => DeleteTopicsResponse,
        DeleteRecords => DeleteRecordsResponse,
        InitProducerId => InitProducerIdResponse,
        DescribeConfigs => DescribeConfigsResponse,
        SaslAuthenticate => SaslAuthenticateResponse,
        CreatePartitions => CreatePartitionsResponse,
        DeleteGroups => DeleteGroupsResponse,
    );
    read.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_from_the_future_are_answered_with_those_of_today() {
    let broker = DevBroker::start(Options::in_memory()).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let (frame, _) = samples::frame(ApiKey::ApiVersions, 3, &ApiVersionsRequest::default());
    let mut frame = frame.to_vec();
    frame[2..4].copy_from_slice(&9_i16.to_be_bytes());
    client.send(&samples::with_length(&frame)).await;
    let mut answer = client.receive().await.unwrap();
    assert_eq!(answer.get_i32(), 7);
    let answer = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!(answer.error_code, code::UNSUPPORTED_VERSION);
    assert_eq!(answer.api_keys.len(), APIS.len());
    // The connection goes on in a version that both know.
    let newest = ApiVersionsResponse::VERSIONS.max;
    assert_eq!(client.ask(newest, &ApiVersionsRequest::default()).await.error_code, code::NONE);
    broker.stop().await;
}

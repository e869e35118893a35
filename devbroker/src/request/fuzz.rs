//! Fuzzing of requests and batches: anything that a client may send.

use kafka_protocol::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest,
    HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest,
};
use uuid::Uuid;
use vivace_fuzzkit::{Campaign, likeness};

use super::*;
use crate::batch::{self, lookup};

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// What the connection does with a frame, up to the handler.
fn decode(mut request: Request) -> Result<(), BadRequest> {
    match request.head.key {
        ApiKey::Produce => request.decode::<ProduceRequest>().map(|_| ()),
        ApiKey::Fetch => request.decode::<FetchRequest>().map(|_| ()),
        ApiKey::ListOffsets => request.decode::<ListOffsetsRequest>().map(|_| ()),
        ApiKey::Metadata => request.decode::<MetadataRequest>().map(|_| ()),
        ApiKey::OffsetCommit => request.decode::<OffsetCommitRequest>().map(|_| ()),
        ApiKey::OffsetFetch => request.decode::<OffsetFetchRequest>().map(|_| ()),
        ApiKey::FindCoordinator => request.decode::<FindCoordinatorRequest>().map(|_| ()),
        ApiKey::JoinGroup => request.decode::<JoinGroupRequest>().map(|_| ()),
        ApiKey::Heartbeat => request.decode::<HeartbeatRequest>().map(|_| ()),
        ApiKey::LeaveGroup => request.decode::<LeaveGroupRequest>().map(|_| ()),
        ApiKey::SyncGroup => request.decode::<SyncGroupRequest>().map(|_| ()),
        ApiKey::DescribeGroups => request.decode::<DescribeGroupsRequest>().map(|_| ()),
        ApiKey::ListGroups => request.decode::<ListGroupsRequest>().map(|_| ()),
        ApiKey::SaslHandshake => request.decode::<SaslHandshakeRequest>().map(|_| ()),
        ApiKey::ApiVersions => request.decode::<ApiVersionsRequest>().map(|_| ()),
        ApiKey::CreateTopics => request.decode::<CreateTopicsRequest>().map(|_| ()),
        ApiKey::DeleteTopics => request.decode::<DeleteTopicsRequest>().map(|_| ()),
        ApiKey::DeleteRecords => request.decode::<DeleteRecordsRequest>().map(|_| ()),
        ApiKey::InitProducerId => request.decode::<InitProducerIdRequest>().map(|_| ()),
        ApiKey::DescribeConfigs => request.decode::<DescribeConfigsRequest>().map(|_| ()),
        ApiKey::SaslAuthenticate => request.decode::<SaslAuthenticateRequest>().map(|_| ()),
        ApiKey::CreatePartitions => request.decode::<CreatePartitionsRequest>().map(|_| ()),
        ApiKey::DeleteGroups => request.decode::<DeleteGroupsRequest>().map(|_| ()),
        other => panic!("{other:?} is taken and not decoded here"),
    }
}

/// A number in letters.
fn letters(number: i16) -> String {
    number.to_string().bytes().map(|digit| char::from(digit + (b'a' - b'0'))).collect()
}

#[test]
fn a_request_from_anywhere_is_decoded_or_refused() {
    let batch = Bytes::from(batch::tests::batch(&[1, 2]));
    let mut campaign = Campaign::new(PACKAGE, "request").runs(1_000_000);
    for sample in samples::all(Uuid::from_u128(7), &batch) {
        campaign = campaign.seed_input(sample.frame.to_vec());
    }
    campaign.run(|input| {
        let request = match Request::read(Bytes::copy_from_slice(input)) {
            Ok(request) if request.is_from_the_future() => return likeness("from the future"),
            Ok(request) => request,
            Err(reason) => return likeness(&reason.to_string()),
        };
        let kind = (request.head.key as i16, request.head.version);
        // Likeness looks at words alone, and here the numbers tell kinds of requests apart.
        let of_kind = |what: &str| likeness(&format!("{} {} {what}", letters(kind.0), letters(kind.1)));
        match decode(request) {
            Ok(()) => of_kind("decoded"),
            // The library must not find lengths wrong that its table let through. Tagged fields at the end of a Fetch are
            // the exception: see the tables.
            Err(BadRequest::Content { reason, .. }) => {
                let agree = !reason.contains("Not enough bytes") || matches!(kind, (1, 12..));
                assert!(agree, "{kind:?}: the table and the library disagree: {reason}");
                of_kind(&reason)
            }
            Err(other) => of_kind(&other.to_string()),
        }
    });
}

#[test]
fn a_batch_from_anywhere_is_taken_or_refused() {
    let mut campaign = Campaign::new(PACKAGE, "batch").runs(1_000_000);
    for times in [&[1_i64][..], &[1, 2, 3], &[5, 1, 900_000_000_000]] {
        campaign = campaign.seed_input(batch::tests::batch(times));
    }
    campaign.run(|input| {
        let mut sealed = input.to_vec();
        // Right length and checksum, so that the input reaches what is behind them.
        if sealed.len() >= batch::HEAD_BYTES {
            batch::tests::seal(&mut sealed);
        }
        assert!(batch::Head::check(input).is_ok() <= batch::Head::check(&sealed).is_ok());
        match batch::Head::check(&sealed) {
            Ok(head) => {
                assert!(head.last_sequence() >= 0 || head.base_sequence < 0);
                for at_ms in [i64::MIN, 0, head.max_timestamp_ms] {
                    let found = lookup::first_at_or_after(&sealed, &head, at_ms);
                    assert!(found.offset_delta <= head.last_offset_delta);
                }
                likeness(&format!("batch of codec {}", letters(head.codec())))
            }
            Err(reason) => likeness(&reason.to_string()),
        }
    });
}

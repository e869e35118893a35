//! Consumer groups over the wire: membership and committed offsets.

use bytes::Bytes;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, join_group_request,
    offset_commit_request, offset_fetch_request, sync_group_request,
};
use kafka_protocol::protocol::StrBytes;

use super::raw::{Raw, text};
use crate::{Action, DevBroker, Fault, Options, code};

fn group() -> GroupId {
    GroupId(text("g"))
}

fn join(member_id: &StrBytes, protocol: &'static str) -> JoinGroupRequest {
    let protocol = join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text(protocol))
        .with_metadata(Bytes::from(format!("topics of {member_id}")));
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(member_id.clone())
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Asks for an id and joins with it, without waiting for the answer.
async fn come(client: &mut Raw) -> StrBytes {
    let refused = client.ask(4, &join(&text(""), "range")).await;
    assert_eq!(refused.error_code, code::MEMBER_ID_REQUIRED);
    client.tell(4, &join(&refused.member_id, "range")).await;
    refused.member_id
}

async fn joined(client: &mut Raw) -> JoinGroupResponse {
    let answer = client.hear::<JoinGroupRequest>(4).await.unwrap();
    assert_eq!(answer.error_code, code::NONE);
    answer
}

fn sync(member_id: &StrBytes, generation: i32, shares: &[(&StrBytes, &'static [u8])]) -> SyncGroupRequest {
    let shares = shares.iter().map(|(member, share)| {
        sync_group_request::SyncGroupRequestAssignment::default()
            .with_member_id((*member).clone())
            .with_assignment(Bytes::from_static(share))
    });
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(member_id.clone())
        .with_assignments(shares.collect())
}

async fn heartbeat(client: &mut Raw, member_id: &StrBytes, generation: i32) -> i16 {
    let request = HeartbeatRequest::default().with_group_id(group()).with_generation_id(generation);
    client.ask(2, &request.with_member_id(member_id.clone())).await.error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_together_share_out_and_go() {
    let broker = DevBroker::start(Options::in_memory()).await.unwrap();
    let (mut a, mut b) = (Raw::to(&broker).await, Raw::to(&broker).await);
    let a_id = come(&mut a).await;
    let alone = joined(&mut a).await;
    assert_eq!((alone.generation_id, &alone.leader), (1, &a_id));
    assert_eq!(a.ask(2, &sync(&a_id, 1, &[(&a_id, b"all")])).await.assignment, "all");

    let b_id = come(&mut b).await;
    // `a` learns of it by its heartbeat; it may have sent it before `b` was read.
    while heartbeat(&mut a, &a_id, 1).await == code::NONE {}
    a.tell(4, &join(&a_id, "range")).await;
    let (at_a, at_b) = (joined(&mut a).await, joined(&mut b).await);
    assert_eq!((at_a.generation_id, at_b.generation_id, at_b.members.len()), (2, 2, 0));
    let mut members: Vec<_> = at_a.members.iter().map(|member| member.member_id.clone()).collect();
    members.sort();
    let mut expected = vec![a_id.clone(), b_id.clone()];
    expected.sort();
    assert_eq!(members, expected);
    assert!(at_a.members.iter().all(|member| member.metadata == format!("topics of {}", member.member_id)));

    b.tell(2, &sync(&b_id, 2, &[])).await;
    assert_eq!(a.ask(2, &sync(&a_id, 2, &[(&a_id, b"0"), (&b_id, b"1")])).await.assignment, "0");
    assert_eq!(b.hear::<SyncGroupRequest>(2).await.unwrap().assignment, "1");

    let described = a.ask(5, &DescribeGroupsRequest::default().with_groups(vec![group()])).await;
    let described = &described.groups[0];
    assert_eq!((described.group_state.as_str(), described.protocol_data.as_str()), ("Stable", "range"));
    assert!(described.members.iter().all(|member| member.client_id.as_str() == "sample"));
    assert_eq!(described.members.len(), 2);

    let leave = LeaveGroupRequest::default().with_group_id(group());
    assert_eq!(b.ask(1, &leave.clone().with_member_id(b_id.clone())).await.error_code, code::NONE);
    assert_eq!(heartbeat(&mut b, &b_id, 2).await, code::UNKNOWN_MEMBER_ID);
    assert_eq!(heartbeat(&mut a, &a_id, 2).await, code::REBALANCE_IN_PROGRESS);
    assert_eq!(a.ask(1, &leave.with_member_id(a_id)).await.error_code, code::NONE);
    let listed = a.ask(4, &ListGroupsRequest::default().with_states_filter(vec![text("Stable")])).await;
    assert!(listed.groups.is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_nonsense_is_refused() {
    let broker = DevBroker::start(Options::in_memory()).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let empty = text("");
    for (request, code) in [
        (join(&empty, "range").with_session_timeout_ms(0), code::INVALID_SESSION_TIMEOUT),
        (join(&empty, "range").with_group_id(GroupId(text(""))), code::INVALID_GROUP_ID),
        (join(&text("made up"), "range"), code::UNKNOWN_MEMBER_ID),
        (join(&empty, "range").with_protocols(Vec::new()), code::INCONSISTENT_GROUP_PROTOCOL),
    ] {
        assert_eq!(client.ask(3, &request).await.error_code, code);
    }
    broker.faults().add(Fault::of(11, Action::Error { code: 15 }).times(1)).unwrap();
    assert_eq!(client.ask(3, &join(&empty, "range")).await.error_code, 15);
    broker.stop().await;
}

pub(super) fn commit(topic: &'static str, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition = offset_commit_request::OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("remark")));
    let asked = offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(text(topic).into())
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![asked])
}

/// What is committed for a partition, by the newest version; -1 is nothing.
pub(super) async fn committed(client: &mut Raw, topic: &'static str, partition: i32) -> (i64, String) {
    let asked = offset_fetch_request::OffsetFetchRequestTopics::default()
        .with_name(text(topic).into())
        .with_partition_indexes(vec![partition]);
    let asked =
        offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![asked]));
    let answer = client.ask(9, &OffsetFetchRequest::default().with_groups(vec![asked])).await;
    let found = &answer.groups[0].topics[0].partitions[0];
    (found.committed_offset, found.metadata.as_ref().map(ToString::to_string).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_kept_for_whoever_has_no_members() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 2)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    assert_eq!(committed(&mut client, "t", 1).await, (-1, String::new()));
    for version in 2..=9 {
        let answer = client.ask(version, &commit("t", 1, i64::from(version))).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, code::NONE);
        assert_eq!(committed(&mut client, "t", 1).await, (i64::from(version), "remark".to_owned()));
    }
    for (topic, partition) in [("t", 2), ("none", 0)] {
        let answer = client.ask(8, &commit(topic, partition, 1)).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let mut long = commit("t", 0, 1);
    long.topics[0].partitions[0].committed_metadata = Some(StrBytes::from_string("x".repeat(5000)));
    let answer = client.ask(8, &long).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, code::OFFSET_METADATA_TOO_LARGE);
    // Null asks for everything there is.
    let everything = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
    let answer = client.ask(7, &everything).await;
    assert_eq!(answer.topics.len(), 1);
    assert_eq!(answer.topics[0].partitions[0].committed_offset, 9);

    // A member of the group now owns its offsets.
    let mut member = Raw::to(&broker).await;
    let id = come(&mut member).await;
    joined(&mut member).await;
    let refused = client.ask(8, &commit("t", 1, 1)).await;
    assert_eq!(refused.topics[0].partitions[0].error_code, code::UNKNOWN_MEMBER_ID);
    member.ask(2, &sync(&id, 1, &[])).await;
    let own = commit("t", 1, 10).with_generation_id_or_member_epoch(1).with_member_id(id);
    assert_eq!(member.ask(6, &own).await.topics[0].partitions[0].error_code, code::NONE);
    assert_eq!(committed(&mut client, "t", 1).await.0, 10);
    broker.stop().await;
}

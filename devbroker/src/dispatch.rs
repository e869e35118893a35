//! From a request to its handler and back, with the faults around it.

use std::net::SocketAddr;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest,
};

use crate::api::sasl::Trust;
use crate::api::{
    api_versions, configs, coordinator, fetch, group_members, group_offsets, groups, list_offsets, metadata, produce,
    producer_ids, sasl, topics,
};
use crate::broker::{Broker, Call};
use crate::faults::Plan;
use crate::request::{BadRequest, Request, encode};

/// What the connection has to do.
pub(crate) enum Outcome {
    Answer(Bytes),
    /// The client wants no answer.
    Silence,
    /// A fault: never answer again.
    Hang,
    /// A fault: close.
    Cut,
}

/// Decodes a request, has it answered and encodes the answer, with the faults around it. What it touches is asked for only
/// when there are faults.
macro_rules! carry_out {
    ($call:ident, $request:ident, |$decoded:ident: $type:ty| $answer:expr) => {
        carry_out!($call, $request, |$decoded: $type| touching Vec::new(), $answer)
    };
    ($call:ident, $request:ident, |$decoded:ident: $type:ty| touching $places:expr, $answer:expr) => {{
        let $decoded: $type = $request.decode()?;
        let plan = plan($call, || $places);
        if let Some(outcome) = before($call, plan).await {
            return Ok(outcome);
        }
        let mut answer = $answer;
        if plan.throttle_ms != 0 {
            answer.throttle_time_ms = plan.throttle_ms;
        }
        Ok(after(plan, encode(&$request.head, &answer)?))
    }};
}

pub(crate) async fn dispatch(
    broker: &Broker,
    (local, peer): (SocketAddr, SocketAddr),
    trust: &mut Trust,
    mut request: Request,
) -> Result<Outcome, BadRequest> {
    let head = request.head.clone();
    let call = Call { broker, key: head.key as i16, version: head.version, client_id: &head.client_id, local, peer };
    tracing::trace!(key = call.key, version = call.version, client = call.client_id, %peer, "take request");
    match head.key {
        ApiKey::ApiVersions if request.is_from_the_future() => {
            let plan = plan(call, Vec::new);
            if let Some(outcome) = before(call, plan).await {
                return Ok(outcome);
            }
            Ok(after(plan, encode(&head, &api_versions::handle(true))?))
        }
        ApiKey::ApiVersions => carry_out!(call, request, |_r: ApiVersionsRequest| api_versions::handle(false)),
        ApiKey::SaslHandshake => {
            let decoded: SaslHandshakeRequest = request.decode()?;
            Ok(Outcome::Answer(encode(&head, &sasl::handshake(broker, trust, &decoded))?))
        }
        ApiKey::SaslAuthenticate => {
            let decoded: SaslAuthenticateRequest = request.decode()?;
            Ok(Outcome::Answer(encode(&head, &sasl::authenticate(broker, trust, &decoded))?))
        }
        ApiKey::Produce => produce(call, request).await,
        ApiKey::Fetch => carry_out!(
            call,
            request,
            |r: FetchRequest| touching fetch::places(call, &r),
            fetch::handle(call, r).await
        ),
        ApiKey::ListOffsets => carry_out!(
            call,
            request,
            |r: ListOffsetsRequest| touching list_offsets::places(&r),
            list_offsets::handle(call, r).await
        ),
        ApiKey::Metadata => carry_out!(call, request, |r: MetadataRequest| metadata::handle(call, r).await),
        ApiKey::CreateTopics => carry_out!(call, request, |r: CreateTopicsRequest| topics::create(call, r).await),
        ApiKey::CreatePartitions => carry_out!(call, request, |r: CreatePartitionsRequest| topics::grow(call, r).await),
        ApiKey::DeleteTopics => carry_out!(call, request, |r: DeleteTopicsRequest| topics::delete(call, r).await),
        ApiKey::DeleteRecords => carry_out!(
            call,
            request,
            |r: DeleteRecordsRequest| touching topics::places(&r),
            topics::delete_records(call, r).await
        ),
        ApiKey::DescribeConfigs => carry_out!(call, request, |r: DescribeConfigsRequest| configs::handle(call, r)),
        ApiKey::InitProducerId => {
            carry_out!(call, request, |r: InitProducerIdRequest| producer_ids::handle(call, r).await)
        }
        _ => groups_and_offsets(call, request).await,
    }
}

async fn produce(call: Call<'_>, mut request: Request) -> Result<Outcome, BadRequest> {
    let mut silent = false;
    let mut failed = false;
    let answered = async {
        carry_out!(call, request, |r: ProduceRequest| touching produce::places(call, &r), {
            silent = r.acks == 0;
            let answer = produce::handle(call, r).await;
            failed = answer.responses.iter().flat_map(|topic| &topic.partition_responses).any(|p| p.error_code != 0);
            answer
        })
    };
    match answered.await? {
        // There is no answer to put an error into: the client learns of it by the end of the connection.
        Outcome::Answer(_) if silent && failed => Ok(Outcome::Cut),
        Outcome::Answer(_) if silent => Ok(Outcome::Silence),
        other => Ok(other),
    }
}

async fn groups_and_offsets(call: Call<'_>, mut request: Request) -> Result<Outcome, BadRequest> {
    match request.head.key {
        ApiKey::FindCoordinator => {
            carry_out!(call, request, |r: FindCoordinatorRequest| coordinator::handle(call, r))
        }
        ApiKey::OffsetCommit => carry_out!(
            call,
            request,
            |r: OffsetCommitRequest| touching group_offsets::places(&r),
            group_offsets::commit(call, r).await
        ),
        ApiKey::OffsetFetch => carry_out!(call, request, |r: OffsetFetchRequest| group_offsets::fetch(call, r)),
        ApiKey::JoinGroup => carry_out!(call, request, |r: JoinGroupRequest| group_members::join(call, r).await),
        ApiKey::SyncGroup => carry_out!(call, request, |r: SyncGroupRequest| group_members::sync(call, r).await),
        ApiKey::Heartbeat => carry_out!(call, request, |r: HeartbeatRequest| group_members::heartbeat(call, &r)),
        ApiKey::LeaveGroup => carry_out!(call, request, |r: LeaveGroupRequest| group_members::leave(call, &r)),
        ApiKey::ListGroups => carry_out!(call, request, |r: ListGroupsRequest| groups::list(call, &r)),
        ApiKey::DescribeGroups => carry_out!(call, request, |r: DescribeGroupsRequest| groups::describe(call, r)),
        ApiKey::DeleteGroups => carry_out!(call, request, |r: DeleteGroupsRequest| groups::delete(call, r).await),
        // The table of requests has no other, and what is not in it was refused when it was read.
        other => Err(BadRequest::Api(other as i16)),
    }
}

fn plan(call: Call<'_>, places: impl FnOnce() -> Vec<(String, i32)>) -> Plan {
    if call.broker.faults.any() { call.broker.faults.plan(call.key, &places()) } else { Plan::default() }
}

/// The faults before a request; an outcome is in place of carrying it out.
async fn before(call: Call<'_>, plan: Plan) -> Option<Outcome> {
    if !plan.slow.is_zero() {
        call.broker.clock.sleep(plan.slow).await;
    }
    match plan {
        Plan { cut_before: true, .. } => Some(Outcome::Cut),
        Plan { hang: true, .. } => Some(Outcome::Hang),
        _ => None,
    }
}

/// The faults behind it.
fn after(plan: Plan, answer: Bytes) -> Outcome {
    if plan.cut_after { Outcome::Cut } else { Outcome::Answer(answer) }
}

//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup: a member waits here until its group has come to an answer.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};

use crate::api::text;
use crate::broker::Call;
use crate::code::{self, Code};
use crate::group::{Join, Joined};
use crate::groups::GroupCell;

/// Versions from here on make a new member ask twice, so that a client that gives up leaves nobody behind.
const ASK_TWICE_FROM: i16 = 4;
const LONGEST_SESSION: Duration = Duration::from_secs(30 * 60);

pub(crate) async fn join(call: Call<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let asked = request.member_id.to_string();
    match try_join(call, request).await {
        Ok((member_id, joined)) => {
            let members = joined.members.into_iter().map(|(id, metadata)| {
                JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata)
            });
            JoinGroupResponse::default()
                .with_generation_id(joined.generation)
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_member_id(text(member_id))
                .with_members(members.collect())
        }
        Err(refused) => JoinGroupResponse::default()
            .with_error_code(refused.code)
            .with_generation_id(-1)
            .with_protocol_name(Some(text("")))
            .with_member_id(text(refused.member_id.unwrap_or(asked))),
    }
}

struct NotJoined {
    code: Code,
    /// To ask again with.
    member_id: Option<String>,
}

impl From<Code> for NotJoined {
    fn from(code: Code) -> Self {
        Self { code, member_id: None }
    }
}

async fn try_join(call: Call<'_>, request: JoinGroupRequest) -> Result<(String, Joined), NotJoined> {
    if let Some(code) = call.broker.faults.error(call.key, None) {
        return Err(code.into());
    }
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let session = millis(request.session_timeout_ms);
    if session.is_zero() || session > LONGEST_SESSION {
        return Err(code::INVALID_SESSION_TIMEOUT.into());
    }
    let rebalance = if call.version == 0 { session } else { millis(request.rebalance_timeout_ms).min(LONGEST_SESSION) };
    let cell = call.broker.groups.get_or_new(&request.group_id)?;
    let mut member_id = request.member_id.to_string();
    let now = call.broker.clock.now();
    if member_id.is_empty() {
        member_id = call.broker.groups.new_member_id(call.client_id);
        cell.group.lock().promise(member_id.clone(), now, session)?;
        if call.version >= ASK_TWICE_FROM {
            return Err(NotJoined { code: code::MEMBER_ID_REQUIRED, member_id: Some(member_id) });
        }
    }
    let protocols = request.protocols.into_iter().map(|protocol| (protocol.name.to_string(), protocol.metadata));
    let join = Join {
        member_id: member_id.clone(),
        client_id: call.client_id.to_owned(),
        client_host: format!("/{}", call.peer.ip()),
        session,
        rebalance,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
    };
    let mut changed = cell.changed.subscribe();
    cell.group.lock().join(join, now)?;
    cell.wake();
    loop {
        changed.mark_unchanged();
        let joined = cell.group.lock().joined(&member_id)?;
        if let Some(joined) = joined {
            return Ok((member_id, joined));
        }
        wait(&mut changed).await;
    }
}

pub(crate) async fn sync(call: Call<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    match try_sync(call, request).await {
        Ok(assignment) => SyncGroupResponse::default().with_assignment(assignment),
        Err(code) => SyncGroupResponse::default().with_error_code(code),
    }
}

async fn try_sync(call: Call<'_>, request: SyncGroupRequest) -> Result<Bytes, Code> {
    let cell = find(call, &request.group_id)?;
    let (member, generation) = (request.member_id, request.generation_id);
    let assignments = request.assignments.into_iter().map(|given| (given.member_id.to_string(), given.assignment));
    let mut changed = cell.changed.subscribe();
    cell.group.lock().sync(&member, generation, assignments.collect(), call.broker.clock.now())?;
    cell.wake();
    loop {
        changed.mark_unchanged();
        let synced = cell.group.lock().synced(&member, generation)?;
        if let Some(assignment) = synced {
            return Ok(assignment);
        }
        wait(&mut changed).await;
    }
}

/// The sender lives as long as the group, which the caller holds.
async fn wait(changed: &mut tokio::sync::watch::Receiver<u64>) {
    changed.changed().await.ok();
}

pub(crate) fn heartbeat(call: Call<'_>, request: &HeartbeatRequest) -> HeartbeatResponse {
    let now = call.broker.clock.now();
    let beat = find(call, &request.group_id)
        .and_then(|cell| cell.group.lock().heartbeat(&request.member_id, request.generation_id, now));
    HeartbeatResponse::default().with_error_code(beat.err().unwrap_or(code::NONE))
}

pub(crate) fn leave(call: Call<'_>, request: &LeaveGroupRequest) -> LeaveGroupResponse {
    let now = call.broker.clock.now();
    let left = find(call, &request.group_id).and_then(|cell| {
        let left = cell.group.lock().leave(&request.member_id, now);
        cell.wake();
        left
    });
    LeaveGroupResponse::default().with_error_code(left.err().unwrap_or(code::NONE))
}

fn find(call: Call<'_>, id: &str) -> Result<std::sync::Arc<GroupCell>, Code> {
    if let Some(code) = call.broker.faults.error(call.key, None) {
        return Err(code);
    }
    call.broker.groups.get(id).ok_or(code::UNKNOWN_MEMBER_ID)
}

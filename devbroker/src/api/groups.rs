//! ListGroups, DescribeGroups, DeleteGroups.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};

use crate::api::text;
use crate::broker::Call;
use crate::code;

/// The one kind of group there is: that of JoinGroup.
const CLASSIC: &str = "classic";

pub(crate) fn list(call: Call<'_>, request: &ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let groups = call.broker.groups.list().into_iter().filter_map(|cell| {
        let group = cell.group.lock();
        let shown = wanted(&request.states_filter, group.state()) && wanted(&request.types_filter, CLASSIC);
        shown.then(|| {
            ListedGroup::default()
                .with_group_id(GroupId(text(cell.id.clone())))
                .with_protocol_type(text(group.protocol_type.clone()))
                .with_group_state(text(group.state()))
                .with_group_type(text(CLASSIC))
        })
    });
    let code = call.broker.faults.error(call.key, None).unwrap_or(code::NONE);
    ListGroupsResponse::default().with_error_code(code).with_groups(groups.collect())
}

pub(crate) fn describe(call: Call<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let fault = call.broker.faults.error(call.key, None);
    let groups = request.groups.into_iter().map(|id| {
        let described = DescribedGroup::default().with_group_id(id.clone());
        if let Some(code) = fault {
            return described.with_error_code(code);
        }
        let Some(cell) = call.broker.groups.get(&id) else { return described.with_group_state(text("Dead")) };
        let group = cell.group.lock();
        let members = group.members().map(|(id, member, metadata)| {
            DescribedGroupMember::default()
                .with_member_id(text(id.clone()))
                .with_client_id(text(member.client_id.clone()))
                .with_client_host(text(member.client_host.clone()))
                .with_member_metadata(metadata)
                .with_member_assignment(member.assignment.clone())
        });
        let members = members.collect();
        described
            .with_group_state(text(group.state()))
            .with_protocol_type(text(group.protocol_type.clone()))
            .with_protocol_data(text(if group.has_members() { group.protocol.clone() } else { String::new() }))
            .with_members(members)
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(crate) async fn delete(call: Call<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let deleted = call.broker.groups.delete(&id).await;
        let code = deleted.err().unwrap_or(code::NONE);
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}

//! FindCoordinator: this broker, for every group.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::text;
use crate::broker::{Call, NODE};
use crate::code;

const GROUP: i8 = 0;
/// Versions from here on ask for several at once.
const SEVERAL_FROM: i16 = 4;

pub(crate) fn handle(call: Call<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let error = match call.broker.faults.error(call.key, None) {
        Some(code) => Some((code, "a fault was asked for")),
        None if request.key_type != GROUP => {
            Some((code::INVALID_REQUEST, "there are no transactions here, only groups"))
        }
        None => None,
    };
    let (code, message) = match error {
        Some((code, message)) => (code, Some(StrBytes::from_static_str(message))),
        None => (code::NONE, None),
    };
    let (host, port) = call.advertised();
    let (node, host, port) =
        if code == code::NONE { (NODE, text(host), i32::from(port)) } else { (-1, StrBytes::new(), -1) };
    if call.version >= SEVERAL_FROM {
        let coordinators = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(node.into())
                .with_host(host.clone())
                .with_port(port)
                .with_error_code(code)
                .with_error_message(message.clone())
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    FindCoordinatorResponse::default()
        .with_error_code(code)
        .with_error_message(message)
        .with_node_id(node.into())
        .with_host(host)
        .with_port(port)
}

//! One file for each kind of request: what is asked, from the library's request to its response. No bytes of the connection here.

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

use crate::code::{self, Code};
use crate::replica::Refusal;

pub(crate) mod api_versions;
pub(crate) mod configs;
pub(crate) mod coordinator;
pub(crate) mod fetch;
pub(crate) mod group_members;
pub(crate) mod group_offsets;
pub(crate) mod groups;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod produce;
pub(crate) mod producer_ids;
pub(crate) mod sasl;
pub(crate) mod topics;

pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub(crate) fn topic_name(name: impl Into<String>) -> TopicName {
    TopicName(text(name))
}

/// An offset as the protocol writes it.
pub(crate) fn wire_offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// The code for an append or a read that failed.
pub(crate) fn code_of(refusal: &Refusal) -> Code {
    use vivace_log::Error as LogError;
    match refusal {
        Refusal::OutOfRange { .. } | Refusal::Log(LogError::OutOfRange { .. }) => code::OFFSET_OUT_OF_RANGE,
        Refusal::Fenced => code::INVALID_PRODUCER_EPOCH,
        Refusal::OutOfOrder => code::OUT_OF_ORDER_SEQUENCE_NUMBER,
        Refusal::Gone => code::UNKNOWN_TOPIC_OR_PARTITION,
        Refusal::Log(LogError::RecordTooLarge { .. }) => code::MESSAGE_TOO_LARGE,
        Refusal::Log(LogError::Overloaded { .. } | LogError::DeadlineExceeded) => code::REQUEST_TIMED_OUT,
        Refusal::Log(LogError::Closed) => code::NOT_LEADER_OR_FOLLOWER,
        Refusal::Log(_) => code::KAFKA_STORAGE_ERROR,
    }
}

/// An error with all its causes, for answers that have room for a message.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}

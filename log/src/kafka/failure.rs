//! What went wrong with one call to a broker, by what the wrapper must do about it.

use std::time::Duration;

use rskafka::BackoffError;
use rskafka::client::error::{Error as ClientError, ProtocolError};

use crate::error::Error;

/// Why one attempt failed. The text names the broker's or the network's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// No answer in time. The connection may hang: client and connection are thrown away. The call may have taken effect.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection could be made. The call did not take effect.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke. The call may have taken effect.
    #[error("{0}")]
    Broken(String),
    /// The broker asks to come back: no leader now, too few replicas. `unknown`: the call may have taken effect.
    #[error("{reason}")]
    Busy {
        /// The broker's words.
        reason: String,
        /// Whether the call may have taken effect.
        unknown: bool,
    },
    /// The asked offset is not held.
    #[error("the offset is out of range")]
    OutOfRange,
    /// The batch is larger than the broker takes.
    #[error("{0}")]
    TooLarge(String),
    /// For good, until an operator acts.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// A broker's error code.
    pub(crate) fn of_code(code: i16, message: Option<&str>) -> Self {
        match ProtocolError::new(code) {
            Some(error) => Self::of_protocol(error, message),
            None => Self::Refused("the broker answered neither with success nor with an error".to_owned()),
        }
    }

    fn of_protocol(error: ProtocolError, message: Option<&str>) -> Self {
        use ProtocolError as P;
        let reason = match message {
            Some(message) => format!("{error:?}: {message}"),
            None => format!("{error:?}"),
        };
        match error {
            P::OffsetOutOfRange => Self::OutOfRange,
            P::MessageTooLarge | P::RecordListTooLarge => {
                Self::TooLarge(format!("{reason} (message.max.bytes of the broker, max.message.bytes of the topic)"))
            }
            P::UnknownTopicOrPartition
            | P::LeaderNotAvailable
            | P::NotLeaderOrFollower
            | P::BrokerNotAvailable
            | P::ReplicaNotAvailable
            | P::NotEnoughReplicas
            | P::CoordinatorLoadInProgress
            | P::CoordinatorNotAvailable
            | P::NotCoordinator
            | P::NotController
            | P::FencedLeaderEpoch
            | P::UnknownLeaderEpoch
            | P::OffsetNotAvailable
            | P::PreferredLeaderNotAvailable
            | P::UnstableOffsetCommit
            | P::ThrottlingQuotaExceeded
            | P::RebalanceInProgress => Self::Busy { reason, unknown: false },
            P::NotEnoughReplicasAfterAppend
            | P::RequestTimedOut
            | P::NetworkException
            | P::KafkaStorageError
            | P::UnknownServerError => Self::Busy { reason, unknown: true },
            P::UnsupportedCompressionType => Self::Refused(format!(
                "{reason}: the topic holds batches compressed with zstd, which this client cannot fetch; let its producers use lz4 and \
                 set the topic's compression.type to producer"
            )),
            P::TopicAuthorizationFailed | P::GroupAuthorizationFailed | P::ClusterAuthorizationFailed => {
                Self::Refused(format!("{reason}: give this user the right, or set ingest.kafka.sasl_*"))
            }
            P::SaslAuthenticationFailed | P::UnsupportedSaslMechanism | P::IllegalSaslState => {
                Self::Refused(format!("{reason}: see ingest.kafka.sasl_*"))
            }
            P::UnknownMemberId | P::IllegalGeneration | P::FencedInstanceId => Self::Refused(format!(
                "{reason}: the consumer group has live members of another program; use a group of its own"
            )),
            _ => Self::Refused(reason),
        }
    }

    /// What rskafka reports. It is set up to try once, so a failed retry is the first failure.
    pub(crate) fn of_client(error: &ClientError) -> Self {
        match error {
            ClientError::ServerError { protocol_error, error_message, .. } => {
                Self::of_protocol(*protocol_error, error_message.as_deref())
            }
            ClientError::Connection(error) => Self::of_connection(error),
            ClientError::Request(error) => Self::of_text(error.to_string()),
            // No such partition, or a leader that the metadata does not name: both can change.
            ClientError::InvalidResponse(text) => Self::Busy { reason: text.clone(), unknown: true },
            ClientError::RetryFailed(BackoffError::DeadlineExceded { source, .. }) => {
                match source.downcast_ref::<ClientError>() {
                    Some(error) => Self::of_client(error),
                    None => Self::Broken(source.to_string()),
                }
            }
            other => Self::Broken(other.to_string()),
        }
    }

    fn of_connection(error: &rskafka::ConnectionError) -> Self {
        use rskafka::ConnectionError as C;
        match error {
            C::SaslFailed(error) => Self::Refused(format!("authentication failed: {error}; see ingest.kafka.sasl_*")),
            C::Metadata(error) => Self::of_text(error.to_string()),
            other => Self::Unreachable(other.to_string()),
        }
    }

    /// A request that could not be sent or an answer that could not be read.
    fn of_text(text: String) -> Self {
        Self::Broken(text)
    }

    /// Whether another attempt can help without anyone's help.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable(_) | Self::Broken(_) | Self::Busy { .. } => true,
            Self::OutOfRange | Self::TooLarge(_) | Self::Refused(_) => false,
        }
    }

    /// Whether the call may have taken effect all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Broken(_) => true,
            Self::Busy { unknown, .. } => *unknown,
            Self::Unreachable(_) | Self::OutOfRange | Self::TooLarge(_) | Self::Refused(_) => false,
        }
    }

    /// Whether the connection is of no use any more.
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Unreachable(_) | Self::Broken(_))
    }

    /// The value of the label `reason`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Busy { .. } => "busy",
            Self::OutOfRange => "out-of-range",
            Self::TooLarge(_) => "record-too-large",
            Self::Refused(_) => "refused",
        }
    }

    /// The error of the log for a call that is given up.
    pub(crate) fn into_error(self, action: &'static str) -> Error {
        if self.is_retryable() {
            Error::BrokerUnavailable { action, reason: self.to_string() }
        } else {
            Error::BrokerRefused { action, reason: self.to_string() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classed_by_what_to_do() {
        for (code, retryable, unknown) in [
            (6, true, false),
            (5, true, false),
            (19, true, false),
            (20, true, true),
            (7, true, true),
            (29, false, false),
        ] {
            let failure = Failure::of_code(code, None);
            assert_eq!((failure.is_retryable(), failure.is_unknown()), (retryable, unknown), "{failure:?}");
        }
        assert_eq!(Failure::of_code(1, None), Failure::OutOfRange);
        assert!(matches!(Failure::of_code(10, None), Failure::TooLarge(_)));
    }

    #[test]
    fn what_only_an_operator_can_mend_says_what_to_do() {
        let zstd = Failure::of_code(76, None).into_error("fetch records");
        assert!(!zstd.is_retryable());
        assert!(zstd.to_string().contains("let its producers use lz4"), "{zstd}");
        assert!(Failure::of_code(58, None).to_string().contains("ingest.kafka.sasl_"));
        assert!(Failure::of_code(25, None).to_string().contains("a group of its own"));
    }

    #[test]
    fn a_failed_retry_is_classed_by_its_cause() {
        let cause = ClientError::ServerError {
            protocol_error: ProtocolError::NotEnoughReplicas,
            error_message: None,
            request: rskafka::client::error::RequestContext::Topic("t".into()),
            response: None,
            is_virtual: false,
        };
        let failed = ClientError::RetryFailed(BackoffError::DeadlineExceded {
            deadline: Duration::ZERO,
            source: Box::new(cause),
        });
        assert!(matches!(Failure::of_client(&failed), Failure::Busy { unknown: false, .. }));
    }
}

//! The error that crosses component borders.
//!
//! Inside a module errors are as fine as they need to be. What another component or a client sees is one of the few [`Kind`]s,
//! named after what the caller must do, with its mapping to gRPC and HTTP here and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};

use crate::rpc_status;

/// What the caller must do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing happened and trying again can help: a peer is away, starting, or lagging.
    Retry,
    /// Nothing happened; try again later and slower. Usually carries a retry hint.
    SlowDown,
    /// A deadline passed. Whether the request took effect is unknown; only an idempotent request may simply be sent again.
    CheckOutcome,
    /// The request itself is wrong and stays wrong.
    FixRequest,
    /// Say who you are.
    Authenticate,
    /// You may not do this.
    AskPermission,
    /// It is not there, and the coverage was complete.
    NotFound,
    /// The state is not the one the request assumed: read it again, then decide.
    Reopen,
    /// The caller went away or is being stopped; nobody waits for an answer.
    GiveUp,
    /// This server does not do that.
    NotSupported,
    /// Stored or sent data is damaged; an operator must look.
    FixData,
    /// A broken invariant of ours; report it.
    Report,
}

impl Kind {
    /// The gRPC code. Distinct for every kind, so that a kind survives the wire.
    pub fn grpc_code(self) -> Code {
        match self {
            Self::Retry => Code::Unavailable,
            Self::SlowDown => Code::ResourceExhausted,
            Self::CheckOutcome => Code::DeadlineExceeded,
            Self::FixRequest => Code::InvalidArgument,
            Self::Authenticate => Code::Unauthenticated,
            Self::AskPermission => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Reopen => Code::Aborted,
            Self::GiveUp => Code::Cancelled,
            Self::NotSupported => Code::Unimplemented,
            Self::FixData => Code::DataLoss,
            Self::Report => Code::Internal,
        }
    }

    /// The kind behind a gRPC code, also for codes that we never send.
    pub fn from_grpc_code(code: Code) -> Self {
        match code {
            Code::Unavailable => Self::Retry,
            Code::ResourceExhausted => Self::SlowDown,
            Code::DeadlineExceeded => Self::CheckOutcome,
            Code::InvalidArgument | Code::OutOfRange => Self::FixRequest,
            Code::Unauthenticated => Self::Authenticate,
            Code::PermissionDenied => Self::AskPermission,
            Code::NotFound => Self::NotFound,
            Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => Self::Reopen,
            Code::Cancelled => Self::GiveUp,
            Code::Unimplemented => Self::NotSupported,
            Code::DataLoss => Self::FixData,
            Code::Ok | Code::Unknown | Code::Internal => Self::Report,
        }
    }

    /// The status of the query API and of everything else that is not OTLP.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Retry => 503,
            Self::SlowDown => 429,
            Self::CheckOutcome => 504,
            Self::FixRequest => 400,
            Self::Authenticate => 401,
            Self::AskPermission => 403,
            Self::NotFound => 404,
            Self::Reopen => 409,
            Self::GiveUp => 499,
            Self::NotSupported => 501,
            Self::FixData | Self::Report => 500,
        }
    }

    /// The status of OTLP over HTTP, which follows from the gRPC code.
    pub fn otlp_http_status(self) -> u16 {
        match self {
            Self::FixRequest => 400,
            Self::Authenticate => 401,
            Self::AskPermission => 403,
            Self::NotSupported => 404,
            Self::SlowDown => 429,
            Self::Retry | Self::CheckOutcome | Self::Reopen | Self::GiveUp | Self::FixData => 503,
            Self::NotFound | Self::Report => 500,
        }
    }
}

/// An error as other components and clients see it.
///
/// `Display` gives the message of this layer only; the cause is in `source()` and stays in this process.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without hint and cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    /// [`Kind::Retry`].
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Kind::Retry, message)
    }

    /// [`Kind::SlowDown`] with a hint when to come back.
    pub fn slow_down(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..Self::new(Kind::SlowDown, message) }
    }

    /// [`Kind::FixRequest`].
    pub fn fix_request(message: impl Into<String>) -> Self {
        Self::new(Kind::FixRequest, message)
    }

    /// [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// [`Kind::FixData`].
    pub fn fix_data(message: impl Into<String>) -> Self {
        Self::new(Kind::FixData, message)
    }

    /// [`Kind::Report`].
    pub fn report(message: impl Into<String>) -> Self {
        Self::new(Kind::Report, message)
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Adds a hint how long to wait before the next try.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// What the caller must do.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long to wait before the next try, if the refusing side said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same request may be sent again without asking first what became of it.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retry | Kind::SlowDown)
    }

    /// See [`Kind::http_status`].
    pub fn http_status(&self) -> u16 {
        self.kind.http_status()
    }

    /// The `google.rpc.Status` message for this error: the body of a failed OTLP/HTTP request and the details of a gRPC status.
    pub fn to_rpc_status(&self) -> rpc_status::RpcStatus {
        rpc_status::RpcStatus::new(self.kind.grpc_code(), &self.message, self.retry_after)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if let Some(after) = self.retry_after {
            write!(f, " (retry after {after:?})")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.kind.grpc_code();
        if error.retry_after.is_none() {
            return Self::new(code, error.message);
        }
        let details = error.to_rpc_status().encode_to_vec();
        Self::with_details(code, error.message, details.into())
    }
}

impl From<Status> for Error {
    /// The kind, the message and the retry hint survive; the status stays as the cause.
    fn from(status: Status) -> Self {
        // The client's own timeout surfaces as CANCELLED, but nobody cancelled: the outcome is unknown.
        let timed_out = status.code() == Code::Cancelled && status.message() == "Timeout expired";
        let kind = if timed_out { Kind::CheckOutcome } else { Kind::from_grpc_code(status.code()) };
        let retry_after = rpc_status::RpcStatus::decode(status.details()).ok().and_then(|s| s.retry_after());
        let message = status.message().to_owned();
        Self { kind, message, retry_after, source: Some(Arc::new(status)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 12] = [
        Kind::Retry,
        Kind::SlowDown,
        Kind::CheckOutcome,
        Kind::FixRequest,
        Kind::Authenticate,
        Kind::AskPermission,
        Kind::NotFound,
        Kind::Reopen,
        Kind::GiveUp,
        Kind::NotSupported,
        Kind::FixData,
        Kind::Report,
    ];

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in KINDS {
            let back = Error::from(Status::from(Error::new(kind, "text <ü>")));
            assert_eq!((back.kind(), back.message(), back.retry_after()), (kind, "text <ü>", None));
        }
    }

    #[test]
    fn the_retry_hint_travels_as_retry_info() {
        let hint = Duration::from_millis(5_250);
        let status = Status::from(Error::slow_down("RATE_LIMITED: x", Some(hint)));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(String::from_utf8_lossy(status.details()).contains("type.googleapis.com/google.rpc.RetryInfo"));
        assert_eq!(Error::from(status).retry_after(), Some(hint));
    }

    #[test]
    fn a_client_timeout_is_an_unknown_outcome_and_not_a_cancellation() {
        assert_eq!(Error::from(Status::cancelled("Timeout expired")).kind(), Kind::CheckOutcome);
        assert_eq!(Error::from(Status::cancelled("bye")).kind(), Kind::GiveUp);
    }

    #[test]
    fn otlp_statuses_follow_the_grpc_codes() {
        assert_eq!(Kind::SlowDown.otlp_http_status(), 429);
        assert_eq!(Kind::NotSupported.otlp_http_status(), 404);
        assert_eq!(Kind::CheckOutcome.otlp_http_status(), 503);
        assert_eq!(Kind::CheckOutcome.http_status(), 504);
    }
}

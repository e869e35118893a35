//! `google.rpc.Status` with its `RetryInfo` detail, the two messages of that package that we speak.

use std::time::Duration;

use prost::Message as _;

const RETRY_INFO_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The text for the caller.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Typed details, at most a `RetryInfo` in what we send.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

impl RpcStatus {
    /// A status, with a `RetryInfo` detail if there is a hint.
    pub fn new(code: tonic::Code, message: &str, retry_after: Option<Duration>) -> Self {
        let details = retry_after.and_then(|after| prost_types::Duration::try_from(after).ok()).map(|delay| {
            let info = RetryInfo { retry_delay: Some(delay) };
            prost_types::Any { type_url: RETRY_INFO_URL.to_owned(), value: info.encode_to_vec() }
        });
        Self { code: code.into(), message: message.to_owned(), details: details.into_iter().collect() }
    }

    /// The hint of the first `RetryInfo` detail that can be read.
    pub fn retry_after(&self) -> Option<Duration> {
        let any = self.details.iter().find(|any| any.type_url == RETRY_INFO_URL)?;
        RetryInfo::decode(any.value.as_slice()).ok()?.retry_delay?.try_into().ok()
    }
}

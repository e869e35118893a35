//! What goes over a link. Fields that are not there have no meaning; a frame of either side without any is a sign of life.

use bytes::Bytes;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// From the asker.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Down {
    /// Which call it is about, 0 for none.
    #[prost(uint64, tag = "1")]
    pub(super) call: u64,
    /// Begin it.
    #[prost(message, optional, tag = "2")]
    pub(super) ask: Option<Ask>,
    /// Nobody waits for it any more.
    #[prost(bool, tag = "3")]
    pub(super) cancel: bool,
    /// Are you there? Any frame is an answer.
    #[prost(bool, tag = "4")]
    pub(super) probe: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ask {
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) request: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) timeout_nanos: u64,
    /// Refuse rather than wait for room.
    #[prost(bool, tag = "4")]
    pub(super) only_if_room: bool,
}

/// From the answerer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Up {
    /// The name of whoever opened the link: the first frame.
    #[prost(string, tag = "1")]
    pub(super) hello: String,
    #[prost(uint64, tag = "2")]
    pub(super) call: u64,
    /// The call was accepted and will be answered.
    #[prost(bool, tag = "3")]
    pub(super) started: bool,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(super) reply: Option<Bytes>,
    #[prost(message, optional, tag = "5")]
    pub(super) end: Option<End>,
    /// No further call, please: the process stops.
    #[prost(bool, tag = "6")]
    pub(super) leaving: bool,
    /// With the first frame: which process it is, so that its links are known to live and die together.
    #[prost(uint64, tag = "7")]
    pub(super) process: u64,
}

/// How a call ended; code 0 is well.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct End {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) details: Bytes,
    #[prost(message, repeated, tag = "4")]
    pub(super) metadata: Vec<Entry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

impl End {
    pub(super) fn of(result: Result<(), Status>) -> Self {
        let Err(status) = result else { return Self::default() };
        let headers = status.metadata().clone().into_headers();
        let entry = |(name, value): (&http::HeaderName, &http::HeaderValue)| Entry {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_vec(),
        };
        Self {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Bytes::copy_from_slice(status.details()),
            metadata: headers.iter().map(entry).collect(),
        }
    }

    pub(super) fn result(self) -> Result<(), Status> {
        let code = Code::from_i32(self.code);
        if code == Code::Ok {
            return Ok(());
        }
        let mut headers = http::HeaderMap::new();
        for entry in self.metadata {
            let name = http::HeaderName::from_bytes(entry.name.as_bytes());
            // What is no header cannot have been one at the other side.
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(&entry.value)) {
                headers.append(name, value);
            }
        }
        let metadata = MetadataMap::from_headers(headers);
        Err(Status::with_details_and_metadata(code, self.message, self.details, metadata))
    }
}

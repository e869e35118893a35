//! A request as it comes off the wire and an answer as it goes on it: the frame's head, and the library's codecs behind bounds.
//!
//! ```text
//! request   length (4), api key (2), version (2), correlation id (4), client id, [tagged fields], body
//! answer    length (4), correlation id (4), [tagged fields], body
//! ```

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use crate::shape::{BadShape, MAX_ELEMENTS, Shape, requests};

/// A kind of request that this broker takes, and in which versions.
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    pub(crate) oldest: i16,
    pub(crate) newest: i16,
    pub(crate) shape: &'static Shape,
}

const fn api(key: ApiKey, oldest: i16, newest: i16, shape: &'static Shape) -> Api {
    Api { key, oldest, newest, shape }
}

/// All of them. Where the newest version is below what exists, the next one brings what this broker does not have: tagged fields
/// in the middle of a request (Fetch), members with a fixed name (the group requests), transactions (InitProducerId,
/// FindCoordinator), topic ids for offsets, the record with the largest time (ListOffsets).
pub(crate) const APIS: &[Api] = &[
    api(ApiKey::Produce, 3, 13, &requests::PRODUCE),
    api(ApiKey::Fetch, 4, 16, &requests::FETCH),
    api(ApiKey::ListOffsets, 1, 6, &requests::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 13, &requests::METADATA),
    api(ApiKey::OffsetCommit, 2, 9, &requests::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, 1, 9, &requests::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0, 4, &requests::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, 0, 4, &requests::JOIN_GROUP),
    api(ApiKey::Heartbeat, 0, 2, &requests::HEARTBEAT),
    api(ApiKey::LeaveGroup, 0, 2, &requests::LEAVE_GROUP),
    api(ApiKey::SyncGroup, 0, 2, &requests::SYNC_GROUP),
    api(ApiKey::DescribeGroups, 0, 5, &requests::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, 0, 5, &requests::LIST_GROUPS),
    api(ApiKey::SaslHandshake, 0, 1, &requests::SASL_HANDSHAKE),
    api(ApiKey::ApiVersions, 0, 4, &requests::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, &requests::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 6, &requests::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0, 2, &requests::DELETE_RECORDS),
    api(ApiKey::InitProducerId, 0, 4, &requests::INIT_PRODUCER_ID),
    api(ApiKey::DescribeConfigs, 1, 4, &requests::DESCRIBE_CONFIGS),
    api(ApiKey::SaslAuthenticate, 0, 2, &requests::SASL_AUTHENTICATE),
    api(ApiKey::CreatePartitions, 0, 3, &requests::CREATE_PARTITIONS),
    api(ApiKey::DeleteGroups, 0, 2, &requests::DELETE_GROUPS),
];

/// What stands before the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
}

/// Why a request cannot be answered. Its connection ends, as with any Kafka broker: nobody knows what the client would
/// understand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("the head of the request is cut off")]
    Head,
    #[error("api key {0} is not supported by a development broker")]
    Api(i16),
    #[error("version {version} of api key {key} is not supported, only {oldest} to {newest}")]
    Version { key: i16, version: i16, oldest: i16, newest: i16 },
    #[error("api key {key}, version {version}: {reason}")]
    Shape { key: i16, version: i16, reason: BadShape },
    #[error("api key {key}, version {version}: {reason}")]
    Content { key: i16, version: i16, reason: String },
    #[error("the answer to api key {key}, version {version} has no form: {reason}")]
    Answer { key: i16, version: i16, reason: String },
}

/// A request whose head is read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
    /// `None`: it asks for the versions in a version that this broker does not know, which is answered nevertheless.
    shape: Option<&'static Shape>,
}

impl Request {
    /// Reads the head of a frame, without its length.
    pub(crate) fn read(mut frame: Bytes) -> Result<Self, BadRequest> {
        let number = frame.try_get_i16().map_err(|_cut_off| BadRequest::Head)?;
        let version = frame.try_get_i16().map_err(|_cut_off| BadRequest::Head)?;
        let correlation_id = frame.try_get_i32().map_err(|_cut_off| BadRequest::Head)?;
        let api = APIS.iter().find(|api| api.key as i16 == number).ok_or(BadRequest::Api(number))?;
        let known = (api.oldest..=api.newest).contains(&version);
        if !known && api.key == ApiKey::ApiVersions {
            let head = Head { key: api.key, version: 0, correlation_id, client_id: String::new() };
            return Ok(Self { head, body: Bytes::new(), shape: None });
        }
        if !known {
            let (oldest, newest) = (api.oldest, api.newest);
            return Err(BadRequest::Version { key: number, version, oldest, newest });
        }
        let client_id = read_client_id(&mut frame)?;
        if api.key.request_header_version(version) >= 2 {
            skip_tagged(&mut frame)?;
        }
        Ok(Self {
            head: Head { key: api.key, version, correlation_id, client_id },
            body: frame,
            shape: Some(api.shape),
        })
    }

    /// Whether it is the question for the versions that cannot be read.
    pub(crate) fn is_from_the_future(&self) -> bool {
        self.shape.is_none()
    }

    /// The body, checked against its table before the library sees it.
    pub(crate) fn decode<R: Decodable>(&mut self) -> Result<R, BadRequest> {
        let (key, version) = (self.head.key as i16, self.head.version);
        if let Some(shape) = self.shape {
            shape.check(version, &self.body, MAX_ELEMENTS).map_err(|reason| BadRequest::Shape {
                key,
                version,
                reason,
            })?;
        }
        R::decode(&mut self.body, version).map_err(|error| BadRequest::Content {
            key,
            version,
            reason: error.to_string(),
        })
    }
}

fn read_client_id(frame: &mut Bytes) -> Result<String, BadRequest> {
    let length = frame.try_get_i16().map_err(|_cut_off| BadRequest::Head)?;
    let length = if length == -1 { 0 } else { usize::try_from(length).map_err(|_negative| BadRequest::Head)? };
    if frame.len() < length {
        return Err(BadRequest::Head);
    }
    Ok(String::from_utf8_lossy(&frame.split_to(length)).into_owned())
}

fn skip_tagged(frame: &mut Bytes) -> Result<(), BadRequest> {
    for _ in 0..read_varint(frame)? {
        read_varint(frame)?;
        let bytes = read_varint(frame)? as usize;
        if frame.len() < bytes {
            return Err(BadRequest::Head);
        }
        frame.advance(bytes);
    }
    Ok(())
}

fn read_varint(frame: &mut Bytes) -> Result<u32, BadRequest> {
    let mut value = 0;
    for group in 0..5 {
        let byte = frame.try_get_u8().map_err(|_cut_off| BadRequest::Head)?;
        value |= u32::from(byte & 0x7f) << (group * 7);
        if byte < 0x80 {
            break;
        }
    }
    Ok(value)
}

/// An answer with its length in front.
pub(crate) fn encode<R: Encodable + HeaderVersion>(head: &Head, answer: &R) -> Result<Bytes, BadRequest> {
    let (key, version) = (head.key as i16, head.version);
    let failed = |reason: String| BadRequest::Answer { key, version, reason };
    let mut frame = BytesMut::new();
    frame.reserve(64 + answer.compute_size(version).map_err(|error| failed(error.to_string()))?);
    frame.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(head.correlation_id);
    header.encode(&mut frame, R::header_version(version)).map_err(|error| failed(error.to_string()))?;
    answer.encode(&mut frame, version).map_err(|error| failed(error.to_string()))?;
    let length = i32::try_from(frame.len() - 4).map_err(|too_long| failed(too_long.to_string()))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

//! A client of plain requests, for what no library would send.

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, ProduceRequest, ResponseHeader, fetch_request, fetch_response, produce_request,
    produce_response,
};
use kafka_protocol::protocol::{Decodable as _, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::Running;
use crate::batch::tests::batch;
use crate::request::samples;

pub(super) use crate::request::samples::text;

pub(super) struct Raw(TcpStream);

impl Raw {
    pub(super) async fn to(broker: &Running) -> Self {
        Self::to_address(broker.addr()).await
    }

    pub(super) async fn to_address(address: std::net::SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// An answer without its length; `None` when the broker has closed the connection.
    pub(super) async fn receive(&mut self) -> Option<Bytes> {
        let length = self.0.read_i32().await.ok()?;
        let mut answer = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.0.read_exact(&mut answer).await.unwrap();
        Some(answer.freeze())
    }

    pub(super) async fn tell<R: Request>(&mut self, version: i16, request: &R) {
        let key = ApiKey::try_from(R::KEY).unwrap();
        let (frame, _) = samples::frame(key, version, request);
        self.send(&samples::with_length(&frame)).await;
    }

    /// `None` when the broker has closed the connection, before the request or instead of an answer.
    pub(super) async fn try_ask<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        let key = ApiKey::try_from(R::KEY).unwrap();
        let (frame, _) = samples::frame(key, version, request);
        self.0.write_all(&samples::with_length(&frame)).await.ok()?;
        self.hear::<R>(version).await
    }

    pub(super) async fn hear<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let mut answer = self.receive().await?;
        let key = ApiKey::try_from(R::KEY).unwrap();
        let header = ResponseHeader::decode(&mut answer, key.response_header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 7);
        let response = R::Response::decode(&mut answer, version).unwrap();
        assert!(!answer.has_remaining(), "{key:?} {version}: bytes follow the answer");
        Some(response)
    }

    pub(super) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_ask(version, request).await.expect("the broker closed the connection")
    }

    /// One batch to one partition, by name, acknowledged.
    pub(super) async fn produce(
        &mut self,
        topic: &'static str,
        partition: i32,
        batch: Vec<u8>,
    ) -> produce_response::PartitionProduceResponse {
        let answer = self.ask(12, &produce_request(topic, partition, batch)).await;
        answer.responses[0].partition_responses[0].clone()
    }

    pub(super) async fn fetch(
        &mut self,
        topic: &'static str,
        partition: i32,
        offset: i64,
    ) -> fetch_response::PartitionData {
        let answer = self.ask(12, &fetch_request(topic, partition, offset)).await;
        answer.responses[0].partitions[0].clone()
    }
}

pub(super) fn produce_request(topic: &'static str, partition: i32, batch: Vec<u8>) -> ProduceRequest {
    let partition =
        produce_request::PartitionProduceData::default().with_index(partition).with_records(Some(Bytes::from(batch)));
    let data = produce_request::TopicProduceData::default()
        .with_name(StrBytes::from_static_str(topic).into())
        .with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data])
}

/// Does not wait.
pub(super) fn fetch_request(topic: &'static str, partition: i32, offset: i64) -> FetchRequest {
    let partition = fetch_request::FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let asked = fetch_request::FetchTopic::default()
        .with_topic(StrBytes::from_static_str(topic).into())
        .with_partitions(vec![partition]);
    FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![asked])
}

/// By id, as newer versions ask.
pub(super) fn fetch_by_id(topic: Uuid, partition: i32) -> FetchRequest {
    let mut request = fetch_request("", partition, 0);
    request.topics[0].topic_id = topic;
    request
}

/// A batch of an idempotent producer.
pub(super) fn numbered(producer_id: i64, epoch: i16, sequence: i32, times_ms: &[i64]) -> Vec<u8> {
    let mut batch = batch(times_ms);
    batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    crate::batch::tests::seal(&mut batch);
    batch
}

/// The base offsets of the batches in an answer.
pub(super) fn base_offsets(records: &Bytes) -> Vec<i64> {
    let mut rest = records.clone();
    let mut found = Vec::new();
    while rest.has_remaining() {
        found.push(rest.get_i64());
        let length = usize::try_from(rest.get_i32()).unwrap();
        rest.advance(length);
    }
    found
}

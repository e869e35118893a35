//! The messages inside `index.pb.zst`, with Tempo's field numbers.

use prost::Message;
use uuid::Uuid;

use super::Error;
use crate::{
    dedicated::DedicatedColumns,
    meta::{BlockMeta, CompactedBlockMeta, Timestamp, Version},
};

#[derive(Clone, PartialEq, Message)]
pub(super) struct TenantIndex {
    #[prost(message, optional, tag = "1")]
    created_at: Option<prost_types::Timestamp>,
    #[prost(message, repeated, tag = "2")]
    meta: Vec<Meta>,
    #[prost(message, repeated, tag = "3")]
    compacted: Vec<Compacted>,
}

#[derive(Clone, PartialEq, Message)]
struct Compacted {
    #[prost(message, optional, tag = "1")]
    meta: Option<Meta>,
    #[prost(message, optional, tag = "2")]
    compacted_time: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Meta {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(bytes = "vec", tag = "2")]
    block_id: Vec<u8>,
    #[prost(string, tag = "5")]
    tenant_id: String,
    #[prost(message, optional, tag = "6")]
    start_time: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "7")]
    end_time: Option<prost_types::Timestamp>,
    #[prost(int64, tag = "8")]
    total_objects: i64,
    #[prost(uint64, tag = "9")]
    size: u64,
    #[prost(uint32, tag = "10")]
    compaction_level: u32,
    #[prost(uint32, tag = "12")]
    index_page_size: u32,
    #[prost(uint32, tag = "13")]
    total_records: u32,
    #[prost(uint32, tag = "15")]
    bloom_shards: u32,
    #[prost(uint32, tag = "16")]
    footer_size: u32,
    #[prost(bytes = "vec", tag = "17")]
    dedicated_columns: Vec<u8>,
    #[prost(uint32, tag = "18")]
    replication_factor: u32,
    /// JSON. Tempo passes over a field that it does not know.
    #[prost(bytes = "vec", tag = "1000")]
    split_traces: Vec<u8>,
}

impl From<&super::TenantIndex> for TenantIndex {
    fn from(index: &super::TenantIndex) -> Self {
        let compacted = |block: &CompactedBlockMeta| Compacted {
            meta: Some(Meta::from(&block.meta)),
            compacted_time: Some(block.compacted_time.to_proto()),
        };
        Self {
            created_at: Some(index.created_at.to_proto()),
            meta: index.meta.iter().map(Meta::from).collect(),
            compacted: index.compacted.iter().map(compacted).collect(),
        }
    }
}

impl From<&BlockMeta> for Meta {
    fn from(meta: &BlockMeta) -> Self {
        let columns = &meta.dedicated_columns;
        let columns =
            if columns.is_empty() { Vec::new() } else { serde_json::to_vec(columns).expect("a list of plain structs") };
        let split_traces = match meta.split_traces.as_slice() {
            [] => Vec::new(),
            split => serde_json::to_vec(split).expect("a list of plain structs"),
        };
        Self {
            version: meta.format.as_str().to_owned(),
            block_id: meta.block_id.as_bytes().to_vec(),
            tenant_id: meta.tenant_id.clone(),
            start_time: Some(meta.start_time.to_proto()),
            end_time: Some(meta.end_time.to_proto()),
            total_objects: i64::try_from(meta.total_objects).unwrap_or(i64::MAX),
            size: meta.size,
            compaction_level: meta.compaction_level,
            index_page_size: meta.index_page_size,
            total_records: meta.total_records,
            bloom_shards: meta.bloom_shards,
            footer_size: meta.footer_size,
            dedicated_columns: columns,
            replication_factor: meta.replication_factor,
            split_traces,
        }
    }
}

fn instant(proto: Option<&prost_types::Timestamp>) -> Timestamp {
    proto.map(Timestamp::from_proto).unwrap_or_default()
}

impl TryFrom<TenantIndex> for super::TenantIndex {
    type Error = Error;

    fn try_from(index: TenantIndex) -> Result<Self, Error> {
        let compacted = |block: Compacted| {
            Ok(CompactedBlockMeta {
                meta: block.meta.ok_or(Error::Entry("metadata"))?.try_into()?,
                compacted_time: instant(block.compacted_time.as_ref()),
            })
        };
        Ok(Self {
            created_at: instant(index.created_at.as_ref()),
            meta: index.meta.into_iter().map(BlockMeta::try_from).collect::<Result<_, _>>()?,
            compacted: index.compacted.into_iter().map(compacted).collect::<Result<_, Error>>()?,
        })
    }
}

impl TryFrom<Meta> for BlockMeta {
    type Error = Error;

    fn try_from(meta: Meta) -> Result<Self, Error> {
        let dedicated_columns = match meta.dedicated_columns.as_slice() {
            [] | b"null" => DedicatedColumns::default(),
            json => serde_json::from_slice(json).map_err(|_damaged| Error::Entry("list of dedicated columns"))?,
        };
        let split_traces = match meta.split_traces.as_slice() {
            [] => Vec::new(),
            json => serde_json::from_slice(json).map_err(|_damaged| Error::Entry("list of split traces"))?,
        };
        Ok(Self {
            format: Version::from(meta.version),
            block_id: Uuid::from_slice(&meta.block_id).map_err(|_length| Error::Entry("block id"))?,
            tenant_id: meta.tenant_id,
            start_time: instant(meta.start_time.as_ref()),
            end_time: instant(meta.end_time.as_ref()),
            total_objects: u64::try_from(meta.total_objects).unwrap_or(0),
            size: meta.size,
            compaction_level: meta.compaction_level,
            index_page_size: meta.index_page_size,
            total_records: meta.total_records,
            bloom_shards: meta.bloom_shards,
            footer_size: meta.footer_size,
            dedicated_columns,
            replication_factor: meta.replication_factor,
            split_traces,
        })
    }
}

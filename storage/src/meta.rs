//! `meta.json`: the object whose presence makes a block exist, and without which its data cannot be read.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{dedicated::DedicatedColumns, split::SplitTrace};

/// Name of the object that makes a block live.
pub(crate) const META: &str = "meta.json";
/// Name it has once the block was compacted or is past retention.
pub(crate) const META_COMPACTED: &str = "meta.compacted.json";

/// Why a `meta.json` was refused. Its content comes from storage: retrying gives the same answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or a field has the wrong type.
    #[error("parse block metadata")]
    Json(#[from] serde_json::Error),
    /// Metadata that belongs to another block or tenant than the folder it lies in.
    #[error("block metadata says {found}, its folder says {folder}")]
    Misplaced {
        /// Tenant and block named inside.
        found: String,
        /// Tenant and block of the folder.
        folder: String,
    },
}

/// Encoding of a block's data object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// Read only.
    V4,
    /// What Vivace writes.
    V5,
    /// Kept as it was written, so that a list with such a block can be passed on; its data can't be opened.
    Other(String),
}

impl Version {
    /// The value of `format`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::V4 => "vParquet4",
            Self::V5 => "vParquet5",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for Version {
    fn from(name: String) -> Self {
        match name.as_str() {
            "vParquet4" => Self::V4,
            "vParquet5" => Self::V5,
            _ => Self::Other(name),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// An instant in nanoseconds since 1970 (UTC); RFC 3339 with `Z` in JSON, with a fraction only when there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// From whole seconds since 1970.
    pub fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Whole seconds since 1970, rounded down.
    pub fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// From the system's clock type; instants before 1970 become 0.
    pub fn from_system(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: i64::try_from(self.secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(self.0 % 1_000_000_000).unwrap_or(0),
        }
    }

    pub(crate) fn from_proto(proto: &prost_types::Timestamp) -> Self {
        let secs = u64::try_from(proto.seconds).unwrap_or(0);
        let nanos = u64::try_from(proto.nanos).unwrap_or(0);
        Self(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_proto().fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let proto = prost_types::Timestamp::from_str(&text)
            .map_err(|_no_instant| de::Error::invalid_value(de::Unexpected::Str(&text), &"an RFC 3339 instant"))?;
        Ok(Self::from_proto(&proto))
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// One block's metadata, fields in the order in which Tempo writes them. Unknown fields are ignored on reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    /// Encoding of the data object.
    pub format: Version,
    /// Equal to the name of the folder.
    #[serde(rename = "blockID")]
    pub block_id: Uuid,
    /// Equal to the name of the tenant's folder.
    #[serde(rename = "tenantID")]
    pub tenant_id: String,
    /// Earliest span start, inclusive.
    pub start_time: Timestamp,
    /// Latest span end; readers treat it as inclusive and add a second where precision matters.
    pub end_time: Timestamp,
    /// Rows, one for each trace.
    #[serde(default)]
    pub total_objects: u64,
    /// Exact length of `data.parquet`; a wrong value makes the block unreadable.
    #[serde(default)]
    pub size: u64,
    /// 0 for fresh blocks, the inputs' largest + 1 after a compaction.
    #[serde(default)]
    pub compaction_level: u32,
    /// Always 0, kept for older readers.
    #[serde(default)]
    pub index_page_size: u32,
    /// Row groups. With 0, searches skip the block.
    #[serde(default)]
    pub total_records: u32,
    /// Number of `bloom-<n>` objects; 0 in very old blocks means 10, see [`Self::bloom_shard_count`].
    #[serde(default)]
    pub bloom_shards: u32,
    /// Length of the Parquet footer without the eight bytes after it; 0 = not known.
    #[serde(default)]
    pub footer_size: u32,
    /// The order is data, see [`DedicatedColumns`].
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "DedicatedColumns::is_empty")]
    pub dedicated_columns: DedicatedColumns,
    /// 1 for blocks that were written once; metrics queries skip every other value.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replication_factor: u32,
    /// Traces of which other blocks hold further parts; Tempo has no such field.
    #[serde(
        rename = "vivaceSplitTraces",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub split_traces: Vec<SplitTrace>,
}

impl BlockMeta {
    /// Reads the content of `meta.json` or `meta.compacted.json`.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The content of `meta.json`.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("metadata is plain strings and numbers with string keys")
    }

    /// Fails when the metadata belongs elsewhere: queries by it would then read another tenant's or block's objects.
    pub fn check_place(&self, tenant: &str, block: Uuid) -> Result<(), Error> {
        if self.tenant_id == tenant && self.block_id == block {
            return Ok(());
        }
        let found = format!("{}/{}", self.tenant_id, self.block_id);
        Err(Error::Misplaced { found, folder: format!("{tenant}/{block}") })
    }

    /// Number of bloom objects, with the rule for very old blocks applied.
    pub fn bloom_shard_count(&self) -> u32 {
        if self.bloom_shards == 0 { 10 } else { self.bloom_shards }
    }
}

/// Metadata of a block whose content lives on in others; it is still asked for traces by id for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactedBlockMeta {
    /// The metadata as it was while the block was live.
    #[serde(flatten)]
    pub meta: BlockMeta,
    /// Taken from the last change of `meta.compacted.json`, which does not hold it.
    #[serde(rename = "compactedTime")]
    pub compacted_time: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    const V5: &str =
        include_str!("../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/meta.json");
    const V4: &str =
        include_str!("../tests/fixtures/vparquet4/single-tenant/0e6f0ad1-4286-4f18-ab9d-7b2aa041b497/meta.json");

    #[test]
    fn metadata_written_by_tempo_comes_back_byte_for_byte() {
        for text in [V5, V4] {
            let meta = BlockMeta::from_json(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(meta.to_json()).unwrap(), text);
        }
    }

    #[test]
    fn null_and_absent_columns_and_fractions_are_accepted() {
        let text = V5.split(r#","dedicatedColumns""#).next().unwrap().to_owned() + r#","dedicatedColumns":null}"#;
        let text = text.replace("12:47:16Z", "12:47:16.25Z");
        let meta = BlockMeta::from_json(text.as_bytes()).unwrap();
        assert!(meta.dedicated_columns.is_empty());
        assert_eq!(meta.start_time.0 % 1_000_000_000, 250_000_000);
        assert_eq!(BlockMeta::from_json(&meta.to_json()).unwrap(), meta);
    }

    #[test]
    fn metadata_in_the_wrong_folder_is_refused() {
        let meta = BlockMeta::from_json(V5.as_bytes()).unwrap();
        assert!(meta.check_place("single-tenant", meta.block_id).is_ok());
        assert!(meta.check_place("other", meta.block_id).is_err());
    }
}

//! The tenant index: every block of a tenant in one object, so that a reader need not list the bucket.
//!
//! Two objects with the same content are rewritten on every build: protobuf in one zstd frame first, then JSON in gzip.
//! Readers take the second only when the first is absent. When a tenant has no block, both are deleted.

mod proto;

use std::io::{Read, Write};

use flate2::{Compression, GzBuilder, read::GzDecoder};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize};

use crate::meta::{BlockMeta, CompactedBlockMeta, Timestamp};

/// Name of the protobuf form.
pub(crate) const INDEX_PROTO: &str = "index.pb.zst";
/// Name of the JSON form.
pub(crate) const INDEX_JSON: &str = "index.json.gz";

/// An index larger than this is not read: it would name some millions of blocks.
const MAX_BYTES: u64 = 1 << 30;

/// Why an index was refused. Its content comes from storage; a later build replaces it, and until then the blocks can
/// be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The compression's frame is damaged or too large.
    #[error("decompress tenant index")]
    Frame(#[source] std::io::Error),
    /// The message inside is no tenant index.
    #[error("decode tenant index")]
    Proto(#[from] prost::DecodeError),
    /// The JSON inside is no tenant index.
    #[error("parse tenant index")]
    Json(#[from] serde_json::Error),
    /// A block id that is not sixteen bytes, or a damaged list of dedicated columns.
    #[error("entry of the tenant index has a damaged {0}")]
    Entry(&'static str),
}

/// Blocks of one tenant at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantIndex {
    /// When the list was made; readers may refuse an old one.
    pub created_at: Timestamp,
    /// Live blocks.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub meta: Vec<BlockMeta>,
    /// Blocks whose content lives on in others.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub compacted: Vec<CompactedBlockMeta>,
}

fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl TenantIndex {
    /// Whether there is no block, so that the objects are to be deleted instead of written.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty() && self.compacted.is_empty()
    }

    /// The content of `index.pb.zst`.
    pub fn to_proto(&self) -> Result<Vec<u8>, Error> {
        let message = proto::TenantIndex::from(self).encode_to_vec();
        zstd::encode_all(message.as_slice(), 0).map_err(Error::Frame)
    }

    /// Reads `index.pb.zst`.
    pub fn from_proto(object: &[u8]) -> Result<Self, Error> {
        let decoder = zstd::Decoder::new(object).map_err(Error::Frame)?;
        let message = proto::TenantIndex::decode(read_bounded(decoder)?.as_slice())?;
        Self::try_from(message)
    }

    /// The content of `index.json.gz`; the file name stored inside is `index.json`.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let mut encoder = GzBuilder::new().filename("index.json").write(Vec::new(), Compression::default());
        serde_json::to_writer(&mut encoder, self)?;
        encoder.flush().and_then(|()| encoder.finish()).map_err(Error::Frame)
    }

    /// Reads `index.json.gz`.
    pub fn from_json(object: &[u8]) -> Result<Self, Error> {
        Ok(serde_json::from_slice(&read_bounded(GzDecoder::new(object))?)?)
    }
}

fn read_bounded(reader: impl Read) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(Error::Frame)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(Error::Frame(std::io::Error::other("more than 1 GiB inside")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixtures() -> [(&'static [u8], &'static [u8]); 2] {
        [
            (
                include_bytes!("../tests/fixtures/vparquet5/single-tenant/index.pb.zst"),
                include_bytes!("../tests/fixtures/vparquet5/single-tenant/index.json.gz"),
            ),
            (
                include_bytes!("../tests/fixtures/vparquet4/single-tenant/index.pb.zst"),
                include_bytes!("../tests/fixtures/vparquet4/single-tenant/index.json.gz"),
            ),
        ]
    }

    #[test]
    fn both_forms_written_by_tempo_say_the_same() {
        for (proto, json) in fixtures() {
            let index = TenantIndex::from_proto(proto).unwrap();
            assert_eq!(index.meta.len() + index.compacted.len(), 1);
            let other = TenantIndex::from_json(json).unwrap();
            assert_eq!((&index.meta, &index.compacted), (&other.meta, &other.compacted));
        }
    }

    #[test]
    fn messages_come_back_byte_for_byte() {
        for (object, _) in fixtures() {
            let theirs = zstd::decode_all(object).unwrap();
            let ours =
                zstd::decode_all(TenantIndex::from_proto(object).unwrap().to_proto().unwrap().as_slice()).unwrap();
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn compacted_entries_survive_both_forms() {
        let mut index = TenantIndex::from_proto(fixtures()[0].0).unwrap();
        let compacted_time = Timestamp(1_795_174_031_419_738_624);
        index.compacted = index.meta.drain(..).map(|meta| CompactedBlockMeta { meta, compacted_time }).collect();
        assert_eq!(TenantIndex::from_proto(&index.to_proto().unwrap()).unwrap(), index);
        let json = index.to_json().unwrap();
        assert_eq!(TenantIndex::from_json(&json).unwrap(), index);
        assert_eq!(GzDecoder::new(json.as_slice()).header().unwrap().filename(), Some(b"index.json".as_slice()));
    }

    #[test]
    fn null_lists_are_empty_and_damage_is_an_error() {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
        gzip.write_all(br#"{"created_at":"2026-01-01T00:00:00Z","meta":null,"compacted":null}"#).unwrap();
        assert!(TenantIndex::from_json(&gzip.finish().unwrap()).unwrap().is_empty());
        assert!(matches!(TenantIndex::from_proto(b"no frame"), Err(Error::Frame(_))));
    }
}

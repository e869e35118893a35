//! Writes a block: rows in, objects out.

use bytes::Bytes;

use crate::meta::BlockMeta;

/// Everything that makes up a block, ready to be stored: data, blooms and index first, `meta` last.
#[derive(Debug, Clone)]
pub struct FinishedBlock {
    /// Content of `meta.json`.
    pub meta: BlockMeta,
    /// What is left of `data.parquet` after the parts that were taken while it was being written.
    pub data: Vec<Bytes>,
    /// `bloom-0`, `bloom-1`, …
    pub blooms: Vec<Bytes>,
    /// `index`.
    pub index: Bytes,
}

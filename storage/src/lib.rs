#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod backend;
mod blocklist;
mod bloom;
pub mod config;
mod dedicated;
mod index;
mod live;
mod meta;
mod read;
mod schema;
mod tenant_index;
mod write;

pub use backend::{Backend, BlockKey, BlockListing, Error as BackendError, ObjectInfo, Place, Upload};
pub use blocklist::{Blocklist, TenantBlocks};
pub use bloom::{Bloom, BloomFilter, Error as BloomError, shard_of};
pub use dedicated::{
    Assignment, DedicatedColumn, DedicatedColumns, Error as DedicatedError, Scope as DedicatedScope, Spare, ValueType,
};
pub use index::{Error as IndexError, RowGroupIndex};
pub use meta::{BlockMeta, CompactedBlockMeta, Error as MetaError, Timestamp, Version};
pub use schema::{
    AttrLeaves, Columns, DedicatedLeaf, Error as SchemaError, EventColumns, Leaf, LeafType, LinkColumns,
    ResourceColumns, Schema, ScopeColumns, SpanColumns, StatsColumns, TraceColumns,
};
pub use tenant_index::{Error as TenantIndexError, TenantIndex};
pub use write::FinishedBlock;

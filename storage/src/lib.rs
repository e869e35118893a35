#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod backend;
mod blocklist;
mod bloom;
mod compact;
pub mod config;
mod dedicated;
mod index;
mod live;
mod meta;
pub mod profile;
pub mod query;
mod read;
mod schema;
mod tags;
mod tenant_index;
mod write;

pub use backend::{Backend, BlockKey, BlockListing, Error as BackendError, ObjectInfo, Place, Upload};
pub use blocklist::{Blocklist, TenantBlocks};
pub use bloom::{Bloom, BloomFilter, Error as BloomError, shard_of};
pub use compact::{
    CompactSpec, Error as CompactError, Job, RetentionRules, SelectRules, compact, deletable, expired, select,
};
pub use dedicated::{
    Assignment, DedicatedColumn, DedicatedColumns, Error as DedicatedError, Scope as DedicatedScope, Spare, ValueType,
};
pub use index::{Error as IndexError, RowGroupIndex};
pub use live::{LiveCursor, LiveSource};
pub use meta::{BlockMeta, CompactedBlockMeta, Error as MetaError, Timestamp, Version};
pub use read::{
    BlockCursor, BlockObjects, BlockSource, Error as ReadError, FileRanges, LeafCost, LocalBlock, MemoryBlock,
    OpenBlock, Ranges, Rows, StoredBlock, find_trace, may_contain, rows,
};
pub use schema::{
    AttrLeaves, Columns, DedicatedLeaf, Error as SchemaError, EventColumns, Leaf, LeafType, LinkColumns,
    ResourceColumns, Schema, ScopeColumns, SpanColumns, StatsColumns, TraceColumns,
};
pub use tags::{TagKind, TagLimits, TagNames, TagSet, TagSource, TagValue, tag_values};
pub use tenant_index::{Error as TenantIndexError, TenantIndex};
pub use write::{AddedTrace, BlockSpec, BlockWriter, BloomSpec, Error as WriteError, FinishedBlock};

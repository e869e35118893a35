#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod audit;
mod backend;
mod blocklist;
mod bloom;
mod commit;
mod compact;
pub mod config;
mod dedicated;
mod fresh;
mod index;
mod live;
mod meta;
pub mod profile;
pub mod query;
mod read;
mod schema;
mod split;
mod tags;
mod tenant_index;
mod write;

pub use audit::{Audit, AuditRules, ChainAudit, audit};
pub use backend::{
    Backend, BlockKey, BlockListing, BlockState, Environment as StoreEnvironment, Error as BackendError, ObjectInfo,
    OpenError, Place, StoreWords, Upload,
};
pub use blocklist::{Blocklist, TenantBlocks};
pub use bloom::{Bloom, BloomFilter, Error as BloomError, shard_of};
pub use commit::{Commit, CommitName, Error as CommitError, Lost, Quarantined};
pub use compact::{
    CompactSpec, Error as CompactError, Job, RetentionRules, SelectRules, compact, deletable, expired, select,
};
pub use dedicated::{
    Assignment, DedicatedColumn, DedicatedColumns, Error as DedicatedError, Scope as DedicatedScope, Spare, ValueType,
};
pub use fresh::{EncodedBlock, Received, RefusedPart, encode_block};
pub use index::{Error as IndexError, RowGroupIndex};
pub use live::{
    LiveCursor, LiveGroup, LivePart, LiveScan, LiveShare, LiveSource, LiveTrace, LiveView, Preparation, ShareCursor,
};
pub use meta::{BlockMeta, CompactedBlockMeta, Error as MetaError, Timestamp, Version};
pub use read::{
    BlockCursor, BlockObjects, BlockOpener, BlockSource, Decoded, Error as ReadError, FileRanges, JoinedCursor,
    JoinedTrace, LeafCost, LocalBlock, MemoryBlock, OpenBlock, PageStarts, Ranges, Rows, StoredBlock, TraceRow,
    find_trace, locate_trace, may_contain, read_trace, read_trace_in_pieces, rows,
};
pub use schema::{
    AttrLeaves, Columns, DedicatedLeaf, Error as SchemaError, EventColumns, Leaf, LeafType, LinkColumns,
    ResourceColumns, Schema, ScopeColumns, SpanColumns, StatsColumns, TraceColumns,
};
pub use split::{Continued, SplitTrace};
pub use tags::{TagKind, TagLimits, TagNames, TagSet, TagSource, TagValue, tag_values};
pub use tenant_index::{Error as TenantIndexError, TenantIndex};
pub use write::{AddedTrace, BlockSpec, BlockWriter, BloomSpec, Error as WriteError, FinishedBlock};

//! Reads blocks: footer, pages, whole traces, predicates.
//!
//! The `parquet` crate writes blocks; they are read here by a page decoder of our own, because a search needs what the
//! crate's reader hides: dictionary ids as they stand in the page, so that a predicate is tried once for each entry and
//! not for each value. Everything is synchronous over [`Ranges`]: decoding is computing and runs on compute threads.

mod any_value;
mod block;
pub(crate) mod cells;
mod chunk;
mod codec;
mod cursor;
mod delta;
mod error;
mod find;
mod footer;
mod page;
mod ranges;
mod record;
mod rle;
mod rows;
mod source;
mod stored;
mod thrift;
mod traces;
mod values;
mod wire;

pub use block::OpenBlock;
pub use error::Error;
pub use find::{find_trace, may_contain};
pub use ranges::{BlockObjects, FileRanges, LocalBlock, MemoryBlock, Ranges};
pub use source::{BlockCursor, BlockSource, LeafCost};
pub use stored::StoredBlock;
pub use traces::{Rows, rows};

#[cfg(test)]
pub(crate) mod tests;

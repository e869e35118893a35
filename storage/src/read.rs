//! Reads blocks: footer, pages, whole traces, predicates.
//!
//! The `parquet` crate writes blocks; they are read here by a page decoder of our own, because a search needs what the
//! crate's reader hides: dictionary ids as they stand in the page, so that a predicate is tried once for each entry and
//! not for each value. Everything is synchronous over [`Ranges`]: decoding is computing and runs on compute threads.

mod any_value;
mod bits;
mod block;
pub(crate) mod cells;
mod chunk;
mod codec;
mod column_rows;
mod cursor;
mod delta;
mod error;
mod fields;
mod find;
mod footer;
mod lent;
mod levels;
mod packed;
mod page;
mod ranges;
pub(crate) mod rare;
mod record;
mod rle;
mod rows;
mod source;
mod starts;
mod stored;
mod thrift;
mod traces;
mod values;
mod wire;

pub use block::OpenBlock;
pub(crate) use column_rows::{ColumnRows, StoredRows, TraceIds};
pub use error::Error;
pub use find::{TraceRow, find_trace, locate_trace, may_contain, read_trace, read_trace_in_pieces};
#[cfg(test)]
pub(crate) use levels::Levels;
pub use ranges::{BlockObjects, FileRanges, LocalBlock, MemoryBlock, Ranges};
pub(crate) use record::RecordReader;
pub(crate) use rows::RowSet;
pub use source::{BlockCursor, BlockSource, Decoded, JoinedCursor, JoinedTrace, LeafCost};
pub(crate) use source::{Left, newest_start};
pub use starts::PageStarts;
pub use stored::{BlockOpener, StoredBlock};
pub use traces::{Rows, rows};
pub(crate) use values::Values as StoredValues;

#[cfg(test)]
pub(crate) mod tests;

//! TraceQL: lexer, parser, checks, plan and columnar evaluation. No IO, no async, no storage types.

mod bitmap;
mod column;
mod condition;
mod fetch;
mod field;
pub mod memory;
mod pattern;
mod value;

pub use bitmap::Bitmap;
pub use column::{Column, Dictionary, NIL_ID, Str, Validity};
pub use condition::{Condition, Predicate, Test};
pub use fetch::{
    Cursor, FetchError, FetchSpec, FetchStats, LoadSpec, Loaded, Offsets, ServiceStat, Source, SpanBatch, SpanHandle,
    Structure, TimeRange, TraceFields, TraceInfo,
};
pub use field::{Field, Intrinsic, Level, Scope};
pub use memory::MemorySource;
pub use pattern::{Pattern, PatternError};
pub use value::{CompareOp, Kind, Status, Type, Value, format_duration};

#![doc = include_str!("../README.md")]

mod arithmetic;
pub mod ast;
mod bitmap;
mod budget;
mod check;
mod column;
mod condition;
mod error;
mod eval;
mod fetch;
mod field;
mod lexer;
pub mod memory;
mod metrics;
mod needle;
mod parser;
mod pattern;
mod plan;
mod print;
mod program;
mod query;
mod search;
mod value;

pub use bitmap::Bitmap;
pub use budget::{Budget, Held, OverBudget};
pub use column::{Column, Dictionary, NIL_ID, Str, Validity};
pub use condition::{Condition, Predicate, Test};
pub use error::{Error, ErrorKind, Position};
pub use fetch::{
    Cursor, FetchError, FetchSpec, FetchStats, LoadSpec, Loaded, Offsets, ServiceStat, Source, SpanBatch, SpanHandle,
    Structure, TimeRange, TraceFields, TraceInfo,
};
pub use field::{Field, Intrinsic, Level, Scope};
pub use memory::MemorySource;
pub use metrics::{
    Cells, Exemplar, Group, Label, MetricsError, MetricsExemplar, MetricsPartial, MetricsPlan, MetricsRequest,
    MetricsResult, MetricsSeries, PartialLeaf, Window,
};
pub use needle::Needle;
pub use pattern::{Pattern, PatternError};
pub use plan::{EvalError, Evaluator, PlanError, SearchPlan, Spanset, Survivor};
pub use query::Query;
pub use search::{Draft, Merger, SearchError, SpanHit, SpanSet, TraceHit, search};
pub use value::{CompareOp, Kind, Status, Type, Value, format_duration};

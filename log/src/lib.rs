#![doc = include_str!("../README.md")]

mod budget;
mod checkpoint;
pub mod config;
#[doc(hidden)]
pub mod contract;
#[cfg(test)]
mod damage;
mod dedup;
mod error;
mod frame;
mod frame_reader;
mod group_offsets;
pub mod kafka;
mod local;
mod local_reader;
mod log;
mod log_id;
mod memory;
mod metrics;
mod partition_log;
mod progress;
mod quarantine;
mod record;
mod recovery;
mod segment;
mod segment_cursor;
mod sequence;
#[cfg(test)]
mod simulation;
mod store;
mod tail;

pub use budget::{Budget, Permit};
pub use checkpoint::Checkpoint;
pub use dedup::Dedup;
pub use error::Error;
pub use group_offsets::{GroupOffsets, MemoryGroupOffsets};
pub use local::{LocalEnv, LocalLog, LocalOptions};
pub use log::{Appended, Batch, Bounds, Log, Reader, Skipped};
pub use log_id::{LogId, ParseLogIdError};
pub use memory::MemoryLog;
pub use metrics::Metrics;
pub use progress::Progress;
pub use quarantine::Quarantine;
pub use record::{Entry, Header, Offset, Partition, Record};
pub use sequence::Sequence;

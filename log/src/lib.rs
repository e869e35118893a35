#![doc = include_str!("../README.md")]

mod budget;
mod checkpoint;
pub mod config;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod damage;
mod error;
mod frame;
mod frame_reader;
mod local;
mod local_reader;
mod log;
mod log_id;
mod memory;
mod metrics;
mod partition_log;
mod progress;
mod record;
mod recovery;
mod segment;
mod segment_cursor;
#[cfg(test)]
mod simulation;
mod store;
mod tail;

pub use budget::{Budget, Permit};
pub use checkpoint::Checkpoint;
pub use error::Error;
pub use local::{LocalEnv, LocalLog, LocalOptions};
pub use log::{Appended, Batch, Bounds, Log, Reader, Skipped};
pub use log_id::{LogId, ParseLogIdError};
pub use memory::MemoryLog;
pub use metrics::Metrics;
pub use progress::Progress;
pub use record::{Entry, Header, Offset, Partition, Record};

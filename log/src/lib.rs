//! The durable log of trace records: the trait, local segments and the memory form.

mod budget;
pub mod config;
mod error;
mod log;
mod log_id;
mod progress;
mod record;

pub use budget::{Budget, Permit};
pub use error::Error;
pub use log::{Appended, Batch, Bounds, Log, Reader, Skipped};
pub use log_id::{LogId, ParseLogIdError};
pub use progress::Progress;
pub use record::{Entry, Header, Offset, Partition, Record};

//! Partitions: where a trace is written, who owns what, and how partitions come and go.
//!
//! Tokens, keys and states are Tempo's; see [`PartitionView`] for routing, [`PartitionLifecycle`] for what changes by
//! itself, [`Change`] for what people change, and [`downscale`] for the endpoints.

pub mod downscale;

mod change;
mod lifecycle;
mod route;
mod tokens;
mod view;

#[cfg(test)]
mod tests;

pub use change::{ChangeError, allowed_from};
pub use lifecycle::{Change, POLL_PERIOD, PartitionLifecycle, PartitionTimings, PartitionTooHigh, change_partition};
pub use route::trace_key;
pub use tokens::{PARTITIONS_MAX, PartitionTokens, TOKENS};
pub use view::{PartitionEntry, PartitionView};

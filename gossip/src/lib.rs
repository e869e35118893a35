//! Cluster membership and rings.

pub mod actor;
pub mod config;
pub mod discovery;
pub mod families;
pub mod frame;
pub mod pages;
pub mod partition;
pub mod ring;
pub mod state;

mod board;
mod member;
mod memory;
mod metrics;
pub mod swim;
pub mod sync;
mod transport;

pub use board::{Board, Control, Peers};
pub use config::Config;
pub use member::{Identity, MemberEvent, RingMember};
pub use memory::{Farewell, MemoryRings};
pub use metrics::export_rings;

#![doc = include_str!("../README.md")]

mod blocklist;
mod blocks;
pub mod config;
mod frontends;
mod live_stores;
mod metrics;
mod recent;
mod ring;
mod supervisor;
#[cfg(test)]
mod tests;
mod worker;

pub use blocks::OpenBlocks;
pub use config::Config;
pub use frontends::Frontends;
pub use live_stores::{LiveStores, Owner, Partition, PartitionUse};
pub use recent::{LiveStore, Recent};
pub use ring::RingSettings;
pub use supervisor::{News, Plan, Querier, Setup};

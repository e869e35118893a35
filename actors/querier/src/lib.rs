#![doc = include_str!("../README.md")]

mod blocklist;
mod blocks;
pub mod config;
mod metrics;
mod supervisor;
mod worker;

pub use blocks::OpenBlocks;
pub use config::Config;
pub use supervisor::{News, Plan, Querier, Setup};
pub use worker::Recent;

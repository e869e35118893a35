//! The querier: answers jobs from blocks and live-stores.

pub mod config;

pub use config::Config;

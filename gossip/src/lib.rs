//! Cluster membership and rings.

pub mod config;

pub use config::Config;

//! The backend-worker: compaction, retention and tenant indexes.

pub mod config;

pub use config::Config;

//! The query-frontend: the public query API, planning and combining.

pub mod config;

pub use config::Config;

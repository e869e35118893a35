//! The distributor: receives spans, checks them, slices them by trace and appends them to the log.

pub mod config;

pub use config::Config;

//! The live-store: follows the log, answers queries on recent data and turns it into blocks.

pub mod config;

pub use config::Config;

//! Configuration of the metrics-generator; the component itself is not here yet.

pub mod config;

pub use config::Config;

//! Configuration of the block-builder; the component itself is not here yet.

pub mod config;

pub use config::Config;

#![doc = include_str!("../README.md")]

pub mod config;
mod keeper;
mod limits;
mod metrics;
mod supervisor;

pub use config::Config;
pub use limits::Limits;
pub use supervisor::{Setup, add};

#![doc = include_str!("../README.md")]

mod committer;
mod conductor;
pub mod config;
mod consumer;
mod flusher;
mod limits;
mod metrics;
mod source;
mod state;
mod supervisor;
#[cfg(test)]
mod tests;

pub use config::{Config, ConfigError};
pub use consumer::ApplyHook;
pub use limits::Limits;
pub use source::{Connect, Source};
pub use supervisor::{Setup, add};

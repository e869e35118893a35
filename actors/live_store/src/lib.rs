#![doc = include_str!("../README.md")]

pub mod config;
mod flusher;
mod ledger_file;
mod limits;
mod metrics;
mod owner;
mod quarantine;
mod query;
mod state;
mod supervisor;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use limits::Limits;
pub use owner::ApplyHook;
pub use supervisor::{LiveStore, Setup};

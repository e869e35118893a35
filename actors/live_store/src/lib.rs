#![doc = include_str!("../README.md")]

pub mod config;
mod flusher;
mod identity;
mod keep;
mod ledger_file;
mod limits;
#[cfg(test)]
mod local_tests;
mod metrics;
mod owner;
mod query;
mod readiness;
mod shelf;
mod standing;
mod state;
mod supervisor;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use identity::{Identity, IdentityError};
pub use keep::{Bucket, Connect, Keep, Local, Source};
pub use limits::Limits;
pub use owner::ApplyHook;
pub use readiness::Readiness;
pub use supervisor::{LiveStore, Setup};

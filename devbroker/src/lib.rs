#![doc = include_str!("../README.md")]

mod admin;
mod api;
mod batch;
mod broker;
mod code;
mod connection;
mod dispatch;
mod error;
mod faults;
mod group;
mod groups;
mod options;
mod producers;
mod replica;
mod request;
mod running;
mod shape;
mod slot;
#[cfg(test)]
mod tests;
mod timeline;
mod topic_settings;
mod topics;

pub use error::Error;
pub use faults::{Action, ActiveFault, Fault, Faults, TooManyFaults};
pub use options::Options;
pub use running::{DevBroker, Running};

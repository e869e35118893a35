#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod campaign;
mod dice;
mod mutator;
mod watchdog;

pub use campaign::{Campaign, likeness};

#![doc = include_str!("../README.md")]

mod api;
pub mod config;
mod coverage;
mod limits;
mod merge;
mod params;
mod planner;
mod queue;
mod respond;
mod supervisor;
mod tenant;

pub use config::Config;
pub use limits::Limits;
pub use planner::Queriers;
pub use supervisor::{Setup, add};

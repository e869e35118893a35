#![doc = include_str!("../README.md")]

mod api;
mod collected;
pub mod config;
mod coverage;
mod explain;
mod limits;
mod merge;
mod over_http;
mod params;
mod planner;
mod queue;
mod respond;
mod supervisor;
mod tenant;

pub use config::Config;
pub use limits::Limits;
pub use over_http::grpc_over_http;
pub use planner::{Queriers, RecentData};
pub use supervisor::{Served, Setup, add};

#[cfg(test)]
mod tests;

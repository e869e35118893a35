#![doc = include_str!("../README.md")]

mod admission;
mod body;
pub mod config;
mod cors;
mod debug;
mod encoding;
mod fair_share;
mod intake;
mod limiter;
mod limits;
mod metrics;
mod otlp_grpc;
mod otlp_http;
mod partitions;
mod push;
mod quiet;
mod receiver;
mod reply;
mod reservation;
mod slicing;
mod supervisor;
mod tenant;
mod tls;

pub use config::Config;
pub use limits::TenantLimits;
pub use partitions::{NoActivePartition, OnePartition, Partitions};
pub use push::MAX_RECORD_BYTES;
pub use supervisor::{Address, Distributor, StartError, Wiring};

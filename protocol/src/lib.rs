#![doc = include_str!("../README.md")]

#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::or_fun_call,
    unreachable_pub,
    missing_docs,
    rustdoc::all,
    reason = "generated code"
)]
mod generated;

mod block_list;
pub mod combine;
mod error;
pub mod find_trace;
mod ids;
pub mod json;
pub mod push_bytes;
mod rpc_status;
mod search_batch;
pub mod service;
pub mod slicer;
pub mod trace_page;
pub mod trace_walk;
pub mod wire;

pub use block_list::{BlockEntry, BlockListError};
pub use error::{Error, Kind};
pub use ids::{SpanId, TenantId, TenantIdError, TraceId, TraceIdError};
pub use rpc_status::RpcStatus;

/// Messages of the OpenTelemetry protocol, and its trace service.
pub mod otlp {
    pub use crate::generated::opentelemetry::proto::collector::trace::v1 as collector;
    pub use crate::generated::opentelemetry::proto::common::v1 as common;
    pub use crate::generated::opentelemetry::proto::resource::v1 as resource;
    pub use crate::generated::opentelemetry::proto::trace::v1 as trace;
}

/// Messages that Tempo's clients, its Kafka records and its bucket use, with the services served to the outside.
pub use generated::tempopb;

/// Messages between our own components (package `vivace.v1`).
pub use generated::vivace::v1 as vivace;

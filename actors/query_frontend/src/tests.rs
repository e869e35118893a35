//! The API from outside: over HTTP, and over gRPC on the loopback interface, with queriers that are told what to answer.

mod fake;
mod http_api;
mod large_trace;
mod late_trace;
mod links;
mod mcp;
mod streaming;

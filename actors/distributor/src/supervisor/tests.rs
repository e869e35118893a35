//! A whole distributor over real sockets, with a log in memory and a consumer that applies what the log holds.

mod acknowledgement;
mod grpc;
mod harness;
mod http;
mod limits;
mod wiring;

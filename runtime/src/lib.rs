#![doc = include_str!("../README.md")]

pub mod config;
pub mod contract;
pub mod metrics;
pub mod telemetry;
pub mod tls;

mod cell;
mod child;
mod clock;
mod compute;
mod deadline;
mod dial;
mod disk;
mod endpoint;
mod flow;
mod lifecycle;
mod link;
mod listen;
mod mailbox;
mod part;
mod placement;
mod process;
mod restart;
mod rng;
mod server;
mod supervisor;
mod tree;
mod vitals;

#[cfg(test)]
mod testing;

pub use cell::{Cx, Timer};
pub use child::Child;
pub use clock::{Clock, FakeClock, SystemClock};
pub use compute::{Compute, Outcome};
pub use deadline::Deadline;
pub use dial::{Dial, DialError, MAX_MESSAGE_BYTES, MAX_REPLY_BYTES};
pub use disk::{Disk, Entry, Fault, File, Operation, SimDisk, StdDisk};
pub use endpoint::{Answers, Endpoint, EndpointRouter, Peer, Replies, StreamEndpoint, Wire, deadline_of};
pub use flow::Flow;
pub use lifecycle::{Service, State};
pub use link::{LinkTo, Links};
pub use listen::{Listen, ListenError, Network};
pub use mailbox::{Answer, Bounds, Load, Mailbox, Refused};
pub use part::{Failure, Part, Reply, Responder, Serve};
pub use placement::Placement;
pub use process::{Exit, Process, ProcessOptions, run};
pub use restart::{Beyond, Limit, Meanwhile, Restart};
pub use rng::Rng;
pub use server::{Server, ServerLimits, Traffic};
pub use supervisor::Supervisor;
pub use tree::{Kind, Node};

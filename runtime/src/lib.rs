//! Actor runtime on actix: cells, supervisors, mailboxes, endpoints, lifecycle, servers, telemetry.

mod cell;
mod child;
mod clock;
pub mod config;
mod deadline;
mod disk;
mod flow;
mod lifecycle;
mod mailbox;
mod part;
mod placement;
mod restart;
mod rng;
mod supervisor;
mod tree;
mod vitals;

pub use cell::{Cx, Timer};
pub use child::Child;
pub use clock::{Clock, FakeClock, SystemClock};
pub use deadline::Deadline;
pub use disk::{Disk, Entry, Fault, File, Operation, SimDisk, StdDisk};
pub use flow::Flow;
pub use lifecycle::{Service, State};
pub use mailbox::{Answer, Bounds, Load, Mailbox, Refused};
pub use part::{Failure, Part, Reply, Responder, Serve};
pub use placement::Placement;
pub use restart::{Beyond, Limit, Meanwhile, Restart};
pub use rng::Rng;
pub use supervisor::Supervisor;
pub use tree::{Kind, Node};

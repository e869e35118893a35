//! Actor runtime on actix: cells, supervisors, mailboxes, endpoints, lifecycle, servers, telemetry.

mod clock;
mod disk;
mod rng;

pub use clock::{Clock, FakeClock, SystemClock};
pub use disk::{Disk, Entry, Fault, File, Operation, SimDisk, StdDisk};
pub use rng::Rng;

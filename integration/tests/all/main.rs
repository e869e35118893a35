//! Every whole-process test, in one binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod compaction;
mod crash;
mod dependencies;
mod ingest;
mod listeners;
mod overload;
mod shutdown;
mod syscalls;

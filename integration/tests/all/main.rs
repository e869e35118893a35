//! Every whole-process test, in one binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod compaction;
mod coverage;
mod crash;
mod dependencies;
mod ingest;
mod limits;
mod listeners;
mod overload;
mod panics;
mod query_cli;
mod rings;
mod shutdown;
mod syscalls;

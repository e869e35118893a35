//! Every whole-process test, in one binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod browser;
mod cluster;
mod compaction;
mod coverage;
mod crash;
mod dependencies;
mod devbroker;
mod ingest;
mod kafka;
mod limits;
mod listeners;
mod netns;
mod overload;
mod panics;
mod query_cli;
mod rings;
mod s3;
mod shutdown;
mod syscalls;

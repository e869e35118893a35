//! Every whole-process test, in one binary.

mod api;
mod crash;
mod dependencies;
mod ingest;
mod listeners;
mod overload;
mod shutdown;
mod syscalls;

//! Prints the figures of a node, or of a cluster of separate processes, together with the conditions that they hold under.
//!
//! ```text
//! figures         [--dir DIR] [--rate 15000] [--seconds 30] [--check] [--settle 0] [--every 10]
//! figures cluster [--dir DIR] [--rate 10000] [--seconds 60] [--check] [--kafka ADDRESS] [--seed N] [--stride 8]
//! figures giant   [--dir DIR] [--spans 1000000] [--processes] [--check]
//! ```
//! (or `./test.sh figures …`, which builds the node, too). Client and server share the machine. At the end stands what was asked for
//! beside what was measured; with `--check` the exit code is 1 if anything misses it, and the last lines name what.
//!
//! Without a word first: a node with every role ([`monolith`]). A run of 120 s and more shows merging: the table has a line every
//! `--every` seconds with memory, processor time, blocks and bytes on disk. `--settle` goes on watching without load before the end.
//!
//! `cluster`: a process for each role and the development broker, or the brokers at `--kafka` ([`cluster`]). `--seed` chooses the order in
//! which the processes are ended; `--stride 1` asks for all traces in the end, not for some of each request.
//!
//! `giant`: one trace of so many spans, written, searched, fetched and paged, by one process, or with `--processes` by one for each role,
//! and the memory that it takes ([`giant`]).
//!
//! How each figure is taken:
//!
//! * *ack*: from the moment a request was due, not from when it was sent, so a stall is not hidden by sending less; without a
//!   rate from when it was sent.
//! * *by ID* (version 2 of the API), *by search*: asked by threads of their own for requests that were just acknowledged, so that their
//!   time is in no acknowledgement. A search is repeated until it finds the trace. By ID a node is asked once, a cluster until
//!   all spans are there: it acknowledges what Kafka has.
//! * *CPU*: user and system time of the process from `/proc`, at the ends of the phases; the last from the zombie, so
//!   that the drain is in it. *RSS*: `VmRSS` and `VmHWM`.
//! * *stored*: bytes of all objects of live blocks after the clean end; blocks that merging has replaced are on disk beside them
//!   until their retention is over, and are shown apart.

mod asked;
mod cluster;
mod conditions;
mod disk;
mod giant;
mod monolith;
mod options;
mod run;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use asked::Asked;
use options::{Options, Subject};

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut asked = Asked::default();
    match options.subject {
        Subject::Monolith => monolith::measure(&options, &mut asked)?,
        Subject::Cluster => cluster::measure(&options, &mut asked)?,
        Subject::Giant => giant::measure(&options, &mut asked)?,
    }
    asked.print();
    let missed = asked.missed();
    if options.check && !missed.is_empty() {
        eprintln!("missed: {}", missed.join("; "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

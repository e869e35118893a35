//! Times sixteen kinds of queries against any server that speaks Tempo's HTTP API: latency, CPU and bytes read of each.
//!
//! ```text
//! queries make --into FOLDER [--blocks 10] [--spans 600000] [--first 0] [--seed 1] [--end UNIX] [--minutes 30] [--tenant single-tenant]
//! queries --http ADDR [--pid PID] [--runs 21] [--only TEXT] [--end UNIX | --ago 0] [--window 1800]
//!         [--otlp ADDR [--first 0]] [--spans 600000] [--seed 1]
//! queries --http ADDR --cold --serve "PROGRAM ARGUMENTS" [--data FOLDER] [--grace 120] [--settle 0] [--runs 5] …
//! ```
//!
//! `make` writes the spans as blocks into the folder of a local backend, each block a slice of time: one and the same folder serves
//! every server that reads vParquet5, with one, ten or a hundred blocks of the same spans. With `--otlp` spans are sent first;
//! `--first N` leaves out the first N requests, so that one half can lie in blocks (`make --spans 300000`) and the other be live
//! (`--otlp ADDR --first 600 --spans 600000`); whether it stayed live is seen in the number of blocks before and after, and it does
//! where `live_store.max_block_bytes` and `max_block_duration` leave room for it. The spans: about 470 bytes and 13 attributes each, 8 a trace, 500 a request, every
//! tenth an error with an event.
//!
//! Every run of a query has another literal of the same selectivity, or a window moved by seconds, so that no cache of whole answers
//! can help. With `--cold` the server is started anew for every run, and the kernel's cache of files is emptied behind that; the
//! output says how. CPU is what the threads of the process used between sending a query and having the answer, all other work in
//! it included; of threads that end meanwhile it is lost. `disk KB` is what the process made the kernel read from the disk, `read KB`
//! what it asked for in reading calls, requests from sockets included where a server reads them so.

mod cases;
mod cost;
mod make;
mod options;
mod run;
mod send;
mod server;

use options::{Command, Options};

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    match options.command {
        Command::Make => make::blocks(&options),
        Command::Ask => run::all(&options),
    }
}

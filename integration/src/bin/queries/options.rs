//! What the command line says.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use vivace_runtime::{Clock, SystemClock};

/// Spans of a request.
pub(crate) const SPANS: usize = 500;
/// Requests that differ in more than their ids and times.
pub(crate) const TEMPLATES: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Make,
    Ask,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) command: Command,
    /// Server to ask; checked to be there when asking.
    pub(crate) http: SocketAddr,
    pub(crate) otlp: Option<SocketAddr>,
    pub(crate) pid: Option<u32>,
    pub(crate) cold: bool,
    /// Command line of the server, where it is started here.
    pub(crate) serve: Vec<String>,
    /// Folder of the blocks, for emptying the kernel's cache without being root.
    pub(crate) data: Option<PathBuf>,
    /// Seconds that a server has for ending before it is killed: all it has to keep lies in blocks.
    pub(crate) grace: u64,
    /// Seconds to wait once a started server says that it is ready.
    pub(crate) settle: u64,
    /// Where blocks are made.
    pub(crate) into: PathBuf,
    pub(crate) blocks: u64,
    pub(crate) minutes: u64,
    pub(crate) tenant: String,
    /// Spans altogether, and the requests that are not sent or made.
    pub(crate) spans: u64,
    pub(crate) first: u64,
    pub(crate) runs: u64,
    /// The end of the data and of the windows, in seconds.
    pub(crate) end: u64,
    pub(crate) window: u64,
    pub(crate) seed: u64,
    pub(crate) only: String,
}

impl Options {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut words = words.peekable();
        let command = if words.next_if(|word| word == "make").is_some() { Command::Make } else { Command::Ask };
        let now = SystemClock.unix_nanos() / 1_000_000_000;
        let (mut http, mut into, mut runs) = (None, None, None);
        let mut options = Self {
            command,
            http: SocketAddr::from(([127, 0, 0, 1], 3200)),
            otlp: None,
            pid: None,
            cold: false,
            serve: Vec::new(),
            data: None,
            grace: 120,
            settle: 0,
            into: PathBuf::new(),
            blocks: 10,
            minutes: 30,
            tenant: "single-tenant".to_owned(),
            spans: 600_000,
            first: 0,
            runs: 0,
            end: now + 60,
            window: 1800,
            seed: 1,
            only: String::new(),
        };
        if command == Command::Make {
            // Old enough for servers that ask blocks only for what is older than some minutes.
            options.end = now - 2 * 3600;
        }
        while let Some(word) = words.next() {
            if word == "--cold" {
                options.cold = true;
                continue;
            }
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().with_context(|| format!("{word} {value}: not a number"));
            match word.as_str() {
                "--http" => http = Some(value.parse().context("--http")?),
                "--otlp" => options.otlp = Some(value.parse().context("--otlp")?),
                "--pid" => options.pid = Some(value.parse().context("--pid")?),
                "--serve" => options.serve = value.split_whitespace().map(str::to_owned).collect(),
                "--data" => options.data = Some(value.into()),
                "--grace" => options.grace = number()?,
                "--settle" => options.settle = number()?,
                "--into" => into = Some(value.into()),
                "--blocks" => options.blocks = number()?.max(1),
                "--minutes" => options.minutes = number()?.max(1),
                "--tenant" => options.tenant = value,
                "--spans" => options.spans = number()?,
                "--first" => options.first = number()?,
                "--runs" => runs = Some(number()?.max(1)),
                "--ago" => options.end = now.saturating_sub(number()?) + 60,
                "--end" => options.end = number()?,
                "--window" => options.window = number()?,
                "--seed" => options.seed = number()?,
                "--only" => options.only = value,
                other => bail!("unknown argument {other}; the head of this program's source lists what there is"),
            }
        }
        match command {
            Command::Make => options.into = into.context("--into FOLDER is needed")?,
            Command::Ask => options.http = http.context("--http ADDR is needed")?,
        }
        if options.cold && options.serve.is_empty() {
            bail!("--cold needs --serve \"PROGRAM ARGUMENTS\": the server is started anew for every run");
        }
        options.runs = runs.unwrap_or(if options.cold { 5 } else { 21 });
        Ok(options)
    }

    /// Requests altogether, those left out included.
    pub(crate) fn requests(&self) -> u64 {
        self.spans.div_ceil(SPANS as u64).max(1)
    }
}

//! Prints the figures of a monolithic node together with the conditions that they hold under.
//!
//! ```text
//! figures [--dir DIR] [--rate 15000] [--seconds 30] [--settle 0] [--every 10]
//! ```
//! (or `./test.sh figures …`, which builds the node, too). Client and server share the machine. A run of 120 s and more shows
//! merging: the table has a line every `--every` seconds with memory, processor time, blocks and bytes on disk. `--settle` goes on
//! watching without load before the end.
//!
//! How each figure is taken:
//!
//! * *ack*: from the moment a request was due, not from when it was sent, so a stall is not hidden by sending less; without a
//!   rate from when it was sent.
//! * *by ID*, *by search*: asked by threads of their own for requests that were just acknowledged, so that their time is in no
//!   acknowledgement. A search is repeated until it finds the trace.
//! * *CPU*: user and system time of the node's process from `/proc`, at the ends of the phases; the last from the zombie, so
//!   that the drain is in it. *RSS*: `VmRSS` and `VmHWM`.
//! * *stored*: bytes of all objects of live blocks after the clean end; blocks that merging has replaced are on disk beside them
//!   until their retention is over, and are shown apart.

mod conditions;
mod disk;
mod run;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vivace_integration::load;
use vivace_integration::process::{Node, Setup, Usage, binary, usage};

use run::Load;
use watch::Watch;

struct Args {
    dir: Option<PathBuf>,
    rate: f64,
    seconds: u64,
    settle: u64,
    every: u64,
}

fn args() -> anyhow::Result<Args> {
    let mut args = Args { dir: None, rate: 15_000.0, seconds: 30, settle: 0, every: 10 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--dir" => args.dir = Some(value.into()),
            "--rate" => args.rate = value.parse().context("--rate")?,
            "--seconds" => args.seconds = value.parse().context("--seconds")?,
            "--settle" => args.settle = value.parse().context("--settle")?,
            "--every" => args.every = value.parse::<u64>().context("--every")?.max(1),
            other => bail!("unknown argument {other}; known: --dir --rate --seconds --settle --every"),
        }
    }
    if !args.rate.is_finite() || args.rate <= 0.0 {
        bail!("--rate is {}: it must be above 0", args.rate);
    }
    Ok(args)
}

fn main() -> anyhow::Result<()> {
    let args = args()?;
    let scratch = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let (blocks, wal) = (scratch.path().join("data/blocks"), scratch.path().join("data/wal"));
    let binary = binary()?;
    println!("conditions");
    println!("  cores                 {}, shared with the client", std::thread::available_parallelism()?);
    println!("  data on               {}", conditions::file_system(scratch.path())?);
    let (p50, p99) = conditions::fdatasync(scratch.path())?;
    println!("  fdatasync of 4 kB     p50 {} p99 {}", ms(p50), ms(p99));
    println!(
        "  connections           {}, OTLP/HTTP protobuf, {} spans a request, {} attributes a span",
        run::CONNECTIONS,
        run::SPANS,
        load::ATTRIBUTES
    );
    println!("  binary                {} ({:.1} MB)", binary.display(), mb(std::fs::metadata(&binary)?.len()));

    println!("idle");
    let setup = Setup::new(scratch.path());
    let mut node = setup.spawn()?;
    println!("  start to ready        {}", ms(node.wait_ready()?));
    let start = node.usage()?.cpu;
    std::thread::park_timeout(Duration::from_secs(2));
    let idle = node.usage()?;
    println!("  RSS                   {:.1} MB", mb(idle.rss));

    println!("load at {} spans/s for {} s", args.rate, args.seconds);
    let client = usage(std::process::id())?.cpu;
    let load = Load::start(&node, Some(args.rate), args.seconds, 1)?;
    let mut watch = Watch::new(&blocks, &wal, Duration::from_secs(args.every), idle.cpu);
    while !load.is_over() {
        watch.look(&node, load.acknowledged())?;
    }
    let run = load.finish()?;
    run.print();
    let loaded = node.usage()?;
    let client = usage(std::process::id())?.cpu.saturating_sub(client);
    println!("  peak RSS              {:.1} MB", mb(loaded.peak_rss));
    println!("  client's CPU          {:.2} s, of the same cores", client.as_secs_f64());
    if args.settle > 0 {
        println!("no load for {} s", args.settle);
        let until = Instant::now() + Duration::from_secs(args.settle);
        while Instant::now() < until {
            watch.look(&node, run.spans)?;
        }
    }
    let settled = node.usage()?;
    println!("end");
    let (last, stopped) = stop(node)?;
    println!("  SIGTERM to exit       {}", ms(stopped));
    println!("  peak RSS, whole life  {:.1} MB", mb(last.peak_rss.max(settled.peak_rss)));
    let phases = [
        ("start", start),
        ("idle", idle.cpu.saturating_sub(start)),
        ("load", loaded.cpu.saturating_sub(idle.cpu)),
        ("settle", settled.cpu.saturating_sub(loaded.cpu)),
        ("drain", last.cpu.saturating_sub(settled.cpu)),
    ];
    let phases: Vec<String> = phases.iter().map(|(name, cpu)| format!("{name} {:.2} s", cpu.as_secs_f64())).collect();
    println!("  CPU by phase          {}", phases.join(", "));
    println!(
        "  CPU, whole life       {:.2} s = {:.0} spans per CPU-second",
        last.cpu.as_secs_f64(),
        run.spans as f64 / last.cpu.as_secs_f64()
    );
    let stored = disk::blocks(&blocks)?;
    println!(
        "  blocks                {} live by level {:?}, {} replaced",
        stored.live(),
        stored.levels,
        stored.replaced
    );
    println!(
        "  stored                {:.1} bytes a span ({:.1} MB in live blocks, {:.1} MB in replaced ones)",
        stored.live_bytes as f64 / run.spans as f64,
        mb(stored.live_bytes),
        mb(stored.replaced_bytes)
    );

    let seconds = args.seconds.min(60) / 3 + 1;
    println!("unpaced load for {seconds} s");
    let mut node = setup.spawn()?;
    node.wait_ready()?;
    let run = Load::start(&node, None, seconds, 2)?.finish()?;
    run.print();
    println!("  peak RSS              {:.1} MB", mb(node.usage()?.peak_rss));
    println!("kill -9 under that load");
    node.kill()?;
    let log = disk::size(&wal)?;
    let mut node = setup.spawn()?;
    println!("  start to ready        {} with {:.0} MB of log", ms(node.wait_ready()?), mb(log));
    drop(node);
    Ok(())
}

/// SIGTERM; the CPU time is read from the zombie, so that the drain is counted.
fn stop(node: Node) -> anyhow::Result<(Usage, Duration)> {
    let from = Instant::now();
    node.signal("TERM")?;
    let mut last = node.usage()?;
    let path = format!("/proc/{}/stat", node.pid());
    loop {
        let usage = node.usage()?;
        last = Usage { rss: last.rss, peak_rss: last.peak_rss.max(usage.peak_rss), cpu: usage.cpu };
        if std::fs::read_to_string(&path)?.contains(") Z ") {
            // Once more: the last look may have been before the end.
            last.cpu = node.usage()?.cpu;
            return Ok((last, from.elapsed()));
        }
        if from.elapsed() > Duration::from_secs(60) {
            bail!("SIGTERM did not end the process within 60 s");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

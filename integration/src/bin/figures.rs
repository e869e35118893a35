//! Prints the figures of a monolithic node together with the conditions that they hold under.
//!
//! `cargo run --release -p vivace-integration --bin figures -- [--bin PATH] [--dir DIR] [--rate 15000] [--seconds 30]`
//! (build the node with `cargo build --release` first). Client and server share the machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vivace_integration::http::Connection;
use vivace_integration::ledger::{self, Outcome};
use vivace_integration::load::{self, Template};
use vivace_integration::process::{Node, Setup, Usage, binary};
use vivace_runtime::{Clock, SystemClock};

const CONNECTIONS: usize = 4;
const SPANS: usize = 500;

struct Args {
    dir: Option<PathBuf>,
    rate: f64,
    seconds: u64,
}

fn args() -> anyhow::Result<Args> {
    let mut args = Args { dir: None, rate: 15_000.0, seconds: 30 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--dir" => args.dir = Some(value.into()),
            "--rate" => args.rate = value.parse().context("--rate")?,
            "--seconds" => args.seconds = value.parse().context("--seconds")?,
            other => bail!("unknown argument {other}; known: --dir --rate --seconds"),
        }
    }
    Ok(args)
}

fn main() -> anyhow::Result<()> {
    let args = args()?;
    let scratch = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let binary = binary()?;
    println!("conditions");
    println!("  cores                 {}", std::thread::available_parallelism()?);
    println!("  data on               {}", file_system(scratch.path())?);
    let (p50, p99) = fdatasync(scratch.path())?;
    println!("  fdatasync of 4 kB     p50 {} p99 {}", ms(p50), ms(p99));
    println!(
        "  connections           {CONNECTIONS}, OTLP/HTTP protobuf, {SPANS} spans a request, {} attributes a span",
        load::ATTRIBUTES
    );
    println!("  binary                {} ({:.1} MB)", binary.display(), mb(std::fs::metadata(&binary)?.len()));

    println!("idle");
    let setup = Setup::new(scratch.path());
    let mut node = setup.spawn()?;
    println!("  start to ready        {}", ms(node.wait_ready()?));
    std::thread::park_timeout(Duration::from_secs(2));
    println!("  RSS                   {:.1} MB", mb(node.usage()?.rss));

    println!("load at {} spans/s for {} s", args.rate, args.seconds);
    let run = load_at(node.addr("otlp_http")?, node.addr("http")?, Some(args.rate), args.seconds, 1)?;
    run.print();
    let usage = node.usage()?;
    println!("  peak RSS              {:.1} MB", mb(usage.peak_rss));
    let (usage, stopped) = stop(node)?;
    println!("  SIGTERM to exit       {}", ms(stopped));
    let blocks = size(&scratch.path().join("data/blocks"))?;
    println!("  peak RSS, whole life  {:.1} MB", mb(usage.peak_rss));
    println!(
        "  CPU, whole life       {:.2} s = {:.0} spans per CPU-second",
        usage.cpu.as_secs_f64(),
        run.spans as f64 / usage.cpu.as_secs_f64()
    );
    println!("  stored                {:.1} bytes a span", blocks as f64 / run.spans as f64);

    println!("unpaced load for {} s", args.seconds / 3 + 1);
    let mut node = setup.spawn()?;
    node.wait_ready()?;
    let run = load_at(node.addr("otlp_http")?, node.addr("http")?, None, args.seconds / 3 + 1, 2)?;
    run.print();
    println!("  peak RSS              {:.1} MB", mb(node.usage()?.peak_rss));
    println!("kill -9 under that load");
    node.kill()?;
    let log = size(&scratch.path().join("data/wal"))?;
    let mut node = setup.spawn()?;
    println!("  start to ready        {} with {:.0} MB of log", ms(node.wait_ready()?), mb(log));
    drop(node);
    Ok(())
}

#[derive(Default)]
struct Run {
    spans: u64,
    refused: u64,
    unknown: u64,
    seconds: f64,
    acks: Vec<Duration>,
    by_id: Vec<Duration>,
    not_found: u64,
    by_search: Vec<Duration>,
}

impl Run {
    fn print(&self) {
        println!("  acknowledged          {} spans, {:.0} spans/s", self.spans, self.spans as f64 / self.seconds);
        println!("  refused, unknown      {}, {} requests", self.refused, self.unknown);
        println!(
            "  ack                   p50 {} p99 {} max {}",
            q(&self.acks, 0.5),
            q(&self.acks, 0.99),
            q(&self.acks, 1.0)
        );
        println!(
            "  by ID after the ack   p50 {} p99 {}, not found {} of {}",
            q(&self.by_id, 0.5),
            q(&self.by_id, 0.99),
            self.not_found,
            self.by_id.len()
        );
        println!(
            "  found by search after p50 {} max {} ({} probes)",
            q(&self.by_search, 0.5),
            q(&self.by_search, 1.0),
            self.by_search.len()
        );
    }
}

fn load_at(otlp: SocketAddr, http: SocketAddr, rate: Option<f64>, seconds: u64, seed: u64) -> anyhow::Result<Run> {
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|worker| {
            std::thread::spawn(move || -> Run {
                let mut run = Run::default();
                let mut connection = None;
                let mut queries = Connection::open(http, Duration::from_secs(30)).ok();
                let mut templates: Vec<Template> = (0..16).map(|t| Template::new(seed * 1000 + t, SPANS)).collect();
                let gap = rate.map(|r| Duration::from_secs_f64(SPANS as f64 * CONNECTIONS as f64 / r));
                let mut next = started + gap.unwrap_or_default().mul_f64(worker as f64 / CONNECTIONS as f64);
                for turn in 0u64.. {
                    let now = Instant::now();
                    if now >= end {
                        break;
                    }
                    if gap.is_some() && next > now {
                        std::thread::park_timeout(next - now);
                        continue_until(next);
                    }
                    let sequence = turn * CONNECTIONS as u64 + worker as u64;
                    let slot = usize::try_from(turn % 16).unwrap_or(0);
                    let template = &mut templates[slot];
                    let body = template.fill(seed, sequence, unix_ns());
                    // Latency counts from when the request was due: a stall is not hidden by sending less.
                    let from = if gap.is_some() { next } else { Instant::now() };
                    let outcome = ledger::send(&mut connection, otlp, body);
                    run.acks.push(from.elapsed());
                    next += gap.unwrap_or_default();
                    match outcome {
                        Outcome::Acknowledged => run.spans += template.span_count() as u64,
                        Outcome::Refused(_) => run.refused += 1,
                        Outcome::Unknown => run.unknown += 1,
                    }
                    if outcome == Outcome::Acknowledged
                        && turn % 8 == 0
                        && let Some(queries) = &mut queries
                    {
                        let id = load::trace_id(seed, sequence, 0);
                        let from = Instant::now();
                        match ledger::fetch(queries, &id) {
                            Ok(spans) if spans.len() == template.spans_of(0).len() => {}
                            _ => run.not_found += 1,
                        }
                        run.by_id.push(from.elapsed());
                    }
                    if outcome == Outcome::Acknowledged
                        && worker == 0
                        && turn % 64 == 0
                        && let Some(queries) = &mut queries
                    {
                        let id = load::trace_id(seed, sequence, 0);
                        let query =
                            vivace_integration::http::encode(&format!("{{ trace:id = \"{}\" }}", ledger::hex(&id)));
                        let from = Instant::now();
                        while from.elapsed() < Duration::from_secs(10) {
                            let found = queries.send("GET", &format!("/api/search?q={query}"), &[], &[]);
                            if found.is_ok_and(|a| a.text().contains("rootTraceName")) {
                                break;
                            }
                        }
                        run.by_search.push(from.elapsed());
                    }
                }
                run
            })
        })
        .collect();
    let mut all = Run::default();
    for worker in workers {
        let Ok(run) = worker.join() else { bail!("a client thread panicked") };
        all.spans += run.spans;
        all.refused += run.refused;
        all.unknown += run.unknown;
        all.not_found += run.not_found;
        all.acks.extend(run.acks);
        all.by_id.extend(run.by_id);
        all.by_search.extend(run.by_search);
    }
    all.seconds = started.elapsed().as_secs_f64();
    all.acks.sort();
    all.by_id.sort();
    all.by_search.sort();
    Ok(all)
}

/// Parking may end early; the rest is waited for here.
fn continue_until(at: Instant) {
    while let Some(left) = at.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
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
            return Ok((last, from.elapsed()));
        }
        if from.elapsed() > Duration::from_secs(60) {
            bail!("SIGTERM did not end the process within 60 s");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn unix_ns() -> u64 {
    SystemClock.unix_nanos()
}

fn fdatasync(dir: &Path) -> anyhow::Result<(Duration, Duration)> {
    use std::io::Write;
    let mut file = std::fs::File::create(dir.join("probe"))?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let from = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(from.elapsed());
    }
    std::fs::remove_file(dir.join("probe"))?;
    times.sort();
    Ok((times[150], times[297]))
}

fn file_system(dir: &Path) -> anyhow::Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let best = mounts
        .lines()
        .filter_map(|l| {
            let mut words = l.split(' ');
            let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
            dir.starts_with(point).then(|| (point.len(), format!("{kind} ({device})")))
        })
        .max();
    Ok(best.map_or_else(|| "unknown".to_owned(), |(_, name)| name))
}

fn size(dir: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        total += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
    }
    Ok(total)
}

fn q(sorted: &[Duration], quantile: f64) -> String {
    if sorted.is_empty() {
        return "-".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let at = ((sorted.len() - 1) as f64 * quantile).round() as usize;
    ms(sorted[at])
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

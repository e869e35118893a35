//! The figures of a cluster: a process for each role, two live-stores, and the development broker or other brokers.
//!
//! ```text
//! all at once, nothing known to anybody   start to ready, first write on an empty ring
//! the distributor again                   first write where the ring is known
//! nothing                                 idle RSS
//! a load, few questions                   acknowledgements, RSS
//! until every trace is in a block         counted in the metadata: not one more, not one less
//! SIGTERM, one after the other            time to the exit, CPU of whole lives
//! all at once again
//! a load of half the time, many questions by ID, by search
//! no load                                 traces of every acknowledged request by ID
//! ```
//!
//! Questions cost CPU that is not of writing; so there are two loads, one for each kind of figure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use vivace_integration::cluster::{BROKER, Cluster};
use vivace_integration::http;
use vivace_integration::ledger::{self, Ledger, Outcome};
use vivace_integration::load::Template;
use vivace_integration::process::{PATIENCE, Stopped, threads, usage};
use vivace_runtime::{Clock, SystemClock};

use crate::asked::Asked;
use crate::options::Options;
use crate::run::{Load, Pace, Run, SPANS, Target, quantile_ms};
use crate::{conditions, disk, mb, ms};

const DISTRIBUTOR: &str = "distributor-0";
const FRONTEND: &str = "query-frontend-0";
const BLOCK_BUILDER: &str = "block-builder-0";

/// Seeds of the ids: of the first writes and of the load.
const FIRST_ON_EMPTY_RING: u64 = 101;
const FIRST_ON_KNOWN_RING: u64 = 102;
const FIRST_AGAIN: u64 = 103;
const LOAD: u64 = 1;
const LOAD_WITH_QUESTIONS: u64 = 2;

/// Idle until the memory of an idle process is read.
const SETTLE: Duration = Duration::from_secs(10);
const CYCLE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Connections that ask for traces in the end.
const CHECKERS: usize = 4;

/// As `configs/cluster.sh` has them; what is not named here, and not an address, name or folder, is as by default.
fn settings(kafka: Option<&str>) -> Value {
    let mut settings = json!({
        "live_store": { "partition_ring": { "min_partition_owners_duration": "10s" } },
        "block_builder": { "consume_cycle_duration": format!("{}s", CYCLE.as_secs()) },
        "storage": { "trace": { "blocklist_poll": "10s" } },
    });
    if let Some(address) = kafka {
        settings["ingest"] = json!({ "kafka": {
            "address": address,
            "topic": format!("vivace-figures-{}", std::process::id()),
            "auto_create_topic_default_partitions": 2,
        } });
    }
    settings
}

/// A cluster that is measured.
struct Measured {
    cluster: Cluster,
    /// Of the processes for roles.
    names: Vec<&'static str>,
    /// Of whose first lives the figures are.
    stopped: BTreeMap<&'static str, Stopped>,
}

/// Prints the figures of a cluster.
///
/// # Errors
/// Anything that fails: there are no figures then.
pub(crate) fn measure(options: &Options, asked: &mut Asked) -> anyhow::Result<()> {
    let scratch = options.scratch()?;
    conditions::print(scratch.path())?;
    println!(
        "  broker                {}",
        options.kafka.as_deref().unwrap_or("the development broker, a process on the same cores and disk")
    );
    println!("  partitions            2, each with one live-store; section of the block-builder {} s", CYCLE.as_secs());
    println!(
        "  allocator             MIMALLOC_PURGE_DELAY=0 for live-stores and block-builder, as in configs/cluster.sh"
    );
    let cluster = Cluster::of_each_role_with(scratch.path(), &settings(options.kafka.as_deref()));
    let names = Cluster::EACH_ROLE.iter().map(|(name, _)| *name).collect();
    let mut measured = Measured { cluster, names, stopped: BTreeMap::new() };
    if options.kafka.is_none() {
        measured.cluster.start(&[BROKER])?;
    }

    println!("start, all at once, nothing known to anybody");
    let mut books = vec![measured.first_write_on_an_empty_ring(asked)?];
    println!("start of the distributor alone");
    books.push(measured.first_write_on_a_known_ring(asked)?);
    println!("idle for {} s", SETTLE.as_secs());
    std::thread::park_timeout(SETTLE);
    measured.idle(asked)?;
    println!("load at {} spans/s for {} s, few questions", options.rate, options.seconds);
    let mut memory = Memory::default();
    let run = measured.load(&Pace::few_questions(Some(options.rate), options.seconds, LOAD), &mut memory)?;
    asked.at_most("ack p99", 50.0, quantile_ms(&run.acks, 0.99), "ms");
    let first_writes: usize = books.iter().map(|book| book.acknowledged().len()).sum();
    measured.all_in_blocks(&run, first_writes, &mut memory)?;
    memory.print(&measured)?;
    asked.at_most("RSS of all together, at most", 450.0, mb(memory.sum), "MB");
    println!("end");
    measured.stop_all(options.seed, asked)?;
    measured.processor_time(run.spans, asked);
    stored(&measured.cluster.bucket(), run.spans)?;

    println!("all at once again");
    books.push(measured.start_again(asked)?);
    let seconds = options.seconds.div_ceil(2);
    println!("load at {} spans/s for {seconds} s, many questions", options.rate);
    let mut memory = Memory::default();
    let pace = Pace::many_questions(options.rate, seconds, LOAD_WITH_QUESTIONS);
    let questions = measured.load(&pace, &mut memory)?;
    memory.print(&measured)?;
    asked.at_most("by ID after the ack, p99", 250.0, quantile_ms(&questions.by_id.times, 0.99), "ms");
    asked.at_most("by search after the ack, p99", 1500.0, quantile_ms(&questions.by_search.times, 0.99), "ms");
    let missing: u64 = [&run, &questions].iter().map(|run| run.by_id.missing + run.by_search.missing).sum();
    let refused: u64 = [&run, &questions].iter().map(|run| run.refused + run.unknown).sum();
    asked.at_most("not found by ID or search within 10 s of the ack", 0.0, missing as f64, "traces");
    asked.at_most("refused, or without an answer", 0.0, refused as f64, "requests");
    books.extend([run.book, questions.book]);
    measured.find(&books, options.stride)
}

impl Measured {
    fn target(&self) -> Target {
        Target { otlp: self.cluster.otlp_http(DISTRIBUTOR), http: self.cluster.http(FRONTEND) }
    }

    fn first_write_on_an_empty_ring(&mut self, asked: &mut Asked) -> anyhow::Result<Ledger> {
        for name in &self.names {
            self.cluster.spawn(name)?;
        }
        let otlp = self.target().otlp;
        let writing =
            std::thread::spawn(move || first_write(FIRST_ON_EMPTY_RING, otlp).map(|book| (book, Instant::now())));
        for (name, took) in self.all_ready()? {
            println!("  {name:<21} ready after {}", ms(took));
            asked.at_most(format!("start to ready, {name}"), 3.0, took.as_secs_f64(), "s");
        }
        let Ok(written) = writing.join() else { bail!("the thread of the first write panicked") };
        let (book, at) = written?;
        let took = self.cluster.node(DISTRIBUTOR).age().saturating_sub(at.elapsed());
        println!("  first write accepted  {}", ms(took));
        asked.at_most("first write accepted, empty ring", 16.0, took.as_secs_f64(), "s");
        Ok(book)
    }

    /// The time that each process took; all are looked at in turn.
    fn all_ready(&self) -> anyhow::Result<Vec<(&'static str, Duration)>> {
        let (began, mut waiting, mut ready) = (Instant::now(), self.names.clone(), Vec::new());
        while !waiting.is_empty() {
            waiting.retain(|name| {
                let is_ready = http::get(self.cluster.http(name), "/ready").is_ok_and(|answer| answer.status == 200);
                if is_ready {
                    ready.push((*name, self.cluster.node(name).age()));
                }
                !is_ready
            });
            if began.elapsed() > PATIENCE {
                let logs: Vec<String> = waiting.iter().map(|name| self.cluster.log(name).join("\n")).collect();
                bail!("not ready within {PATIENCE:?}: {waiting:?}\n{}", logs.join("\n"));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(ready)
    }

    fn first_write_on_a_known_ring(&mut self, asked: &mut Asked) -> anyhow::Result<Ledger> {
        let stopped = self.cluster.stop_counted(DISTRIBUTOR)?;
        println!("  SIGTERM to exit       {}", ms(stopped.took));
        self.cluster.spawn(DISTRIBUTOR)?;
        let book = first_write(FIRST_ON_KNOWN_RING, self.target().otlp)?;
        let took = self.cluster.node(DISTRIBUTOR).age();
        println!("  first write accepted  {}", ms(took));
        asked.at_most("first write accepted, ring known", 3.0, took.as_secs_f64(), "s");
        Ok(book)
    }

    fn idle(&self, asked: &mut Asked) -> anyhow::Result<()> {
        for name in &self.names {
            let pid = self.cluster.node(name).pid();
            let rss = mb(usage(pid)?.rss);
            println!("  {name:<21} RSS {rss:.1} MB, {} threads", threads(pid)?);
            asked.at_most(format!("idle RSS, {name}"), 20.0, rss, "MB");
        }
        Ok(())
    }

    fn load(&self, pace: &Pace, memory: &mut Memory) -> anyhow::Result<Run> {
        let client = usage(std::process::id())?.cpu;
        let load = Load::start(self.target(), pace);
        while !load.is_over() {
            memory.look(self)?;
            std::thread::park_timeout(LOOK_EVERY);
        }
        let run = load.finish()?;
        run.print();
        let client = usage(std::process::id())?.cpu.saturating_sub(client);
        println!("  client's CPU          {:.2} s, of the same cores", client.as_secs_f64());
        Ok(run)
    }

    /// Waits until the blocks hold what was acknowledged.
    fn all_in_blocks(&self, run: &Run, first_writes: usize, memory: &mut Memory) -> anyhow::Result<()> {
        let a_request = Template::new(LOAD, SPANS).trace_count();
        let least = (run.book.acknowledged().len() * a_request + first_writes) as u64;
        // What became of a request without an answer nobody knows.
        let most = least + run.unknown * a_request as u64;
        let (bucket, began) = (self.cluster.bucket(), Instant::now());
        let found = loop {
            let found = disk::blocks(&bucket)?.traces;
            if found >= least {
                break found;
            }
            if began.elapsed() > PATIENCE {
                let log = self.cluster.log(BLOCK_BUILDER).join("\n");
                bail!("{found} of {least} traces are in blocks after {PATIENCE:?}; log of the block-builder:\n{log}");
            }
            memory.look(self)?;
            std::thread::park_timeout(LOOK_EVERY);
        };
        if found > most {
            bail!("{found} traces are in blocks, {most} were sent at most: some are there twice");
        }
        println!("  all in blocks         {found} traces, {} after the load", ms(began.elapsed()));
        Ok(())
    }

    fn stop_all(&mut self, seed: u64, asked: &mut Asked) -> anyhow::Result<()> {
        let mut order = self.names.clone();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        println!("  in the order of seed  {seed}");
        for name in order {
            let stopped = self.cluster.stop_counted(name)?;
            println!("  {name:<21} SIGTERM to exit {}", ms(stopped.took));
            asked.at_most(format!("SIGTERM to exit, {name}"), 10.0, stopped.took.as_secs_f64(), "s");
            self.stopped.insert(name, stopped);
        }
        Ok(())
    }

    fn processor_time(&self, spans: u64, asked: &mut Asked) {
        println!("CPU of whole lives");
        for (role, least) in [
            ("distributor", Some(200_000.0)),
            ("live-store", Some(150_000.0)),
            ("block-builder", Some(150_000.0)),
            ("querier", None),
            ("query-frontend", None),
        ] {
            let lives = self.stopped.iter().filter(|(name, _)| name.starts_with(role));
            let (mut cpu, mut processes) = (Duration::ZERO, 0);
            for (_, stopped) in lives {
                cpu += stopped.usage.cpu;
                processes += 1;
            }
            let rate = spans as f64 / cpu.as_secs_f64();
            println!("  {role:<21} {:.2} s in {processes} = {rate:.0} spans per CPU-second", cpu.as_secs_f64());
            if let Some(least) = least {
                asked.at_least(format!("spans per CPU-second, {role}"), least, rate, "spans");
            }
        }
    }

    fn start_again(&mut self, asked: &mut Asked) -> anyhow::Result<Ledger> {
        for name in &self.names {
            self.cluster.spawn(name)?;
        }
        for (name, took) in self.all_ready()? {
            println!("  {name:<21} ready after {}", ms(took));
            asked.at_most(format!("start to ready again, {name}"), 3.0, took.as_secs_f64(), "s");
        }
        let began = Instant::now();
        let book = first_write(FIRST_AGAIN, self.target().otlp)?;
        println!("  first write accepted  {} later", ms(began.elapsed()));
        Ok(book)
    }

    /// Every `stride`-th trace of all acknowledged requests: whole, and every span once.
    fn find(&self, books: &[Ledger], stride: usize) -> anyhow::Result<()> {
        let (began, http, mut checked, mut requests) = (Instant::now(), self.target().http, 0, 0);
        for book in books {
            let acknowledged = book.acknowledged();
            requests += acknowledged.len();
            checked += book.verify_some(&acknowledged, http, &requests_of(book.seed), CHECKERS, stride)?;
        }
        println!(
            "  found by ID           {checked} traces, every {stride}. of each of {requests} requests, in {}",
            ms(began.elapsed())
        );
        self.cluster.check_logs(&[])
    }
}

/// Resident memory of all processes for roles at the moment when it was most together.
#[derive(Debug, Default)]
struct Memory {
    sum: u64,
    each: Vec<u64>,
}

impl Memory {
    fn look(&mut self, measured: &Measured) -> anyhow::Result<()> {
        let each: Vec<u64> = measured
            .names
            .iter()
            .map(|name| Ok(measured.cluster.node(name).usage()?.rss))
            .collect::<anyhow::Result<_>>()?;
        let sum = each.iter().sum();
        if sum > self.sum {
            *self = Self { sum, each };
        }
        Ok(())
    }

    fn print(&self, measured: &Measured) -> anyhow::Result<()> {
        println!("  RSS together, at most {:.1} MB", mb(self.sum));
        for (name, rss) in measured.names.iter().zip(&self.each) {
            let peak = measured.cluster.node(name).usage()?.peak_rss;
            println!("  {name:<21} RSS {:.1} MB then, {:.1} MB at most", mb(*rss), mb(peak));
        }
        Ok(())
    }
}

/// A request of that seed; all have the same traces.
fn requests_of(seed: u64) -> Template {
    Template::new(seed, if seed < FIRST_ON_EMPTY_RING { SPANS } else { 8 })
}

/// Sends one small request after the other until one is acknowledged.
fn first_write(seed: u64, otlp: SocketAddr) -> anyhow::Result<Ledger> {
    let (began, mut connection, mut template) = (Instant::now(), None, requests_of(seed));
    let mut book = Ledger { seed, ..Ledger::default() };
    for sequence in 0.. {
        let body = template.fill(seed, sequence, SystemClock.unix_nanos());
        let outcome = ledger::send(&mut connection, otlp, body);
        book.outcomes.insert(sequence, outcome);
        if outcome == Outcome::Acknowledged {
            break;
        }
        if began.elapsed() > PATIENCE {
            bail!("no write was accepted within {PATIENCE:?}: {outcome:?}");
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(book)
}

fn stored(bucket: &Path, spans: u64) -> anyhow::Result<()> {
    let stored = disk::blocks(bucket)?;
    println!(
        "stored                  {:.1} bytes a span in {} blocks ({:.1} MB)",
        stored.live_bytes as f64 / spans as f64,
        stored.live(),
        mb(stored.live_bytes)
    );
    Ok(())
}

//! One load: connections that send at a rate or as fast as they can, and threads that ask for what was acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::bail;
use vivace_integration::http::{Connection, encode};
use vivace_integration::ledger::{self, Outcome, hex};
use vivace_integration::load::{self, Template};
use vivace_integration::process::Node;
use vivace_runtime::{Clock, SystemClock};

use crate::ms;

pub(crate) const CONNECTIONS: usize = 4;
pub(crate) const SPANS: usize = 500;
/// Every so many requests of each connection one is asked for by id, and of the first connection by a search.
const BY_ID_EVERY: u64 = 8;
const BY_SEARCH_EVERY: u64 = 64;
/// A trace that no search finds for so long counts as not found.
const SEARCH_PATIENCE: Duration = Duration::from_secs(10);

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) spans: u64,
    refused: u64,
    unknown: u64,
    seconds: f64,
    acks: Vec<Duration>,
    by_id: Asked,
    by_search: Asked,
}

#[derive(Debug, Default)]
struct Asked {
    times: Vec<Duration>,
    missing: u64,
}

/// A trace to ask for, and how many spans it has.
struct Probe {
    id: [u8; 16],
    spans: usize,
}

/// A load at work.
pub(crate) struct Load {
    workers: Vec<JoinHandle<Run>>,
    by_id: JoinHandle<Asked>,
    by_search: JoinHandle<Asked>,
    acknowledged: Arc<AtomicU64>,
    running: Arc<AtomicUsize>,
}

impl Load {
    /// Starts to send for `seconds`, at `rate` spans a second over all connections, or without waiting.
    pub(crate) fn start(node: &Node, rate: Option<f64>, seconds: u64, seed: u64) -> anyhow::Result<Self> {
        let (otlp, http) = (node.addr("otlp_http")?, node.addr("http")?);
        let (acknowledged, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(CONNECTIONS)));
        // Probes that find no room are left out: asking must not slow the sending down.
        let (ids, by_id) = sync_channel(4);
        let (searches, by_search) = sync_channel(1);
        let by_id = std::thread::spawn(move || ask_by_id(http, &by_id));
        let by_search = std::thread::spawn(move || ask_by_search(http, &by_search));
        let began = Instant::now();
        let workers = (0..CONNECTIONS)
            .map(|number| {
                let sender = Sender {
                    number: number as u64,
                    seed,
                    otlp,
                    began,
                    end: began + Duration::from_secs(seconds),
                    gap: rate.map(|r| Duration::from_secs_f64(SPANS as f64 * CONNECTIONS as f64 / r)),
                    ids: ids.clone(),
                    searches: (number == 0).then(|| searches.clone()),
                    acknowledged: Arc::clone(&acknowledged),
                };
                let running = Arc::clone(&running);
                std::thread::spawn(move || {
                    let run = sender.send_all();
                    running.fetch_sub(1, Ordering::Relaxed);
                    run
                })
            })
            .collect();
        Ok(Self { workers, by_id, by_search, acknowledged, running })
    }

    /// Spans acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether every connection has sent its last.
    pub(crate) fn is_over(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0 || self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end.
    pub(crate) fn finish(self) -> anyhow::Result<Run> {
        let mut all = Run::default();
        for worker in self.workers {
            let Ok(run) = worker.join() else { bail!("a sending thread panicked") };
            all.spans += run.spans;
            all.refused += run.refused;
            all.unknown += run.unknown;
            all.seconds = all.seconds.max(run.seconds);
            all.acks.extend(run.acks);
        }
        let (Ok(by_id), Ok(by_search)) = (self.by_id.join(), self.by_search.join()) else {
            bail!("an asking thread panicked")
        };
        (all.by_id, all.by_search) = (by_id, by_search);
        all.acks.sort();
        all.by_id.times.sort();
        all.by_search.times.sort();
        Ok(all)
    }
}

struct Sender {
    number: u64,
    seed: u64,
    otlp: SocketAddr,
    began: Instant,
    end: Instant,
    gap: Option<Duration>,
    ids: SyncSender<Probe>,
    searches: Option<SyncSender<Probe>>,
    acknowledged: Arc<AtomicU64>,
}

impl Sender {
    fn send_all(self) -> Run {
        let mut run = Run::default();
        let mut connection = None;
        let mut templates: Vec<Template> = (0..16).map(|t| Template::new(self.seed * 1000 + t, SPANS)).collect();
        let gap = self.gap.unwrap_or_default();
        let mut due = self.began + gap.mul_f64(self.number as f64 / CONNECTIONS as f64);
        for turn in 0u64.. {
            if self.gap.is_some() {
                wait_until(due);
            }
            let now = Instant::now();
            if now >= self.end {
                break;
            }
            let sequence = turn * CONNECTIONS as u64 + self.number;
            let slot = usize::try_from(turn % 16).unwrap_or(0);
            let template = &mut templates[slot];
            let body = template.fill(self.seed, sequence, SystemClock.unix_nanos());
            let from = if self.gap.is_some() { due } else { Instant::now() };
            let outcome = ledger::send(&mut connection, self.otlp, body);
            run.acks.push(from.elapsed());
            due += gap;
            match outcome {
                Outcome::Acknowledged => {
                    run.spans += template.span_count() as u64;
                    self.acknowledged.fetch_add(template.span_count() as u64, Ordering::Relaxed);
                    self.probe(turn, sequence, template);
                }
                Outcome::Refused(_) => run.refused += 1,
                Outcome::Unknown => run.unknown += 1,
            }
        }
        run.seconds = self.began.elapsed().as_secs_f64();
        run
    }

    fn probe(&self, turn: u64, sequence: u64, template: &Template) {
        let probe = || Probe { id: load::trace_id(self.seed, sequence, 0), spans: template.spans_of(0).len() };
        if turn.is_multiple_of(BY_ID_EVERY) {
            self.ids.try_send(probe()).ok();
        }
        if let Some(searches) = self.searches.as_ref().filter(|_| turn.is_multiple_of(BY_SEARCH_EVERY)) {
            searches.try_send(probe()).ok();
        }
    }
}

/// Parking may end early; the rest is waited for as well.
fn wait_until(at: Instant) {
    while let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn ask_by_id(http: SocketAddr, probes: &Receiver<Probe>) -> Asked {
    let (mut asked, mut connection) = (Asked::default(), None);
    while let Ok(probe) = probes.recv() {
        let from = Instant::now();
        let found = open(&mut connection, http).and_then(|open| ledger::fetch(open, &probe.id));
        asked.times.push(from.elapsed());
        if found.as_ref().is_ok_and(|spans| spans.len() == probe.spans) {
            continue;
        }
        asked.missing += 1;
        connection = None;
    }
    asked
}

fn ask_by_search(http: SocketAddr, probes: &Receiver<Probe>) -> Asked {
    let (mut asked, mut connection) = (Asked::default(), None);
    while let Ok(probe) = probes.recv() {
        let query = encode(&format!("{{ trace:id = \"{}\" }}", hex(&probe.id)));
        let from = Instant::now();
        loop {
            let answer = open(&mut connection, http)
                .and_then(|open| Ok(open.send("GET", &format!("/api/search?q={query}"), &[], &[])?));
            match answer {
                Ok(answer) if answer.text().contains("rootTraceName") => break,
                Ok(_) => {}
                Err(_) => connection = None,
            }
            if from.elapsed() > SEARCH_PATIENCE {
                asked.missing += 1;
                break;
            }
        }
        asked.times.push(from.elapsed());
    }
    asked
}

fn open(connection: &mut Option<Connection>, http: SocketAddr) -> anyhow::Result<&mut Connection> {
    if connection.is_none() {
        *connection = Some(Connection::open(http, Duration::from_secs(30))?);
    }
    Ok(connection.as_mut().expect("it was just opened"))
}

impl Run {
    pub(crate) fn print(&self) {
        println!("  acknowledged          {} spans, {:.0} spans/s", self.spans, self.spans as f64 / self.seconds);
        println!("  refused, unknown      {}, {} requests", self.refused, self.unknown);
        println!(
            "  ack                   p50 {} p99 {} max {} ({} requests)",
            quantile(&self.acks, 0.5),
            quantile(&self.acks, 0.99),
            quantile(&self.acks, 1.0),
            self.acks.len()
        );
        println!(
            "  by ID after the ack   p50 {} p99 {}, not found {} of {}",
            quantile(&self.by_id.times, 0.5),
            quantile(&self.by_id.times, 0.99),
            self.by_id.missing,
            self.by_id.times.len()
        );
        println!(
            "  found by search after p50 {} max {}, not found {} of {}",
            quantile(&self.by_search.times, 0.5),
            quantile(&self.by_search.times, 1.0),
            self.by_search.missing,
            self.by_search.times.len()
        );
    }
}

fn quantile(sorted: &[Duration], quantile: f64) -> String {
    if sorted.is_empty() {
        return "-".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let at = ((sorted.len() - 1) as f64 * quantile).round() as usize;
    ms(sorted[at])
}

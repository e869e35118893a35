//! One load: connections that send at a rate or as fast as they can, and threads that ask for what was acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::bail;
use vivace_integration::http::{Connection, encode};
use vivace_integration::ledger::{self, Ledger, Outcome, hex};
use vivace_integration::load::{self, Template};
use vivace_runtime::{Clock, SystemClock};

use crate::ms;

pub(crate) const CONNECTIONS: usize = 4;
pub(crate) const SPANS: usize = 500;
/// A trace that no search finds for so long counts as not found.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a load goes and who is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) otlp: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// How much of everything.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Spans a second over all connections; absent: as fast as they can.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: u64,
    /// Of the ids.
    pub(crate) seed: u64,
    /// Every so many requests of a connection one is asked for by id.
    pub(crate) by_id_every: u64,
    /// So often by a search; only of the first so many connections.
    pub(crate) by_search_every: u64,
    pub(crate) searching: usize,
    /// How long a trace may not be found by id before that counts.
    pub(crate) by_id_patience: Duration,
}

impl Pace {
    /// What a node acknowledges is found at once.
    pub(crate) fn of_a_node(rate: Option<f64>, seconds: u64, seed: u64) -> Self {
        Self { by_id_patience: Duration::ZERO, ..Self::few_questions(rate, seconds, seed) }
    }

    /// So that their cost is little against that of writing.
    pub(crate) fn few_questions(rate: Option<f64>, seconds: u64, seed: u64) -> Self {
        Self { rate, seconds, seed, by_id_every: 8, by_search_every: 64, searching: 1, by_id_patience: PATIENCE }
    }

    /// Enough for a 99th percentile.
    pub(crate) fn many_questions(rate: f64, seconds: u64, seed: u64) -> Self {
        let few = Self::few_questions(Some(rate), seconds, seed);
        Self { by_id_every: 2, by_search_every: 4, searching: CONNECTIONS, ..few }
    }
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) spans: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    seconds: f64,
    /// In order of their length, as all times here.
    pub(crate) acks: Vec<Duration>,
    pub(crate) by_id: Found,
    pub(crate) by_search: Found,
    pub(crate) book: Ledger,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) times: Vec<Duration>,
    /// Not found when first asked for.
    pub(crate) late: u64,
    /// Not found as long as it was waited for.
    pub(crate) missing: u64,
}

/// A trace to ask for, how many spans it has, and when it was acknowledged.
struct Probe {
    id: [u8; 16],
    spans: usize,
    acknowledged: Instant,
}

/// A load at work.
pub(crate) struct Load {
    workers: Vec<JoinHandle<Run>>,
    by_id: JoinHandle<Found>,
    by_search: JoinHandle<Found>,
    acknowledged: Arc<AtomicU64>,
    running: Arc<AtomicUsize>,
}

impl Load {
    /// Starts to send.
    pub(crate) fn start(target: Target, pace: &Pace) -> Self {
        let (acknowledged, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(CONNECTIONS)));
        // Probes that find no room are left out: asking must not slow the sending down.
        let (ids, by_id) = sync_channel(4);
        let (searches, by_search) = sync_channel(1);
        let patience = pace.by_id_patience;
        let by_id = std::thread::spawn(move || ask(target.http, &by_id, patience, by_id_finds));
        let by_search = std::thread::spawn(move || ask(target.http, &by_search, PATIENCE, search_finds));
        let began = Instant::now();
        let workers = (0..CONNECTIONS)
            .map(|number| {
                let sender = Sender {
                    number: number as u64,
                    otlp: target.otlp,
                    began,
                    end: began + Duration::from_secs(pace.seconds),
                    gap: pace.rate.map(|r| Duration::from_secs_f64(SPANS as f64 * CONNECTIONS as f64 / r)),
                    ids: ids.clone(),
                    searches: (number < pace.searching).then(|| searches.clone()),
                    acknowledged: Arc::clone(&acknowledged),
                    pace: pace.clone(),
                };
                let running = Arc::clone(&running);
                std::thread::spawn(move || {
                    let run = sender.send_all();
                    running.fetch_sub(1, Ordering::Relaxed);
                    run
                })
            })
            .collect();
        Self { workers, by_id, by_search, acknowledged, running }
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
            all.book.seed = run.book.seed;
            all.book.outcomes.extend(run.book.outcomes);
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
    otlp: SocketAddr,
    began: Instant,
    end: Instant,
    gap: Option<Duration>,
    ids: SyncSender<Probe>,
    searches: Option<SyncSender<Probe>>,
    acknowledged: Arc<AtomicU64>,
    pace: Pace,
}

impl Sender {
    fn send_all(self) -> Run {
        let seed = self.pace.seed;
        let mut run = Run { book: Ledger { seed, ..Ledger::default() }, ..Run::default() };
        let mut connection = None;
        let mut templates: Vec<Template> = (0..16).map(|t| Template::new(seed * 1000 + t, SPANS)).collect();
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
            let body = template.fill(seed, sequence, SystemClock.unix_nanos());
            let from = if self.gap.is_some() { due } else { Instant::now() };
            let outcome = ledger::send(&mut connection, self.otlp, body);
            run.acks.push(from.elapsed());
            due += gap;
            run.book.outcomes.insert(sequence, outcome);
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
        let acknowledged = Instant::now();
        let probe = || Probe {
            acknowledged,
            id: load::trace_id(self.pace.seed, sequence, 0),
            spans: template.spans_of(0).len(),
        };
        if turn.is_multiple_of(self.pace.by_id_every) {
            self.ids.try_send(probe()).ok();
        }
        if let Some(searches) = self.searches.as_ref().filter(|_| turn.is_multiple_of(self.pace.by_search_every)) {
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

/// Asks for each probe until it is found or `patience` is over.
fn ask(
    http: SocketAddr,
    probes: &Receiver<Probe>,
    patience: Duration,
    finds: impl Fn(&mut Connection, &Probe) -> anyhow::Result<bool>,
) -> Found {
    let (mut found, mut connection) = (Found::default(), None);
    while let Ok(probe) = probes.recv() {
        let from = probe.acknowledged;
        for turn in 0u64.. {
            match open(&mut connection, http).and_then(|open| finds(open, &probe)) {
                Ok(true) => break,
                Ok(false) => {}
                Err(_) => connection = None,
            }
            found.late += u64::from(turn == 0);
            if from.elapsed() >= patience {
                found.missing += 1;
                break;
            }
        }
        found.times.push(from.elapsed());
    }
    found
}

fn by_id_finds(connection: &mut Connection, probe: &Probe) -> anyhow::Result<bool> {
    Ok(ledger::fetch_v2(connection, &probe.id)?.len() == probe.spans)
}

fn search_finds(connection: &mut Connection, probe: &Probe) -> anyhow::Result<bool> {
    let query = encode(&format!("{{ trace:id = \"{}\" }}", hex(&probe.id)));
    let answer = connection.send("GET", &format!("/api/search?q={query}"), &[], &[])?;
    Ok(answer.text().contains("rootTraceName"))
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
        self.by_id.print("by ID after the ack  ");
        self.by_search.print("found by search after");
    }
}

impl Found {
    fn print(&self, what: &str) {
        println!(
            "  {what} p50 {} p99 {} max {}, not at first {}, not found {} of {}",
            quantile(&self.times, 0.5),
            quantile(&self.times, 0.99),
            quantile(&self.times, 1.0),
            self.late,
            self.missing,
            self.times.len()
        );
    }
}

fn quantile(sorted: &[Duration], quantile: f64) -> String {
    at(sorted, quantile).map_or_else(|| "-".to_owned(), ms)
}

/// In milliseconds; of nothing not a number.
pub(crate) fn quantile_ms(sorted: &[Duration], quantile: f64) -> f64 {
    at(sorted, quantile).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn at(sorted: &[Duration], quantile: f64) -> Option<Duration> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let at = (sorted.len().saturating_sub(1) as f64 * quantile).round() as usize;
    sorted.get(at).copied()
}

//! A client that sends all the time, as a collector with several addresses does, and notes what became of every request.
//!
//! A connection that is refused was no request: the next address is tried once. A connection that breaks later leaves the outcome
//! unknown; it is not sent again, so that a span that is there twice is the cluster's doing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use vivace_runtime::{Clock, SystemClock};

use crate::http::Connection;
use crate::ledger::{self, Ledger, Outcome};
use crate::load::Template;

/// Connections at once.
const CONNECTIONS: usize = 4;

/// How to send.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Seed of the ids.
    pub seed: u64,
    /// Spans of a request; a trace has eight.
    pub spans: usize,
    /// Pause between two requests of one connection.
    pub pace: Duration,
    /// The distributors' addresses for OTLP over HTTP.
    pub targets: Vec<SocketAddr>,
}

/// Which requests were acknowledged so far, and when, in that order. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(Arc<Mutex<Vec<(u64, Instant)>>>);

/// So many of the newest are as likely as all others together.
const NEWEST: usize = 50;

impl Acknowledged {
    fn add(&self, sequence: u64) {
        // The time is taken under the lock, so that the order is that of the times.
        let mut all = self.0.lock();
        all.push((sequence, Instant::now()));
    }

    fn count(&self) -> u64 {
        self.0.lock().len() as u64
    }

    /// One that was acknowledged before `time`, often one of the newest of them.
    pub fn before(&self, time: Instant, rng: &mut StdRng) -> Option<u64> {
        let all = self.0.lock();
        let settled = all.partition_point(|(_, at)| *at < time);
        let from = if rng.random() { settled.saturating_sub(NEWEST) } else { 0 };
        (settled > 0).then(|| all[rng.random_range(from..settled)].0)
    }
}

/// Traffic that runs.
#[derive(Debug)]
pub struct Sending {
    seed: u64,
    next: Arc<AtomicU64>,
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<(u64, Outcome)>>>,
}

impl Traffic {
    /// Begins with the request `first`.
    #[must_use]
    pub fn begin(&self, first: u64) -> Sending {
        let next = Arc::new(AtomicU64::new(first));
        let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
        let workers = (0..CONNECTIONS)
            .map(|number| {
                let (traffic, next) = (self.clone(), Arc::clone(&next));
                let (acknowledged, stop) = (acknowledged.clone(), Arc::clone(&stop));
                std::thread::spawn(move || traffic.work(number, &next, &acknowledged, &stop))
            })
            .collect();
        Sending { seed: self.seed, next, acknowledged, stop, workers }
    }

    fn work(
        &self,
        number: usize,
        next: &AtomicU64,
        acknowledged: &Acknowledged,
        stop: &AtomicBool,
    ) -> Vec<(u64, Outcome)> {
        let mut template = Template::new(self.seed, self.spans);
        let mut open: Option<(Connection, SocketAddr)> = None;
        let (mut target, mut outcomes) = (number, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let sequence = next.fetch_add(1, Ordering::Relaxed);
            let body = template.fill(self.seed, sequence, SystemClock.unix_nanos());
            for _ in 0..self.targets.len() {
                if open.is_some() {
                    break;
                }
                let addr = self.targets[target % self.targets.len()];
                open = Connection::open(addr, Duration::from_secs(20)).ok().map(|connection| (connection, addr));
                target += usize::from(open.is_none());
            }
            if let Some((connection, addr)) = open.take() {
                let mut connection = Some(connection);
                let outcome = ledger::send(&mut connection, addr, body);
                if outcome == Outcome::Acknowledged {
                    acknowledged.add(sequence);
                }
                outcomes.push((sequence, outcome));
                open = connection.map(|connection| (connection, addr));
            }
            std::thread::park_timeout(self.pace);
        }
        outcomes
    }
}

impl Sending {
    /// Requests acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.count()
    }

    /// Which requests these are, now and later.
    #[must_use]
    pub fn book(&self) -> Acknowledged {
        self.acknowledged.clone()
    }

    /// Waits until so many more are acknowledged.
    ///
    /// # Errors
    /// Not within `patience`.
    pub fn wait_for_more(&self, more: u64, patience: Duration) -> anyhow::Result<()> {
        let (from, began) = (self.acknowledged(), std::time::Instant::now());
        while self.acknowledged() < from + more {
            if began.elapsed() > patience {
                anyhow::bail!("{} of {more} requests acknowledged within {patience:?}", self.acknowledged() - from);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Stops; the outcomes so far, and the number of the next request.
    ///
    /// # Panics
    /// If a worker did.
    #[must_use]
    pub fn end(self) -> (Ledger, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut book = Ledger { seed: self.seed, ..Ledger::default() };
        for worker in self.workers {
            book.outcomes.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        (book, self.next.load(Ordering::Relaxed))
    }
}

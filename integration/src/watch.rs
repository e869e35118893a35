//! Asks for traces that were acknowledged, by id and by search, and judges the answers.
//!
//! An answer is whole, or it says what is missing. Everything else is wrong: a trace that is "not found", a span that is missing from
//! a whole answer or that is there twice, an error. [`Watch`] does so all the time while something happens to the cluster.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use vivace_protocol::tempopb;
use vivace_runtime::{Clock, SystemClock};

use crate::http::{Connection, encode};
use crate::ledger::hex;
use crate::load::{self, Template};
use crate::traffic::Acknowledged;

/// A trace is asked for when it is this old: by then a live-store has it, or knows that it lags.
const SETTLED: Duration = Duration::from_secs(3);
/// Between two questions of one connection.
const PACE: Duration = Duration::from_millis(20);
/// Connections at once: one asks by id, the other by search.
const CONNECTIONS: usize = 2;
/// No answer may take longer.
const ANSWERED: Duration = Duration::from_secs(30);

/// A search goes back so far.
const WINDOW: Duration = Duration::from_secs(3600);

/// What an answer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Everything was read, and everything is there.
    Whole,
    /// Something was not read: what, and why.
    Partial(String),
}

/// Asks one query-frontend.
#[derive(Debug)]
pub struct Asker {
    seed: u64,
    template: Template,
    frontend: SocketAddr,
    connection: Option<Connection>,
}

impl Asker {
    /// For requests of this seed and size.
    #[must_use]
    pub fn new(seed: u64, spans: usize, frontend: SocketAddr) -> Self {
        Self { seed, template: Template::new(seed, spans), frontend, connection: None }
    }

    fn get(&mut self, path: &str, accept: &str) -> anyhow::Result<crate::http::Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.frontend, ANSWERED).context("connect")?,
        };
        let answer = connection.send("GET", path, &[("Accept", accept)], &[]).context("no answer")?;
        self.connection = Some(connection);
        ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
        Ok(answer)
    }

    /// Asks for one trace of a request by its id. `more` goes behind the path, for instance `?mode=blocks`.
    ///
    /// # Errors
    /// The answer is wrong.
    pub fn by_id(&mut self, sequence: u64, trace: usize, more: &str) -> anyhow::Result<Said> {
        let id = load::trace_id(self.seed, sequence, trace);
        let path = format!("/api/v2/traces/{}{more}", hex(&id));
        let answer = self.get(&path, "application/protobuf")?;
        let answer = tempopb::TraceByIdResponse::decode(answer.body.as_slice()).context("decode the answer")?;
        let spans = answer.trace.unwrap_or_default().resource_spans;
        let spans = spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
        let found: Vec<Vec<u8>> = spans.map(|span| span.span_id.to_vec()).collect();
        let expected: BTreeSet<Vec<u8>> =
            self.template.spans_of(trace).into_iter().map(|span| load::span_id(&id, span).to_vec()).collect();
        let unique: BTreeSet<Vec<u8>> = found.iter().cloned().collect();
        ensure!(unique.len() == found.len(), "a span is there twice");
        ensure!(unique.is_subset(&expected), "spans that were never sent");
        if answer.status == i32::from(tempopb::PartialStatus::Partial) {
            ensure!(!answer.message.is_empty(), "a partial answer does not say what is missing");
            return Ok(Said::Partial(answer.message));
        }
        ensure!(unique == expected, "{} of {} spans in a whole answer", unique.len(), expected.len());
        Ok(Said::Whole)
    }

    /// Searches for one trace of a request.
    ///
    /// # Errors
    /// The answer is wrong.
    pub fn by_search(&mut self, sequence: u64, trace: usize) -> anyhow::Result<Said> {
        let id = hex(&load::trace_id(self.seed, sequence, trace));
        let query = encode(&format!("{{ trace:id = \"{id}\" }}"));
        // Without a window the newest minutes are meant.
        let now = SystemClock.unix().as_secs();
        let window = format!("start={}&end={}", now.saturating_sub(WINDOW.as_secs()), now + 1);
        let answer = self.get(&format!("/api/search?q={query}&{window}"), "application/json")?;
        let coverage = answer.header("x-vivace-coverage").unwrap_or_default().to_owned();
        let json = answer.json()?;
        let traces = json["traces"].as_array().map_or(&[][..], Vec::as_slice);
        let is_partial = coverage.contains("skipped=");
        let sent = self.template.spans_of(trace).len() as u64;
        match traces {
            [] if is_partial => {}
            [one] => {
                let matched = one["spanSet"]["matched"].as_u64().unwrap_or(0);
                ensure!(matched <= sent, "{matched} spans match, of {sent} that were sent: {one}");
                ensure!(is_partial || matched == sent, "{matched} of {sent} spans match in a whole answer: {one}");
            }
            [] => bail!("not found, and nothing is said to be missing ({coverage})"),
            [..] => bail!("{} traces have one id", traces.len()),
        }
        Ok(if is_partial { Said::Partial(coverage) } else { Said::Whole })
    }

    /// Asks for all traces of these requests in both ways; what was said of those that are not whole.
    ///
    /// # Errors
    /// An answer is wrong; names the request.
    pub fn missing(&mut self, sequences: &[u64]) -> anyhow::Result<Vec<String>> {
        let mut missing = Vec::new();
        for &sequence in sequences {
            for trace in 0..self.template.trace_count() {
                let asked = || format!("request {sequence}, trace {trace}");
                for said in [
                    self.by_id(sequence, trace, "").with_context(asked)?,
                    self.by_search(sequence, trace).with_context(asked)?,
                ] {
                    match said {
                        Said::Whole => {}
                        Said::Partial(what) => missing.push(what),
                    }
                }
            }
        }
        Ok(missing)
    }
}

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// So many whole answers.
    pub whole: u64,
    /// What partial answers said.
    pub partial: Vec<Partial>,
    /// What was wrong, and when.
    pub wrong: Vec<(Instant, String)>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

/// A partial answer.
#[derive(Debug, Clone)]
pub struct Partial {
    /// When it was asked for.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// How it was asked for, and what it said.
    pub said: String,
}

/// How to ask.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Seed of the ids.
    pub seed: u64,
    /// Spans of a request.
    pub spans: usize,
    /// The query-frontend.
    pub frontend: SocketAddr,
}

/// A watch that goes on.
#[derive(Debug)]
pub struct Watching {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to ask for what `acknowledged` says.
    #[must_use]
    pub fn begin(&self, acknowledged: &Acknowledged) -> Watching {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let workers = (0..CONNECTIONS)
            .map(|number| {
                let (watch, acknowledged) = (self.clone(), acknowledged.clone());
                let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
                std::thread::spawn(move || watch.work(number, &acknowledged, &seen, &stop))
            })
            .collect();
        Watching { seen, stop, workers }
    }

    fn work(&self, number: usize, acknowledged: &Acknowledged, seen: &Mutex<Seen>, stop: &AtomicBool) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ number as u64);
        let mut asker = Asker::new(self.seed, self.spans, self.frontend);
        let traces = asker.template.trace_count();
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(PACE);
            let Some(sequence) = acknowledged.before(Instant::now() - SETTLED, &mut rng) else { continue };
            let (trace, began) = (rng.random_range(0..traces), Instant::now());
            let (how, said) = match number {
                0 => ("by id", asker.by_id(sequence, trace, "")),
                _ => ("by search", asker.by_search(sequence, trace)),
            };
            let mut seen = seen.lock();
            seen.slowest = seen.slowest.max(began.elapsed());
            match said {
                Ok(Said::Whole) => seen.whole += 1,
                Ok(Said::Partial(what)) => {
                    let (took, said) = (began.elapsed(), format!("{how}: {what}"));
                    seen.partial.push(Partial { began, took, said });
                }
                Err(error) => {
                    let id = hex(&load::trace_id(self.seed, sequence, trace));
                    seen.wrong.push((began, format!("request {sequence}, trace {id} {how}: {error:#}")));
                }
            }
        }
    }
}

impl Watching {
    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Waits until so many more answers were whole.
    ///
    /// # Errors
    /// Not within `patience`; shows what was seen instead.
    pub fn wait_for_whole(&self, more: u64, patience: Duration) -> anyhow::Result<()> {
        let (from, began) = (self.seen.lock().whole, Instant::now());
        while self.seen.lock().whole < from + more {
            if began.elapsed() > patience {
                bail!("{} of {more} whole answers within {patience:?}: {:?}", self.seen().whole - from, self.seen());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Panics
    /// If a worker did.
    #[must_use]
    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        self.seen.lock().clone()
    }
}

//! Conductor: takes the partitions in turn, one section at a time, from reading to commit.
//!
//! Owns the order of visits. Consumes nothing; asks consumers, the flusher and the committer. One section is in memory at a time,
//! whatever the number of partitions.
//! On restart: a section under way is given up; its consumer finds the end of the chain again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;
use vivace_runtime::{Clock, Cx, Deadline, Mailbox, Part, Rng};
use vivace_storage::{Commit, CommitName};

use crate::committer::Settle;
use crate::consumer::{Advance, Collect, Collected};
use crate::flusher::Write;
use crate::metrics::Metrics;
use crate::state::{Cycle, Next, Outcome, Section, Visit};

/// A section is collected, or its partition tried again later.
const COLLECT_DEADLINE: Duration = Duration::from_secs(600);
/// From the first object of a block to its commit object; what cleans up waits three times as long.
const COMMIT_WITHIN: Duration = Duration::from_secs(1200);
/// For an answer of one's own consumer.
const NEARBY: Duration = Duration::from_secs(30);
/// A block that could not be written is tried again after this; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// At the end of the process, what is being written may take this long; then it is left to the next start.
const FINISH_WITHIN: Duration = Duration::from_secs(6);

/// How to reach the others.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) collect: BTreeMap<i32, Mailbox<Collect, Collected>>,
    pub(crate) advance: BTreeMap<i32, Mailbox<Advance, ()>>,
    pub(crate) flusher: Mailbox<Write, Commit>,
    pub(crate) committer: Mailbox<Settle, Outcome>,
    pub(crate) metrics: Metrics,
}

/// The part.
pub(crate) struct Conductor {
    hands: Hands,
    cycle: Cycle,
    rng: Rng,
    /// The partition that is being worked on.
    at: Option<i32>,
    cycle_began: Option<std::time::Instant>,
    stopping: CancellationToken,
    /// Tells the consumers that the component ends.
    ending: CancellationToken,
    idle: Option<oneshot::Sender<()>>,
    last_error: Option<String>,
}

impl Conductor {
    pub(crate) fn new(hands: Hands, period: Duration, rng: Rng, ending: CancellationToken) -> Self {
        let cycle = Cycle::new(period, hands.collect.keys().copied());
        Self {
            hands,
            cycle,
            rng,
            at: None,
            cycle_began: None,
            stopping: CancellationToken::new(),
            ending,
            idle: None,
            last_error: None,
        }
    }

    fn go_on(&mut self, cx: &mut Cx<Self>) {
        if self.stopping.is_cancelled() {
            return self.finish();
        }
        match self.cycle.next(unix_ms(&**cx.clock())) {
            Next::Section(partition) => {
                self.cycle_began.get_or_insert_with(|| cx.now());
                self.visit(partition, cx);
            }
            Next::Rest(rest) => {
                if let Some(began) = self.cycle_began.take() {
                    self.hands.metrics.cycle(cx.now().saturating_duration_since(began));
                }
                cx.after(rest, Self::go_on);
            }
        }
    }

    fn visit(&mut self, partition: i32, cx: &mut Cx<Self>) {
        self.at = Some(partition);
        let mut nonce = [0; 16];
        self.rng.fill(&mut nonce);
        let nonce = uuid::Builder::from_random_bytes(nonce).into_uuid();
        let (hands, stopping, clock) = (self.hands.clone(), self.stopping.clone(), Arc::clone(cx.clock()));
        let work = async move { section(&hands, partition, nonce, &stopping, &clock).await };
        cx.spawn(work, move |part, visited, cx| {
            part.at = None;
            part.hands.metrics.holds(0);
            let visit = match visited {
                Ok(visit) => {
                    part.last_error = None;
                    visit
                }
                Err(status) => {
                    tracing::warn!(partition, error = status.message(), "make a section; trying again later");
                    part.last_error = Some(format!("partition {partition}: {}", status.message()));
                    Visit::Failed
                }
            };
            part.cycle.visited(partition, visit, unix_ms(&**cx.clock()));
            part.go_on(cx);
        });
    }

    fn finish(&mut self) {
        if let Some(idle) = self.idle.take() {
            // Nobody waits any more when the end's deadline has passed.
            idle.send(()).ok();
        }
    }
}

fn unix_ms(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.unix().as_millis()).unwrap_or(i64::MAX)
}

/// One section of one partition, from reading to commit.
async fn section(
    hands: &Hands,
    partition: i32,
    nonce: Uuid,
    stopping: &CancellationToken,
    clock: &Arc<dyn Clock>,
) -> Result<Visit, Status> {
    let (Some(collect), Some(advance)) = (hands.collect.get(&partition), hands.advance.get(&partition)) else {
        return Err(Status::internal("no consumer"));
    };
    let began = clock.now();
    let collected = tokio::select! {
        collected = collect.ask(Collect, Deadline::after(COLLECT_DEADLINE)) => collected,
        () = stopping.cancelled() => return Ok(Visit::UpToDate),
    };
    let Collected { section, source } = collected.inspect_err(|_| hands.metrics.failed("read"))?;
    if section.is_empty() {
        return Ok(Visit::UpToDate);
    }
    // Nothing is written yet.
    if stopping.is_cancelled() {
        return Ok(Visit::UpToDate);
    }
    hands.metrics.holds(section.bytes);
    let name = CommitName { log_id: source.log.id().to_string(), partition, first: section.first };
    let empty = Commit::new(name, section.end, nonce);
    let section = Arc::new(section);
    let until = clock.now() + COMMIT_WITHIN;
    let commit = written(hands, &section, &empty, until, stopping, &**clock).await?;
    let (blocks, quarantined) = (commit.blocks.clone(), commit.quarantined.len());
    let settle = Settle { commit, source, until };
    let outcome = hands.committer.ask(settle, Deadline::after(COMMIT_WITHIN * 2)).await?;
    let took = clock.now().saturating_duration_since(began);
    hands.metrics.section(partition, took, &section, outcome.won);
    if outcome.won {
        hands.metrics.quarantined(quarantined);
        for meta in &blocks {
            hands.metrics.block(&meta.tenant_id, meta.size);
        }
    }
    let newest_ms = section.times_ms.map(|(_, newest)| newest);
    let (to, producers) = (outcome.end, outcome.producers);
    advance.ask(Advance { to, producers }, Deadline::after(NEARBY)).await?;
    Ok(match newest_ms {
        Some(newest_ms) if !(section.up_to_date && outcome.won) => Visit::Behind { newest_ms },
        _ => Visit::UpToDate,
    })
}

/// Writes the blocks of a section, again after a failure, until it is time to give up.
async fn written(
    hands: &Hands,
    section: &Arc<Section>,
    empty: &Commit,
    until: std::time::Instant,
    stopping: &CancellationToken,
    clock: &dyn Clock,
) -> Result<Commit, Status> {
    let (mut pause, mut panics) = (FIRST_PAUSE, 0);
    loop {
        let write = Write { section: Arc::clone(section), commit: empty.clone(), careful: panics >= 2 };
        let status = match hands.flusher.ask(write, Deadline::after(COMMIT_WITHIN)).await {
            Ok(commit) => return Ok(commit),
            Err(status) => status,
        };
        hands.metrics.failed("write");
        panics += u32::from(status.code() == Code::Internal);
        if stopping.is_cancelled() || clock.now() + pause >= until {
            return Err(status);
        }
        tracing::warn!(
            partition = empty.partition,
            error = status.message(),
            "write the blocks of a section; trying again"
        );
        tokio::select! {
            () = clock.sleep(pause) => {}
            () = stopping.cancelled() => return Err(status),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Part for Conductor {
    fn started(&mut self, cx: &mut Cx<Self>) {
        self.go_on(cx);
    }

    fn drain(&mut self, cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        self.stopping.cancel();
        self.ending.cancel();
        if self.at.is_none() {
            return std::future::ready(()).boxed_local();
        }
        let (idle, finished) = oneshot::channel();
        self.idle = Some(idle);
        let late = cx.sleep(FINISH_WITHIN);
        async move {
            tokio::select! {
                // A dropped sender means that the part failed meanwhile; the records are in the log.
                _ = finished => {}
                () = late => tracing::warn!("a section is left unfinished; its records are read again by the next start"),
            }
        }
        .boxed_local()
    }

    fn observe(&self) -> serde_json::Value {
        serde_json::json!({
            "partitions": self.hands.collect.keys().collect::<Vec<_>>(),
            "working_on": self.at,
            "last_error": self.last_error,
        })
    }
}

//! Asks the owners of one partition in turn until one has answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tonic::{Code, Status};
use vivace_runtime::{Clock, Deadline};
use vivace_storage::query as engine;

use super::order::{Candidate, Standing};
use super::pool::Pool;
use super::settings::RingSettings;
use super::turns::{Failure, Turns};
use crate::LiveStore;
use crate::metrics::RingMetrics;

/// A connection that breaks sooner than this is tried once more.
const QUICK: std::time::Duration = std::time::Duration::from_secs(1);

/// Who has been silent for so long is looked at.
const SILENT: std::time::Duration = std::time::Duration::from_secs(2);
/// So many health checks one after the other have to fail before an answer is waited for no longer: a process that is only busy
/// answers one of them.
const CHECKS: u32 = 3;

/// What it takes to ask. Clones are one.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) pool: Arc<Pool>,
    pub(super) settings: Arc<RingSettings>,
    pub(super) clock: Arc<dyn Clock>,
    metrics: RingMetrics,
}

/// What became of a question about one partition.
pub(super) enum Outcome<T> {
    /// A whole answer, and whose.
    Whole(usize, T),
    /// Nobody has everything; this is what the best has, and why it is not whole.
    Part(T, String),
    /// Nobody has answered, and why.
    Nothing(String),
    /// The question is wrong, whoever is asked; or nobody has answered, and one may have room for it later.
    Refused(Status),
}

impl Asker {
    pub(super) fn new(settings: RingSettings, clock: Arc<dyn Clock>, metrics: RingMetrics) -> Self {
        let pool = Arc::new(Pool::new(settings.clone(), Arc::clone(&clock)));
        Self { pool, settings: Arc::new(settings), clock, metrics }
    }

    /// Asks those whose turn it is. `missing` says what an answer lacks; then others are asked for one that lacks nothing.
    pub(super) async fn ask<T, F>(
        &self,
        turns: &mut Turns,
        deadline: Deadline,
        ask: impl Fn(LiveStore) -> F,
        missing: impl Fn(&T) -> Option<String>,
    ) -> Outcome<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut running = FuturesUnordered::new();
        let mut waited_for = BTreeSet::new();
        let (mut part, mut busy) = (None, false);
        let mut company = self.company();
        let mut asked = turns.begin();
        loop {
            for at in asked.drain(..) {
                waited_for.insert(at);
                running.push(self.one(at, turns.candidate(at).clone(), &ask));
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some((at, result)) = running.next() => {
                    waited_for.remove(&at);
                    let why = match result {
                        Ok(answer) => match missing(&answer) {
                            None => {
                                self.metrics.asked("whole");
                                return Outcome::Whole(at, answer);
                            }
                            Some(why) => {
                                self.metrics.asked("partial");
                                part.get_or_insert(answer);
                                Failure::Answered(why)
                            }
                        },
                        Err(status) if is_wrong(&status) => return Outcome::Refused(status),
                        Err(status) => {
                            self.metrics.asked("failed");
                            busy |= is_busy(&status);
                            failure(&status)
                        }
                    };
                    asked.extend(turns.failed(at, why));
                }
                () = &mut company, if turns.can_hedge() => {
                    self.metrics.asked("hedged");
                    asked.extend(turns.hedge());
                    company = self.company();
                }
                () = deadline.reached() => break,
            }
        }
        let silent = waited_for.iter().filter_map(|at| turns.candidate(*at).address.as_deref());
        silent.for_each(|address| self.pool.doubt(address));
        turns.overdue(waited_for);
        match part {
            Some(answer) => Outcome::Part(answer, turns.reasons()),
            None if busy => Outcome::Refused(Status::resource_exhausted(turns.reasons())),
            None => Outcome::Nothing(turns.reasons()),
        }
    }

    async fn one<T, F>(
        &self,
        at: usize,
        candidate: Candidate,
        ask: &impl Fn(LiveStore) -> F,
    ) -> (usize, Result<T, Status>)
    where
        F: Future<Output = Result<T, Status>>,
    {
        let Some(address) = candidate.address else {
            let why = "it advertises no address that can be reached from here; a proxy address that both can reach (instance_addr \
                       and instance_port of its ring) helps";
            return (at, Err(Status::unavailable(why)));
        };
        let began = self.clock.now();
        let answer = async {
            if candidate.standing == Standing::Down || self.pool.is_doubted(&address) {
                self.pool.alive(&address).await?;
            }
            ask(LiveStore::remote(&self.pool.peer(&address)?)).await
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            status = self.silence(&address) => Err(status),
        };
        let answer = answer.map_err(|status| {
            // What took long to fail would do so again.
            let long = self.clock.now().saturating_duration_since(began) > QUICK;
            if long || status.code() == Code::DeadlineExceeded {
                self.pool.doubt(&address);
            }
            let code = if std::error::Error::source(&status).is_some() { Code::Unavailable } else { status.code() };
            if long { Status::new(code, status.message()) } else { status }
        });
        (at, answer)
    }

    /// Completes when the peer has been silent for a while and answers no health checks either: behind a network that swallows
    /// what is sent a question would wait for much longer, until the connection is found to be dead.
    async fn silence(&self, address: &str) -> Status {
        if !self.settings.health_checks {
            return std::future::pending().await;
        }
        loop {
            self.clock.sleep(SILENT).await;
            let mut failed = 0;
            while failed < CHECKS && !self.pool.shows_life(address).await {
                failed += 1;
            }
            if failed == CHECKS {
                return Status::unavailable("it does not answer, and no health check either");
            }
        }
    }

    /// Completes when another should be asked as well.
    fn company(&self) -> futures::future::BoxFuture<'static, ()> {
        match self.settings.hedging_delay {
            Some(delay) => self.clock.sleep(delay),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// What the peer says has no cause on this side; a connection may end with any code.
fn is_word_of_peer(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
}

/// Whether every owner would say the same.
fn is_wrong(status: &Status) -> bool {
    is_word_of_peer(status) && engine::is_final(status) && !is_busy(status)
}

/// Whether the owner has no room for the question now, as another may have.
fn is_busy(status: &Status) -> bool {
    is_word_of_peer(status) && status.code() == Code::ResourceExhausted
}

pub(super) fn failure(status: &Status) -> Failure {
    let why = status.message().to_owned();
    if is_word_of_peer(status) { Failure::Answered(why) } else { Failure::Broken(why) }
}

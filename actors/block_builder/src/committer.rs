//! Committer: makes the blocks of a section count, or learns that another builder's do.
//!
//! Consumes `Settle`, answers whose blocks count. Mailbox 1: one section at a time. Every step is tried until it succeeds; before the
//! commit object can exist it may be given up.
//! On restart: nothing is kept. Whether the object exists is found out by whoever looks for the end of the chain next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Status;
use vivace_log::{Offset, Partition};
use vivace_runtime::{Clock, Cx, Failure, Part, Reply, Serve};
use vivace_storage::{Backend, BackendError, BlockKey, BlockState, Commit};

use crate::metrics::Metrics;
use crate::source::Source;
use crate::state::{Attempt, AttemptStep, Created, Outcome};

/// The pause after a step that failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A section whose blocks are written.
pub(crate) struct Settle {
    pub(crate) commit: Commit,
    pub(crate) source: Source,
    /// After this no commit object is created any more: what cleans up takes blocks without metadata for abandoned in the end.
    pub(crate) until: Instant,
}

/// The part: its parts are handles, so it has no state to lose.
#[derive(Clone)]
pub(crate) struct Committer {
    pub(crate) backend: Backend,
    pub(crate) metrics: Metrics,
}

impl Committer {
    async fn settle(self, settle: Settle, clock: Arc<dyn Clock>) -> Result<Outcome, Status> {
        let Settle { commit, source, until } = settle;
        let partition = Partition(commit.partition);
        let section = (commit.first, commit.end);
        let mut attempt = Attempt::new(commit);
        let mut pause = FIRST_PAUSE;
        let outcome = loop {
            if let AttemptStep::Done(outcome) = attempt.step() {
                break outcome;
            }
            if attempt.may_be_given_up() && clock.now() >= until {
                return Err(Status::aborted(
                    "the blocks of the section are too old to be committed; they are written anew",
                ));
            }
            match self.step(&mut attempt).await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    self.metrics.failed("commit");
                    tracing::warn!(%partition, error = Failure::from(error).to_string(), "commit a section; trying again");
                    clock.sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        let (first, end) = section;
        if outcome.won {
            tracing::info!(%partition, first, end, "section committed");
        } else {
            tracing::info!(%partition, first, end, counts_to = outcome.end, "another builder committed these records; its blocks count");
        }
        // A hint for the next start, and what lag tools show: the chain is the truth.
        if let Err(error) = source.offsets.commit(partition, Offset(outcome.end)).await {
            tracing::warn!(%partition, error = Failure::from(error).to_string(), "commit the group's offset");
        }
        Ok(outcome)
    }

    async fn step(&self, attempt: &mut Attempt) -> Result<(), BackendError> {
        match attempt.step() {
            AttemptStep::Create(commit) => {
                let created = match self.backend.create_commit(commit).await {
                    Ok(true) => Created::Yes,
                    Ok(false) => Created::No,
                    Err(error) => {
                        let error = Failure::from(error).to_string();
                        tracing::warn!(error, "whether the commit object was created is unclear; reading it back");
                        Created::Unclear
                    }
                };
                attempt.on_created(created);
            }
            AttemptStep::ReadBack(ours) => {
                let found = self.backend.read_commit(&ours.name()).await?;
                attempt.on_read(found);
            }
            AttemptStep::Discard(blocks) => {
                for meta in blocks {
                    self.backend.delete_block(&BlockKey::new(meta.tenant_id.as_str(), meta.block_id)).await?;
                }
                attempt.on_discarded();
            }
            AttemptStep::PutMetas(blocks) => {
                for meta in blocks {
                    if self.backend.restore_meta(meta).await? == BlockState::Gone {
                        tracing::warn!(tenant = meta.tenant_id, block = %meta.block_id, "a committed block is gone");
                    }
                }
                attempt.on_metas();
            }
            AttemptStep::Done(_) => {}
        }
        Ok(())
    }
}

impl Part for Committer {}

impl Serve<Settle> for Committer {
    type Reply = Outcome;

    fn serve(&mut self, settle: Settle, cx: &mut Cx<Self>) -> Reply<Outcome> {
        Reply::later(self.clone().settle(settle, Arc::clone(cx.clock())))
    }
}

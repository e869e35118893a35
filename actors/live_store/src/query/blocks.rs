//! Reads local blocks for queries: on the compute pool, some at a time. A block that cannot be read is missing from the answer's
//! coverage, not an error, and never silence.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tonic::Status;
use vivace_protocol::vivace::{Coverage, Skipped};
use vivace_runtime::Compute;
use vivace_storage::query as engine;
use vivace_storage::{OpenBlock, ReadError};

use crate::shelf::{OpenBlocks, ShelfBlock};

/// The means; clones share them.
#[derive(Clone)]
pub(crate) struct Readers {
    pub(crate) compute: Compute,
    pub(crate) open: Arc<OpenBlocks>,
    /// Blocks read at once for one query.
    pub(crate) at_once: usize,
}

/// Blocks that could not be read for one answer.
#[derive(Clone, Default)]
pub(crate) struct Missed(Arc<Mutex<Vec<Skipped>>>);

impl Missed {
    pub(super) fn note(&self, block: &ShelfBlock, reason: &str) {
        tracing::warn!(block = %block.meta.block_id, reason, "a local block cannot be read");
        let what = format!("local block {}", block.meta.block_id);
        self.0.lock().push(Skipped { what, reason: reason.to_owned() });
    }

    /// What a job on a block said, none when it cannot be read.
    pub(super) fn noting<T>(&self, block: &ShelfBlock, said: Result<T, Status>) -> Result<Option<T>, Status> {
        match said {
            Ok(read) => Ok(Some(read)),
            // What other blocks would refuse too is no matter of coverage.
            Err(status) if engine::is_final(&status) => Err(status),
            Err(status) => {
                self.note(block, status.message());
                Ok(None)
            }
        }
    }

    /// The coverage without them.
    pub(crate) fn coverage(&self, mut coverage: Coverage) -> Coverage {
        let missed = std::mem::take(&mut *self.0.lock());
        if !missed.is_empty() {
            coverage.read = 0;
            coverage.skipped.extend(missed);
        }
        coverage
    }
}

impl Readers {
    /// What `job` says of each block, in any order. An error of the question itself ends it.
    pub(crate) fn some_at_once<T: Send + 'static>(
        &self,
        blocks: Vec<Arc<ShelfBlock>>,
        missed: Missed,
        job: impl Fn(&Arc<OpenBlock>) -> Result<T, Status> + Clone + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let readers = self.clone();
        let read = move |block| readers.clone().read(block, missed.clone(), job.clone());
        stream::iter(blocks).map(read).buffer_unordered(self.at_once).filter_map(async |read| read.transpose()).boxed()
    }

    /// What `job` finds in the blocks, one after the other, as far as anybody waits for it.
    pub(crate) fn one_by_one<T: Send + 'static>(
        &self,
        blocks: Vec<Arc<ShelfBlock>>,
        missed: Missed,
        job: impl Fn(&Arc<OpenBlock>) -> Result<Option<T>, Status> + Clone + Send + 'static,
    ) -> BoxStream<'static, Result<Option<T>, Status>> {
        let one = Self { at_once: 1, ..self.clone() };
        one.some_at_once(blocks, missed, job)
    }

    /// Those of which `test` is true.
    pub(crate) async fn keep(
        &self,
        blocks: Vec<Arc<ShelfBlock>>,
        missed: &Missed,
        test: impl Fn(&OpenBlock) -> Result<bool, ReadError> + Send + 'static,
    ) -> Result<Vec<Arc<ShelfBlock>>, Status> {
        if blocks.is_empty() {
            return Ok(blocks);
        }
        let (open, missed) = (Arc::clone(&self.open), missed.clone());
        let keep = move || {
            let mut kept = blocks;
            kept.retain(|block| match open.get(block).and_then(|opened| test(&opened)) {
                Ok(keep) => keep,
                Err(error) => {
                    missed.note(block, &text(&error));
                    false
                }
            });
            kept
        };
        self.compute.run(0, keep).await
    }

    /// None when the block cannot be read.
    async fn read<T: Send + 'static>(
        self,
        block: Arc<ShelfBlock>,
        missed: Missed,
        job: impl Fn(&Arc<OpenBlock>) -> Result<T, Status> + Send + 'static,
    ) -> Result<Option<T>, Status> {
        let (open, shared) = (self.open, Arc::clone(&block));
        let read = move || {
            let opened = open.get(&shared).map_err(|error| Status::unavailable(text(&error)))?;
            job(&opened)
        };
        missed.noting(&block, self.compute.run(0, read).await.and_then(std::convert::identity))
    }
}

/// An error with its causes on one line.
pub(super) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

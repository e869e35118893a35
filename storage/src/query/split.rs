//! Traces that are split over blocks, as jobs ask for them: each once, with all of its blocks.

use std::sync::Arc;

use tonic::Status;
use vivace_protocol::TraceId;
use vivace_protocol::vivace::{MetricsBatch, MetricsJob, SearchBatch, SearchJob};
use vivace_traceql::Budget;

use super::{found_of_parts, metrics, metrics_plan, search_part, unavailable};
use crate::read::{JoinedTrace, locate_trace};
use crate::{BlockMeta, OpenBlock, SplitTrace};

/// A trace that is too large for one row, and the blocks with its parts in their order.
#[derive(Debug, Clone)]
pub struct SplitOver {
    /// The trace.
    pub trace: TraceId,
    /// Each is there once.
    pub blocks: Vec<Arc<BlockMeta>>,
}

impl SplitOver {
    /// The split traces that a job on `blocks` evaluates: those that begin in one of them, as far as the query's window goes (unix
    /// nanoseconds, an end of 0 is none). Jobs on other blocks pass over the parts that these have, so that over all jobs each trace is
    /// evaluated once, whatever was merged since the jobs were made. `listed` are all live blocks.
    #[must_use]
    pub fn begun_in(blocks: &[Arc<BlockMeta>], listed: &[Arc<BlockMeta>], window: (u64, u64)) -> Vec<Self> {
        let mut own: Vec<TraceId> =
            blocks.iter().flat_map(|block| &block.split_traces).map(|mark| mark.trace).collect();
        own.sort_unstable();
        own.dedup();
        own.into_iter().filter_map(|trace| Self::of(trace, blocks, listed, window)).collect()
    }

    fn of(trace: TraceId, blocks: &[Arc<BlockMeta>], listed: &[Arc<BlockMeta>], window: (u64, u64)) -> Option<Self> {
        let mut parts: Vec<(SplitTrace, &Arc<BlockMeta>)> = Vec::new();
        for block in blocks.iter().chain(listed) {
            let marks = block.split_traces.iter().filter(|mark| mark.trace == trace);
            parts.extend(marks.map(|mark| (*mark, block)));
        }
        parts.sort_by_key(|(mark, _)| mark.order());
        // A part is in a block of the job and in the one that this was merged into, which may be on the list together: the first is taken.
        parts.dedup_by_key(|(mark, _)| mark.order());
        let (_, first) = parts.iter().find(|(_, block)| is_within(block, window))?;
        let here = blocks.iter().any(|block| block.block_id == first.block_id);
        here.then(|| {
            let mut all: Vec<Arc<BlockMeta>> = Vec::with_capacity(parts.len());
            for (_, block) in parts {
                if all.iter().all(|known| known.block_id != block.block_id) {
                    all.push(Arc::clone(block));
                }
            }
            Self { trace, blocks: all }
        })
    }
}

/// Block times may be cut to whole seconds: both ends give way by one, as they do where jobs are made.
const SLACK_NS: u64 = 1_000_000_000;

fn is_within(block: &BlockMeta, (start, end): (u64, u64)) -> bool {
    let (from, to) = (block.start_time.0.saturating_sub(SLACK_NS), block.end_time.0.saturating_add(SLACK_NS));
    to >= start && (end == 0 || from <= end)
}

/// The window that a metrics job is about.
#[must_use]
pub fn window_of(job: &MetricsJob) -> (u64, u64) {
    let end = if job.until_unix_nano > 0 { job.end_unix_nano.min(job.until_unix_nano) } else { job.end_unix_nano };
    (job.start_unix_nano, end)
}

fn joined(trace: TraceId, blocks: &[Arc<OpenBlock>]) -> Result<JoinedTrace, Status> {
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let row = locate_trace(block, trace).map_err(|error| unavailable(&error))?;
        parts.extend(row.map(|row| (Arc::clone(block), row)));
    }
    Ok(JoinedTrace::new(parts))
}

/// A search of one trace that is split over these blocks.
///
/// # Errors
/// As [`super::search`].
pub fn search_split(
    trace: TraceId,
    blocks: &[Arc<OpenBlock>],
    job: &SearchJob,
    budget: &Budget,
) -> Result<SearchBatch, Status> {
    Ok(found_of_parts(vec![search_part(&joined(trace, blocks)?, job, budget)?]))
}

/// What one trace that is split over these blocks contributes to a metrics query that [asks for whole traces](asks_for_traces).
///
/// # Errors
/// As [`super::metrics`].
pub fn metrics_split(
    trace: TraceId,
    blocks: &[Arc<OpenBlock>],
    job: &MetricsJob,
    stop: &dyn Fn() -> bool,
) -> Result<MetricsBatch, Status> {
    metrics(&joined(trace, blocks)?, job, stop)
}

/// Whether it matters to a metrics query that a trace is seen in one piece. To most it does not: they look at each span alone.
///
/// # Errors
/// As [`metrics_plan`].
pub fn asks_for_traces(job: &MetricsJob) -> Result<bool, Status> {
    Ok(metrics_plan(job)?.asks_for_traces())
}

#[cfg(test)]
mod tests;

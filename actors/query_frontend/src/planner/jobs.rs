//! Cuts the blocks of a window into jobs.

use std::collections::HashSet;

use tonic::Status;
use uuid::Uuid;
use vivace_protocol::{BlockEntry, TenantId};
use vivace_runtime::Deadline;

use super::Planner;

/// Some blocks that are read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) block_ids: Vec<String>,
    /// No span in them starts later.
    pub(super) newest_ns: u64,
    pub(super) bytes: u64,
}

/// Which blocks of the lists a query reads, and in what portions.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// Bytes of a job.
    target_bytes: u64,
    /// Jobs that run at once.
    pub(super) concurrency: usize,
    /// The newest block comes first and alone, then more and more at once: whoever has enough with the first reads no others.
    grows: bool,
    /// Only blocks that were written once: otherwise spans would count twice.
    once: bool,
    /// Blocks whose spans are in the answer already.
    held: HashSet<[u8; 16]>,
}

impl Selection {
    /// Leaves a block out whose spans have been counted.
    pub(super) fn hold(&mut self, block: Uuid) {
        self.held.insert(block.into_bytes());
    }

    /// How many jobs run at once when so many have ended.
    pub(super) fn at_once(&self, ended: usize) -> usize {
        let most = if self.grows { doubled(ended) } else { usize::MAX };
        self.concurrency.min(most)
    }

    fn takes(&self, block: &BlockEntry) -> bool {
        (!self.once || block.replication_factor == 1) && !self.held.contains(&block.id)
    }
}

/// A job without blocks is about recent data.
pub(super) const RECENT: Vec<String> = Vec::new();

/// A job has no more blocks than this, so that small ones are spread as well.
const MAX_BLOCKS: usize = 32;

/// Block times may be cut to whole seconds, so both ends give way by one.
const SLACK_NS: u64 = 1_000_000_000;

/// 1, 2, 4, and so on up to the blocks of a job.
fn doubled(times: usize) -> usize {
    u32::try_from(times).ok().and_then(|times| 1_usize.checked_shl(times)).unwrap_or(MAX_BLOCKS).min(MAX_BLOCKS)
}

/// The blocks that overlap the window as jobs of about `target` bytes; both are sorted from the newest end on. Jobs that grow hold 1,
/// 1, 2, 4 blocks and so on.
fn cut(blocks: &[BlockEntry], start: u64, end: u64, target: u64, grows: bool) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for block in blocks {
        let (from, to) = (block.start_unix_nano.saturating_sub(SLACK_NS), block.end_unix_nano.saturating_add(SLACK_NS));
        if to < start {
            break;
        }
        if from > end {
            continue;
        }
        let id = Uuid::from_bytes(block.id).to_string();
        let most = if grows { doubled(jobs.len().saturating_sub(2)) } else { MAX_BLOCKS };
        match jobs.last_mut() {
            Some(job) if job.bytes.saturating_add(block.size_bytes) <= target && job.block_ids.len() < most => {
                job.block_ids.push(id);
                job.bytes += block.size_bytes;
            }
            _ => jobs.push(Job { block_ids: vec![id], newest_ns: to, bytes: block.size_bytes }),
        }
    }
    jobs
}

impl Planner {
    /// The tenant's blocks that overlap the window, as jobs from the newest on.
    pub(super) async fn jobs(
        &self,
        tenant: &TenantId,
        start: u64,
        end: u64,
        deadline: Deadline,
        selection: &Selection,
    ) -> Result<Vec<Job>, Status> {
        let list = self.block_list(tenant, deadline).await?;
        let blocks: Vec<BlockEntry> = list.blocks.iter().filter(|block| selection.takes(block)).copied().collect();
        Ok(cut(&blocks, start, end, selection.target_bytes, selection.grows))
    }

    /// All blocks, in the portions of a search.
    pub(super) fn for_search(&self) -> Selection {
        let target_bytes = self.config.search.target_bytes_per_job.max(1);
        let (concurrency, held) = (self.concurrency(), HashSet::new());
        Selection { target_bytes, concurrency, grows: false, once: false, held }
    }

    /// All blocks, for who may have enough with the newest.
    pub(super) fn for_newest(&self) -> Selection {
        Selection { grows: true, ..self.for_search() }
    }

    /// Each span once, in the portions of a metrics query.
    pub(super) fn for_metrics(&self) -> Selection {
        let config = &self.config.metrics;
        let concurrency = usize::try_from(config.concurrent_jobs).unwrap_or(usize::MAX).clamp(1, 8);
        let target_bytes = config.target_bytes_per_job.max(1);
        Selection { target_bytes, concurrency, grows: false, once: true, held: HashSet::new() }
    }

    /// How many jobs of one query run at once: a few more than cores keep every core busy; what is asked beyond the answer
    /// is wasted.
    pub(super) fn concurrency(&self) -> usize {
        usize::try_from(self.config.search.concurrent_jobs).unwrap_or(usize::MAX).clamp(1, 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn block(number: u8, start: u64, end: u64, size_bytes: u64) -> BlockEntry {
        BlockEntry {
            id: [number; 16],
            start_unix_nano: start * SECOND,
            end_unix_nano: end * SECOND,
            size_bytes,
            objects: 1,
            row_groups: 1,
            replication_factor: 1,
        }
    }

    #[test]
    fn jobs_hold_the_blocks_of_the_window_from_the_newest_on() {
        let blocks = [block(1, 90, 100, 60), block(2, 60, 80, 60), block(3, 50, 70, 30), block(4, 10, 20, 5)];
        let jobs = cut(&blocks, 30 * SECOND, 85 * SECOND, 100, false);
        let ids: Vec<Vec<String>> = jobs.iter().map(|job| job.block_ids.clone()).collect();
        let id = |n: u8| Uuid::from_bytes([n; 16]).to_string();
        assert_eq!(ids, [vec![id(2), id(3)]]);
        assert_eq!((jobs[0].newest_ns, jobs[0].bytes), (81 * SECOND, 90));
        // One second of slack at both ends, because block times may be cut to seconds.
        assert_eq!(cut(&blocks, 21 * SECOND, 22 * SECOND, 100, false).len(), 1);
        assert_eq!(cut(&blocks, 22 * SECOND, 23 * SECOND, 100, false).len(), 0);
        assert_eq!(cut(&blocks, 0, 200 * SECOND, 100, false).len(), 2);
    }

    #[test]
    fn spans_that_count_are_read_once() {
        let held = HashSet::new();
        let mut selection = Selection { target_bytes: 1, concurrency: 1, grows: false, once: true, held };
        let twice = BlockEntry { replication_factor: 3, ..block(1, 0, 1, 1) };
        assert!(selection.takes(&block(1, 0, 1, 1)) && !selection.takes(&twice));
        selection.hold(Uuid::from_bytes([1; 16]));
        assert!(!selection.takes(&block(1, 0, 1, 1)) && selection.takes(&block(2, 0, 1, 1)));
        selection.once = false;
        assert!(selection.takes(&BlockEntry { replication_factor: 3, ..block(2, 0, 1, 1) }));
    }

    #[test]
    fn many_small_blocks_are_spread_over_jobs() {
        let blocks = vec![block(1, 0, 10, 1); 100];
        assert_eq!(cut(&blocks, 0, 20 * SECOND, 1 << 20, false).len(), 100_usize.div_ceil(MAX_BLOCKS));
    }

    #[test]
    fn whoever_may_have_enough_with_the_newest_begins_with_one_block_and_takes_more_and_more() {
        let blocks = vec![block(1, 0, 10, 1); 100];
        let sizes = |grows, target| {
            let jobs = cut(&blocks, 0, 20 * SECOND, target, grows);
            jobs.iter().map(|job| job.block_ids.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(true, 1 << 20), [1, 1, 2, 4, 8, 16, 32, 32, 4]);
        assert_eq!(sizes(false, 1 << 20), [32, 32, 32, 4]);
        // The bytes of a job are a limit all the same.
        assert_eq!(sizes(true, 3)[..6], [1, 1, 2, 3, 3, 3]);
        let grows = |grows| Selection { target_bytes: 1, concurrency: 8, grows, once: false, held: HashSet::new() };
        assert_eq!([0, 1, 2, 3, 100].map(|ended| grows(true).at_once(ended)), [1, 2, 4, 8, 8]);
        assert_eq!(grows(false).at_once(0), 8);
    }
}

//! Finding a trace by its id: recent data first, then the blocks, whose ids are cut into ranges that are asked at once. Where an
//! acknowledgement does not wait for the live-stores, a trace that is found nowhere may be on its way to them from the log: they are
//! asked once more, and answer when everything has come that was in the log.
//!
//! The pieces are passed on while they come, so that a trace of any size goes through; what they were read from is known at
//! the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::{Code, Status};
use vivace_protocol::find_trace::LONGEST;
use vivace_protocol::vivace::find_trace_request::From;
use vivace_protocol::vivace::{Coverage, FindTraceBatch, FindTraceRequest, Profile};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::{Deadline, Replies};
use vivace_storage::profile;

use super::{Planner, RecentData};
use crate::coverage::Covered;
use crate::explain::Explained;
use crate::queue::Turn;
use crate::respond::Refusal;

/// Which trace, and where it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TracePlan {
    pub(crate) id: TraceId,
    /// Blocks that do not overlap are left out; 0 is open.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) from: From,
    /// Bounds of block ids, both inclusive.
    pub(crate) blocks: (u128, u128),
    /// Keep notes of how it is looked for.
    pub(crate) explain: bool,
    /// Of a page: from when on, and how many of the spans that start later each source tells.
    pub(crate) page: Option<(u64, u32)>,
}

/// A search for one trace on its way. Dropping it ends it.
pub(crate) struct TraceSearch {
    /// Fused: it is asked again after its end.
    pieces: stream::Fuse<BoxStream<'static, Piece>>,
    /// Where to look once more if nothing was found.
    again: Option<BoxStream<'static, Piece>>,
    /// It is looked once more.
    is_again: bool,
    planner: Arc<Planner>,
    deadline: Deadline,
    covered: Covered,
    inspected_bytes: u64,
    parts: u64,
    profile: Profile,
}

/// What comes of the jobs.
enum Piece {
    Parts(Vec<Bytes>),
    /// The end of a job.
    Done(Known),
    /// The end of a job that failed.
    Missed(&'static str, Status),
}

/// What a job says of itself.
#[derive(Default)]
struct Known {
    coverage: Coverage,
    inspected_bytes: u64,
    profile: Profile,
}

impl TraceSearch {
    /// The next parts; none when everything was asked. Coverage is complete then, not before.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Refusal> {
        loop {
            match self.pieces.next().await {
                Some(Piece::Parts(parts)) => {
                    self.parts += parts.len() as u64;
                    return Ok(Some(parts));
                }
                Some(Piece::Done(known)) => {
                    let Coverage { total, read, skipped, .. } = &known.coverage;
                    let is_whole = skipped.is_empty() && read == total;
                    if self.counts(is_whole) {
                        self.covered.add(Some(known.coverage));
                    }
                    self.inspected_bytes += known.inspected_bytes;
                    profile::add(&mut self.profile, known.profile);
                }
                Some(Piece::Missed(what, status)) => {
                    // That one was not answered in time is coverage here: what others have may be all there is.
                    let refused = match status.code() {
                        Code::DeadlineExceeded => Err(status),
                        _ => self.planner.judge(status, self.deadline),
                    };
                    match refused {
                        Ok(refusal) => return Err(refusal),
                        Err(status) if self.counts(false) => self.covered.miss(what, 1, status.message()),
                        Err(_) => {}
                    }
                }
                None => match self.again.take().filter(|_| self.parts == 0) {
                    Some(again) => (self.pieces, self.is_again) = (again.fuse(), true),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Who is asked once more counts once; what it says matters when it is the first that is missing.
    fn counts(&self, is_whole: bool) -> bool {
        !self.is_again || (!is_whole && self.covered.complete())
    }

    pub(crate) fn covered(&self) -> &Covered {
        &self.covered
    }

    pub(crate) fn inspected_bytes(&self) -> u64 {
        self.inspected_bytes
    }

    /// How it was looked for.
    pub(crate) fn explain(&self, plan: &TracePlan, elapsed: Duration) -> serde_json::Value {
        let blocks = self.profile.blocks_at_hand + self.profile.blocks_opened;
        let explained = Explained {
            kind: "trace",
            query: plan.id.to_string(),
            window: (plan.start_ns, plan.end_ns),
            step_ns: None,
            fetches: Vec::new(),
            output: None,
            listed: blocks,
            chosen: blocks,
            jobs: (0, 0),
            spans: 0,
            traces: self.parts,
            covered: &self.covered,
            profile: &self.profile,
            elapsed,
        };
        explained.json()
    }
}

impl Planner {
    /// Asks everything that could hold the trace, for every tenant.
    pub(crate) fn find_trace(self: &Arc<Self>, tenants: &[TenantId], plan: &TracePlan) -> TraceSearch {
        let deadline = self.deadline();
        let (mut pieces, mut again) = (stream::empty().boxed(), None);
        if plan.from != From::Blocks {
            let recent = TracePlan { from: From::Recent, ..*plan };
            let jobs: Vec<_> = tenants.iter().map(|tenant| (tenant.clone(), recent)).collect();
            let ask = |jobs: Vec<_>, caught_up| {
                Arc::clone(self).run("live-store", stream::iter(jobs).boxed(), caught_up, usize::MAX, deadline)
            };
            again = (self.recent == RecentData::Shared).then(|| ask(jobs.clone(), true));
            pieces = ask(jobs, false);
        }
        if plan.from != From::Recent {
            let width = match self.config.trace_by_id.concurrent_shards {
                0 => usize::MAX,
                some => usize::try_from(some).unwrap_or(usize::MAX),
            };
            let (planner, tenants, plan) = (Arc::clone(self), tenants.to_vec(), *plan);
            // Asked for when recent data has been asked: what moves into a block meanwhile is on the list by then.
            let jobs = stream::iter(tenants).then(move |tenant| {
                let planner = Arc::clone(&planner);
                async move {
                    let count = planner.shards(&tenant, &plan, deadline).await;
                    let shard = move |blocks| (tenant.clone(), TracePlan { from: From::Blocks, blocks, ..plan });
                    stream::iter(ranges(plan.blocks, count).map(shard))
                }
            });
            pieces =
                pieces.chain(Arc::clone(self).run("blocks", jobs.flatten().boxed(), false, width, deadline)).boxed();
        }
        TraceSearch {
            pieces: pieces.fuse(),
            again,
            is_again: false,
            planner: Arc::clone(self),
            deadline,
            covered: Covered::default(),
            inspected_bytes: 0,
            parts: 0,
            profile: Profile::default(),
        }
    }

    /// Up to `width` jobs are begun at once; the pieces of one that has begun are taken before those of the next, so that large
    /// ones are in memory one by one.
    fn run(
        self: Arc<Self>,
        what: &'static str,
        jobs: BoxStream<'static, (TenantId, TracePlan)>,
        caught_up: bool,
        width: usize,
        deadline: Deadline,
    ) -> BoxStream<'static, Piece> {
        let begun = jobs.map(move |(tenant, plan)| {
            let request = FindTraceRequest {
                tenant: tenant.to_string(),
                trace_id: plan.id.as_bytes().to_vec(),
                start_unix_nano: plan.start_ns,
                end_unix_nano: plan.end_ns,
                from: plan.from.into(),
                block_start: plan.blocks.0.to_be_bytes().to_vec(),
                block_end: plan.blocks.1.to_be_bytes().to_vec(),
                explain: plan.explain,
                page_from_unix_nano: plan.page.map_or(0, |(from, _)| from),
                page_spans: plan.page.map_or(0, |(_, spans)| spans),
                caught_up,
            };
            Job::begin(Arc::clone(&self), what, tenant, request, deadline)
        });
        begun.buffer_unordered(width.clamp(1, MAX_WIDTH)).flatten().boxed()
    }

    /// Into how many ranges the blocks are cut.
    async fn shards(&self, tenant: &TenantId, plan: &TracePlan, deadline: Deadline) -> u64 {
        let config = &self.config.trace_by_id;
        if config.blocks_per_shard == 0 {
            return config.query_shards.max(1);
        }
        // Without a list one querier is asked about all, and says what it could not do.
        let Ok(list) = self.block_list(tenant, deadline).await else { return 1 };
        let chosen = list.blocks.iter().filter(|block| {
            let id = u128::from_be_bytes(block.id);
            plan.blocks.0 <= id
                && id <= plan.blocks.1
                && (plan.end_ns == 0 || block.start_unix_nano <= plan.end_ns)
                && (plan.start_ns == 0 || block.end_unix_nano.saturating_add(1_000_000_000) >= plan.start_ns)
        });
        (chosen.count() as u64).div_ceil(config.blocks_per_shard).max(1)
    }
}

/// Jobs of one search at once, whatever the configuration says.
const MAX_WIDTH: usize = 1024;

/// One job: a request to a querier, begun again if that may help.
struct Job {
    planner: Arc<Planner>,
    what: &'static str,
    request: FindTraceRequest,
    deadline: Deadline,
    /// Attempts that are left, this one included.
    attempts: u64,
    replies: Replies<FindTraceBatch>,
    known: Known,
    _turn: Turn,
}

impl Job {
    async fn begin(
        planner: Arc<Planner>,
        what: &'static str,
        tenant: TenantId,
        request: FindTraceRequest,
        deadline: Deadline,
    ) -> BoxStream<'static, Piece> {
        let missed = |status| stream::iter([Piece::Missed(what, status)]).boxed();
        let turn = match planner.turn(&tenant, deadline).await {
            Ok(turn) => turn,
            Err(status) => return missed(status),
        };
        let attempts = planner.config.max_retries.max(1);
        let (replies, known) = (stream::empty().boxed(), Known::default());
        let mut job = Self { planner, what, request, deadline, attempts, replies, known, _turn: turn };
        match job.ask().await {
            Ok(()) => stream::unfold(Some(job), |job| async move { job?.step().await }).boxed(),
            Err(status) => missed(status),
        }
    }

    async fn ask(&mut self) -> Result<(), Status> {
        loop {
            let find = &self.planner.queriers.find;
            match find.call_patiently(self.request.clone(), self.planner.time_limit(), LONGEST).await {
                Ok(replies) => {
                    self.replies = replies;
                    // What an attempt that failed has said does not count; its pieces are the same ones.
                    self.known = Known::default();
                    return Ok(());
                }
                Err(status) if self.may_retry(&status) => self.attempts -= 1,
                Err(status) => return Err(status),
            }
        }
    }

    fn may_retry(&self, status: &Status) -> bool {
        status.code() == Code::Unavailable && self.attempts > 1 && !self.deadline.is_over()
    }

    async fn step(mut self) -> Option<(Piece, Option<Self>)> {
        loop {
            match self.replies.next().await {
                Some(Ok(batch)) => {
                    if let Some(coverage) = batch.coverage {
                        let sum = &mut self.known.coverage;
                        sum.total += coverage.total;
                        sum.read += coverage.read;
                        sum.skipped.extend(coverage.skipped);
                    }
                    self.known.inspected_bytes += batch.inspected_bytes;
                    profile::add(&mut self.known.profile, batch.profile.unwrap_or_default());
                    return Some((Piece::Parts(batch.parts), Some(self)));
                }
                Some(Err(status)) => {
                    let failed = if self.may_retry(&status) {
                        self.attempts -= 1;
                        self.ask().await
                    } else {
                        Err(status)
                    };
                    if let Err(status) = failed {
                        return Some((Piece::Missed(self.what, status), None));
                    }
                }
                None => return Some((Piece::Done(std::mem::take(&mut self.known)), None)),
            }
        }
    }
}

/// Cuts inclusive bounds into `count` inclusive ranges of about the same width, without gaps.
fn ranges((first, last): (u128, u128), count: u64) -> impl Iterator<Item = (u128, u128)> {
    let width = last.saturating_sub(first);
    let count = u128::from(count.max(1)).min(width.saturating_add(1));
    let step = width / count;
    (0..count).map(move |i| {
        let start = first + step * i + u128::from(i > 0);
        let end = if i + 1 == count { last } else { first + step * (i + 1) };
        (start, end)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_cover_every_block_id_exactly_once(a in any::<u128>(), b in any::<u128>(), count in 1_u64..60) {
            let (first, last) = (a.min(b), a.max(b));
            let ranges: Vec<_> = ranges((first, last), count).collect();
            prop_assert_eq!(ranges[0].0, first);
            prop_assert_eq!(ranges[ranges.len() - 1].1, last);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].1 + 1, pair[1].0);
            }
            prop_assert!(ranges.iter().all(|(start, end)| start <= end));
        }
    }

    #[test]
    fn the_whole_space_and_a_single_id_can_be_cut() {
        assert_eq!(ranges((0, u128::MAX), 3).count(), 3);
        assert_eq!(ranges((7, 7), 3).collect::<Vec<_>>(), [(7, 7)]);
        assert_eq!(ranges((7, 8), 3).collect::<Vec<_>>(), [(7, 7), (8, 8)]);
    }
}

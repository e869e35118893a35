//! Finding a trace by its id: recent data first, then the blocks, whose ids are cut into ranges that are asked at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use futures::{FutureExt, StreamExt};
use tonic::Status;
use vivace_protocol::vivace::find_trace_request::From;
use vivace_protocol::vivace::{FindTraceReply, FindTraceRequest, Profile};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::Deadline;
use vivace_storage::profile;

use super::Planner;
use crate::coverage::Covered;
use crate::explain::Explained;

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
}

/// The pieces of one trace.
#[derive(Debug, Default)]
pub(crate) struct FoundTrace {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) inspected_bytes: u64,
    pub(crate) covered: Covered,
    profile: Profile,
}

impl FoundTrace {
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
            traces: self.parts.len() as u64,
            covered: &self.covered,
            profile: &self.profile,
            elapsed,
        };
        explained.json()
    }

    fn take(&mut self, what: &str, reply: Result<FindTraceReply, Status>) {
        match reply {
            Ok(reply) => {
                self.parts.extend(reply.parts);
                self.inspected_bytes += reply.inspected_bytes;
                self.covered.add(reply.coverage);
                profile::add(&mut self.profile, reply.profile.unwrap_or_default());
            }
            Err(status) => self.covered.miss(what, 1, status.message()),
        }
    }
}

impl Planner {
    /// Asks everything that could hold the trace, for every tenant.
    pub(crate) async fn find_trace(self: &Arc<Self>, tenants: &[TenantId], plan: &TracePlan) -> FoundTrace {
        let deadline = self.deadline();
        let mut found = FoundTrace::default();
        if plan.from != From::Blocks {
            let recent = TracePlan { from: From::Recent, ..*plan };
            let replies = join_all(tenants.iter().map(|tenant| self.find(tenant, &recent, deadline))).await;
            replies.into_iter().for_each(|reply| found.take("live-store", reply));
        }
        // What moves into a block meanwhile is on the list by now.
        if plan.from != From::Recent {
            let mut shards = Vec::new();
            for tenant in tenants {
                let count = self.shards(tenant, plan, deadline).await;
                let ranges = ranges(plan.blocks, count);
                shards.extend(ranges.map(|blocks| (tenant, TracePlan { from: From::Blocks, blocks, ..*plan })));
            }
            let width = match self.config.trace_by_id.concurrent_shards {
                0 => shards.len(),
                some => usize::try_from(some).unwrap_or(usize::MAX),
            };
            // Boxed one by one: closures over references of two lifetimes do not make a stream that can move between threads.
            let mut asked = Vec::with_capacity(shards.len());
            for (tenant, plan) in &shards {
                asked.push(self.find(tenant, plan, deadline).boxed());
            }
            let replies: Vec<_> = stream::iter(asked).buffered(width.max(1)).collect().await;
            replies.into_iter().for_each(|reply| found.take("blocks", reply));
        }
        found
    }

    async fn find(&self, tenant: &TenantId, plan: &TracePlan, deadline: Deadline) -> Result<FindTraceReply, Status> {
        let request = FindTraceRequest {
            tenant: tenant.to_string(),
            trace_id: plan.id.as_bytes().to_vec(),
            start_unix_nano: plan.start_ns,
            end_unix_nano: plan.end_ns,
            from: plan.from.into(),
            block_start: plan.blocks.0.to_be_bytes().to_vec(),
            block_end: plan.blocks.1.to_be_bytes().to_vec(),
            explain: plan.explain,
        };
        self.attempt(tenant, deadline, || self.queriers.find.call(request.clone(), deadline)).await
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

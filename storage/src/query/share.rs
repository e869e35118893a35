//! Which part of a block a query is about, what it need not look at, and what bounds it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tonic::Status;
use vivace_traceql::Budget;

use crate::{BlockSource, OpenBlock, TraceRow};

/// Some row groups of a block. A trace is in one row, so shares of one block never hold parts of the same trace, and what one
/// finds too old the others need not look at: the answer does not depend on who was faster.
#[derive(Debug, Clone)]
pub struct Share {
    groups: Range<usize>,
    floor: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    budget: Budget,
    /// Traces of which other blocks hold further parts are passed over.
    apart: bool,
}

impl Share {
    /// All of a block.
    #[must_use]
    pub fn whole() -> Self {
        let groups = 0..usize::MAX;
        Self { groups, floor: Arc::default(), ended: Arc::default(), budget: Budget::default(), apart: false }
    }

    /// A block of `row_groups`, cut into at most `most` shares of nearly the same size.
    #[must_use]
    pub fn split(row_groups: usize, most: usize) -> Vec<Self> {
        let (floor, ended): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let shares = row_groups.clamp(1, most.max(1));
        let bound = |share: usize| row_groups * share / shares;
        let last = shares - 1;
        (0..shares)
            .map(|share| {
                // Whatever the metadata say, the last share goes to the end of the block.
                let end = if share == last { usize::MAX } else { bound(share + 1) };
                Self {
                    groups: bound(share)..end,
                    floor: Arc::clone(&floor),
                    ended: Arc::clone(&ended),
                    budget: Budget::default(),
                    apart: false,
                }
            })
            .collect()
    }

    /// Searches of the share end early once `ended` is set: nobody waits for what they find any more.
    #[must_use]
    pub fn until(self, ended: &Arc<AtomicBool>) -> Self {
        Self { ended: Arc::clone(ended), ..self }
    }

    /// What searches of the share find counts against `budget` as long as they hold it.
    #[must_use]
    pub fn within(self, budget: &Budget) -> Self {
        Self { budget: budget.clone(), ..self }
    }

    /// Without traces of which other blocks hold further parts: whoever asks has them [searched](super::search_split) or
    /// [counted](super::metrics_split) in one piece.
    #[must_use]
    pub fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    /// Where the traces are that are passed over.
    pub(super) fn rows_apart(&self, block: &OpenBlock) -> Result<Arc<[TraceRow]>, Status> {
        let mut rows = Vec::new();
        for split in block.meta().split_traces.iter().filter(|_| self.apart) {
            rows.extend(super::locate_trace(block, split.trace)?);
        }
        Ok(rows.into())
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The row groups of `block` that are in this share.
    #[must_use]
    pub fn of(&self, block: &Arc<OpenBlock>) -> BlockSource {
        BlockSource::of_row_groups(Arc::clone(block), self.groups.start, self.groups.len())
    }

    pub(super) fn groups_of(&self, block: &OpenBlock) -> Range<usize> {
        let end = self.groups.end.min(block.row_groups());
        self.groups.start.min(end)..end
    }

    /// What starts before is too old to be shown.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    pub(super) fn raise_floor(&self, start_ns: u64) {
        self.floor.fetch_max(start_ns, Ordering::Relaxed);
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use vivace_protocol::vivace::SearchJob;

    use super::*;
    use crate::{
        BlockSpec, BlockWriter, Decoded, DedicatedColumns, LiveSource, MemoryBlock, live::tests::stored, query,
    };

    /// The traces of the fixture in a block of many row groups, with several pages in each.
    fn block() -> Arc<OpenBlock> {
        Arc::new(opened())
    }

    fn opened() -> OpenBlock {
        let mut spec = BlockSpec::new("t", Uuid::from_u128(1), DedicatedColumns::defaults());
        (spec.row_group_bytes, spec.page_entries) = (60_000, 40);
        let mut writer = BlockWriter::new(spec).unwrap();
        for (id, trace) in stored() {
            writer.add_trace(id.0, &[trace]).unwrap();
        }
        let finished = writer.finish().unwrap();
        let data: Vec<u8> = finished.data.into_iter().flatten().collect();
        OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.into(), Vec::new()))).unwrap()
    }

    /// Whatever is left out because it is too old must not be among the newest.
    #[test]
    fn a_limit_gives_the_newest_of_all_from_blocks_their_shares_and_live_traces() {
        let block = block();
        assert!(block.row_groups() > 3, "{} row groups", block.row_groups());
        let live = LiveSource::new(stored().into_iter().map(|(id, trace)| (id, vec![trace])));
        let queries = [
            "{ }",
            "{ status = error }",
            "{ resource.service.name = \"cart\" && duration > 1ms }",
            "{ span.http.response.status_code >= 400 || kind = client }",
            "{ span.app.user.id =~ \".*1.*\" }",
            "{ } >> { status = error }",
            "{ kind = server } | count() > 1",
            "{ event:name != \"x\" }",
        ];
        for text in queries {
            let job =
                |limit| SearchJob { query: text.to_owned(), limit, spans_per_span_set: 3, ..SearchJob::default() };
            let all = query::search(&live, &job(1000)).unwrap().traces;
            assert!(all.windows(2).all(|pair| pair[0].start_time_unix_nano >= pair[1].start_time_unix_nano));
            for limit in [1, 2, 3, 7, 20, 60, 1000] {
                let due: Vec<_> = all.iter().take(limit as usize).map(|trace| &trace.trace_id).collect();
                let ids = |traces: &[vivace_protocol::tempopb::TraceSearchMetadata]| {
                    traces.iter().map(|trace| trace.trace_id.clone()).collect::<Vec<_>>()
                };
                let found = query::search(&live, &job(limit)).unwrap().traces;
                assert!(ids(&found).iter().eq(due.iter().copied()), "{text}, limit {limit}, live");
                let found = query::search_block(&block, &Share::whole(), &job(limit)).unwrap().traces;
                assert!(ids(&found).iter().eq(due.iter().copied()), "{text}, limit {limit}, block");
                // One share after the other: the later ones begin with what the earlier found too old.
                let mut found: Vec<_> = Share::split(block.row_groups(), 3)
                    .iter()
                    .flat_map(|share| query::search_block(&block, share, &job(limit)).unwrap().traces)
                    .collect();
                found.sort_by(|a, b| (b.start_time_unix_nano, &a.trace_id).cmp(&(a.start_time_unix_nano, &b.trace_id)));
                found.truncate(limit as usize);
                assert!(ids(&found).iter().eq(due.iter().copied()), "{text}, limit {limit}, shares");
            }
        }
    }

    /// Whether parts are at hand, were pushed out, or are kept for the first time.
    #[test]
    fn what_is_kept_decoded_changes_no_answer() {
        let plain = block();
        let (roomy, narrow) = (Decoded::new(8 << 20), Decoded::new(20_000));
        let kept = [Arc::new(opened().keeping(&roomy)), Arc::new(opened().keeping(&narrow))];
        let queries = [
            "{ }",
            "{ status = error }",
            "{ resource.service.name = \"cart\" && duration > 1ms } | select(span:id, name, event:name)",
            "{ span.http.response.status_code >= 400 || kind = client } | select(span.http.response.status_code, kind)",
            "{ span.app.user.id =~ \".*1.*\" }",
            "{ } >> { status = error } | select(nestedSetLeft, trace:duration)",
            "{ kind = server } | count() > 1",
            "{ event:name != \"x\" && event.exception.type != \"y\" }",
            "{ link:spanID != \"\" } | select(link:traceID)",
            "{ instrumentation:name != \"\" } | by(resource.service.name)",
        ];
        for round in 0..3 {
            for text in queries {
                for limit in [2, 20, 1000] {
                    let job =
                        SearchJob { query: text.to_owned(), limit, spans_per_span_set: 3, ..SearchJob::default() };
                    let search = |block| query::search_block(block, &Share::whole(), &job).unwrap();
                    let due = search(&plain);
                    for block in &kept {
                        let found = search(block);
                        assert_eq!(found.traces, due.traces, "{text}, limit {limit}, round {round}");
                    }
                }
            }
        }
        assert!(roomy.bytes() > 20_000 && !roomy.is_empty(), "{roomy:?}");
        let cost = |block: &Arc<OpenBlock>| {
            let profiled = crate::profile::ProfiledBlock::new(Arc::clone(block));
            let plan = vivace_traceql::Query::parse("{ duration > 1ms }").unwrap();
            let plan = vivace_traceql::SearchPlan::new(&plan).unwrap();
            vivace_traceql::search(&profiled, &plan, None, 3, &mut vivace_traceql::Merger::new(20, true)).unwrap();
            profiled.finish().columns.iter().map(|column| column.bytes).sum::<u64>()
        };
        assert!(cost(&plain) > 0);
        assert_eq!(cost(&kept[0]), 0, "all of it is at hand");
    }

    #[test]
    fn what_is_kept_decoded_goes_with_its_block() {
        let decoded = Decoded::new(8 << 20);
        let query = "{ span.app.user.id =~ \".*1.*\" }".to_owned();
        let job = SearchJob { query, limit: 20, ..SearchJob::default() };
        let kept = [0; 2].map(|_| Arc::new(opened().keeping(&decoded)));
        for block in &kept {
            query::search_block(block, &Share::whole(), &job).unwrap();
        }
        decoded.settle();
        let both = decoded.len();
        let [one, other] = kept;
        drop(one);
        decoded.settle();
        assert!((both / 3..both * 2 / 3).contains(&decoded.len()), "{both}, then {decoded:?}");
        drop(other);
        decoded.settle();
        assert!(both > 0 && decoded.is_empty() && decoded.bytes() == 0, "{both}, then {decoded:?}");
    }

    #[test]
    fn a_search_that_nobody_waits_for_reads_nothing() {
        let (block, ended) = (block(), Arc::new(AtomicBool::new(false)));
        let job = SearchJob { query: "{ }".to_owned(), limit: 1000, ..SearchJob::default() };
        let found = || query::search_block(&block, &Share::whole().until(&ended), &job).unwrap();
        assert_eq!(found().traces.len(), stored().len());
        ended.store(true, Ordering::Relaxed);
        let nothing = found();
        assert_eq!((nothing.traces.len(), nothing.metrics.unwrap().inspected_bytes), (0, 0));
    }

    #[test]
    fn shares_cover_all_row_groups_once() {
        for row_groups in 0..12 {
            for most in 0..5 {
                let shares = Share::split(row_groups, most);
                assert!(shares.len() <= most.max(1) && shares[0].groups.start == 0);
                assert!(shares.windows(2).all(|pair| pair[0].groups.end == pair[1].groups.start));
                assert!(shares.iter().all(|share| !share.groups.is_empty() || row_groups == 0));
                assert_eq!(shares[shares.len() - 1].groups.end, usize::MAX);
            }
        }
    }
}

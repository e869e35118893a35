//! Worker: answers the jobs of queries from blocks and from the live-store.
//!
//! Consumes the query messages of `protocol/`. A job without block ids is about recent data and goes to the live-store; one
//! with block ids is answered from these blocks. Mailbox 256 (`querier.max_concurrent_queries` bounds what runs): a message is
//! a query text and a list of ids.
//! On restart: nothing is kept; running jobs end with UNAVAILABLE and are tried again by the query-frontend.

mod split;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::Semaphore;
use tonic::Status;
use uuid::Uuid;
use vivace_protocol::vivace::find_trace_request::From;
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, Coverage, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, Profile,
    SearchBatch, SearchJob, Skipped, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_protocol::{TraceId, find_trace};
use vivace_runtime::{Compute, Cx, Deadline, Mailbox, Part, Replies, Reply, Serve};
use vivace_storage::query::{self as engine, BlockSearch, Share};
use vivace_storage::{Backend, BlockKey, BlockMeta, OpenBlock, PageStarts, TraceRow, profile};

use crate::blocklist::LiveBlocks;
use crate::blocks::Blocks;
use crate::recent::Recent;

/// The part: handles only.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) recent: Recent,
    pub(crate) blocklist: Mailbox<LiveBlocks, Vec<Arc<BlockMeta>>>,
    pub(crate) list: Mailbox<BlockListRequest, BlockListReply>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) backend: Backend,
    pub(crate) compute: Compute,
    pub(crate) running: Arc<Semaphore>,
    /// How many threads `compute` has.
    pub(crate) cores: usize,
    pub(crate) find_timeout: Duration,
    pub(crate) search_timeout: Duration,
}

impl Worker {
    async fn metas(&self, tenant: &str, with_compacted: bool) -> Result<Vec<Arc<BlockMeta>>, Status> {
        let request = LiveBlocks { tenant: tenant.into(), with_compacted };
        self.blocklist.ask(request, Deadline::after(self.find_timeout)).await
    }

    /// Runs one function per block on the compute pool, a few at a time. Failures are skipped sources, not errors.
    fn on_blocks<T: Send + 'static>(
        &self,
        metas: Vec<Arc<BlockMeta>>,
        job: impl Fn(&Arc<OpenBlock>, Opened) -> Result<T, Status> + Send + Sync + Clone + 'static,
    ) -> BoxStream<'static, Result<T, Skipped>> {
        let whole = |_: &BlockMeta| vec![Share::whole()];
        let one = move |mut replies: Vec<T>| replies.pop();
        let replies = self.on_shares(metas, whole, move |block, _, opened| job(block, opened));
        replies.filter_map(move |replies| futures::future::ready(replies.map(one).transpose())).boxed()
    }

    /// As [`Self::on_blocks`], with each block cut into shares that are read side by side.
    fn on_shares<T: Send + 'static>(
        &self,
        metas: Vec<Arc<BlockMeta>>,
        split: impl Fn(&BlockMeta) -> Vec<Share> + Send + 'static,
        job: impl Fn(&Arc<OpenBlock>, &Share, Opened) -> Result<T, Status> + Send + Sync + Clone + 'static,
    ) -> BoxStream<'static, Result<Vec<T>, Skipped>> {
        let worker = self.clone();
        stream::iter(metas)
            .map(move |meta| {
                let read = |share| worker.clone().read(Arc::clone(&meta), share, job.clone());
                let replies = futures::future::try_join_all(split(&meta).into_iter().map(read));
                async move { replies.await.map_err(|status| skipped_block(&meta, &status)) }
            })
            .buffer_unordered(8)
            .boxed()
    }

    async fn read<T: Send + 'static>(
        self,
        meta: Arc<BlockMeta>,
        share: Share,
        job: impl Fn(&Arc<OpenBlock>, &Share, Opened) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let blocks = Arc::clone(&self.blocks);
        let read = move || {
            let began = Instant::now();
            let opened = blocks.get(&meta).map_err(|error| Status::unavailable(text(&error)))?;
            let (block, at_hand) = opened;
            job(&block, &share, Opened { at_hand, took: began.elapsed() })
        };
        self.in_turn(read).await
    }

    /// Computes, once it is its turn.
    async fn in_turn<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let stopping = |_closed| Status::unavailable("the querier is stopping");
        let _turn = self.running.acquire().await.map_err(stopping)?;
        self.compute.run(0, job).await.and_then(std::convert::identity)
    }

    /// As many shares as there are cores; a query that is to be explained reads a block in one piece.
    fn shares(&self, explain: bool) -> impl Fn(&BlockMeta) -> Vec<Share> + Send + 'static {
        let most = if explain { 1 } else { self.cores };
        move |meta| Share::split(usize::try_from(meta.total_records).unwrap_or(1), most)
    }

    async fn find(self, request: FindTraceRequest) -> Result<Replies<FindTraceBatch>, Status> {
        let id = TraceId::from_slice(&request.trace_id)
            .ok_or_else(|| Status::invalid_argument("a trace id has 16 bytes"))?;
        let from = request.from();
        if from == From::Blocks {
            return self.find_in_blocks(request, id).await;
        }
        let recent = self.recent.find(&request, self.find_timeout).await.map(Ok);
        if from == From::Recent {
            return Ok(recent.boxed());
        }
        // Recent data first, then the list: a trace that moves into a block meanwhile is published before it leaves.
        let blocks = stream::once(self.find_in_blocks(request, id)).flat_map(|found| match found {
            Ok(found) => found,
            Err(status) => stream::iter([Err(status)]).boxed(),
        });
        Ok(recent.chain(blocks).boxed())
    }

    /// First it is found which blocks have the trace, several at once; then its rows are read, one after the other and only as
    /// fast as somebody takes them: each can be as large as tens of megabytes.
    async fn find_in_blocks(self, request: FindTraceRequest, id: TraceId) -> Result<Replies<FindTraceBatch>, Status> {
        let (first, last) = (block_bound(&request.block_start, 0)?, block_bound(&request.block_end, u8::MAX)?);
        // Merged blocks are on the list before their inputs leave it, so the inputs need not be asked as well.
        let metas = self.metas(&request.tenant, false).await?;
        let chosen = |meta: &Arc<BlockMeta>| {
            (first..=last).contains(meta.block_id.as_bytes())
                && overlaps(meta, request.start_unix_nano, request.end_unix_nano)
        };
        let metas: Vec<_> = metas.into_iter().filter(chosen).collect();
        let mut coverage = Coverage { total: u32::try_from(metas.len()).unwrap_or(u32::MAX), ..Coverage::default() };
        let mut profile: Option<Profile> = None;
        let explain = request.explain;
        let page = find_trace::page(&request).map(|(from, count)| Arc::new(PageStarts::new(from, count)));
        let told = page.clone();
        let mut located = self.on_blocks(metas, move |block, opened| {
            let mut notes = None;
            if explain {
                let by_bloom =
                    !vivace_storage::may_contain(block, id).map_err(|error| Status::unavailable(text(&error)))?;
                notes = opened.note(Some(Profile { blocks_by_bloom: u64::from(by_bloom), ..Profile::default() }));
            }
            let Some(row) = engine::locate_trace(block, id)? else { return Ok((None, notes)) };
            // Without a page all of the row is wanted.
            let first = told.as_ref().map_or(Ok(Some(0)), |page| engine::first_of_page(page, block, row))?;
            Ok((Some((Arc::clone(block), row, first)), notes))
        });
        let mut rows = Vec::new();
        while let Some(place) = located.next().await {
            match place {
                Ok((place, notes)) => {
                    if let Some(notes) = notes {
                        profile::add(profile.get_or_insert_default(), notes);
                    }
                    match place {
                        Some(place) => rows.push(place),
                        None => coverage.read += 1,
                    }
                }
                Err(skipped) => coverage.skipped.push(skipped),
            }
        }
        // What starts later than where the rows together fill the page is on no account on it.
        let starts = page.map_or(0..=u64::MAX, |page| page.starts());
        rows.retain(|(_, _, first)| {
            let wanted = first.is_some_and(|first| starts.contains(&first));
            coverage.read += u32::from(!wanted);
            wanted
        });
        let head = FindTraceBatch { coverage: Some(coverage), profile, ..FindTraceBatch::default() };
        let worker = self.clone();
        let read = move |(block, row, _)| worker.clone().row(block, row, starts.clone());
        let rows = stream::iter(rows).then(read).flatten();
        Ok(stream::iter([Ok(head)]).chain(rows).boxed())
    }

    /// The spans of one row that start in `starts` as batches, with the coverage of its block.
    async fn row(self, block: Arc<OpenBlock>, row: TraceRow, starts: RangeInclusive<u64>) -> Replies<FindTraceBatch> {
        let what = format!("block {}", block.meta().block_id);
        let covered = |coverage| FindTraceBatch { coverage: Some(coverage), ..FindTraceBatch::default() };
        let trace = match self.in_turn(move || engine::read_trace(&block, row, starts)).await {
            Ok(trace) => trace,
            Err(status) => {
                let skipped = vec![Skipped { what, reason: status.message().to_owned() }];
                return stream::iter([Ok(covered(Coverage { skipped, ..Coverage::default() }))]).boxed();
            }
        };
        let inspected_bytes = trace.iter().map(bytes::Bytes::len).sum::<usize>() as u64;
        let head = FindTraceBatch { inspected_bytes, ..covered(Coverage { read: 1, ..Coverage::default() }) };
        let unreadable = move |error| Status::data_loss(format!("{what}: {error}"));
        let batches = find_trace::batches(trace).map(move |batch| batch.map_err(&unreadable));
        stream::iter(std::iter::once(Ok(head)).chain(batches)).boxed()
    }

    /// The blocks of a job, and those that are not there. Who made the job may know of blocks that this querier has not heard of
    /// yet: their metas are read now.
    async fn chosen(&self, tenant: &str, ids: &[String]) -> Result<(Vec<Arc<BlockMeta>>, Vec<Skipped>), Status> {
        let wanted: Result<HashSet<Uuid>, _> = ids.iter().map(|id| Uuid::parse_str(id)).collect();
        let mut wanted = wanted.map_err(|error| Status::invalid_argument(format!("block id: {error}")))?;
        let mut metas: Vec<_> =
            self.metas(tenant, true).await?.into_iter().filter(|meta| wanted.remove(&meta.block_id)).collect();
        let tenant: Arc<str> = tenant.into();
        let unknown = wanted.into_iter().map(|id| self.meta(BlockKey::new(Arc::clone(&tenant), id), id));
        let mut gone = Vec::new();
        let mut unknown = stream::iter(unknown).buffer_unordered(8);
        while let Some(read) = unknown.next().await {
            match read {
                Ok(meta) => metas.push(meta),
                Err(skipped) => gone.push(skipped),
            }
        }
        Ok((metas, gone))
    }

    /// The meta of a block as the store has it. A block that was merged into another can be read until it is deleted.
    async fn meta(&self, key: BlockKey, id: Uuid) -> Result<Arc<BlockMeta>, Skipped> {
        let skipped = |reason: String| Skipped { what: format!("block {id}"), reason };
        match self.backend.read_meta(&key).await {
            Ok(meta) => return Ok(Arc::new(meta)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(skipped(text(&error))),
        }
        match self.backend.read_compacted_meta(&key).await {
            Ok(compacted) => Ok(Arc::new(compacted.meta)),
            Err(error) if error.is_not_found() => Err(skipped("it is no longer in the store".to_owned())),
            Err(error) => Err(skipped(text(&error))),
        }
    }

    async fn search(self, job: SearchJob) -> Result<BoxStream<'static, Result<SearchBatch, Status>>, Status> {
        if job.block_ids.is_empty() {
            let timeout = Deadline::after(self.search_timeout);
            return self.recent.search(job, timeout).await;
        }
        let (metas, gone) = self.chosen(&job.tenant, &job.block_ids).await?;
        let job = Arc::new(job);
        let ended = Ended::default();
        let (flag, budget) = (Arc::clone(&ended.0), engine::budget(job.max_bytes));
        let split = self.split(&job.tenant, &metas, (job.start_unix_nano, job.end_unix_nano), &[]).await?;
        let split = self.search_split(split, &job, &budget, &flag);
        let searched = move |meta: Arc<BlockMeta>| {
            let share = Share::whole().until(&flag).within(&budget).apart();
            let found = self.clone().search_block(Arc::clone(&meta), share, Arc::clone(&job));
            async move { (meta, found.await) }
        };
        let found = stream::iter(metas).map(searched).buffer_unordered(8).flat_map(move |(meta, result)| {
            let _until_the_stream_is_dropped = &ended;
            stream::iter(match result {
                Ok(batch) => {
                    let coverage = Some(Coverage { total: 1, read: 1, ..Coverage::default() });
                    SearchBatch { coverage, ..batch }.split().into_iter().map(Ok).collect()
                }
                // An error of the question itself is an answer: what other blocks would refuse too is no matter of coverage.
                Err(status) if engine::is_final(&status) => vec![Err(status)],
                Err(status) => vec![Ok(missed(skipped_block(&meta, &status)))],
            })
        });
        Ok(stream::iter(gone.into_iter().map(|skipped| Ok(missed(skipped)))).chain(split).chain(found).boxed())
    }

    /// A first look by one worker; if that is not enough, the rest by as many as there are cores. A query that is to be explained
    /// is run by one.
    async fn search_block(
        self,
        meta: Arc<BlockMeta>,
        share: Share,
        job: Arc<SearchJob>,
    ) -> Result<SearchBatch, Status> {
        let cores = if job.explain { 1 } else { self.cores };
        let blocks = Arc::clone(&self.blocks);
        let look = move || {
            let began = Instant::now();
            let (block, at_hand) = blocks.get(&meta).map_err(|error| Status::unavailable(text(&error)))?;
            let opened = Opened { at_hand, took: began.elapsed() };
            let search = BlockSearch::begin(&block, &share, &job)?;
            let left = search.left();
            if left.min(cores) < 2 {
                search.work()?;
                let batch = search.finish()?;
                let batch = SearchBatch { profile: opened.note(batch.profile), ..batch };
                return Ok(Looked::Done(Box::new(batch)));
            }
            Ok(Looked::More(Arc::new(search), left))
        };
        let (search, left) = match self.in_turn(look).await? {
            Looked::Done(batch) => return Ok(*batch),
            Looked::More(search, left) => (search, left),
        };
        let busy = Arc::new(AtomicUsize::new(left.min(cores)));
        let workers = (0..left.min(cores)).map(|_| {
            let (search, busy) = (Arc::clone(&search), Arc::clone(&busy));
            self.in_turn(move || {
                search.work()?;
                // Who ends last has everything at hand to go on.
                if busy.fetch_sub(1, Ordering::AcqRel) == 1 { search.finish().map(Some) } else { Ok(None) }
            })
        });
        let batches = futures::future::try_join_all(workers).await?;
        Ok(batches.into_iter().flatten().next().unwrap_or_default())
    }

    async fn metrics(self, job: MetricsJob) -> Result<BoxStream<'static, Result<MetricsBatch, Status>>, Status> {
        if job.block_ids.is_empty() {
            let timeout = Deadline::after(self.search_timeout);
            return self.recent.metrics(job, timeout).await;
        }
        let (metas, gone) = self.chosen(&job.tenant, &job.block_ids).await?;
        let job = Arc::new(job);
        // Set once nobody reads the answers any more, so that blocks being read are left as well.
        let ended = Ended::default();
        let flag = Arc::clone(&ended.0);
        let whole = split::has_parts(&metas) && engine::asks_for_traces(&job)?;
        let split = if whole {
            self.split(&job.tenant, &metas, engine::window_of(&job), &job.held_block_ids).await?
        } else {
            Vec::new()
        };
        let split = self.metrics_split(split, &job, &flag);
        let shares = self.shares(job.explain);
        let shares = move |meta: &BlockMeta| match shares(meta) {
            shares if whole => shares.into_iter().map(Share::apart).collect(),
            shares => shares,
        };
        let found = self.on_shares(metas, shares, move |block, share, opened| {
            let counted = engine::metrics_block(block, share, &job, &|| flag.load(Ordering::Relaxed));
            own(counted.map(|batch| MetricsBatch { profile: opened.note(batch.profile), ..batch }))
        });
        let found = found.flat_map(move |result| {
            let _until_the_stream_is_dropped = &ended;
            stream::iter(match result {
                Ok(mut batches) => {
                    if let Some(Ok(first)) = batches.first_mut() {
                        first.coverage = Some(Coverage { total: 1, read: 1, ..Coverage::default() });
                    }
                    batches
                }
                Err(skipped) => vec![Ok(missed_metrics(skipped))],
            })
        });
        Ok(stream::iter(gone.into_iter().map(|skipped| Ok(missed_metrics(skipped)))).chain(split).chain(found).boxed())
    }

    async fn tag_names(self, job: TagNamesJob) -> Result<TagNamesReply, Status> {
        if job.block_ids.is_empty() {
            let timeout = Deadline::after(self.search_timeout);
            return self.recent.tag_names(job, timeout).await;
        }
        let (metas, gone) = self.chosen(&job.tenant, &job.block_ids).await?;
        let job = Arc::new(job);
        let each = Arc::clone(&job);
        let mut replies = self.on_blocks(metas, move |block, _| own(engine::tag_names_block(block, &each)));
        let mut coverage = counted(&gone);
        let mut names = engine::TagNamesSum::new(job.max_per_scope, job.max_bytes);
        while let Some(reply) = replies.next().await {
            if let Some(reply) = keep(reply, &mut coverage) {
                names.add(reply?)?;
            }
        }
        Ok(TagNamesReply { coverage: Some(coverage), ..names.finish() })
    }

    async fn tag_values(self, job: TagValuesJob) -> Result<TagValuesReply, Status> {
        if job.block_ids.is_empty() {
            let timeout = Deadline::after(self.search_timeout);
            return self.recent.tag_values(job, timeout).await;
        }
        let (metas, gone) = self.chosen(&job.tenant, &job.block_ids).await?;
        let job = Arc::new(job);
        let each = Arc::clone(&job);
        let mut replies = self.on_blocks(metas, move |block, _| own(engine::tag_values_block(block, &each)));
        let mut coverage = counted(&gone);
        let mut values = engine::TagValuesSum::new(job.max_values, job.max_bytes);
        while let Some(reply) = replies.next().await {
            if let Some(reply) = keep(reply, &mut coverage) {
                values.add(reply?)?;
            }
        }
        Ok(TagValuesReply { coverage: Some(coverage), ..values.finish() })
    }
}

fn counted(gone: &[Skipped]) -> Coverage {
    Coverage { total: u32::try_from(gone.len()).unwrap_or(u32::MAX), skipped: gone.to_vec(), ..Coverage::default() }
}

fn keep<T>(reply: Result<T, Skipped>, coverage: &mut Coverage) -> Option<T> {
    coverage.total += 1;
    match reply {
        Ok(reply) => {
            coverage.read += 1;
            Some(reply)
        }
        Err(skipped) => {
            coverage.skipped.push(skipped);
            None
        }
    }
}

fn missed(skipped: Skipped) -> SearchBatch {
    let coverage = Coverage { total: 1, skipped: vec![skipped], ..Coverage::default() };
    SearchBatch { coverage: Some(coverage), ..SearchBatch::default() }
}

fn missed_metrics(skipped: Skipped) -> MetricsBatch {
    let coverage = Coverage { total: 1, skipped: vec![skipped], ..Coverage::default() };
    MetricsBatch { coverage: Some(coverage), ..MetricsBatch::default() }
}

/// An error of the question itself is an answer: what other blocks would refuse too is no matter of coverage.
fn own<T>(result: Result<T, Status>) -> Result<Result<T, Status>, Status> {
    match result {
        Err(status) if !engine::is_final(&status) => Err(status),
        result => Ok(result),
    }
}

/// What a first look at a block came to.
enum Looked {
    Done(Box<SearchBatch>),
    /// How many row groups are left to look at.
    More(Arc<BlockSearch>, usize),
}

fn skipped_block(meta: &BlockMeta, status: &Status) -> Skipped {
    Skipped { what: format!("block {}", meta.block_id), reason: status.message().to_owned() }
}

/// How a block came to hand.
#[derive(Debug, Clone, Copy)]
struct Opened {
    at_hand: bool,
    took: Duration,
}

impl Opened {
    /// Adds it to the notes of the block, where notes are taken.
    fn note(self, notes: Option<Profile>) -> Option<Profile> {
        notes.map(|notes| Profile {
            blocks_at_hand: u64::from(self.at_hand),
            blocks_opened: u64::from(!self.at_hand),
            open_nanos: u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX),
            ..notes
        })
    }
}

/// Says to running work that its stream is gone.
#[derive(Default)]
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A bound of block ids; empty is open.
fn block_bound(bytes: &[u8], open: u8) -> Result<[u8; 16], Status> {
    if bytes.is_empty() {
        return Ok([open; 16]);
    }
    bytes
        .try_into()
        .map_err(|_other_length| Status::invalid_argument(format!("a block id has 16 bytes, not {}", bytes.len())))
}

/// Bounds of 0 are open. A block's end is inclusive by the second.
fn overlaps(meta: &BlockMeta, start: u64, end: u64) -> bool {
    (start == 0 || meta.end_time.0.saturating_add(1_000_000_000) >= start) && (end == 0 || meta.start_time.0 <= end)
}

/// An error with its causes on one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Part for Worker {
    fn observe(&self) -> serde_json::Value {
        serde_json::json!({ "free_turns": self.running.available_permits() })
    }
}

impl Serve<FindTraceRequest> for Worker {
    type Reply = Replies<FindTraceBatch>;

    fn serve(&mut self, request: FindTraceRequest, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().find(request))
    }
}

impl Serve<SearchJob> for Worker {
    type Reply = BoxStream<'static, Result<SearchBatch, Status>>;

    fn serve(&mut self, job: SearchJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().search(job))
    }
}

impl Serve<MetricsJob> for Worker {
    type Reply = BoxStream<'static, Result<MetricsBatch, Status>>;

    fn serve(&mut self, job: MetricsJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().metrics(job))
    }
}

impl Serve<TagNamesJob> for Worker {
    type Reply = TagNamesReply;

    fn serve(&mut self, job: TagNamesJob, _cx: &mut Cx<Self>) -> Reply<TagNamesReply> {
        Reply::awaited(self.clone().tag_names(job))
    }
}

impl Serve<TagValuesJob> for Worker {
    type Reply = TagValuesReply;

    fn serve(&mut self, job: TagValuesJob, _cx: &mut Cx<Self>) -> Reply<TagValuesReply> {
        Reply::awaited(self.clone().tag_values(job))
    }
}

impl Serve<BlockListRequest> for Worker {
    type Reply = BlockListReply;

    fn serve(&mut self, request: BlockListRequest, _cx: &mut Cx<Self>) -> Reply<BlockListReply> {
        let (list, timeout) = (self.list.clone(), Deadline::after(self.find_timeout));
        Reply::later(async move { list.ask(request, timeout).await })
    }
}

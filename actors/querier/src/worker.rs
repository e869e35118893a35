//! Worker: answers the jobs of queries from blocks and from the live-store.
//!
//! Consumes the query messages of `protocol/`. A job without block ids is about recent data and goes to the live-store; one
//! with block ids is answered from these blocks. Mailbox 256 (`querier.max_concurrent_queries` bounds what runs): a message is
//! a query text and a list of ids.
//! On restart: nothing is kept; running jobs end with UNAVAILABLE and are tried again by the query-frontend.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::Semaphore;
use tonic::Status;
use uuid::Uuid;
use vivace_protocol::TraceId;
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, Coverage, FindTraceReply, FindTraceRequest, SearchBatch, SearchJob, Skipped,
    TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::{Compute, Cx, Deadline, Endpoint, Mailbox, Part, Reply, Serve, StreamEndpoint};
use vivace_storage::{BlockMeta, OpenBlock, query as engine};

use crate::blocklist::LiveBlocks;
use crate::blocks::Blocks;

/// What the querier asks of recent data.
#[derive(Clone, Debug)]
pub struct Recent {
    /// The pieces of a trace.
    pub find: Endpoint<FindTraceRequest, FindTraceReply>,
    /// A search.
    pub search: StreamEndpoint<SearchJob, SearchBatch>,
    /// Names of tags.
    pub tag_names: Endpoint<TagNamesJob, TagNamesReply>,
    /// Values of a tag.
    pub tag_values: Endpoint<TagValuesJob, TagValuesReply>,
}

/// The part: handles only.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) recent: Recent,
    pub(crate) blocklist: Mailbox<LiveBlocks, Vec<Arc<BlockMeta>>>,
    pub(crate) list: Mailbox<BlockListRequest, BlockListReply>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) compute: Compute,
    pub(crate) running: Arc<Semaphore>,
    pub(crate) find_timeout: Duration,
    pub(crate) search_timeout: Duration,
}

/// The name of the source that holds what no block covers, in coverage.
const RECENT: &str = "live-store";

impl Worker {
    async fn metas(&self, tenant: &str, with_compacted: bool) -> Result<Vec<Arc<BlockMeta>>, Status> {
        let request = LiveBlocks { tenant: tenant.into(), with_compacted };
        self.blocklist.ask(request, Deadline::after(self.find_timeout)).await
    }

    /// Runs one function per block on the compute pool, a few at a time. Failures are skipped sources, not errors.
    fn on_blocks<T: Send + 'static>(
        &self,
        metas: Vec<Arc<BlockMeta>>,
        job: impl Fn(&Arc<OpenBlock>) -> Result<T, Status> + Send + Sync + Clone + 'static,
    ) -> BoxStream<'static, Result<T, Skipped>> {
        let worker = self.clone();
        stream::iter(metas)
            .map(move |meta| {
                let (worker, job) = (worker.clone(), job.clone());
                async move {
                    let skipped = |reason: String| Skipped { what: format!("block {}", meta.block_id), reason };
                    let Ok(_turn) = worker.running.acquire().await else {
                        return Err(skipped("the querier is stopping".to_owned()));
                    };
                    let (blocks, meta_job) = (Arc::clone(&worker.blocks), Arc::clone(&meta));
                    let read = move || {
                        let block = blocks.get(&meta_job).map_err(|error| Status::unavailable(text(&error)))?;
                        job(&block)
                    };
                    let done = worker.compute.run(0, read).await.and_then(std::convert::identity);
                    done.map_err(|status| skipped(status.message().to_owned()))
                }
            })
            .buffer_unordered(8)
            .boxed()
    }

    async fn find(self, request: FindTraceRequest) -> Result<FindTraceReply, Status> {
        let id = TraceId::from_slice(&request.trace_id)
            .ok_or_else(|| Status::invalid_argument("a trace id has 16 bytes"))?;
        // Recent data first, then the list: a trace that moves into a block meanwhile is published before it leaves.
        let recent = self.recent.find.call(request.clone(), Deadline::after(self.find_timeout)).await;
        // Merged blocks are on the list before their inputs leave it, so the inputs need not be asked as well.
        let metas = self.metas(&request.tenant, false).await?;
        let mut coverage = Coverage { total: 1, ..Coverage::default() };
        let mut reply = FindTraceReply::default();
        match recent {
            Ok(found) => {
                coverage.read += 1;
                reply.parts = found.parts;
                reply.inspected_bytes = found.inspected_bytes;
            }
            Err(status) => coverage.skipped.push(skipped(RECENT, &status)),
        }
        let metas: Vec<_> =
            metas.into_iter().filter(|m| overlaps(m, request.start_unix_nano, request.end_unix_nano)).collect();
        coverage.total += u32::try_from(metas.len()).unwrap_or(u32::MAX);
        let mut found = self.on_blocks(metas, move |block| engine::find_trace(block, id));
        while let Some(part) = found.next().await {
            match part {
                Ok(part) => {
                    coverage.read += 1;
                    reply.inspected_bytes += part.as_ref().map_or(0, |p| p.len() as u64);
                    reply.parts.extend(part);
                }
                Err(skipped) => coverage.skipped.push(skipped),
            }
        }
        reply.coverage = Some(coverage);
        Ok(reply)
    }

    /// The blocks of a job; one that is gone from the list has been merged into another that the asker will learn of.
    async fn chosen(&self, tenant: &str, ids: &[String]) -> Result<(Vec<Arc<BlockMeta>>, Vec<Skipped>), Status> {
        let wanted: Result<HashSet<Uuid>, _> = ids.iter().map(|id| Uuid::parse_str(id)).collect();
        let mut wanted = wanted.map_err(|error| Status::invalid_argument(format!("block id: {error}")))?;
        let metas: Vec<_> =
            self.metas(tenant, true).await?.into_iter().filter(|meta| wanted.remove(&meta.block_id)).collect();
        let gone = wanted
            .into_iter()
            .map(|id| Skipped { what: format!("block {id}"), reason: "it is no longer on the blocklist".to_owned() })
            .collect();
        Ok((metas, gone))
    }

    async fn search(self, job: SearchJob) -> Result<BoxStream<'static, Result<SearchBatch, Status>>, Status> {
        if job.block_ids.is_empty() {
            let timeout = Deadline::after(self.search_timeout);
            return self.recent.search.call(job, timeout).await;
        }
        let (metas, gone) = self.chosen(&job.tenant, &job.block_ids).await?;
        let job = Arc::new(job);
        let found = self.on_blocks(metas, move |block| engine::search_block(block, &job)).map(|result| {
            Ok(match result {
                Ok(mut batch) => {
                    batch.coverage = Some(Coverage { total: 1, read: 1, ..Coverage::default() });
                    batch
                }
                Err(skipped) => missed(skipped),
            })
        });
        Ok(stream::iter(gone.into_iter().map(|skipped| Ok(missed(skipped)))).chain(found).boxed())
    }

    async fn tag_names(self, job: TagNamesJob) -> Result<TagNamesReply, Status> {
        if job.block_ids.is_empty() {
            let timeout = Deadline::after(self.search_timeout);
            return self.recent.tag_names.call(job, timeout).await;
        }
        let (metas, gone) = self.chosen(&job.tenant, &job.block_ids).await?;
        let job = Arc::new(job);
        let each = Arc::clone(&job);
        let replies =
            self.on_blocks(metas, move |block| engine::tag_names_block(block, &each)).collect::<Vec<_>>().await;
        let mut coverage = counted(&gone);
        let read = replies.into_iter().filter_map(|reply| keep(reply, &mut coverage)).collect();
        let mut reply = engine::merge_tag_names(read, job.max_per_scope);
        reply.coverage = Some(coverage);
        Ok(reply)
    }

    async fn tag_values(self, job: TagValuesJob) -> Result<TagValuesReply, Status> {
        if job.block_ids.is_empty() {
            let timeout = Deadline::after(self.search_timeout);
            return self.recent.tag_values.call(job, timeout).await;
        }
        let (metas, gone) = self.chosen(&job.tenant, &job.block_ids).await?;
        let job = Arc::new(job);
        let each = Arc::clone(&job);
        let replies =
            self.on_blocks(metas, move |block| engine::tag_values_block(block, &each)).collect::<Vec<_>>().await;
        let mut coverage = counted(&gone);
        let read = replies.into_iter().filter_map(|reply| keep(reply, &mut coverage)).collect();
        let mut reply = engine::merge_tag_values(read, job.max_values);
        reply.coverage = Some(coverage);
        Ok(reply)
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

fn skipped(what: &str, status: &Status) -> Skipped {
    Skipped { what: what.to_owned(), reason: status.message().to_owned() }
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
    type Reply = FindTraceReply;

    fn serve(&mut self, request: FindTraceRequest, _cx: &mut Cx<Self>) -> Reply<FindTraceReply> {
        Reply::later(self.clone().find(request))
    }
}

impl Serve<SearchJob> for Worker {
    type Reply = BoxStream<'static, Result<SearchBatch, Status>>;

    fn serve(&mut self, job: SearchJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().search(job))
    }
}

impl Serve<TagNamesJob> for Worker {
    type Reply = TagNamesReply;

    fn serve(&mut self, job: TagNamesJob, _cx: &mut Cx<Self>) -> Reply<TagNamesReply> {
        Reply::later(self.clone().tag_names(job))
    }
}

impl Serve<TagValuesJob> for Worker {
    type Reply = TagValuesReply;

    fn serve(&mut self, job: TagValuesJob, _cx: &mut Cx<Self>) -> Reply<TagValuesReply> {
        Reply::later(self.clone().tag_values(job))
    }
}

impl Serve<BlockListRequest> for Worker {
    type Reply = BlockListReply;

    fn serve(&mut self, request: BlockListRequest, _cx: &mut Cx<Self>) -> Reply<BlockListReply> {
        let (list, timeout) = (self.list.clone(), Deadline::after(self.find_timeout));
        Reply::later(async move { list.ask(request, timeout).await })
    }
}

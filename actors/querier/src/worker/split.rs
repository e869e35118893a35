//! Traces that are too large for one row: each is evaluated once, with all of its blocks, by the job with the block that it begins in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tonic::Status;
use vivace_protocol::TraceId;
use vivace_protocol::vivace::{Coverage, MetricsBatch, MetricsJob, SearchBatch, SearchJob, Skipped};
use vivace_storage::query::{self as engine, Budget, SplitOver};
use vivace_storage::{BlockMeta, OpenBlock};

use super::{Worker, text};
use crate::blocks::Blocks;

impl Worker {
    /// The split traces to evaluate with these blocks, of which no part is read from blocks that are `held`. Where no block has a part of
    /// one, as nearly always, this asks nobody.
    pub(super) async fn split(
        &self,
        tenant: &str,
        metas: &[Arc<BlockMeta>],
        window: (u64, u64),
        held: &[String],
    ) -> Result<Vec<SplitOver>, Status> {
        if !has_parts(metas) {
            return Ok(Vec::new());
        }
        let mut listed = self.metas(tenant, false).await?;
        listed.retain(|meta| held.is_empty() || !held.contains(&meta.block_id.to_string()));
        Ok(SplitOver::begun_in(metas, &listed, window))
    }

    /// One after the other: what is held of such a trace is bounded, and large.
    pub(super) fn search_split(
        &self,
        split: Vec<SplitOver>,
        job: &Arc<SearchJob>,
        budget: &Budget,
        ended: &Arc<AtomicBool>,
    ) -> BoxStream<'static, Result<SearchBatch, Status>> {
        let (job, budget, ended) = (Arc::clone(job), budget.clone(), Arc::clone(ended));
        self.each_split(split, move |trace, blocks| {
            if ended.load(Ordering::Relaxed) {
                return Ok(SearchBatch::default());
            }
            engine::search_split(trace, blocks, &job, &budget)
        })
        .flat_map(|found| {
            stream::iter(match found {
                Ok(Ok(batch)) => batch.split().into_iter().map(Ok).collect(),
                Ok(Err(status)) => vec![Err(status)],
                Err(skipped) => {
                    let coverage = Coverage { skipped: vec![skipped], ..Coverage::default() };
                    vec![Ok(SearchBatch { coverage: Some(coverage), ..SearchBatch::default() })]
                }
            })
        })
        .boxed()
    }

    /// As [`Self::search_split`].
    pub(super) fn metrics_split(
        &self,
        split: Vec<SplitOver>,
        job: &Arc<MetricsJob>,
        ended: &Arc<AtomicBool>,
    ) -> BoxStream<'static, Result<MetricsBatch, Status>> {
        let (job, ended) = (Arc::clone(job), Arc::clone(ended));
        self.each_split(split, move |trace, blocks| {
            engine::metrics_split(trace, blocks, &job, &|| ended.load(Ordering::Relaxed))
        })
        .map(|found| match found {
            Ok(found) => found,
            Err(skipped) => {
                let coverage = Coverage { skipped: vec![skipped], ..Coverage::default() };
                Ok(MetricsBatch { coverage: Some(coverage), ..MetricsBatch::default() })
            }
        })
        .boxed()
    }

    /// An error of the question itself is an answer; a trace of which a block cannot be read is skipped.
    fn each_split<T, F>(
        &self,
        split: Vec<SplitOver>,
        ask: F,
    ) -> impl Stream<Item = Result<Result<T, Status>, Skipped>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(TraceId, &[Arc<OpenBlock>]) -> Result<T, Status> + Send + Sync + Clone + 'static,
    {
        let worker = self.clone();
        stream::iter(split).then(move |split| {
            let (worker, ask) = (worker.clone(), ask.clone());
            async move {
                let trace = split.trace;
                let blocks = Arc::clone(&worker.blocks);
                let asked = worker.in_turn(move || ask(trace, &opened(&blocks, &split.blocks)?)).await;
                super::own(asked).map_err(|status| {
                    let reason = status.message().to_owned();
                    Skipped { what: format!("trace {trace}, which is in several blocks"), reason }
                })
            }
        })
    }
}

/// Whether some block has a part of a split trace.
pub(super) fn has_parts(metas: &[Arc<BlockMeta>]) -> bool {
    metas.iter().any(|meta| !meta.split_traces.is_empty())
}

fn opened(blocks: &Blocks, metas: &[Arc<BlockMeta>]) -> Result<Vec<Arc<OpenBlock>>, Status> {
    let open = |meta: &Arc<BlockMeta>| blocks.get(meta).map_err(|error| Status::unavailable(text(&error)));
    metas.iter().map(|meta| Ok(open(meta)?.0)).collect()
}

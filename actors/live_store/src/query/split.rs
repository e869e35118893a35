//! Traces that are too large for one row and lie in several local blocks: each is evaluated once, with all of them.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::Status;
use vivace_protocol::TraceId;
use vivace_storage::query::SplitOver;
use vivace_storage::{BlockMeta, OpenBlock};

use super::blocks::{Missed, Readers, text};
use crate::shelf::ShelfBlock;

/// A trace and the local blocks with its parts, in their order.
pub(super) type SplitTrace = (TraceId, Vec<Arc<ShelfBlock>>);

/// The split traces of some blocks, each with what these have of it.
pub(super) fn split_of(blocks: &[Arc<ShelfBlock>]) -> Vec<SplitTrace> {
    let marked = blocks.iter().filter(|block| !block.meta.split_traces.is_empty());
    let metas: Vec<Arc<BlockMeta>> = marked.map(|block| Arc::new(block.meta.clone())).collect();
    let split = SplitOver::begun_in(&metas, &metas, (0, 0));
    let block = |meta: &Arc<BlockMeta>| blocks.iter().find(|block| block.meta.block_id == meta.block_id).cloned();
    split.iter().map(|split| (split.trace, split.blocks.iter().filter_map(block).collect())).collect()
}

impl Readers {
    /// What `job` says of each trace, one after the other: what is held of such a trace is bounded, and large.
    pub(super) fn of_split<T: Send + 'static>(
        &self,
        split: Vec<SplitTrace>,
        missed: Missed,
        job: impl Fn(TraceId, &[Arc<OpenBlock>]) -> Result<T, Status> + Clone + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let readers = self.clone();
        let read = move |(trace, blocks): SplitTrace| {
            let (readers, missed, job) = (readers.clone(), missed.clone(), job.clone());
            async move { readers.read_split(trace, blocks, missed, job).await.transpose() }
        };
        stream::iter(split).filter_map(read).boxed()
    }

    async fn read_split<T: Send + 'static>(
        self,
        trace: TraceId,
        blocks: Vec<Arc<ShelfBlock>>,
        missed: Missed,
        job: impl Fn(TraceId, &[Arc<OpenBlock>]) -> Result<T, Status> + Send + 'static,
    ) -> Result<Option<T>, Status> {
        let Some(first) = blocks.first().cloned() else { return Ok(None) };
        let open = self.open;
        let read = move || {
            let opened: Result<Vec<_>, _> = blocks.iter().map(|block| open.get(block)).collect();
            job(trace, &opened.map_err(|error| Status::unavailable(text(&error)))?)
        };
        missed.noting(&first, self.compute.run(0, read).await.and_then(std::convert::identity))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use vivace_runtime::Compute;
    use vivace_storage::{BlockSpec, BlockWriter, DedicatedColumns, SplitTrace as Mark};

    use super::*;
    use crate::shelf::BlockFolder;

    #[test]
    fn a_trace_is_evaluated_with_those_of_its_blocks_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = BlockFolder::open(dir.path(), Compute::inline()).unwrap();
        let trace = TraceId([7; 16]);
        let block = |number: u32, marked: bool| {
            let id = Uuid::from_u128(number.into());
            let mut writer = BlockWriter::new(BlockSpec::new("t", id, DedicatedColumns(Vec::new()))).unwrap();
            writer.add_trace(trace.0, &[vec![0x0A, 4, 0x12, 2, 0x12, 0].into()]).unwrap();
            let mut meta = writer.finish().unwrap().meta;
            let mark = Mark { trace, first: Uuid::from_u128(10), part: number - 10, received_ms: 5 };
            meta.split_traces.extend(marked.then_some(mark));
            folder.block(meta)
        };
        let blocks = vec![block(12, true), block(30, false), block(10, true), block(11, true)];
        let ids = |blocks: &[Arc<ShelfBlock>]| -> Vec<(TraceId, Vec<u128>)> {
            let of = |block: &Arc<ShelfBlock>| block.meta.block_id.as_u128();
            split_of(blocks).iter().map(|(trace, blocks)| (*trace, blocks.iter().map(of).collect())).collect()
        };
        assert_eq!(ids(&blocks), [(trace, vec![10, 11, 12])]);
        assert_eq!(ids(&blocks[..2]), [(trace, vec![12])]);
        assert!(ids(&blocks[1..2]).is_empty());
    }
}

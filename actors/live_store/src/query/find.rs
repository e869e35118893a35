//! Finds a page of a trace: of the pieces in memory and of the rows of local blocks those that have some of it.
//!
//! First every part says when its spans start, as far as the page can go at the most, then what starts up to there is read. So a page costs about as much as
//! what is on it, wherever the trace's spans are.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;
use uuid::Uuid;
use vivace_protocol::TraceId;
use vivace_protocol::trace_page::PagedPieces;
use vivace_storage::query as engine;
use vivace_storage::{OpenBlock, PageStarts, TraceRow};

use super::blocks::{Missed, Readers};
use crate::shelf::ShelfBlock;
use crate::state::Pieces;

/// What somewhere is of a trace, and the bytes that were looked at for it.
pub(super) type Part = (Vec<Bytes>, u64);

/// Parts that are read while they are taken.
type Parts = BoxStream<'static, Result<Part, Status>>;

impl Readers {
    /// All of a trace: what is in memory, and what is in these blocks.
    pub(super) fn whole(
        &self,
        id: TraceId,
        live: Vec<Pieces>,
        blocks: Vec<Arc<ShelfBlock>>,
        missed: &Missed,
    ) -> (Part, Parts) {
        let stored = self.one_by_one(blocks, missed.clone(), move |block| engine::find_pieces(block, id).map(Some));
        (sized(live.into_iter().flat_map(|pieces| pieces.bytes).collect()), parts(stored))
    }

    /// A page of it: the spans that start at `from`, and of those that start later the first `count`, of each kind of place. There may be
    /// more, which start behind these.
    pub(super) async fn page(
        &self,
        id: TraceId,
        (from, count): (u64, usize),
        live: Vec<Pieces>,
        blocks: Vec<Arc<ShelfBlock>>,
        missed: &Missed,
    ) -> Result<(Part, Parts), Status> {
        let page = Arc::new(PageStarts::new(from, count));
        let shared = Arc::clone(&page);
        let measure = move || {
            let mut pieces = PagedPieces::new(live.into_iter().flat_map(Pieces::measured).collect());
            shared.holds(&pieces.first_starts(from, count));
            pieces
        };
        let mut pieces = self.compute.run(0, measure).await?;
        let rows = self.rows(id, &page, blocks, missed).await?;
        let starts = page.starts();
        let (blocks, rows): (Vec<_>, HashMap<Uuid, TraceRow>) =
            rows.into_iter().map(|(block, row)| (Arc::clone(&block), (block.meta.block_id, row))).unzip();
        let (wanted, of_rows) = (starts.clone(), starts);
        let live = self.compute.run(0, move || (pieces.starting_in(&wanted), pieces.inspected_bytes())).await?;
        let stored = self.one_by_one(blocks, missed.clone(), move |block| {
            let row = rows.get(&block.meta().block_id);
            row.map(|row| engine::read_trace(block, *row, of_rows.clone())).transpose()
        });
        Ok((live, parts(stored)))
    }

    /// The rows of blocks that have spans of the page, as far as it can go by all that is known at the end.
    async fn rows(
        &self,
        id: TraceId,
        page: &Arc<PageStarts>,
        blocks: Vec<Arc<ShelfBlock>>,
        missed: &Missed,
    ) -> Result<Vec<(Arc<ShelfBlock>, TraceRow)>, Status> {
        let told = Arc::clone(page);
        let first = move |block: &Arc<OpenBlock>| {
            let Some(row) = engine::locate_trace(block, id)? else { return Ok(None) };
            let first = engine::first_of_page(&told, block, row)?;
            Ok(first.map(|first| (block.meta().block_id, (row, first))))
        };
        let mut rows = HashMap::new();
        let mut found = self.some_at_once(blocks.clone(), missed.clone(), first);
        while let Some(row) = found.next().await {
            rows.extend(row?);
        }
        let starts = page.starts();
        let wanted = |block: &Arc<ShelfBlock>| {
            let (row, first) = rows.get(&block.meta.block_id)?;
            starts.contains(first).then_some(*row)
        };
        Ok(blocks.into_iter().filter_map(|block| wanted(&block).map(|row| (block, row))).collect())
    }
}

fn sized(parts: Vec<Bytes>) -> Part {
    let bytes = parts.iter().map(|part| part.len() as u64).sum();
    (parts, bytes)
}

fn parts(stored: BoxStream<'static, Result<Option<Vec<Bytes>>, Status>>) -> Parts {
    stored.map(|found| found.map(|parts| sized(parts.unwrap_or_default()))).boxed()
}

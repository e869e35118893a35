//! A reader of the local form: from memory as long as it keeps up, from the segments otherwise.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use vivace_runtime::{Compute, Disk};

use crate::error::Error;
use crate::log::{Batch, Reader};
use crate::partition_log::{PartitionLog, Published};
use crate::record::Offset;
use crate::segment_cursor::SegmentCursor;

/// See [`Reader`].
pub(crate) struct LocalReader {
    partition: Arc<PartitionLog>,
    published: watch::Receiver<Published>,
    disk: Arc<dyn Disk>,
    compute: Compute,
    position: Offset,
    /// Where the disk was read last; gone while a blocking read has it, and made anew if that read was given up.
    cursor: Option<SegmentCursor>,
}

/// What the view says about a position.
enum Next {
    Batch(Batch),
    OnDisk,
    Wait,
}

impl LocalReader {
    pub(crate) fn new(
        partition: Arc<PartitionLog>,
        disk: Arc<dyn Disk>,
        compute: Compute,
        position: Offset,
    ) -> Result<Self, Error> {
        let bounds = partition.bounds();
        if position < bounds.earliest || position > bounds.end {
            return Err(Error::OutOfRange { requested: position, earliest: bounds.earliest, end: bounds.end });
        }
        let published = partition.subscribe();
        Ok(Self { partition, published, disk, compute, position, cursor: None })
    }

    fn look(&self, max_bytes: usize) -> Result<Next, Error> {
        let view = self.partition.view();
        if self.position < view.earliest {
            return Err(Error::OutOfRange { requested: self.position, earliest: view.earliest, end: view.end });
        }
        if self.position >= view.end {
            return Ok(Next::Wait);
        }
        if !view.tail.covers(self.position) {
            return Ok(Next::OnDisk);
        }
        let records = view.tail.read(self.position, max_bytes);
        let end = records.last().map_or(view.end, |last| last.offset.next());
        Ok(Next::Batch(Batch { records, end, high_watermark: view.end, skipped: Vec::new() }))
    }

    async fn read_disk(&mut self, max_bytes: usize) -> Result<Batch, Error> {
        let mut cursor = self
            .cursor
            .take()
            .unwrap_or_else(|| SegmentCursor::new(Arc::clone(&self.disk), self.partition.id(), self.position));
        cursor.set_position(self.position);
        let partition = Arc::clone(&self.partition);
        let read = move || {
            let result = cursor.read(&partition, max_bytes);
            (cursor, result)
        };
        // The pool refuses only when it has been stopped; a panic there is a bug that it reports.
        let (cursor, result) = self.compute.run(max_bytes, read).await.map_err(|_gone| Error::Closed)?;
        self.cursor = Some(cursor);
        let mut batch = result?;
        self.partition.metrics().read_from_disk(batch.records.len());
        batch.high_watermark = self.partition.bounds().end;
        Ok(batch)
    }

    async fn read_next(&mut self, max_bytes: usize) -> Result<Batch, Error> {
        loop {
            // Marked before looking, so that what is published in between wakes the wait below.
            let closed = self.published.borrow_and_update().closed;
            let batch = match self.look(max_bytes)? {
                Next::Batch(batch) => batch,
                Next::OnDisk => self.read_disk(max_bytes).await?,
                Next::Wait if closed => return Err(Error::Closed),
                Next::Wait => {
                    self.published.changed().await.map_err(|_gone| Error::Closed)?;
                    continue;
                }
            };
            // Empty: reclaimed while it was read. The next look says so.
            if batch.records.is_empty() && batch.skipped.is_empty() {
                continue;
            }
            self.report(&batch);
            self.position = batch.end;
            return Ok(batch);
        }
    }

    fn report(&self, batch: &Batch) {
        for skipped in &batch.skipped {
            self.partition.metrics().skipped(skipped);
            tracing::error!(
                path = %skipped.path.display(),
                position = skipped.position,
                bytes = skipped.bytes,
                first = skipped.first.0,
                end = skipped.end.0,
                reason = skipped.reason,
                "skip damaged records"
            );
        }
    }
}

impl Reader for LocalReader {
    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Batch, Error>> {
        self.read_next(max_bytes).boxed()
    }

    fn position(&self) -> Offset {
        self.position
    }
}

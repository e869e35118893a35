//! Reads the log on and on.

use std::sync::Arc;
use std::time::Duration;

use vivace_log::{Batch, Error as LogError, Offset};
use vivace_runtime::{Clock, Cx, Failure, Mailbox};

use super::apply::Filing;
use super::{Home, MAX_CLOSING, Owner, Shared, unix_ms};
use crate::flusher::{Flush, Flushed};

/// Bytes taken from the log at once: enough for a burst of requests, little against a head.
const READ_BYTES: usize = 4 << 20;
/// The log is asked again this long after a failed read.
const READ_RETRY: Duration = Duration::from_millis(500);

impl Owner {
    /// Beside its log: the ledger, and the log up to its end.
    pub(super) async fn replay(
        shared: Arc<Shared>,
        flusher: Mailbox<Flush, Flushed>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let Home::Bucket { log, progress } = &shared.home else {
            return Err(Failure::new("a replay needs the log at hand"));
        };
        let (log, progress) = (Arc::clone(log), progress.clone());
        let mut ledger = shared.ledger.read().await?;
        shared.quarantine.restore(&ledger.quarantined);
        let bounds = log.bounds(shared.partition).await?;
        if ledger.replay_from < bounds.earliest.0 {
            tracing::error!(
                wanted = ledger.replay_from,
                earliest = bounds.earliest.0,
                "the log begins after what is still needed: records between were removed by someone else"
            );
            ledger.replay_from = bounds.earliest.0;
            ledger.covered = ledger.covered.max(bounds.earliest.0);
        }
        if ledger.covered > bounds.end.0 {
            return Err(Failure::new(format!(
                "the ledger {} covers offsets below {}, but the log ends at {}: they do not belong together",
                shared.ledger.path().display(),
                ledger.covered,
                bounds.end.0
            )));
        }
        progress.publish(Offset(ledger.replay_from));
        let mut reader = log.reader(shared.partition, Offset(ledger.replay_from))?;
        let (from, replay_from) = (clock.now(), ledger.replay_from);
        let mut owner = Self::at(shared, flusher, ledger)?;
        while owner.state.next() < bounds.end.0 {
            let batch = reader.next(READ_BYTES).await?;
            owner.file(batch, i64::try_from(clock.unix().as_millis()).unwrap_or(i64::MAX))?;
            // Replay is control work on an arbiter that others may share.
            tokio::task::yield_now().await;
        }
        // Offsets burnt at the end of the log may lie between the last record and a pending cut's end.
        while owner.state.repeat_cut().map_err(Failure::new)?.is_some() {}
        let replayed = bounds.end.0.saturating_sub(replay_from);
        if replayed > 0 {
            let took = clock.now().saturating_duration_since(from);
            tracing::info!(records = replayed, bytes = owner.state.head_bytes(), ?took, "replayed the log");
        }
        progress.publish(reader.position());
        owner.source = log.id().to_string().into();
        (owner.log, owner.reader) = (Some(log), Some(reader));
        Ok(owner)
    }

    /// Starts the next read, unless one is on its way or there is no room for what it would bring.
    pub(super) fn read(&mut self, cx: &mut Cx<Self>) {
        if self.has_left_log() {
            return;
        }
        if self.state.closing().len() >= MAX_CLOSING && self.state.is_full() {
            self.waits_since.get_or_insert_with(|| cx.now());
            return;
        }
        if let Some(since) = self.waits_since.take() {
            self.shared.metrics.waited(cx.now().saturating_duration_since(since));
        }
        let Some(mut reader) = self.reader.take() else { return };
        let (next, readers) = (
            async move {
                let batch = reader.next(READ_BYTES).await;
                (reader, batch)
            },
            self.readers,
        );
        cx.spawn(next, move |owner, (reader, batch), cx| {
            if owner.has_left_log() || owner.readers != readers {
                // What it brought is in the log.
                return;
            }
            owner.reader = Some(reader);
            match batch {
                Ok(batch) => owner.on_batch(batch, cx),
                Err(error) if owner.local.is_some() => owner.on_local_error(error, cx),
                Err(LogError::Closed) => {}
                Err(error) => {
                    tracing::error!(%error, "read the log");
                    owner.last_error = Some(error.to_string());
                    if error.is_retryable() {
                        cx.after(READ_RETRY, Self::read);
                    } else {
                        cx.fail(error);
                    }
                }
            }
        });
    }

    fn on_batch(&mut self, batch: Batch, cx: &mut Cx<Self>) {
        let (end, known) = (batch.end, batch.high_watermark);
        let newest_ms = batch.records.iter().map(|entry| entry.record.timestamp_ms).filter(|ms| *ms > 0).max();
        if let Err(failure) = self.file(batch, unix_ms(cx)) {
            return cx.fail(failure);
        }
        match &self.shared.home {
            Home::Bucket { progress, .. } => progress.publish(end),
            Home::Local(_) => self.on_applied(end.0, known.0, newest_ms, cx),
        }
        self.cut_if_due(cx);
        self.read(cx);
    }

    fn file(&mut self, batch: Batch, now_ms: i64) -> Result<(), Failure> {
        let (state, copies) = (&mut self.state, &mut self.copies);
        let too_old_before = match &self.shared.home {
            Home::Bucket { .. } => 0,
            Home::Local(home) => home.too_old_before(now_ms),
        };
        Filing { shared: &self.shared, state, copies, too_old_before, now_ms }.batch(batch)
    }
}

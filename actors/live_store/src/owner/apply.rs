//! Files what the log delivers.

use bytes::Bytes;
use vivace_log::{Batch, Entry};
use vivace_protocol::push_bytes::PushBytes;
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::Failure;

use super::{Home, Shared};
use crate::state::{Applied, Copies, Partition, TraceLimits};

/// Where records are filed.
pub(super) struct Filing<'a> {
    pub(super) shared: &'a Shared,
    pub(super) state: &'a mut Partition,
    pub(super) copies: &'a mut Copies,
    /// In its own process: records before this time are passed over. Unix milliseconds.
    pub(super) too_old_before: i64,
    /// The time of a record that has none.
    pub(super) now_ms: i64,
}

impl Filing<'_> {
    /// Files a batch. Makes the cuts of an earlier run again at the offsets where it made them.
    pub(super) fn batch(&mut self, batch: Batch) -> Result<(), Failure> {
        for skipped in &batch.skipped {
            tracing::error!(
                path = %skipped.path.display(),
                position = skipped.position,
                bytes = skipped.bytes,
                reason = skipped.reason,
                "the log is damaged here; what stood there is lost"
            );
            self.shared.metrics.quarantined(1);
        }
        for entry in batch.records {
            while self.state.next_repeat().is_some_and(|end| entry.offset.0 >= end) {
                self.state.skip(entry.offset.0 - 1);
                self.state.repeat_cut().map_err(Failure::new)?;
            }
            self.entry(entry);
        }
        self.state.skip(batch.end.0.saturating_sub(1));
        while self.state.repeat_cut().map_err(Failure::new)?.is_some() {}
        Ok(())
    }

    fn entry(&mut self, entry: Entry) {
        let offset = entry.offset.0;
        if let Home::Local(home) = &self.shared.home {
            if self.copies.is_copy(&entry) {
                tracing::debug!(offset, "record passed over: its producer had written it before");
                home.metrics.copy();
                return self.state.skip(offset);
            }
            if (1..self.too_old_before).contains(&entry.record.timestamp_ms) {
                self.shared.metrics.dropped(&entry.record.tenant, "too_old");
                return self.state.skip(offset);
            }
        }
        if let Some(reason) = self.shared.quarantine.reason(offset) {
            tracing::warn!(offset, reason, "record passed over");
            return self.state.skip(offset);
        }
        let (shared, tenant) = (self.shared, entry.record.tenant.clone());
        let result = shared.quarantine.watch(offset, || {
            if let Some(hook) = &shared.hook {
                hook(offset, &entry.record.value);
            }
            self.file(entry)
        });
        if let Err(reason) = result {
            tracing::error!(offset, reason, "record set aside: it cannot be decoded");
            shared.metrics.quarantined(1);
            shared.metrics.dropped(&tenant, "decoding_failed");
            shared.quarantine.set_aside(offset, reason);
            self.state.skip(offset);
        }
    }

    fn file(&mut self, entry: Entry) -> Result<(), String> {
        let (shared, record) = (self.shared, entry.record);
        let tenant = std::str::from_utf8(&record.tenant).map_err(|e| format!("its key is no tenant id: {e}"))?;
        let tenant = TenantId::parse(tenant).map_err(|e| format!("its key is no tenant id: {e}"))?;
        let push = PushBytes::walk(&record.value).map_err(|error| error.to_string())?;
        let traces: Vec<(TraceId, Bytes)> = push.iter().cloned().collect();
        let limits = TraceLimits {
            max_bytes: shared.limits.max_bytes_per_trace(&tenant),
            max_live: shared.limits.max_live_traces(&tenant),
        };
        let time_ms = if record.timestamp_ms > 0 { record.timestamp_ms } else { self.now_ms };
        let applied: Applied = self.state.apply(entry.offset.0, time_ms, &tenant, traces.into_iter(), limits);
        for (id, discard, spans) in &applied.discarded {
            tracing::debug!(%tenant, %id, spans, reason = discard.reason(), ?limits, "spans discarded");
        }
        shared.metrics.applied(&tenant, &applied);
        shared.metrics.processed(&tenant);
        Ok(())
    }
}

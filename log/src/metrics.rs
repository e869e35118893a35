//! What the local form measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::budget::Budget;
use crate::error::Error;
use crate::log::Skipped;
use crate::store::Commit;

/// Metrics of one local log, summed over its partitions unless the help text says otherwise. Clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    fsync_seconds: Histogram,
    batch_records: Histogram,
    batch_bytes: Histogram,
    appended_records: Counter,
    appended_bytes: Counter,
    refused_records: Counter,
    failed_fsyncs: Counter,
    torn_bytes: Counter,
    skipped_bytes: Counter,
    disk_read_records: Counter,
    segments: Gauge,
    disk_bytes: Gauge,
    tail_bytes: Gauge,
    budget_used_bytes: Gauge,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        registry.register(
            "vivace_log_fsync_duration_seconds",
            "Time one group commit waited for the disk",
            metrics.fsync_seconds.clone(),
        );
        registry.register("vivace_log_batch_records", "Records per group commit", metrics.batch_records.clone());
        registry.register("vivace_log_batch_bytes", "Bytes per group commit", metrics.batch_bytes.clone());
        registry.register("vivace_log_appended_records", "Records made durable", metrics.appended_records.clone());
        registry.register("vivace_log_appended_bytes", "Bytes made durable, frames included", metrics.appended_bytes.clone());
        registry.register(
            "vivace_log_refused_records",
            "Records refused because the disk was full or failed; the sender was told to try again",
            metrics.refused_records.clone(),
        );
        registry.register(
            "vivace_log_failed_commits",
            "Group commits that the disk failed; the segment may have been sealed",
            metrics.failed_fsyncs.clone(),
        );
        registry.register(
            "vivace_log_torn_bytes",
            "Unacknowledged bytes cut off when the log was opened after a crash",
            metrics.torn_bytes.clone(),
        );
        registry.register(
            "vivace_log_skipped_bytes",
            "Acknowledged bytes passed over because the disk has damaged them, counted each time they are met",
            metrics.skipped_bytes.clone(),
        );
        registry.register(
            "vivace_log_disk_read_records",
            "Records that readers took from the disk because they were no longer in memory",
            metrics.disk_read_records.clone(),
        );
        registry.register("vivace_log_segments", "Segment files", metrics.segments.clone());
        registry.register("vivace_log_disk_bytes", "Bytes in segment files", metrics.disk_bytes.clone());
        registry.register("vivace_log_tail_bytes", "Bytes of newest records kept in memory", metrics.tail_bytes.clone());
        registry.register(
            "vivace_log_budget_used_bytes",
            "Bytes between append and durability, as of the last commit",
            metrics.budget_used_bytes.clone(),
        );
        metrics
    }

    /// Metrics that nobody reads.
    #[must_use]
    pub fn unregistered() -> Self {
        Self {
            fsync_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            batch_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 8)),
            appended_records: Counter::default(),
            appended_bytes: Counter::default(),
            refused_records: Counter::default(),
            failed_fsyncs: Counter::default(),
            torn_bytes: Counter::default(),
            skipped_bytes: Counter::default(),
            disk_read_records: Counter::default(),
            segments: Gauge::default(),
            disk_bytes: Gauge::default(),
            tail_bytes: Gauge::default(),
            budget_used_bytes: Gauge::default(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms take floats; sizes are far below 2^53")]
    pub(crate) fn committed(&self, records: usize, commit: &Commit) {
        self.fsync_seconds.observe(commit.sync.as_secs_f64());
        self.batch_records.observe(records as f64);
        self.batch_bytes.observe(commit.bytes as f64);
        self.appended_records.inc_by(records as u64);
        self.appended_bytes.inc_by(commit.bytes);
    }

    pub(crate) fn refused(&self, records: usize, error: &Error) {
        self.refused_records.inc_by(records as u64);
        self.failed_fsyncs.inc();
        tracing::warn!(error = error as &dyn std::error::Error, records, "refuse records that could not be made durable");
    }

    pub(crate) fn torn(&self, bytes: u64) {
        self.torn_bytes.inc_by(bytes);
    }

    pub(crate) fn skipped(&self, skipped: &Skipped) {
        self.skipped_bytes.inc_by(skipped.bytes);
    }

    pub(crate) fn read_from_disk(&self, records: usize) {
        self.disk_read_records.inc_by(records as u64);
    }

    /// Moves the sums by what one partition's share has changed.
    pub(crate) fn share_changed(&self, before: Share, after: Share) {
        self.segments.inc_by(after.segments - before.segments);
        self.disk_bytes.inc_by(after.disk_bytes - before.disk_bytes);
        self.tail_bytes.inc_by(after.tail_bytes - before.tail_bytes);
    }

    pub(crate) fn budget(&self, budget: &Budget) {
        self.budget_used_bytes.set(i64::try_from(budget.used_bytes()).unwrap_or(i64::MAX));
    }
}

/// What one partition holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) segments: i64,
    pub(crate) disk_bytes: i64,
    pub(crate) tail_bytes: i64,
}

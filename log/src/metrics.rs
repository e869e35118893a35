//! What the local form measures.

use vivace_runtime::metrics::{Buckets, Counter, Gauge, Histogram, Registry};

use crate::budget::Budget;
use crate::error::Error;
use crate::log::Skipped;
use crate::store::Commit;

/// Metrics of the local logs of a process, summed over their partitions. Clones share the values.
#[derive(Clone)]
pub struct Metrics {
    fsync_seconds: Histogram,
    batch_records: Histogram,
    batch_bytes: Histogram,
    appended_records: Counter,
    appended_bytes: Counter,
    refused_records: Counter,
    failed_commits: Counter,
    torn_bytes: Counter,
    skipped_bytes: Counter,
    disk_read_records: Counter,
    segments: Gauge,
    disk_bytes: Gauge,
    tail_bytes: Gauge,
    budget_used_bytes: Gauge,
    budget_limit_bytes: Gauge,
}

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        Self {
            fsync_seconds: registry.histogram(
                "vivace_log_fsync_duration_seconds",
                "Time one group commit waited for the disk",
                &Buckets::exponential(0.000_05, 2.0, 16),
            ),
            batch_records: registry.histogram(
                "vivace_log_batch_records",
                "Records per group commit",
                &Buckets::exponential(1.0, 2.0, 12),
            ),
            batch_bytes: registry.histogram(
                "vivace_log_batch_bytes",
                "Bytes per group commit, frames included",
                &Buckets::exponential(1024.0, 4.0, 8),
            ),
            appended_records: registry.counter("vivace_log_appended_records_total", "Records made durable"),
            appended_bytes: registry.counter("vivace_log_appended_bytes_total", "Bytes made durable, frames included"),
            refused_records: registry.counter(
                "vivace_log_refused_records_total",
                "Records refused because the disk was full or failed; the sender was told to try again",
            ),
            failed_commits: registry.counter(
                "vivace_log_failed_commits_total",
                "Group commits that the disk failed; after a failed fsync the segment is sealed",
            ),
            torn_bytes: registry.counter(
                "vivace_log_torn_bytes_total",
                "Unacknowledged bytes cut off when the log was opened after a crash",
            ),
            skipped_bytes: registry.counter(
                "vivace_log_skipped_bytes_total",
                "Acknowledged bytes passed over because the disk has damaged them, counted each time a reader meets them",
            ),
            disk_read_records: registry.counter(
                "vivace_log_disk_read_records_total",
                "Records that readers took from the disk because they were no longer in memory",
            ),
            segments: registry.gauge("vivace_log_segments", "Segment files"),
            disk_bytes: registry.gauge("vivace_log_disk_bytes", "Bytes in segment files"),
            tail_bytes: registry.gauge("vivace_log_tail_bytes", "Bytes of newest records kept in memory for readers"),
            budget_used_bytes: registry.gauge(
                "vivace_log_budget_used_bytes",
                "Bytes between append and durability, as of the last commit",
            ),
            budget_limit_bytes: registry.gauge("vivace_log_budget_limit_bytes", "Bound of the bytes in flight"),
        }
    }

    /// Metrics that nobody reads.
    #[must_use]
    pub fn unregistered() -> Self {
        Self::register(&Registry::new())
    }

    pub(crate) fn committed(&self, records: usize, commit: &Commit) {
        self.fsync_seconds.observe_duration(commit.sync);
        self.batch_records.observe(records as f64);
        self.batch_bytes.observe(commit.bytes as f64);
        self.appended_records.add(records as u64);
        self.appended_bytes.add(commit.bytes);
    }

    pub(crate) fn refused(&self, records: usize, error: &Error) {
        self.refused_records.add(records as u64);
        self.failed_commits.inc();
        tracing::warn!(
            error = error as &dyn std::error::Error,
            records,
            "refuse records that could not be made durable"
        );
    }

    pub(crate) fn torn(&self, bytes: u64) {
        self.torn_bytes.add(bytes);
    }

    pub(crate) fn skipped(&self, skipped: &Skipped) {
        self.skipped_bytes.add(skipped.bytes);
    }

    pub(crate) fn read_from_disk(&self, records: usize) {
        self.disk_read_records.add(records as u64);
    }

    /// Moves the sums by what one partition's share has changed.
    pub(crate) fn share_changed(&self, before: Share, after: Share) {
        for (gauge, before, after) in [
            (&self.segments, before.segments as u64, after.segments as u64),
            (&self.disk_bytes, before.disk_bytes, after.disk_bytes),
            (&self.tail_bytes, before.tail_bytes as u64, after.tail_bytes as u64),
        ] {
            gauge.add(after as f64 - before as f64);
        }
    }

    pub(crate) fn budget(&self, budget: &Budget) {
        self.budget_used_bytes.set_count(budget.used_bytes());
        self.budget_limit_bytes.set_count(budget.limit_bytes());
    }
}

/// What one partition holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) segments: usize,
    pub(crate) disk_bytes: u64,
    pub(crate) tail_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_metrics_is_this() {
        let registry = Registry::new();
        drop(Metrics::register(&registry));
        let expected = [
            "vivace_log_appended_bytes_total counter",
            "vivace_log_appended_records_total counter",
            "vivace_log_batch_bytes histogram",
            "vivace_log_batch_records histogram",
            "vivace_log_budget_limit_bytes gauge",
            "vivace_log_budget_used_bytes gauge",
            "vivace_log_disk_bytes gauge",
            "vivace_log_disk_read_records_total counter",
            "vivace_log_failed_commits_total counter",
            "vivace_log_fsync_duration_seconds histogram",
            "vivace_log_refused_records_total counter",
            "vivace_log_segments gauge",
            "vivace_log_skipped_bytes_total counter",
            "vivace_log_tail_bytes gauge",
            "vivace_log_torn_bytes_total counter",
        ];
        assert_eq!(registry.names(), expected);
    }
}

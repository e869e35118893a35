//! What the backend-worker counts. Names that Tempo has are Tempo's.

use vivace_runtime::metrics::{Counter, Registry};

/// Handles into the registry; clones count into the same series.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) compacted_blocks: Counter,
    pub(crate) written_blocks: Counter,
    pub(crate) compaction_errors: Counter,
    pub(crate) marked: Counter,
    pub(crate) deleted: Counter,
    pub(crate) retention_errors: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        Self {
            compacted_blocks: registry
                .counter("tempodb_compaction_blocks_total", "Blocks that were merged into another one"),
            written_blocks: registry.counter("vivace_backend_worker_blocks_written_total", "Blocks that merging made"),
            compaction_errors: registry
                .counter("tempodb_compaction_errors_total", "Attempts to merge blocks that failed"),
            marked: registry
                .counter("tempodb_retention_marked_for_deletion_total", "Blocks past their retention, marked to go"),
            deleted: registry.counter("tempodb_retention_deleted_total", "Blocks deleted"),
            retention_errors: registry
                .counter("tempodb_retention_errors_total", "Attempts to remove blocks that failed"),
        }
    }
}

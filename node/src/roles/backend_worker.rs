//! The backend-worker: merges blocks and removes old ones.

use std::sync::Arc;

use vivace_backend_worker::{Limits, Setup};
use vivace_protocol::vivace::{BlocksReplaced, BlocksReplacedReply};
use vivace_runtime::{Bounds, Compute, Endpoint, Failure};

use crate::base::Base;
use crate::bucket::Bucket;

/// Adds it; `replaced` is told what it did.
///
/// # Errors
/// The system gives no thread.
pub(super) fn add(
    base: &mut Base<'_>,
    bucket: &Bucket,
    replaced: Endpoint<BlocksReplaced, BlocksReplacedReply>,
) -> Result<(), Failure> {
    let block = &base.config.storage.trace.block;
    let setup = Setup {
        config: base.config.backend_worker.clone(),
        backend: bucket.backend.clone(),
        opener: bucket.blocks.clone(),
        row_group_bytes: block.parquet_row_group_size_bytes,
        bloom: block.bloom(),
        limits: Arc::clone(&base.overrides) as Arc<dyn Limits>,
        replaced,
        // Merging blocks takes long: flushes must not wait behind it.
        compute: Compute::new("viv-merge", 1, Bounds::messages(16))?,
        metrics: base.registry.clone(),
    };
    vivace_backend_worker::add(&base.root(), setup, base.query());
    Ok(())
}

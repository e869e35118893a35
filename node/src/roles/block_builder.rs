//! The block-builder: blocks in the bucket from its partitions of the log.

use std::sync::Arc;

use futures::FutureExt as _;
use vivace_block_builder::{Connect, Limits, Setup, Source};
use vivace_log::Partition;
use vivace_runtime::{Failure, Rng};

use crate::base::Base;
use crate::bucket::Bucket;
use crate::kafka::Kafka;
use crate::rings::host_name;

/// The consumer group of all block-builders, as in Tempo.
const GROUP: &str = "block-builder";

/// A block-builder of its own process.
///
/// # Errors
/// What of the configuration cannot be used; names the key.
pub(super) async fn add_alone(base: &mut Base<'_>) -> Result<(), Failure> {
    let bucket = Bucket::open(&base.config, &base.store_environment).await?;
    let partitions = base.config.block_builder.partitions(&host_name())?;
    let numbers = partitions.iter().copied().map(Partition).collect();
    let reach = Kafka::of(base).consumer("block-builder", GROUP, numbers);
    let connect: Connect = Arc::new(move || {
        let reached = reach();
        async move { reached.await.map(|(log, offsets)| Source { log, offsets }) }.boxed()
    });
    let block = &base.config.storage.trace.block;
    let setup = Setup {
        config: base.config.block_builder.clone(),
        partitions,
        row_group_bytes: block.parquet_row_group_size_bytes,
        bloom: block.bloom(),
        backend: bucket.backend,
        connect,
        limits: Arc::clone(&base.overrides) as Arc<dyn Limits>,
        compute: base.pools.background()?,
        rng: Rng::from_system(),
        metrics: base.registry.clone(),
        hook: base.faults.clone(),
    };
    vivace_block_builder::add(&base.root(), setup, base.ingest());
    Ok(())
}

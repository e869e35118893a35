//! The live-store: recent traces from one partition of the log.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use vivace_gossip::state::PartitionState;
use vivace_live_store::{self as live_store, Connect, Identity, Keep, Limits, LiveStore, Local, Setup, Source};
use vivace_log::{Log, Partition, Progress};
use vivace_protocol::vivace::{BlockPublished, BlockPublishedReply};
use vivace_runtime::{Endpoint, Failure};

use crate::base::Base;
use crate::bucket::Bucket;
use crate::kafka::Kafka;

/// What a live-store needs from others.
pub(super) struct Needs<'a> {
    pub(super) log: Arc<dyn Log>,
    pub(super) partition: Partition,
    pub(super) progress: Progress,
    /// Its folder on disk.
    pub(super) dir: PathBuf,
    /// Where its blocks go.
    pub(super) bucket: &'a Bucket,
    /// Who is told of them.
    pub(super) publish: Endpoint<BlockPublished, BlockPublishedReply>,
}

/// Adds the one of a process with every role.
///
/// # Errors
/// The system gives no thread.
pub(super) fn add(base: &mut Base<'_>, needs: Needs<'_>) -> Result<LiveStore, Failure> {
    let keep = Keep::Bucket(live_store::Bucket {
        log: needs.log,
        progress: needs.progress,
        backend: needs.bucket.backend.clone(),
        publish: needs.publish,
    });
    add_with(base, needs.partition, needs.dir, keep)
}

/// A live-store of its own process: it follows its partition of Kafka and keeps its blocks on its own disk.
///
/// # Errors
/// What of the configuration cannot be used; names the key.
pub(super) fn add_alone(base: &mut Base<'_>) -> Result<(), Failure> {
    let (own, instance_id) = base.rings.own.clone().ok_or_else(|| Failure::new("a live-store is in its ring"))?;
    let identity = Identity::of(&instance_id)?;
    let dir = PathBuf::from(&base.config.live_store.wal.path);
    base.disk
        .create_dir_all(&dir)
        .map_err(|error| Failure::new(format!("live_store.wal.path: create {}: {error}", dir.display())))?;
    let reach = Kafka::of(base).consumer("live-store", &identity.group, vec![identity.partition]);
    let connect: Connect = Arc::new(move || {
        let reached = reach();
        async move { reached.await.map(|(log, offsets)| Source { log, offsets }) }.boxed()
    });
    let board = base.rings.board.clone();
    let inactive = Arc::new(move || {
        let rings = board.rings();
        let own = rings.partitions.as_ref().and_then(|(_, view)| view.get(own));
        own.is_some_and(|partition| partition.state() == PartitionState::Inactive)
    });
    let keep = Keep::Local(Local { group: identity.group, connect, inactive });
    let live = add_with(base, identity.partition, dir, keep)?;
    let readiness = live.readiness;
    base.ready_when(Box::new(move || readiness.not_ready().map(|reason| format!("LiveStore not ready: {reason}"))));
    Ok(())
}

/// Adds it and serves its questions to other processes.
fn add_with(base: &mut Base<'_>, partition: Partition, dir: PathBuf, keep: Keep) -> Result<LiveStore, Failure> {
    let block = &base.config.storage.trace.block;
    let setup = Setup {
        config: base.config.live_store.clone(),
        row_group_bytes: block.parquet_row_group_size_bytes,
        bloom: block.bloom(),
        partition,
        dir,
        disk: Arc::clone(&base.disk),
        keep,
        limits: Arc::clone(&base.overrides) as Arc<dyn Limits>,
        background: base.pools.background()?,
        queries: base.pools.queries()?,
        metrics: base.registry.clone(),
        hook: base.faults.clone(),
    };
    let live = LiveStore::add(&base.root(), setup, base.ingest());
    base.rings.add_farewell(&base.root());
    base.serve_grpc(live.router().into_router());
    Ok(live)
}

//! Every role in one process, with its log and its blocks on local disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vivace_log::{Budget, LocalEnv, LocalLog, LocalOptions, Log, Offset, Partition, Progress};
use vivace_runtime::{Failure, Rng};

use super::{backend_worker, distributor, live_store, querier, query_frontend};
use crate::base::Base;
use crate::bucket::Bucket;

/// Bytes of requests on their way into the log, over all connections. Beyond, requests are refused retryably.
const IN_FLIGHT_BYTES: usize = 48 << 20;
/// A refused client is asked to come back after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// There is one partition.
const PARTITION: Partition = Partition(0);

/// Adds all of them, in the order of the data flow.
///
/// # Errors
/// What of the configuration cannot be used; names the key.
pub(super) async fn add(base: &mut Base<'_>) -> Result<(), Failure> {
    let bucket = Bucket::open(&base.config, &base.store_environment).await?;
    let dir = Path::new(&base.config.live_store.wal.path).to_path_buf();
    let log = local_log(base, &dir)?;
    let (plan, news) = querier::plan(base, &bucket)?;
    let progress = Progress::new(Offset(0));
    let needs = distributor::Needs {
        log: Arc::clone(&log),
        partitions: Arc::new(vivace_distributor::OnePartition(PARTITION)),
        max_record_bytes: vivace_distributor::MAX_RECORD_BYTES,
        progress: Some(progress.clone()),
    };
    distributor::add(base, needs)?;
    let needs =
        live_store::Needs { log, partition: PARTITION, progress, dir, bucket: &bucket, publish: news.published };
    let live = live_store::add(base, needs)?;
    backend_worker::add(base, &bucket, news.replaced)?;
    let querier = querier::add(base, plan, live);
    query_frontend::add(base, querier)
}

fn local_log(base: &Base<'_>, dir: &Path) -> Result<Arc<dyn Log>, Failure> {
    base.disk
        .create_dir_all(dir)
        .map_err(|error| Failure::new(format!("live_store.wal.path: create {}: {error}", dir.display())))?;
    let env = LocalEnv {
        disk: Arc::clone(&base.disk),
        clock: Arc::clone(&base.clock),
        compute: base.pools.queries()?,
        budget: Budget::new(IN_FLIGHT_BYTES, RETRY_AFTER),
        metrics: vivace_log::Metrics::register(&base.registry),
    };
    Ok(Arc::new(LocalLog::open(&LocalOptions::in_dir(dir.join("log")), env, &mut Rng::from_system())?))
}

//! Keeper: keeps the number of blocks and their age bounded: merges small blocks, removes old ones.
//!
//! Owns nothing but its place in the cycle; the object store is the truth. Takes no messages; emits news to the blocklist.
//! One step at a time on the compute pool, so that it never takes more than one core from queries and flushes.
//! On restart: the cycle begins anew. A merge that was cut off left objects without a `meta.json`, which are swept; inputs are
//! marked only after the output exists, so until then nothing is lost, and a crash between leaves duplicates that queries
//! and the next merge remove by span identity.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vivace_protocol::vivace::{BlocksReplaced, BlocksReplacedReply};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::{Clock, Compute, Cx, Deadline, Endpoint, Failure, Part};
use vivace_storage::{
    Backend, BlockKey, BlockMeta, BlockOpener, BlockSpec, CompactError, CompactSpec, FinishedBlock, Place,
    RetentionRules, SelectRules, TenantIndex, Timestamp, compact, expired, select,
};

use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Telling the blocklist is a call within the process.
const NEWS_DEADLINE: Duration = Duration::from_secs(10);
/// Objects without a `meta.json` that are younger may still become a block.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Blocks of one merge, and at the most one fewer of a level wait for it: each factor costs one reading of every span.
const MAX_INPUTS: usize = 6;
/// A window that got no block for this long is merged as far as it goes.
const PATIENCE: Duration = Duration::from_secs(300);
/// Row groups of a merge that wait for the store.
const PARTS_WAITING: usize = 2;

/// What every generation needs.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) backend: Backend,
    pub(crate) opener: BlockOpener,
    pub(crate) row_group_bytes: u64,
    pub(crate) bloom: vivace_storage::BloomSpec,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) replaced: Endpoint<BlocksReplaced, BlocksReplacedReply>,
    pub(crate) compute: Compute,
    pub(crate) metrics: Metrics,
    /// Blocks that were found to share a trace too large for one row: they stay as they are.
    pub(crate) apart: Apart,
}

/// Ids of blocks by tenant; they are few, and are forgotten with the process.
pub(crate) type Apart = Arc<parking_lot::Mutex<HashMap<String, HashSet<Uuid>>>>;

/// The part.
pub(crate) struct Keeper {
    parts: Parts,
    cycles: u64,
    last_error: Option<String>,
    stopping: CancellationToken,
}

impl Keeper {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, cycles: 0, last_error: None, stopping: CancellationToken::new() }
    }

    fn cycle(&mut self, cx: &mut Cx<Self>) {
        if self.stopping.is_cancelled() {
            return;
        }
        let (parts, clock, stopping) = (self.parts.clone(), Arc::clone(cx.clock()), self.stopping.clone());
        cx.spawn(async move { parts.cycle(&*clock, &stopping).await }, |keeper, result, cx| {
            keeper.cycles += 1;
            keeper.last_error = result.err().map(|error| error.to_string());
            if let Some(error) = &keeper.last_error {
                tracing::error!(error, "keep blocks");
            }
            let pause: Duration = keeper.parts.config.compaction.compaction_cycle.into();
            cx.after(pause.max(Duration::from_millis(100)), Self::cycle);
        });
    }
}

impl Part for Keeper {
    fn started(&mut self, cx: &mut Cx<Self>) {
        let pause: Duration = self.parts.config.compaction.compaction_cycle.into();
        cx.after(pause.max(Duration::from_millis(100)), Self::cycle);
    }

    fn drain(&mut self, _cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        // A merge that runs is left to end or to be cut off: either is safe, see above.
        self.stopping.cancel();
        std::future::ready(()).boxed_local()
    }

    fn observe(&self) -> serde_json::Value {
        serde_json::json!({ "cycles": self.cycles, "last_error": self.last_error })
    }
}

/// One tenant's blocks as the store has them.
struct Listed {
    live: Vec<BlockMeta>,
    compacted: Vec<(Uuid, Timestamp)>,
}

impl Parts {
    async fn cycle(&self, clock: &dyn Clock, stopping: &CancellationToken) -> Result<(), Failure> {
        let mut first_error = None;
        for tenant in self.backend.list_tenants().await? {
            // One tenant's trouble does not keep the others from being cared for.
            if let Err(error) = self.tenant(&tenant, clock, stopping).await {
                first_error.get_or_insert_with(|| Failure::new(format!("tenant {tenant}: {error}")));
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    async fn tenant(&self, tenant: &str, clock: &dyn Clock, stopping: &CancellationToken) -> Result<(), Failure> {
        let id = TenantId::parse(tenant)?;
        if self.limits.compaction_disabled(&id) {
            return Ok(());
        }
        let now = Timestamp(clock.unix_nanos());
        let before = Timestamp(now.0.saturating_sub(nanos(ABANDONED)));
        // A block that is being written has an old first object only if it is abandoned.
        self.backend.sweep(tenant, before, |_| false).await?;
        let mut listed = self.list(tenant).await?;
        let mut changed = self.retain(tenant, &id, now, &mut listed).await?;
        let free: Vec<BlockMeta> = {
            let mut all = self.apart.lock();
            let apart = all.entry(tenant.to_owned()).or_default();
            apart.retain(|id| listed.live.iter().any(|meta| meta.block_id == *id));
            listed.live.iter().filter(|meta| !apart.contains(&meta.block_id)).cloned().collect()
        };
        for job in select(&free, &self.rules(), now) {
            if stopping.is_cancelled() {
                break;
            }
            let inputs = free.iter().filter(|meta| job.blocks.contains(&meta.block_id)).cloned().collect();
            self.merge(tenant, inputs, stopping).await?;
            changed = true;
        }
        if changed {
            self.write_index(tenant, now).await?;
        }
        Ok(())
    }

    fn rules(&self) -> SelectRules {
        let config = &self.config.compaction;
        SelectRules {
            window: config.compaction_window.into(),
            max_objects: config.max_compaction_objects,
            max_bytes: config.max_block_bytes,
            max_inputs: MAX_INPUTS,
            patience: PATIENCE,
            ..SelectRules::default()
        }
    }

    async fn list(&self, tenant: &str) -> Result<Listed, Failure> {
        let listing = self.backend.list_blocks(tenant).await?;
        let mut live = Vec::with_capacity(listing.live.len());
        for block in listing.live.iter().filter(|id| !listing.no_compact.contains(id)) {
            match self.backend.read_meta(&BlockKey::new(tenant, *block)).await {
                Ok(meta) => live.push(meta),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A marking that was interrupted is finished.
        for block in &listing.half_compacted {
            self.backend.mark_compacted(&BlockKey::new(tenant, *block)).await?;
        }
        Ok(Listed { live, compacted: listing.compacted })
    }

    /// Marks blocks past their retention, deletes those that were marked long enough ago.
    async fn retain(&self, tenant: &str, id: &TenantId, now: Timestamp, listed: &mut Listed) -> Result<bool, Failure> {
        let own = self.limits.block_retention(id);
        let config = &self.config.compaction;
        let retention: Duration = if own.is_zero() { config.block_retention.into() } else { own };
        let rules = RetentionRules { block_retention: retention, ..RetentionRules::default() };
        let old = expired(&listed.live, rules, now);
        for block in &old {
            self.backend
                .mark_compacted(&BlockKey::new(tenant, *block))
                .await
                .inspect_err(|_| self.metrics.retention_errors.inc())?;
            self.metrics.marked.inc();
            tracing::info!(tenant, %block, ?retention, "block is past its retention");
        }
        if !old.is_empty() {
            self.tell(tenant, Vec::new(), &old).await?;
            listed.live.retain(|meta| !old.contains(&meta.block_id));
        }
        let keep = nanos(config.compacted_block_retention.into());
        let mut deleted = false;
        for (block, since) in &listed.compacted {
            if since.0.saturating_add(keep) < now.0 {
                self.backend
                    .delete_block(&BlockKey::new(tenant, *block))
                    .await
                    .inspect_err(|_| self.metrics.retention_errors.inc())?;
                self.metrics.deleted.inc();
                deleted = true;
            }
        }
        Ok(deleted || !old.is_empty())
    }

    /// Merges blocks into one: the output exists before the inputs are marked.
    async fn merge(&self, tenant: &str, inputs: Vec<BlockMeta>, stopping: &CancellationToken) -> Result<(), Failure> {
        let gone: Vec<Uuid> = inputs.iter().map(|meta| meta.block_id).collect();
        let (opener, row_group_bytes, stopping) = (self.opener.clone(), self.row_group_bytes, stopping.clone());
        let bloom = self.bloom;
        let (tenant_name, id) = (tenant.to_owned(), Uuid::new_v4());
        let (parts, ready) = tokio::sync::mpsc::channel(PARTS_WAITING);
        let merging = move || -> Result<Result<FinishedBlock, TraceId>, Failure> {
            let dedicated = inputs.first().map(|meta| meta.dedicated_columns.clone()).unwrap_or_default();
            let mut blocks = Vec::with_capacity(inputs.len());
            for meta in inputs {
                blocks.push(opener.open(&meta)?);
            }
            let mut block = BlockSpec::new(tenant_name, id, dedicated);
            block.row_group_bytes = row_group_bytes;
            block.bloom = bloom;
            let spec = CompactSpec {
                block,
                drop: &|_| false,
                // Waits while the store is slower than the merge; a store that failed ends the merge at the next row.
                data: &mut |part| drop(parts.blocking_send(part)),
                go_on: &|| !stopping.is_cancelled() && !parts.is_closed(),
            };
            match compact(&blocks.iter().collect::<Vec<_>>(), spec) {
                Ok(block) => Ok(Ok(block)),
                Err(CompactError::TooLarge(trace)) => Ok(Err(trace)),
                Err(error) => Err(error.into()),
            }
        };
        // The data goes to the store while it is made: memory holds a few row groups, never a block.
        let key = BlockKey::new(tenant, id);
        let mut upload = self.backend.upload(Place::Block(&key, "data.parquet")).await?;
        let storing = async move {
            // Dropped with this block: a merge whose store failed must not wait for room.
            let mut ready = ready;
            while let Some(part) = ready.recv().await {
                upload.write(part).await?;
            }
            Ok::<_, Failure>(upload)
        };
        let (merged, stored) = futures::join!(self.compute.run(0, merging), storing);
        let failed = |_: &Failure| self.metrics.compaction_errors.inc();
        let mut upload = stored.inspect_err(failed)?;
        let merged = merged.map_err(Failure::from).and_then(std::convert::identity).inspect_err(failed)?;
        let mut block = match merged {
            Ok(block) => block,
            Err(trace) => {
                tracing::info!(tenant, %trace, blocks = ?gone, "not merged: a trace in several of them is too large for one row");
                self.apart.lock().entry(tenant.to_owned()).or_default().extend(gone);
                return Ok(());
            }
        };
        for part in std::mem::take(&mut block.data) {
            upload.write(part).await.inspect_err(|_| self.metrics.compaction_errors.inc())?;
        }
        upload.finish().await.inspect_err(|_| self.metrics.compaction_errors.inc())?;
        self.backend.put_block_sides(&key, &block).await?;
        self.backend.put_meta(&block.meta).await?;
        self.metrics.written_blocks.inc();
        for id in &gone {
            self.backend.mark_compacted(&BlockKey::new(tenant, *id)).await?;
            self.metrics.compacted_blocks.inc();
        }
        self.tell(tenant, vec![&block.meta], &gone).await?;
        tracing::info!(
            tenant,
            inputs = gone.len(),
            output = %block.meta.block_id,
            traces = block.meta.total_objects,
            bytes = block.meta.size,
            level = block.meta.compaction_level,
            "blocks merged"
        );
        Ok(())
    }

    async fn tell(&self, tenant: &str, added: Vec<&BlockMeta>, removed: &[Uuid]) -> Result<(), Failure> {
        let news = BlocksReplaced {
            tenant: tenant.to_owned(),
            added_meta_json: added.into_iter().map(|meta| meta.to_json().into()).collect(),
            removed_block_ids: removed.iter().map(Uuid::to_string).collect(),
        };
        self.replaced.call(news, Deadline::after(NEWS_DEADLINE)).await?;
        Ok(())
    }

    /// The tenant's index, for others that read the bucket.
    async fn write_index(&self, tenant: &str, now: Timestamp) -> Result<(), Failure> {
        let listing = self.backend.list_blocks(tenant).await?;
        let mut index = TenantIndex { created_at: now, ..TenantIndex::default() };
        for block in listing.live {
            match self.backend.read_meta(&BlockKey::new(tenant, block)).await {
                Ok(meta) => index.meta.push(meta),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (block, _) in listing.compacted {
            match self.backend.read_compacted_meta(&BlockKey::new(tenant, block)).await {
                Ok(meta) => index.compacted.push(meta),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.backend.put_tenant_index(tenant, &index).await?)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

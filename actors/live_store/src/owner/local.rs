//! The owner in a process of its own: reaches the log, begins at the right place, keeps its blocks on the own disk, says how far
//! it is, and commits for its group what is safe.
//!
//! A span is in the head, in a closing cut or in a block of the shelf, never in two: a cut leaves in the same step in which its
//! blocks are put on the shelf. Committed is only what the ledger on disk says is in blocks.

mod catch_up;
mod durable;
mod look;
mod reach;
mod stop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vivace_log::GroupOffsets;
use vivace_protocol::TenantId;
use vivace_runtime::{Clock, Compute, Cx, Failure, Mailbox};

pub(crate) use self::catch_up::{CatchUp, CaughtUp};
use super::{Home, Owner, Shared};
use crate::config::Config;
use crate::flusher::{Flush, Flushed};
use crate::keep::{Connect, Source};
use crate::metrics::{Group, LocalMetrics};
use crate::readiness::Readiness;
use crate::shelf::{BlockFolder, OpenBlocks, Shelf, ShelfBlock};
use crate::state::{Lag, Ledger, Parked, Shelved};

/// Time between two looks at readiness and lag, of which every second one asks the log for its end.
const LOOK: Duration = Duration::from_secs(1);
/// From this time between two looks on, the process was held up: stopped, or without a processor.
const HELD_UP: Duration = Duration::from_millis(2_500);

/// What a live-store of its own process is made of; outlives the generations of its owner.
pub(crate) struct LocalHome {
    pub(crate) group: Group,
    pub(crate) connect: Connect,
    pub(crate) inactive: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The log once it was reached.
    pub(crate) reached: Mutex<Option<Source>>,
    pub(crate) blocks_dir: PathBuf,
    pub(crate) compute: Compute,
    /// Those blocks that are open for queries: their files stay on the disk until they are closed.
    pub(crate) open: Arc<OpenBlocks>,
    pub(crate) readiness: Readiness,
    pub(crate) times: Times,
    pub(crate) metrics: LocalMetrics,
}

/// Times of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// How long data is kept here.
    pub(crate) kept: Duration,
    pub(crate) commit_interval: Duration,
    /// Between leaving the shelf and being deleted.
    pub(crate) grace: Duration,
    /// The lag below which it is ready; zero asks for nothing.
    pub(crate) target_lag: Duration,
    pub(crate) max_wait: Duration,
}

impl Times {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            kept: config.complete_block_timeout.into(),
            commit_interval: config.commit_interval.into(),
            grace: config.block_reclaim_grace.into(),
            target_lag: config.readiness_target_lag.into(),
            max_wait: config.readiness_max_wait.into(),
        }
    }

    /// The age of the newest record from which on it counts as lagging.
    fn lag_limit(&self) -> Duration {
        if self.target_lag.is_zero() { Duration::from_secs(10) } else { self.target_lag }
    }
}

impl LocalHome {
    /// Records before this time are not kept. Unix milliseconds.
    pub(super) fn too_old_before(&self, now_ms: i64) -> i64 {
        before(now_ms, self.times.kept)
    }

    fn reached(&self) -> Option<Source> {
        self.reached.lock().clone()
    }
}

fn before(now_ms: i64, age: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// What an owner in its own process has in addition.
pub(super) struct LocalState {
    folder: BlockFolder,
    shelf: Shelf,
    lag: Lag,
    parked: Parked,
    /// Absent until the log was reached.
    offsets: Option<Arc<dyn GroupOffsets>>,
    /// What the ledger on disk says: nothing below is read again.
    safe: u64,
    committed: Option<u64>,
    committing: bool,
    /// So many writes of the ledger are on their way.
    saving: u32,
    /// The log is being reached for.
    connecting: bool,
    /// A question for the log's end is on its way.
    asking: bool,
    looks: u64,
    looked: Instant,
    /// So often the process was held up.
    held_up: u64,
    /// Blocks that left the shelf and may go once the ledger on disk does not name them.
    doomed: Vec<Shelved>,
    began: Instant,
    /// The log was replaced by another: what was read of it goes into blocks before the other is followed.
    leaving: bool,
}

impl LocalState {
    fn is_held_up(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) > HELD_UP
    }

    /// Whether the ledger on disk is the one in memory, as far as a restart cares.
    fn is_safe(&self, ledger: &Ledger) -> bool {
        self.saving == 0 && self.safe == ledger.replay_from
    }

    pub(super) fn observe(&self, ledger: &Ledger, seen: &mut serde_json::Map<String, serde_json::Value>) {
        seen.insert("local_blocks".into(), self.shelf.len().into());
        seen.insert("records_not_applied".into(), self.lag.records().into());
        seen.insert("newest_applied_unix_ms".into(), self.lag.newest_ms().into());
        seen.insert("finds_waiting".into(), self.parked.len().into());
        seen.insert("committed_offset".into(), self.committed.into());
        seen.insert("reads_the_log".into(), self.offsets.is_some().into());
        let lost: Vec<String> = ledger.lost.iter().map(|loss| format!("{} to {}", loss.from, loss.to)).collect();
        seen.insert("lost_offsets".into(), lost.into());
    }
}

impl Owner {
    /// Finds the blocks again that the ledger names, and removes what else lies there.
    pub(super) async fn build_local(
        shared: Arc<Shared>,
        flusher: Mailbox<Flush, Flushed>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let Home::Local(home) = &shared.home else { return Err(Failure::new("its log lies beside it")) };
        let mut ledger = shared.ledger.read().await?;
        shared.quarantine.restore(&ledger.quarantined);
        ledger.pending.clear();
        let folder = BlockFolder::open(&home.blocks_dir, home.compute.clone())?;
        let mut loaded = folder.load(&ledger.blocks).await?;
        if !loaded.missing.is_empty() {
            for (block, reason) in &loaded.missing {
                tracing::error!(tenant = block.tenant, block = %block.id, reason, "a local block cannot be read");
            }
            tracing::error!("the disk does not hold what the ledger says: it is filled again from the log");
            ledger.forget_disk();
            loaded.blocks.clear();
        }
        let swept = folder.sweep(&ledger.blocks).await?;
        ledger.generation += 1;
        // Before the first block of this generation is written: its name must be new.
        shared.ledger.write(&ledger).await?;
        let blocks = loaded.blocks.len();
        tracing::info!(blocks, swept, replay_from = ledger.replay_from, "local blocks found");
        let mut shelf = Shelf::default();
        loaded.blocks.into_iter().for_each(|block| shelf.add(block));
        home.metrics.blocks(shelf.len());
        home.metrics.owns(&home.group, true);
        let (safe, lag) = (ledger.replay_from, Lag::new(home.times.lag_limit(), ledger.replay_from));
        let local = LocalState {
            folder,
            shelf,
            lag,
            parked: Parked::default(),
            offsets: None,
            safe,
            committed: None,
            committing: false,
            saving: 0,
            connecting: false,
            asking: false,
            looks: 0,
            looked: clock.now(),
            held_up: 0,
            doomed: Vec::new(),
            began: clock.now(),
            leaving: false,
        };
        let source = format!("{}/{}/{}", home.group.name, ledger.generation, clock.unix().as_nanos());
        let mut owner = Self::at(Arc::clone(&shared), flusher, ledger)?;
        (owner.local, owner.source) = (Some(Box::new(local)), source.into());
        Ok(owner)
    }

    pub(super) fn started_local(&mut self, cx: &mut Cx<Self>) {
        let Home::Local(home) = &self.shared.home else { return };
        let times = home.times;
        cx.every(LOOK, Self::look);
        if !times.commit_interval.is_zero() {
            cx.every(times.commit_interval, Self::commit);
        }
        cx.every(self.shared.check_period, Self::expire);
        self.connect(cx);
    }

    pub(super) fn shelved(&self, tenant: &TenantId) -> Vec<Arc<ShelfBlock>> {
        self.local.as_ref().map_or_else(Vec::new, |local| local.shelf.of(tenant.as_str()))
    }
}

//! The owner in a process of its own: reaches the log, begins at the right place, keeps its blocks on the own disk, says how far
//! it is, and commits for its group what is safe.
//!
//! A span is in the head, in a closing cut or in a block of the shelf, never in two: a cut leaves in the same step in which its
//! blocks are put on the shelf. Committed is only what the ledger on disk says is in blocks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vivace_log::{Bounds, Error as LogError, GroupOffsets, Offset};
use vivace_protocol::TenantId;
use vivace_runtime::{Clock, Compute, Cx, Failure, Mailbox};

use super::{FLUSH_RETRY, Home, IMMEDIATE, Owner, Shared, unix_ms};
use crate::config::Config;
use crate::flusher::{Flush, Flushed, Written};
use crate::keep::{Connect, Source};
use crate::metrics::{Group, LocalMetrics};
use crate::readiness::{Phase, Readiness};
use crate::shelf::{BlockFolder, OpenBlocks, Shelf, ShelfBlock};
use crate::standing::Standing;
use crate::state::{Copies, CutId, Known, Lag, Ledger, Loss, Origin, Partition, Shelved, begin};

/// The log is reached for again this long after a failed attempt.
const CONNECT_RETRY: Duration = Duration::from_secs(1);
/// A read that the log refuses for a reason that somebody must remove is tried again after this.
const REFUSED_RETRY: Duration = Duration::from_secs(2);
/// The last commit is waited for so long.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);
/// So many records that were set aside are shown, and more only while they may be read again.
const QUARANTINED_MAX: usize = 1_000;
/// Time between two looks at readiness and lag, of which every second one asks the log for its end.
const LOOK: Duration = Duration::from_secs(1);

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
    /// Blocks that left the shelf and may go once the ledger on disk does not name them.
    doomed: Vec<Shelved>,
    began: Instant,
    /// The log was replaced by another: what was read of it goes into blocks before the other is followed.
    leaving: bool,
}

impl LocalState {
    /// Whether the ledger on disk is the one in memory, as far as a restart cares.
    fn is_safe(&self, ledger: &Ledger) -> bool {
        self.saving == 0 && self.safe == ledger.replay_from
    }

    pub(super) fn observe(&self, ledger: &Ledger, seen: &mut serde_json::Map<String, serde_json::Value>) {
        seen.insert("local_blocks".into(), self.shelf.len().into());
        seen.insert("records_not_applied".into(), self.lag.records().into());
        seen.insert("newest_applied_unix_ms".into(), self.lag.newest_ms().into());
        seen.insert("committed_offset".into(), self.committed.into());
        seen.insert("reads_the_log".into(), self.offsets.is_some().into());
        let lost: Vec<String> = ledger.lost.iter().map(|loss| format!("{} to {}", loss.from, loss.to)).collect();
        seen.insert("lost_offsets".into(), lost.into());
    }
}

/// What the log says when it is reached.
struct Met {
    source: Source,
    bounds: Bounds,
    committed: Option<Offset>,
    lookback: Offset,
}

async fn meet(shared: &Shared, home: &LocalHome, now_ms: i64) -> Result<Met, LogError> {
    let source = match home.reached() {
        Some(source) => source,
        None => (home.connect)().await?,
    };
    let bounds = source.log.bounds(shared.partition).await?;
    let committed = source.offsets.committed(shared.partition).await?;
    let oldest = before(now_ms, home.times.kept.saturating_mul(2));
    let lookback = source.log.offset_at(shared.partition, oldest).await?;
    *home.reached.lock() = Some(source.clone());
    Ok(Met { source, bounds, committed, lookback })
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
            offsets: None,
            safe,
            committed: None,
            committing: false,
            saving: 0,
            connecting: false,
            asking: false,
            looks: 0,
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

    /// Whether nothing is read (any more) that has to be filed.
    pub(super) fn has_left_log(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.leaving || self.draining.is_some())
    }

    fn connect(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        if std::mem::replace(&mut local.connecting, true) {
            return;
        }
        let (shared, now_ms) = (Arc::clone(&self.shared), unix_ms(cx));
        let met = async move {
            match &shared.home {
                Home::Local(home) => meet(&shared, home, now_ms).await,
                Home::Bucket { .. } => Err(LogError::Closed),
            }
        };
        cx.spawn(met, |owner, met, cx| {
            let Some(local) = &mut owner.local else { return };
            local.connecting = false;
            if owner.draining.is_some() {
                return;
            }
            match met {
                Ok(met) => owner.begin(met, cx),
                Err(error) => {
                    owner.problem("reach the log", &error.to_string());
                    cx.after(CONNECT_RETRY, Self::connect);
                }
            }
        });
    }

    /// The log answers: decides where to begin, and begins.
    fn begin(&mut self, met: Met, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        let Met { source, bounds: Bounds { earliest, end }, committed, lookback } = met;
        let now_ms = unix_ms(cx);
        let log = source.log.id().to_string();
        let known = Known {
            log: &log,
            committed: committed.map(|offset| offset.0),
            earliest: earliest.0,
            end: end.0,
            lookback: lookback.0,
            inactive: (home.inactive)(),
        };
        let start = begin(&mut self.ledger, known);
        let (from, origin) = (start.from, start.origin);
        match origin {
            Origin::Ledger | Origin::Commit | Origin::Lookback | Origin::TooOld => {
                tracing::info!(from, end = end.0, ?origin, "the log is followed");
            }
            Origin::OtherLog | Origin::Removed | Origin::WentBack => {
                tracing::error!(from, end = end.0, ?origin, lost = ?start.lost, "the log is not as it was left");
            }
        }
        if let Some((from, to)) = start.lost {
            self.ledger.lose(Loss { from, to, at_ms: now_ms });
            home.metrics.lost(to - from);
        }
        match Partition::recover(shared.rules.clone(), &self.ledger) {
            Ok(state) => self.state = state,
            Err(error) => return cx.fail(Failure::new(error)),
        }
        self.copies = Copies::recover(&self.ledger);
        local.lag = Lag::new(home.times.lag_limit(), from);
        local.lag.heard(end.0, now_ms);
        local.committed = known.committed;
        match source.log.reader(shared.partition, Offset(from)) {
            Ok(reader) => (self.reader, self.readers) = (Some(reader), self.readers + 1),
            Err(error) => {
                // The log moved on between the two questions.
                self.problem("read the log", &error.to_string());
                cx.after(CONNECT_RETRY, Self::connect);
                return;
            }
        }
        (local.offsets, local.leaving) = (Some(source.offsets), false);
        self.log = Some(source.log);
        self.last_error = None;
        self.keep_ledger(cx);
        self.look(cx);
        self.read(cx);
    }

    /// A batch was filed.
    pub(super) fn on_applied(&mut self, next: u64, end: u64, newest_ms: Option<i64>, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        local.lag.applied(next, newest_ms);
        local.lag.heard(end.max(next), unix_ms(cx));
    }

    pub(super) fn on_local_error(&mut self, error: LogError, cx: &mut Cx<Self>) {
        match error {
            LogError::OutOfRange { earliest, end, .. } => self.jump(earliest.0, end.0, cx),
            LogError::TopicReplaced { .. } => {
                tracing::error!(%error, "the log was replaced: what was read of it goes into blocks, then the new one is followed");
                self.last_error = Some(error.to_string());
                self.leave_log(cx);
            }
            LogError::Closed => {
                if let Home::Local(home) = &self.shared.home {
                    *home.reached.lock() = None;
                }
                self.problem("read the log", "it was closed");
                cx.after(CONNECT_RETRY, Self::reconnect);
            }
            error => {
                self.problem("read the log", &error.to_string());
                cx.after(REFUSED_RETRY, Self::read);
            }
        }
    }

    /// The log does not have what should come next: its retention has passed it, or it has lost its end.
    fn jump(&mut self, earliest: u64, end: u64, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local), Some(log)) = (&shared.home, &mut self.local, &self.log) else { return };
        let (next, now_ms) = (self.state.next(), unix_ms(cx));
        let to = if next < earliest {
            tracing::error!(next, earliest, "the log removed records before they were read");
            self.ledger.lose(Loss { from: next, to: earliest, at_ms: now_ms });
            home.metrics.lost(earliest - next);
            self.state.skip(earliest - 1);
            local.lag.applied(earliest, None);
            earliest
        } else {
            let end = end.min(next);
            tracing::error!(next, end, "the log has lost its end: its offsets are given again");
            self.state.went_back(end);
            self.copies.went_back(end);
            self.ledger.went_back(end);
            local.lag.went_back(end);
            end
        };
        match log.reader(shared.partition, Offset(to)) {
            Ok(reader) => {
                (self.reader, self.readers) = (Some(reader), self.readers + 1);
                self.keep_ledger(cx);
                self.read(cx);
            }
            Err(error) => {
                self.problem("read the log", &error.to_string());
                cx.after(CONNECT_RETRY, Self::reconnect);
            }
        }
    }

    /// Puts everything that was read into blocks, and then reaches for the log anew.
    fn leave_log(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        local.leaving = true;
        (self.reader, self.log, local.offsets) = (None, None, None);
        self.readers += 1;
        if let Home::Local(home) = &self.shared.home {
            *home.reached.lock() = None;
        }
        self.state.end_replay();
        self.cut(unix_ms(cx), IMMEDIATE, cx);
        self.settled(cx);
    }

    /// Reaches for the log anew where it stopped: nothing that was read is read again.
    fn reconnect(&mut self, cx: &mut Cx<Self>) {
        if !self.has_left_log() {
            self.leave_log(cx);
        }
    }

    /// The blocks of a cut are durable on the own disk: they take its place.
    pub(super) fn on_shelved(&mut self, id: CutId, blocks: Vec<Written>, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        let mut entries = Vec::new();
        for Written { tenant, meta, until_ms } in blocks {
            entries.push(Shelved { tenant: tenant.to_string(), id: meta.block_id, until_ms });
            local.shelf.add(local.folder.block(meta));
        }
        self.state.published(id);
        home.metrics.blocks(local.shelf.len());
        let replay_from = self.ledger.complete(id.number, entries);
        self.copies.forget_below(replay_from);
        if shared.quarantine.entries().len() > QUARANTINED_MAX {
            // They are below everything that is read again, and have been counted and logged.
            shared.quarantine.forget_below(replay_from);
        }
        self.last_error = None;
        self.keep_ledger(cx);
        self.read(cx);
    }

    /// Makes the ledger durable. What it does not name any more may be deleted then, what it covers may be committed.
    fn keep_ledger(&mut self, cx: &mut Cx<Self>) {
        let saved = self.save();
        let Some(local) = &mut self.local else { return };
        let doomed = std::mem::take(&mut local.doomed);
        local.saving += 1;
        cx.spawn(saved, move |owner, saved, cx| {
            let Some(local) = &mut owner.local else { return };
            local.saving -= 1;
            match saved {
                Ok(replay_from) => {
                    local.safe = replay_from;
                    owner.delete_later(doomed, cx);
                    if matches!(&owner.shared.home, Home::Local(home) if home.times.commit_interval.is_zero()) {
                        owner.commit(cx);
                    }
                }
                Err(status) => {
                    local.doomed.extend(doomed);
                    owner.problem("write the ledger", status.message());
                    cx.after(FLUSH_RETRY, Self::keep_ledger);
                }
            }
            owner.settled(cx);
        });
    }

    /// Blocks whose time is over leave the shelf now and the disk later: who reads them may finish.
    fn expire(&mut self, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        let gone = self.ledger.expire(home.too_old_before(unix_ms(cx)));
        if gone.is_empty() {
            return;
        }
        for block in gone {
            tracing::debug!(tenant = block.tenant, block = %block.id, "the time of a local block is over");
            local.shelf.remove(&block);
            local.doomed.push(block);
            home.metrics.cleared();
        }
        home.metrics.blocks(local.shelf.len());
        self.keep_ledger(cx);
    }

    fn delete_later(&mut self, blocks: Vec<Shelved>, cx: &mut Cx<Self>) {
        let (Home::Local(home), Some(local)) = (&self.shared.home, &self.local) else { return };
        if blocks.is_empty() {
            return;
        }
        let (sleep, folder, open) = (cx.sleep(home.times.grace), local.folder.clone(), Arc::clone(&home.open));
        cx.detach(async move {
            sleep.await;
            for block in blocks {
                open.forget(block.id);
                if let Err(error) = folder.delete(&block).await {
                    // It is swept at the next start.
                    tracing::warn!(%error, tenant = block.tenant, block = %block.id, "delete a local block");
                }
            }
        });
    }

    /// Commits for the group what the ledger on disk covers.
    fn commit(&mut self, cx: &mut Cx<Self>) {
        let partition = self.shared.partition;
        let Some(local) = &mut self.local else { return };
        let Some(offsets) = local.offsets.as_ref().filter(|_| !local.committing && local.committed != Some(local.safe))
        else {
            return;
        };
        local.committing = true;
        let safe = local.safe;
        cx.spawn(offsets.commit(partition, Offset(safe)), move |owner, done, cx| {
            let Some(local) = &mut owner.local else { return };
            local.committing = false;
            let failed = match done {
                Ok(()) => {
                    local.committed = Some(safe);
                    false
                }
                Err(error) => {
                    owner.problem("commit the offset", &error.to_string());
                    if let Home::Local(home) = &owner.shared.home {
                        home.metrics.commit_failed();
                    }
                    true
                }
            };
            if owner.draining.is_some() {
                // The ledger is on the disk: the commit only tells others. It is tried once.
                if failed { owner.drained() } else { owner.settled(cx) }
            }
        });
    }

    /// Looks whether everything that was read is in blocks, where somebody waits for that.
    fn settled(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        if !local.is_safe(&self.ledger) || !self.state.closing().is_empty() {
            // What is on its way asks again.
            return;
        }
        if self.draining.is_none() {
            if local.leaving {
                self.connect(cx);
            }
            return;
        }
        let due = local.offsets.is_some() && local.committed != Some(local.safe);
        match (local.committing, due) {
            (true, _) => {}
            (false, true) => self.commit(cx),
            (false, false) => self.drained(),
        }
    }

    /// Takes part no more: everything goes into blocks, and what they cover is committed.
    pub(super) fn stop_local(&mut self, cx: &mut Cx<Self>) {
        if let Home::Local(home) = &self.shared.home {
            home.readiness.set(Phase::Stopping);
            home.metrics.ready(None);
            home.metrics.owns(&home.group, false);
            home.metrics.forget_lag(&home.group);
        }
        self.reader = None;
        self.settled(cx);
        cx.after(COMMIT_PATIENCE, Self::stop_waiting);
    }

    /// The blocks and the ledger are what counts; a log that is away need not hear of them.
    fn stop_waiting(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &self.local else { return };
        if self.state.closing().is_empty() && local.is_safe(&self.ledger) {
            self.drained();
        } else {
            cx.after(COMMIT_PATIENCE, Self::stop_waiting);
        }
    }

    /// Whether it has become ready, and how far it is.
    fn look(&mut self, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        if self.draining.is_some() {
            return;
        }
        let (now_ms, waited) = (unix_ms(cx), cx.now().saturating_duration_since(local.began));
        let records = local.lag.records();
        let uncommitted =
            local.committed.and_then(|committed| local.lag.end().map(|end| end.saturating_sub(committed)));
        home.metrics.lag(&home.group, uncommitted, local.lag.time(now_ms));
        if home.readiness.not_ready().is_some() {
            let reached = local.offsets.is_some() && local.lag.is_within(home.times.target_lag, now_ms);
            if reached || waited >= home.times.max_wait {
                tracing::info!(?records, ?waited, reached, "ready");
                home.readiness.set(Phase::Ready);
                home.metrics.ready(Some(waited));
            }
        }
        local.looks += 1;
        if local.looks.is_multiple_of(2) {
            self.ask_end(cx);
        }
    }

    /// Asks the log how far it goes: a reader hears of that only with records.
    fn ask_end(&mut self, cx: &mut Cx<Self>) {
        let partition = self.shared.partition;
        let (Some(local), Some(log)) = (&mut self.local, &self.log) else { return };
        if std::mem::replace(&mut local.asking, true) {
            return;
        }
        let readers = self.readers;
        cx.spawn(log.bounds(partition), move |owner, bounds, cx| {
            let Some(local) = &mut owner.local else { return };
            local.asking = false;
            match bounds {
                // Of another log, or of its former end.
                Ok(_) if owner.readers != readers => {}
                Ok(bounds) => local.lag.heard(bounds.end.0, unix_ms(cx)),
                Err(error) => owner.problem("ask the log for its end", &error.to_string()),
            }
        });
    }

    /// Whether the records that come are old.
    pub(super) fn is_catching_up(&self, now_ms: i64) -> bool {
        self.local.as_ref().is_some_and(|local| local.lag.is_catching_up(now_ms))
    }

    /// The time by which traces count as growing: that of the records while they are old.
    pub(super) fn cutting_time(&self, now_ms: i64) -> i64 {
        let old = self.local.as_ref().filter(|local| local.lag.is_catching_up(now_ms));
        old.and_then(|local| local.lag.newest_ms()).unwrap_or(now_ms)
    }

    pub(super) fn shelved(&self, tenant: &TenantId) -> Vec<Arc<ShelfBlock>> {
        self.local.as_ref().map_or_else(Vec::new, |local| local.shelf.of(tenant.as_str()))
    }

    pub(super) fn standing(&self, now_ms: i64) -> Standing {
        Standing {
            partition: self.shared.partition,
            newest_ms: self.state.newest_ms(),
            now_ms,
            lag: self.local.as_ref().map(|local| local.lag.clone()),
            lost: self.ledger.lost.clone(),
            stopping: self.local.is_some() && self.draining.is_some(),
        }
    }
}

//! Owner: follows one partition of the log, holds what no block covers yet, decides cuts.
//!
//! Owns the partition's state and its ledger, in a process of its own also which local blocks count and how far it lags. Consumes
//! records (from the log) and look-ups (`Find`, `Collect`); emits cuts to the flusher and its progress: to whoever acknowledges, or
//! to the consumer group. Mailbox: look-ups only, each a few hundred bytes; data is bounded by not reading on while two cuts wait
//! for their blocks and the head is full.
//! On restart: the ledger says where to replay from. Beside its log nothing is answered before the replay has reached the end; in
//! its own process answers say what is still missing.

mod apply;
mod follow;
mod local;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tonic::Code;
use uuid::Uuid;
use vivace_log::{Log, Offset, Progress, Quarantine, Reader};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::{Clock, Cx, Deadline, Failure, Mailbox, Part, Reply, Serve};

use self::local::LocalState;
pub(crate) use self::local::{CatchUp, CaughtUp, LocalHome, Times};
use crate::flusher::{Flush, Flushed, Written};
use crate::ledger_file::LedgerFile;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::shelf::ShelfBlock;
use crate::standing::Standing;
use crate::state::{Copies, Cut, CutId, Ledger, Partition, Pieces, Rules, Snapshot};

/// So many cuts may wait for their blocks; beyond, reading stops when the head is full too.
const MAX_CLOSING: usize = 2;
/// A block that could not be written is tried again after this long.
const FLUSH_RETRY: Duration = Duration::from_secs(2);
/// A cut is flushed within this time or tried again; an hour stands for "as long as it takes".
const FLUSH_DEADLINE: Duration = Duration::from_secs(3600);
/// So many of the latest blocks are remembered: far more than are published while one reader reads.
const REMEMBERED_BLOCKS: usize = 256;

/// Called for every record before it is filed; tests plant failures here.
pub type ApplyHook = Arc<dyn Fn(u64, &[u8]) + Send + Sync>;

/// Everything that outlives one generation of the owner.
pub(crate) struct Shared {
    pub(crate) partition: vivace_log::Partition,
    pub(crate) ledger: LedgerFile,
    pub(crate) rules: Rules,
    pub(crate) check_period: Duration,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) quarantine: Quarantine,
    pub(crate) metrics: Metrics,
    pub(crate) hook: Option<ApplyHook>,
    pub(crate) home: Home,
}

/// Where the log is and blocks go.
pub(crate) enum Home {
    Bucket { log: Arc<dyn Log>, progress: Progress },
    Local(Box<LocalHome>),
}

/// All pieces of one trace.
pub(crate) struct Find {
    pub(crate) tenant: TenantId,
    pub(crate) id: TraceId,
}

/// What is at hand of it, and the blocks that may hold more, all of one moment.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) parts: Vec<Pieces>,
    pub(crate) blocks: Vec<Arc<ShelfBlock>>,
    pub(crate) standing: Standing,
}

/// Everything of one tenant.
pub(crate) struct Collect {
    pub(crate) tenant: TenantId,
}

/// A tenant's data at one moment: no span is in both parts.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) snapshot: Snapshot,
    pub(crate) blocks: Vec<Arc<ShelfBlock>>,
    pub(crate) standing: Standing,
    pub(crate) at: Instant,
}

/// Asks where data that was held at an instant may have gone since.
pub(crate) struct MovedSince {
    pub(crate) tenant: TenantId,
    pub(crate) at: Instant,
}

/// Where it went.
#[derive(Debug)]
pub(crate) struct Moved {
    /// Cuts on their way into blocks; some of the blocks may be published.
    pub(crate) closing: Vec<Arc<Cut>>,
    /// Blocks of finished cuts.
    pub(crate) published: Vec<Uuid>,
}

/// The part.
pub(crate) struct Owner {
    shared: Arc<Shared>,
    flusher: Mailbox<Flush, Flushed>,
    state: Partition,
    ledger: Ledger,
    copies: Copies,
    /// Absent until it was reached.
    log: Option<Arc<dyn Log>>,
    /// What the ids of blocks are made from, beside the cut.
    source: Arc<str>,
    /// Absent while a read is on its way.
    reader: Option<Box<dyn Reader>>,
    /// Counts the readers: what an earlier one brings is not wanted.
    readers: u64,
    /// The latest blocks, for readers that evaluate a snapshot meanwhile.
    published: VecDeque<(TenantId, Uuid, Instant)>,
    /// Since when the log is not read on because there is no room.
    waits_since: Option<Instant>,
    /// Only in its own process.
    local: Option<Box<LocalState>>,
    draining: Option<oneshot::Sender<()>>,
    last_error: Option<String>,
}

impl Owner {
    /// Reads the ledger. Beside its log, everything that the log holds is applied when this returns; in its own process the local
    /// blocks are at hand then, and the log is still to be reached.
    pub(crate) async fn build(
        shared: Arc<Shared>,
        flusher: Mailbox<Flush, Flushed>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        if let Some(offset) = shared.quarantine.rebuilt() {
            tracing::error!(offset, "record set aside: its consumer panicked twice on it");
            shared.metrics.quarantined(1);
        }
        match &shared.home {
            Home::Bucket { .. } => Self::replay(shared, flusher, clock).await,
            Home::Local(_) => Self::build_local(shared, flusher, clock).await,
        }
    }

    /// An owner at the place that the ledger says.
    fn at(shared: Arc<Shared>, flusher: Mailbox<Flush, Flushed>, ledger: Ledger) -> Result<Self, Failure> {
        Ok(Self {
            state: Partition::recover(shared.rules.clone(), &ledger).map_err(Failure::new)?,
            copies: Copies::recover(&ledger),
            shared,
            flusher,
            ledger,
            log: None,
            source: "".into(),
            reader: None,
            readers: 0,
            published: VecDeque::new(),
            waits_since: None,
            local: None,
            draining: None,
            last_error: None,
        })
    }

    fn cut_if_due(&mut self, cx: &mut Cx<Self>) {
        let now_ms = self.cutting_time(unix_ms(cx));
        if self.state.closing().len() < MAX_CLOSING
            && let Some(why) = self.state.cut_due(now_ms)
            && (self.state.is_full() || !self.is_catching_up(unix_ms(cx)))
        {
            self.cut(now_ms, why, cx);
        }
        self.shared.metrics.live(&self.state);
    }

    fn cut(&mut self, now_ms: i64, why: &'static str, cx: &mut Cx<Self>) {
        let Some(cut) = self.state.cut(now_ms, why == IMMEDIATE) else { return };
        tracing::debug!(first = cut.id.first, end = cut.id.end, bytes = cut.bytes, why, "cut");
        self.shared.metrics.cut(why);
        self.ledger.begin(&cut, &self.copies);
        match &self.shared.home {
            Home::Bucket { .. } => self.close(cut, cx),
            Home::Local(_) => self.flush(cut, false, cx),
        }
    }

    /// The decision goes to disk before the first block is written; only then is the cut flushed.
    fn close(&mut self, cut: Arc<Cut>, cx: &mut Cx<Self>) {
        let saved = self.save();
        cx.spawn(saved, move |owner, saved, cx| match saved {
            Ok(_) => owner.flush(cut, false, cx),
            Err(status) => {
                owner.problem("write the ledger", status.message());
                cx.after(FLUSH_RETRY, move |owner, cx| owner.close(cut, cx));
            }
        });
    }

    /// `careful`: an attempt before has met with something that is not the disk's or the store's fault.
    fn flush(&mut self, cut: Arc<Cut>, careful: bool, cx: &mut Cx<Self>) {
        let (flusher, source, shared) = (self.flusher.clone(), Arc::clone(&self.source), Arc::clone(&cut));
        let flush = Flush { cut: shared, source, careful };
        let flushed = async move { flusher.ask(flush, Deadline::after(FLUSH_DEADLINE)).await };
        cx.spawn(flushed, move |owner, flushed, cx| match flushed {
            Ok(Flushed { blocks }) if owner.local.is_some() => owner.on_shelved(cut.id, blocks, cx),
            Ok(Flushed { blocks }) => owner.on_flushed(cut.id, blocks, cx),
            Err(status) => {
                owner.problem("write a block", status.message());
                owner.shared.metrics.flush_failed();
                let careful = careful || status.code() == Code::Internal;
                cx.after(FLUSH_RETRY, move |owner, cx| owner.flush(cut, careful, cx));
            }
        });
    }

    /// The blocks are durable and published: queries find them there, so the slices go.
    fn on_flushed(&mut self, id: CutId, blocks: Vec<Written>, cx: &mut Cx<Self>) {
        let now = cx.clock().now();
        self.published.extend(blocks.into_iter().map(|block| (block.tenant, block.meta.block_id, now)));
        let surplus = self.published.len().saturating_sub(REMEMBERED_BLOCKS);
        self.published.drain(..surplus);
        let reclaim = self.ledger.complete(id.number, Vec::new());
        self.state.published(id);
        self.last_error = None;
        let (saved, log, partition) = (self.save(), self.log.clone(), self.shared.partition);
        cx.spawn(
            async move {
                saved.await?;
                let Some(log) = log else { return Ok(()) };
                let reclaimed = log.reclaim(partition, Offset(reclaim)).await;
                reclaimed.map_err(|e| tonic::Status::unavailable(e.to_string()))
            },
            |owner, result, _| {
                // Nothing is lost: the next cut says the same again, and a restart finds the blocks.
                if let Err(status) = result {
                    owner.problem("reclaim the log", status.message());
                }
                if owner.state.closing().is_empty() {
                    owner.drained();
                }
            },
        );
        self.read(cx);
    }

    /// Writes the ledger; gives where a replay from it starts.
    fn save(&mut self) -> impl Future<Output = Result<u64, tonic::Status>> + use<> {
        self.ledger.quarantined = self.shared.quarantine.entries();
        let write = match &self.shared.home {
            Home::Bucket { .. } => self.shared.ledger.write(&self.ledger),
            Home::Local(_) => self.shared.ledger.write(&self.ledger.without_pending()),
        };
        let replay_from = self.ledger.replay_from;
        async move { write.await.map(|()| replay_from) }
    }

    fn problem(&mut self, what: &str, error: &str) {
        tracing::warn!(error, "{what}");
        self.last_error = Some(format!("{what}: {error}"));
    }

    fn drained(&mut self) {
        if let Some(done) = self.draining.take() {
            // Nobody waits any more when the drain's deadline has passed.
            done.send(()).ok();
        }
    }
}

/// The reason of cuts that leave nothing behind.
const IMMEDIATE: &str = "immediate";

fn unix_ms(cx: &Cx<Owner>) -> i64 {
    i64::try_from(cx.clock().unix().as_millis()).unwrap_or(i64::MAX)
}

impl Part for Owner {
    fn started(&mut self, cx: &mut Cx<Self>) {
        // Cuts that an earlier run had decided and not finished come first.
        for cut in self.state.closing().to_vec() {
            self.flush(cut, false, cx);
        }
        cx.every(self.shared.check_period, Self::cut_if_due);
        match &self.shared.home {
            Home::Bucket { .. } => self.read(cx),
            Home::Local(_) => self.started_local(cx),
        }
    }

    fn drain(&mut self, cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        let (done, finished) = oneshot::channel();
        self.draining = Some(done);
        // Beside its log: the distributor has drained before us, so the log does not grow any more. What the log has and we have
        // not applied stays there for the next start.
        self.cut(unix_ms(cx), IMMEDIATE, cx);
        match &self.shared.home {
            Home::Bucket { .. } if self.state.closing().is_empty() => self.drained(),
            Home::Bucket { .. } => {}
            Home::Local(_) => self.stop_local(cx),
        }
        async move {
            // A dropped sender means that the part failed meanwhile; what it held is in the log.
            finished.await.ok();
        }
        .boxed_local()
    }

    fn observe(&self) -> serde_json::Value {
        let mut seen = serde_json::json!({
            "next_offset": self.state.next(),
            "head_bytes": self.state.head_bytes(),
            "cuts_waiting_for_blocks": self.state.closing().len(),
            "covered_by_blocks": self.ledger.covered,
            "quarantined": self.shared.quarantine.entries(),
            "last_error": self.last_error,
        });
        if let (Some(local), Some(seen)) = (&self.local, seen.as_object_mut()) {
            local.observe(&self.ledger, seen);
        }
        seen
    }
}

impl Serve<Find> for Owner {
    type Reply = Found;

    fn serve(&mut self, find: Find, cx: &mut Cx<Self>) -> Reply<Found> {
        Reply::ok(Found {
            parts: self.state.find(&find.tenant, &find.id),
            blocks: self.shelved(&find.tenant),
            standing: self.standing(cx),
        })
    }
}

impl Serve<Collect> for Owner {
    type Reply = Collected;

    fn serve(&mut self, collect: Collect, cx: &mut Cx<Self>) -> Reply<Collected> {
        Reply::ok(Collected {
            snapshot: self.state.snapshot(&collect.tenant),
            blocks: self.shelved(&collect.tenant),
            standing: self.standing(cx),
            at: cx.clock().now(),
        })
    }
}

impl Serve<MovedSince> for Owner {
    type Reply = Moved;

    fn serve(&mut self, since: MovedSince, _cx: &mut Cx<Self>) -> Reply<Moved> {
        let own = self.published.iter().filter(|(tenant, _, at)| *tenant == since.tenant && *at >= since.at);
        let published = own.map(|(_, block, _)| *block).collect();
        Reply::ok(Moved { closing: self.state.closing().to_vec(), published })
    }
}

//! Owner: follows one partition of the log, holds what no block covers yet, decides cuts.
//!
//! Owns the partition's state and its ledger. Consumes records (from the log) and look-ups (`Find`, `Collect`); emits
//! cuts to the flusher and its progress to whoever acknowledges. Mailbox: look-ups only, each a few hundred bytes; data
//! is bounded by not reading on while two cuts wait for their blocks and the head is full.
//! On restart: the ledger says where to replay from; nothing is answered before the replay has reached the end of the log.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use uuid::Uuid;
use vivace_log::{Batch, Entry, Error as LogError, Log, Offset, Progress, Reader};
use vivace_protocol::push_bytes::PushBytes;
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::{Clock, Cx, Deadline, Failure, Mailbox, Part, Reply, Serve};

use crate::flusher::{Flush, Flushed};
use crate::ledger_file::LedgerFile;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::quarantine::Quarantine;
use crate::state::{Applied, Cut, CutId, Ledger, Partition, Rules, Snapshot, TraceLimits};

/// Bytes taken from the log at once: enough for a burst of requests, little against a head.
const READ_BYTES: usize = 4 << 20;
/// So many cuts may wait for their blocks; beyond, reading stops when the head is full too.
const MAX_CLOSING: usize = 2;
/// The log is asked again this long after a failed read.
const READ_RETRY: Duration = Duration::from_millis(500);
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
    pub(crate) log: Arc<dyn Log>,
    pub(crate) partition: vivace_log::Partition,
    pub(crate) progress: Progress,
    pub(crate) ledger: LedgerFile,
    pub(crate) rules: Rules,
    pub(crate) check_period: Duration,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) quarantine: Quarantine,
    pub(crate) metrics: Metrics,
    pub(crate) hook: Option<ApplyHook>,
}

/// All pieces of one trace.
pub(crate) struct Find {
    pub(crate) tenant: TenantId,
    pub(crate) id: TraceId,
}

/// Everything of one tenant.
pub(crate) struct Collect {
    pub(crate) tenant: TenantId,
}

/// A tenant's data at one moment.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) snapshot: Snapshot,
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
    /// Absent while a read is on its way.
    reader: Option<Box<dyn Reader>>,
    /// Numbers of cuts whose blocks are durable while an older one's are not.
    durable: BTreeSet<u64>,
    /// The latest blocks, for readers that evaluate a snapshot meanwhile.
    published: VecDeque<(TenantId, Uuid, Instant)>,
    draining: Option<oneshot::Sender<()>>,
    last_error: Option<String>,
}

impl Owner {
    /// Reads the ledger and replays the log. Everything that the log holds is applied when this returns.
    pub(crate) async fn build(
        shared: Arc<Shared>,
        flusher: Mailbox<Flush, Flushed>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        if let Some(offset) = shared.quarantine.rebuilt() {
            tracing::error!(offset, "record set aside: its consumer panicked twice on it");
            shared.metrics.quarantined(1);
        }
        let mut ledger = shared.ledger.read().await?;
        shared.quarantine.restore(&ledger.quarantined);
        let bounds = shared.log.bounds(shared.partition).await?;
        if ledger.replay_from < bounds.earliest.0 {
            tracing::error!(
                wanted = ledger.replay_from,
                earliest = bounds.earliest.0,
                "the log begins after what is still needed: records between were removed by someone else"
            );
            ledger.replay_from = bounds.earliest.0;
            ledger.covered = ledger.covered.max(bounds.earliest.0);
        }
        if ledger.covered > bounds.end.0 {
            return Err(Failure::new(format!(
                "the ledger {} covers offsets below {}, but the log ends at {}: they do not belong together",
                shared.ledger.path().display(),
                ledger.covered,
                bounds.end.0
            )));
        }
        shared.progress.publish(Offset(ledger.replay_from));
        let mut state = Partition::recover(shared.rules.clone(), &ledger).map_err(Failure::new)?;
        let mut reader = shared.log.reader(shared.partition, Offset(ledger.replay_from))?;
        let from = clock.now();
        while state.next() < bounds.end.0 {
            let batch = reader.next(READ_BYTES).await?;
            apply(&shared, &mut state, batch)?;
            // Replay is control work on an arbiter that others may share.
            tokio::task::yield_now().await;
        }
        // Offsets burnt at the end of the log may lie between the last record and a pending cut's end.
        while state.repeat_cut().map_err(Failure::new)?.is_some() {}
        let replayed = bounds.end.0.saturating_sub(ledger.replay_from);
        if replayed > 0 {
            let took = clock.now().saturating_duration_since(from);
            tracing::info!(records = replayed, bytes = state.head_bytes(), ?took, "replayed the log");
        }
        shared.progress.publish(reader.position());
        Ok(Self {
            shared,
            flusher,
            state,
            ledger,
            reader: Some(reader),
            durable: BTreeSet::new(),
            published: VecDeque::new(),
            draining: None,
            last_error: None,
        })
    }

    /// Starts the next read, unless one is on its way or there is no room for what it would bring.
    fn read(&mut self, cx: &mut Cx<Self>) {
        if self.state.closing().len() >= MAX_CLOSING && self.state.is_full() {
            return;
        }
        let Some(mut reader) = self.reader.take() else { return };
        let next = async move {
            let batch = reader.next(READ_BYTES).await;
            (reader, batch)
        };
        cx.spawn(next, |owner, (reader, batch), cx| {
            owner.reader = Some(reader);
            match batch {
                Ok(batch) => owner.on_batch(batch, cx),
                Err(LogError::Closed) => {}
                Err(error) => {
                    tracing::error!(%error, "read the log");
                    owner.last_error = Some(error.to_string());
                    if error.is_retryable() {
                        cx.after(READ_RETRY, Self::read);
                    } else {
                        cx.fail(error);
                    }
                }
            }
        });
    }

    fn on_batch(&mut self, batch: Batch, cx: &mut Cx<Self>) {
        let end = batch.end;
        if let Err(failure) = apply(&self.shared, &mut self.state, batch) {
            return cx.fail(failure);
        }
        self.shared.progress.publish(end);
        self.cut_if_due(cx);
        self.read(cx);
    }

    fn cut_if_due(&mut self, cx: &mut Cx<Self>) {
        let now_ms = unix_ms(cx);
        if self.state.closing().len() < MAX_CLOSING && self.state.cut_due(now_ms) {
            self.cut(now_ms, false, cx);
        }
        self.shared.metrics.live(&self.state);
    }

    fn cut(&mut self, now_ms: i64, everything: bool, cx: &mut Cx<Self>) {
        let Some(cut) = self.state.cut(now_ms, everything) else { return };
        tracing::debug!(first = cut.id.first, end = cut.id.end, bytes = cut.bytes, "cut");
        self.shared.metrics.cut(everything);
        self.ledger.begin(&cut);
        self.close(cut, cx);
    }

    /// The decision goes to disk before the first block is written; only then is the cut flushed.
    fn close(&mut self, cut: Arc<Cut>, cx: &mut Cx<Self>) {
        let saved = self.save();
        cx.spawn(saved, move |owner, saved, cx| match saved {
            Ok(()) => owner.flush(cut, cx),
            Err(status) => {
                owner.problem("write the ledger", &status);
                cx.after(FLUSH_RETRY, move |owner, cx| owner.close(cut, cx));
            }
        });
    }

    fn flush(&mut self, cut: Arc<Cut>, cx: &mut Cx<Self>) {
        let (flusher, shared) = (self.flusher.clone(), Arc::clone(&cut));
        let flushed = async move { flusher.ask(Flush(shared), Deadline::after(FLUSH_DEADLINE)).await };
        cx.spawn(flushed, move |owner, flushed, cx| match flushed {
            Ok(Flushed { blocks }) => owner.on_flushed(cut.id, blocks, cx),
            Err(status) => {
                owner.problem("write a block", &status);
                owner.shared.metrics.flush_failed();
                cx.after(FLUSH_RETRY, move |owner, cx| owner.flush(cut, cx));
            }
        });
    }

    /// The blocks are durable and published: queries find them there, so the slices go.
    fn on_flushed(&mut self, id: CutId, blocks: Vec<(TenantId, Uuid)>, cx: &mut Cx<Self>) {
        let now = cx.clock().now();
        self.published.extend(blocks.into_iter().map(|(tenant, block)| (tenant, block, now)));
        let surplus = self.published.len().saturating_sub(REMEMBERED_BLOCKS);
        self.published.drain(..surplus);
        self.durable.insert(id.number);
        let reclaim = self.ledger.complete(&self.durable);
        let waiting = self.ledger.pending.first().map_or(u64::MAX, |cut| cut.id.number);
        self.durable.retain(|number| *number >= waiting);
        self.state.published(id);
        self.last_error = None;
        let (saved, shared) = (self.save(), Arc::clone(&self.shared));
        cx.spawn(
            async move {
                saved.await?;
                let reclaimed = shared.log.reclaim(shared.partition, Offset(reclaim)).await;
                reclaimed.map_err(|e| tonic::Status::unavailable(e.to_string()))
            },
            |owner, result, _| {
                // Nothing is lost: the next cut says the same again, and a restart finds the blocks.
                if let Err(status) = result {
                    owner.problem("reclaim the log", &status);
                }
                owner.finish_drain();
            },
        );
        self.read(cx);
    }

    fn save(&mut self) -> impl Future<Output = Result<(), tonic::Status>> + use<> {
        self.ledger.quarantined = self.shared.quarantine.entries();
        self.shared.ledger.write(&self.ledger)
    }

    fn problem(&mut self, what: &str, status: &tonic::Status) {
        tracing::warn!(error = status.message(), "{what}");
        self.last_error = Some(format!("{what}: {}", status.message()));
    }

    fn finish_drain(&mut self) {
        if self.state.closing().is_empty()
            && let Some(done) = self.draining.take()
        {
            // Nobody waits any more when the drain's deadline has passed.
            done.send(()).ok();
        }
    }
}

fn unix_ms(cx: &Cx<Owner>) -> i64 {
    i64::try_from(cx.clock().unix().as_millis()).unwrap_or(i64::MAX)
}

/// Files a batch. Makes the cuts of an earlier run again at the offsets where it made them.
fn apply(shared: &Shared, state: &mut Partition, batch: Batch) -> Result<(), Failure> {
    for skipped in &batch.skipped {
        tracing::error!(
            path = %skipped.path.display(),
            position = skipped.position,
            bytes = skipped.bytes,
            reason = skipped.reason,
            "the log is damaged here; what stood there is lost"
        );
        shared.metrics.quarantined(1);
    }
    for entry in batch.records {
        while state.next_repeat().is_some_and(|end| entry.offset.0 >= end) {
            state.skip(entry.offset.0 - 1);
            state.repeat_cut().map_err(Failure::new)?;
        }
        apply_entry(shared, state, entry);
    }
    state.skip(batch.end.0.saturating_sub(1));
    while state.repeat_cut().map_err(Failure::new)?.is_some() {}
    Ok(())
}

fn apply_entry(shared: &Shared, state: &mut Partition, entry: Entry) {
    let offset = entry.offset.0;
    if let Some(reason) = shared.quarantine.reason(offset) {
        tracing::warn!(offset, reason, "record passed over");
        return state.skip(offset);
    }
    let result = shared.quarantine.watch(offset, || {
        if let Some(hook) = &shared.hook {
            hook(offset, &entry.record.value);
        }
        file(shared, state, entry)
    });
    if let Err(reason) = result {
        tracing::error!(offset, reason, "record set aside: it cannot be decoded");
        shared.metrics.quarantined(1);
        shared.quarantine.set_aside(offset, reason);
        state.skip(offset);
    }
}

fn file(shared: &Shared, state: &mut Partition, entry: Entry) -> Result<(), String> {
    let tenant = std::str::from_utf8(&entry.record.tenant).map_err(|e| format!("its key is no tenant id: {e}"))?;
    let tenant = TenantId::parse(tenant).map_err(|e| format!("its key is no tenant id: {e}"))?;
    let push = PushBytes::walk(&entry.record.value).map_err(|error| error.to_string())?;
    let traces: Vec<(TraceId, Bytes)> = push.iter().cloned().collect();
    let limits = TraceLimits {
        max_bytes: shared.limits.max_bytes_per_trace(&tenant),
        max_live: shared.limits.max_live_traces(&tenant),
    };
    let applied: Applied = state.apply(entry.offset.0, entry.record.timestamp_ms, &tenant, traces.into_iter(), limits);
    for (id, discard, spans) in &applied.discarded {
        tracing::debug!(%tenant, %id, spans, reason = discard.reason(), ?limits, "spans discarded");
    }
    shared.metrics.applied(&tenant, &applied);
    Ok(())
}

impl Part for Owner {
    fn started(&mut self, cx: &mut Cx<Self>) {
        // Cuts that an earlier run had decided and not finished come first.
        for cut in self.state.closing().to_vec() {
            self.flush(cut, cx);
        }
        cx.every(self.shared.check_period, Self::cut_if_due);
        self.read(cx);
    }

    fn drain(&mut self, cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        let (done, finished) = oneshot::channel();
        self.draining = Some(done);
        // The distributor has drained before us, so the log does not grow any more; what it has and we have not applied
        // stays in the log for the next start.
        self.cut(unix_ms(cx), true, cx);
        self.finish_drain();
        async move {
            // A dropped sender means that the part failed meanwhile; what it held is in the log.
            finished.await.ok();
        }
        .boxed_local()
    }

    fn observe(&self) -> serde_json::Value {
        serde_json::json!({
            "next_offset": self.state.next(),
            "head_bytes": self.state.head_bytes(),
            "cuts_waiting_for_blocks": self.state.closing().len(),
            "covered_by_blocks": self.ledger.covered,
            "quarantined": self.shared.quarantine.entries(),
            "last_error": self.last_error,
        })
    }
}

impl Serve<Find> for Owner {
    type Reply = Vec<Bytes>;

    fn serve(&mut self, find: Find, _cx: &mut Cx<Self>) -> Reply<Vec<Bytes>> {
        Reply::ok(self.state.find(&find.tenant, &find.id))
    }
}

impl Serve<Collect> for Owner {
    type Reply = Collected;

    fn serve(&mut self, collect: Collect, cx: &mut Cx<Self>) -> Reply<Collected> {
        Reply::ok(Collected { snapshot: self.state.snapshot(&collect.tenant), at: cx.clock().now() })
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

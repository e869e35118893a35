//! Consumer: reads one partition and makes sections of its records.
//!
//! Owns the position, which is the end of the partition's chain of commit objects, and what is known of producers there. Consumes
//! `Collect` and `Advance`, answers a section. Mailbox 2: one conductor asks, one thing at a time. Holds at most one batch beside the
//! section that it has handed over.
//! On restart: the chain of commit objects says where to begin; a record that it died on twice is set aside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Status;
use vivace_log::{Dedup, Entry, Error as LogError, Offset, Partition, Quarantine, Reader};
use vivace_protocol::TenantId;
use vivace_protocol::push_bytes::PushBytes;
use vivace_protocol::trace_walk::for_each_span;
use vivace_protocol::wire::WireError;
use vivace_runtime::{Clock, Cx, Failure, Part, Reply, Serve};
use vivace_storage::{Backend, CommitName};

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::source::{Connection, Source};
use crate::state::{Begin, Rules, Section, Start, StartStep};

/// Bytes taken from the log at once: little against a section. As much again is on its way meanwhile.
const READ_BYTES: usize = 2 << 20;
/// A read that brings nothing for so long ends the section, although the log seemed to have more (offsets may be left out).
const DRY: Duration = Duration::from_secs(10);
const REMOVED: &str = "the log did not have them any more";

/// Called for every record before it is filed; tests plant failures here.
pub type ApplyHook = Arc<dyn Fn(u64, &[u8]) + Send + Sync>;

/// Everything that outlives one generation of a consumer.
pub(crate) struct Shared {
    pub(crate) connection: Arc<Connection>,
    pub(crate) partition: Partition,
    pub(crate) backend: Backend,
    pub(crate) rules: Rules,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) quarantine: Quarantine,
    pub(crate) metrics: Metrics,
    pub(crate) hook: Option<ApplyHook>,
    /// Cancelled when the component ends: nobody waits for brokers then.
    pub(crate) ending: CancellationToken,
}

/// Make a section of what the log has now.
pub(crate) struct Collect;

/// A section, and whose log it is of.
pub(crate) struct Collected {
    pub(crate) section: Section,
    pub(crate) source: Source,
}

/// The section has its blocks: go on at its end.
pub(crate) struct Advance {
    pub(crate) to: u64,
    /// What was seen of producers below that.
    pub(crate) producers: Vec<u8>,
}

/// Where reading is.
struct Cursor {
    reader: Box<dyn Reader>,
    /// Read and not filed: what came after the end of a section.
    waiting: VecDeque<Entry>,
    seen: Dedup,
    /// First offset of the next section.
    first: u64,
    /// Where records can be had; above `first` when some are lost.
    read_from: u64,
}

/// The part.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    source: Source,
    /// Absent while a section is being collected, and after one that nobody confirmed.
    cursor: Option<Cursor>,
    /// A section was handed over and is not confirmed.
    handed_over: Option<u64>,
}

impl Consumer {
    /// Finds the end of the chain.
    pub(crate) async fn build(shared: Arc<Shared>) -> Result<Self, Failure> {
        if let Some(offset) = shared.quarantine.rebuilt() {
            tracing::error!(partition = %shared.partition, offset, "record set aside: its consumer panicked twice on it");
        }
        let source = shared.connection.get().await?;
        let cursor = begin(&shared, &source).await?;
        Ok(Self { shared, source, cursor: Some(cursor), handed_over: None })
    }
}

/// Where the next section begins, by the commit objects.
async fn begin(shared: &Shared, source: &Source) -> Result<Cursor, Failure> {
    let partition = shared.partition;
    let bounds = source.log.bounds(partition).await?;
    let hint = match source.offsets.committed(partition).await {
        Ok(hint) => hint.map(|offset| offset.0),
        Err(error) => {
            // It is only a hint.
            tracing::warn!(%partition, error = Failure::from(error).to_string(), "read the group's offset");
            None
        }
    };
    let name = |first| CommitName { log_id: source.log.id().to_string(), partition: partition.0, first };
    let mut start = Start::new(hint, bounds.earliest.0, bounds.end.0);
    let Begin { first, read_from, producers } = loop {
        match start.step() {
            StartStep::Read(first) => start.on_read(shared.backend.read_commit(&name(first)).await?),
            StartStep::List => {
                let commits = shared.backend.list_commits().await?;
                let own = name(0);
                let same = |other: &CommitName| other.log_id == own.log_id && other.partition == own.partition;
                start.on_list(commits.keys().filter(|other| same(other)).map(|other| other.first).max());
            }
            StartStep::Restore(commit) => {
                for meta in &commit.blocks {
                    shared.backend.restore_meta(meta).await?;
                }
                start.on_restored();
            }
            StartStep::Anchor(first) => start.on_anchored(shared.backend.begin_chain(&name(first)).await?),
            StartStep::Done(begin) => break begin,
            StartStep::Conflict { chain, log } => {
                shared.connection.forget(source.log.id()).await;
                return Err(Failure::new(format!(
                    "partition {partition}: commit objects cover offsets below {chain}, but the partition ends at {log}: the \
                     broker has lost records that were acknowledged, or the bucket is of another topic; once the partition has \
                     grown past {chain} the rest goes on, what was written anew below is not read"
                )));
            }
        }
    };
    let seen = if producers.is_empty() {
        Dedup::starting_at(Offset(first))
    } else {
        Dedup::try_from(producers)
            .map_err(|why| Failure::new(format!("producers in the commit object before {first}: {why}")))?
    };
    shared.quarantine.forget_below(first);
    tracing::info!(%partition, first, hint, earliest = bounds.earliest.0, end = bounds.end.0, "consuming");
    let reader = source.log.reader(partition, Offset(read_from))?;
    Ok(Cursor { reader, waiting: VecDeque::new(), seen, first, read_from })
}

/// Reads until the section ends. The cursor comes back at its end.
async fn collect(
    shared: &Shared,
    source: &Source,
    clock: &dyn Clock,
    mut cursor: Cursor,
) -> Result<(Cursor, Section), LogError> {
    let log_end = source.log.bounds(shared.partition).await?.end.0;
    let mut section = Section::new(cursor.first);
    if cursor.read_from > cursor.first {
        report_lost(shared, &mut section, cursor.first, cursor.read_from, REMOVED);
    }
    loop {
        while let Some(entry) = cursor.waiting.pop_front() {
            if !section.takes(entry.record.charged_bytes(), entry.record.timestamp_ms, shared.rules) {
                section.end = section.end.max(entry.offset.0);
                cursor.waiting.push_front(entry);
                return Ok((settle(cursor, &mut section), section));
            }
            file(shared, &mut section, &mut cursor.seen, entry);
        }
        section.end = section.end.max(cursor.reader.position().0);
        if section.end >= log_end {
            section.up_to_date = true;
            return Ok((settle(cursor, &mut section), section));
        }
        let began = clock.now();
        let read = tokio::select! {
            read = cursor.reader.next(READ_BYTES) => read,
            () = clock.sleep(DRY) => {
                section.up_to_date = section.records == 0;
                return Ok((settle(cursor, &mut section), section));
            }
        };
        let batch = match read {
            Ok(batch) => batch,
            Err(LogError::OutOfRange { requested, earliest, .. }) if earliest > requested => {
                report_lost(shared, &mut section, requested.0, earliest.0, REMOVED);
                cursor.reader = source.log.reader(shared.partition, earliest)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let bytes = batch.records.iter().map(|entry| entry.record.charged_bytes()).sum();
        let took = clock.now().saturating_duration_since(began);
        shared.metrics.fetched(shared.partition.0, took, batch.records.len(), bytes);
        for skipped in &batch.skipped {
            report_lost(shared, &mut section, skipped.first.0, skipped.end.0, skipped.reason);
        }
        cursor.waiting.extend(batch.records);
        // Reading is control work on an arbiter that others may share.
        tokio::task::yield_now().await;
    }
}

/// The section is complete: the cursor is at its end.
fn settle(mut cursor: Cursor, section: &mut Section) -> Cursor {
    section.producers = cursor.seen.to_bytes();
    (cursor.first, cursor.read_from) = (section.end, section.end);
    cursor
}

fn report_lost(shared: &Shared, section: &mut Section, first: u64, end: u64, reason: &str) {
    tracing::error!(partition = %shared.partition, first, end, reason, "records are lost");
    section.lose(first, end, reason);
}

fn file(shared: &Shared, section: &mut Section, seen: &mut Dedup, entry: Entry) {
    let (offset, time_ms) = (entry.offset.0, entry.record.timestamp_ms);
    if !seen.is_first(&entry) {
        return section.pass_copy(offset, time_ms);
    }
    if let Some(reason) = shared.quarantine.reason(offset) {
        tracing::warn!(partition = %shared.partition, offset, reason, "record passed over");
        return section.set_aside(offset, time_ms, reason);
    }
    let filed = shared.quarantine.watch(offset, || {
        if let Some(hook) = &shared.hook {
            hook(offset, &entry.record.value);
        }
        let tenant = std::str::from_utf8(&entry.record.tenant).map_err(|e| format!("its key is no tenant id: {e}"))?;
        let tenant = TenantId::parse(tenant).map_err(|e| format!("its key is no tenant id: {e}"))?;
        let push = PushBytes::walk(&entry.record.value).map_err(|error| error.to_string())?;
        let max_bytes = shared.limits.max_bytes_per_trace(&tenant);
        let admitted = section.admit(offset, time_ms, &tenant, push.iter().cloned(), max_bytes);
        let spans = admitted.too_large.iter().map(count_spans).sum();
        if spans > 0 {
            shared.metrics.too_large(&tenant, spans);
        }
        Ok::<(), String>(())
    });
    if let Err(reason) = filed {
        tracing::error!(partition = %shared.partition, offset, reason, "record set aside: it cannot be decoded");
        section.set_aside(offset, time_ms, reason);
    }
}

/// Spans in an encoded trace; what does not decode counts as none.
fn count_spans(trace: &bytes::Bytes) -> u64 {
    let mut spans = 0;
    for_each_span::<WireError>(trace, |_| {
        spans += 1;
        Ok(())
    })
    .ok();
    spans
}

fn status(error: &LogError) -> Status {
    Status::unavailable(Failure::from(error.clone()).to_string())
}

impl Part for Consumer {
    fn observe(&self) -> serde_json::Value {
        serde_json::json!({
            "log": self.source.log.id().to_string(),
            "next_section": self.cursor.as_ref().map(|cursor| cursor.first),
            "section_not_confirmed": self.handed_over,
            "quarantined": self.shared.quarantine.entries(),
        })
    }
}

impl Serve<Collect> for Consumer {
    type Reply = Collected;

    fn serve(&mut self, _collect: Collect, cx: &mut Cx<Self>) -> Reply<Collected> {
        // A section that was not confirmed may or may not have been committed.
        let cursor = if self.handed_over.take().is_some() { None } else { self.cursor.take() };
        let (shared, source, clock) = (Arc::clone(&self.shared), self.source.clone(), Arc::clone(cx.clock()));
        let ending = shared.ending.clone();
        let collected = async move {
            let cursor = match cursor {
                Some(cursor) => cursor,
                None => begin(&shared, &source).await.map_err(Trouble::Begin)?,
            };
            collect(&shared, &source, &*clock, cursor).await.map_err(Trouble::Log)
        };
        let collected = async move {
            tokio::select! {
                collected = collected => collected,
                () = ending.cancelled() => Err(Trouble::Begin(Failure::new("the block-builder is stopping"))),
            }
        };
        cx.then(collected, |part, collected, cx| match collected {
            Ok((cursor, section)) => {
                part.cursor = Some(cursor);
                part.handed_over = (!section.is_empty()).then_some(section.end);
                Ok(Collected { section, source: part.source.clone() })
            }
            Err(Trouble::Log(error)) => {
                part.shared.metrics.fetch_failed(part.shared.partition.0);
                if !error.is_retryable() {
                    // Begun anew, with a new connection: the topic may be another one now.
                    let (connection, id) = (Arc::clone(&part.shared.connection), part.source.log.id());
                    let cause = Failure::from(error.clone());
                    cx.spawn(async move { connection.forget(id).await }, move |_, (), cx| cx.fail(cause));
                }
                Err(status(&error))
            }
            Err(Trouble::Begin(failure)) => Err(Status::unavailable(failure.to_string())),
        })
    }
}

/// Why there is no section.
enum Trouble {
    /// The end of the chain was not found.
    Begin(Failure),
    /// The log cannot be read.
    Log(LogError),
}

impl Serve<Advance> for Consumer {
    type Reply = ();

    fn serve(&mut self, advance: Advance, _cx: &mut Cx<Self>) -> Reply<()> {
        let Advance { to, producers } = advance;
        self.handed_over = None;
        if self.cursor.as_ref().is_some_and(|cursor| cursor.first == to) {
            return Reply::ok(());
        }
        // Another builder's section counts, and it ends elsewhere.
        let opened = self.source.log.reader(self.shared.partition, Offset(to));
        let seen = Dedup::try_from(producers).unwrap_or_else(|_| Dedup::starting_at(Offset(to)));
        match opened {
            Ok(reader) => {
                self.cursor = Some(Cursor { reader, waiting: VecDeque::new(), seen, first: to, read_from: to });
                Reply::ok(())
            }
            Err(error) => {
                // The next `Collect` looks for the end of the chain.
                self.cursor = None;
                Reply::err(status(&error))
            }
        }
    }
}

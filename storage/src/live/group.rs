//! Live traces in groups that do not change, so that queries share what was found out about them.
//!
//! What is known of a group grows with its use: when its traces are, after the first query; which attributes stand in it, after the
//! first that this could have answered; their names and values, once somebody has listed them; and once its traces have been walked so
//! often that encoding them would have cost as much, its columns, as a block in memory. A group that nobody asks costs nothing, one
//! that is asked again and again no more than twice the least.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;
use vivace_protocol::TraceId;
use vivace_traceql::Scope;

use super::{LiveTrace, digest::Digest, known::Known, trace::Bounds, walk::TraceView};
use crate::read::cells::lossy;
use crate::{BlockSpec, BlockWriter, Decoded, DedicatedColumns, MemoryBlock, OpenBlock, ReadError, WriteError};

/// A span costs so many times more to encode than to walk.
pub(super) const ENCODING_COST: u64 = 8;
/// The bytes of a trace are searched so many times quicker than its spans are walked.
const SEARCHES_FOR_A_WALK: u64 = 4;
/// Smaller groups are walked as quickly as anything is found out about them.
const LEAST_PREPARED_BYTES: u64 = 1 << 20;
/// Names of more attributes are not noted.
const MOST_NAMES: usize = 4096;
/// A group is one row group of its block, whatever its size.
const ROW_GROUP_BYTES: u64 = 512 << 20;

/// Traces of one tenant, each id once.
#[derive(Debug)]
pub struct LiveGroup {
    /// By ascending id.
    traces: Box<[Arc<LiveTrace>]>,
    bytes: u64,
    bounds: OnceLock<Box<[Bounds]>>,
    /// A query could have used its digest.
    asked: AtomicBool,
    /// Bytes that queries have walked.
    walked: AtomicU64,
    /// None where it cannot be made.
    digest: Prepared<Option<Digest>>,
    /// The attributes of its spans, once somebody has listed all of them.
    names: OnceLock<Box<[Name]>>,
    /// Values of the fields whose values somebody has listed.
    known: Known,
    block: Prepared<Arc<OpenBlock>>,
}

/// An attribute of some scope.
type Name = (Scope, Box<str>);

/// What somebody makes once.
#[derive(Debug)]
struct Prepared<T> {
    /// Somebody makes it, has made it, or has found that it cannot be made.
    claimed: AtomicBool,
    made: OnceLock<T>,
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Self { claimed: AtomicBool::new(false), made: OnceLock::new() }
    }
}

impl<T> Prepared<T> {
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }
}

/// Work on a group from which later queries profit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// To note which attributes stand in it.
    Digest,
    /// To encode it.
    Columns,
}

impl LiveGroup {
    /// In any order; of traces with the same id one stays.
    #[must_use]
    pub fn new(mut traces: Vec<Arc<LiveTrace>>) -> Self {
        traces.sort_by_key(|trace| trace.id());
        traces.dedup_by_key(|trace| trace.id());
        let bytes = traces.iter().map(|trace| trace.bytes()).sum();
        Self {
            bytes,
            traces: traces.into(),
            bounds: OnceLock::new(),
            asked: AtomicBool::new(false),
            walked: AtomicU64::new(0),
            digest: Prepared::default(),
            names: OnceLock::new(),
            known: Known::within(bytes),
            block: Prepared::default(),
        }
    }

    /// Number of traces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Bytes of all slices.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The traces by ascending id.
    #[must_use]
    pub fn traces(&self) -> &[Arc<LiveTrace>] {
        &self.traces
    }

    /// Where a trace stands, if it is here.
    #[must_use]
    pub fn position(&self, id: &TraceId) -> Option<u32> {
        let at = self.traces.binary_search_by(|trace| trace.id().cmp(id)).ok()?;
        u32::try_from(at).ok()
    }

    /// When its traces are; computes the first time.
    pub(super) fn bounds(&self) -> &[Bounds] {
        self.bounds.get_or_init(|| {
            let mut view = TraceView::default();
            self.traces.iter().map(|trace| trace.bounds_by(&mut view)).collect()
        })
    }

    pub(super) fn is_measured(&self) -> bool {
        self.bounds.get().is_some()
    }

    /// A query could use its digest.
    pub(super) fn asked(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    pub(super) fn walked(&self, bytes: u64) {
        self.walked.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How often all of it was walked.
    #[cfg(test)]
    pub(super) fn walks(&self) -> u64 {
        self.walked.load(Ordering::Relaxed) / self.bytes
    }

    pub(super) fn searched(&self, bytes: u64) {
        self.walked(bytes / SEARCHES_FOR_A_WALK);
    }

    pub(super) fn block(&self) -> Option<&Arc<OpenBlock>> {
        self.block.made.get()
    }

    pub(super) fn digest(&self) -> Option<&Digest> {
        self.digest.made.get()?.as_ref()
    }

    /// Makes the digest unless it has been made. Who comes while somebody makes it waits for that.
    pub(super) fn make_digest(&self) {
        self.digest.made.get_or_init(|| {
            let digest = Digest::of(self.traces.iter().map(|trace| &**trace), self.bytes);
            digest.inspect_err(|error| self.stays(error)).ok()
        });
    }

    fn stays(&self, error: &dyn std::fmt::Display) {
        tracing::debug!(%error, traces = self.len(), "live traces stay as they arrived");
    }

    /// The attributes in it, of all its traces, if that is known.
    pub(super) fn names(&self) -> Option<&[Name]> {
        self.names.get().map(|names| &**names)
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// Notes the attributes in it. Where they are very many, it stays unknown.
    pub(super) fn note_names<'a>(&self, names: impl ExactSizeIterator<Item = &'a (Scope, &'a [u8])>) {
        if names.len() <= MOST_NAMES {
            self.names.get_or_init(|| names.map(|(scope, name)| (*scope, lossy(name).into())).collect());
        }
    }

    /// Whether its columns are there.
    #[must_use]
    pub fn is_encoded(&self) -> bool {
        self.block().is_some()
    }

    /// Whether it is known which attributes stand in it.
    #[must_use]
    pub fn is_digested(&self) -> bool {
        self.digest().is_some()
    }

    /// What is worth doing now; each work is given out once.
    #[must_use]
    pub fn claim(&self) -> Option<Preparation> {
        if self.bytes < LEAST_PREPARED_BYTES {
            return None;
        }
        let undigested = self.digest.made.get().is_none();
        if undigested && self.asked.load(Ordering::Relaxed) && self.digest.claim() {
            return Some(Preparation::Digest);
        }
        let worn = self.walked.load(Ordering::Relaxed) / ENCODING_COST >= self.bytes;
        (worn && self.block.claim()).then_some(Preparation::Columns)
    }

    /// Takes a claim back: the work could not be begun.
    pub fn release(&self, work: Preparation) {
        let claimed = match work {
            Preparation::Digest => &self.digest.claimed,
            Preparation::Columns => &self.block.claimed,
        };
        claimed.store(false, Ordering::Relaxed);
    }

    /// Does the work, for queries that begin later. What is damaged, or what no row can hold as it is, stays as it is. Computes for a
    /// while; `decoded` keeps what queries take apart.
    pub fn prepare(&self, work: Preparation, decoded: &Decoded) {
        match work {
            // A query that could not wait may have made it meanwhile.
            Preparation::Digest => self.make_digest(),
            // Only whoever has claimed it comes here, so it is not set yet.
            Preparation::Columns => match self.encoded() {
                Ok(Some(block)) => {
                    self.block.made.get_or_init(|| Arc::new(block.keeping(decoded)));
                }
                Ok(None) => {}
                Err(error) => self.stays(&error),
            },
        }
    }

    fn encoded(&self) -> Result<Option<OpenBlock>, EncodeError> {
        let mut spec = BlockSpec::new("live", Uuid::nil(), DedicatedColumns::defaults());
        spec.row_group_bytes = ROW_GROUP_BYTES;
        let mut writer = BlockWriter::new(spec)?;
        for trace in &self.traces {
            let added = writer.add_trace(trace.id().0, trace.parts())?;
            if added.damaged > 0 || !added.leftover.is_empty() {
                return Ok(None);
            }
        }
        let finished = writer.finish()?;
        let mut data = BytesMut::with_capacity(finished.data.iter().map(Bytes::len).sum());
        finished.data.iter().for_each(|piece| data.extend_from_slice(piece));
        let block = OpenBlock::open(finished.meta, Arc::new(MemoryBlock::new(data.freeze(), Vec::new())))?;
        let whole = block.row_groups() == 1 && usize::try_from(block.rows()) == Ok(self.len());
        Ok(whole.then(|| block.without_checksums()))
    }
}

#[derive(Debug, thiserror::Error)]
enum EncodeError {
    #[error("encode live traces: {0}")]
    Write(#[from] WriteError),
    #[error("open the block of live traces: {0}")]
    Read(#[from] ReadError),
}

/// A group as one query sees it.
#[derive(Debug, Clone)]
pub struct LivePart {
    /// The group.
    pub group: Arc<LiveGroup>,
    /// Positions of traces that are elsewhere by now, ascending.
    pub without: Arc<[u32]>,
}

impl LivePart {
    /// All of a group.
    #[must_use]
    pub fn whole(group: Arc<LiveGroup>) -> Self {
        Self { group, without: Arc::default() }
    }

    /// Positions and traces that are seen.
    pub(super) fn seen(&self) -> impl Iterator<Item = (usize, &Arc<LiveTrace>)> {
        let mut without = self.without.iter().map(|at| *at as usize).peekable();
        self.group.traces.iter().enumerate().filter(move |(at, _)| without.next_if_eq(at).is_none())
    }
}

/// The live traces of one tenant at one moment. Each id is seen once.
#[derive(Debug, Clone, Default)]
pub struct LiveView {
    /// In any order.
    pub parts: Vec<LivePart>,
}

impl LiveView {
    /// Every group apart.
    #[must_use]
    pub fn split(self) -> Vec<Self> {
        self.parts.into_iter().map(|part| Self { parts: vec![part] }).collect()
    }

    /// The traces that are seen, in any order.
    pub fn traces(&self) -> impl Iterator<Item = &Arc<LiveTrace>> {
        self.parts.iter().flat_map(|part| part.seen().map(|(_, trace)| trace))
    }
}

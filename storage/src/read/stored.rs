//! Blocks in an object store, for readers on compute threads.
//!
//! ```text
//! reader (compute thread) ── ranges ──▶ chunks not at hand, near ones in one request ──▶ runtime: a few requests at once ──▶ store
//!                        ◀─ waits ──────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Every request costs a round trip, far more than the bytes next to those asked for. So small ranges are read as whole chunks of
//! the object, which are kept in a small cache that all blocks of a store share: footer and offset index come with one request, and
//! the pages of one row of many columns with few. Bloom filters are kept there too. What is read ahead within a column is the
//! reader's decision, and large ranges are read as they are.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    block::OpenBlock,
    error::{Error, Result},
    ranges::{BlockObjects, DATA, LocalBlock, Ranges},
};
use crate::{
    backend::{self, Backend, BlockKey, Place},
    meta::BlockMeta,
};

/// Small ranges are read in pieces of this size, from multiples of it.
const CHUNK: u64 = 256 << 10;
/// Ranges above this are not kept.
const DIRECT: u64 = 1 << 20;
/// Unwanted bytes between two ranges that are read rather than asking twice.
const GAP: u64 = 256 << 10;
/// Ranges are joined up to this length.
const JOINED: u64 = 8 << 20;
/// Requests at once for one call; with [`JOINED`] this bounds the memory of a call beyond what it asked for.
const REQUESTS: usize = 8;
/// Bytes that are fetched before they are wanted, at most.
const AHEAD_BYTES: u64 = 8 << 20;
/// Chunks and bloom filters kept, over all blocks of a store.
const KEPT_BYTES: usize = 24 << 20;

/// Opens blocks of one store: on local disk as files, elsewhere by requests. Clones share what is kept.
#[derive(Clone)]
pub struct BlockOpener {
    backend: Backend,
    runtime: Handle,
    kept: Arc<Kept>,
}

impl BlockOpener {
    /// Requests of remote stores run on `runtime` while the calling thread waits.
    pub fn new(backend: Backend, runtime: Handle) -> Self {
        Self { backend, runtime, kept: Arc::default() }
    }

    /// Reads the block's footer. Blocks; to be called on compute threads.
    ///
    /// # Errors
    /// When the block cannot be read, or is none.
    pub fn open(&self, meta: &BlockMeta) -> Result<OpenBlock> {
        if let Some(root) = self.backend.local_root() {
            let folder = root.join(&meta.tenant_id).join(meta.block_id.to_string());
            return OpenBlock::open(meta.clone(), Arc::new(LocalBlock::open(folder)?));
        }
        let key = BlockKey::new(meta.tenant_id.as_str(), meta.block_id);
        let block = StoredBlock {
            kept: Arc::clone(&self.kept),
            ..StoredBlock::new(self.backend.clone(), key, meta.size, self.runtime.clone())
        };
        OpenBlock::open(meta.clone(), Arc::new(block))
    }
}

/// The objects of one block in a store. Each read runs on the given runtime while the calling thread waits, so it must not be
/// called from a thread that the runtime needs.
#[derive(Clone)]
pub struct StoredBlock {
    backend: Backend,
    key: Arc<BlockKey>,
    size: u64,
    runtime: Handle,
    kept: Arc<Kept>,
}

impl StoredBlock {
    /// `size` is the length of the data object, from the block's metadata. Reads nothing.
    pub fn new(backend: Backend, key: BlockKey, size: u64, runtime: Handle) -> Self {
        Self { backend, key: Arc::new(key), size, runtime, kept: Arc::default() }
    }

    /// Runs `work` on the runtime and waits for it.
    fn wait<T, F>(&self, name: &str, work: impl FnOnce(Backend, Arc<BlockKey>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, backend::Error>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        let future = work(self.backend.clone(), self.key.clone());
        self.runtime.spawn(async move {
            // The reader waits until it is answered; it can be gone only when its thread was ended.
            drop(sender.send(future.await));
        });
        let store = |source| Error::Store { name: name.to_owned(), source };
        match receiver.recv() {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) if error.is_not_found() => Err(Error::Missing(name.to_owned())),
            Ok(Err(error)) => Err(store(Box::new(error))),
            // The runtime was shut down under the read.
            Err(gone) => Err(store(Box::new(gone))),
        }
    }

    /// Ranges of the data object, ascending and apart, a few at once.
    fn fetch(&self, spans: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let asked = spans.to_vec();
        let fetched = self.wait(DATA, |backend, key| async move {
            let place = Place::Block(&key, DATA);
            let backend = &backend;
            let requests = asked.into_iter().map(|span| backend.get_range(place, span));
            futures::stream::iter(requests).buffered(REQUESTS).try_collect::<Vec<Bytes>>().await
        })?;
        // Stores answer with fewer bytes when a range passes the end of the object.
        let whole = |(span, bytes): (&Range<u64>, &Bytes)| u64::try_from(bytes.len()) == Ok(span.end - span.start);
        if spans.iter().zip(&fetched).all(whole) { Ok(fetched) } else { Err(too_short()) }
    }

    fn chunk(&self, number: u64) -> Range<u64> {
        number * CHUNK..((number + 1) * CHUNK).min(self.size)
    }

    /// The chunks that a range lies in; none for what is read as it is.
    fn chunks_of(&self, range: &Range<u64>) -> Range<u64> {
        if range.start >= range.end || range.end - range.start > DIRECT {
            return 0..0;
        }
        range.start / CHUNK..(range.end - 1) / CHUNK + 1
    }
}

impl BlockObjects for StoredBlock {
    fn data(&self) -> Arc<dyn Ranges> {
        Arc::new(self.clone())
    }

    fn object(&self, name: &str) -> Result<Option<Bytes>> {
        let known = (self.key.block, Part::Object(name.to_owned()));
        if let Some(bytes) = self.kept.get(&known) {
            return Ok(Some(bytes));
        }
        let owned = name.to_owned();
        let found = self.wait(name, |backend, key| async move { backend.get(Place::Block(&key, &owned)).await });
        match found {
            Ok(bytes) => {
                self.kept.put(known, bytes.clone());
                Ok(Some(bytes))
            }
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Ranges for StoredBlock {
    fn len(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.read_many(std::slice::from_ref(&range))?.pop().ok_or_else(too_short)
    }

    /// One wait for all of them instead of one for each.
    fn will_need(&self, ranges: &[Range<u64>]) -> Result<()> {
        let mut ahead = Self::keepable(ranges);
        // Whoever reads past the end is told.
        ahead.retain(|range| range.end <= self.size);
        self.read_many(&ahead).map(drop)
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if ranges.iter().any(|range| range.end > self.size) {
            return Err(too_short());
        }
        let block = self.key.block;
        let mut chunks: BTreeMap<u64, Option<Bytes>> = BTreeMap::new();
        for number in ranges.iter().flat_map(|range| self.chunks_of(range)) {
            chunks.entry(number).or_insert_with(|| self.kept.get(&(block, Part::Chunk(number))));
        }
        let missing = chunks.iter().filter(|(_, bytes)| bytes.is_none()).map(|(number, _)| self.chunk(*number));
        let direct = ranges.iter().filter(|range| range.end.saturating_sub(range.start) > DIRECT).cloned();
        let spans = plan(missing.chain(direct).collect());
        let fetched = self.fetch(&spans)?;
        let out_of_spans = |range: &Range<u64>| {
            let at = spans.partition_point(|span| span.end < range.end);
            spans.get(at).zip(fetched.get(at)).and_then(|(span, bytes)| part(bytes, span.start, range))
        };
        for (number, bytes) in chunks.iter_mut().filter(|(_, bytes)| bytes.is_none()) {
            let chunk = out_of_spans(&self.chunk(*number)).ok_or_else(too_short)?;
            // A copy, or a chunk would keep its neighbours in memory.
            self.kept.put((block, Part::Chunk(*number)), Bytes::copy_from_slice(&chunk));
            *bytes = Some(chunk);
        }
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let own = self.chunks_of(range);
            parts.push(match own.end - own.start {
                0 if range.start >= range.end => Bytes::new(),
                0 => out_of_spans(range).ok_or_else(too_short)?,
                1 => {
                    let bytes = chunks.get(&own.start).and_then(Option::as_ref).ok_or_else(too_short)?;
                    part(bytes, self.chunk(own.start).start, range).ok_or_else(too_short)?
                }
                _ => self.joined(range, own, &chunks).ok_or_else(too_short)?,
            });
        }
        Ok(parts)
    }
}

impl StoredBlock {
    /// Those of `ranges` that can be kept until they are wanted, and no more than have room beside each other.
    fn keepable(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut room = AHEAD_BYTES;
        let fits = |range: &&Range<u64>| {
            // Whole chunks are kept.
            let bytes = range.end.saturating_sub(range.start).saturating_add(CHUNK);
            let fits = bytes <= DIRECT && bytes <= room;
            room -= if fits { bytes } else { 0 };
            fits
        };
        ranges.iter().filter(fits).cloned().collect()
    }

    /// A range that lies in several chunks.
    fn joined(&self, range: &Range<u64>, own: Range<u64>, chunks: &BTreeMap<u64, Option<Bytes>>) -> Option<Bytes> {
        let mut joined = Vec::with_capacity(usize::try_from(range.end - range.start).ok()?);
        for number in own {
            let chunk = self.chunk(number);
            let within = range.start.max(chunk.start)..range.end.min(chunk.end);
            joined.extend_from_slice(&part(chunks.get(&number)?.as_ref()?, chunk.start, &within)?);
        }
        Some(joined.into())
    }
}

/// The requests that bring all of `ranges`: ascending, without overlap, near ranges joined.
fn plan(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = ranges;
    sorted.retain(|range| range.start < range.end);
    sorted.sort_by_key(|range| (range.start, range.end));
    let mut spans: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match spans.last_mut() {
            // What overlaps is one span whatever its length, or a range would lie in two.
            Some(last)
                if range.start < last.end
                    || (range.start - last.end <= GAP && range.end.max(last.end) - last.start <= JOINED) =>
            {
                last.end = last.end.max(range.end);
            }
            _ => spans.push(range),
        }
    }
    spans
}

/// The bytes of `range` out of those that begin at `start`.
fn part(bytes: &Bytes, start: u64, range: &Range<u64>) -> Option<Bytes> {
    if range.start >= range.end {
        return Some(Bytes::new());
    }
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

fn too_short() -> Error {
    Error::malformed("file", "it is shorter than its meta says")
}

/// What is kept of a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Chunk(u64),
    Object(String),
}

type Name = (Uuid, Part);

/// Parts of blocks, the least recently used go first.
#[derive(Default)]
struct Kept(Mutex<Parts>);

#[derive(Default)]
struct Parts {
    parts: HashMap<Name, (Bytes, u64)>,
    bytes: usize,
    clock: u64,
}

impl Kept {
    fn get(&self, name: &Name) -> Option<Bytes> {
        let mut kept = self.0.lock();
        kept.clock += 1;
        let now = kept.clock;
        let (bytes, used) = kept.parts.get_mut(name)?;
        *used = now;
        Some(bytes.clone())
    }

    fn put(&self, name: Name, bytes: Bytes) {
        if bytes.len() > KEPT_BYTES / 8 {
            return;
        }
        let mut kept = self.0.lock();
        kept.clock += 1;
        let now = kept.clock;
        kept.bytes += bytes.len();
        if let Some((old, _)) = kept.parts.insert(name, (bytes, now)) {
            kept.bytes -= old.len();
        }
        while kept.bytes > KEPT_BYTES {
            let oldest = kept.parts.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone());
            let Some((gone, _)) = oldest.and_then(|name| kept.parts.remove(&name)) else { break };
            kept.bytes -= gone.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read::{find_trace, rows, tests::fixture};

    fn stored(runtime: &tokio::runtime::Runtime) -> (BlockMeta, StoredBlock) {
        let backend = Backend::local(fixture("vparquet5")).unwrap();
        let folder = fixture("vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41");
        let meta = BlockMeta::from_json(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        let key = BlockKey::new("single-tenant", meta.block_id);
        let block = StoredBlock::new(backend, key, meta.size, runtime.handle().clone());
        (meta, block)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn a_block_in_a_store_reads_like_a_local_one() {
        let runtime = runtime();
        let (meta, stored) = stored(&runtime);
        assert_eq!(stored.object("no such object").unwrap(), None);
        let block = OpenBlock::open(meta, Arc::new(stored)).unwrap();
        let (id, trace) = rows(&block).nth(70).unwrap().unwrap();
        assert_eq!(find_trace(&block, id).unwrap(), Some(trace));
    }

    #[test]
    fn what_lies_together_is_read_once() {
        let runtime = runtime();
        let (meta, stored) = stored(&runtime);
        let footer = u64::from(meta.footer_size) + 8;
        let end = stored.read(meta.size - footer..meta.size).unwrap();
        assert_eq!(u64::try_from(end.len()), Ok(footer));
        let chunks = stored.kept.0.lock().parts.len();
        assert!(chunks >= 1);
        // What stands before the footer came along.
        stored.read(meta.size - footer - 10..meta.size - footer).unwrap();
        assert_eq!(stored.kept.0.lock().parts.len(), chunks);
        assert_eq!(stored.read(0..4).unwrap(), b"PAR1".as_slice());
        assert!(stored.read(meta.size - 1..meta.size + 1).is_err());
        assert_eq!(stored.read(5..5).unwrap(), Bytes::new());
    }

    #[test]
    fn an_announcement_tells_that_the_store_does_not_answer_and_minds_no_wrong_place() {
        let runtime = runtime();
        let (meta, stored) = stored(&runtime);
        stored.will_need(&[0..4, meta.size - 1..meta.size + 1]).unwrap();
        assert_eq!(stored.kept.0.lock().parts.len(), 1);
        let key = BlockKey::new("single-tenant", Uuid::from_u128(1));
        let gone = StoredBlock { key: Arc::new(key), ..stored };
        assert!(matches!(gone.will_need(&[0..4, 1000..1004]), Err(Error::Missing(_))));
    }

    #[test]
    fn parts_are_kept_up_to_a_bound() {
        let kept = Kept::default();
        let name = |n: u64| (Uuid::from_u128(1), Part::Chunk(n));
        for n in 0..30 {
            kept.put(name(n), Bytes::from(vec![0; 1 << 20]));
            assert!(kept.get(&name(0)).is_some(), "the first is used all the time");
        }
        assert!(kept.get(&name(1)).is_none() && kept.get(&name(29)).is_some());
        kept.put(name(99), Bytes::from(vec![0; 4 << 20]));
        assert!(kept.get(&name(99)).is_none(), "too large to be kept");
        assert!(kept.0.lock().bytes <= KEPT_BYTES);
    }

    proptest! {
        #[test]
        fn requests_cover_every_range_once_and_stay_bounded(
            wanted in proptest::collection::vec((0u64..40 << 20, 0u64..1 << 20), 0..40)
        ) {
            let ranges: Vec<Range<u64>> = wanted.iter().map(|(start, len)| *start..start + len).collect();
            let spans = plan(ranges.clone());
            prop_assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for range in ranges.iter().filter(|range| range.start < range.end) {
                let at = spans.partition_point(|span| span.end < range.end);
                prop_assert!(spans[at].start <= range.start && range.end <= spans[at].end);
            }
            let asked: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            let read: u64 = spans.iter().map(|span| span.end - span.start).sum();
            prop_assert!(read <= asked + GAP * ranges.len() as u64);
        }

        #[test]
        fn what_is_fetched_ahead_is_kept_and_has_room(
            wanted in proptest::collection::vec((0u64..40 << 20, 0u64..2 << 20), 0..60)
        ) {
            let ranges: Vec<Range<u64>> = wanted.iter().map(|(start, len)| *start..start + len).collect();
            let ahead = StoredBlock::keepable(&ranges);
            prop_assert!(ahead.iter().all(|range| range.end - range.start <= DIRECT && ranges.contains(range)));
            // Each lies in one chunk more than its length says, at most.
            let kept: u64 = ahead.iter().map(|range| range.end - range.start + CHUNK).sum();
            prop_assert!(kept <= AHEAD_BYTES);
            prop_assert!(ranges.first().is_none_or(|range| range.end - range.start > DIRECT - CHUNK || !ahead.is_empty()));
        }

        #[test]
        fn many_ranges_are_the_bytes_of_the_file(
            wanted in proptest::collection::vec((0u64..1 << 20, prop_oneof![0u64..5000, 0u64..3 << 20]), 1..12)
        ) {
            let runtime = runtime();
            let (meta, stored) = stored(&runtime);
            let ranges: Vec<Range<u64>> = wanted
                .iter()
                .map(|(start, len)| {
                    let start = start % meta.size;
                    start..(start + len).min(meta.size)
                })
                .collect();
            let folder = fixture("vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41");
            let local = LocalBlock::open(folder).unwrap();
            prop_assert_eq!(stored.read_many(&ranges).unwrap(), local.data().read_many(&ranges).unwrap());
        }
    }
}

//! The blocks on the own disk: found again at the start, opened when they are asked, removed when their time is over.
//!
//! The ledger says which of them count. What else lies in the folder is left over from an interrupted run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;
use vivace_runtime::{Compute, Failure};
use vivace_storage::{
    Backend, BackendError, BlockKey, BlockMeta, Decoded, LocalBlock, OpenBlock, ReadError, Timestamp,
};

use crate::state::Shelved;

/// Footers and page indexes of open blocks kept in memory.
const OPEN_BYTES: usize = 16 << 20;

/// One complete block.
#[derive(Debug)]
pub(crate) struct ShelfBlock {
    pub(crate) meta: BlockMeta,
    folder: PathBuf,
}

impl ShelfBlock {
    /// Whether it may hold spans of a time; 0 is open. Its end is inclusive by the second.
    pub(crate) fn overlaps(&self, start_ns: u64, end_ns: u64) -> bool {
        (start_ns == 0 || self.meta.end_time.0.saturating_add(1_000_000_000) >= start_ns)
            && (end_ns == 0 || self.meta.start_time.0 <= end_ns)
    }

    fn open(&self) -> Result<OpenBlock, ReadError> {
        OpenBlock::open(self.meta.clone(), Arc::new(LocalBlock::open(&self.folder)?))
    }
}

/// The blocks that count, by tenant, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Shelf(BTreeMap<String, Vec<Arc<ShelfBlock>>>);

impl Shelf {
    pub(crate) fn add(&mut self, block: Arc<ShelfBlock>) {
        self.0.entry(block.meta.tenant_id.clone()).or_default().push(block);
    }

    pub(crate) fn remove(&mut self, gone: &Shelved) {
        if let Some(blocks) = self.0.get_mut(&gone.tenant) {
            blocks.retain(|block| block.meta.block_id != gone.id);
            if blocks.is_empty() {
                self.0.remove(&gone.tenant);
            }
        }
    }

    /// Those of one tenant.
    pub(crate) fn of(&self, tenant: &str) -> Vec<Arc<ShelfBlock>> {
        self.0.get(tenant).cloned().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// The folder that they lie in.
#[derive(Clone)]
pub(crate) struct BlockFolder {
    backend: Backend,
    root: Arc<Path>,
    compute: Compute,
}

/// What was found of the blocks that should be there.
pub(crate) struct Loaded {
    pub(crate) blocks: Vec<Arc<ShelfBlock>>,
    /// Those that are not there or cannot be read, with the reason.
    pub(crate) missing: Vec<(Shelved, String)>,
}

impl BlockFolder {
    /// Opens the folder; makes it if it is not there.
    pub(crate) fn open(root: &Path, compute: Compute) -> Result<Self, BackendError> {
        Ok(Self { backend: Backend::local(root)?, root: root.into(), compute })
    }

    pub(crate) fn block(&self, meta: BlockMeta) -> Arc<ShelfBlock> {
        let folder = self.root.join(&meta.tenant_id).join(meta.block_id.to_string());
        Arc::new(ShelfBlock { meta, folder })
    }

    /// The blocks that the ledger names. Each is opened once, to see that it is whole.
    pub(crate) async fn load(&self, named: &[Shelved]) -> Result<Loaded, Failure> {
        let mut loaded = Loaded { blocks: Vec::new(), missing: Vec::new() };
        for entry in named {
            let key = BlockKey::new(entry.tenant.as_str(), entry.id);
            let meta = match self.backend.read_meta(&key).await {
                Ok(meta) => meta,
                Err(error @ (BackendError::NotFound(_) | BackendError::Meta { .. })) => {
                    loaded.missing.push((entry.clone(), error.to_string()));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let block = self.block(meta);
            let opened = Arc::clone(&block);
            match self.compute.run(0, move || opened.open().map(drop)).await? {
                Ok(()) => loaded.blocks.push(block),
                Err(error @ ReadError::Io { .. }) => return Err(error.into()),
                Err(error) => loaded.missing.push((entry.clone(), error.to_string())),
            }
        }
        Ok(loaded)
    }

    /// Removes what is in the folder and not among `kept`. Nobody may be writing there.
    pub(crate) async fn sweep(&self, kept: &[Shelved]) -> Result<usize, BackendError> {
        let kept: BTreeSet<(&str, Uuid)> = kept.iter().map(|block| (block.tenant.as_str(), block.id)).collect();
        let mut swept = 0;
        for tenant in self.backend.list_tenants().await? {
            swept += self.backend.sweep(&tenant, Timestamp(u64::MAX), |_| false).await?;
            let listing = self.backend.list_blocks(&tenant).await?;
            let marked = listing.compacted.iter().map(|(block, _)| *block);
            for block in listing.live.iter().copied().chain(marked) {
                if !kept.contains(&(tenant.as_str(), block)) {
                    self.backend.delete_block(&BlockKey::new(tenant.as_str(), block)).await?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }

    /// Removes one block.
    pub(crate) async fn delete(&self, block: &Shelved) -> Result<(), BackendError> {
        self.backend.delete_block(&BlockKey::new(block.tenant.as_str(), block.id)).await
    }
}

/// Open blocks: the least recently used go first.
pub(crate) struct OpenBlocks {
    opened: Mutex<Opened>,
    /// Of what queries take apart.
    decoded: Decoded,
}

#[derive(Default)]
struct Opened {
    blocks: HashMap<Uuid, (Arc<OpenBlock>, u64)>,
    bytes: usize,
    clock: u64,
}

impl OpenBlocks {
    pub(crate) fn new(decoded: Decoded) -> Self {
        Self { opened: Mutex::default(), decoded }
    }

    /// The block, open. Blocks on the disk; runs on compute threads.
    pub(crate) fn get(&self, block: &ShelfBlock) -> Result<Arc<OpenBlock>, ReadError> {
        let id = block.meta.block_id;
        if let Some(open) = self.opened.lock().touch(id) {
            return Ok(open);
        }
        // Opened outside of the lock: two may open the same block, which costs a read and nothing else.
        let open = Arc::new(block.open()?.keeping(&self.decoded));
        self.opened.lock().put(id, Arc::clone(&open));
        Ok(open)
    }

    /// The block is being deleted.
    pub(crate) fn forget(&self, id: Uuid) {
        let mut opened = self.opened.lock();
        if let Some((block, _)) = opened.blocks.remove(&id) {
            opened.bytes -= block.memory();
        }
    }
}

impl Opened {
    fn touch(&mut self, id: Uuid) -> Option<Arc<OpenBlock>> {
        self.clock += 1;
        let (block, used) = self.blocks.get_mut(&id)?;
        *used = self.clock;
        Some(Arc::clone(block))
    }

    fn put(&mut self, id: Uuid, block: Arc<OpenBlock>) {
        self.clock += 1;
        self.bytes += block.memory();
        if let Some((old, _)) = self.blocks.insert(id, (block, self.clock)) {
            self.bytes -= old.memory();
        }
        while self.bytes > OPEN_BYTES && self.blocks.len() > 1 {
            let oldest = self.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            let Some((gone, _)) = oldest.and_then(|id| self.blocks.remove(&id)) else { break };
            self.bytes -= gone.memory();
        }
    }
}

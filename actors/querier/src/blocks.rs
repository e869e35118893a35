//! Open blocks: footers and page indexes are read once and kept, the least recently used go first.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;
use vivace_storage::{BlockMeta, BlockOpener, Decoded, OpenBlock, ReadError};

/// Opens blocks of one object store. Calls block and run on compute threads.
pub trait OpenBlocks: Send + Sync {
    /// Reads the block's footer.
    ///
    /// # Errors
    /// When the block cannot be read, or is none.
    fn open(&self, meta: &BlockMeta) -> Result<OpenBlock, ReadError>;
}

impl OpenBlocks for BlockOpener {
    fn open(&self, meta: &BlockMeta) -> Result<OpenBlock, ReadError> {
        Self::open(self, meta)
    }
}

#[derive(Default)]
struct Cache {
    blocks: HashMap<Uuid, (Arc<OpenBlock>, u64)>,
    bytes: usize,
    clock: u64,
}

/// Keeps what was opened, up to a number of bytes.
pub(crate) struct Blocks {
    opener: Arc<dyn OpenBlocks>,
    max_bytes: usize,
    decoded: Decoded,
    cache: Mutex<Cache>,
}

impl Blocks {
    pub(crate) fn new(opener: Arc<dyn OpenBlocks>, max_bytes: usize, decoded: Decoded) -> Self {
        Self { opener, max_bytes, decoded, cache: Mutex::default() }
    }

    /// The block, and whether it was at hand; otherwise it is opened now.
    pub(crate) fn get(&self, meta: &BlockMeta) -> Result<(Arc<OpenBlock>, bool), ReadError> {
        {
            let mut cache = self.cache.lock();
            cache.clock += 1;
            let now = cache.clock;
            if let Some((block, used)) = cache.blocks.get_mut(&meta.block_id) {
                *used = now;
                return Ok((Arc::clone(block), true));
            }
        }
        // Opened outside of the lock: two may open the same block, which costs a read and nothing else.
        let block = Arc::new(self.opener.open(meta)?.keeping(&self.decoded));
        let mut cache = self.cache.lock();
        cache.clock += 1;
        let now = cache.clock;
        cache.bytes += block.memory();
        if let Some((old, _)) = cache.blocks.insert(meta.block_id, (Arc::clone(&block), now)) {
            cache.bytes -= old.memory();
        }
        while cache.bytes > self.max_bytes && cache.blocks.len() > 1 {
            let oldest = cache.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            let Some((gone, _)) = oldest.and_then(|id| cache.blocks.remove(&id)) else { break };
            cache.bytes -= gone.memory();
        }
        Ok((block, false))
    }

    /// Closes blocks that are no longer listed: their decoded parts would take the room of those that are read. Whoever reads one
    /// meanwhile goes on with it.
    pub(crate) fn retain(&self, listed: impl Fn(&Uuid) -> bool) {
        let mut gone = Vec::new();
        let mut cache = self.cache.lock();
        cache.blocks.retain(|id, (block, _)| {
            let stays = listed(id);
            if !stays {
                gone.push(Arc::clone(block));
            }
            stays
        });
        cache.bytes -= gone.iter().map(|block| block.memory()).sum::<usize>();
        // Dropped without holding the lock.
        drop(cache);
    }
}

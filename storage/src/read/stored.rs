//! Blocks in an object store, for readers on compute threads.

use std::{
    ops::Range,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    error::{Error, Result},
    ranges::{BlockObjects, DATA, Ranges},
};
use crate::backend::{self, Backend, BlockKey, Place};

/// The objects of one block in a store. Each read runs on the given runtime while the calling thread waits, so it must not be
/// called from a thread that the runtime needs.
#[derive(Clone)]
pub struct StoredBlock {
    backend: Backend,
    key: Arc<BlockKey>,
    size: u64,
    runtime: Handle,
}

impl StoredBlock {
    /// `size` is the length of the data object, from the block's metadata. Reads nothing.
    pub fn new(backend: Backend, key: BlockKey, size: u64, runtime: Handle) -> Self {
        Self { backend, key: Arc::new(key), size, runtime }
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
}

impl BlockObjects for StoredBlock {
    fn data(&self) -> Arc<dyn Ranges> {
        Arc::new(self.clone())
    }

    fn object(&self, name: &str) -> Result<Option<Bytes>> {
        let owned = name.to_owned();
        let found = self.wait(name, |backend, key| async move { backend.get(Place::Block(&key, &owned)).await });
        match found {
            Ok(bytes) => Ok(Some(bytes)),
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
        let wanted = range.end.saturating_sub(range.start);
        let bytes =
            self.wait(DATA, |backend, key| async move { backend.get_range(Place::Block(&key, DATA), range).await })?;
        check(&bytes, wanted)?;
        Ok(bytes)
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let owned = ranges.to_vec();
        let all =
            self.wait(DATA, |backend, key| async move { backend.get_ranges(Place::Block(&key, DATA), &owned).await })?;
        for (bytes, range) in all.iter().zip(ranges) {
            check(bytes, range.end.saturating_sub(range.start))?;
        }
        Ok(all)
    }
}

/// Stores answer with fewer bytes when a range passes the end of the object.
fn check(bytes: &Bytes, wanted: u64) -> Result<()> {
    if u64::try_from(bytes.len()) == Ok(wanted) {
        Ok(())
    } else {
        Err(Error::malformed("file", "it is shorter than its meta says"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        meta::BlockMeta,
        read::{OpenBlock, find_trace, rows, tests::fixture},
    };

    #[test]
    fn a_block_in_a_store_reads_like_a_local_one() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let backend = Backend::local(fixture("vparquet5")).unwrap();
        let folder = fixture("vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41");
        let meta = BlockMeta::from_json(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        let key = BlockKey::new("single-tenant", meta.block_id);
        let stored = StoredBlock::new(backend, key, meta.size, runtime.handle().clone());
        assert_eq!(stored.object("no such object").unwrap(), None);
        let block = OpenBlock::open(meta, Arc::new(stored)).unwrap();
        let (id, trace) = rows(&block).nth(70).unwrap().unwrap();
        assert_eq!(find_trace(&block, id).unwrap(), Some(trace));
    }
}

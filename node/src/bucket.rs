//! Where blocks are kept, as `storage.trace` says.

use std::sync::Arc;

use tokio::runtime::Handle;
use vivace_querier::OpenBlocks;
use vivace_runtime::Failure;
use vivace_storage::{Backend, BlockOpener, StoreEnvironment};

use crate::config::Config;

/// The bucket of a process. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) backend: Backend,
    /// How its blocks are opened for reading.
    pub(crate) blocks: BlockOpener,
}

impl Bucket {
    /// Opens it and looks whether it is there. Its requests run on the calling runtime.
    ///
    /// # Errors
    /// The backend is none of ours, or cannot be used; names the key and what to do.
    pub(crate) async fn open(config: &Config, environment: &StoreEnvironment) -> Result<Self, Failure> {
        let backend = Backend::open(&config.storage.trace, environment)?;
        backend.check().await?;
        let blocks = BlockOpener::new(backend.clone(), Handle::current());
        Ok(Self { backend, blocks })
    }

    /// How blocks of this bucket are opened for reading.
    pub(crate) fn opener(&self) -> Arc<dyn OpenBlocks> {
        Arc::new(self.blocks.clone())
    }
}

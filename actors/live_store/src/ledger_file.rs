//! The ledger on disk: one small file a partition, replaced as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;
use vivace_log::Checkpoint;
use vivace_runtime::{Compute, Disk, Failure};

use crate::state::Ledger;

/// Reads and writes the ledger on the compute pool. Writes are applied in the order in which they were asked for: a write
/// that was overtaken by a later one does nothing.
#[derive(Clone)]
pub(crate) struct LedgerFile {
    checkpoint: Checkpoint,
    path: Arc<Path>,
    compute: Compute,
    /// Number of the last write asked for, and of the last one done.
    order: Arc<Mutex<Order>>,
}

#[derive(Default)]
struct Order {
    asked: u64,
    done: u64,
}

impl LedgerFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, compute: Compute) -> Self {
        let checkpoint = Checkpoint::new(disk, path.clone());
        Self { checkpoint, path: path.into(), compute, order: Arc::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The ledger, or a new one if there never was one.
    pub(crate) async fn read(&self) -> Result<Ledger, Failure> {
        let checkpoint = self.checkpoint.clone();
        let content = self.compute.run(0, move || checkpoint.read()).await??;
        let Some(content) = content else { return Ok(Ledger::default()) };
        serde_json::from_slice(&content)
            .map_err(|error| Failure::new(format!("{} is no ledger of this version: {error}", self.path.display())))
    }

    /// Makes this ledger the durable one.
    pub(crate) fn write(&self, ledger: &Ledger) -> impl Future<Output = Result<(), Status>> + use<> {
        let number = {
            let mut order = self.order.lock();
            order.asked += 1;
            order.asked
        };
        let content = serde_json::to_vec(ledger);
        let (checkpoint, order, compute) = (self.checkpoint.clone(), Arc::clone(&self.order), self.compute.clone());
        async move {
            let content = content.map_err(|error| Status::internal(format!("encode the ledger: {error}")))?;
            let write = move || {
                // Held over the write: two writes of one file must not mix.
                let mut order = order.lock();
                if order.done > number {
                    return Ok(());
                }
                checkpoint.write(&content)?;
                order.done = number;
                Ok::<(), vivace_log::Error>(())
            };
            compute.run(0, write).await?.map_err(|error| Status::unavailable(error.to_string()))
        }
    }
}

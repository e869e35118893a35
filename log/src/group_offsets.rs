//! The offsets that a consumer group has committed: what it would start from again, and what lag tools show.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::error::Error;
use crate::record::{Offset, Partition};

/// The committed offsets of one consumer group over one topic. A committed offset is the *next* one to read, as in Kafka.
///
/// It is a hint for where to start and a figure for lag tools, never the truth about what was done with the records: that stands in
/// the consumer's own ledger (blocks, commit objects), which survives a group that expired or was reset.
pub trait GroupOffsets: Send + Sync {
    /// What the group has committed; `None` when it never did or the broker has forgotten it.
    ///
    /// # Errors
    /// Retryable ones when the broker cannot be asked now.
    fn committed(&self, partition: Partition) -> BoxFuture<'static, Result<Option<Offset>, Error>>;

    /// Commits `next`, the offset after the last one done. The last commit counts, also when it is lower.
    ///
    /// # Errors
    /// Retryable ones when the broker cannot be asked now; the commit may have happened.
    fn commit(&self, partition: Partition, next: Offset) -> BoxFuture<'static, Result<(), Error>>;
}

/// Offsets in memory, for tests and for forms of the log without groups.
#[derive(Debug, Default)]
pub struct MemoryGroupOffsets {
    committed: Mutex<BTreeMap<Partition, Offset>>,
}

impl MemoryGroupOffsets {
    /// A group that has committed nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl GroupOffsets for MemoryGroupOffsets {
    fn committed(&self, partition: Partition) -> BoxFuture<'static, Result<Option<Offset>, Error>> {
        Box::pin(std::future::ready(Ok(self.committed.lock().get(&partition).copied())))
    }

    fn commit(&self, partition: Partition, next: Offset) -> BoxFuture<'static, Result<(), Error>> {
        self.committed.lock().insert(partition, next);
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_commit_of_a_partition_counts() {
        let offsets = MemoryGroupOffsets::new();
        assert_eq!(offsets.committed(Partition(1)).await.unwrap(), None);
        offsets.commit(Partition(1), Offset(7)).await.unwrap();
        offsets.commit(Partition(1), Offset(5)).await.unwrap();
        assert_eq!(offsets.committed(Partition(1)).await.unwrap(), Some(Offset(5)));
        assert_eq!(offsets.committed(Partition(0)).await.unwrap(), None);
    }
}

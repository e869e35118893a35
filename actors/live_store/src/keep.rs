//! Where a live-store's log is and where its blocks go: the difference between one process with every component and a live-store
//! of its own process.

use std::sync::Arc;

use futures::future::BoxFuture;
use vivace_log::{Error as LogError, GroupOffsets, Log, Progress};
use vivace_protocol::vivace::{BlockPublished, BlockPublishedReply};
use vivace_runtime::Endpoint;
use vivace_storage::Backend;

/// One of the two.
pub enum Keep {
    /// The log is beside it and waits for its blocks; they go to the bucket.
    Bucket(Bucket),
    /// The log is shared; blocks stay on the own disk for a while, because others fill the bucket.
    Local(Local),
}

/// The log of this process, and the bucket.
pub struct Bucket {
    /// The log to follow.
    pub log: Arc<dyn Log>,
    /// Where it says how far the log has been applied: what an acknowledgement waits for.
    pub progress: Progress,
    /// Where blocks go.
    pub backend: Backend,
    /// Who is told of new blocks.
    pub publish: Endpoint<BlockPublished, BlockPublishedReply>,
}

/// A log that others write, and the own disk.
pub struct Local {
    /// The consumer group that the progress is committed for. See [`Identity`](crate::Identity).
    pub group: String,
    /// How the log is reached.
    pub connect: Connect,
    /// Whether nobody writes to the partition any more, as far as the ring says. Asked when the log answers for the first time.
    pub inactive: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Reaches the log. Called again after a pause until it succeeds, and when the log was replaced by another.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Source, LogError>> + Send + Sync>;

/// A log that was reached.
#[derive(Clone)]
pub struct Source {
    /// The log to follow.
    pub log: Arc<dyn Log>,
    /// Where the group's progress is committed.
    pub offsets: Arc<dyn GroupOffsets>,
}

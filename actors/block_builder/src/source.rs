//! The log to read and the group's offsets: connected when first needed, and again after the topic was replaced.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use vivace_log::{Error, GroupOffsets, Log, LogId};

/// What is read, and where progress is said.
#[derive(Clone)]
pub struct Source {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The offsets of the group, key `ingest.kafka.consumer_group`: a hint for the start, and what lag tools show.
    pub offsets: Arc<dyn GroupOffsets>,
}

/// Connects. Called again, with pauses, until it succeeds, so that the process starts while brokers are away.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Source, Error>> + Send + Sync>;

/// One connection that all consumers share.
pub(crate) struct Connection {
    connect: Connect,
    current: Mutex<Option<Source>>,
}

impl Connection {
    pub(crate) fn new(connect: Connect) -> Self {
        Self { connect, current: Mutex::new(None) }
    }

    /// The source; connects if there is none.
    pub(crate) async fn get(&self) -> Result<Source, Error> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(source) => Ok(source.clone()),
            None => Ok(current.insert((self.connect)().await?).clone()),
        }
    }

    /// Forgets the source of this log: the next who asks connects anew.
    pub(crate) async fn forget(&self, id: LogId) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|source| source.log.id() == id) {
            *current = None;
        }
    }
}

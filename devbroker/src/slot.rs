//! The place of a partition: most partitions of a development topic never get a record, so folder, file and thread come with the
//! first one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{Mutex, watch};

use vivace_log::Error as LogError;

use crate::batch::Head;
use crate::replica::{Ground, Read, Refusal, Replica, Shown, remove_folder};

/// One partition of a topic.
pub(crate) struct Slot {
    pub(crate) number: i32,
    dir: PathBuf,
    ground: Ground,
    state: Mutex<State>,
    /// The offset after the last durable record, for those who wait for more.
    news: Arc<watch::Sender<u64>>,
    /// What DeleteRecords was last told. Kept with the topic.
    start: AtomicU64,
}

enum State {
    Empty,
    Open(Arc<Replica>),
    Deleted,
}

impl Slot {
    pub(crate) fn new(number: i32, dir: PathBuf, start: u64, ground: Ground) -> Self {
        let news = Arc::new(watch::Sender::new(0));
        Self { number, dir, ground, state: Mutex::new(State::Empty), news, start: AtomicU64::new(start) }
    }

    /// Opens the partition if it has been written to before.
    pub(crate) async fn open_existing(&self) -> Result<(), LogError> {
        let (disk, dir) = (Arc::clone(&self.ground.disk), self.dir.clone());
        let exists =
            self.ground.compute.run(0, move || disk.exists(&dir)).await.map_err(|_stopped| LogError::Closed)?;
        let exists = exists.map_err(|source| LogError::Io {
            action: "look for folder",
            path: self.dir.clone(),
            source: Arc::new(source),
        })?;
        if exists {
            self.opened().await?;
        }
        Ok(())
    }

    async fn opened(&self) -> Result<Arc<Replica>, LogError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(replica) => Ok(Arc::clone(replica)),
            State::Deleted => Err(LogError::Closed),
            State::Empty => {
                let start = self.start.load(Ordering::Acquire);
                let replica = Replica::open(&self.ground, self.dir.clone(), start, Arc::clone(&self.news)).await?;
                let replica = Arc::new(replica);
                *state = State::Open(Arc::clone(&replica));
                Ok(replica)
            }
        }
    }

    async fn current(&self) -> Result<Option<Arc<Replica>>, Refusal> {
        match &*self.state.lock().await {
            State::Open(replica) => Ok(Some(Arc::clone(replica))),
            State::Empty => Ok(None),
            State::Deleted => Err(Refusal::Gone),
        }
    }

    /// See [`Replica::append`].
    pub(crate) async fn append(&self, head: Head, batch: Bytes) -> Result<u64, Refusal> {
        self.opened().await?.append(head, batch).await
    }

    /// See [`Replica::shown`].
    pub(crate) async fn shown(&self) -> Result<Shown, Refusal> {
        match self.current().await? {
            Some(replica) => Ok(replica.shown().await),
            None => Ok(Shown::default()),
        }
    }

    /// See [`Replica::read`].
    pub(crate) async fn read(&self, from: i64, max_bytes: usize) -> Result<Read, Refusal> {
        match self.current().await? {
            Some(replica) => replica.read(from, max_bytes).await,
            None if from == 0 => Ok(Read::default()),
            None => Err(Refusal::OutOfRange { requested: from, shown: Shown::default() }),
        }
    }

    /// See [`Replica::find`].
    pub(crate) async fn find(&self, at_ms: i64) -> Result<Option<(i64, u64)>, Refusal> {
        match self.current().await? {
            Some(replica) => replica.find(at_ms).await,
            None => Ok(None),
        }
    }

    /// See [`Replica::delete_below`].
    pub(crate) async fn delete_below(&self, below: i64) -> Result<u64, Refusal> {
        let start = match self.current().await? {
            Some(replica) => replica.delete_below(below).await?,
            None if matches!(below, -1 | 0) => 0,
            None => return Err(Refusal::OutOfRange { requested: below, shown: Shown::default() }),
        };
        self.start.fetch_max(start, Ordering::AcqRel);
        Ok(start)
    }

    /// See [`Replica::expire`].
    pub(crate) async fn expire(&self, keep_ms: Option<u64>, keep_bytes: Option<u64>) -> Result<(), Refusal> {
        match self.current().await? {
            Some(replica) => replica.expire(keep_ms, keep_bytes).await,
            None => Ok(()),
        }
    }

    /// What is to be kept with the topic.
    pub(crate) fn kept_start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// Changes whenever there is more to read.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Finishes what is queued.
    pub(crate) async fn close(&self) {
        if let State::Open(replica) = &*self.state.lock().await {
            replica.close().await;
        }
    }

    /// Ends the partition for good and removes its files.
    pub(crate) async fn delete(&self) {
        let state = std::mem::replace(&mut *self.state.lock().await, State::Deleted);
        // Those who wait for news find out that there is no partition.
        self.news.send_modify(|_| {});
        let State::Open(replica) = state else { return };
        replica.close().await;
        let (disk, dir) = (Arc::clone(&self.ground.disk), self.dir.clone());
        let removed = self.ground.compute.run(0, move || remove_folder(&*disk, &dir)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(error = &error as &dyn std::error::Error, dir = %self.dir.display(), "remove deleted partition");
        }
    }
}

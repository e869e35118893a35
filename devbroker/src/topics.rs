//! The topics: names, ids, partitions and settings, in memory and in one file that is replaced as a whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use vivace_log::{Checkpoint, Error as LogError};

use crate::code::{self, Code};
use crate::replica::{Ground, remove_folder};
use crate::slot::Slot;
use crate::topic_settings::TopicSettings;

/// Partitions of all topics together.
const MAX_PARTITIONS: usize = 20_000;
/// Producer ids are given out of blocks, so that not each of them costs a write.
const PRODUCER_ID_BLOCK: i64 = 1000;
const LONGEST_NAME: usize = 249;

/// A topic as it is now. Growing it makes another value that shares the partitions.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) settings: TopicSettings,
    pub(crate) slots: Vec<Arc<Slot>>,
}

impl Topic {
    pub(crate) fn slot(&self, partition: i32) -> Option<&Arc<Slot>> {
        self.slots.get(usize::try_from(partition).ok()?)
    }
}

/// Why a topic was not made, changed or removed: the code and what to say.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct TopicError {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl TopicError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn unknown(name: &str) -> Self {
        Self::new(code::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic `{name}`"))
    }

    fn storage(error: &LogError) -> Self {
        Self::new(code::KAFKA_STORAGE_ERROR, format!("the topics could not be written: {error}"))
    }
}

/// All topics of a broker.
pub(crate) struct Topics {
    dir: PathBuf,
    ground: Ground,
    file: Checkpoint,
    by_name: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// Held over every change and its write, so that the file has the changes in their order.
    changes: Mutex<Ids>,
    pub(crate) cluster_id: String,
}

struct Ids {
    next_producer_id: i64,
    /// Up to here they may be given without a write.
    reserved: i64,
}

/// The file. A field that a later version adds has a default.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    cluster_id: String,
    next_producer_id: i64,
    topics: Vec<SavedTopic>,
}

#[derive(Serialize, Deserialize)]
struct SavedTopic {
    name: String,
    id: Uuid,
    partitions: i32,
    #[serde(default)]
    settings: TopicSettings,
    /// By partition: what DeleteRecords was told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    starts: BTreeMap<i32, u64>,
}

const VERSION: u32 = 1;

impl Topics {
    /// Reads the file or begins one, and opens every partition that has been written to.
    pub(crate) async fn open(dir: PathBuf, ground: Ground) -> Result<Self, LogError> {
        let file = Checkpoint::new(Arc::clone(&ground.disk), dir.join("topics"));
        let saved = {
            let (file, disk, dir) = (file.clone(), Arc::clone(&ground.disk), dir.clone());
            let read = move || {
                let made = disk.create_dir_all(&dir.join("partitions")).and_then(|()| disk.sync_dir(&dir));
                made.map_err(|error| io_error("create folder", &dir, error))?;
                file.read()
            };
            ground.compute.run(0, read).await.map_err(|_stopped| LogError::Closed)??
        };
        let unreadable = |reason| LogError::Unreadable { path: dir.join("topics"), reason };
        let saved = match saved {
            Some(bytes) => {
                let saved: Saved =
                    serde_json::from_slice(&bytes).map_err(|_json| unreadable("it does not hold topics"))?;
                if saved.version != VERSION {
                    return Err(unreadable("its version is unknown"));
                }
                saved
            }
            None => Saved {
                version: VERSION,
                cluster_id: random_id(&ground).simple().to_string(),
                next_producer_id: 1000,
                topics: Vec::new(),
            },
        };
        let ids = Ids { next_producer_id: saved.next_producer_id, reserved: saved.next_producer_id };
        let topics = Self {
            dir,
            ground,
            file,
            by_name: RwLock::default(),
            changes: Mutex::new(ids),
            cluster_id: saved.cluster_id,
        };
        for saved in saved.topics {
            let start = |number| saved.starts.get(&number).copied().unwrap_or(0);
            let slots: Vec<_> =
                (0..saved.partitions).map(|number| topics.slot(saved.id, number, start(number))).collect();
            for slot in &slots {
                slot.open_existing().await?;
            }
            let topic = Topic { name: saved.name.clone(), id: saved.id, settings: saved.settings, slots };
            topics.by_name.write().insert(saved.name, Arc::new(topic));
        }
        topics.remove_orphans().await;
        // Written at once, so that the cluster keeps its id.
        topics.save(&*topics.changes.lock().await).await?;
        Ok(topics)
    }

    fn slot(&self, id: Uuid, number: i32, start: u64) -> Arc<Slot> {
        let dir = self.dir.join("partitions").join(format!("{}-{number}", id.simple()));
        Arc::new(Slot::new(number, dir, start, self.ground.clone()))
    }

    /// Removes the folders of topics whose removal was cut short.
    async fn remove_orphans(&self) {
        let ids: Vec<_> = self.by_name.read().values().map(|topic| topic.id.simple().to_string()).collect();
        let (disk, dir) = (Arc::clone(&self.ground.disk), self.dir.join("partitions"));
        let remove = move || {
            for entry in disk.list(&dir)? {
                let known = entry.name.split_once('-').is_none_or(|(id, _)| ids.iter().any(|known| known == id));
                if entry.is_dir && !known {
                    remove_folder(&*disk, &entry.path)?;
                }
            }
            Ok::<_, std::io::Error>(())
        };
        if let Ok(Err(error)) = self.ground.compute.run(0, remove).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "remove what deleted topics left");
        }
    }

    async fn save(&self, ids: &Ids) -> Result<(), LogError> {
        let topics = self.by_name.read().values().map(|topic| saved_topic(topic)).collect();
        let saved =
            Saved { version: VERSION, cluster_id: self.cluster_id.clone(), next_producer_id: ids.reserved, topics };
        let bytes = serde_json::to_vec(&saved).expect("names and numbers always have a JSON form");
        let file = self.file.clone();
        let write = move || file.write(&bytes);
        self.ground.compute.run(0, write).await.map_err(|_stopped| LogError::Closed)?
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.read().get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.by_name.read().values().find(|topic| topic.id == id).cloned()
    }

    pub(crate) fn list(&self) -> Vec<Arc<Topic>> {
        self.by_name.read().values().cloned().collect()
    }

    /// Makes a topic, durably. With `only_check` it only says whether that would work; there is no topic then.
    pub(crate) async fn create(
        &self,
        name: &str,
        partitions: i32,
        settings: TopicSettings,
        only_check: bool,
    ) -> Result<Option<Arc<Topic>>, TopicError> {
        check_name(name)?;
        if partitions < 1 {
            return Err(TopicError::new(code::INVALID_PARTITIONS, "a topic has at least one partition"));
        }
        let ids = self.changes.lock().await;
        if self.by_name.read().contains_key(name) {
            return Err(TopicError::new(code::TOPIC_ALREADY_EXISTS, format!("topic `{name}` exists already")));
        }
        self.room_for(partitions)?;
        if only_check {
            return Ok(None);
        }
        let id = random_id(&self.ground);
        let slots = (0..partitions).map(|number| self.slot(id, number, 0)).collect();
        let topic = Arc::new(Topic { name: name.to_owned(), id, settings, slots });
        self.by_name.write().insert(name.to_owned(), Arc::clone(&topic));
        if let Err(error) = self.save(&ids).await {
            self.by_name.write().remove(name);
            return Err(TopicError::storage(&error));
        }
        tracing::info!(topic = name, partitions, %id, "create topic");
        Ok(Some(topic))
    }

    fn room_for(&self, more: i32) -> Result<(), TopicError> {
        let present: usize = self.by_name.read().values().map(|topic| topic.slots.len()).sum();
        match usize::try_from(more) {
            Ok(more) if more <= MAX_PARTITIONS.saturating_sub(present) => Ok(()),
            _ => {
                let message =
                    format!("a development broker has at most {MAX_PARTITIONS} partitions, {present} are there");
                Err(TopicError::new(code::INVALID_PARTITIONS, message))
            }
        }
    }

    /// Gives a topic more partitions.
    pub(crate) async fn grow(&self, name: &str, partitions: i32, only_check: bool) -> Result<(), TopicError> {
        let ids = self.changes.lock().await;
        let old = self.get(name).ok_or_else(|| TopicError::unknown(name))?;
        let present = i32::try_from(old.slots.len()).unwrap_or(i32::MAX);
        if partitions <= present {
            let message = format!("topic `{name}` has {present} partitions, which can only become more");
            return Err(TopicError::new(code::INVALID_PARTITIONS, message));
        }
        self.room_for(partitions - present)?;
        if only_check {
            return Ok(());
        }
        let more = (present..partitions).map(|number| self.slot(old.id, number, 0));
        let slots = old.slots.iter().cloned().chain(more).collect();
        let topic = Topic { name: old.name.clone(), id: old.id, settings: old.settings.clone(), slots };
        self.by_name.write().insert(name.to_owned(), Arc::new(topic));
        if let Err(error) = self.save(&ids).await {
            self.by_name.write().insert(name.to_owned(), old);
            return Err(TopicError::storage(&error));
        }
        Ok(())
    }

    /// Removes a topic, durably, and then its files.
    pub(crate) async fn delete(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        let ids = self.changes.lock().await;
        let topic = self.by_name.write().remove(name).ok_or_else(|| TopicError::unknown(name))?;
        if let Err(error) = self.save(&ids).await {
            self.by_name.write().insert(name.to_owned(), topic);
            return Err(TopicError::storage(&error));
        }
        drop(ids);
        for slot in &topic.slots {
            slot.delete().await;
        }
        tracing::info!(topic = name, id = %topic.id, "delete topic");
        Ok(topic)
    }

    /// Writes down what DeleteRecords has changed.
    pub(crate) async fn keep_starts(&self) -> Result<(), LogError> {
        let ids = self.changes.lock().await;
        self.save(&ids).await
    }

    /// An id that no producer of this broker has had.
    pub(crate) async fn producer_id(&self) -> Result<i64, LogError> {
        let mut ids = self.changes.lock().await;
        if ids.next_producer_id >= ids.reserved {
            ids.reserved = ids.next_producer_id + PRODUCER_ID_BLOCK;
            if let Err(error) = self.save(&ids).await {
                ids.reserved = ids.next_producer_id;
                return Err(error);
            }
        }
        ids.next_producer_id += 1;
        Ok(ids.next_producer_id - 1)
    }

    /// Ends all partitions in order.
    pub(crate) async fn close(&self) {
        for topic in self.list() {
            for slot in &topic.slots {
                slot.close().await;
            }
        }
    }
}

fn saved_topic(topic: &Topic) -> SavedTopic {
    let starts = topic.slots.iter().map(|slot| (slot.number, slot.kept_start())).filter(|&(_, start)| start > 0);
    SavedTopic {
        name: topic.name.clone(),
        id: topic.id,
        partitions: i32::try_from(topic.slots.len()).unwrap_or(i32::MAX),
        settings: topic.settings.clone(),
        starts: starts.collect(),
    }
}

/// The protocol's rule for names.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > LONGEST_NAME || matches!(name, "." | "..") || !name.bytes().all(legal) {
        let message = format!("a topic's name has 1 to {LONGEST_NAME} letters, digits, `.`, `_`, `-`");
        return Err(TopicError::new(code::INVALID_TOPIC, message));
    }
    Ok(())
}

fn random_id(ground: &Ground) -> Uuid {
    let mut bytes = [0; 16];
    ground.rng.lock().fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn io_error(action: &'static str, path: &std::path::Path, source: std::io::Error) -> LogError {
    LogError::Io { action, path: path.to_owned(), source: Arc::new(source) }
}

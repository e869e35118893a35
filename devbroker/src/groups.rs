//! The groups of a broker: membership in memory, committed offsets in one file for each group.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use vivace_log::{Checkpoint, Error as LogError};
use vivace_runtime::{Compute, Disk, Rng};

use crate::code::{self, Code};
use crate::group::Group;
use crate::replica::Ground;

/// How many groups there may be.
const MAX_GROUPS: usize = 1000;
/// The longest name: in a file's name it takes twice as much.
const LONGEST_ID: usize = 100;
/// Partitions that one group may have offsets for.
const MAX_OFFSETS: usize = 50_000;
const VERSION: u32 = 1;

/// All groups.
pub(crate) struct Groups {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    compute: Compute,
    rng: Arc<Mutex<Rng>>,
    cells: Mutex<HashMap<String, Arc<GroupCell>>>,
}

/// One group with its offsets.
pub(crate) struct GroupCell {
    pub(crate) id: String,
    pub(crate) group: Mutex<Group>,
    /// Changes whenever somebody who waits should look again.
    pub(crate) changed: watch::Sender<u64>,
    offsets: Mutex<Offsets>,
    /// Held over a change of the offsets and its write.
    saving: tokio::sync::Mutex<()>,
    file: Checkpoint,
    compute: Compute,
}

/// By topic and partition.
pub(crate) type Offsets = BTreeMap<String, BTreeMap<i32, Committed>>;

/// How far a group has come in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    id: String,
    offsets: Offsets,
}

impl Groups {
    /// Reads what the groups have committed.
    pub(crate) async fn open(dir: PathBuf, ground: &Ground) -> Result<Self, LogError> {
        let (disk, compute, rng) = (Arc::clone(&ground.disk), ground.compute.clone(), Arc::clone(&ground.rng));
        let groups = Self { dir: dir.clone(), disk: Arc::clone(&disk), compute, rng, cells: Mutex::default() };
        let read = move || {
            let failed = |action, source| LogError::Io { action, path: dir.clone(), source: Arc::new(source) };
            disk.create_dir_all(&dir).map_err(|error| failed("create folder", error))?;
            if let Some(above) = dir.parent() {
                disk.sync_dir(above).map_err(|error| failed("sync folder", error))?;
            }
            let mut found = Vec::new();
            for entry in disk.list(&dir).map_err(|error| failed("list folder", error))? {
                if entry.is_dir || entry.name.ends_with(".tmp") {
                    continue;
                }
                let unreadable = |reason| LogError::Unreadable { path: entry.path.clone(), reason };
                let Some(bytes) = Checkpoint::new(Arc::clone(&disk), &entry.path).read()? else { continue };
                let saved: Saved =
                    serde_json::from_slice(&bytes).map_err(|_json| unreadable("it does not hold a group"))?;
                if saved.version != VERSION {
                    return Err(unreadable("its version is unknown"));
                }
                found.push(saved);
            }
            Ok(found)
        };
        for saved in groups.compute.run(0, read).await.map_err(|_stopped| LogError::Closed)?? {
            let cell = groups.new_cell(&saved.id, saved.offsets);
            groups.cells.lock().insert(saved.id, cell);
        }
        Ok(groups)
    }

    fn new_cell(&self, id: &str, offsets: Offsets) -> Arc<GroupCell> {
        let name: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
        Arc::new(GroupCell {
            id: id.to_owned(),
            group: Mutex::default(),
            changed: watch::Sender::new(0),
            offsets: Mutex::new(offsets),
            saving: tokio::sync::Mutex::default(),
            file: Checkpoint::new(Arc::clone(&self.disk), self.dir.join(name)),
            compute: self.compute.clone(),
        })
    }

    /// A name for a new member that nobody else has.
    pub(crate) fn new_member_id(&self, client_id: &str) -> String {
        let mut rng = self.rng.lock();
        format!("{client_id}-{:016x}{:016x}", rng.next(), rng.next())
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<GroupCell>> {
        self.cells.lock().get(id).cloned()
    }

    /// The group, made now if it is missing.
    pub(crate) fn get_or_new(&self, id: &str) -> Result<Arc<GroupCell>, Code> {
        if id.is_empty() || id.len() > LONGEST_ID {
            return Err(code::INVALID_GROUP_ID);
        }
        let mut cells = self.cells.lock();
        if let Some(cell) = cells.get(id) {
            return Ok(Arc::clone(cell));
        }
        if cells.len() >= MAX_GROUPS {
            return Err(code::INVALID_GROUP_ID);
        }
        let cell = self.new_cell(id, Offsets::new());
        cells.insert(id.to_owned(), Arc::clone(&cell));
        Ok(cell)
    }

    /// In order of ids.
    pub(crate) fn list(&self) -> Vec<Arc<GroupCell>> {
        let mut cells: Vec<_> = self.cells.lock().values().cloned().collect();
        cells.sort_by(|a, b| a.id.cmp(&b.id));
        cells
    }

    /// Lets time pass for every group, and forgets groups that nobody is in and that hold nothing.
    pub(crate) fn tick(&self, now: std::time::Instant) {
        for cell in self.list() {
            if cell.group.lock().tick(now) {
                cell.wake();
            }
        }
        // One is the map's: whoever holds another is about to use it.
        let forgotten = |cell: &Arc<GroupCell>| {
            Arc::strong_count(cell) == 1 && cell.group.lock().is_deserted() && cell.offsets.lock().is_empty()
        };
        self.cells.lock().retain(|_, cell| !forgotten(cell));
    }

    /// Removes a group that nobody is in.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Code> {
        let cell = self.get(id).ok_or(code::GROUP_ID_NOT_FOUND)?;
        let _saving = cell.saving.lock().await;
        if cell.group.lock().has_members() {
            return Err(code::NON_EMPTY_GROUP);
        }
        cell.save(Offsets::new()).await?;
        self.cells.lock().remove(id);
        Ok(())
    }

    /// Forgets what was committed for a topic that is gone.
    pub(crate) async fn forget_topic(&self, topic: &str) {
        for cell in self.list() {
            let _saving = cell.saving.lock().await;
            let mut offsets = cell.offsets.lock().clone();
            if offsets.remove(topic).is_some()
                && let Err(code) = cell.save(offsets).await
            {
                tracing::warn!(group = cell.id, topic, code, "forget offsets of a deleted topic");
            }
        }
    }
}

impl GroupCell {
    /// Makes those who wait look again.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|turn| *turn = turn.wrapping_add(1));
    }

    pub(crate) fn offsets(&self) -> Offsets {
        self.offsets.lock().clone()
    }

    /// Takes over offsets, durably.
    pub(crate) async fn commit(&self, more: Vec<(String, i32, Committed)>) -> Result<(), Code> {
        let _saving = self.saving.lock().await;
        let mut offsets = self.offsets();
        for (topic, partition, committed) in more {
            offsets.entry(topic).or_default().insert(partition, committed);
        }
        if offsets.values().map(BTreeMap::len).sum::<usize>() > MAX_OFFSETS {
            return Err(code::INVALID_REQUEST);
        }
        self.save(offsets).await
    }

    /// Replaces the offsets, first on disk. The caller holds `saving`.
    async fn save(&self, offsets: Offsets) -> Result<(), Code> {
        let saved = Saved { version: VERSION, id: self.id.clone(), offsets };
        let bytes = serde_json::to_vec(&saved).expect("texts and numbers always have a JSON form");
        let file = self.file.clone();
        let written = self.compute.run(bytes.len(), move || file.write(&bytes)).await;
        match written {
            Ok(Ok(())) => {
                *self.offsets.lock() = saved.offsets;
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::error!(group = self.id, error = &error as &dyn std::error::Error, "write committed offsets");
                Err(code::KAFKA_STORAGE_ERROR)
            }
            Err(_stopped) => Err(code::NOT_LEADER_OR_FOLLOWER),
        }
    }
}

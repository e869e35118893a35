//! The two endpoints by which a live-store is told that it will go: what each method does and answers.
//!
//! `prepare-partition-downscale` makes the own partition inactive and back. `prepare-downscale` says that this live-store
//! will not come back: it leaves a marker on disk, so that a restart in between does not create the partition again.
//!
//! Two deviations from Tempo, both on purpose: a refused POST leaves no marker behind, and DELETE puts the configured
//! `remove_owner_on_shutdown` back in force instead of switching the removal off.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use vivace_runtime::Disk;
use vivace_runtime::telemetry::rfc3339;

use super::change::ChangeError;
use crate::state::{Partition, PartitionState};

/// The methods of both endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Report.
    Get,
    /// Prepare.
    Post,
    /// Take the preparation back.
    Delete,
}

/// An answer: status and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; JSON if it begins with `{`.
    pub body: String,
}

impl Answer {
    /// An answer to be sent as it is.
    #[must_use]
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into() }
    }

    /// The live-store does not run yet, or not any more.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(503, "the live-store is not running\n")
    }
}

/// What `prepare-partition-downscale` changes first: the state that the own partition has to take.
///
/// # Errors
/// An answer that ends the request: nothing may change.
pub fn partition_target(method: Method, own: u32, now: Option<&Partition>) -> Result<Option<PartitionState>, Answer> {
    let Some(partition) = now else {
        return Err(Answer::new(500, format!("partition {own} is not in the ring\n")));
    };
    match (method, partition.state.value) {
        (Method::Post, PartitionState::Pending) => {
            Err(Answer::new(409, format!("partition {own} is Pending; wait until it is Active\n")))
        }
        (Method::Post, PartitionState::Active) => Ok(Some(PartitionState::Inactive)),
        (Method::Delete, PartitionState::Inactive) => Ok(Some(PartitionState::Active)),
        (Method::Get | Method::Post | Method::Delete, _) => Ok(None),
    }
}

/// What `prepare-partition-downscale` answers about the own partition after the change.
#[must_use]
pub fn partition_report(partition: &Partition) -> Answer {
    #[derive(Serialize)]
    struct Report {
        timestamp: i64,
        state: &'static str,
    }
    let state = &partition.state;
    let timestamp = if state.value == PartitionState::Inactive { state.changed_at } else { 0 };
    let body = serde_json::to_string(&Report { timestamp, state: state.value.enum_name() });
    Answer::new(200, body.unwrap_or_default())
}

/// What a refused change answers.
#[must_use]
pub fn refused(error: &ChangeError) -> Answer {
    let status = match error {
        ChangeError::Locked { .. } | ChangeError::Transition { .. } => 409,
        ChangeError::Absent(_) | ChangeError::Write { .. } => 500,
    };
    Answer::new(status, format!("{error}\n"))
}

/// The marker that says that this live-store will go, and what it decides.
#[derive(Clone)]
pub struct Marker {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    configured_removal: bool,
    set: bool,
}

impl std::fmt::Debug for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Marker").field("folder", &self.folder).field("set", &self.set).finish_non_exhaustive()
    }
}

/// The marker file's name.
const FILE: &str = "shutdown-requested.txt";

impl Marker {
    /// Looks for the marker in `live_store.shutdown_marker_dir`. The folder is made when a marker is written.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, remove_owner_on_shutdown: bool) -> io::Result<Self> {
        let set = disk.exists(&folder.join(FILE))?;
        Ok(Self { disk, folder: folder.to_owned(), configured_removal: remove_owner_on_shutdown, set })
    }

    /// Whether the live-store was told to go.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set
    }

    /// Whether the live-store gives up its partition when it stops.
    #[must_use]
    pub fn removes_owner(&self) -> bool {
        self.set || self.configured_removal
    }

    /// `prepare-downscale`. The disk is written and synced when this returns.
    pub fn answer(&mut self, method: Method, own: u32, partition: Option<&Partition>, unix_now: Duration) -> Answer {
        let done = match method {
            Method::Get => return Answer::new(200, if self.set { "set\n" } else { "unset\n" }),
            Method::Post => match partition.map(|partition| partition.state.value) {
                Some(PartitionState::Inactive) => self.write(unix_now),
                state => {
                    let now = state.map_or("not in the ring", PartitionState::title);
                    let text = format!("partition {own} is {now}; make it Inactive first\n");
                    return Answer::new(409, text);
                }
            },
            Method::Delete => self.clear(),
        };
        match done {
            Ok(()) => Answer::new(204, ""),
            Err(error) => Answer::new(500, format!("the marker in {}: {error}\n", self.folder.display())),
        }
    }

    /// Removes the marker: what it announced has happened, or was taken back.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn clear(&mut self) -> io::Result<()> {
        match self.disk.remove(&self.folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) => self.disk.sync_dir(&self.folder)?,
        }
        self.set = false;
        Ok(())
    }

    fn write(&mut self, unix_now: Duration) -> io::Result<()> {
        self.disk.create_dir_all(&self.folder)?;
        if let Some(above) = self.folder.parent() {
            match self.disk.sync_dir(above) {
                // Another's folder: that ours is in it was made durable when it was created.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                Err(_) | Ok(()) => {}
            }
        }
        self.disk.replace(&self.folder.join(FILE), rfc3339(unix_now).as_bytes())?;
        self.set = true;
        Ok(())
    }
}

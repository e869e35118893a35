//! Files of a local store that were being written when their process ended, and folders that became empty.
//!
//! The local store writes to `<name>#<number>` and renames at the end. Its listings hide such files, so they are looked
//! for on the disk itself.

use std::{fs, io, path::Path, sync::Arc, time::SystemTime};

use uuid::Uuid;

use super::Error;
use crate::meta::Timestamp;

/// Removes staged files in the root, in `tenant`'s folder and in its blocks' folders whose last change is before `before`.
pub(super) async fn remove_older(root: &Arc<Path>, tenant: &str, before: Timestamp) -> Result<(), Error> {
    let folder = root.join(tenant);
    let path = folder.display().to_string();
    let root = root.clone();
    let work = tokio::task::spawn_blocking(move || {
        remove_in(&root, before, 0)?;
        remove_in(&folder, before, 1)
    });
    let done = work.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
    done.map_err(|source| Error::Folder { action: "clean up", path, source })
}

fn remove_in(folder: &Path, before: Timestamp, depth: usize) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            remove_in(&entry.path(), before, depth - 1)?;
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_staged) {
            let modified = entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if Timestamp::from_system(modified) < before {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Removes a block's folder if nothing is left in it. A folder that stays is harmless, so nothing is reported.
pub(super) async fn remove_empty(root: &Arc<Path>, tenant: &str, block: Uuid) {
    let folder = root.join(tenant).join(block.to_string());
    if let Err(stopped) = tokio::task::spawn_blocking(move || fs::remove_dir(folder)).await {
        tracing::debug!(error = %stopped, "remove empty block folder");
    }
}

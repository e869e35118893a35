//! The generations of a process's ring records, kept on disk: a restart begins above its former life even where nobody is there
//! to tell it, and whatever the clock says.
//!
//! One small JSON file for each record, replaced as a whole before the generation is used. Where there is no folder, or it is
//! lost, damaged or not writable, a process goes above whatever it meets of its id instead; a folder that fails is told in
//! the log. Cheap to clone, each clone is the same.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use vivace_runtime::{Compute, Disk};

use crate::state::{COUNTER_MAX, Key, stable_hash};

/// Names of files begin so, then comes the hash of the record's key.
const PREFIX: &str = "generation-";
/// Largest file that is read: a key and a number are far smaller.
const FILE_BYTES_MAX: u64 = 4096;
/// Files that are read. A folder has one for each ring of the process, and one more for each id that it had before.
const FILES_MAX: usize = 1024;

/// What is kept in one folder.
#[derive(Clone)]
pub struct Generations(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    compute: Compute,
    known: Mutex<BTreeMap<String, u64>>,
    /// One at a time: a slow writer must not undo what a later one wrote.
    writing: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    record: String,
    generation: u64,
}

impl Generations {
    /// Reads what is kept in `folder`, which is made when something is to be kept. Writing runs on `compute`.
    #[must_use]
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, compute: Compute) -> Self {
        let known = read_all(&*disk, folder).unwrap_or_else(|error| {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "generations of ring records are lost: going above what others know");
            BTreeMap::new()
        });
        Self(Arc::new(Inner {
            disk,
            folder: folder.to_owned(),
            compute,
            known: Mutex::new(known),
            writing: Mutex::new(()),
        }))
    }

    /// The generation up to which a record was used; 0 if nothing is known of it.
    #[must_use]
    pub fn of(&self, record: &Key) -> u64 {
        self.0.known.lock().get(&record.to_string()).copied().unwrap_or(0)
    }

    /// Whether one of these is above what is kept.
    #[must_use]
    pub fn lacks(&self, used: &[(Key, u64)]) -> bool {
        used.iter().any(|(record, generation)| self.of(record) < *generation)
    }

    /// Writes down that these generations are used from now on; they are durable when the future ends. If that fails, the log
    /// says so, and they are known until the process ends.
    pub fn keep(&self, used: Vec<(Key, u64)>) -> impl Future<Output = ()> + use<> {
        let this = self.clone();
        async move {
            let (writer, known) = (this.clone(), used.clone());
            let written = this.0.compute.run(0, move || writer.write(&used)).await;
            this.raise(&known);
            let folder = this.0.folder.display();
            if let Err(error) = written.map_err(io::Error::other).flatten() {
                tracing::warn!(
                    %folder, %error,
                    "the generation of a ring record is not kept on disk: after a restart it goes above what others know"
                );
            }
        }
    }

    fn raise(&self, used: &[(Key, u64)]) {
        let mut known = self.0.known.lock();
        for (record, generation) in used {
            let kept = known.entry(record.to_string()).or_default();
            *kept = (*kept).max(*generation);
        }
    }

    fn write(&self, used: &[(Key, u64)]) -> io::Result<()> {
        let _one_at_a_time = self.0.writing.lock();
        let above = used.iter().filter(|(record, generation)| self.of(record) < *generation);
        let kept: Vec<_> =
            above.map(|(record, generation)| Kept { record: record.to_string(), generation: *generation }).collect();
        let written: Vec<_> = kept.iter().map(|kept| self.write_one(kept)).collect();
        self.raise(used);
        written.into_iter().collect()
    }

    fn write_one(&self, kept: &Kept) -> io::Result<()> {
        let Inner { disk, folder, .. } = &*self.0;
        let levels = if disk.exists(folder)? { 1 } else { usize::MAX };
        disk.create_dir_all(folder)?;
        for above in folder.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).take(levels) {
            match disk.sync_dir(above) {
                // Another's folder: what is in it was made durable when it was created.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                Err(_) | Ok(()) => {}
            }
        }
        disk.replace(&folder.join(file_name(&kept.record)), &serde_json::to_vec(kept)?)
    }
}

impl std::fmt::Debug for Generations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generations")
            .field("folder", &self.0.folder)
            .field("known", &self.0.known)
            .finish_non_exhaustive()
    }
}

fn file_name(record: &str) -> String {
    format!("{PREFIX}{:016x}.json", stable_hash(&[record.as_bytes()]))
}

fn read_all(disk: &dyn Disk, folder: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut known = BTreeMap::new();
    let entries = match disk.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
        entries => entries?,
    };
    let ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(".json");
    for entry in entries.iter().filter(|entry| !entry.is_dir && ours(&entry.name)).take(FILES_MAX) {
        match read_one(disk, entry.len, &entry.path) {
            Ok(Kept { record, generation }) => {
                known.insert(record, generation);
            }
            Err(error) => {
                let file = entry.path.display();
                tracing::warn!(%file, %error, "the generation of a ring record is lost: going above what others know");
            }
        }
    }
    Ok(known)
}

fn read_one(disk: &dyn Disk, length: u64, path: &Path) -> io::Result<Kept> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if length > FILE_BYTES_MAX {
        return Err(bad("the file is too large"));
    }
    let kept: Kept = serde_json::from_slice(&disk.read(path)?)?;
    // One can still go above what is believed, by far.
    if kept.generation > COUNTER_MAX / 2 { Err(bad("nobody comes back so often")) } else { Ok(kept) }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use vivace_runtime::{Fault, Operation, SimDisk};

    use super::*;

    const FOLDER: &str = "/data/rings";

    fn open(disk: &SimDisk) -> Generations {
        Generations::open(Arc::new(disk.clone()), Path::new(FOLDER), Compute::inline())
    }

    fn keep(generations: &Generations, used: &[(Key, u64)]) {
        generations.keep(used.to_vec()).now_or_never().expect("it runs at once");
    }

    fn records() -> [Key; 2] {
        [Key::instance("collectors/live-store", "live-store-0"), Key::instance("collectors/distributor", "ä\n\"0")]
    }

    #[test]
    fn what_is_kept_survives_a_loss_of_power_at_any_moment() {
        let [a, b] = records();
        let writes = {
            let disk = SimDisk::new(0);
            keep(&open(&disk), &[(a.clone(), 7), (b.clone(), 3)]);
            disk.operations()
        };
        for seed in 0..8 {
            for moment in 0..=writes {
                let disk = SimDisk::new(seed);
                keep(&open(&disk), &[(a.clone(), 7), (b.clone(), 3)]);
                disk.crash();
                assert_eq!((open(&disk).of(&a), open(&disk).of(&b)), (7, 3), "it was told to be durable");
                disk.crash_at(moment);
                keep(&open(&disk), &[(a.clone(), 8)]);
                disk.crash();
                let again = open(&disk);
                assert!(matches!(again.of(&a), 7 | 8) && again.of(&b) == 3, "{again:?} at {moment}");
            }
        }
    }

    #[test]
    fn a_lower_generation_is_never_written_over_a_higher_one() {
        let (disk, [a, b]) = (SimDisk::new(1), records());
        let generations = open(&disk);
        assert!(generations.lacks(&[(a.clone(), 1)]) && !generations.lacks(&[(a.clone(), 0)]));
        keep(&generations, &[(a.clone(), 7)]);
        keep(&generations, &[(a.clone(), 5), (b.clone(), 1)]);
        assert!(!generations.lacks(&[(a.clone(), 7), (b.clone(), 1)]));
        assert_eq!((open(&disk).of(&a), open(&disk).of(&b)), (7, 1));
    }

    #[test]
    fn without_a_disk_that_works_the_process_goes_on_with_what_it_knows() {
        let (disk, [a, b]) = (SimDisk::new(2), records());
        let generations = open(&disk);
        disk.inject(Fault { on: Operation::CreateDir, after: 0, error: io::ErrorKind::PermissionDenied });
        keep(&generations, &[(a.clone(), 4)]);
        assert!(!generations.lacks(&[(a.clone(), 4)]), "it does not wait for a disk for ever");
        assert_eq!(open(&disk).of(&a), 0);
        // Damage costs what is damaged.
        keep(&generations, &[(a.clone(), 5), (b.clone(), 6)]);
        disk.corrupt(&Path::new(FOLDER).join(file_name(&a.to_string())), 0);
        assert_eq!((open(&disk).of(&a), open(&disk).of(&b)), (0, 6));
        keep(&generations, &[(a.clone(), COUNTER_MAX)]);
        assert_eq!(open(&disk).of(&a), 0, "what nobody reaches by counting is not believed");
    }
}

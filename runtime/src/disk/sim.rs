//! A disk in memory that forgets on demand what a real one may forget.
//!
//! Every file and folder is kept twice: as programs see it, and as the platter has it, with the changes between the two in
//! order. A crash keeps each unsynced name change or not, each unsynced 512-byte sector or not, by the seed: more hostile
//! than any file system in use, so what survives here survives there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, Entry, File, parent};
use crate::rng::Rng;

const SECTOR: usize = 512;

/// A seeded disk in memory. Clones are the same disk.
///
/// The folder `/` exists; relative paths start there.
///
/// ```
/// use std::path::Path;
/// use vivace_runtime::{Disk, SimDisk};
///
/// let disk = SimDisk::new(7);
/// let file = disk.create(Path::new("/log")).unwrap();
/// file.append(&[b"kept"]).unwrap();
/// file.sync_data().unwrap();
/// disk.sync_dir(Path::new("/")).unwrap();
/// disk.crash();
/// assert_eq!(disk.read(Path::new("/log")).unwrap(), b"kept");
/// ```
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

/// Kinds of calls, for [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Disk::create`].
    Create,
    /// [`File::append`] and [`File::write_at`].
    Write,
    /// [`File::read_at`].
    Read,
    /// [`File::sync_data`].
    SyncData,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`] and [`Disk::remove_dir`].
    Remove,
    /// [`File::truncate`].
    Truncate,
    /// [`Disk::create_dir_all`].
    CreateDir,
}

/// An error to come: the `after`-th call (0 = the next) of one kind fails with `error`, once.
///
/// A `SyncData` that fails loses the file's unsynced changes for good, although programs go on reading them: what Linux does.
/// A `Write` that fails leaves a random part of the bytes behind.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which calls are counted.
    pub on: Operation,
    /// How many of them succeed before.
    pub after: u64,
    /// What the failing call returns, for instance `StorageFull` or `Other` (an EIO).
    pub error: io::ErrorKind,
}

struct Platter {
    rng: Rng,
    /// Grows with each crash: handles of an older life are dead.
    life: u64,
    /// Calls so far that change something.
    changes: u64,
    crash_at: Option<u64>,
    down: bool,
    faults: Vec<Fault>,
    capacity: Option<u64>,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    folders: BTreeMap<PathBuf, Folder>,
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Default, Clone)]
struct Folder {
    seen: BTreeMap<String, Name>,
    durable: BTreeMap<String, Name>,
    pending: Vec<Renaming>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    File(u64),
    Folder,
}

/// One atomic change of names within a folder.
#[derive(Clone)]
struct Renaming(Vec<(String, Option<Name>)>);

impl SimDisk {
    /// An empty disk whose crashes are decided by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            rng: Rng::seeded(seed),
            life: 0,
            changes: 0,
            crash_at: None,
            down: false,
            faults: Vec::new(),
            capacity: None,
            next_inode: 0,
            inodes: BTreeMap::new(),
            folders: BTreeMap::from([(PathBuf::from("/"), Folder::default())]),
        })))
    }

    /// Power loss and return: what was not synced is kept, torn or dropped by the seed; open handles are dead.
    pub fn crash(&self) {
        self.0.lock().crash();
    }

    /// Power fails in the `n`-th changing call from now (0 = the next): that call does a part of its work, and from then on
    /// every call fails until [`SimDisk::crash`] decides what is left.
    pub fn crash_at(&self, n: u64) {
        let mut platter = self.0.lock();
        platter.crash_at = Some(platter.changes + n);
    }

    /// Whether the power is off because of [`SimDisk::crash_at`].
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.0.lock().down
    }

    /// How many changing calls there were: the range to try [`SimDisk::crash_at`] over.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().changes
    }

    /// Plans an error.
    pub fn inject(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// Limits the bytes in all files; a write above it fails with `StorageFull`. `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Flips one bit, as bad media do. Nothing happens when the file or the byte is missing.
    pub fn corrupt(&self, path: &Path, offset: u64) {
        let mut platter = self.0.lock();
        let Ok(Name::File(id)) = platter.find(path) else { return };
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(inode) = platter.inodes.get_mut(&id) {
            for copy in [&mut inode.seen, &mut inode.durable] {
                if let Some(byte) = copy.get_mut(at) {
                    *byte ^= 1;
                }
            }
        }
    }
}

/// `/a/b` for `a/./b`: the disk has no working folder and no links.
fn absolute(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let path = absolute(path);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    Ok((parent(&path).to_owned(), name))
}

fn power_off() -> io::Error {
    io::Error::other("simulated power loss")
}

impl Platter {
    /// Called first by everything: applies power loss and planned errors. `Ok(true)` means that this call is the one in which
    /// the power fails: it may do a part of its work and must then return [`power_off`].
    fn enter(&mut self, operation: Operation) -> io::Result<bool> {
        if self.down {
            return Err(power_off());
        }
        if operation == Operation::Read {
            return self.planned(operation).map(|()| false);
        }
        let dying = self.crash_at == Some(self.changes);
        self.changes += 1;
        if dying {
            self.down = true;
            self.crash_at = None;
            return Ok(true);
        }
        self.planned(operation).map(|()| false)
    }

    fn planned(&mut self, operation: Operation) -> io::Result<()> {
        let mut due = None;
        for (index, fault) in self.faults.iter_mut().enumerate().filter(|(_, fault)| fault.on == operation) {
            match fault.after.checked_sub(1) {
                Some(left) => fault.after = left,
                None => due = due.or(Some(index)),
            }
        }
        match due {
            Some(index) => Err(self.faults.remove(index).error.into()),
            None => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Name> {
        let path = absolute(path);
        if path == Path::new("/") {
            return Ok(Name::Folder);
        }
        let (dir, name) = split(&path)?;
        let folder = self.folders.get(&dir).ok_or(io::ErrorKind::NotFound)?;
        folder.seen.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, dir: &Path, renaming: Renaming) -> io::Result<()> {
        let folder = self.folders.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        renaming.apply(&mut folder.seen);
        folder.pending.push(renaming);
        Ok(())
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.seen.len() as u64).sum()
    }

    fn write(&mut self, id: u64, bytes: &[u8], offset: usize) -> io::Result<()> {
        let entered = self.enter(Operation::Write);
        let partial = !matches!(entered, Ok(false));
        if entered.is_err() && self.down {
            return entered.map(drop);
        }
        let mut take = if partial { self.rng.index(bytes.len() + 1) } else { bytes.len() };
        let length = self.inodes.get(&id).map_or(0, |inode| inode.seen.len());
        let mut full = false;
        if let Some(capacity) = self.capacity {
            let room = usize::try_from(capacity.saturating_sub(self.used())).unwrap_or(usize::MAX);
            let fits = (length + room).saturating_sub(offset);
            full = take > fits;
            take = take.min(fits);
        }
        if let Some(inode) = self.inodes.get_mut(&id)
            && take > 0
        {
            let change = Change::Write { offset, bytes: bytes[..take].to_vec() };
            change.apply(&mut inode.seen);
            inode.pending.push(change);
        }
        match entered {
            Err(error) => Err(error),
            Ok(true) => Err(power_off()),
            Ok(false) if full => Err(io::ErrorKind::StorageFull.into()),
            Ok(false) => Ok(()),
        }
    }

    fn crash(&mut self) {
        self.life += 1;
        self.down = false;
        self.crash_at = None;
        self.faults.clear();
        let rng = &mut self.rng;
        for inode in self.inodes.values_mut() {
            for change in std::mem::take(&mut inode.pending) {
                change.tear(&mut inode.durable, rng);
            }
            inode.seen.clone_from(&inode.durable);
        }
        for folder in self.folders.values_mut() {
            for renaming in std::mem::take(&mut folder.pending) {
                if rng.chance(1, 2) {
                    renaming.apply(&mut folder.durable);
                }
            }
            folder.seen.clone_from(&folder.durable);
        }
        // A folder whose name did not survive is gone with what it holds; a name may outlive a folder made again empty.
        let mut kept = BTreeMap::new();
        let mut open = vec![PathBuf::from("/")];
        while let Some(dir) = open.pop() {
            let folder = self.folders.remove(&dir).unwrap_or_default();
            open.extend(folder.seen.iter().filter(|(_, name)| **name == Name::Folder).map(|(name, _)| dir.join(name)));
            kept.insert(dir, folder);
        }
        self.folders = kept;
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, Name>) {
        for (name, to) in &self.0 {
            match to {
                Some(to) => names.insert(name.clone(), *to),
                None => names.remove(name),
            };
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// Applies what a crash leaves of an unsynced change: all, nothing, or some of the sectors; the rest of a grown file is zeros.
    fn tear(&self, content: &mut Vec<u8>, rng: &mut Rng) {
        let mode = rng.below(3);
        match self {
            _ if mode == 0 => self.apply(content),
            _ if mode == 1 => {}
            Self::Length(_) => {
                if rng.chance(1, 2) {
                    self.apply(content);
                }
            }
            Self::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
                    if rng.chance(1, 2) {
                        Self::Write { offset: offset + at, bytes: bytes[at..end].to_vec() }.apply(content);
                    }
                    at = end;
                }
            }
        }
    }
}

struct Handle {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

impl Handle {
    fn platter(&self) -> io::Result<parking_lot::MutexGuard<'_, Platter>> {
        let platter = self.disk.0.lock();
        if platter.life == self.life { Ok(platter) } else { Err(power_off()) }
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut platter = self.0.lock();
        let dying = platter.enter(Operation::Create)?;
        let (dir, name) = split(path)?;
        if platter.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = platter.next_inode;
        platter.change_names(&dir, Renaming(vec![(name, Some(Name::File(inode)))]))?;
        platter.next_inode += 1;
        platter.inodes.insert(inode, Inode::default());
        if dying {
            return Err(power_off());
        }
        Ok(Arc::new(Handle { disk: self.clone(), inode, life: platter.life }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let platter = self.0.lock();
        if platter.down {
            return Err(power_off());
        }
        match platter.find(path)? {
            Name::File(inode) => Ok(Arc::new(Handle { disk: self.clone(), inode, life: platter.life })),
            Name::Folder => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platter = self.0.lock();
        let dying = platter.enter(Operation::Rename)?;
        let file = platter.find(from)?;
        if file == Name::Folder {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the simulated disk renames files only"));
        }
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        if platter.find(to).is_ok_and(|name| name == Name::Folder) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from_dir == to_dir {
            let steps = if from_name == to_name { vec![] } else { vec![(from_name, None), (to_name, Some(file))] };
            platter.change_names(&from_dir, Renaming(steps))?;
        } else {
            platter.change_names(&to_dir, Renaming(vec![(to_name, Some(file))]))?;
            platter.change_names(&from_dir, Renaming(vec![(from_name, None)]))?;
        }
        if dying { Err(power_off()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.0.lock();
        let dying = platter.enter(Operation::Remove)?;
        if platter.find(path)? == Name::Folder {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (dir, name) = split(path)?;
        platter.change_names(&dir, Renaming(vec![(name, None)]))?;
        if dying { Err(power_off()) } else { Ok(()) }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.0.lock();
        let dying = platter.enter(Operation::CreateDir)?;
        let mut at = PathBuf::from("/");
        for component in absolute(path).components().skip(1) {
            let name = component.as_os_str().to_string_lossy().into_owned();
            let dir = at.clone();
            at.push(&name);
            match platter.find(&at) {
                Ok(Name::Folder) => continue,
                Ok(Name::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(_) => {}
            }
            platter.change_names(&dir, Renaming(vec![(name, Some(Name::Folder))]))?;
            platter.folders.insert(at.clone(), Folder::default());
        }
        if dying { Err(power_off()) } else { Ok(()) }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.0.lock();
        let dying = platter.enter(Operation::Remove)?;
        let path = absolute(path);
        match platter.folders.get(&path) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(folder) if !folder.seen.is_empty() => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Some(_) => {}
        }
        let (dir, name) = split(&path)?;
        platter.change_names(&dir, Renaming(vec![(name, None)]))?;
        if dying { Err(power_off()) } else { Ok(()) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let platter = self.0.lock();
        if platter.down {
            return Err(power_off());
        }
        if platter.find(dir)? != Name::Folder {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let folder = platter.folders.get(&absolute(dir)).ok_or(io::ErrorKind::NotFound)?;
        let entry = |(name, what): (&String, &Name)| Entry {
            path: dir.join(name),
            name: name.clone(),
            is_dir: *what == Name::Folder,
            len: match what {
                Name::File(id) => platter.inodes.get(id).map_or(0, |inode| inode.seen.len() as u64),
                Name::Folder => 0,
            },
        };
        Ok(folder.seen.iter().map(entry).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut platter = self.0.lock();
        let dying = platter.enter(Operation::SyncDir)?;
        let folder = platter.folders.get_mut(&absolute(dir)).ok_or(io::ErrorKind::NotFound)?;
        if dying {
            return Err(power_off());
        }
        folder.durable.clone_from(&folder.seen);
        folder.pending.clear();
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let platter = self.0.lock();
        if platter.down { Err(power_off()) } else { Ok(platter.find(path).is_ok()) }
    }
}

impl File for Handle {
    fn append(&self, parts: &[&[u8]]) -> io::Result<u64> {
        let mut platter = self.platter()?;
        let start = platter.inodes.get(&self.inode).map_or(0, |inode| inode.seen.len());
        platter.write(self.inode, &parts.concat(), start)?;
        Ok(start as u64)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|source| io::Error::new(io::ErrorKind::FileTooLarge, source))?;
        self.platter()?.write(self.inode, bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut platter = self.platter()?;
        platter.enter(Operation::Read)?;
        let content = platter.inodes.get(&self.inode).map_or(&[][..], |inode| &inode.seen);
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or(&[]);
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter()?;
        let entered = platter.enter(Operation::SyncData);
        let down = platter.down;
        let Some(inode) = platter.inodes.get_mut(&self.inode) else { return Ok(()) };
        match entered {
            Ok(false) => {
                for change in std::mem::take(&mut inode.pending) {
                    change.apply(&mut inode.durable);
                }
                Ok(())
            }
            Ok(true) => Err(power_off()),
            Err(error) if down => Err(error),
            Err(error) => {
                // The kernel marks the pages clean: they can be read, and no later sync writes them.
                inode.pending.clear();
                Err(error)
            }
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut platter = self.platter()?;
        let dying = platter.enter(Operation::Truncate)?;
        let length = usize::try_from(length).map_err(|source| io::Error::new(io::ErrorKind::FileTooLarge, source))?;
        if let Some(inode) = platter.inodes.get_mut(&self.inode) {
            let change = Change::Length(length);
            change.apply(&mut inode.seen);
            inode.pending.push(change);
        }
        if dying { Err(power_off()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        let platter = self.platter()?;
        if platter.down {
            return Err(power_off());
        }
        Ok(platter.inodes.get(&self.inode).map_or(0, |inode| inode.seen.len() as u64))
    }
}

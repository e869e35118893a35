use super::*;

const DIR: &str = "/d";

fn sim(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// The promises that hold without a crash, for every implementation.
fn contract(disk: &dyn Disk, root: &Path) {
    let (a, b) = (root.join("a"), root.join("b"));
    assert_eq!(disk.open(&a).err().unwrap().kind(), io::ErrorKind::NotFound);
    let file = disk.create(&a).unwrap();
    assert_eq!(disk.create(&a).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(file.append(&[b"one"]).unwrap(), 0);
    assert_eq!(file.append(&[b"", b"two", b"three"]).unwrap(), 3);
    file.write_at(b"O", 0).unwrap();
    file.write_at(b"!", 12).unwrap();
    assert_eq!(file.append(&[b"end"]).unwrap(), 13);
    file.sync_data().unwrap();
    assert_eq!(disk.read(&a).unwrap(), b"Onetwothree\0!end");
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(&mut buffer, 13).unwrap(), 3);
    assert_eq!(file.read_at(&mut buffer, 99).unwrap(), 0);
    assert_eq!(file.read_exact_at(&mut buffer, 13).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    file.truncate(3).unwrap();
    assert_eq!(file.append(&[b"x"]).unwrap(), 3);
    disk.rename(&a, &b).unwrap();
    disk.sync_dir(root).unwrap();
    disk.create_dir_all(&root.join("sub/deep")).unwrap();
    let names: Vec<_> =
        disk.list(root).unwrap().into_iter().map(|entry| (entry.name, entry.is_dir, entry.len)).collect();
    assert_eq!(names, [("b".to_owned(), false, 4), ("sub".to_owned(), true, 0)]);
    assert!(disk.remove_dir(&root.join("sub")).is_err());
    disk.remove_dir(&root.join("sub/deep")).unwrap();
    disk.replace(&b, b"new").unwrap();
    assert_eq!(disk.read(&b).unwrap(), b"new");
    assert!(!disk.exists(&root.join("b.tmp")).unwrap());
    disk.remove(&b).unwrap();
    assert!(!disk.exists(&b).unwrap());
    assert_eq!(disk.remove(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_simulated_disk_keeps_the_contract() {
    contract(&sim(1), Path::new(DIR));
}

#[test]
fn the_real_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&StdDisk, dir.path());
}

#[test]
fn synced_bytes_under_a_synced_name_survive_every_crash() {
    for seed in 0..200 {
        let disk = sim(seed);
        let file = disk.create(&path("log")).unwrap();
        file.append(&[&[1; 700]]).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        file.append(&[&[2; 2000]]).unwrap();
        disk.crash();
        let content = disk.read(&path("log")).unwrap();
        assert_eq!(&content[..700], &[1; 700], "seed {seed}");
        assert!(content[700..].iter().all(|byte| [0, 2].contains(byte)), "seed {seed}");
    }
}

#[test]
fn unsynced_bytes_are_sometimes_kept_sometimes_torn_and_sometimes_lost() {
    let (mut whole, mut torn, mut lost) = (0, 0, 0);
    for seed in 0..200 {
        let disk = sim(seed);
        let file = disk.create(&path("log")).unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        file.append(&[&[2; 3000]]).unwrap();
        disk.crash();
        match disk.read(&path("log")).unwrap() {
            content if content.is_empty() => lost += 1,
            content if content == [2; 3000] => whole += 1,
            _ => torn += 1,
        }
    }
    assert!(whole > 20 && torn > 20 && lost > 20, "{whole} whole, {torn} torn, {lost} lost");
}

#[test]
fn a_name_is_durable_only_after_its_folder_is_synced() {
    let survivors = (0..100)
        .filter(|seed| {
            let disk = sim(*seed);
            let file = disk.create(&path("log")).unwrap();
            file.append(&[b"data"]).unwrap();
            file.sync_data().unwrap();
            disk.crash();
            disk.exists(&path("log")).unwrap()
        })
        .count();
    assert!((20..80).contains(&survivors), "{survivors}");
}

#[test]
fn a_replaced_file_is_old_or_new_wherever_the_power_fails() {
    for seed in 0..20 {
        for at in 0..6 {
            let disk = sim(seed);
            disk.replace(&path("meta"), b"old").unwrap();
            disk.crash_at(at);
            let done = disk.replace(&path("meta"), b"new").is_ok();
            disk.crash();
            let content = disk.read(&path("meta")).unwrap();
            assert!(content == b"new" || (!done && content == b"old"), "seed {seed} at {at}: {content:?}");
        }
    }
}

#[test]
fn after_a_failed_sync_the_bytes_are_lost_although_a_second_sync_succeeds() {
    let disk = sim(3);
    let file = disk.create(&path("log")).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file.append(&[b"gone"]).unwrap();
    disk.inject(Fault { on: Operation::SyncData, after: 0, error: io::ErrorKind::Other });
    assert!(file.sync_data().is_err());
    assert_eq!(disk.read(&path("log")).unwrap(), b"gone");
    file.sync_data().unwrap();
    disk.crash();
    assert_eq!(disk.read(&path("log")).unwrap(), b"");
}

#[test]
fn a_full_disk_refuses_and_leaves_the_part_that_fitted() {
    let disk = sim(3);
    disk.set_capacity(Some(10));
    let file = disk.create(&path("log")).unwrap();
    file.append(&[b"12345678"]).unwrap();
    assert_eq!(file.append(&[b"9abcdef"]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 10);
    disk.set_capacity(None);
    file.append(&[b"!"]).unwrap();
}

#[test]
fn a_crash_ends_every_handle_and_every_call_until_the_power_is_back() {
    let disk = sim(4);
    let file = disk.create(&path("log")).unwrap();
    disk.crash_at(1);
    file.append(&[b"a"]).unwrap();
    assert!(file.append(&[b"b"]).is_err());
    assert!(disk.is_down());
    assert!(disk.list(Path::new(DIR)).is_err());
    disk.crash();
    assert!(!disk.is_down());
    assert!(file.len().is_err());
    assert!(disk.list(Path::new(DIR)).is_ok());
}

#[test]
fn the_same_seed_and_calls_leave_the_same_disk() {
    let run = || {
        let disk = sim(11);
        for name in ["a", "b", "c", "d"] {
            disk.create(&path(name)).unwrap().append(&[&[7; 5000]]).unwrap();
        }
        disk.crash();
        disk.list(Path::new(DIR)).unwrap().into_iter().map(|entry| disk.read(&entry.path).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_folder_that_was_not_synced_may_vanish_with_its_files() {
    let vanished = (0..50)
        .filter(|seed| {
            let disk = SimDisk::new(*seed);
            disk.create_dir_all(Path::new("/x/y")).unwrap();
            disk.create(Path::new("/x/y/f")).unwrap();
            disk.sync_dir(Path::new("/x/y")).unwrap();
            disk.crash();
            !disk.exists(Path::new("/x/y/f")).unwrap()
        })
        .count();
    assert!(vanished > 10, "{vanished}");
}
